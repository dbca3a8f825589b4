"""The paper's tables, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guidedattn.files import whole_file
from guidedattn.study.results import STAGES

Cell = Any
"""Text, a number, None, or an interval: a dict of `mean, sd, low, high`."""


@dataclass(frozen=True)
class Table:
    """A table to write.

    Attributes:
        name: of its files.
        title: what it shows, with the numbers that qualify it.
        columns: headings.
        rows: as many cells each.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def as_text(self) -> list[list[str]]:
        """Every cell as people read it."""
        return [[as_text(cell) for cell in row] for row in self.rows]

    def write(self, folder: Path) -> None:
        """Write `<name>.csv`, `.md` and `.tex`."""
        with whole_file(folder / f"{self.name}.csv") as file:
            csv.writer(file, lineterminator="\n").writerows(self._long())
        with whole_file(folder / f"{self.name}.md") as file:
            file.write(self.to_markdown())
        with whole_file(folder / f"{self.name}.tex") as file:
            file.write(self.to_latex())

    def _long(self) -> list[list[Any]]:
        """The rows with a column for each part of an interval."""
        wide = [any(isinstance(row[j], Mapping) for row in self.rows) for j in range(len(self.columns))]
        parts = ("mean", "sd", "low", "high")
        header: list[Any] = []
        for column, is_wide in zip(self.columns, wide, strict=True):
            header += [column, *(f"{column} {part}" for part in parts[1:])] if is_wide else [column]
        lines = [header]
        for row in self.rows:
            line: list[Any] = []
            for cell, is_wide in zip(row, wide, strict=True):
                line += [(cell or {}).get(part) for part in parts] if is_wide else [cell]
            lines.append(["" if value is None else value for value in line])
        return lines

    def to_markdown(self) -> str:
        """For a document."""
        lines = [list(self.columns), ["---"] * len(self.columns), *self.as_text()]
        body = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
        return f"**{self.title}**\n\n{body}"

    def to_latex(self) -> str:
        """For a paper; wants the package booktabs."""
        rows = [" & ".join(map(_latex, row)) + r" \\" for row in [list(self.columns), *self.as_text()]]
        lines = [
            r"\begin{table}", rf"\caption{{{_latex(self.title)}}}",
            rf"\begin{{tabular}}{{{'l' * len(self.columns)}}}", r"\toprule", rows[0], r"\midrule", *rows[1:],
            r"\bottomrule", r"\end{tabular}", r"\end{table}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def as_text(cell: Cell) -> str:
    """A cell as people read it.

    >>> as_text({"mean": 0.7712, "sd": 0.01, "low": 0.7, "high": 0.84})
    '0.77±0.01 [0.70, 0.84]'
    """
    if cell is None:
        return "–"  # noqa: RUF001
    if isinstance(cell, Mapping):
        if cell["mean"] is None:
            return "–"  # noqa: RUF001
        sd = "" if cell["sd"] is None else f"±{cell['sd']:.2f}"
        low_high = "" if cell["low"] is None else f" [{cell['low']:.2f}, {cell['high']:.2f}]"
        return f"{cell['mean']:.2f}{sd}{low_high}"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _latex(text: str) -> str:
    r"""Text with LaTeX's special characters escaped.

    >>> print(_latex("50% of a_b ± 1"))
    50\% of a\_b $\pm$ 1
    """
    signs = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--"}  # noqa: RUF001
    signs |= {sign: f"\\{sign}" for sign in "%&_#$"}
    return "".join(signs.get(sign, sign) for sign in text)


def study_tables(results: Mapping[str, Any]) -> list[Table]:
    """Tables 2, 4, 5, 6 and 7 of the paper, stage III likewise, and the pairs of models."""
    models, others = results["models"], results["comparators"]
    tables = [_bodies([m for m in models if m["stage"] == 1], others)]
    numbers = {1: ("table_4", "table_5"), 2: ("table_6", "table_7"), 3: ("stage3_subsets", "stage3_classes")}
    for stage, (subsets, classes) in numbers.items():
        rows = [*(m for m in models if m["stage"] == stage), *others]
        tables.append(_subsets(subsets, stage, rows, results["sets"]))
        for key, heading in results["sets"].items():
            if key not in ("train", "val"):
                name = classes if key == "test" else f"{classes}_{key}"
                tables.append(_classes(name, stage, rows, key, heading, results["class_names"]))
    return [*tables, _attention([*models, *others], results["sets"]), _pairs(results)]


def _bodies(models: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for m in models:
        depth, height, width = m["feature_map"]
        millions, size = round(m["parameters"] / 1e6, 1), round(m["bytes"] / 1e6, 1)
        shape = f"{height}x{width}x{depth}"
        side = f"{m['image_size']}x{m['image_size']}"
        rows.append([m["body"], m["architecture"], side, shape, millions, size])
    for other in others:
        rows.append([other["title"], "elsewhere's, as reported", None, None, other["parameters"], None])
    columns = ["Model", "Architecture", "Input", "Feature map", "Parameters, millions", "Size, MB"]
    return Table("table_2", "Models of the first stage, body and head together", columns, rows)


def _subsets(name: str, stage: int, models: Sequence[Mapping[str, Any]], sets: Mapping[str, str]) -> Table:
    columns = ["Model", *(f"{score}, {title}" for score in ("Accuracy", "F1") for title in sets.values())]
    rows = [
        [_row_name(m), *(_of(m, key, score) for score in ("accuracy", "f1_macro") for key in sets)]
        for m in models
    ]
    return Table(name, f"Accuracy and macro F1 within subsets after stage {STAGES[stage]}", columns, rows)


def _classes(
    name: str, stage: int, models: Sequence[Mapping[str, Any]], key: str, heading: str, names: Sequence[str]
) -> Table:
    columns = ["Model", *(f"{score}, {label}" for score in ("Accuracy", "F1") for label in names)]
    rows = [
        [_row_name(m), *(_of(m, key, "classes", c, score) for score in ("accuracy", "f1") for c in names)]
        for m in models
    ]
    title = f"Accuracy (recall) and F1 within classes after stage {STAGES[stage]} ({heading})"
    return Table(name, title, columns, rows)


def _attention(models: Sequence[Mapping[str, Any]], sets: Mapping[str, str]) -> Table:
    columns = ["Model", "Set", "AUROC", "Calibration error", "Energy in mask", "Dead maps"]
    keys = ("auroc", "calibration_error", "energy_in_mask", "dead_maps")
    rows = [
        [m["title"], title, *(_of(m, key, k) for k in keys)]
        for m in models
        for key, title in sets.items()
        if key not in ("train", "val") and key in m["sets"]
    ]
    return Table("attention", "Ranking, calibration and where the maps lie", columns, rows)


def _pairs(results: Mapping[str, Any]) -> Table:
    columns = [
        "First", "Second", "Set", "Accuracy, second minus first", "Only first right", "Only second right",
        "McNemar p",
    ]  # fmt: skip
    rows = [
        [
            pair["first"], pair["second"], results["sets"][pair["set"]], pair["difference"],
            pair["only_first_right"], pair["only_second_right"], pair["p"],
        ]
        for pair in results["pairs"]
    ]  # fmt: skip
    return Table("pairs", "Models against each other", columns, rows)


def _row_name(model: Mapping[str, Any]) -> str:
    if "stage" not in model:
        return str(model["title"]) + ("" if model["sets"] else " (no predictions given)")
    return f"{model['body']}, {model['arm']}" if model["arm"] else str(model["body"])


def _of(model: Mapping[str, Any], key: str, *path: str) -> Cell:
    """A number of a model on a set, None where it is unknown."""
    found: Any = model["sets"].get(key)
    for part in path:
        found = None if found is None else found[part]
    return found
