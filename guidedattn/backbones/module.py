"""Any `nn.Module` as a backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from guidedattn.backbones.base import Backbone


class ModuleBackbone(Backbone):
    """Wraps a network that maps images `[B, C, H, W]` to features `[B, D, h, w]`.

    Args:
        module: the network, or a function that builds it. A checkpoint can rebuild layers of `torch.nn`
            (`nn.Sequential` included), components, and functions with a return annotation.
        channels: D, the channels of its feature map.
        mean: per channel, of images in [0, 1]; its length is C.
        std: per channel, of images in [0, 1].

    >>> import torch
    >>> backbone = ModuleBackbone(nn.Conv2d(1, 8, 3, stride=4), channels=8, mean=[0.5], std=[0.5])
    >>> backbone(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 8, 8, 8])
    """

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        channels: int,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__(channels, mean, std)
        self.module = module if isinstance(module, nn.Module) else module()

    def extract(self, images: Tensor) -> Tensor:
        """Images to features, by the wrapped network."""
        features: Tensor = self.module(images)
        return features
