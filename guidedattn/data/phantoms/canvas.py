"""Pixel coordinates, smooth noise and soft edges, the brushes of the phantoms."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""A float32 map; NumPy's stubs would make float64 of float32 times a Python float."""

_ONE_THREAD = 200_000  # multiplications; OpenBLAS threads from 262144 on


def smooth_step(field: Array, width: float) -> Array:
    """Rise from 0 to 1 where `field` crosses zero, over about `width` on either side."""
    step = field * (1 / width)
    np.tanh(step, out=step)
    step *= 0.5
    step += 0.5
    return step


def bump(distance: Array, width: float) -> Array:
    """A Gaussian ridge of height 1 where `distance` is zero."""
    ridge = distance * (1 / width)
    ridge *= ridge
    np.negative(ridge, out=ridge)
    np.exp(ridge, out=ridge)
    return ridge


def tails(profile: Array, top: Array | float, bottom: Array | float) -> Array:
    """Cut a profile along the body axis: 1 between `top` and `bottom`, soft over 0.06."""
    return smooth_step(profile - top, 0.06) * smooth_step(bottom - profile, 0.06)


@lru_cache(maxsize=64)
def _spline_basis(size: int, cells: int) -> Array:
    """Cubic B-spline weights [size, cells + 3], scaled so that unit noise stays near unit deviation."""
    position = (np.arange(size) + 0.5) / size * cells
    left = np.minimum(position.astype(np.int64), cells - 1)
    t = position - left
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    basis = np.zeros((size, cells + 3))
    for offset in range(4):
        basis[np.arange(size), left + offset] = weights[offset]
    result: Array = (basis / np.sqrt(0.479)).astype(np.float32)
    return result


def _matmul(left: Array, right: Array) -> Array:
    """Matrix product in blocks so small that OpenBLAS stays on one thread.

    Waking its other threads costs ten times the product where they share cores with training.
    """
    rows = max(1, _ONE_THREAD // right.size)
    return np.concatenate([left[row : row + rows] @ right for row in range(0, len(left), rows)])


class Canvas:
    """Pixel coordinates in [-1, 1] (x to the right, y down) and smooth noise on a square grid."""

    def __init__(self, size: int) -> None:
        axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
        self.size = size
        self.x, self.y = np.meshgrid(axis, axis)

    def noise(self, rng: np.random.Generator, cells: int) -> Array:
        """Smooth noise [size, size], about zero mean and unit deviation, with features of 2 / `cells`."""
        basis = _spline_basis(self.size, cells)
        grid = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
        return _matmul(_matmul(basis, grid), basis.T)


@lru_cache(maxsize=8)
def canvas(size: int) -> Canvas:
    """The shared canvas of one image size."""
    return Canvas(size)
