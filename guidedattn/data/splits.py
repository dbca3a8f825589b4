"""Training, validation and test: patients whole, every source and class in its share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from guidedattn.data.apportion import apportion
from guidedattn.data.patients import components, identities
from guidedattn.data.records import SPLITS, Record
from guidedattn.errors import ConfigError, DataError

FRACTIONS = (0.8, 0.1, 0.1)


class Splitter(ABC):
    """Decides which record is trained on, validated on and tested on."""

    splits: tuple[str, ...] = SPLITS
    """The splits that it fills; each must hold every class before training starts."""

    @abstractmethod
    def __call__(self, records: Sequence[Record], seed: int) -> list[Record]:
        """Return the same records in the same order with `split` set; a split that one has is kept."""


class PatientSplit(Splitter):
    """Whole patients, balanced inside every source and class (see `split_by_patient`).

    Args:
        fractions: Shares of training, validation and test.
    """

    def __init__(self, fractions: tuple[float, float, float] = FRACTIONS) -> None:
        self.fractions = _checked(fractions)
        self.splits = tuple(name for name, share in zip(SPLITS, self.fractions, strict=True) if share)

    def __call__(self, records: Sequence[Record], seed: int) -> list[Record]:
        """Return the records with `split` set."""
        return split_by_patient(records, seed, self.fractions)


class ImageSplit(PatientSplit):
    """Single images, as the paper does; leaks patients (see `split_by_image`)."""

    def __call__(self, records: Sequence[Record], seed: int) -> list[Record]:
        """Return the records with `split` set."""
        return split_by_image(records, seed, self.fractions)


class FoldSplit(Splitter):
    """One of k cross-validation folds: patients whole, every source and class in its share.

    The records are shared out into k parts, once for a seed. Fold i tests on part i, validates on the next
    part and trains on the others, so that over the k folds each record is tested once.

    Args:
        folds: The number of parts, at least 3.
        fold: Which one to test on, from 0.
        by_image: Assign single images instead; leaks patients (see `split_by_image`).
    """

    def __init__(self, folds: int, fold: int, by_image: bool = False) -> None:
        if folds < 3 or not 0 <= fold < folds:
            raise ConfigError(
                f"folds must be at least 3 and fold one of 0 to folds - 1, got {folds} and {fold}"
            )
        self.folds, self.fold, self.by_image = folds, fold, by_image

    def __call__(self, records: Sequence[Record], seed: int) -> list[Record]:
        """Return the records with `split` set.

        Raises:
            DataError: A record comes with a split, which folds cannot keep.
        """
        return split_by_fold(records, seed, self.folds, self.by_image)[self.fold]


def split_by_patient(
    records: Sequence[Record], seed: int, fractions: Sequence[float] = FRACTIONS
) -> list[Record]:
    """Assign whole patients, so that each source and class comes near to the fractions.

    Records that share a patient of one source, a file or a group stay together. The result is a
    function of the seed and the set of records: neither their order nor the machine matters. A record
    that comes with a split keeps it, and takes the rest of its patient along.

    Returns:
        The records in the order given, with `split` set.

    Raises:
        DataError: The splits that records came with tear a patient apart, or are misspelt.
    """
    return _split(records, seed, fractions, by_patient=True)


def split_by_image(
    records: Sequence[Record], seed: int, fractions: Sequence[float] = FRACTIONS
) -> list[Record]:
    """Assign single images inside each source and class, as the paper does.

    This leaks: images of one patient fall on both sides, and the network can recognise the patient.
    Use it only to repeat published numbers.
    """
    return _split(records, seed, fractions, by_patient=False)


def split_by_fold(
    records: Sequence[Record], seed: int, folds: int, by_image: bool = False
) -> list[list[Record]]:
    """Return the records once per fold, with `split` set (see `FoldSplit`).

    Raises:
        DataError: A record comes with a split.
    """
    given = next((record for record in records if record.split), None)
    if given is not None:
        raise DataError(
            f"{given.path}: in the {given.split} split already; folds share out anew, so clear it"
        )
    whole = components(records, seed, by_patient=not by_image)
    parts = apportion(whole, {str(part): 1 / folds for part in range(folds)})
    number = {index: int(part) for c, part in zip(whole, parts, strict=True) for index in c.members}

    def split(index: int, fold: int) -> str:
        return {fold: "test", (fold + 1) % folds: "val"}.get(number[index], "train")

    return [
        [replace(record, split=split(index, fold)) for index, record in enumerate(records)]
        for fold in range(folds)
    ]


def check_leaks(records: Iterable[Record]) -> None:
    """Make sure that no patient, group or file lies in two splits.

    Raises:
        DataError: One does; the message names the ids.
    """
    where: dict[str, str] = {}
    torn: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for identity in identities(record) if record.split else ():
            first = where.setdefault(identity, record.split)
            if first != record.split:
                torn[identity] |= {first, record.split}
    leaks = [f"{key} ({', '.join(sorted(splits))})" for key, splits in sorted(torn.items())]
    if leaks:
        more = f" and {len(leaks) - 10} more" if len(leaks) > 10 else ""
        raise DataError(f"{len(leaks)} in more than one split: {'; '.join(leaks[:10])}{more}")


def require_classes(records: Iterable[Record], class_names: Sequence[str], splits: Sequence[str]) -> None:
    """Make sure that each split holds images, and every class.

    Raises:
        DataError: A split is empty or a class is absent from it; the message holds the counts.
    """
    counts: dict[str, Counter[str]] = {split: Counter() for split in splits}
    sizes: Counter[str] = Counter()
    for record in records:
        sizes[record.split] += 1
        if record.split in counts:
            counts[record.split].update(record.labels)
    empty = [split for split in splits if not sizes[split]]
    absent = [f"{name!r} is absent from {s}" for s in splits for name in class_names if not counts[s][name]]
    if not empty and not absent:
        return
    table = "; ".join(
        f"{s}: " + (", ".join(f"{name} {counts[s][name]}" for name in class_names) or f"{sizes[s]} images")
        for s in splits
    )
    what = [f"the {split} split is empty" for split in empty] if empty else absent
    raise DataError(f"{', '.join(what)} ({table})")


def _checked(fractions: Sequence[float]) -> tuple[float, ...]:
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ConfigError(f"fractions must be three shares that sum to 1, got {tuple(fractions)}")
    return tuple(fractions)


def _split(
    records: Sequence[Record], seed: int, fractions: Sequence[float], by_patient: bool
) -> list[Record]:
    shares = dict(zip(SPLITS, _checked(fractions), strict=True))
    known = {*SPLITS, ""}
    for record in records:
        if record.split not in known:
            raise DataError(f"{record.path}: split {record.split!r} is not one of {', '.join(SPLITS)}")
    given = sum(bool(record.split) for record in records)
    if by_patient and given:
        check_leaks(records)
    if given == len(records):
        return list(records)
    result = list(records)
    whole = components(records, seed, by_patient)
    for component, split in zip(whole, apportion(whole, shares), strict=True):
        for index in component.members:
            if not records[index].split:
                result[index] = replace(records[index], split=split)
    if by_patient and given:  # two given splits may have met in one patient
        check_leaks(result)
    return result
