"""Write a manifest of films with lung masks, to train the U-Net that finds lungs.

Joins the public sets of masks over the films of covid-chestxray-dataset: those in its own
`annotations/lungVAE-masks` (made by a network), those of GeneralBlockchain (drawn by radiologists) and, where
its folder is given, those of V7 Labs (polygons). A patient goes into the split that the classifier's data
module puts them in, so that the U-Net has not seen a film on which the classifier will be judged.

    python examples/lung_masks.py ROOT/cxr ROOT/masks/generalblockchain lungs.csv --v7 ROOT/masks/v7
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from guidedattn.data import CCXRD, CXRDataModule, GeneralBlockchain, Manifest, Record, Source, V7Labs

EXCLUDE = ("X-Ray-Image-DataSet/Covid-19/*",)


def masked_films(makers: dict[str, Source], used: Iterable[Record]) -> Iterator[Record]:
    """Yield every film on disk that has a mask, once; the label says who made the mask.

    The patients of all three sets are numbered as in covid-chestxray-dataset; V7 does not number all.
    """
    film = {record.path: record for record in used}
    splits = {p: r.split for r in film.values() for p in (r.patient, *r.patient.split("|")) if p}
    seen = set()
    for maker, source in makers.items():
        for record in source.records():
            if record.mask is None or record.excluded or not record.path.is_file() or record.path in seen:
                continue
            seen.add(record.path)
            patient = film[record.path].patient if record.path in film else record.patient
            split = splits.get(patient, "train")
            yield replace(record, label=maker, source="CCXRD", patient=patient, split=split)


def main() -> None:
    """Write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cxr", type=Path, help="folder of the chest X-ray collections")
    parser.add_argument("drawn", type=Path, help="folder of GeneralBlockchain's masks")
    parser.add_argument("output", type=Path, help="the CSV to write")
    parser.add_argument("--v7", type=Path, help="folder of V7 Labs' outlines")
    options = parser.parse_args()
    data = CXRDataModule(options.cxr, exclude=EXCLUDE)
    data.setup("fit")
    used = [record for record in data.records if record.source == "CCXRD"]
    makers: dict[str, Source] = {
        "radiologist": GeneralBlockchain(options.drawn),
        "lungVAE": CCXRD(options.cxr / "covid-chestxray-dataset"),
    }
    if options.v7:
        makers["V7"] = V7Labs(options.v7)
    manifest = Manifest.from_records(masked_films(makers, used), options.output.parent)
    manifest.write(options.output)
    print(manifest.counts())


if __name__ == "__main__":
    main()
