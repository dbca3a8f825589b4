"""Pictures: overlays of attention maps, and the comparison sheet of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from guidedattn.guidance import normalise, resize

HEAT = mpl.colormaps["inferno"]
CONTOUR = "#40e0d0"  # readable on grey and on the warm heat colours, for colour-blind eyes too


def _array(image: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = image.detach().float().cpu().mean(0).numpy()
    return array


def draw_image(axes: Axes, image: Tensor) -> None:
    """Show an image `[C, H, W]` in [0, 1] in grey, without axes."""
    axes.imshow(_array(image), cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()


def draw_contour(axes: Axes, mask: Tensor) -> None:
    """Outline a mask `[1, H, W]`; an empty one has no outline."""
    if bool((mask > 0.5).any()) and bool((mask <= 0.5).any()):
        axes.contour(_array(mask), levels=[0.5], colors=[CONTOUR], linewidths=1.0)


def draw_attention(axes: Axes, image: Tensor, attention: Tensor, mask: Tensor) -> None:
    """Lay a rectified, normalised map `[1, h, w]` over an image `[C, H, W]`, with the mask's outline."""
    draw_image(axes, image)
    heat = _array(normalise(resize(attention[None].relu(), image))[0])
    colours = HEAT(heat)
    colours[..., 3] = 0.65 * heat**0.7
    axes.imshow(colours)
    draw_contour(axes, mask)


def blank(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def save_for_print(figure: Figure, path: Path) -> None:
    """Write a figure twice, as `path`.svg and as `path`.png."""
    for suffix in ("svg", "png"):
        _save(figure, path.with_name(f"{path.name}.{suffix}"))


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format=path.suffix.removeprefix("."))
    part.replace(path)


def save_overlay(path: Path, image: Tensor, attention: Tensor, mask: Tensor, title: str) -> None:
    """Write one picture: the image, and beside it the image under its attention map.

    Args:
        path: the PNG to write.
        image: `[C, H, W]` in [0, 1].
        attention: `[1, h, w]`; its negative part is not shown.
        mask: `[1, H, W]` in [0, 1].
        title: above the map.
    """
    figure = Figure(figsize=(6, 3.25), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_image(left, image)
    left.set_title("input", fontsize=9)
    draw_attention(right, image, attention, mask)
    right.set_title(title, fontsize=9)
    _save(figure, path)


def save_sheet(
    path: Path,
    rows: Sequence[Sequence[tuple[Tensor, Tensor | None, Tensor | None]]],
    columns: Sequence[str],
    row_titles: Sequence[str],
    cell_titles: Sequence[Sequence[str]] | None = None,
    title: str = "",
) -> None:
    """Write a sheet of pictures with a heading per column and row.

    Args:
        path: the PNG to write.
        rows: per row, per cell: image `[C, H, W]`, attention `[1, h, w]` or None, mask `[1, H, W]` or None.
        columns: headings of the columns.
        row_titles: headings of the rows.
        cell_titles: a line under each cell.
        title: above everything.
    """
    figure = Figure(figsize=(2.1 * len(columns) + 0.4, 2.3 * len(rows) + 0.5), dpi=110, layout="constrained")
    grid: Any = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for j, (image, attention, mask) in enumerate(row):
            axes = grid[i][j]
            if attention is not None:
                draw_attention(axes, image, attention, image[:1] * 0 if mask is None else mask)
            else:
                draw_image(axes, image)
                if mask is not None:
                    draw_contour(axes, mask)
            if i == 0:
                axes.set_title(columns[j], fontsize=10)
            if j == 0:
                axes.text(
                    -0.06,
                    0.5,
                    row_titles[i],
                    rotation=90,
                    ha="right",
                    va="center",
                    transform=axes.transAxes,
                    fontsize=9,
                )
            if cell_titles is not None:
                axes.text(
                    0.5, -0.03, cell_titles[i][j], ha="center", va="top", transform=axes.transAxes, fontsize=8
                )
    if title:
        figure.suptitle(title, fontsize=11)
    _save(figure, path)


def save_intervals(
    path: Path, names: Sequence[str], series: Mapping[str, Sequence[tuple[float, float]]], axis: str
) -> None:
    """Draw one line per name with a point and an interval per series.

    Args:
        path: the PNG, SVG or PDF to write.
        names: from top to bottom.
        series: by name, mean and standard deviation per line.
        axis: what is drawn, a share between 0 and 1.
    """
    figure = Figure(figsize=(7, 0.42 * len(names) + 1.1), dpi=130, layout="constrained")
    axes = figure.subplots()
    styles = zip(("#0072b2", "#7f7f7f", "#d55e00"), ("o", "s", "D"), strict=True)  # told apart by shape too
    for place, ((label, values), (colour, shape)) in enumerate(zip(series.items(), styles, strict=True)):
        means, spreads = zip(*values, strict=True)
        shift = 0.24 * (place - (len(series) - 1) / 2)  # or equal values hide each other
        axes.errorbar(
            means,
            [line + shift for line in range(len(names))],
            xerr=[0 if s != s else s for s in spreads],
            fmt=shape,
            color=colour,
            label=label,
            capsize=2,
            ms=5,
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.01)
    axes.set_xlabel(axis)
    axes.grid(axis="x", alpha=0.3)
    axes.grid(axis="y", alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(series), frameon=False)
    _save(figure, path)
