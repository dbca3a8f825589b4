"""What a collection of images has to tell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from guidedattn.data.records import Record
from guidedattn.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class Source(ABC):
    """A collection of images in its native layout.

    A subclass writes `records`, from tables and names alone: no image file is opened. It says what the
    collection says, rows without a file or a label included; choosing is done elsewhere, and counted.

    Attributes:
        name: What the records carry as `source`; patient ids are unique inside it.
        root: The folder of the collection.
    """

    name: str

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @classmethod
    def matches(cls, folder: Path) -> bool:  # noqa: ARG003
        """Tell whether `folder` holds this collection; used to find collections below a root."""
        return False

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield one record per listed row, with native labels and views.

        Raises:
            DataError: The folder or its table is missing or unreadable; the message names it.
        """


def read_table(path: Path, *columns: str, encoding: str = "utf-8-sig") -> pd.DataFrame:
    """Read a CSV table as stripped strings, empty where it says nothing.

    Raises:
        DataError: The table is missing, unreadable or lacks one of `columns`.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the table cannot be read ({error})") from None
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise DataError(f"{path}: the table lacks the column {', '.join(absent)}")
    stripped: pd.DataFrame = table.apply(lambda column: column.str.strip())
    return stripped


def require_folder(path: Path) -> Path:
    """Return `path` if it is a folder.

    Raises:
        DataError: It is not.
    """
    if not path.is_dir():
        raise DataError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    return path


def with_modality(view: str, modality: str) -> str:
    """Return the view, with the modality in front unless it is an X-ray.

    >>> with_modality("Axial", "CT")
    'CT Axial'
    """
    return view if modality.casefold() in ("", "x-ray", "xray") else f"{modality} {view}".strip()


def header(folder: Path) -> frozenset[str]:
    """Return the column names of `metadata.csv` in `folder`, none if there is no such table."""
    try:
        with (folder / "metadata.csv").open(encoding="latin-1") as file:
            line = file.readline()
    except OSError:
        return frozenset()
    return frozenset(name.strip().strip('"') for name in line.removeprefix("\xef\xbb\xbf").split(","))
