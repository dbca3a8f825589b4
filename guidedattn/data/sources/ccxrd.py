"""covid-chestxray-dataset of Cohen et al. (CCXRD)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source, header, read_table, with_modality


class CCXRD(Source):
    """The COVID chest X-ray collection of Cohen et al., github.com/ieee8023/covid-chestxray-dataset.

    Older versions write short findings (`SARS`), newer ones paths (`Pneumonia/Viral/SARS`). The table
    lists CT volumes too; a few files have two rows under two patients. Masks are the network-made ones in
    `annotations/lungVAE-masks`, where there is one.

    Args:
        root: The folder that holds `metadata.csv`.
    """

    name = "CCXRD"

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether the table names a folder and a file name per row."""
        # One set of masks carries a copy of this table; its pictures are the same ones once more.
        return {"finding", "folder", "filename"} <= header(folder) and not (folder / "structure.csv").exists()

    def records(self) -> Iterator[Record]:
        """Yield every row of the table."""
        masks = self._masks()
        needed = ("patientid", "finding", "view", "modality", "folder", "filename")
        for row in read_table(self.root / "metadata.csv", *needed).to_dict("records"):
            path = self.root / row["folder"] / row["filename"]
            view = with_modality(row["view"], row["modality"])
            mask = masks.get(path.stem)
            yield Record(path, row["finding"], self.name, row["patientid"], view, mask)

    def _masks(self) -> dict[str, Path]:
        # Four names end in `_mask.png.png`.
        found = sorted((self.root / "annotations" / "lungVAE-masks").glob("*_mask*.png"))
        return {
            path.name.removesuffix(".png").removesuffix(".png").removesuffix("_mask"): path for path in found
        }
