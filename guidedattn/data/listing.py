"""From the rows of sources to the records of a task; whatever leaves is counted with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from guidedattn.data.labels import LabelMap
from guidedattn.data.records import SEPARATOR, Record, parts, union
from guidedattn.data.report import Report
from guidedattn.data.sources.base import Source
from guidedattn.errors import DataError


def read_sources(sources: Sequence[Source], report: Report) -> list[Record]:
    """Return every row of the sources; two of one name are told apart by a number.

    Raises:
        DataError: A source cannot be read.
    """
    records: list[Record] = []
    taken: set[str] = set()
    for source in sources:
        rows = list(source.records())
        for name in dict.fromkeys(record.source for record in rows):
            unique = next(n for n in _numbered(name) if n not in taken)
            taken.add(unique)
            report.listed[unique] = sum(record.source == name for record in rows)
            records += [replace(r, source=unique) if unique != name else r for r in rows if r.source == name]
    return join_patients(records)


def join_patients(records: Sequence[Record]) -> list[Record]:
    """Give each patient the ids under which the same person is listed elsewhere.

    Two rows of one file under two ids say that both are one person. That holds for all images of both,
    so it is read from every row, before any is dropped.
    """
    files: dict[tuple[str, Path], list[str]] = {}
    for record in records:
        files.setdefault((record.source, record.path), []).append(record.patient)
    aliases: dict[tuple[str, str], list[str]] = {}
    for (source, _), patients in files.items():
        if len(patients) > 1:
            for patient in parts(union(patients)):
                aliases.setdefault((source, patient), []).extend(patients)
    joined = []
    for record in records:
        also = [
            alias for patient in parts(record.patient) for alias in aliases.get((record.source, patient), [])
        ]
        joined.append(replace(record, patient=SEPARATOR.join(sorted(parts(union(also))))) if also else record)
    return joined


def map_labels(records: Iterable[Record], label_map: LabelMap | None, report: Report) -> list[Record]:
    """Return the records with class names for labels; unlabelled and unknown ones are dropped."""
    kept = []
    for record in records:
        name = record.label if label_map is None else label_map(record.label)
        if not record.label:
            report.drop("no label", record)
        elif name is None:
            report.drop(f"label {record.label!r} belongs to no class", record)
        else:
            kept.append(replace(record, label=name))
    return kept


def drop_missing(records: Iterable[Record], report: Report) -> list[Record]:
    """Return the records whose file is on disk; one whose mask is not stays as an image without mask."""
    kept = []
    for record in records:
        if not record.path.is_file():
            report.miss(record)
        elif record.mask is not None and not record.mask.is_file():
            report.note("mask listed but not on disk, so the image counts as one without", [str(record.mask)])
            kept.append(replace(record, mask=None))
        else:
            kept.append(record)
    return kept


def merge_rows(records: Iterable[Record], report: Report) -> list[Record]:
    """Make one record of the rows of one file, under all of their patients; contradictions are dropped.

    Raises:
        DataError: The rows of one file put it into two splits.
    """
    rows: dict[Path, list[Record]] = {}
    for record in records:
        rows.setdefault(record.path, []).append(record)
    merged = []
    for same in rows.values():
        labels = sorted({SEPARATOR.join(sorted(record.labels)) for record in same})
        splits = sorted({record.split for record in same if record.split})
        if len(splits) > 1:
            raise DataError(f"{same[0].path}: listed in more than one split ({', '.join(splits)})")
        if len(labels) > 1:
            report.drop(f"rows of one file disagree: {' / '.join(labels)}", same[0])
        elif len(same) == 1:
            merged.append(same[0])
        else:
            merged.append(_joined(same, "".join(splits)))
            report.note("two or more rows for one file, joined", [f"{same[0].source}/{same[0].path.name}"])
    return merged


def _joined(same: list[Record], split: str) -> Record:
    return replace(
        same[0],
        patient=union([record.patient for record in same]),
        group=union([record.group for record in same]),
        view=next((record.view for record in same if record.view), ""),
        mask=next((record.mask for record in same if record.mask), None),
        split=split,
    )


def _numbered(name: str) -> Iterable[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1
