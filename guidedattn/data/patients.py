"""Which records belong together: one patient, one file, one group."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from guidedattn.data.paths import portable
from guidedattn.data.records import Record, parts


@dataclass
class Component:
    """Records that must share a split.

    Attributes:
        order: A number that the seed and the content decide, to sort components by.
        members: Positions of the records in the sequence that they came from.
        cells: Records per (source, class); a record of several classes counts in each.
        split: The split that a member came with, or empty.
    """

    order: str
    members: list[int] = field(default_factory=list)
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)
    split: str = ""

    @property
    def classes(self) -> set[str]:
        """The classes that occur in the component."""
        return {name for _, name in self.cells}


def identities(record: Record) -> list[str]:
    """Return every id of a record that ties it to others: its file, its patients, its groups."""
    return [
        f"file {record.path}",
        *(f"patient {record.source}/{patient}" for patient in parts(record.patient)),
        *(f"group {group}" for group in parts(record.group)),
    ]


def components(records: Sequence[Record], seed: int, by_patient: bool = True) -> list[Component]:
    """Join the records that share an id, and sort the components by a hash of the seed and their content.

    The order depends neither on the order of the records nor on where the files lie: a path counts only
    relative to the deepest folder that all files of its source share.
    """
    roots = union_find([identities(r) if by_patient else [f"file {r.path}"] for r in records])
    joined: dict[int, Component] = {}
    keys = _portable_keys(records, by_patient)
    for index, (root, record) in enumerate(zip(roots, records, strict=True)):
        order = sha256(f"{seed}\n{keys[index]}".encode()).hexdigest()
        component = joined.setdefault(root, Component(order))
        component.order = min(component.order, order)
        component.members.append(index)
        component.cells.update((record.source, label) for label in record.labels or ("",))
        # Torn patients are refused elsewhere; where they are allowed any choice must ignore the order.
        component.split = max(component.split, record.split)
    return sorted(joined.values(), key=lambda component: component.order)


def _portable_keys(records: Sequence[Record], by_patient: bool) -> list[str]:
    places = [portable(record.path) for record in records]
    folders: dict[str, set[str]] = defaultdict(set)
    for record, place in zip(records, places, strict=True):
        folders[record.source].add(place.rpartition("/")[0] or "/")
    common = {source: len(os.path.commonpath(paths)) for source, paths in folders.items()}
    return [
        f"{record.source}\n{record.patient}"
        if by_patient and record.patient
        else f"{record.source}\n\n{place[common[record.source] :].lstrip('/')}"
        for record, place in zip(records, places, strict=True)
    ]


def union_find(names: Sequence[Sequence[str]]) -> list[int]:
    """Return for each item the number of its component; items that share a name are in one."""
    parent = list(range(len(names)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[str, int] = {}
    for item, its_names in enumerate(names):
        for name in its_names:
            other = root(first.setdefault(name, item))
            parent[root(item)] = other
    return [root(item) for item in range(len(names))]
