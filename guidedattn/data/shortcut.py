"""Plant a shortcut into any data set: a marker outside the mask that agrees with the class."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from guidedattn.data.markers import Marker
from guidedattn.errors import DataError

Shown = Literal["matched", "absent", "swapped"]


class ShortcutDataset(Dataset[dict[str, Any]]):
    """Another dataset's samples with a marker outside their masks.

    The marker and its place depend on the seed and the sample's index alone, so that the same film bears the
    same kind of mark in all three modes, of its own class or of another.

    Args:
        dataset: samples as `MaskedImageDataset` gives them, single-label.
        marker: draws the mark of a class.
        shown: `matched` shows the marker of the sample's class, `swapped` that of another, `absent` none.
        num_classes: K.
        probability: with `matched`, the share of samples whose marker agrees; the others show
            another class's.
        seed: decides which, and where.
    """

    def __init__(
        self,
        dataset: Dataset[dict[str, Any]],
        marker: Marker,
        shown: Shown,
        num_classes: int,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.dataset, self.marker, self.shown = dataset, marker, shown
        self.num_classes, self.probability, self.seed = num_classes, probability, seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample, marked.

        Raises:
            DataError: the sample has several labels.
        """
        sample = self.dataset[index]
        if sample["label"].ndim:
            raise DataError(f"{sample['path']}: a shortcut can be planted into single-label data only")
        if self.shown == "absent":
            return sample
        rng = np.random.default_rng((self.seed, index))
        agrees = rng.random() < self.probability
        other = 1 + int(rng.integers(self.num_classes - 1))
        own = int(sample["label"])
        shown = own if agrees and self.shown == "matched" else (own + other) % self.num_classes
        return {**sample, "image": self.marker(sample["image"], sample["mask"], shown, rng)}
