"""The data module of the generated films: the embedded default that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from torch import nn

from guidedattn.data.module import ImageDataModule, SplitName
from guidedattn.data.phantoms.dataset import Marker, PhantomDataset, check_marker, phantom_name
from guidedattn.data.phantoms.film import CLASS_NAMES, phantom_label
from guidedattn.data.records import Record
from guidedattn.data.report import Report
from guidedattn.errors import ConfigError


class PhantomDataModule(ImageDataModule):
    """Chest-like phantom films with exact lung masks, drawn on the fly; one class per image.

    Classes: `clear`, `nodular` (a few round opacities), `diffuse` (patchy opacity of both lungs). Without
    a marker, the default, the class shows in the lungs alone.

    Args:
        train_size: Images to train on.
        val_size: Images to validate on, with the marker of training.
        test_size: Images to test on.
        image_size: Side of the square films in pixels.
        batch_size: Images in a batch, per process.
        num_workers: Worker processes per loader; after the first epoch 0 is the fastest.
        seed: Decides all images and the order of the training images. Splits and seeds share no image.
        marker: Marker of training and validation: `matched`, `absent` or `swapped`.
        marker_probability: With `matched`, share of training and validation images whose marker agrees
            with their class.
        test_marker: Marker of the test images, there without exceptions; that of `marker` without it.
            The films are otherwise the same in all three modes.
        mask_fraction: Share of the training images that have a mask; the other splits have all.
        augment: Any torchvision v2 transform, called on `{"image": tv_tensors.Image, "mask":
            tv_tensors.Mask}` of the training images; none without it.
        predict_split: The split that `predict` runs on.
    """

    def __init__(
        self,
        train_size: int = 1200,
        val_size: int = 300,
        test_size: int = 600,
        image_size: int = 96,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        marker: Marker = "absent",
        marker_probability: float = 1.0,
        test_marker: Marker | None = None,
        mask_fraction: float = 1.0,
        augment: nn.Module | None = None,
        predict_split: SplitName = "test",
    ) -> None:
        super().__init__(
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            augment=augment,
            predict_split=predict_split,
        )
        self.sizes: dict[SplitName, int] = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            if size < 1:
                raise ConfigError(f"{split}_size must be at least 1, got {size}")
        check_marker("marker", marker)
        check_marker("test_marker", marker if test_marker is None else test_marker)
        self.marker, self.marker_probability, self.mask_fraction = marker, marker_probability, mask_fraction
        self.test_marker: Marker = marker if test_marker is None else test_marker
        self._datasets: dict[tuple[SplitName, Marker], PhantomDataset] = {}

    def known_classes(self) -> Sequence[str]:
        """Return the three classes."""
        return CLASS_NAMES

    def list_records(self, report: Report) -> list[Record]:
        """List the films as if they were files, so that manifest and checks work as for real images."""
        records = []
        for split, size in self.sizes.items():
            seed = self.split_seed(split)
            for index in range(size):
                name = phantom_name(seed, index)
                label = CLASS_NAMES[phantom_label(seed, index)]
                records.append(Record(Path(name), label, "phantoms", patient=name, split=split))
        report.listed["phantoms"] = len(records)
        return records

    def split_seed(self, split: SplitName) -> int:
        """Stream of a split; no other split of any other seed has it."""
        return 3 * self.seed + get_args(SplitName).index(split)

    def make_dataset(self, split: SplitName, marker: Marker | None = None) -> PhantomDataset:
        """Return the films of a split, drawn once and kept.

        Args:
            split: `train`, `val` or `test`.
            marker: Another marker than that of the split, on the same films.
        """
        testing = split == "test"
        marker = marker or (self.test_marker if testing else self.marker)
        if (split, marker) not in self._datasets:
            self._datasets[split, marker] = PhantomDataset(
                self.sizes[split],
                self.split_seed(split),
                self.image_size,
                marker,
                1.0 if testing else self.marker_probability,
                self.mask_fraction if split == "train" else 1.0,
                transform=self.augment if split == "train" else None,
            )
        dataset = self._datasets[split, marker]
        if self.num_workers:
            dataset.draw_all()
        return dataset
