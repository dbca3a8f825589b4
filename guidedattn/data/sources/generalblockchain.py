"""Lungs outlined by radiologists for GeneralBlockchain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.crops import TABLE, crops
from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source, read_table, with_modality


class GeneralBlockchain(Source):
    """Lungs of films of CCXRD, github.com/GeneralBlockchain/covid-19-chest-xray-segmentations-dataset.

    A mask is cropped to the box that `structure.csv` gives, left and right lung apart; where masks are read
    they are put together (`structure.csv#<film>`). Pictures at full size, `masks_full/<film>/Lungs.png`,
    are taken first. The patients' numbers are CCXRD's.

    Args:
        root: The folder that holds `structure.csv` and `metadata.csv`.
    """

    name = "GeneralBlockchain"
    masks_only = True

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether the table of crops lies beside the one of films."""
        return (folder / TABLE).is_file() and (folder / "metadata.csv").is_file()

    def records(self) -> Iterator[Record]:
        """Yield every film that the table of crops names."""
        films = read_table(self.root / "metadata.csv", "filename", "patientid", "finding", "view", "modality")
        rows = {row["filename"]: row for row in films.to_dict("records")}
        cropped = crops(str(self.root / TABLE))
        for name in sorted(set(read_table(self.root / TABLE, "Filename")["Filename"]) - {""}):
            row = rows.get(name, {"finding": "", "patientid": "", "view": "", "modality": ""})
            full = self.root / "masks_full" / name / "Lungs.png"
            pasted = self.root / f"{TABLE}#{name}" if name in cropped else None
            yield Record(
                self.root / "images" / name,
                row["finding"],
                self.name,
                row["patientid"],
                with_modality(row["view"], row["modality"]),
                full if full.is_file() else pasted,
            )
