"""Energy outside: what share of the map lies outside the mask."""

from __future__ import annotations

from torch import Tensor

from guidedattn.guidance import EPS, Guidance, resize
from guidedattn.losses.base import AttentionLoss


class EnergyOutside(AttentionLoss):
    """Share of the absolute map that lies outside the mask (Energy of Rao et al. 2023, on |A|).

    On the rectified map, as published, an all-zero map is an optimum and kills half of the maps. The
    absolute value counts what speaks against the class too, and a share does not fall when the map shrinks.
    It asks for nothing inside, so it moves the map readily and the prediction little: the receptive field
    carries a shortcut into the mask. Judge it by what the prediction does.
    """

    def compute(self, guidance: Guidance) -> Tensor:
        """Sum(|A| (1 - m)) / sum(|A|), `[B]`, from 0 (all inside) to 1."""
        attention = guidance.attention.abs()
        outside = attention * (1 - resize(guidance.mask, attention))
        return outside.sum((1, 2, 3)) / attention.sum((1, 2, 3)).clamp_min(EPS)
