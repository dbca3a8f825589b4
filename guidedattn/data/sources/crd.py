"""COVID-19 Radiography Database (CRD)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.labels import normalise
from guidedattn.data.records import Record
from guidedattn.data.sources.base import IMAGE_SUFFIXES, Source
from guidedattn.data.tables import read_sheet

COVID = ("COVID", "COVID-19")
OTHERS = ("Normal", "Viral Pneumonia", "Lung_Opacity")


class CRD(Source):
    """The COVID-19 Radiography Database, kaggle.com/tawsifurrahman/covid19-radiography-database.

    One folder per class, `COVID` or `COVID-19`, `Normal`, `Viral Pneumonia` and in later versions
    `Lung_Opacity`; its images lie in it or in `images` below, lung masks in `masks`. Where a sheet
    `<class>.metadata.xlsx` lies beside, a file that it names and that is not there is listed as well. No
    table names patients.

    The masks of later versions are 256 x 256 pixels, the images 299 x 299: read them with `scale_masks`.

    Args:
        root: The folder that holds the class folders.
        covid_only: Take the COVID-19 images alone, as the paper does: the others are copies from RSNA's and
            other collections.
    """

    name = "CRD"

    def __init__(self, root: str | Path, covid_only: bool = True) -> None:
        super().__init__(root)
        self.covid_only = covid_only

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether COVID-19 lies beside `Viral Pneumonia` or `Lung_Opacity`, a folder each."""
        with os.scandir(folder) as entries:
            names = {normalise(entry.name) for entry in entries if entry.is_dir()}
        covid = names & {normalise(name) for name in COVID}
        return bool(covid) and bool(names & {normalise(name) for name in OTHERS[1:]})

    def records(self) -> Iterator[Record]:
        """Yield every image, and every row of a sheet whose file is not there."""
        known = {normalise(name) for name in (*COVID, *OTHERS)}
        for folder in sorted(self.root.iterdir()):
            if not folder.is_dir() or normalise(folder.name) not in known:
                continue
            covid = normalise(folder.name) in {normalise(name) for name in COVID}
            excluded = "" if covid or not self.covid_only else "CRD is taken for COVID-19 only"
            images = folder / "images" if (folder / "images").is_dir() else folder
            masks = {path.stem: path for path in _images(folder / "masks")}
            for path in self._paths(folder, images):
                mask = masks.get(path.stem)
                yield Record(path, folder.name, self.name, mask=mask, excluded=excluded)

    def _paths(self, folder: Path, images: Path) -> list[Path]:
        present = _images(images)
        stems = {_key(path.stem) for path in present}
        absent = [images / f"{name}.png" for name in self._sheet(folder) if _key(name) not in stems]
        return present + absent

    def _sheet(self, folder: Path) -> list[str]:
        """File names in the sheet of a class; one version spells `matadata`."""
        for path in sorted(self.root.glob("*.m?tadata.xlsx")):
            if normalise(path.name.partition(".")[0]) == normalise(folder.name):
                names = read_sheet(path, "FILE NAME")["FILE NAME"].tolist()
                return [name for name in names if name]
        return []


def _images(folder: Path) -> list[Path]:
    """Return the image files in a folder, sorted; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _key(stem: str) -> str:
    """A sheet writes `NORMAL-1` and `COVID-19(1)` where the files are `Normal-1` and `COVID-19 (1)`."""
    return stem.replace(" ", "").casefold()
