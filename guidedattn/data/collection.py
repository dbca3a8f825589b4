"""From sources to the records of one task: the one way that training and every command take."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from guidedattn.data.labels import FRONTAL, PAPER_LABELS, LabelMap, keep_frontal
from guidedattn.data.listing import drop_excluded, drop_missing, map_labels, merge_rows, read_sources
from guidedattn.data.records import Record
from guidedattn.data.report import Report
from guidedattn.data.sources import Source, find_sources, is_manifest
from guidedattn.errors import DataError


@dataclass
class Collection:
    """Which sources are read, which findings count as which class, and which views pass.

    Attributes:
        root: The folder below which sources are looked for, or a manifest; `exclude` is relative to it.
        label_map: From finding to class; None takes the labels as they are.
        sources: The sources to read; None for the known ones below `root`.
        exclude: Glob patterns on the path relative to `root`; `*` crosses folders.
        views: The views that pass, an empty one always; None for all.
    """

    root: Path
    label_map: LabelMap | None
    sources: Sequence[Source] | None = None
    exclude: Sequence[str] = ()
    views: Sequence[str] | None = FRONTAL

    @classmethod
    def at(
        cls, root: str | Path, label_map: LabelMap | None = None, exclude: Sequence[str] = ()
    ) -> Collection:
        """Return the collections below a folder under the paper's labels, or the rows of a CSV manifest."""
        if is_manifest(root):
            return cls(Path(root), label_map, exclude=exclude, views=None)
        return cls(Path(root), label_map or LabelMap(PAPER_LABELS), exclude=exclude)

    def records(self, report: Report) -> list[Record]:
        """List the images with a class that are on disk, and count in `report` whatever leaves.

        Raises:
            DataError: A source cannot be read, or nothing is left; the message then holds the report.
        """
        records = merge_rows(drop_missing(self.listed(report), report), report)
        if not records:
            raise DataError(f"{self.root}: no image to use\n{report}")
        return records

    def listed(self, report: Report) -> list[Record]:
        """List the rows with a class, whether or not their files are on disk.

        Raises:
            DataError: A source cannot be read.
        """
        sources = find_sources(self.root) if self.sources is None else self.sources
        records = self._not_excluded(read_sources(sources, report), report)
        if self.views is not None:
            records = keep_frontal(records, self.views, report)
        records = map_labels(records, self.label_map, report)
        report.rows.update((record.source, record.label) for record in records)
        for source, findings in report.native_rows.items():
            for name in {label for origin, label in report.rows if origin == source}:
                del report.rows[source, name]
            for finding, count in findings.items():
                name = finding if self.label_map is None else self.label_map(finding) or ""
                report.rows[source, name] += count
        records = drop_excluded(records, report)
        report.images.update({(r.path, r.label): (r.source, r.label) for r in records}.values())
        return records

    def _not_excluded(self, records: Sequence[Record], report: Report) -> list[Record]:
        if not self.exclude:
            return list(records)
        root = self.root.parent if is_manifest(self.root) else self.root
        kept, used = [], set()
        for record in records:
            path = record.path
            name = (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
            pattern = next((pattern for pattern in self.exclude if fnmatchcase(name, pattern)), None)
            if pattern is None:
                kept.append(record)
            else:
                used.add(pattern)
                report.drop(f"excluded by {pattern}", record)
        for pattern in self.exclude:
            if pattern not in used:
                report.note(f"exclude pattern {pattern} matches nothing")
                warnings.warn(f"exclude pattern {pattern!r} matches nothing below {self.root}", stacklevel=2)
        return kept
