"""Mask alignment by absolute difference."""

from __future__ import annotations

from torch import Tensor

from guidedattn.losses.alignment import MaskAlignment


class L1Alignment(MaskAlignment):
    """Absolute difference between the map and the mask: GRADIA (Gao et al. 2022), L1 in Rao et al. 2023.

    Like `MaskAlignment`, whose arguments it has, but a cell that is far off pulls no harder than one that is
    nearly right: kinder to coarse masks.
    """

    def distance(self, maps: Tensor, mask: Tensor) -> Tensor:
        """|A - m|."""
        return (maps - mask).abs()
