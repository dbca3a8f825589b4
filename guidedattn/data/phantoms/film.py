"""Whole phantom films: a chest, the lesions of its class, distractors, exposure, and the marker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from guidedattn.data.phantoms.canvas import Array, Canvas, bump, canvas, smooth_step
from guidedattn.data.phantoms.chest import Chest, draw_chest

CLASS_NAMES = ("clear", "nodular", "diffuse")
_ANATOMY, _LABEL, MARKER_STREAM, MASK_STREAM = range(4)


def stream(seed: int, index: int, purpose: int) -> np.random.Generator:
    """Random numbers of one image for one purpose, independent of all others."""
    return np.random.default_rng(np.random.SeedSequence((seed, index, purpose)))


def phantom_label(seed: int, index: int) -> int:
    """Class of image `index`: every three images in a row hold every class once, in random order."""
    block, place = divmod(index, len(CLASS_NAMES))
    return int(stream(seed, block, _LABEL).permutation(len(CLASS_NAMES))[place])


def draw_phantom(seed: int, index: int, label: int, image_size: int) -> tuple[Array, NDArray[np.bool_]]:
    """Draw one film without a marker.

    Args:
        seed: Stream of the data set, non-negative.
        index: Number of the image in the stream, non-negative.
        label: Index into `CLASS_NAMES`.
        image_size: Side of the film in pixels.

    Returns:
        The film [S, S] in [0, 1] and its lung mask [S, S].
    """
    rng, grid = stream(seed, index, _ANATOMY), canvas(image_size)
    chest = draw_chest(rng, grid)
    # Lesions use a stream of their own, so that what follows does not depend on the class.
    lesion_rng = rng.spawn(1)[0]
    density = chest.attenuation + _distractors(rng, grid, chest)
    if label == 1:
        density += _nodules(lesion_rng, grid, chest)
    elif label == 2:
        density += _ground_glass(lesion_rng, grid, chest)
    return _expose(rng, grid, density), chest.lungs


def _spot(grid: Canvas, x: float, y: float, radius: float, rim: float, ragged: Array | float = 0.0) -> Array:
    """A round opacity of height 1; `rim` is the share of the radius over which it fades."""
    square = np.square(grid.x - x) + np.square(grid.y - y)
    return smooth_step(radius * (1 + ragged) - np.sqrt(square), radius * rim)


def _places(
    rng: np.random.Generator, grid: Canvas, chest: Chest, depth: float, count: int
) -> list[tuple[float, float]]:
    """Random points at least `depth` inside the lungs, in film coordinates."""
    inside = np.flatnonzero(chest.lung_field > depth)
    if not inside.size:
        return []
    picks = inside[(rng.random(count) * inside.size).astype(np.int64)]
    return [(float(grid.x.flat[p]), float(grid.y.flat[p])) for p in picks]


def _nodules(rng: np.random.Generator, grid: Canvas, chest: Chest) -> Array:
    """One to five round dense opacities of varied size, inside the lungs."""
    count = int(rng.integers(1, 6))
    ragged = 0.12 * grid.noise(rng, 14)
    total = np.zeros_like(chest.air)
    for x, y in _places(rng, grid, chest, 0.035, count):
        radius, contrast = rng.uniform(0.05, 0.1), rng.uniform(0.14, 0.26)
        total = np.maximum(total, contrast * _spot(grid, x, y, radius, 0.35, ragged))
    return total * (chest.air > 0.3) * smooth_step(chest.lung_field, 0.012)


def _ground_glass(rng: np.random.Generator, grid: Canvas, chest: Chest) -> Array:
    """Patches of hazy, finely mottled opacity in both lungs, denser towards the border and the base."""
    border = np.exp(-8 * np.maximum(chest.lung_field, 0))
    lean = rng.uniform(0, 0.8) * border + rng.uniform(-0.2, 0.8) * chest.v
    patches = smooth_step(grid.noise(rng, 7) + lean - rng.uniform(0.1, 0.7), 0.5)
    mottle = 1 + 0.55 * grid.noise(rng, 34)
    return rng.uniform(0.09, 0.17) * patches * mottle * smooth_step(chest.lung_field, 0.012)


def _distractors(rng: np.random.Generator, grid: Canvas, chest: Chest) -> Array:
    """What every class may show: uneven inflation, scars, calcified dots, end-on vessels, breasts, cables."""
    total = chest.air * (rng.normal(0, 0.05) + 0.03 * grid.noise(rng, 3))
    for x, y in _places(rng, grid, chest, 0.02, int(rng.integers(0, 4))):
        total += chest.air * rng.uniform(0.08, 0.22) * _spot(grid, x, y, rng.uniform(0.01, 0.022), 0.4)
    if rng.random() < 0.35:
        angle, offset = rng.uniform(-0.6, 0.6), rng.uniform(-0.2, 0.35)
        line = chest.v - offset - np.float32(np.tan(angle)) * (np.abs(chest.u) - 0.35)
        reach = bump(np.abs(chest.u) - rng.uniform(0.25, 0.45), 0.1) * (
            chest.u * int(rng.choice((-1, 1))) > 0
        )
        total += chest.air * rng.uniform(0.08, 0.18) * reach * bump(line, rng.uniform(0.01, 0.025))
    if rng.random() < 0.4:
        centre, low, radius = rng.uniform(0.3, 0.42), rng.uniform(0.15, 0.35), rng.uniform(0.24, 0.34)
        round_ = np.sqrt(np.square(np.abs(chest.u) - centre) + np.square(chest.v - low))
        breast = smooth_step(radius - round_, 0.04) * smooth_step(chest.v - low + 0.12, 0.1)
        total += rng.uniform(0.04, 0.1) * breast
    if rng.random() < 0.25:
        start, bend, slope = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.5), rng.uniform(-0.8, 0.8)
        path = grid.x - start - slope * grid.y - bend * grid.y * grid.y
        total += rng.uniform(0.08, 0.2) * bump(path, 0.011)
    return total


def _expose(rng: np.random.Generator, grid: Canvas, density: Array) -> Array:
    """Turn attenuation into a film: tube gradient, scatter, characteristic curve, grain, collimation."""
    gradient = rng.normal(0, 0.05) * grid.x + rng.normal(0, 0.05) * grid.y + 0.03 * grid.noise(rng, 2)
    middle, latitude = rng.normal(0.56, 0.06), rng.uniform(0.26, 0.42)
    film = smooth_step(density + gradient - middle, latitude)
    black, white = rng.uniform(0.0, 0.07), rng.uniform(0.82, 1.0)
    film = black + (white - black) * film
    grain = rng.uniform(0.006, 0.022)
    film += grain * grid.noise(rng, 56) * 0.7
    film += grain * rng.standard_normal(film.shape, dtype=np.float32)
    if rng.random() < 0.2:
        sides = rng.uniform(0.93, 1.05, 4)
        open_ = (grid.x > -sides[0]) & (grid.x < sides[1]) & (grid.y > -sides[2]) & (grid.y < sides[3])
        film *= np.where(open_, 1, 0.15)
    return np.clip(film, 0, 1)


def _glyph(label: int, x: Array, y: Array) -> Array:
    """Distance to the strokes of a class's marker, L, O or X, in glyph units of [-1, 1]."""
    if label == 1:
        ring: Array = np.abs(np.hypot(x, y) - 0.85)
        return ring
    if label == 0:
        first = np.hypot(x + 0.6, np.maximum(np.abs(y) - 1, 0))
        second = np.hypot(np.maximum(np.abs(x) - 0.6, 0), y - 1)
    else:
        along, across = (x + y) * 0.5**0.5, (x - y) * 0.5**0.5
        first = np.hypot(across, np.maximum(np.abs(along) - 1.15, 0))
        second = np.hypot(along, np.maximum(np.abs(across) - 1.15, 0))
    nearest: Array = np.minimum(first, second)
    return nearest


def stamp_marker(film: Array, lungs: NDArray[np.bool_], label: int, rng: np.random.Generator) -> Array:
    """Lay the lead marker of class `label` on an upper corner of a film [S, S]; never on lung pixels."""
    grid = canvas(film.shape[0])
    side = int(rng.choice((-1, 1)))
    x = grid.x - side * rng.uniform(0.68, 0.84)
    y = grid.y - rng.uniform(-0.84, -0.72)
    angle, size = rng.normal(0, 0.12), rng.uniform(0.075, 0.105)
    cos, sin = np.float32(np.cos(angle) / size), np.float32(np.sin(angle) / size)
    stroke = _glyph(label, cos * x + sin * y, cos * y - sin * x)
    alpha = smooth_step(0.3 - stroke, 0.12) * rng.uniform(0.65, 1.0) * ~lungs
    alpha[alpha < 0.004] = 0
    return film + alpha * (rng.uniform(0.85, 1.0) - film)
