"""A CSV manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.manifest import Manifest
from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source


class ManifestSource(Source):
    """A CSV table of `path` and `label`, and what else is known (see `Manifest`).

    Several labels are written `a|b`; an empty field is unknown. Paths are relative to the manifest.

    Args:
        path: The manifest.
    """

    name = "manifest"

    def __init__(self, path: str | Path) -> None:
        super().__init__(Path(path).parent)
        self.path = Path(path)

    def records(self) -> Iterator[Record]:
        """Yield every row.

        Raises:
            DataError: As for `Manifest.read`.
        """
        yield from Manifest.read(self.path).records()
