"""The part that all data modules share: records to splits, splits to datasets, datasets to loaders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.utils.data import DataLoader

from guidedattn.data.base import ImageDataset, StoredMasks
from guidedattn.data.cache import TensorCache
from guidedattn.data.dataset import MaskedImageDataset
from guidedattn.data.loaders import evaluation_loader, train_loader
from guidedattn.data.records import COLUMNS, Record, in_bulk
from guidedattn.data.report import Report
from guidedattn.data.splits import PatientSplit, Splitter, require_classes
from guidedattn.errors import ConfigError

SplitName = Literal["train", "val", "test"]


class ImageDataModule(LightningDataModule):
    """Images, labels and, for some of them, masks, served in the batch dict that the models expect.

    A subclass over files writes `list_records`; one that makes its images (no files) overrides `setup`,
    `class_names` and `make_dataset`. A batch is a dict of `image` float32 `[B, C, H, W]` in [0, 1] (not
    normalised: mean and standard deviation belong to the backbone), `label` int64 `[B]` (multi-label:
    float32 `[B, K]`), `mask` float32 `[B, 1, H, W]` in [0, 1], `has_mask` bool `[B]`, `index` int64
    `[B]` and `path`, a list of str.

    Args:
        image_size: Height and width of the images; another shape is squashed, as in the paper.
        channels: 1 for grey (the backbone repeats it), 3 for colour.
        batch_size: Images in a batch, per process.
        num_workers: Worker processes per loader.
        seed: Decides the splits and the order of the training images.
        splitter: Decides which record goes where; 8:1:1 by patient without it. Records that come with a
            split keep it.
        augment: Any torchvision v2 transform, called on `{"image": tv_tensors.Image, "mask":
            tv_tensors.Mask}` of the training images; none without it.
        multi_label: Whether an image may have several classes.
        require_mask: Keep only the images that have a mask, to train a segmenter.
        predict_split: The split that `predict` runs on.
        bits: Significant bits of 16-bit files; set 12 for 12-bit films in a 16-bit container.
        max_pixels: Larger images are refused before they are decoded.
        cache: Folder that keeps the resized images and masks, so that each file is decoded once.
        scale_masks: Whether a mask of another size but of its image's shape is scaled, not refused.

    Attributes:
        mask_cache: Given a dataset, returns the masks to read in place of the given ones; set by
            `guidedattn.mask_cache.MaskCache`.
    """

    mask_cache: Callable[[ImageDataset], StoredMasks] | None = None

    def __init__(
        self,
        image_size: int = 224,
        channels: int = 1,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        splitter: Splitter | None = None,
        augment: nn.Module | None = None,
        multi_label: bool = False,
        require_mask: bool = False,
        predict_split: SplitName = "test",
        bits: int = 16,
        max_pixels: int = 50_000_000,
        cache: str | Path | None = None,
        scale_masks: bool = False,
    ) -> None:
        super().__init__()
        positive = {"image_size": image_size, "batch_size": batch_size, "max_pixels": max_pixels}
        for name, value in positive.items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        if not 1 <= bits <= 16:
            raise ConfigError(f"bits must be between 1 and 16, got {bits}")
        if channels not in (1, 3):
            raise ConfigError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
        self.image_size, self.channels = image_size, channels
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.splitter = splitter or PatientSplit()
        self.augment, self.multi_label, self.require_mask = augment, multi_label, require_mask
        self.predict_split, self.bits, self.max_pixels = predict_split, bits, max_pixels
        self.cache = None if cache is None else TensorCache(cache)
        self.scale_masks = scale_masks
        self._records: list[Record] | None = None
        self._report = Report()
        self._given = False

    # what a subclass writes

    def list_records(self, report: Report) -> list[Record]:
        """List the labelled records to use, and count in `report` whatever is left out.

        Raises:
            DataError: The collection cannot be used; the message names the folder or file.
        """
        raise NotImplementedError

    def known_classes(self) -> Sequence[str] | None:
        """Return the class names when they are fixed beforehand, None to take them from the records."""
        return None

    def make_dataset(self, split: SplitName) -> ImageDataset:
        """Return the dataset of a split; only the training images are augmented."""
        return MaskedImageDataset(
            [record for record in self.records if record.split == split],
            self.class_names,
            self.image_size,
            channels=self.channels,
            transform=self.augment if split == "train" else None,
            multi_label=self.multi_label,
            bits=self.bits,
            max_pixels=self.max_pixels,
            cache=self.cache,
            scale_masks=self.scale_masks,
        )

    # what everybody reads

    @property
    def records(self) -> list[Record]:
        """The records in use, each with its split."""
        if self._records is None:
            with in_bulk():
                self._records, self._report = self._list()
        return self._records

    def _list(self) -> tuple[list[Record], Report]:
        report = Report()
        listed = self.list_records(report)
        if self.require_mask:
            for record in listed:
                if record.mask is None:
                    report.drop("no mask", record)
            listed = [record for record in listed if record.mask is not None]
        report.keep(listed)
        self._given = bool(listed) and all(record.split for record in listed)
        return self.splitter(listed, self.seed), report

    @property
    def report(self) -> Report:
        """What was listed, kept, dropped and missing."""
        assert self.records is not None
        return self._report

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""
        known = self.known_classes()
        if known is not None:
            return tuple(known)
        return tuple(sorted({label for record in self.records for label in record.labels}))

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def manifest(self) -> pd.DataFrame:
        """Return the records as a table, with the columns of a manifest and paths as they are."""
        return pd.DataFrame([record.as_row() for record in self.records], columns=list(COLUMNS))

    def _dataset(self, split: SplitName) -> ImageDataset:
        dataset = self.make_dataset(split)
        dataset.stored_masks = None if self.mask_cache is None else self.mask_cache(dataset)
        return dataset

    # what Lightning calls

    def setup(self, stage: str | None = None) -> None:
        """List the records once and check that the splits serve the stage.

        Raises:
            DataError: A class is absent from a split, before training; or the split that is to be
                tested or predicted is empty. The message holds the counts.
        """
        first = self._records is None
        needed = {"validate": ("val",), "test": ("test",), "predict": (self.predict_split,)}
        if stage in needed:
            require_classes(self.records, (), needed[stage])
        else:
            require_classes(self.records, self.class_names, self._training_splits())
        if first:
            rank_zero_info(str(self.report))

    def _training_splits(self) -> tuple[str, ...]:
        # Whoever brings whole splits may leave the test set for elsewhere.
        present = {record.split for record in self.records}
        return tuple(s for s in self.splitter.splits if s != "test" or s in present or not self._given)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the shuffled and augmented training images."""
        world_size = 1 if self.trainer is None else self.trainer.world_size
        dataset = self._dataset("train")
        return train_loader(dataset, self.batch_size, self.num_workers, self.seed, world_size, self._epoch())

    def _epoch(self) -> int:
        """The epoch that comes next; `trainer.current_epoch` is one behind while a run resumes."""
        progress: Any = None if self.trainer is None else self.trainer.fit_loop.epoch_progress
        return progress.current.processed if progress else 0

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation images."""
        return evaluation_loader(self._dataset("val"), self.batch_size, self.num_workers, repeat=True)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test images, each of them once whatever the number of processes."""
        return evaluation_loader(self._dataset("test"), self.batch_size, self.num_workers)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the images of `predict_split`, each of them once."""
        return evaluation_loader(self._dataset(self.predict_split), self.batch_size, self.num_workers)
