"""Empty, wrong-size or out-of-range mask: an error that names it, or an image without a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn.data import MaskedImageDataModule, MaskedImageDataset, Record
from guidedattn.errors import DataError


def sample(folder: Path, mask: np.ndarray) -> MaskedImageDataset:
    Image.new("L", (20, 10), 99).save(folder / "image.png")
    Image.fromarray(mask).save(folder / "mask.tif")
    return MaskedImageDataset([Record(folder / "image.png", "x", "s", mask=folder / "mask.tif")], ["x"], 8)


def test_a_mask_of_another_size_is_named_with_its_image(tmp_path: Path) -> None:
    dataset = sample(tmp_path, np.full((20, 10), 255, np.uint8))
    with pytest.raises(
        DataError, match=r"mask\.tif: the mask is 10 x 20 pixels, its image 20 x 10 .*image\.png"
    ):
        dataset[0]


def test_an_empty_mask_is_no_mask_and_is_told(tmp_path: Path) -> None:
    dataset = sample(tmp_path, np.zeros((10, 20), np.uint8))
    with pytest.warns(UserWarning, match=r"mask\.tif: the mask is empty, so .*image\.png"):
        read = dataset[0]
    assert not read["has_mask"]
    assert not read["mask"].any()


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.full((10, 20), 3, np.uint8), "brightest value of the mask is 3 of 255"),
        (np.full((10, 20), np.nan, np.float32), "not finite"),
        (np.full((10, 20), 255, np.float32), "from 255 to 255, expected 0 to 1"),
        (np.full((10, 20), -1, np.float32), "expected 0 to 1"),
    ],
    ids=["label map", "NaN", "too large", "negative"],
)
def test_a_mask_out_of_range_is_named(tmp_path: Path, mask: np.ndarray, reason: str) -> None:
    dataset = sample(tmp_path, mask)
    with pytest.raises(DataError, match=rf"mask\.tif: .*{reason}.*image\.png"):
        dataset[0]


def test_a_mask_that_is_listed_but_absent_is_counted(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,label,mask\na.png,x,masks/a.png\n")
    data = MaskedImageDataModule(manifest=tmp_path / "list.csv")
    assert [record.mask for record in data.records] == [None]
    assert data.report.notes["mask listed but not on disk, so the image counts as one without"] == [
        str(tmp_path / "masks/a.png")
    ]
