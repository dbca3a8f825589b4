"""Which images show one film, whatever their source says: exact copies, and pairs found elsewhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from guidedattn.data.paths import RemotePath, as_path, portable
from guidedattn.data.patients import union_find
from guidedattn.data.records import Record, union
from guidedattn.data.report import Report
from guidedattn.data.tables import read_table
from guidedattn.errors import DataError
from guidedattn.files import sha256

Progress = Callable[[Iterable[str], int], Iterable[str]]


def add_digests(records: Sequence[Record], progress: Progress) -> list[Record]:
    """Return the records with the SHA-256 of their files; those behind URLs keep what they have.

    Raises:
        DataError: A file cannot be read.
    """
    with ThreadPoolExecutor() as pool:  # hashing and reading let go of the interpreter
        digests = progress(pool.map(_digest, records), len(records))
        return [replace(record, sha256=d) for record, d in zip(records, digests, strict=True)]


def group_copies(records: Sequence[Record], report: Report) -> list[Record]:
    """Give the records whose files hold the same bytes one group, named by their digest."""
    count = Counter(record.sha256 for record in records)
    copies = [record for record in records if record.sha256 and count[record.sha256] > 1]
    if copies:
        names = [f"{record.source}/{record.path.name}" for record in copies]
        report.note("files with the bytes of another one, kept in one split", names)
    return [
        replace(r, group=union([r.group, f"sha256-{r.sha256[:12]}"]))
        if count[r.sha256] > 1 and r.sha256
        else r
        for r in records
    ]


def group_pairs(records: Sequence[Record], pairs: Path, report: Report) -> list[Record]:
    """Give the records that a table of pairs joins, directly or in a chain, one group.

    Args:
        records: The images.
        pairs: A CSV table with the columns `path_a` and `path_b`, relative to the table's folder.
        report: Takes the number of pairs that name an image which is not among the records.

    Raises:
        DataError: The table is missing or lacks a column.
    """
    table = read_table(pairs, "path_a", "path_b")
    spelt = list(zip(table["path_a"], table["path_b"], strict=True))
    rows = [[portable(as_path(p) if "://" in p else pairs.parent / p) for p in row] for row in spelt]
    roots = union_find(rows)
    least: dict[int, str] = {}  # a group is named by its first path, so the order of the rows does not matter
    for root, row in zip(roots, spelt, strict=True):
        least[root] = min(least.get(root, row[0]), *row)
    names = {root: f"pairs-{hashlib.sha256(path.encode()).hexdigest()[:12]}" for root, path in least.items()}
    group = {path: names[root] for row, root in zip(rows, roots, strict=True) for path in row}
    places = [portable(record.path) for record in records]
    known = set(places)
    outside = sum(any(path not in known for path in row) for row in rows)
    report.note(f"{pairs.name}: {len(rows)} pairs, {outside} of them with an image that is not in use")
    return [
        replace(record, group=union([record.group, group[place]])) if place in group else record
        for record, place in zip(records, places, strict=True)
    ]


def _digest(record: Record) -> str:
    if isinstance(record.path, RemotePath):
        return record.sha256
    try:
        return sha256(record.path)
    except OSError as error:
        raise DataError(f"{record.path}: {error.strerror or error}") from None
