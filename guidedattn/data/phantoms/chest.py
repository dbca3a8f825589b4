"""The healthy chest of a phantom: body, lungs, bones, heart and vessels as one attenuation map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from guidedattn.data.phantoms.canvas import Array, Canvas, bump, smooth_step, tails


@dataclass
class Chest:
    """What later steps need to know of one chest; all maps [S, S].

    Attributes:
        u: Body coordinate across, 0 on the spine, negative on the left of the image.
        v: Body coordinate down, about -0.6 at the lung tops and 0.4 at the diaphragm.
        lung_field: Positive inside the lungs, about the distance to their border.
        lungs: Exact lung mask.
        air: Share of the beam's path through air-filled lung, soft at the border, in [0, 1].
        hilum: Where the vessels enter the lungs: (|u|, v).
        attenuation: Density of body, bones and heart, about 0 (air) to 1.4.
    """

    u: Array
    v: Array
    lung_field: Array
    lungs: NDArray[np.bool_]
    air: Array
    hilum: tuple[float, float]
    attenuation: Array


def draw_chest(rng: np.random.Generator, grid: Canvas) -> Chest:
    """Draw a healthy chest of random build, position and rotation."""
    u, v = _pose(rng, grid)
    a = np.abs(u)
    heart = _heart_field(rng, u, v)
    field, outer, dome = _lung_field(rng, u, v, a, heart)
    # In the outermost corners of the film there is never lung, whatever the pose: markers may lie there.
    field = np.minimum(field, 0.9 + 0.55 * grid.y - np.abs(grid.x))
    air = smooth_step(field, 0.012) * (0.72 + 0.28 * np.tanh(np.maximum(field, 0) * 9))
    hilum = (rng.uniform(0.15, 0.19), rng.uniform(-0.1, 0.02))
    tissue = _body(rng, u, v, a)
    body = np.minimum(tissue * 3, 1)
    attenuation = tissue - rng.uniform(0.38, 0.5) * air
    attenuation += (
        body * rng.uniform(0.08, 0.2) * smooth_step(v - dome, 0.02) * smooth_step(outer + 0.1 - a, 0.1)
    )
    attenuation += rng.uniform(0.1, 0.2) * smooth_step(heart, 0.03)
    attenuation += _centre(rng, u, v, a)
    attenuation += body * _ribs(rng, u, v, a, outer)
    attenuation += body * (_clavicles(rng, u, v, a) + _shoulders(rng, u, v, a))
    attenuation += air * _vessels(rng, grid, v, a, hilum)
    attenuation += body * 0.025 * grid.noise(rng, 6) + body * 0.012 * grid.noise(rng, 24)
    return Chest(u, v, field, field > 0, air, hilum, attenuation)


def _pose(rng: np.random.Generator, grid: Canvas) -> tuple[Array, Array]:
    """Body coordinates of every pixel: shifted, turned, scaled and gently bent."""
    angle = rng.normal(0, 0.05)
    scale_x, scale_y = rng.uniform(0.8, 1.04), rng.uniform(0.84, 1.06)
    x = grid.x - rng.uniform(-0.08, 0.08)
    y = grid.y - rng.uniform(-0.02, 0.12)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    bend = rng.uniform(0.015, 0.03)
    u = (cos * x + sin * y) * scale_x + bend * grid.noise(rng, 3)
    v = (cos * y - sin * x) * scale_y + bend * grid.noise(rng, 3)
    return u, v


def _body(rng: np.random.Generator, u: Array, v: Array, a: Array) -> Array:
    """Soft tissue: neck, sloping shoulders and trunk, thickest in the middle and towards the belly."""
    neck, shoulder, side = rng.uniform(0.26, 0.38), rng.uniform(-0.9, -0.78), rng.uniform(0.8, 1.05)
    slope, drop = rng.uniform(0.12, 0.35), rng.uniform(0.5, 1.5)
    line = shoulder + slope * np.maximum(a - neck, 0) + drop * np.maximum(a - 0.78, 0) ** 2
    flank = side + 0.22 * smooth_step(-0.3 - v, 0.2)
    trunk = np.minimum(v - line, flank - a)
    field = np.maximum(trunk, neck - a + 0.25 * np.square(np.maximum(v + 1.15, 0)))
    depth = np.tanh(np.maximum(field + 0.012, 0) * 5)
    thickness = rng.uniform(0.6, 0.72) + 0.14 * bump(u, 0.5) + 0.12 * v
    result: Array = smooth_step(field, 0.02) * (0.35 + 0.65 * depth) * thickness
    return result


def _heart_field(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Positive inside the heart shadow, a tilted egg whose tip points to the right of the image."""
    tilt = rng.uniform(0.45, 0.8)
    du, dv = u - rng.uniform(0.07, 0.13), v - rng.uniform(0.16, 0.24)
    # The heart rests on the diaphragm: without a lower border of its own no lung shows beneath it.
    dv = np.where(dv > 0, dv * 0.6, dv)
    along = du * np.float32(np.cos(tilt)) + dv * np.float32(np.sin(tilt))
    across = dv * np.float32(np.cos(tilt)) - du * np.float32(np.sin(tilt))
    length, girth = rng.uniform(0.3, 0.42), rng.uniform(0.2, 0.27)
    return (1 - np.sqrt((along / length) ** 2 + (across / girth) ** 2)) * girth


