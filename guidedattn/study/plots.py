"""The paper's figures 3 to 8, and how every model judges; told apart by shape or hatch, not colour alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torchmetrics.functional.classification import multiclass_roc

from guidedattn.figures import blank, draw_attention, draw_contour, draw_image, save_for_print
from guidedattn.study.results import CALIBRATION_BINS, STAGES, Predictions

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe & Ito's, which colour-blind eyes tell apart."""
HATCHES = ("", "//", "..", "xx", "\\\\", "--", "oo", "++")
LINES = ("-", "--", "-.", ":")

Curves = Sequence[tuple[str, Mapping[str, pd.DataFrame]]]


def _panels(number: int, width: float, height: float, columns: int) -> tuple[Any, list[Any]]:
    columns = min(columns, number)
    rows = math.ceil(number / columns)
    figure = blank(width * columns, height * rows + 0.4)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[number:]:
        axes.set_axis_off()
    return figure, grid[:number]


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def save_curves(path: Path, panels: Curves, columns: Mapping[str, str]) -> None:
    """Accuracy over epochs, one panel per body; a star marks the epoch whose weights are kept.

    Args:
        path: without suffix.
        panels: per panel its title, and histories by label.
        columns: columns of the histories, and their headings.
    """
    figure, grid = _panels(len(panels), 3.1, 2.4, 4)
    for axes, (title, histories) in zip(grid, panels, strict=True):
        for place, (label, history) in enumerate(histories.items()):
            best = int(history["val/loss"].to_numpy().argmin())
            for line, (column, heading) in zip(LINES, columns.items(), strict=False):
                name = ", ".join(part for part in (label, heading) if part)
                colour = COLOURS[place]
                axes.plot(history["epoch"] + 1, history[column], line, color=colour, lw=1.3, label=name)
            star = history["epoch"][best] + 1, history["val/accuracy"][best]
            axes.plot(*star, "*", color=COLOURS[place], ms=11, mec="black", mew=0.5, zorder=5)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("epoch", fontsize=9)
        axes.tick_params(labelsize=8)
        _tidy(axes)
    grid[0].set_ylabel("accuracy", fontsize=9)
    _legend(figure, grid[0])
    save_for_print(figure, path)


def save_bars(path: Path, results: Mapping[str, Any], key: str) -> None:
    """Accuracy of the chosen bodies, stage by stage: absolute with intervals, and relative to stage I.

    Comparators that know the set stand beside them, in the absolute panel.

    Args:
        path: without suffix.
        results: of the study.
        key: of the set.
    """
    models, chosen = results["models"], results["chosen"]
    others = [other for other in results["comparators"] if key in other["sets"]]
    kinds = list(dict.fromkeys((m["stage"], m["arm"]) for m in models))
    found = {(m["body"], m["stage"], m["arm"]): m["sets"][key]["accuracy"] for m in models}
    figure = blank(max(6.0, 1.1 + 0.34 * len(kinds) * (len(chosen) + len(others))), 5.6)
    absolute, relative = figure.subplots(2, 1, sharex=True)
    width = 0.8 / len(kinds)
    for place, (stage, arm) in enumerate(kinds):
        later = place // len(COLOURS)  # a second round has other pairs
        style: dict[str, Any] = {
            "color": COLOURS[place % len(COLOURS)], "hatch": HATCHES[(place + later) % len(HATCHES)],
            "width": width, "edgecolor": "white", "label": f"stage {STAGES[stage]} {arm}".strip(),
        }  # fmt: skip
        cells = [found[body, stage, arm] for body in chosen]
        x = np.arange(len(chosen)) + (place - (len(kinds) - 1) / 2) * width
        means = _bars(absolute, x, cells, style)
        relative.bar(x, means - [found[body, 1, ""]["mean"] for body in chosen], **style)
    if others:
        grey = {"color": "#d0d0d0", "edgecolor": "black", "width": width, "label": "comparator"}
        cells = [other["sets"][key]["accuracy"] for other in others]
        _bars(absolute, len(chosen) + np.arange(len(others)), cells, grey)
    absolute.set_ylim(0, 1.02)
    absolute.set_ylabel("accuracy, 95 % interval")
    relative.set_ylabel("accuracy minus stage I's")
    relative.axhline(0, color="black", lw=0.8)
    names = [*chosen, *(other["title"] for other in others)]
    relative.set_xticks(range(len(names)), names)
    for axes in (absolute, relative):
        _tidy(axes)
    _legend(figure, absolute)
    save_for_print(figure, path)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), 4)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=9)


