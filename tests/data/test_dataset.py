from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from guidedattn.data import Augment, MaskedImageDataset, Record
from guidedattn.errors import DataError


def write(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    """One image with a mask and one without; the mask is where the first image is bright."""
    bright = np.zeros((16, 16), np.uint8)
    bright[4:12, 2:6] = 255
    first = write(tmp_path / "a.png", bright)
    second = write(tmp_path / "b.png", np.full((20, 10), 51, np.uint8))
    return [Record(first, "x", "s", mask=write(tmp_path / "m.png", bright)), Record(second, "y", "s")]


def test_a_batch_is_what_the_models_expect(records: list[Record]) -> None:
    batch = next(iter(DataLoader(MaskedImageDataset(records, ["y", "x"], 16), batch_size=2)))
    assert {key: (type(v), v.dtype, tuple(v.shape)) for key, v in batch.items() if key != "path"} == {
        "image": (torch.Tensor, torch.float32, (2, 1, 16, 16)),
        "label": (torch.Tensor, torch.int64, (2,)),
        "mask": (torch.Tensor, torch.float32, (2, 1, 16, 16)),
        "has_mask": (torch.Tensor, torch.bool, (2,)),
        "index": (torch.Tensor, torch.int64, (2,)),
    }
    assert batch["path"] == [str(record.path) for record in records]
    assert batch["label"].tolist() == [1, 0]
    assert batch["has_mask"].tolist() == [True, False]
    assert torch.equal(batch["image"][0], batch["mask"][0])
    assert not batch["mask"][1].any()
    torch.testing.assert_close(batch["image"][1], torch.full((1, 16, 16), 0.2))


def test_several_labels_become_zeros_and_ones(records: list[Record]) -> None:
    several = [Record(records[0].path, "x|z", "s"), Record(records[1].path, "", "s")]
    batch = next(iter(DataLoader(MaskedImageDataset(several, "xyz", 8, multi_label=True), batch_size=2)))
    assert batch["label"].dtype == torch.float32
    assert batch["label"].tolist() == [[1, 0, 1], [0, 0, 0]]
    with pytest.raises(DataError, match="multi_label"):
        MaskedImageDataset(several, "xyz")


def test_a_label_that_is_no_class_is_named_with_its_file(records: list[Record]) -> None:
    with pytest.raises(DataError, match=r"a\.png: label 'x' .*did you mean xx"):
        MaskedImageDataset(records, ["xx", "y"])


def test_augmentation_moves_image_and_mask_as_one(records: list[Record]) -> None:
    torch.manual_seed(0)
    still = MaskedImageDataset(records, "xy", 64)[0]
    moving = Augment(degrees=20, translate=0.2, scale=(0.8, 1.2), brightness=0, contrast=0, flip=0.5)
    moved = [MaskedImageDataset(records, "xy", 64, transform=moving)[0] for _ in range(10)]
    for sample in moved:
        assert type(sample["image"]) is type(sample["mask"]) is torch.Tensor
        inside = (sample["image"] > 0.5).float()
        overlap = (inside * sample["mask"]).sum() / torch.maximum(inside, sample["mask"].round()).sum()
        assert overlap > 0.9
        assert not torch.equal(sample["mask"], still["mask"])


def test_exposure_changes_the_image_alone(records: list[Record]) -> None:
    torch.manual_seed(0)
    exposure = Augment(degrees=0, translate=0, scale=(1, 1), brightness=0.5, contrast=0.5)
    sample = MaskedImageDataset(records, "xy", 16, transform=exposure)[1]
    assert not torch.allclose(sample["image"], torch.full((1, 16, 16), 0.2))
    assert 0 <= sample["image"].min() <= sample["image"].max() <= 1
    masked: dict[str, Any] = MaskedImageDataset(records, "xy", 16, transform=exposure)[0]
    assert torch.equal(masked["mask"], MaskedImageDataset(records, "xy", 16)[0]["mask"])


def test_any_v2_transform_serves(records: list[Record]) -> None:
    flip = MaskedImageDataset(records, "xy", 16, transform=v2.RandomHorizontalFlip(1.0))[0]
    plain = MaskedImageDataset(records, "xy", 16)[0]
    assert torch.equal(flip["image"], plain["image"].flip(-1))
    assert torch.equal(flip["mask"], plain["mask"].flip(-1))
