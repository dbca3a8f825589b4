"""Truncated, empty or non-image file: one short error names the path, and no worker hangs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn.data import MaskedImageDataModule, read_image, read_mask
from guidedattn.errors import DataError


def noise(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save(path)
    return path


def truncated(path: Path) -> None:
    data = noise(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


FAULTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated png": ("a.png", truncated, "cannot be decoded"),
    "truncated jpeg": ("a.jpg", truncated, "cannot be decoded"),
    "truncated tiff": ("a.tif", truncated, "."),
    "empty": ("a.png", lambda path: path.write_bytes(b""), "the file is empty"),
    "text": ("a.png", lambda path: path.write_text("not an image"), "not an image"),
    "missing": ("a.png", lambda path: None, "no such file"),
    "folder": ("a.png", lambda path: path.mkdir(), "a folder"),
    "not finite": (
        "a.tif",
        lambda path: Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path),
        "not finite",
    ),
    "out of range": (
        "a.tif",
        lambda path: Image.fromarray(np.full((4, 4), 1500, np.float32)).save(path),
        "expected 0 to 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_the_error_is_one_line_with_path_and_reason(
    tmp_path: Path, fault: str, read: Callable[[Path], object]
) -> None:
    name, spoil, reason = FAULTS[fault]
    spoil(tmp_path / name)
    with pytest.raises(DataError, match=reason) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    noise(tmp_path / "a.png").chmod(0)
    with pytest.raises(DataError, match="Permission denied"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_stops_with_one_line_whatever_the_number_of_workers(
    tmp_path: Path, num_workers: int
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(10):
            noise(tmp_path / name / f"{i}.png")
    data = MaskedImageDataModule(root=tmp_path, image_size=8, batch_size=4, num_workers=num_workers)
    broken = next(record.path for record in data.records if record.split == "train")
    truncated(broken)
    with pytest.raises(DataError) as caught:
        list(data.train_dataloader())
    assert str(caught.value).startswith(f"{broken}: the image cannot be decoded")
    assert "\n" not in str(caught.value)
