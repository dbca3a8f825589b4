"""Mask alignment by binary cross-entropy, over the whole map or inside the mask only."""

from __future__ import annotations

from torch import Tensor

from guidedattn.guidance import EPS, Guidance, normalise, resize
from guidedattn.losses.alignment import MaskAlignment

FLOOR = 0.01
"""Keeps cells off 0 and 1: a normalised map always has one of each, where the logarithm is infinite."""


class BCEAlignment(MaskAlignment):
    """Binary cross-entropy between map and mask, inside and outside.

    Arguments are those of `MaskAlignment`. Cells enter as 0.01 + 0.98 A, so the least value is 0.01 to 0.06
    per cell instead of 0.
    """

    def distance(self, maps: Tensor, mask: Tensor) -> Tensor:
        """-(m log A + (1 - m) log(1 - A))."""
        return -(mask * _log(maps) + (1 - mask) * _log(1 - maps))


class InsideBCE(MaskAlignment):
    """Cross-entropy of the map against 1 inside the mask: HAICS (Shen et al. 2021), PPCE in Rao et al. 2023.

    Says "look here too" and nothing about the outside: a map that covers the whole image is as good as the
    mask itself, so it does not remove a shortcut. Arguments are those of `MaskAlignment`.
    """

    def compute(self, guidance: Guidance) -> Tensor:
        """- sum(m log A) / sum(m), `[B]`."""
        maps = normalise(self._maps(guidance))
        mask = resize(guidance.mask, maps)
        return -(mask * _log(maps)).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(EPS)


def _log(share: Tensor) -> Tensor:
    return (FLOOR + (1 - 2 * FLOOR) * share).log()
