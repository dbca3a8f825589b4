"""Masks that are stored as crops, with a table of where they lie: the layout of GeneralBlockchain."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guidedattn.data.paths import AnyPath
from guidedattn.data.tables import read_table
from guidedattn.errors import DataError

TABLE = "structure.csv"
LUNGS = ("Left Lung", "Right Lung")

Array = npt.NDArray[Any]


def is_crops(path: AnyPath) -> bool:
    """Tell whether a mask is `structure.csv#<film>`."""
    return path.name.startswith(f"{TABLE}#")


def paste_lungs(path: AnyPath, decode: Callable[[AnyPath], Array]) -> Array:
    """Put the crops of the lungs where the table says.

    Args:
        path: `<folder>/structure.csv#<film>`.
        decode: Reads the values `[h, w]` of a crop; what is not black is inside.

    Returns:
        bool `[H, W]` at the resolution that the table gives for the film.

    Raises:
        DataError: The table has no lungs of the film, or a number in it is none.
    """
    film = path.name.partition("#")[2]
    rows = crops(str(path.parent / TABLE)).get(film, [])
    if not rows:
        raise DataError(f"{path}: the table has no lungs of that film")
    try:
        width, height = map(int, rows[0]["Resolution"].split("x"))
        whole = np.zeros((height, width), dtype=bool)
        for row in rows:
            left, top = int(row["Left"]), int(row["Top"])
            part = decode(path.parent / row["Mask"])[: height - top, : width - left] > 0
            whole[top : top + part.shape[0], left : left + part.shape[1]] |= part
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from None
    return whole


@lru_cache(maxsize=4)
def crops(table: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the lungs of each film: mostly two, one where a lung was not drawn.

    Raises:
        DataError: The table is missing or lacks a column.
    """
    found: dict[str, list[dict[str, str]]] = {}
    columns = ("Filename", "Template Name", "Mask", "Resolution", "Left", "Top")
    for row in read_table(Path(table), *columns).to_dict("records"):
        if row["Template Name"] in LUNGS and row["Mask"]:
            found.setdefault(row["Filename"], []).append({str(key): value for key, value in row.items()})
    return found
