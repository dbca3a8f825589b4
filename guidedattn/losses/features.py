"""Outside penalty: features outside the mask must be small, whatever the class."""

from __future__ import annotations

from torch import Tensor

from guidedattn.guidance import EPS, Guidance, per_sample, resize
from guidedattn.losses.base import AttentionLoss
from guidedattn.losses.schedules import Schedule


class OutsidePenalty(AttentionLoss):
    """Share of the features' energy that lies outside the mask: sum(f^2 (1 - m)) / sum(f^2).

    Needs no map, so it costs nothing beyond a plain step and works for any head.

    Args:
        weight: number or schedule.
        relative: divide by the whole energy. Without it the value is the mean of f^2 (1 - m) over channels
            and cells, which falls when all features shrink and the head grows: a degenerate optimum.
    """

    per_class = False

    def __init__(self, weight: float | Schedule = 1.0, relative: bool = True) -> None:
        super().__init__(weight)
        self.relative = relative

    def counts(self, guidance: Guidance) -> Tensor:
        """Features that are all zero are nowhere."""
        return guidance.features.detach().flatten(1).any(1)

    def compute(self, guidance: Guidance) -> Tensor:
        """`[B]`; from 0 to 1 if relative."""
        energy = guidance.features**2
        outside = per_sample(energy * (1 - resize(guidance.mask, energy)))
        return outside / per_sample(energy).clamp_min(EPS) if self.relative else outside
