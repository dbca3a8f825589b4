"""Masks made of other masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guidedattn.component import build
from guidedattn.errors import ConfigError
from guidedattn.masks.base import MaskProvider


class AnyOf(MaskProvider):
    """Several regions at once: the union of other providers' masks.

    An image has a mask if one of them has one for it.

    Args:
        providers: at least one; lungs from a network and boxes of lesions, say.

    Raises:
        ConfigError: there is none.
    """

    def __init__(self, providers: Sequence[MaskProvider]) -> None:
        super().__init__()
        if not providers:
            raise ConfigError("AnyOf needs at least one mask provider")
        self.providers = nn.ModuleList(build(provider, MaskProvider) for provider in providers)

    @property
    def from_image_alone(self) -> bool:
        """Whether all of the providers' masks depend on the image alone."""
        return all(cast("MaskProvider", provider).from_image_alone for provider in self.providers)

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The largest of the masks, pixel by pixel, `[B, 1, H, W]`; zeros where no provider has one."""
        return torch.stack([_or_nothing(provider, images, batch) for provider in self.providers]).amax(0)


class Dilated(MaskProvider):
    """Another provider's mask, grown on all sides: a margin for coarse masks and for what lies at the rim.

    Args:
        provider: the mask to grow.
        pixels: by how much, of the image; corners become square.

    Raises:
        ConfigError: `pixels` is negative.
    """

    def __init__(self, provider: MaskProvider, pixels: int = 8) -> None:
        super().__init__()
        if pixels < 0:
            raise ConfigError(f"Dilated: pixels must not be negative, got {pixels}")
        self.provider = build(provider, MaskProvider)
        self.pixels = pixels

    @property
    def from_image_alone(self) -> bool:
        """Whether the provider's mask depends on the image alone."""
        return self.provider.from_image_alone

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The largest value within `pixels`, `[B, 1, H, W]`."""
        masks = _or_nothing(self.provider, images, batch)
        for size in ((2 * self.pixels + 1, 1), (1, 2 * self.pixels + 1)):  # a square is its rows' columns
            masks = F.max_pool2d(masks, size, stride=1, padding=(size[0] // 2, size[1] // 2))
        return masks


def _or_nothing(provider: nn.Module, images: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """The provider's masks, zeros for images without one: the base reads an empty mask as none."""
    masks, has_mask = provider(images, batch)
    return torch.where(has_mask.view(-1, 1, 1, 1), masks, torch.zeros_like(masks))
