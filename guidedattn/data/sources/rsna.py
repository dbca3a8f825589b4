"""RSNA Pneumonia Detection Challenge (RSNAPDD)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from guidedattn.data.dicom import pseudonym
from guidedattn.data.records import Record
from guidedattn.data.sources.base import IMAGE_SUFFIXES, Source, read_table

LABELS, DETAILS, IMAGES = (
    "stage_2_train_labels.csv",
    "stage_2_detailed_class_info.csv",
    "stage_2_train_images",
)


class RSNAPDD(Source):
    """The RSNA Pneumonia Detection Challenge, kaggle.com/c/rsna-pneumonia-detection-challenge.

    A row of the label file is a box, or a patient without one; a patient has one image and up to four
    boxes. One record per patient: Pneumonia is a Target of 1, Normal the detailed class `Normal`; what is
    neither (`No Lung Opacity / Not Normal`) keeps that name. Images are `<patientId>.dcm`, or converted
    ones of that name in another format. The patient is the id's pseudonym (the file name keeps the id).

    Args:
        root: The folder that holds `stage_2_train_labels.csv`.
        paper_labels: Take every patient without a box as Normal, as the paper does.
        normal: How many Normal patients to take, chosen by the seed (the paper's 800); None for all.
        pneumonia: How many Pneumonia patients to take (the paper's 700); None for all.
        seed: Decides the choice, whatever the order of the rows and the files on disk.
    """

    name = "RSNAPDD"

    def __init__(
        self,
        root: str | Path,
        paper_labels: bool = False,
        normal: int | None = 800,
        pneumonia: int | None = 700,
        seed: int = 0,
    ) -> None:
        super().__init__(root)
        self.paper_labels, self.seed = paper_labels, seed
        self.sizes = {"Normal": normal, "Pneumonia": pneumonia}

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether the label file is there."""
        return (folder / LABELS).is_file()

    def records(self) -> Iterator[Record]:
        """Yield one record per patient; the ones outside the subsample say so."""
        classes = self._classes()
        files = self._files()
        taken = {name: self._sample(classes, name, size) for name, size in self.sizes.items()}
        for patient, name in classes.items():
            path = files.get(patient, self.root / IMAGES / f"{patient}.dcm")
            left = name in taken and patient not in taken[name]
            reason = f"outside the subsample of {self.sizes[name]} {name}" if left else ""
            yield Record(path, name, self.name, pseudonym(patient, self.name), excluded=reason)

    def row_counts(self) -> Counter[str]:
        """Return the rows of the label file by Target, as published counts have them."""
        targets = self._labels()["Target"].value_counts()
        return Counter({"Normal": int(targets.get("0", 0)), "Pneumonia": int(targets.get("1", 0))})

    def remarks(self) -> Iterator[str]:
        """Say what the rows are."""
        table = self._labels()
        sick = table[table["Target"] == "1"]
        yield (
            f"{self.name}: {len(sick)} rows with Target 1 are boxes on {sick['patientId'].nunique()} "
            f"patients of {table['patientId'].nunique()}; the paper counts boxes as cases. Its "
            f"{len(table) - len(sick)} rows with Target 0 are patients without a box, normal or not"
        )

    def _labels(self) -> pd.DataFrame:
        return read_table(self.root / LABELS, "patientId", "Target")

    def _classes(self) -> dict[str, str]:
        highest = self._labels().groupby("patientId", sort=True)["Target"].max()
        targets = dict(zip(highest.index.astype(str), highest, strict=True))
        if self.paper_labels:
            return {
                patient: "Pneumonia" if target == "1" else "Normal" for patient, target in targets.items()
            }
        table = read_table(self.root / DETAILS, "patientId", "class").drop_duplicates("patientId")
        details = dict(zip(table["patientId"], table["class"], strict=True))
        return {
            patient: "Pneumonia" if target == "1" else details.get(patient, "")
            for patient, target in targets.items()
        }

    def _sample(self, classes: dict[str, str], name: str, size: int | None) -> set[str]:
        mine = [patient for patient, label in classes.items() if label == name]
        return set(sorted(mine, key=lambda p: hashlib.sha256(f"{self.seed}\n{p}".encode()).digest())[:size])

    def _files(self) -> dict[str, Path]:
        """Return the image of each patient on disk, DICOM before what was made of it."""
        found: dict[str, Path] = {}
        for folder in sorted(self.root.glob(f"{IMAGES}*")):
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if path.suffix.lower() in IMAGE_SUFFIXES and path.suffix.lower() != ".dcm":
                    found.setdefault(path.stem, path)
                elif path.suffix.lower() == ".dcm":
                    found[path.stem] = path
        return found
