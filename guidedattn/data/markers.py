"""Marks outside the mask that betray the class: what scanners, hospitals and technicians leave on films."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from guidedattn.data.images import draw_letter

__all__ = ["BarCode", "Border", "FrameBrightness", "Letter", "Marker", "ScannerTexture"]


class Marker(ABC):
    """Base of the markers: `(image [C, H, W], mask [1, H, W], shown, rng) -> image [C, H, W]`.

    A subclass writes `draw`; every class has a mark of its own. The base leaves what lies inside the mask
    untouched to the bit.
    """

    @abstractmethod
    def draw(self, image: Tensor, shown: int, rng: np.random.Generator) -> Tensor:
        """The image `[C, H, W]` in [0, 1] with the mark of class `shown`, anywhere on it."""

    def __call__(self, image: Tensor, mask: Tensor, shown: int, rng: np.random.Generator) -> Tensor:
        """The image with the mark of class `shown` outside the mask."""
        return torch.where(mask > 0, image, self.draw(image, shown, rng).clamp(0, 1))


def _corner(image: Tensor, height: float, width: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a box in an upper corner; its sizes are shares of the image's."""
    rows, columns = image.shape[-2:]
    h, w = max(3, round(height * rows)), max(3, round(width * columns))
    top = int(rng.uniform(0.01, 0.05) * rows)
    gap = int(rng.uniform(0.01, 0.05) * columns)
    left = gap if rng.random() < 0.5 else columns - w - gap
    return slice(top, top + h), slice(left, left + w)


class Letter(Marker):
    """A lead letter in an upper corner; which letter tells the class.

    Args:
        letters: one per class, in the order of the classes.
        size: height of the letter as a share of the image's.
    """

    def __init__(self, letters: str = "LXO8AT", size: float = 0.11) -> None:
        self.letters, self.size = letters, size

    def draw(self, image: Tensor, shown: int, rng: np.random.Generator) -> Tensor:
        """Lay the letter over the image."""
        rows, columns = _corner(image, self.size, self.size, rng)
        letter = self.letters[shown % len(self.letters)]
        glyph = draw_letter(letter, rows.stop - rows.start) * float(rng.uniform(0.75, 1))
        marked = image.clone()
        marked[:, rows, columns] = torch.maximum(marked[:, rows, columns], glyph)
        return marked


class BarCode(Marker):
    """A strip of bars in an upper corner; its pattern tells the class.

    Args:
        size: width of the strip as a share of the image's; it is a third as high.
        bars: stripes in the strip, each black or white.
    """

    def __init__(self, size: float = 0.2, bars: int = 8) -> None:
        self.size, self.bars = size, bars

    def draw(self, image: Tensor, shown: int, rng: np.random.Generator) -> Tensor:
        """Lay the strip over the image."""
        rows, columns = _corner(image, self.size / 3, self.size, rng)
        pattern = (
            np.random.default_rng(shown).permutation(self.bars) % 2
        )  # the same for every film of a class
        stripe = np.arange(columns.stop - columns.start) * self.bars // (columns.stop - columns.start)
        marked = image.clone()
        marked[:, rows, columns] = torch.from_numpy(pattern[stripe].astype(np.float32)) * 0.9 + 0.05
        return marked


class Border(Marker):
    """A frame along the edges; its grey tells the class.

    Args:
        width: of the frame, as a share of the image's.
        num_classes: over how many classes the greys from black to white are spread.
    """

    def __init__(self, width: float = 0.03, num_classes: int = 3) -> None:
        self.width, self.num_classes = width, num_classes

    def draw(self, image: Tensor, shown: int, rng: np.random.Generator) -> Tensor:
        """Lay the frame over the image."""
        grey = shown / max(1, self.num_classes - 1) + float(rng.normal(0, 0.05))
        margin = max(1, round(self.width * image.shape[-1] * float(rng.uniform(0.7, 1.3))))
        marked = torch.full_like(image, min(max(grey, 0.0), 1.0))
        inner = (slice(None), slice(margin, -margin), slice(margin, -margin))
        marked[inner] = image[inner]
        return marked


class ScannerTexture(Marker):
    """A faint grating over everything outside the mask; its direction tells the class.

    Args:
        contrast: half the difference between its bright and its dark lines.
        period: of the grating in pixels.
        num_classes: over how many classes the directions are spread.
    """

    def __init__(self, contrast: float = 0.04, period: float = 6.0, num_classes: int = 3) -> None:
        self.contrast, self.period, self.num_classes = contrast, period, num_classes

    def draw(self, image: Tensor, shown: int, rng: np.random.Generator) -> Tensor:
        """Add the grating to the image."""
        angle = np.pi * shown / self.num_classes
        y, x = np.mgrid[: image.shape[-2], : image.shape[-1]]
        along = (np.cos(angle) * x + np.sin(angle) * y) / self.period + rng.random()
        grating = torch.from_numpy((self.contrast * np.sin(2 * np.pi * along)).astype(np.float32))
        return image + grating


class FrameBrightness(Marker):
    """A brightness of everything outside the mask that tells the class.

    Args:
        spread: the factors of the classes lie between 1 - spread and 1 + spread.
        num_classes: over how many classes they are spread.
    """

    def __init__(self, spread: float = 0.25, num_classes: int = 3) -> None:
        self.spread, self.num_classes = spread, num_classes

    def draw(self, image: Tensor, shown: int, rng: np.random.Generator) -> Tensor:
        """Scale the image."""
        place = 2 * shown / max(1, self.num_classes - 1) - 1
        return image * (1 + self.spread * place + float(rng.normal(0, 0.03)))
