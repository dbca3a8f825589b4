"""Find the collections below a folder by what the folders hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from guidedattn.data.labels import PAPER_LABELS, LabelMap
from guidedattn.data.sources.accxrd import ACCXRD
from guidedattn.data.sources.base import IMAGE_SUFFIXES, Source, require_folder
from guidedattn.data.sources.ccxrd import CCXRD
from guidedattn.data.sources.covidx import COVIDx
from guidedattn.data.sources.crd import CRD
from guidedattn.data.sources.fccxrd import FCCXRD
from guidedattn.data.sources.folders import CHESTXRAY8_PATIENT, FolderSource
from guidedattn.data.sources.generalblockchain import GeneralBlockchain
from guidedattn.data.sources.manifest import ManifestSource
from guidedattn.data.sources.rsna import RSNAPDD
from guidedattn.data.sources.v7 import V7Labs
from guidedattn.errors import DataError

KINDS: tuple[type[Source], ...] = (
    CCXRD,
    ACCXRD,
    FCCXRD,
    CRD,
    RSNAPDD,
    COVIDx,
    V7Labs,
    GeneralBlockchain,
)


def find_sources(root: str | Path, kinds: Sequence[type[Source]] = KINDS) -> list[Source]:
    """Return the collections at or below `root`, at any depth, sorted by path.

    A collection is told by its tables, its class folders or its annotations; another folder of
    which at least two subfolders bear the name of a known finding and hold images is read as one folder per
    class. A CSV file is a manifest.

    Args:
        root: The folder to search, or a manifest.
        kinds: The collections to look for.

    Raises:
        DataError: `root` is no folder, or holds no known collection.
    """
    if is_manifest(root):
        return [ManifestSource(root)]
    found: list[Source] = []
    for folder, subfolders, _ in os.walk(require_folder(Path(root))):
        subfolders.sort()
        source = _source_of(Path(folder), subfolders, kinds)
        if source is not None:
            found.append(source)
            subfolders.clear()
    if not found:
        names = ", ".join(kind.name for kind in kinds)
        raise DataError(f"{root}: none of {names} nor a folder per finding in it or below")
    return found


def is_manifest(root: str | Path) -> bool:
    """Tell whether `root` names a CSV file, be it there or not, and no folder."""
    return Path(root).suffix.lower() == ".csv" and not Path(root).is_dir()


def _source_of(folder: Path, subfolders: Sequence[str], kinds: Sequence[type[Source]]) -> Source | None:
    for kind in kinds:
        if kind.matches(folder):
            return kind(folder)
    known = LabelMap(PAPER_LABELS)
    if sum(name in known and _holds_images(folder / name) for name in subfolders) > 1:
        return FolderSource(folder, patient_pattern=CHESTXRAY8_PATIENT)
    return None


def _holds_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries)
