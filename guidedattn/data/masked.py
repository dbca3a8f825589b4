"""Any collection of images, labels and masks: a manifest, or a folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from guidedattn.data.listing import drop_missing, map_labels, merge_rows, read_sources
from guidedattn.data.module import ImageDataModule, SplitName
from guidedattn.data.records import Record
from guidedattn.data.report import Report
from guidedattn.data.sources import FolderSource, ManifestSource, Source
from guidedattn.data.splits import Splitter
from guidedattn.errors import ConfigError, DataError


class MaskedImageDataModule(ImageDataModule):
    """Images with labels and, for some or all of them, masks.

    Args:
        manifest: A CSV table of path and label, and where known source, patient, view, mask, split and
            group; paths are relative to it. Give this or `root`.
        root: A folder per class.
        mask_root: With `root`, a tree of masks at the same relative paths.
        patient_pattern: With `root`, a regular expression with one group that finds the patient in a file
            name; without it each image counts as a patient of its own.
        class_names: The classes in the order of the logits; by default all that occur, sorted. Records of
            other classes are dropped and counted.
        image_size: Height and width of the images; another shape is squashed.
        channels: 1 for grey, 3 for colour.
        batch_size: Images in a batch, per process.
        num_workers: Worker processes per loader.
        seed: Decides the splits and the order of the training images.
        splitter: Decides which record goes where; 8:1:1 by patient without it.
        augment: Any torchvision v2 transform for the training images.
        multi_label: Whether an image may have several classes, written `a|b`.
        require_mask: Keep only the images that have a mask.
        predict_split: The split that `predict` runs on.
        bits: Significant bits of 16-bit files.
        max_pixels: Larger images are refused before they are decoded.
        cache: Folder that keeps the resized images and masks, so that each file is decoded once.
        scale_masks: Whether a mask of another size but of its image's shape is scaled, not refused.

    Raises:
        ConfigError: Not exactly one of `manifest` and `root` is given.
    """

    def __init__(
        self,
        manifest: str | Path | None = None,
        root: str | Path | None = None,
        mask_root: str | Path | None = None,
        patient_pattern: str | None = None,
        class_names: Sequence[str] | None = None,
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
        super().__init__(
            image_size=image_size,
            channels=channels,
            batch_size=batch_size,
            num_workers=num_workers,
            seed=seed,
            splitter=splitter,
            augment=augment,
            multi_label=multi_label,
            require_mask=require_mask,
            predict_split=predict_split,
            bits=bits,
            max_pixels=max_pixels,
            cache=cache,
            scale_masks=scale_masks,
        )
        self._class_names = None if class_names is None else tuple(class_names)
        self._source = _source(manifest, root, mask_root, patient_pattern)

    def known_classes(self) -> Sequence[str] | None:
        """Return the class names that were given, if any."""
        return self._class_names

    def list_records(self, report: Report) -> list[Record]:
        """List the rows of the manifest or the files of the folders."""
        records = map_labels(read_sources([self._source], report), None, report)
        if self._class_names is not None:
            known = set(self._class_names)
            for record in records:
                if not known.issuperset(record.labels):
                    report.drop(f"label {record.label!r} belongs to no class", record)
            records = [record for record in records if known.issuperset(record.labels)]
        records = merge_rows(drop_missing(records, report), report)
        if not records:
            raise DataError(f"{self._source.root}: no image to use\n{report}")
        return records


def _source(
    manifest: str | Path | None, root: str | Path | None, mask_root: str | Path | None, pattern: str | None
) -> Source:
    if (manifest is None) == (root is None):
        raise ConfigError("give either manifest (a CSV table) or root (a folder per class)")
    if root is not None:
        return FolderSource(root, pattern, mask_root)
    if mask_root is not None or pattern is not None:
        raise ConfigError("mask_root and patient_pattern go with root; a manifest has columns for them")
    assert manifest is not None
    return ManifestSource(manifest)
