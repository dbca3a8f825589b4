"""A user's own components: an attention loss and a mask provider, used from YAML by their import path.

guidedattn fit --config examples/configs/custom.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guidedattn.guidance import EPS, Guidance, resize
from guidedattn.losses import AttentionLoss
from guidedattn.masks import MaskProvider


class OutsideEnergy(AttentionLoss):
    """Share of the absolute attention that falls outside the mask."""

    def compute(self, guidance: Guidance) -> Tensor:
        """`[B]`, from 0 (all inside) to 1."""
        attention = guidance.attention.abs()  # not ReLU: an all-zero map must not be an optimum
        outside = attention * (1 - resize(guidance.mask, attention))
        return outside.sum((1, 2, 3)) / attention.sum((1, 2, 3)).clamp_min(EPS)


class EllipseMask(MaskProvider):
    """The same centred ellipse for every image."""

    def __init__(self, height: float = 0.8, width: float = 0.8) -> None:
        super().__init__()
        self.height, self.width = height, width

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002
        """Ones inside the ellipse, `[B, 1, H, W]`."""
        rows = torch.linspace(-1, 1, images.shape[2], device=images.device)[:, None] / self.height
        columns = torch.linspace(-1, 1, images.shape[3], device=images.device)[None, :] / self.width
        return (rows**2 + columns**2 <= 1).float().expand(len(images), 1, -1, -1)
