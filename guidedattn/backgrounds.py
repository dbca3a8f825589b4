"""What to put outside the mask, to see or to train what a prediction does when only the outside changes."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from guidedattn.component import Component
from guidedattn.errors import ConfigError
from guidedattn.guidance import EPS, resize

__all__ = [
    "Background",
    "BlurredBackground",
    "ConstantBackground",
    "FittedBackground",
    "ForeignBackground",
    "NoiseBackground",
    "smooth_over",
]

EDGE = 1 / 64
"""How far the edge of an organ reaches beyond its mask, as a share of the image's width."""


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
        return images.roll(self.shift(len(images)), 0)

    def shift(self, places: int) -> int:
        """How far the batch is rotated: by at least one place, so that none of several gets its own."""
        return int(torch.randint(1, places, ())) if self.training and places > 1 else 1


class FittedBackground(ForeignBackground):
    """Another image of the batch, made to fit: markers and all, but without a second organ.

    As it is, the outside of a stranger shows parts of the stranger's own organ, and a classifier learns to
    subtract them by whatever tells whose they are, a marker for instance: on whole images it then answers
    against the marker. Here what lies inside the stranger's own mask is smoothed over, the stranger is
    exposed so that the means of the two insides agree, and the image fades into its new outside within a
    seam inside its mask. Nothing of the image's own outside is left.

    Masks count as 1 above 0.5, and where they do nowhere, the image stays. Only images with a mask lend;
    where there is no other, the outside becomes the mean grey of the inside.

    Args:
        seam: width of the seam, as a share of the image's width.

    Raises:
        ConfigError: `seam` does not lie in [0, 0.5).
    """

    def __init__(self, seam: float = 0.025) -> None:
        super().__init__()
        if not 0 <= seam < 0.5:
            raise ConfigError(f"FittedBackground: seam must lie in [0, 0.5), got {seam}")
        self.seam = seam

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """The images with another outside; within the seam a mixture."""
        inside, films = (mask > 0.5).float(), images.float()  # sums over an image overflow in half precision
        near = share_nearby(inside, round(self.seam * images.shape[-1]))
        soft = (2 * near - 1).clamp(0, 1) * inside  # 0 at a straight edge, 1 from the seam on
        mixed = (films * soft + self.fill(films, inside) * (1 - soft)).to(images.dtype)
        return torch.where(inside.amax((1, 2, 3), keepdim=True) > 0, mixed, images)

    def fill(self, images: Tensor, mask: Tensor) -> Tensor:
        """The strangers without what is inside their masks, as bright as if it were this image's inside."""
        edge = max(1, round(EDGE * images.shape[-1]))  # edges of the organ go too
        grown = F.max_pool2d(mask, 2 * edge + 1, stride=1, padding=edge)
        lends = (mask.amax((1, 2, 3)) > 0) & (grown.amin((1, 2, 3)) < 1)
        filled, lenders = inside_mean(images, mask).expand_as(images), lends.nonzero().flatten()
        if len(lenders) < 2:
            return filled
        strangers = lenders.roll(self.shift(len(lenders)))
        films = smooth_over(images[strangers], grown[strangers])
        fitted = films + filled[lenders] - filled[strangers]
        return filled.index_copy(0, lenders, fitted.clamp(0, 1))


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
        return inside_mean(images, mask).expand_as(images)


def inside_mean(images: Tensor, mask: Tensor) -> Tensor:
    """Mean of each image's channels inside its mask, `[B, C, 1, 1]`; 0 for an empty mask."""
    weights = mask.float()
    total = (images.float() * weights).sum((2, 3), keepdim=True)
    return (total / weights.sum((2, 3), keepdim=True).clamp_min(EPS)).to(images.dtype)


def share_nearby(mask: Tensor, margin: int) -> Tensor:
    """How much of the square around each pixel lies inside the mask `[B, 1, H, W]`, in [0, 1].

    At a straight edge it is 1/2, and from `margin` pixels inside on it is 1; beyond its border, an image is
    taken to go on.
    """
    side = 2 * margin + 1
    rows = F.avg_pool2d(F.pad(mask, [margin] * 4, mode="replicate"), (1, side), stride=1)
    return F.avg_pool2d(rows, (side, 1), stride=1)


def smooth_over(images: Tensor, mask: Tensor) -> Tensor:
    """Fill the inside of the masks smoothly from around it; what lies outside stays.

    Pull and push (Gortler et al. 1996, "The Lumigraph"): averages of what is known over ever larger cells,
    then back, each level filling the gaps of the finer one.

    Args:
        images: `[B, C, H, W]`, float32 or float64.
        mask: `[B, 1, H, W]`, 0 or 1; an image that is masked everywhere becomes black.

    >>> image, mask = torch.tensor([[[[0.0, 0.5, 1.0, 0.5]]]]), torch.tensor([[[[0.0, 0.0, 1.0, 0.0]]]])
    >>> smooth_over(image, mask)
    tensor([[[[0.0000, 0.5000, 0.3750, 0.5000]]]])
    """
    levels = [(images * (1 - mask), 1 - mask)]
    while max(levels[-1][0].shape[-2:]) > 1:
        total, known = (F.avg_pool2d(level, 2, ceil_mode=True) for level in levels[-1])
        levels.append((total, known))
    total, known = levels[-1]
    filled = total / known.clamp_min(EPS)
    for total, known in reversed(levels[:-1]):
        filled = total + (1 - known) * resize(filled, total)
    return filled
