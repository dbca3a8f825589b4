"""The chest X-ray collection of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from guidedattn.data.collection import Collection
from guidedattn.data.labels import FRONTAL, PAPER_LABELS, LabelMap, read_label_map
from guidedattn.data.module import ImageDataModule, SplitName
from guidedattn.data.records import Record
from guidedattn.data.report import Report
from guidedattn.data.sources import Source
from guidedattn.data.splits import Splitter


class CXRDataModule(ImageDataModule):
    """Frontal chest X-rays from several public collections under one set of labels.

    Args:
        root: The folder that holds the collections, at any depth; or a manifest (CSV), whose splits stay.
        sources: The collections to read; without it the known ones below `root`.
        label_map: From a native finding to its class, as a dict or as a CSV file with the columns
            `finding` and `class`; without it the paper's Normal, Pneumonia and COVID-19. A finding that
            it does not hold is dropped and counted.
        exclude: Glob patterns on the path relative to `root` (`*` crosses folders), for instance
            `X-Ray-Image-DataSet/Covid-19/*`, whose films are copies of another collection's.
        views: The views that pass; an empty one does too.
        image_size: Height and width of the images; another shape is squashed, as in the paper.
        channels: 1 for grey, 3 for colour.
        batch_size: Images in a batch, per process.
        num_workers: Worker processes per loader.
        seed: Decides the splits and the order of the training images.
        splitter: Decides which record goes where; 8:1:1 by patient without it.
        augment: Any torchvision v2 transform for the training images.
        require_mask: Keep only the images that have a mask, to train a segmenter.
        predict_split: The split that `predict` runs on.
        bits: Significant bits of 16-bit files.
        max_pixels: Larger images are refused before they are decoded.
        cache: Folder that keeps the resized images and masks, so that each file is decoded once.
        scale_masks: Whether a mask of another size but of its image's shape is scaled, not refused.
    """

    def __init__(
        self,
        root: str | Path,
        sources: list[Source] | None = None,
        label_map: dict[str, str] | str | Path | None = None,
        exclude: Sequence[str] = (),
        views: Sequence[str] = FRONTAL,
        image_size: int = 224,
        channels: int = 1,
        batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        splitter: Splitter | None = None,
        augment: nn.Module | None = None,
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
            require_mask=require_mask,
            predict_split=predict_split,
            bits=bits,
            max_pixels=max_pixels,
            cache=cache,
            scale_masks=scale_masks,
        )
        self.root, self.sources = Path(root), sources
        self.exclude, self.views = tuple(exclude), tuple(views)
        if not isinstance(label_map, dict):
            label_map = PAPER_LABELS if label_map is None else read_label_map(label_map)
        self.label_map = LabelMap(label_map)

    def known_classes(self) -> Sequence[str]:
        """Return the classes of the label map, in the order in which it first names them."""
        return self.label_map.class_names

    def list_records(self, report: Report) -> list[Record]:
        """List the frontal X-rays with a known label that are on disk."""
        collection = Collection(self.root, self.label_map, self.sources, self.exclude, self.views)
        return collection.records(report)
