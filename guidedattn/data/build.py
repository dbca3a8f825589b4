"""A manifest from a collection: patients and copies whole, every source and class in its share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guidedattn.data.collection import Collection
from guidedattn.data.groups import Progress, add_digests, group_copies, group_pairs
from guidedattn.data.manifest import Manifest
from guidedattn.data.records import SPLITS, Record, in_bulk
from guidedattn.data.report import Report
from guidedattn.data.splits import ImageSplit, PatientSplit, require_classes, split_by_fold
from guidedattn.errors import ConfigError, DataError

SPLITTERS = {"patient": PatientSplit, "paper": ImageSplit}


def build_manifest(
    collection: Collection,
    output: str | Path,
    split: str = "patient",
    seed: int = 0,
    folds: int = 0,
    duplicates: str | Path | None = None,
    digests: bool = True,
    report: Report | None = None,
    progress: Progress = lambda items, _: items,
) -> list[Path]:
    """Write a manifest of a collection, or with `folds` one per fold, each with its digest.

    Files of equal bytes and the images that `duplicates` joins get a `group`; patients and groups stay in
    one split. The file is a function of the seed and the set of images: neither the order in which they
    are found nor the machine matters, as long as they lie alike relative to the manifest.

    A fold has a manifest of its own, `<output>-fold0.csv` and so on, because a manifest's `split` is train,
    val or test and nothing else: every command and data module then reads a fold as it reads any manifest.

    Args:
        collection: What to list.
        output: The CSV file to write; paths in it are relative to its folder.
        split: `patient`, or `paper` for single images as the paper does (it leaks patients).
        seed: Decides the splits.
        folds: The number of cross-validation folds, 0 for one manifest with 8:1:1.
        duplicates: A CSV table of pairs, `path_a` and `path_b` relative to it, that show one film or patient.
        digests: Whether to read every file for its SHA-256, which finds exact copies.
        report: Counts what was listed, kept and dropped.
        progress: Wraps the files as they are read, given their number.

    Returns:
        The manifests written.

    Raises:
        DataError: Nothing is listed, a file cannot be read, or a class is absent from a split: nothing is
            written then. Or the output cannot be written.
        ConfigError: `split` or `folds` is none of the above.
    """
    if split not in SPLITTERS:
        raise ConfigError(f"split must be {' or '.join(SPLITTERS)}, got {split!r}")
    if folds and folds < 3:
        raise ConfigError(f"folds must be at least 3 (train, val and test), got {folds}")
    output, report = Path(output), report or Report()
    with in_bulk():
        records = collection.records(report)
        if digests:
            records = group_copies(add_digests(records, progress), report)
        if duplicates is not None:
            records = group_pairs(records, Path(duplicates), report)
        report.keep(records)
        if folds:
            assigned = split_by_fold(records, seed, folds, by_image=split == "paper")
        else:
            assigned = [SPLITTERS[split]()(records, seed)]
    names = [output.with_name(f"{output.stem}-fold{i}.csv") for i in range(folds)] or [output]
    _check_classes(assigned)
    try:
        return [
            Manifest.from_records(records, output.parent).write(name)
            for records, name in zip(assigned, names, strict=True)
        ]
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror or error})") from None


def _check_classes(assigned: Sequence[Sequence[Record]]) -> None:
    for records in assigned:
        classes = sorted({label for record in records for label in record.labels})
        require_classes(records, classes, SPLITS)
