"""What the data commands print: tables in four forms, and progress."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table

Format = Literal["table", "csv", "json", "md"]
Rows = Sequence[Mapping[Any, Any]]
T = TypeVar("T")


def progress(items: Iterable[T], total: int, what: str = "reading") -> Iterable[T]:
    """Pass the items on behind a progress bar on the error stream."""
    return track(items, description=what, total=total, console=Console(stderr=True), transient=True)


def say(text: str) -> None:
    """Print a line as it is."""
    print(text)  # noqa: T201


def show(rows: Rows, title: str = "") -> None:
    """Print rows as a table for people."""
    if title:
        say(title)
    table = Table()
    for name in rows[0] if rows else ():
        numeric = all(isinstance(row[name], int) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    # Not cut to 80 columns where the output goes to a file.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def as_csv(rows: Rows) -> str:
    """Rows as CSV, with every column that one of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def as_json(document: Any) -> str:
    """A document as indented JSON."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_markdown(rows: Rows) -> str:
    """Rows as a Markdown table.

    >>> print(as_markdown([{"source": "A", "rows": 1200}]))
    | source | rows |
    |---|---|
    | A | 1,200 |
    """
    if not rows:
        return ""
    body = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()] for row in rows]
    lines = [list(rows[0]), *body]
    text = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]
    return "\n".join([text[0], f"|{'---|' * len(rows[0])}", *text[1:]])
