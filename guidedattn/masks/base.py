"""What a mask provider is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from guidedattn.component import Component
from guidedattn.errors import MaskError


class MaskProvider(Component):
    """Base of the mask providers: `(images [B, C, H, W], batch) -> mask [B, 1, H, W]` in [0, 1].

    A subclass writes `provide`. The base runs it without gradient, keeps it in eval mode whatever the
    classifier around it does, keeps its parameters out of training and checks what it gives. Where the
    batch brings masks that this provider gave earlier (`mask_provided`, see `MaskCache`), those stand in.
    """

    @property
    def from_image_alone(self) -> bool:
        """Whether masks depend on the image and nothing else, so that they may be kept; not unless said."""
        return False

    @abstractmethod
    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The masks `[B, 1, H, W]` in [0, 1] of images in [0, 1]."""

    def available(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002
        """`[B]` bool: images for which there is a mask at all; by default every one."""
        return torch.ones(len(images), dtype=torch.bool, device=images.device)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in eval mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Masks `[B, 1, H, W]`, and `[B]` bool: whether the image has one; an empty mask is none.

        Raises:
            MaskError: wrong shape, values outside [0, 1] or NaN; names the provider and the first sample.
        """
        self.requires_grad_(False).eval()
        kept = "mask_provided" in batch
        masks = (batch["mask"] if kept else self.provide(images, batch)).to(torch.float32)
        expected = (len(images), 1, *images.shape[-2:])
        if masks.shape != expected:
            raise MaskError(
                f"{type(self).__name__} gave masks of shape {list(masks.shape)} for images of "
                f"{list(images.shape)}: expected {list(expected)}"
            )
        available = batch["has_mask"] if kept else self.available(images, batch)
        low, high = masks.amin((1, 2, 3)), masks.amax((1, 2, 3))
        good = (low >= 0) & (high <= 1)  # NaN compares false
        if not bool((good | ~available).all()):
            sample = int((~good & available).nonzero()[0])
            path = batch["path"][sample] if "path" in batch else f"sample {sample} of the batch"
            raise MaskError(
                f"{type(self).__name__} gave a mask with values from {float(low[sample]):.3g} to "
                f"{float(high[sample]):.3g} for {path}: masks lie in [0, 1]"
            )
        return masks, available & (high > 0)
