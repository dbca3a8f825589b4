"""What losses share that send changed images through the network once more."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from guidedattn.errors import ConfigError
from guidedattn.guidance import Guidance, resize
from guidedattn.losses.base import AttentionLoss
from guidedattn.losses.schedules import Schedule


class SecondPassLoss(AttentionLoss):
    """Base of the losses with a second pass, which may run on part of a batch and on smaller images.

    A subclass writes `compute` with `second_pass`, and extends `counts`.

    Args:
        weight: number or schedule.
        fraction: share of each training batch that takes the second pass, rounded up, at least 2 samples
            (BatchNorm needs them). They are the first of the batch: a random choice, since loaders shuffle.
        scale: side of the images in the second pass, relative to the first; at 0.5 it costs a quarter.

    Raises:
        ConfigError: `fraction` or `scale` is not in (0, 1].
    """

    def __init__(self, weight: float | Schedule = 1.0, fraction: float = 1.0, scale: float = 1.0) -> None:
        super().__init__(weight)
        for name, value in (("fraction", fraction), ("scale", scale)):
            if not 0 < value <= 1:
                raise ConfigError(f"{type(self).__name__}: {name} must lie in (0, 1], got {value}")
        self.fraction = fraction
        self.scale = scale

    def counts(self, guidance: Guidance) -> Tensor:
        """`[B]` bool: the samples that take the second pass."""
        size = len(guidance.images)
        return torch.arange(size, device=guidance.images.device) < self._number(size)

    def _number(self, size: int) -> int:
        return min(size, max(2, math.ceil(self.fraction * size))) if self.training else size

    def reduced(self, images: Tensor) -> Tensor:
        """The first n of `[B, C, H, W]`, at `scale`: `[n, C, h, w]`, n the samples that take part."""
        images = images[: self._number(len(images))]
        if self.scale == 1:
            return images
        height, width = images.shape[-2:]
        return resize(images, (max(1, round(self.scale * height)), max(1, round(self.scale * width))))

    @staticmethod
    def padded(values: Tensor, size: int) -> Tensor:
        """`[n, ...]` of the samples that take part to `[size, ...]`, zeros for the others."""
        return F.pad(values, [0, 0] * (values.ndim - 1) + [0, size - len(values)])

    def second_pass(self, guidance: Guidance, images: Tensor) -> Tensor:
        """Logits `[B, K]` of changed images `[B, C, H, W]`; zeros for the samples that take no part."""
        return self.padded(guidance.rescore(self.reduced(images)), len(images))
