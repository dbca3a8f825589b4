"""Decode everything once, before a training run does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial

from guidedattn.data.images import MAX_PIXELS, read_image, read_mask
from guidedattn.data.paths import AnyPath, RemotePath
from guidedattn.data.records import SPLITS, Record
from guidedattn.data.splits import check_leaks
from guidedattn.errors import DataError
from guidedattn.files import sha256


@dataclass(frozen=True)
class Fault:
    """A row that training would stumble over."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def find_faults(
    records: Sequence[Record],
    processes: int = 1,
    bits: int = 16,
    max_pixels: int = MAX_PIXELS,
    scale_masks: bool = False,
) -> Iterator[list[Fault]]:
    """Decode each image and its mask, and compare its digest; yield the faults of each record in turn.

    Raises:
        DataError: A worker process died (out of memory, or killed by a broken file).
    """
    check = partial(check_record, bits=bits, max_pixels=max_pixels, scale_masks=scale_masks)
    if processes <= 1:
        yield from map(check, records)
        return
    with ProcessPoolExecutor(processes) as pool:
        try:
            yield from pool.map(check, records, chunksize=8)
        except BrokenProcessPool:
            raise DataError(
                "a worker died while it decoded; verify with --processes 1 to see where"
            ) from None


def check_record(record: Record, bits: int, max_pixels: int, scale_masks: bool) -> list[Fault]:
    """Return what is wrong with one image and its mask."""
    path, faults = str(record.path), []
    try:
        height, width = read_image(record.path, bits=bits, max_pixels=max_pixels).shape[-2:]
    except DataError as error:
        return [Fault(path, _reason(record.path, error))]
    if record.sha256 and not isinstance(record.path, RemotePath) and sha256(record.path) != record.sha256:
        faults.append(Fault(path, "the file is not the one that was listed (another SHA-256)"))
    if record.mask is not None:
        try:
            mask = read_mask(record.mask, (height, width), max_pixels, scale_masks)
        except DataError as error:
            faults.append(Fault(path, str(error)))
        else:
            if not mask.any():
                faults.append(Fault(path, f"{record.mask}: the mask is empty"))
    return faults


def check_rows(records: Sequence[Record], leaks: bool = True) -> list[Fault]:
    """Return what the rows of a manifest say wrongly, before a file is opened.

    Args:
        records: The rows.
        leaks: Whether a patient, group or file in two splits is a fault.
    """
    faults = [
        Fault(str(r.path), f"split {r.split!r} is not one of {', '.join(SPLITS)}")
        for r in records
        if r.split not in ("", *SPLITS)
    ]
    faults += [Fault(str(r.path), "no label") for r in records if not r.labels]
    rows = Counter(record.path for record in records)
    faults += [Fault(str(path), f"listed {count} times") for path, count in rows.items() if count > 1]
    if leaks:
        faults += _leaks(records)
    return faults


def _leaks(records: Iterable[Record]) -> list[Fault]:
    try:
        check_leaks(records)
    except DataError as error:
        return [Fault("splits", str(error))]
    return []


def _reason(path: AnyPath, error: DataError) -> str:
    return str(error).removeprefix(f"{path}: ")
