"""`guidedattn data sheet`: a page of films."""

import numpy as np
import pytest
from PIL import Image

from guidedattn.cli import main


@pytest.fixture
def manifest(tmp_path):
    rows = ["path,label,mask"]
    for i in range(7):
        shade = np.full((40, 30), 20 * i + 60, np.uint8)
        Image.fromarray(shade).save(tmp_path / f"{i}.png")
        inside = np.zeros((40, 30), np.uint8)
        inside[10:30, 8:22] = 255
        Image.fromarray(inside).save(tmp_path / f"{i}-mask.png")
        rows.append(f"{i}.png,{'a' if i < 5 else 'b'},{f'{i}-mask.png' if i else ''}")
    (tmp_path / "films.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "films.csv"


def turquoise(path):
    """Pixels in the colour of the outlines."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.abs(pixels - (0x40, 0xE0, 0xD0)).max(2) < 40).sum())


def test_a_sheet_shows_films_and_outlines(manifest, tmp_path):
    words = ["data", "sheet", "--manifest", str(manifest), "--columns", "3"]
    assert main([*words, "--output", str(tmp_path / "all.png")]) == 0
    assert main([*words, "--output", str(tmp_path / "b.png"), "--label", "b", "--rows", "1"]) == 0
    everything, two = Image.open(tmp_path / "all.png"), Image.open(tmp_path / "b.png")
    assert everything.width == two.width
    assert everything.height > 2 * two.height
    assert turquoise(tmp_path / "all.png") > 2 * turquoise(tmp_path / "b.png") > 0


def test_mistakes_cost_one_line(manifest, capsys):
    assert main(["data", "sheet", "--manifest", str(manifest), "--label", "c"]) == 2
    assert "no film of class 'c'" in capsys.readouterr().err
    assert main(["data", "sheet", "--manifest", str(manifest), "--output", "sheet.doc"]) == 2
    assert "a sheet is a .png, .svg or .pdf" in capsys.readouterr().err
