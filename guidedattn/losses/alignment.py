"""Mask alignment: the map must look like the mask."""

from __future__ import annotations

from torch import Tensor

from guidedattn.guidance import Guidance, is_dead, normalise, per_sample, resize
from guidedattn.losses.base import AttentionLoss
from guidedattn.losses.schedules import Schedule


class MaskAlignment(AttentionLoss):
    """L_e of GAIN (Li et al. 2018, Eq. 7): squared difference between the map and the mask.

    The map is rectified and normalised to [0, 1] per image, the mask brought to its size; no second pass,
    so a step costs what a plain one does. Images without a mask do not count. A subclass with another
    `distance` is another alignment loss.

    Args:
        weight: omega of Eq. 8 (10 there; 20 removes a planted shortcut in our measurements), or a schedule.
        relu: rectify the map first, as published. Without it the signed map is normalised.
    """

    def __init__(self, weight: float | Schedule = 10.0, relu: bool = True) -> None:
        super().__init__(weight)
        self.relu = relu

    def _maps(self, guidance: Guidance) -> Tensor:
        return guidance.attention.relu() if self.relu else guidance.attention

    def counts(self, guidance: Guidance) -> Tensor:
        """A dead map cannot be normalised."""
        return ~is_dead(self._maps(guidance))

    def distance(self, maps: Tensor, mask: Tensor) -> Tensor:
        """Cell by cell, maps and mask `[B, 1, h, w]` in [0, 1]: (A - m)^2."""
        return (maps - mask) ** 2

    def compute(self, guidance: Guidance) -> Tensor:
        """Mean of `distance` over the cells, `[B]`."""
        maps = normalise(self._maps(guidance))
        return per_sample(self.distance(maps, resize(guidance.mask, maps)))
