"""What became of every row that a collection listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guidedattn.data.records import Record


@dataclass
class Report:
    """Counts and names of what was listed, kept, dropped and missing; nothing leaves in silence.

    Attributes:
        listed: Records that each source lists.
        native_rows: Rows of a source's table per finding, where that is not one per record.
        rows: Rows of the metadata that each (source, label) has.
        images: Distinct files that each (source, label) names.
        kept: Images that each (source, label) keeps.
        dropped: For each reason the names of the files that it dropped.
        missing: For each source the files that it lists and that are not on disk.
        notes: Things worth knowing about images that were kept, with their names.
    """

    listed: Counter[str] = field(default_factory=Counter)
    native_rows: dict[str, Counter[str]] = field(default_factory=dict)
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, record: Record) -> None:
        """Count a record that is left out, by reason."""
        self.dropped.setdefault(reason, []).append(_name(record))

    def miss(self, record: Record) -> None:
        """Count a record whose file is not on disk."""
        self.missing.setdefault(record.source, []).append(str(record.path))

    def note(self, text: str, names: Iterable[str] = ()) -> None:
        """Keep a remark, with the names that it is about."""
        self.notes.setdefault(text, []).extend(names)

    def keep(self, records: Iterable[Record]) -> None:
        """Count the records that stay and the ones among them that name no patient."""
        unknown: list[str] = []
        self.kept = Counter()
        for record in records:
            self.kept[record.source, record.label] += 1
            if not record.patient:
                unknown.append(_name(record))
        if unknown:
            self.notes["patient unknown, so the image counts as one of its own"] = unknown

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts, lists and numbers, fit for JSON."""
        kept: dict[str, dict[str, int]] = {}
        for (source, label), count in sorted(self.kept.items()):
            kept.setdefault(source, {})[label] = count
        return {
            "listed": dict(self.listed),
            "kept": kept,
            "dropped": _counted(self.dropped),
            "missing": _counted(self.missing),
            "notes": _counted(self.notes),
        }

    def table(self, class_names: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the paper's Table 1: rows, distinct files and files on disk, per source and class.

        Args:
            class_names: The classes in order, listed for each source even where it has none; without
                them, and behind them, the classes that occur.
        """
        counts = (self.rows, self.images, self.kept)
        pairs = {pair for count in counts for pair in count}
        names = [*class_names, *sorted({label for _, label in pairs} - {*class_names, ""})]
        return [
            {
                "source": source,
                "class": name,
                **{
                    column: count[source, name]
                    for column, count in zip(("rows", "images", "present"), counts, strict=True)
                },
            }
            for source in self.listed
            for name in names
        ]

    def reasons(self) -> list[dict[str, Any]]:
        """Return how many rows of each source left for which reason, missing files among them."""
        counted = Counter(
            (name.partition("/")[0], reason) for reason, names in self.dropped.items() for name in names
        )
        counted.update({(source, "not on disk"): len(paths) for source, paths in self.missing.items()})
        return [
            {"source": source, "dropped": reason, "rows": count}
            for (source, reason), count in sorted(counted.items(), key=lambda item: (item[0][0], -item[1]))
        ]

    def __str__(self) -> str:
        """Return a short table: one line per source, one per reason, one per remark."""
        width = max([len("source"), *(len(source) for source in self.listed)])
        lines = [f"{'source':{width}}  listed  missing  kept"]
        for source, count in self.listed.items():
            kept = {label: n for (name, label), n in sorted(self.kept.items()) if name == source}
            detail = ", ".join(f"{label} {n}" for label, n in kept.items())
            missing = len(self.missing.get(source, []))
            lines.append(
                f"{source:{width}}  {count:6}  {missing:7}  {sum(kept.values()):4}  {detail}".rstrip()
            )
        by_count = sorted(self.dropped.items(), key=lambda item: (-len(item[1]), item[0]))
        lines += [f"dropped {len(names)}: {reason}" for reason, names in by_count]
        lines += [
            f"note: {text}" + (f" ({len(names)})" if names else "") for text, names in self.notes.items()
        ]
        return "\n".join(lines)


def _counted(groups: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    return {key: {"count": len(names), "names": names} for key, names in groups.items()}


def _name(record: Record) -> str:
    return f"{record.source}/{record.path.name}"