def _lung_field(
    rng: np.random.Generator, u: Array, v: Array, a: Array, heart: Array
) -> tuple[Array, Array, Array]:
    """Both lungs as one field (positive inside), the outer border |u| and the height of the diaphragm."""
    right = (u > 0).astype(np.float32)

    def per_side(low: float, high: float, spread: float, right_minus_left: float = 0.0) -> Array:
        left_value = rng.uniform(low, high)
        return left_value + (right_minus_left + rng.uniform(-spread, spread)) * right

    top, base = per_side(-0.7, -0.6, 0.03), per_side(0.4, 0.62, 0.05, 0.05)
    apex, width = per_side(0.25, 0.31, 0.02), per_side(0.58, 0.72, 0.04)
    inner_edge = per_side(0.09, 0.13, 0.015)
    height, crest = per_side(0.1, 0.22, 0.04), per_side(0.24, 0.34, 0.03)
    t = np.clip((v - top) / (base - top), 0, 1)
    roundness = np.sqrt(1 - np.square(1 - np.minimum(t * 1.15, 1)))
    outer = apex + (width - apex) * roundness
    inner = apex - (apex - inner_edge - 0.06 * np.maximum(v, 0)) * np.sqrt(
        1 - np.square(1 - np.minimum(t * 3, 1))
    )
    knob = rng.uniform(0.0, 0.05) * bump(v - rng.uniform(-0.34, -0.26), 0.07) * right
    dome = base + 0.04 - height * (1 - np.square((a - crest) / 0.36).clip(0, 1.6))
    borders = (outer - a, a - inner - knob, dome - v, -heart)
    sharpness = rng.uniform(35, 60)
    total = sum(np.exp(np.maximum(border, -0.6) * -sharpness) for border in borders)
    field = np.log(total) * (-1 / sharpness)
    return np.minimum(field, v - top), outer, dome


def _centre(rng: np.random.Generator, u: Array, v: Array, a: Array) -> Array:
    """Spine with its vertebrae, mediastinum, and the dark windpipe in front of it."""
    lean = rng.uniform(-0.03, 0.03) * v
    vertebrae = 0.75 + 0.25 * np.cos(v * (2 * np.pi / rng.uniform(0.11, 0.15)) + rng.uniform(0, 6))
    spine = (
        rng.uniform(0.05, 0.12) * smooth_step(rng.uniform(0.06, 0.08) - np.abs(u - lean), 0.012) * vertebrae
    )
    width = rng.uniform(0.09, 0.13)
    middle = rng.uniform(0.08, 0.16) * smooth_step(width - a, 0.03) * smooth_step(v + 0.55, 0.12)
    windpipe = bump(u - lean - rng.uniform(-0.01, 0.02), 0.035) * smooth_step(-0.18 - v, 0.05)
    return spine + middle - rng.uniform(0.08, 0.14) * windpipe


