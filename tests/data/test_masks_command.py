"""`guidedattn data masks`: files at the images' sizes, and a manifest that trains."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn.cli import main
from guidedattn.data import MaskedImageDataModule, read_mask

SIZES = {"wide.png": (60, 40), "tall.png": (30, 50), "dark.png": (40, 40)}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Films that are bright in their left half, and one that is black."""
    (tmp_path / "films").mkdir()
    rows = ["path,label,patient,split,note"]
    for name, (width, height) in SIZES.items():
        pixels = np.zeros((height, width), dtype=np.uint8)
        if name != "dark.png":
            pixels[:, : width // 2] = 255
        Image.fromarray(pixels).save(tmp_path / "films" / name)
        rows.append(f"films/{name},cat,p-{name},train,seen")
    path = tmp_path / "list.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def words(manifest: Path, output: Path, *more: str) -> list[str]:
    provider = ["--provider", "tests.model.test_mask_cache.Bright", "--provider.threshold", "0.5"]
    return ["data", "masks", "--manifest", str(manifest), "--output", str(output), *provider, *more]


def test_masks_have_the_sizes_of_their_images_and_the_manifest_keeps_its_columns(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "masks"
    assert main(words(manifest, output, "--image_size", "32", "--batch_size", "2")) == 0
    assert "2 masks, 1 images without one" in capsys.readouterr().out
    rows = list(csv.DictReader((output / "manifest.csv").open()))
    assert [row["path"] for row in rows] == [f"../../films/{name}" for name in SIZES]
    assert {row["note"] for row in rows} == {"seen"}
    assert rows[2]["mask"] == ""
    for row in rows[:2]:
        width, height = SIZES[Path(row["path"]).name]
        mask = read_mask(output / row["mask"], (height, width))[0]
        left = np.arange(width) < width // 2
        assert np.abs(mask.numpy() - left).mean() < 0.08  # a pixel or two at the edges
    data = MaskedImageDataModule(manifest=output / "manifest.csv", image_size=16)
    assert [record.mask is not None for record in data.records] == [True, True, False]


def test_an_earlier_run_is_not_overwritten_unless_told(manifest: Path, tmp_path: Path) -> None:
    output = tmp_path / "masks"
    assert main(words(manifest, output)) == 0
    assert main(words(manifest, output)) == 2
    assert main(words(manifest, output, "--overwrite", "true")) == 0


def test_mistakes_cost_one_line(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = ["data", "masks", "--manifest", str(manifest), "--output", str(tmp_path / "m")]
    assert main([*start, "--provider", "UNetMask", "--provider.weights", "absent.ckpt"]) == 2
    assert capsys.readouterr().err == "guidedattn: error: checkpoint absent.ckpt does not exist\n"
    assert main([*start, "--provider", "BatchMask"]) == 2
    assert "BatchMask does not make its masks from the image alone" in capsys.readouterr().err
    (tmp_path / "films" / "wide.png").write_text("nothing")
    for workers in ("0", "1"):
        assert main(words(manifest, tmp_path / "m", "--num_workers", workers)) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"guidedattn: error: {tmp_path}/films/wide.png: not an image")
        assert error.count("\n") == 1
    assert not (tmp_path / "m" / "manifest.csv").exists()
