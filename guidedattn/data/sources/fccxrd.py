"""Figure 1 COVID-19 chest X-ray dataset (FCCXRD)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source, header, read_table, with_modality


class FCCXRD(Source):
    """The Figure 1 collection, github.com/agchung/Figure1-COVID-chestxray-dataset.

    The table is Latin-1 and names no file: that is `images/<patientid>` with one of two suffixes. A letter
    at the end of an id counts the images of one patient (COVID-00003a, COVID-00003b).

    Args:
        root: The folder that holds `metadata.csv`.
    """

    name = "FCCXRD"

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether the table has patients and findings but no file names."""
        names = header(folder)
        return {"patientid", "finding", "modality"} <= names and not names & {"imagename", "filename"}

    def records(self) -> Iterator[Record]:
        """Yield every row of the table; the unlabelled ones have an empty label."""
        table = read_table(
            self.root / "metadata.csv", "patientid", "finding", "view", "modality", encoding="latin-1"
        )
        for row in table.to_dict("records"):
            stem = self.root / "images" / row["patientid"]
            candidates = [stem.with_name(stem.name + suffix) for suffix in (".jpg", ".png")]
            path = next((path for path in candidates if path.exists()), candidates[0])
            patient = re.sub(r"(?<=\d)[a-z]$", "", row["patientid"])
            yield Record(
                path, row["finding"], self.name, patient, with_modality(row["view"], row["modality"])
            )
