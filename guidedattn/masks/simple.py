"""Masks that need no network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from guidedattn.masks.base import MaskProvider


class FullMask(MaskProvider):
    """Everywhere: guidance that guides nothing, for comparison."""

    from_image_alone = True

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002
        """Ones."""
        return images.new_ones(len(images), 1, *images.shape[-2:])


class BatchMask(MaskProvider):
    """The data's own masks: `batch["mask"]` where `batch["has_mask"]`; without these keys, none."""

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The batch's masks, zeros where it has none."""
        if "mask" not in batch:
            return images.new_zeros(len(images), 1, *images.shape[-2:])
        mask: Tensor = batch["mask"]
        return mask

    def available(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The batch's `has_mask`; all or none without it."""
        if "has_mask" in batch:
            has_mask: Tensor = batch["has_mask"]
            return has_mask.to(images.device, torch.bool)
        return torch.full((len(images),), "mask" in batch, device=images.device)