def _bars(axes: Any, x: Any, cells: Sequence[Mapping[str, float]], style: Mapping[str, Any]) -> Any:
    """Bars with intervals; returns their heights."""
    means = np.array([cell["mean"] for cell in cells])
    around = [means - [cell["low"] for cell in cells], [cell["high"] for cell in cells] - means]
    axes.bar(x, means, yerr=np.clip(around, 0, None), capsize=2, error_kw={"lw": 0.8}, **style)
    return means


def save_judgements(path: Path, said: Mapping[str, Predictions]) -> None:
    """Per model a confusion matrix (repeats together), ROC curves and a reliability diagram (first repeat).

    Args:
        path: without suffix.
        said: predictions by the model's title.
    """
    figure = blank(9.6, 3.0 * len(said) + 0.2)
    grid = figure.subplots(len(said), 3, squeeze=False)
    for row, (title, predictions) in zip(grid, said.items(), strict=True):
        _confusion(row[0], predictions, title)
        _roc(row[1], predictions)
        _reliability(row[2], predictions)
    save_for_print(figure, path)


def _confusion(axes: Any, said: Predictions, title: str) -> None:
    counts = np.sum([confusion.sum(0) for confusion in said.confusions], axis=0)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(
            j, i, f"{count:.0f}\n{shares[i, j]:.2f}", ha="center", va="center", color=colour, fontsize=8
        )
    names = said.class_names
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8, rotation=90, va="center")
    axes.set_xlabel("predicted", fontsize=8)
    axes.set_ylabel("true", fontsize=8)
    axes.set_title(title, fontsize=10)


def _roc(axes: Any, said: Predictions) -> None:
    probabilities = torch.tensor(said.probabilities[0]).float()
    false, true, _ = multiclass_roc(probabilities, torch.tensor(said.labels), len(said.class_names))
    for k, name in enumerate(said.class_names):
        line = LINES[k % len(LINES)]
        axes.plot(false[k], true[k], line, color=COLOURS[k % len(COLOURS)], lw=1.4, label=name)
    axes.plot([0, 1], [0, 1], color="#999999", lw=0.7)
    axes.set_xlabel("1 - specificity", fontsize=8)
    axes.set_ylabel("sensitivity", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    axes.set_title("ROC, class against the rest", fontsize=9)
    axes.tick_params(labelsize=8)
    _tidy(axes)


def _reliability(axes: Any, said: Predictions) -> None:
    confidence = said.probabilities[0].max(1)
    right = said.predicted[0] == said.labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    used = np.unique(bins)
    means = [confidence[bins == b].mean() for b in used]
    shares = [right[bins == b].mean() for b in used]
    sizes = [12 + 120 * (bins == b).mean() for b in used]
    axes.plot([0, 1], [0, 1], color="#999999", lw=0.7)
    axes.plot(means, shares, "-", color=COLOURS[0], lw=1)
    axes.scatter(means, shares, s=sizes, color=COLOURS[0], zorder=3)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("confidence", fontsize=8)
    axes.set_ylabel("accuracy", fontsize=8)
    axes.set_title("reliability; area: share of the images", fontsize=9)
    axes.tick_params(labelsize=8)
    _tidy(axes)


def save_heatmaps(path: Path, maps: Mapping[str, Mapping[str, Mapping[str, Any]]], label: str) -> None:
    """Test images of a class, their masks, and each model's map of that class above its answer.

    Args:
        path: without suffix.
        maps: by body (a row per image) and arm (a column), what `save_maps` wrote; the same images in one
            order.
        label: the class.
    """
    arms = list(next(iter(maps.values())))
    shown = np.flatnonzero(next(iter(maps.values()))[arms[0]]["label"] == label)
    rows = [(body, i) for i in shown for body in maps]
    figure = blank(1.8 * (len(arms) + 2) + 0.3, 1.95 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), len(arms) + 2, squeeze=False)
    for cells, (body, i) in zip(grid, rows, strict=True):
        for place, arm in enumerate(arms):
            found = maps[body][arm]
            image, mask, heat = (torch.from_numpy(found[key][i])[None] for key in ("image", "mask", "map"))
            draw_attention(cells[place + 2], image, heat, mask)
            _beside(cells[place + 2], 0.5, -0.03, str(found["predicted"][i]), ha="center", va="top")
        draw_image(cells[0], image)
        draw_image(cells[1], image)
        draw_contour(cells[1], mask)
        _beside(cells[0], -0.06, 0.5, body, rotation=90, ha="right", va="center")
    for axes, heading in zip(grid[0], ["image", "mask", *arms], strict=True):
        axes.set_title(heading, fontsize=9)
    save_for_print(figure, path)


def _beside(axes: Any, x: float, y: float, text: str, **how: Any) -> None:
    axes.text(x, y, text, transform=axes.transAxes, fontsize=8, **how)
