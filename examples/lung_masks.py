"""Write a manifest of films with lung masks, to train the U-Net that finds lungs.

Joins two public sets of masks over the films of covid-chestxray-dataset: those in its own
`annotations/lungVAE-masks` (made by a network) and those of GeneralBlockchain (drawn by radiologists).
A patient goes into the split that the classifier's data module puts them in, so that the U-Net has not
seen a film on which the classifier will be judged.

    python examples/lung_masks.py ROOT/cxr ROOT/masks/generalblockchain lungs.csv
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from guidedattn.data import CCXRD, CXRDataModule

EXCLUDE = ("X-Ray-Image-DataSet/Covid-19/*",)


def masked_films(cxr: Path, drawn: Path) -> Iterator[dict[str, str]]:
    """Yield image, mask, patient and maker of every mask on disk."""
    for record in CCXRD(cxr / "covid-chestxray-dataset").records():
        if record.mask is not None and record.path.is_file():
            yield {
                "path": str(record.path),
                "mask": str(record.mask),
                "patient": record.patient,
                "label": "lungVAE",
            }
    table = pd.read_csv(drawn / "metadata.csv", dtype=str).drop_duplicates("filename")
    patients = dict(zip(table["filename"], table["patientid"], strict=True))
    for mask in sorted(drawn.glob("masks_full/*/Lungs.png")):
        name = mask.parent.name
        image, patient = str(drawn / "images" / name), patients.get(name, name)
        yield {"path": image, "mask": str(mask), "patient": patient, "label": "radiologist"}


def main() -> None:
    """Write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cxr", type=Path, help="folder of the chest X-ray collections")
    parser.add_argument("drawn", type=Path, help="folder of GeneralBlockchain's masks")
    parser.add_argument("output", type=Path, help="the CSV to write")
    options = parser.parse_args()
    data = CXRDataModule(options.cxr, exclude=EXCLUDE)
    data.setup("fit")
    used = data.manifest()
    used = used[used["source"] == "CCXRD"]
    splits = dict(zip(used["patient"], used["split"], strict=True))
    films = pd.DataFrame(masked_films(options.cxr, options.drawn)).drop_duplicates("path")
    films["source"] = "CCXRD"
    films["split"] = [splits.get(patient, "train") for patient in films["patient"]]
    for column in ("path", "mask"):
        films[column] = [os.path.relpath(path, options.output.parent) for path in films[column]]
    films.to_csv(options.output, index=False)
    print(films.groupby(["label", "split"]).size().unstack(fill_value=0))


if __name__ == "__main__":
    main()
