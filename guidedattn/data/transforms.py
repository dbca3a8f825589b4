"""Augmentation that moves an image and its mask as one."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.transforms import InterpolationMode, v2


class Augment(nn.Module):
    """Small rotations, shifts, scalings and changes of exposure, for radiographs.

    Geometry moves image and mask alike, exposure the image alone. There is no flip unless you ask for
    it: a chest has a left and a right. Any other torchvision v2 transform can stand in its place; it is
    called on `{"image": tv_tensors.Image, "mask": tv_tensors.Mask}`.

    Args:
        degrees: Rotate by up to this many degrees either way.
        translate: Shift by up to this share of height and width.
        scale: Smallest and largest zoom.
        brightness: Change brightness by up to this factor, 0.1 for 0.9 to 1.1.
        contrast: Change contrast likewise.
        flip: Probability of a left-right flip.

    Shapes: image `[C, H, W]` in [0, 1] and mask `[1, H, W]` keep shape and range. What moves in from
    outside the image is black and outside the mask.
    """

    def __init__(
        self,
        degrees: float = 5.0,
        translate: float = 0.05,
        scale: tuple[float, float] = (0.95, 1.05),
        brightness: float = 0.1,
        contrast: float = 0.1,
        flip: float = 0.0,
    ) -> None:
        super().__init__()
        geometry = v2.RandomAffine(
            degrees=degrees,
            translate=(translate, translate),
            scale=tuple(scale),
            interpolation=InterpolationMode.BILINEAR,
        )
        exposure = v2.ColorJitter(brightness=brightness, contrast=contrast)
        self.transform = v2.Compose([v2.RandomHorizontalFlip(flip), geometry, exposure])

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return the sample with image and mask moved together."""
        result: dict[str, Any] = self.transform(sample)
        return result
