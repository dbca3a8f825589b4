"""What is measured on a map: where it lies, and whether it says anything.

A map inside the mask does not prove that the prediction depends on the inside only: the receptive field of
every cell covers most of the image. See `guidedattn.metrics.background` for what the prediction does.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from guidedattn.guidance import EPS, is_dead, normalise, resize


def energy_in_mask(maps: Tensor, mask: Tensor) -> Tensor:
    """Share of the rectified map that lies inside the mask, `[B]`; NaN where the map is dead.

    Energy-based pointing game (Wang et al. 2020, Score-CAM): sum(A m) / sum(A). The map is enlarged to the
    mask. It says where the map lies, not what the prediction depends on.

    Args:
        maps: `[B, 1, h, w]`; its negative part is ignored.
        mask: `[B, 1, H, W]` in [0, 1].

    >>> half = torch.tensor([[[[1.0, 0.0]]]])
    >>> energy_in_mask(torch.tensor([[[[3.0, 1.0]]]]), half)
    tensor([0.7500])
    """
    attention = resize(maps.relu(), mask)
    energy = (attention * mask).sum((1, 2, 3)) / attention.sum((1, 2, 3)).clamp_min(EPS)
    return torch.where(is_dead(maps.relu()), torch.nan, energy)


def points_into_mask(maps: Tensor, mask: Tensor) -> Tensor:
    """1 where the highest point of the map lies inside the mask, else 0, `[B]`; NaN where the map is dead.

    Pointing game (Zhang et al. 2018), without tolerance. The map is enlarged to the mask.

    Args:
        maps: `[B, 1, h, w]`; its negative part is ignored.
        mask: `[B, 1, H, W]` in [0, 1]; inside is from 0.5.

    >>> points_into_mask(torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]]))
    tensor([1.])
    """
    highest = resize(maps.relu(), mask).flatten(1).argmax(1, keepdim=True)
    hit = (mask.flatten(1).gather(1, highest).squeeze(1) >= 0.5).to(maps.dtype)
    return torch.where(is_dead(maps.relu()), torch.nan, hit)


def attention_iou(maps: Tensor, mask: Tensor, threshold: float = 0.5) -> Tensor:
    """Intersection over union of the mask and the map above a threshold, `[B]`; NaN where the map is dead.

    Args:
        maps: `[B, 1, h, w]`; rectified, enlarged to the mask and normalised to [0, 1] per image.
        mask: `[B, 1, H, W]` in [0, 1]; inside is from 0.5.
        threshold: of the map.

    >>> attention_iou(torch.tensor([[[[3.0, 1.0, 0.0, 2.0]]]]), torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]]))
    tensor([0.3333])
    """
    shown, inside = normalise(resize(maps.relu(), mask)) >= threshold, mask >= 0.5
    union = (shown | inside).sum((1, 2, 3)).clamp_min(1)
    return torch.where(is_dead(maps.relu()), torch.nan, (shown & inside).sum((1, 2, 3)) / union)


class _Mean(Metric):
    """A mean over samples, however they fall into batches and processes; NaN without one."""

    total: Tensor
    number: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("number", torch.tensor(0.0), dist_reduce_fx="sum")

    def add(self, values: Tensor, counted: Tensor) -> None:
        """Add `[B]` values and `[B]` bool, which count."""
        self.total += torch.where(counted, values, 0.0).sum()
        self.number += counted.sum()

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.number


class MapMetric(_Mean):
    """Base of the metrics that compare map and mask: a mean over samples that have a mask and a living map.

    A subclass writes `values`.
    """

    @abstractmethod
    def values(self, maps: Tensor, mask: Tensor) -> Tensor:
        """One value per sample, `[B]`; NaN where the map is dead."""

    def update(self, maps: Tensor, mask: Tensor, has_mask: Tensor) -> None:
        """Add maps `[B, 1, h, w]`, masks `[B, 1, H, W]` and `[B]` bool."""
        values = self.values(maps, mask)
        self.add(values, has_mask & values.isfinite())


class EnergyInMask(MapMetric):
    """Mean of `energy_in_mask` over samples that have a mask and a living map."""

    def values(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Share of the map inside the mask, `[B]`."""
        return energy_in_mask(maps, mask)


class PointingGame(MapMetric):
    """Share of the maps whose highest point lies inside the mask (`points_into_mask`), living ones only."""

    def values(self, maps: Tensor, mask: Tensor) -> Tensor:
        """1 or 0, `[B]`."""
        return points_into_mask(maps, mask)


class AttentionIoU(MapMetric):
    """Mean of `attention_iou` over samples that have a mask and a living map.

    Args:
        threshold: of the map, normalised to [0, 1].
    """

    def __init__(self, threshold: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = threshold

    def values(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Intersection over union, `[B]`."""
        return attention_iou(maps, mask, self.threshold)


class DeadMaps(_Mean):
    """Share of maps that show nothing for their class: constant or all zero once rectified."""

    def update(self, maps: Tensor) -> None:
        """Add maps `[B, 1, h, w]`."""
        dead = is_dead(maps.relu())
        self.add(dead.float(), torch.ones_like(dead))
