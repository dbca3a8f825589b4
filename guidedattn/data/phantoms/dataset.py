"""Generated chest films with exact lung masks: lesions in the lungs are the class, a marker betrays it."""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from guidedattn.data.base import ImageDataset, Transform
from guidedattn.data.cache import Digest
from guidedattn.data.phantoms.film import (
    CLASS_NAMES,
    MARKER_STREAM,
    MASK_STREAM,
    draw_phantom,
    phantom_label,
    stamp_marker,
    stream,
)
from guidedattn.errors import ConfigError, near

Marker = Literal["matched", "absent", "swapped"]


def phantom_name(seed: int, index: int) -> str:
    """Name of an image, in place of a path."""
    return f"phantom-{seed}-{index}"


def check_marker(name: str, marker: str) -> None:
    """Make sure that `marker` is a mode of the marker.

    Raises:
        ConfigError: It is not; the message names the argument.
    """
    modes = get_args(Marker)
    if marker not in modes:
        raise ConfigError(f"{name} must be one of {', '.join(modes)}, got {marker!r}{near(marker, modes)}")


def _check(
    size: int, seed: int, image_size: int, marker: str, marker_probability: float, mask_fraction: float
) -> None:
    if size < 1 or seed < 0 or image_size < 16:
        given = f"{size}, {seed}, {image_size}"
        raise ConfigError(f"phantoms need size >= 1, seed >= 0 and image_size >= 16, got {given}")
    check_marker("marker", marker)
    for name, value in (("marker_probability", marker_probability), ("mask_fraction", mask_fraction)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], got {value}")


class PhantomDataset(ImageDataset):
    """Generated chest films, the same for the same `seed` and index whatever the other arguments.

    Films are drawn at the first access and kept as bytes, 2 S^2 per image.

    Args:
        size: Number of images.
        seed: Stream, non-negative; different seeds give different patients.
        image_size: Side of the films in pixels.
        marker: `matched` shows each image the marker of its class (see `marker_probability`), `swapped`
            always that of another class, `absent` none.
        marker_probability: With `matched`, the share of images whose marker agrees with the class, in
            [0, 1]; the others show that of another class.
        mask_fraction: Share of images that come with their lung mask, in [0, 1].
        transform: Called on `{"image": tv_tensors.Image, "mask": tv_tensors.Mask}` at every access.

    Raises:
        ConfigError: If an argument is out of range.
    """

    class_names = CLASS_NAMES

    def __init__(
        self,
        size: int,
        seed: int,
        image_size: int = 128,
        marker: Marker = "matched",
        marker_probability: float = 1.0,
        mask_fraction: float = 1.0,
        transform: Transform | None = None,
    ) -> None:
        _check(size, seed, image_size, marker, marker_probability, mask_fraction)
        self.size, self.seed, self.image_size = size, seed, image_size
        self.marker, self.marker_probability, self.transform = marker, marker_probability, transform
        order = np.random.default_rng(np.random.SeedSequence((seed, size, MASK_STREAM))).permutation(size)
        self._has_mask = order < round(mask_fraction * size)
        self._drawn = np.zeros(size, dtype=np.bool_)
        self._films = np.empty((size, image_size, image_size), dtype=np.uint8)
        self._lungs = np.empty((size, image_size, image_size), dtype=np.bool_)

    def __len__(self) -> int:
        return self.size

    def _marker(self, index: int) -> tuple[int, np.random.Generator]:
        """Class of the marker and the stream for its looks, which do not depend on that class."""
        rng, label = stream(self.seed, index, MARKER_STREAM), phantom_label(self.seed, index)
        agrees = rng.random() < self.marker_probability and self.marker == "matched"
        other = (label + int(rng.integers(1, len(CLASS_NAMES)))) % len(CLASS_NAMES)
        return (label if agrees else other), rng

    def draw_all(self) -> None:
        """Draw every image now, so that worker processes inherit the films instead of drawing their own."""
        for index in range(self.size):
            self._draw(index)

    def _draw(self, index: int) -> None:
        if self._drawn[index]:
            return
        film, lungs = draw_phantom(self.seed, index, phantom_label(self.seed, index), self.image_size)
        if self.marker != "absent":
            film = stamp_marker(film, lungs, *self._marker(index))
        self._films[index] = np.rint(film * 255)
        self._lungs[index] = lungs
        self._drawn[index] = True

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one sample.

        Returns:
            `image` float32 [1, S, S] in [0, 1]; `label` int64 []; `mask` float32 [1, S, S], 1 in the lungs
            (all zero without a mask); `has_mask` bool; `index` int; `path`, a name.

        Raises:
            IndexError: If `index` is out of range.
        """
        if not -self.size <= index < self.size:
            raise IndexError(index)
        index %= self.size
        return {
            **self.pixels(index),
            "label": torch.tensor(phantom_label(self.seed, index)),
            "index": index,
            "path": self.path(index),
        }

    def path(self, index: int) -> str:
        """Return the name of the film at `index`."""
        return phantom_name(self.seed, index)

    def origin(self, index: int, digest: Digest) -> tuple[Any, ...]:  # noqa: ARG002  there is no file
        """Return a digest of the film at `index`."""
        self._draw(index)
        return ("phantom", self.image_size, sha256(self._films[index].tobytes()).hexdigest())

    def read(self, index: int, with_mask: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return film and lungs `[1, S, S]` at `index`, before the transform."""
        self._draw(index)
        image = torch.from_numpy(self._films[index]).float().div_(255)[None]
        if not (with_mask and self._has_mask[index]):
            return image, None
        return image, torch.from_numpy(self._lungs[index]).float()[None]
