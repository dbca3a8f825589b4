"""A PEPX-style network, for comparisons with the COVID-Net family; trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from guidedattn.backbones.base import Backbone
from guidedattn.errors import ConfigError


class PEPXBackbone(Backbone):
    """A PEPX-style network: projection, expansion, projection, extension, with long-range shortcuts.

    After the description in COVID-Net (Wang, Lin and Wong 2020), whose architecture was never released as
    code: a network in that style, with widths, depths and ratios of its own, and not a reproduction.

    A stem of stride 2, then stages, each at half the side of the last. In a stage the first `PEPXBlock` reads
    the pooled input, every other the sum of what all blocks before it gave and of a 1x1 shortcut from the
    pooled input. Features are `[B, widths[-1], H/32, W/32]` (rounded up) with four stages. `print` tells the
    number of parameters.

    Args:
        widths: output channels of each stage; the stem has those of the first.
        depths: blocks of each stage.
        narrow: channels of both projections, as a share of the stage's width.
        wide: channels of the expansion, likewise.
        mean: per channel, of images in [0, 1]; as many as the images have. One takes grey images.
        std: per channel, of images in [0, 1].

    Raises:
        ConfigError: no stage, not one depth per width, a size below 1, or `wide` not above `narrow`.

    >>> import torch
    >>> PEPXBackbone(widths=[8, 16], depths=[1, 2])(torch.zeros(2, 1, 64, 48)).shape
    torch.Size([2, 16, 8, 6])
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        narrow: float = 0.25,
        wide: float = 1.5,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.25,),
    ) -> None:
        if not widths or len(widths) != len(depths) or min(*widths, *depths) < 1 or not 0 < narrow < wide:
            raise ConfigError(
                "PEPXBackbone needs a width and a depth from 1 for each stage and 0 < narrow < wide, got "
                f"widths {list(widths)}, depths {list(depths)}, narrow {narrow}, wide {wide}"
            )
        super().__init__(widths[-1], mean, std)
        self.stem = _unit(len(mean), widths[0], kernel=7, stride=2)
        inputs = [widths[0], *widths[:-1]]
        self.stages = nn.Sequential(
            *(
                _Stage(channels, width, depth, max(1, round(narrow * width)), max(1, round(wide * width)))
                for channels, width, depth in zip(inputs, widths, depths, strict=True)
            )
        )
        self.strides = {2: "stem"} | {4 * 2**i: f"stages.{i}" for i in range(len(widths))}

    def extra_repr(self) -> str:
        """The number of parameters, counted."""
        return f"parameters={sum(parameter.numel() for parameter in self.parameters())}"

    def extract(self, images: Tensor) -> Tensor:
        """Normalised images to the sum in the last stage, which is never negative."""
        return cast("Tensor", self.stages(self.stem(images)))


class PEPXBlock(nn.Sequential):
    """Channels in -> narrow -> wide, 3x3 depthwise -> narrow -> channels out; 1x1 but for the depthwise."""

    def __init__(self, channels: int, width: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.projection = _unit(channels, narrow)
        self.expansion = _unit(narrow, wide)
        self.depthwise = _unit(wide, wide, kernel=3, groups=wide)
        self.second_projection = _unit(wide, narrow)
        self.extension = _unit(narrow, width)


class _Stage(nn.Module):
    """Half the side; a shortcut that reaches all blocks, each of which adds to what the next ones read."""

    def __init__(self, channels: int, width: int, depth: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.shortcut = _unit(channels, width)
        self.blocks = nn.ModuleList(
            PEPXBlock(width if i else channels, width, narrow, wide) for i in range(depth)
        )

    def forward(self, features: Tensor) -> Tensor:
        features = self.pool(features)
        total: Tensor = self.shortcut(features)
        for i, block in enumerate(self.blocks):
            total = total + block(total if i else features)
        return total


def _unit(channels: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU."""
    padding = kernel // 2
    convolution = nn.Conv2d(channels, width, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
