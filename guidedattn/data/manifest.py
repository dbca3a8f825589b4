"""The manifest: one row per image, in a CSV file that is whole or absent and whose digest is checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from guidedattn.data.paths import AnyPath, RemotePath, as_path, portable
from guidedattn.data.records import COLUMNS, SPLITS, Record
from guidedattn.data.tables import read_table
from guidedattn.errors import DataError
from guidedattn.files import sha256, whole_file

PREVIEW = 10


class Manifest:
    """Images, their labels and what is known about them, as a table that is read and written whole.

    The columns are `path, label, source, patient, view, mask, split, group, sha256`; an empty field is
    unknown, several labels, patients or groups are written `a|b`. Paths are relative to the manifest's
    folder, or URLs that fsspec opens. In a notebook a manifest shows its counts and its first rows.

    Args:
        table: One row per image; strings.
        root: The folder that relative paths start from.
    """

    def __init__(self, table: pd.DataFrame, root: str | Path = ".") -> None:
        self.table, self.root = table, Path(root)

    @classmethod
    def from_records(cls, records: Iterable[Record], root: str | Path = ".") -> Manifest:
        """Make a manifest of records, sorted by source and path, with paths relative to `root`."""
        base = os.path.abspath(root)  # noqa: PTH100  # `resolve` would follow links
        columns: list[list[str]] = [[] for _ in COLUMNS]
        for record in records:
            mask = "" if record.mask is None else relative(record.mask, base)
            values = (relative(record.path, base), record.label, record.source, record.patient, record.view)
            rest = (mask, record.split, record.group, record.sha256)
            for column, value in zip(columns, (*values, *rest), strict=True):
                column.append(value)
        table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), dtype=str)
        return cls(table.sort_values(["source", "path"], ignore_index=True), root)

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Read a manifest; only `path` and `label` must be there. A digest beside it is checked.

        Raises:
            DataError: The file is missing, lacks a column, or is not the one that its digest was made of.
        """
        path = Path(path)
        table = read_table(path, "path", "label")
        written = digest_file(path)
        if written.exists() and (digest := sha256(path)) != written.read_text().partition(" ")[0].strip():
            raise DataError(
                f"{path}: changed since it was written (its SHA-256 is now {digest[:12]}...); build it "
                f"again, or delete {written.name} if you changed it on purpose"
            )
        absent = {name: "" for name in COLUMNS if name not in table}
        return cls(table.assign(**absent)[list(COLUMNS)], path.parent)

    def write(self, path: str | Path) -> Path:
        """Write the table and beside it its digest, `<path>.sha256` as `sha256sum -c` reads it.

        Each file appears whole: a process that is killed leaves the old manifest or the new one, in the
        moment between the two files without a digest.

        Returns:
            The path written.
        """
        path = Path(path)
        with whole_file(path) as file:
            self.table.to_csv(file, index=False, lineterminator="\n")
            file.flush()
            os.fsync(file.fileno())
            digest_file(path).unlink(missing_ok=True)  # the digest of the old one, should we be killed now
        with whole_file(digest_file(path)) as file:
            file.write(f"{sha256(path)}  {path.name}\n")
        return path

    def records(self) -> Iterator[Record]:
        """Yield every row; a row without a source belongs to the source `manifest`."""
        columns = (self.table[name].tolist() for name in COLUMNS)
        for path, label, source, patient, view, mask, *rest in zip(*columns, strict=True):
            split, group, digest = rest
            yield Record(
                self._at(path),
                label,
                source or "manifest",
                patient,
                view,
                self._at(mask) if mask else None,
                split,
                group,
                digest,
            )

    def counts(self) -> pd.DataFrame:
        """Return images per split, source and label, with totals: the paper's Table 3."""
        table = self.table.assign(label=self.table["label"].str.split("|")).explode("label")
        counted = pd.crosstab([table["source"], table["label"]], table["split"])
        names = [name for name in (*SPLITS, "") if name in counted]
        counted = counted[names].rename(columns={"": "no split"})
        counted.columns.name = None
        counted["all"] = counted.sum(axis=1)
        return counted.reset_index().rename(columns=str)

    def __len__(self) -> int:
        return len(self.table)

    def __str__(self) -> str:
        return f"{len(self)} images\n{self.counts().to_string(index=False)}"

    def _repr_html_(self) -> str:
        more = f"<p>and {len(self) - PREVIEW} more</p>" if len(self) > PREVIEW else ""
        counts = self.counts().to_html(index=False)
        return f"<p>{len(self)} images</p>{counts}{self.table.head(PREVIEW).to_html(index=False)}{more}"

    def _at(self, path: str) -> AnyPath:
        if "://" in path:
            return as_path(path)
        # Normalised, so that one file that is spelt in two ways is still one file.
        return Path(os.path.normpath(os.path.join(self.root, path)))  # noqa: PTH118  # four times faster


def digest_file(path: Path) -> Path:
    """Return the sidecar that holds a manifest's digest."""
    return path.with_name(f"{path.name}.sha256")


def relative(path: AnyPath, base: str | Path) -> str:
    """Return a path as a manifest in the folder `base` spells it; a URL stays as it is."""
    if isinstance(path, RemotePath):
        return str(path)
    return os.path.relpath(portable(path), base).replace(os.sep, "/")