def _ribs(rng: np.random.Generator, u: Array, v: Array, a: Array, outer: Array) -> Array:
    """Posterior ribs (arched, clearer) and anterior ribs (steeper, fainter), with brighter rims."""
    spacing, shift = rng.uniform(0.135, 0.19), rng.uniform(0, 1)
    skew = rng.uniform(-0.03, 0.03) * u
    arch, drop = rng.uniform(0.5, 0.9), rng.uniform(0.15, 0.4)
    posterior = v + skew - arch * np.square(a - 0.2) * (1 - 0.5 * v)
    anterior = v + skew + drop * a + rng.uniform(0.3, 0.6) * np.square(a - 0.15)
    cage = smooth_step(outer + 0.045 - a, 0.012)
    cage *= tails(v, -0.68, rng.uniform(0.45, 0.6)) * smooth_step(a - 0.07, 0.03)
    total = np.zeros_like(u)
    for path, strength, gap in (
        (posterior, rng.uniform(0.05, 0.11), 1.0),
        (anterior, rng.uniform(0.02, 0.06), 1.1),
    ):
        wave = np.cos(path * (2 * np.pi / (spacing * gap)) + (6.28 * shift))
        rib = smooth_step(wave - rng.uniform(0.15, 0.5), 0.3)
        total += strength * (0.7 * rib + 1.6 * rib * (1 - rib))
        cage = cage * smooth_step(a - 0.02, 0.05)
    return total * cage * (0.8 + 0.5 * np.square(a / outer))


def _clavicles(rng: np.random.Generator, u: Array, v: Array, a: Array) -> Array:
    """Collar bones: two shallow S curves from the breastbone to the shoulders."""
    height, rise = rng.uniform(-0.47, -0.38), rng.uniform(0.15, 0.4)
    tilt = rng.uniform(-0.06, 0.06) * u
    curve = height - rise * (a - 0.08) - 0.035 * np.sin((a - 0.08) * 9) + tilt
    bone = smooth_step(rng.uniform(0.026, 0.036) + 0.012 * bump(a - 0.12, 0.08) - np.abs(v - curve), 0.011)
    shaft = smooth_step(a - 0.07, 0.015) * smooth_step(rng.uniform(0.68, 0.8) - a, 0.03)
    result: Array = rng.uniform(0.09, 0.17) * shaft * (0.75 * bone + 1.4 * bone * (1 - bone))
    return result


def _shoulders(rng: np.random.Generator, u: Array, v: Array, a: Array) -> Array:
    """Heads of the upper arm bones and the faint borders of the shoulder blades."""
    across, height, radius = rng.uniform(0.86, 0.98), rng.uniform(-0.56, -0.44), rng.uniform(0.1, 0.13)
    dv = v - height - rng.uniform(-0.08, 0.08) * u
    below = np.maximum(dv, 0)
    head = smooth_step(radius - np.hypot(a - across - 0.2 * below, dv - 0.8 * below), 0.02)
    blade = a - rng.uniform(0.62, 0.72) + rng.uniform(0.15, 0.4) * dv
    border = bump(blade, 0.02) * smooth_step(dv, 0.05) * smooth_step(0.45 - dv, 0.1)
    return rng.uniform(0.04, 0.1) * head + rng.uniform(0.02, 0.07) * border


def _vessels(rng: np.random.Generator, grid: Canvas, v: Array, a: Array, hilum: tuple[float, float]) -> Array:
    """Vessels that fan out from the hilum, thinner and fainter on their way to the border."""
    da, dv = a - hilum[0], v - hilum[1]
    distance = np.sqrt(da * da + dv * dv)
    wander = grid.noise(rng, 9)
    fan = (dv + 0.03 * wander) / (np.abs(da) + 0.16)
    wave = np.cos(fan * rng.uniform(11, 17) + wander * 1.1 + rng.uniform(0, 6))
    branches = np.exp((wave - 1) * (3 + 9 * distance)) * np.exp(distance * -3.2)
    net = bump(grid.noise(rng, 20), 0.4) * np.exp(distance * (-2.5))
    root = bump(da, 0.07) * bump(dv, 0.12)
    strength = rng.uniform(0.7, 1.3)
    result: Array = strength * (0.14 * branches + 0.07 * net + rng.uniform(0.06, 0.16) * root)
    return result
