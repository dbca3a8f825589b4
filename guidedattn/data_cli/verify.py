"""`guidedattn data verify`: decode every image and mask, and list each bad row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from guidedattn.data import Collection, Manifest, Record
from guidedattn.data.report import Report
from guidedattn.data.sources import find_sources, is_manifest
from guidedattn.data.verify import check_rows, find_faults
from guidedattn.data_cli.console import progress, say
from guidedattn.data_cli.options import collection, parser


def run(words: Sequence[str]) -> int:
    """Print `path: reason` for each fault; return 1 if there is one."""
    options = parser("verify", __doc__)
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="by default all")
    options.add_argument("--bits", type=int, default=16, help="significant bits of 16-bit files")
    options.add_argument("--max_pixels", type=int, default=50_000_000)
    options.add_argument("--scale_masks", type=bool, default=False, help="accept masks of another size")
    options.add_argument("--leaks", type=bool, default=True, help="a patient in two splits is a fault")
    chosen = options.parse_args(list(words[1:]))
    records, faults = _rows(chosen.root), []
    if records is None:
        records = _films(collection(chosen.root, chosen.labels, chosen.exclude))
    else:
        faults = check_rows(records, chosen.leaks)
    found = find_faults(records, chosen.processes, chosen.bits, chosen.max_pixels, chosen.scale_masks)
    for its in progress(found, len(records), "decoding"):
        faults += its
    for fault in faults:
        say(str(fault))
    say(f"{len(records):,} images read, {len(faults):,} faults")
    return 1 if faults else 0


def _rows(root: str) -> list[Record] | None:
    """Every row of a manifest, whether or not its file is there."""
    return list(Manifest.read(root).records()) if is_manifest(root) else None


def _films(images: Collection) -> list[Record]:
    """What training would use, and the films of the collections of masks."""
    report = Report()
    records = images.records(report)
    say(str(report))
    for source in find_sources(Path(images.root)):
        if source.masks_only:
            records += [r for r in source.records() if r.mask and not r.excluded and r.path.is_file()]
    return records
