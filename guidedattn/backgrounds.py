"""What to put outside the mask, to see or to train what a prediction does when only the outside changes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from guidedattn.component import Component
from guidedattn.guidance import resize

__all__ = ["Background", "BlurredBackground", "ConstantBackground", "ForeignBackground", "NoiseBackground"]


class Background(Component):
    """Base of the backgrounds: `(images [B, C, H, W], mask [B, 1, H, W]) -> images [B, C, H, W]`.

    A subclass writes `fill`. The base keeps the inside: I * m + J * (1 - m).
    """

    @abstractmethod
    def fill(self, images: Tensor, mask: Tensor) -> Tensor:
        """J `[B, C, H, W]`, in [0, 1]; only what lies outside the mask is used."""

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """The images with another outside."""
        mask = mask.to(images.dtype)
        return images * mask + self.fill(images, mask) * (1 - mask)


class ForeignBackground(Background):
    """Another image of the batch: whatever lies outside the mask comes from a stranger, markers too.

    Every image lends its outside to one other, at random while training and to its neighbour otherwise.
    """

    def fill(self, images: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002
        """The batch, rotated by a random number of places."""
        places = len(images)
        shift = int(torch.randint(1, places, ())) if self.training and places > 1 else 1
        return images.roll(shift, 0)


class BlurredBackground(Background):
    """The image itself, blurred: averaged over coarse cells and enlarged again.

    Args:
        pixels: side of a cell.
    """

    def __init__(self, pixels: int = 16) -> None:
        super().__init__()
        self.pixels = pixels

    def fill(self, images: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002
        """The blurred images."""
        height, width = images.shape[-2:]
        return resize(resize(images, (max(1, height // self.pixels), max(1, width // self.pixels))), images)


class NoiseBackground(Background):
    """Uniform noise in [0, 1], new in every pass."""

    def fill(self, images: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002
        """Noise, the same in all channels."""
        return torch.rand_like(images[:, :1]).expand_as(images)


class ConstantBackground(Background):
    """One grey.

    Args:
        value: in [0, 1]; by default the mean of each image's inside, so that no edge betrays its brightness.
    """

    def __init__(self, value: float | None = None) -> None:
        super().__init__()
        self.value = value

    def fill(self, images: Tensor, mask: Tensor) -> Tensor:
        """The grey, everywhere."""
        if self.value is not None:
            return torch.full_like(images, self.value)
        inside = (images * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp_min(1)
        return inside.expand_as(images)
