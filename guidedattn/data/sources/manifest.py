"""A CSV manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source, read_table


class ManifestSource(Source):
    """A CSV table of `path` and `label`, and where known `source, patient, view, mask, split, group`.

    Several labels are written `a|b`; an empty field is unknown. Paths are relative to the manifest.

    Args:
        path: The manifest.
    """

    name = "manifest"

    def __init__(self, path: str | Path) -> None:
        super().__init__(Path(path).parent)
        self.path = Path(path)

    def records(self) -> Iterator[Record]:
        """Yield every row."""
        for row in read_table(self.path, "path", "label").to_dict("records"):
            mask = row.get("mask")
            yield Record(
                self._at(row["path"]),
                row["label"],
                row.get("source") or self.name,
                row.get("patient", ""),
                row.get("view", ""),
                self._at(mask) if mask else None,
                row.get("split", ""),
                row.get("group", ""),
            )

    def _at(self, path: str) -> Path:
        # Normalised, so that one file that is spelt in two ways is still one file.
        return Path(os.path.normpath(self.root / path))
