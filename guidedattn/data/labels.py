"""From the words of many collections to the classes of one task."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from guidedattn.data.records import SEPARATOR, Record
from guidedattn.data.report import Report
from guidedattn.errors import DataError

FRONTAL = ("AP", "AP Supine", "AP erect", "PA")
"""Views that pass; an empty view passes as well, or the paper's counts cannot be met."""


def normalise(word: str) -> str:
    """Return a label or view as it is compared: `No_findings` equals `No Findings`.

    >>> normalise(" No_findings")
    'no findings'
    """
    return " ".join(word.replace("_", " ").casefold().split())


def read_label_map(path: str | Path) -> dict[str, str]:
    """Read a CSV file with the columns `finding` and `class`.

    Raises:
        DataError: The file is missing, lacks a column or gives one finding two classes.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the label map cannot be read ({error})") from None
    label_map: dict[str, str] = {}
    for row in rows:
        finding, name = row.get("finding"), row.get("class")
        if not finding or not name:
            raise DataError(f"{path}: a label map needs the columns finding and class, filled in every row")
        if label_map.setdefault(finding, name) != name:
            raise DataError(f"{path}: {finding!r} is given two classes, {label_map[finding]!r} and {name!r}")
    if not label_map:
        raise DataError(f"{path}: the label map is empty")
    return label_map


PAPER_LABELS: dict[str, str] = read_label_map(Path(__file__).with_name("paper_labels.csv"))
"""The paper's classes and the findings that count as each (section 2), from `paper_labels.csv`.

Fungal and lipoid pneumonia, tuberculosis and ARDS alone belong to no class.
"""


class LabelMap:
    """Translates native findings into class names, indifferent to case and underscores.

    Args:
        mapping: From finding to class name. A finding it does not hold belongs to no class.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.class_names = tuple(dict.fromkeys(mapping.values()))
        self._classes = {normalise(word): name for word, name in mapping.items()}

    def __contains__(self, word: str) -> bool:
        return normalise(word) in self._classes

    def __call__(self, label: str) -> str | None:
        """Return the class of a finding (of `a|b` the classes), or None when a part is unknown."""
        names = [self._classes.get(normalise(word)) for word in label.split(SEPARATOR)]
        return None if None in names else SEPARATOR.join(dict.fromkeys(name for name in names if name))


def is_frontal(record: Record, views: Sequence[str] = FRONTAL) -> bool:
    """Tell whether the view of a record is empty or among `views`."""
    return not record.view or normalise(record.view) in {normalise(view) for view in views}


def keep_frontal(records: Iterable[Record], views: Sequence[str], report: Report) -> list[Record]:
    """Drop, with its view as the reason, each record that is not an X-ray in one of the views."""
    kept = []
    for record in records:
        if is_frontal(record, views):
            kept.append(record)
        else:
            report.drop(f"view {record.view}", record)
    return kept
