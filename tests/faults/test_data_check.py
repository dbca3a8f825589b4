"""A data check lists every bad row with path and reason, and exits 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn.cli import main
from guidedattn.data import Collection, Manifest, build_manifest

SOUND = 40


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Forty sound films with masks, and a digest of each."""
    rng = np.random.default_rng(0)
    rows = ["path,label,mask,patient"]
    for i in range(SOUND):
        Image.fromarray(rng.integers(0, 256, (9, 8), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        Image.new("L", (8, 9), 255).save(tmp_path / f"{i}_mask.png")
        rows.append(f"{i}.png,{'xy'[i % 2]},{i}_mask.png,p{i // 2}")
    (tmp_path / "rows.csv").write_text("\n".join(rows))
    return build_manifest(Collection.at(tmp_path / "rows.csv"), tmp_path / "list.csv")[0]


def spoil(root: Path) -> dict[str, str]:
    """Break seven films in seven ways; the reason that each must be listed with."""
    half = (root / "0.png").read_bytes()
    (root / "0.png").write_bytes(half[: len(half) // 2])
    (root / "1.png").write_bytes(b"")
    (root / "2.png").write_text("not an image")
    (root / "3.png").unlink()
    Image.new("L", (8, 9), 7).save(root / "4.png")
    Image.new("L", (9, 8), 255).save(root / "5_mask.png")
    Image.new("L", (8, 9), 0).save(root / "6_mask.png")
    return {
        "0.png": "cannot be decoded",
        "1.png": "the file is empty",
        "2.png": "not an image",
        "3.png": "no such file",
        "4.png": "another SHA-256",
        "5.png": "the mask is 9 x 8 pixels, its image 8 x 9",
        "6.png": "the mask is empty",
    }


@pytest.mark.parametrize("processes", ["1", "2"])
def test_every_bad_row_is_listed_with_its_reason(
    manifest: Path, capsys: pytest.CaptureFixture[str], processes: str
) -> None:
    assert main(["data", "verify", "--root", str(manifest), "--processes", processes]) == 0
    capsys.readouterr()
    reasons = spoil(manifest.parent)
    assert main(["data", "verify", "--root", str(manifest), "--processes", processes]) == 1
    *faults, summary = capsys.readouterr().out.splitlines()
    assert summary == f"{SOUND} images read, {len(reasons)} faults"
    assert len(faults) == len(reasons)
    for name, reason in reasons.items():
        (line,) = [fault for fault in faults if fault.startswith(f"{manifest.parent / name}: ")]
        assert reason in line


def test_a_root_is_checked_like_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Normal", "Pneumonia"):
        (tmp_path / "films" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "films" / name / "a.png")
    (tmp_path / "films" / "Normal" / "b.png").write_bytes(b"GIF89a")
    assert main(["data", "verify", "--root", str(tmp_path), "--processes", "1"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "3 images read, 1 faults"
    assert "Normal/b.png: " in out[-2]


def test_a_patient_on_two_sides_is_a_fault_unless_it_is_meant(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Manifest.read(manifest)
    table.table.loc[0, "split"] = "test" if table.table.loc[0, "split"] != "test" else "train"
    table.write(manifest)
    assert main(["data", "verify", "--root", str(manifest), "--processes", "1"]) == 1
    assert "1 in more than one split: patient manifest/p0" in capsys.readouterr().out
    assert main(["data", "verify", "--root", str(manifest), "--processes", "1", "--leaks", "false"]) == 0


def test_rows_that_contradict_are_faults(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["path,label,split", "0.png,x,train", "0.png,x,train", "1.png,,train", "2.png,x,training"]
    (manifest.parent / "bad.csv").write_text("\n".join(lines))
    assert main(["data", "verify", "--root", str(manifest.parent / "bad.csv"), "--processes", "1"]) == 1
    out = capsys.readouterr().out
    for line in ("0.png: listed 2 times", "1.png: no label", "2.png: split 'training' is not one of"):
        assert line in out
