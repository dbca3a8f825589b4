"""Table and figure of the shortcut benchmark."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.box import SIMPLE
from rich.table import Table
from torch import Tensor

from guidedattn.figures import save_intervals
from guidedattn.metrics import reliance

COLUMNS = {
    "matched": "matched",
    "absent": "absent",
    "swapped": "swapped",
    "reliance": "reliance",
    "energy_in_mask": "energy",
    "dead_maps": "dead",
    "step": "step",
}
Summary = dict[str, dict[str, Any]]


def summarise(results: Sequence[Mapping[str, Any]], order: Sequence[str]) -> Summary:
    """Per recipe the runs, and mean and standard deviation over the seeds.

    Reliance is in units of the standard deviation of the margins of the ceiling's model of the same seed;
    `step` is the median time of a training step over that of the plain recipe's.
    """
    units = {r["seed"]: torch.tensor(r["margins"]["matched"]) for r in results if r["recipe"] == "ceiling"}
    plain = statistics.median(r["step_seconds"] for r in results if r["recipe"] == "plain")
    summary: Summary = {}
    for name in order:
        runs = [_measured(r, units[r["seed"]], plain) for r in results if r["recipe"] == name]
        columns = pd.DataFrame(runs)[list(COLUMNS)]  # leaves out a missing energy, where all maps are dead
        summary[name] = {"runs": runs, "mean": columns.mean().to_dict(), "sd": columns.std().to_dict()}
    return summary


def _measured(result: Mapping[str, Any], unit: Tensor, plain_step: float) -> dict[str, Any]:
    matched, swapped = (torch.tensor(result["margins"][shown]) for shown in ("matched", "swapped"))
    return {
        "seed": result["seed"],
        "variant": result["variant"],
        **result["accuracy"],
        "reliance": float(reliance(matched, swapped, unit)),
        "energy_in_mask": result["energy_in_mask"],
        "dead_maps": result["dead_maps"],
        "step": result["step_seconds"] / plain_step,
    }


def _rows(summary: Summary) -> list[list[str]]:
    rows = []
    for name, found in summary.items():
        variant = found["runs"][0]["variant"]
        cells = [f"{name} ({variant})" if variant else name]
        for key in COLUMNS:
            mean, sd = found["mean"][key], found["sd"][key]
            spread = "" if key == "step" or math.isnan(sd) else f"±{sd:.2f}"
            cells.append(f"{mean:.2f}{spread}")
        rows.append(cells)
    return rows


def table(summary: Summary) -> Table:
    """For the terminal: eight columns in 80 characters."""
    result = Table(title="Test accuracy by what the marker says (mean±sd over seeds)", box=SIMPLE, padding=0)
    result.add_column("recipe", overflow="fold")
    for heading in COLUMNS.values():
        result.add_column(heading, justify="right", no_wrap=True, min_width=9)
    for row in _rows(summary):
        result.add_row(*row)
    return result


def to_markdown(summary: Summary) -> str:
    """For a document."""
    lines = [["recipe", *COLUMNS.values()], ["---", *["---:"] * len(COLUMNS)], *_rows(summary)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def save_figure(summary: Summary, path: Path) -> None:
    """Accuracy under the three markers, one line per recipe."""
    series = {
        shown: [(found["mean"][shown], found["sd"][shown]) for found in summary.values()]
        for shown in ("matched", "absent", "swapped")
    }
    save_intervals(path, list(summary), series, "test accuracy")
