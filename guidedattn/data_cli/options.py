"""Options that several data commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guidedattn.cli_errors import ShortParser
from guidedattn.data import Collection
from guidedattn.data.labels import LabelMap, read_label_map


def parser(command: str, description: str | None) -> ShortParser:
    """Return the parser of `guidedattn data <command>`, with what chooses the images."""
    result = ShortParser(prog=f"guidedattn data {command}", description=description)
    result.add_argument(
        "--root",
        type=str,
        required=True,
        help="a folder that holds collections at any depth, or a CSV table of path and label",
    )
    result.add_argument("--labels", type=str | None, help="CSV of finding and class; else the paper's")
    result.add_argument("--exclude", nargs="*", default=[], help="glob patterns on paths relative to root")
    return result


def collection(root: str, labels: str | None, exclude: Sequence[str]) -> Collection:
    """Return the collection that the options choose."""
    label_map = None if labels is None else LabelMap(read_label_map(labels))
    return Collection.at(Path(root), label_map, exclude)
