"""What a backbone is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from guidedattn.component import Component
from guidedattn.errors import ConfigError


class Backbone(Component):
    """Base of the feature extractors: `(images [B, C, H, W] in [0, 1]) -> features [B, D, h, w]`.

    A subclass writes `extract`. The base repeats grey images into three channels and applies `mean` and
    `std`, so that data modules stay free of any network's statistics and a checkpoint is complete.

    Args:
        channels: D, the channels of the feature map.
        mean: per channel, of images in [0, 1].
        std: per channel, of images in [0, 1].

    Attributes:
        channels: D.
        input_size: (height, width) that the weights were made for; a recommendation.
        channels_last_maps: maps inside are `[B, h, w, D]`; asked where their shape does not tell.
        strides: names of the modules that end a stage, by the stride of their output; empty if unknown.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int, mean: Sequence[float] = (0.0, 0.0, 0.0), std: Sequence[float] = (1.0, 1.0, 1.0)
    ) -> None:
        super().__init__()
        self.channels = channels
        self.input_size = (224, 224)
        self.channels_last_maps = False
        self.strides: Mapping[int, str] = {}
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """Normalised images `[B, len(mean), H, W]` to features `[B, D, h, w]`."""

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] to features `[B, D, h, w]`.

        Raises:
            ConfigError: the image channels or the feature map do not fit.
        """
        wanted = self.mean.shape[1]
        if images.shape[1] not in (1, wanted):
            raise ConfigError(
                f"{type(self).__name__} takes 1 or {wanted} image channels, got {images.shape[1]}"
            )
        features = self.extract((images.expand(-1, wanted, -1, -1) - self.mean) / self.std)
        if features.ndim != 4 or features.shape[1] != self.channels:
            raise ConfigError(
                f"{type(self).__name__} must give features [B, {self.channels}, h, w], "
                f"got {list(features.shape)}"
            )
        return features
