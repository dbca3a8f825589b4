"""Actualmed COVID-19 chest X-ray dataset (ACCXRD)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source, header, read_table, with_modality


class ACCXRD(Source):
    """The Actualmed collection, github.com/agchung/Actualmed-COVID-chestxray-dataset.

    Args:
        root: The folder that holds `metadata.csv`.
    """

    name = "ACCXRD"

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether the table has the column `imagename`, which this collection alone has."""
        return {"finding", "imagename"} <= header(folder)

    def records(self) -> Iterator[Record]:
        """Yield every row of the table; the unlabelled ones have an empty label."""
        needed = ("patientid", "finding", "view", "modality", "imagename")
        for row in read_table(self.root / "metadata.csv", *needed).to_dict("records"):
            path = self.root / "images" / row["imagename"]
            view = with_modality(row["view"], row["modality"])
            yield Record(path, row["finding"], self.name, row["patientid"], view)
