"""What a collection of images has to tell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from guidedattn.data import dicom
from guidedattn.data.records import Record
from guidedattn.data.tables import read_table
from guidedattn.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "Source", "header", "read_table", "require_folder", "with_modality"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}) | dicom.SUFFIXES


class Source(ABC):
    """A collection of images in its native layout.

    A subclass writes `records`, from tables and names alone: no image file is opened. It says what the
    collection says, rows without a file or a label included; choosing is done elsewhere, and counted. What
    the source itself leaves out carries the reason in `Record.excluded`.

    Attributes:
        name: What the records carry as `source`; patient ids are unique inside it.
        masks_only: Whether it gives masks to the images of other sources and no image of its own.
        root: The folder of the collection.
    """

    name: str
    masks_only: bool = False

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

    def row_counts(self) -> Counter[str]:
        """Return the rows of the table per finding, or nothing where each record is one row."""
        return Counter()

    def remarks(self) -> Iterable[str]:
        """Return what a reader of the collection's counts should know."""
        return ()


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
