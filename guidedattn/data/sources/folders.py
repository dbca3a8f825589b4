"""One folder per class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from guidedattn.data import dicom
from guidedattn.data.records import Record
from guidedattn.data.sources.base import IMAGE_SUFFIXES, Source, require_folder
from guidedattn.errors import ConfigError, DataError

CHESTXRAY8_PATIENT = r"^(\d{8})_\d{3}"
"""Patient in a file name of ChestX-ray8, as the collections that copy from it keep it."""


class FolderSource(Source):
    """A folder per class, at any depth below it the images; masks in a parallel tree.

    Args:
        root: The folder that holds the class folders.
        patient_pattern: Regular expression with one group, searched in the file name; what the group
            holds is the patient. Without it, and where it does not match, the patient is unknown; without
            it a DICOM file gives its header's patient id, as a pseudonym.
        mask_root: A tree of masks at the same relative paths as the images; the mask of `a/b.jpg` is
            `a/b.<any image suffix>` or `a/b_mask.<any image suffix>`.
        name: The name of the source; by default that of the folder.

    Raises:
        ConfigError: `patient_pattern` is not a regular expression with exactly one group.
    """

    def __init__(
        self,
        root: str | Path,
        patient_pattern: str | None = None,
        mask_root: str | Path | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(root)
        self.name = name or self.root.resolve().name
        self.mask_root = None if mask_root is None else Path(mask_root)
        try:
            self._pattern = None if patient_pattern is None else re.compile(patient_pattern)
        except re.error as error:
            raise ConfigError(f"patient_pattern {patient_pattern!r}: {error}") from None
        if self._pattern is not None and self._pattern.groups != 1:
            raise ConfigError(f"patient_pattern {patient_pattern!r} needs exactly one group")

    def records(self) -> Iterator[Record]:
        """Yield every image below the class folders, sorted by path; the class is the folder's name."""
        masks = self._masks()
        classes = [folder for folder in sorted(require_folder(self.root).iterdir()) if folder.is_dir()]
        if not classes:
            raise DataError(f"{self.root}: no class folders in it")
        for folder in classes:
            if folder.name.startswith(".") or folder == self.mask_root:
                continue
            for path in image_files(folder):
                mask = masks.get(path.relative_to(self.root).with_suffix("").as_posix())
                yield Record(path, folder.name, self.name, self._patient(path), mask=mask)

    def _patient(self, path: Path) -> str:
        if self._pattern is not None:
            match = self._pattern.search(path.name)
            return match[1] or "" if match else ""
        return dicom.patient_of(path) if path.suffix.lower() in dicom.SUFFIXES else ""

    def _masks(self) -> dict[str, Path]:
        if self.mask_root is None:
            return {}
        root = require_folder(self.mask_root)
        stems = {path: path.relative_to(root).with_suffix("").as_posix() for path in image_files(root)}
        return {stem.removesuffix("_mask"): path for path, stem in stems.items()}


def image_files(folder: Path) -> list[Path]:
    """Return the image files below `folder`, told by their suffix, sorted."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
