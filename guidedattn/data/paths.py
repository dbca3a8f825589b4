"""Where a file lies: on a disk of this machine, or behind an fsspec URL."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, cast

from guidedattn.errors import DataError


class RemotePath(PurePosixPath):
    """A URL that can be joined, named and compared as a path: `s3://bucket/films/a.png`.

    >>> film = RemotePath("s3://bucket/films/a.png")
    >>> str(film), film.name, str(film.with_suffix(".jpg"))
    ('s3://bucket/films/a.png', 'a.png', 's3://bucket/films/a.jpg')
    """

    __slots__ = ()

    def __str__(self) -> str:
        # A pure path folds the two slashes of a scheme into one.
        return super().__str__().replace(":/", "://", 1)

    def is_file(self) -> bool:
        """Ask the file system behind the URL; costs a request."""
        filesystem, path = _filesystem(str(self))
        return bool(filesystem.isfile(path))

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """Open the file for reading bytes."""
        filesystem, path = _filesystem(str(self))
        return cast("BinaryIO", filesystem.open(path, mode))


AnyPath = Path | RemotePath


def as_path(location: str | Path | RemotePath) -> AnyPath:
    """Return a path for a file name, a RemotePath for a URL.

    >>> as_path("s3://bucket/a.png").parent, as_path("films/a.png").name
    (RemotePath('s3://bucket'), 'a.png')
    """
    if isinstance(location, Path | RemotePath):
        return location
    return RemotePath(location) if "://" in location else Path(location)


def mask_file(mask: AnyPath) -> AnyPath:
    """Return the file of a mask: without the `#<image>` that chooses one image of many in a table or JSON.

    >>> str(mask_file(Path("coco.json#17"))), str(mask_file(Path("film#1.png")))
    ('coco.json', 'film#1.png')
    """
    file, mark, _ = mask.name.partition("#")
    many = mark and file.lower().endswith((".json", ".csv"))
    return mask.with_name(file) if many else mask


def portable(path: AnyPath) -> str:
    """Return an absolute spelling that sorts and compares alike for files and URLs."""
    if isinstance(path, RemotePath):
        return f"/{path}"
    return os.path.abspath(path)  # noqa: PTH100  # `resolve` would follow links, and ask the disk


def _filesystem(url: str) -> Any:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url}: the URL cannot be opened ({error})") from None
