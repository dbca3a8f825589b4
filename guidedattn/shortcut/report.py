"""Table and figure of the shortcut benchmark."""

from __future__ import annotations

import math
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

MEASURED = {
    "matched": "matched",
    "absent": "absent",
    "swapped": "swapped",
    "wrong_masks": "wrong mask",
    "reliance": "reliance",
    "energy_in_mask": "energy",
    "dead_maps": "dead",
}
IN_TERMINAL = {key: heading for key, heading in MEASURED.items() if key != "energy_in_mask"}
Summary = dict[str, dict[str, Any]]


def summarise(results: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> Summary:
    """Per recipe the runs, and mean and standard deviation over the seeds.

    Reliance is in units of the standard deviation of the margins of the ceiling's model of the same seed.

    Args:
        results: of all runs.
        costs: by recipe, in the order of the table, what a training step costs (see `step_costs`).
    """
    units = {r["seed"]: torch.tensor(r["margins"]["matched"]) for r in results if r["recipe"] == "ceiling"}
    summary: Summary = {}
    for name, step in costs.items():
        runs = [_measured(r, units[r["seed"]]) for r in results if r["recipe"] == name]
        columns = pd.DataFrame(runs)[list(MEASURED)]  # leaves out a missing energy, where all maps are dead
        mean, sd = columns.mean().to_dict(), columns.std().to_dict()
        summary[name] = {"runs": runs, "mean": mean, "sd": sd, "step": step}
    return summary


def _measured(result: Mapping[str, Any], unit: Tensor) -> dict[str, Any]:
    matched, swapped = (torch.tensor(result["margins"][shown]) for shown in ("matched", "swapped"))
    return {
        "seed": result["seed"],
        "variant": result["variant"],
        **result["accuracy"],
        "wrong_masks": min(result["wrong_masks"].values()),  # the worst mistake
        "accuracy_by_mistake": result["wrong_masks"],
        "reliance": float(reliance(matched, swapped, unit)),
        "energy_in_mask": result["energy_in_mask"],
        "dead_maps": result["dead_maps"],
    }


def _rows(summary: Summary, measured: Mapping[str, str]) -> list[list[str]]:
    rows = []
    for name, found in summary.items():
        variant = found["runs"][0]["variant"]
        cells = [f"{name} ({variant})" if variant else name]
        for key in measured:
            mean, sd = found["mean"][key], found["sd"][key]
            cells.append(f"{mean:.2f}" + ("" if math.isnan(sd) else f"±{sd:.2f}"))
        rows.append([*cells, f"{found['step']:.2f}"])
    return rows


def table(summary: Summary) -> Table:
    """For the terminal, without the maps' energy: eight columns in 80 characters."""
    result = Table(title="Test accuracy by what the marker says (mean±sd over seeds)", box=SIMPLE, padding=0)
    result.add_column("recipe", overflow="fold")
    for heading in (*IN_TERMINAL.values(), "step"):
        result.add_column(heading, justify="right", no_wrap=True, min_width=4 if heading == "step" else 9)
    for row in _rows(summary, IN_TERMINAL):
        result.add_row(*row)
    return result


def to_markdown(summary: Summary) -> str:
    """For a document."""
    headings = ["recipe", *MEASURED.values(), "step"]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *_rows(summary, MEASURED)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def save_figure(summary: Summary, path: Path) -> None:
    """Accuracy under the three markers, one line per recipe."""
    series = {
        shown: [(found["mean"][shown], found["sd"][shown]) for found in summary.values()]
        for shown in ("matched", "absent", "swapped")
    }
    save_intervals(path, list(summary), series, "test accuracy")
