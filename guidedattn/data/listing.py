"""From the rows of sources to the records of a task; whatever leaves is counted with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from guidedattn.data.labels import LabelMap
from guidedattn.data.paths import AnyPath, RemotePath, mask_file
from guidedattn.data.records import SEPARATOR, Record, parts, union
from guidedattn.data.report import Report
from guidedattn.data.sources.base import Source
from guidedattn.errors import DataError


def read_sources(sources: Sequence[Source], report: Report) -> list[Record]:
    """Return every row of the sources; two of one name are told apart by a number.

    A source of masks adds no row: its masks go to the images of the other sources that have none.

    Raises:
        DataError: A source cannot be read.
    """
    records: list[Record] = []
    taken: set[str] = set()
    for source in sources:
        if source.masks_only:
            continue
        rows = list(source.records())
        for name in dict.fromkeys(record.source for record in rows):
            unique = next(n for n in _numbered(name) if n not in taken)
            taken.add(unique)
            report.listed[unique] = sum(record.source == name for record in rows)
            if name == source.name and (counts := source.row_counts()):
                report.native_rows[unique] = counts
            records += [replace(r, source=unique) if unique != name else r for r in rows if r.source == name]
        for remark in source.remarks():
            report.note(remark)
    return add_masks(join_patients(records), [source for source in sources if source.masks_only], report)


def add_masks(records: list[Record], sources: Sequence[Source], report: Report) -> list[Record]:
    """Give each record without a mask the one that a source of masks has for its file."""
    if not sources:
        return records
    added: list[Record] = list(records)
    for source in sources:
        masks = {r.path: r.mask for r in source.records() if r.mask is not None and not r.excluded}
        used = 0
        for i, record in enumerate(added):
            if record.mask is None and record.path in masks:
                added[i] = replace(record, mask=masks[record.path])
                used += 1
        report.note(f"{source.name}: {len(masks)} films have a mask there, {used} listed films take it")
    return added


def drop_excluded(records: Iterable[Record], report: Report) -> list[Record]:
    """Return the records that their source does not leave out itself."""
    kept = []
    for record in records:
        if record.excluded:
            report.drop(record.excluded, record)
        else:
            kept.append(record)
    return kept


def join_patients(records: Sequence[Record]) -> list[Record]:
    """Give each patient the ids under which the same person is listed elsewhere.

    Two rows of one file under two ids say that both are one person. That holds for all images of both,
    so it is read from every row, before any is dropped.
    """
    files: dict[tuple[str, AnyPath], list[str]] = {}
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
            kept.append(record if name == record.label else replace(record, label=name))
    return kept


def drop_missing(records: Iterable[Record], report: Report) -> list[Record]:
    """Return the records whose file is on disk; one whose mask is not stays as an image without mask.

    URLs are taken on trust: asking for each would take a request per image.
    """
    kept, remote = [], 0
    for record in records:
        remote += isinstance(record.path, RemotePath)
        if not _exists(record.path):
            report.miss(record)
        elif record.mask is not None and not _exists(mask_file(record.mask)):
            report.note("mask listed but not on disk, so the image counts as one without", [str(record.mask)])
            kept.append(replace(record, mask=None))
        else:
            kept.append(record)
    if remote:
        report.note(f"{remote} images are URLs, taken to exist; `guidedattn data verify` opens them")
    return kept


def _exists(path: AnyPath) -> bool:
    return isinstance(path, RemotePath) or path.is_file()


def merge_rows(records: Iterable[Record], report: Report) -> list[Record]:
    """Make one record of the rows of one file, under all of their patients; contradictions are dropped.

    Raises:
        DataError: The rows of one file put it into two splits.
    """
    rows: dict[AnyPath, list[Record]] = {}
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
