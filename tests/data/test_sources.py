from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from guidedattn.data import (
    CCXRD,
    FCCXRD,
    CXRDataModule,
    FolderSource,
    ManifestSource,
    Record,
    Source,
    find_sources,
)
from guidedattn.data.labels import PAPER_LABELS, LabelMap, is_frontal
from guidedattn.errors import ConfigError, DataError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)
    return path


def test_ccxrd_gives_native_words_and_finds_masks_of_both_spellings(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(
        "patientid,finding,view,modality,folder,filename\n"
        "2,COVID-19,PA,X-ray,images,a.b.jpeg\n"
        "3,SARS,AP Supine,X-ray,images,c.jpg\n"
        "4,ARDS,Axial,CT,volumes,d.nii.gz\n"
    )
    masks = tmp_path / "annotations" / "lungVAE-masks"
    touch(masks / "a.b_mask.png")
    touch(masks / "c_mask.png.png")
    first, second, scan = CCXRD(tmp_path).records()
    assert (first.path, first.label, first.patient) == (tmp_path / "images/a.b.jpeg", "COVID-19", "2")
    assert first.mask == masks / "a.b_mask.png"
    assert second.mask == masks / "c_mask.png.png"
    assert (scan.view, scan.mask) == ("CT Axial", None)


def test_fccxrd_reads_latin1_finds_either_suffix_and_joins_the_images_of_a_patient(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(
        "patientid,finding,view,modality,notes\nCOVID-00003a,COVID-19,,X-ray,39°\nCOVID-00003b,,AP,X-ray,\n".encode(
            "latin-1"
        )
    )
    touch(tmp_path / "images" / "COVID-00003b.png")
    first, second = FCCXRD(tmp_path).records()
    assert first.path.name == "COVID-00003a.jpg"
    assert second.path.name == "COVID-00003b.png"
    assert first.patient == second.patient == "COVID-00003"
    assert second.label == ""


def test_a_folder_per_class_takes_the_patient_from_the_name(tmp_path: Path) -> None:
    image = touch(tmp_path / "images" / "Pneumonia" / "00000013_005.PNG")
    touch(tmp_path / "images" / "Pneumonia" / "other.jpg")
    mask = touch(tmp_path / "masks" / "Pneumonia" / "00000013_005_mask.png")
    (tmp_path / "images" / "Pneumonia" / "notes.txt").write_text("no image")
    known, unknown = FolderSource(tmp_path / "images", r"^(\d{8})_", tmp_path / "masks").records()
    assert (known.path, known.patient, known.mask, known.source) == (image, "00000013", mask, "images")
    assert (unknown.patient, unknown.mask) == ("", None)


def test_a_manifest_is_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "path,label,mask,split\nimages/a.png,x|y,images/../masks/a.png,val\nb.png,x,,\n"
    )
    first, second = ManifestSource(tmp_path / "list.csv").records()
    assert (first.path, first.mask) == (tmp_path / "images/a.png", tmp_path / "masks/a.png")
    assert (first.labels, first.split, first.patient) == (("x", "y"), "val", "")
    assert (second.mask, second.source) == (None, "manifest")


def test_a_missing_folder_table_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_sources(tmp_path / "nowhere")
    with pytest.raises(DataError, match="none of CCXRD, ACCXRD, FCCXRD"):
        find_sources(tmp_path)
    with pytest.raises(DataError, match=r"metadata\.csv: no such file"):
        list(CCXRD(tmp_path).records())
    (tmp_path / "list.csv").write_text("path,finding\n")
    with pytest.raises(DataError, match="lacks the column label"):
        list(ManifestSource(tmp_path / "list.csv").records())
    with pytest.raises(ConfigError, match="exactly one group"):
        FolderSource(tmp_path, r"\d+")


def test_sources_are_found_at_any_depth_by_their_content(cxr_root: Path) -> None:
    found = {source.name: source.root.name for source in find_sources(cxr_root.parent)}
    assert found == {
        "CCXRD": "covid-chestxray-dataset",
        "ACCXRD": "Actualmed-COVID-chestxray-dataset",
        "FCCXRD": "Figure1-COVID-chestxray-dataset",
        "X-Ray-Image-DataSet": "X-Ray-Image-DataSet",
        "RSNAPDD": "rsna",
        "V7Labs": "v7",
        "GeneralBlockchain": "generalblockchain",
    }


@pytest.mark.parametrize(
    ("name", "listed", "present"),
    [
        ("CCXRD", (19, 53, 450), (14, 38, 347)),
        ("ACCXRD", (127, 0, 58), (18, 0, 26)),
        ("FCCXRD", (3, 2, 35), (3, 2, 35)),
    ],
)
def test_the_published_counts_are_met(
    cxr_root: Path, name: str, listed: tuple[int, ...], present: tuple[int, ...]
) -> None:
    source = next(source for source in find_sources(cxr_root) if source.name == name)
    to_class = LabelMap(PAPER_LABELS)
    rows = [(to_class(r.label), r.path) for r in source.records() if is_frontal(r)]
    by_row = Counter(label for label, _ in rows)
    by_file = Counter(label for label, path in set(rows) if path.exists())
    assert tuple(by_row[label] for label in to_class.class_names) == listed
    assert tuple(by_file[label] for label in to_class.class_names) == present


class Listed(Source):
    """A user's own collection: a text file that names a class and a file per line."""

    name = "listed"

    def records(self) -> Iterator[Record]:
        for line in (self.root / "list.txt").read_text().splitlines():
            label, file = line.split()
            yield Record(self.root / file, label, self.name, patient=file[:3])


def test_a_users_source_takes_a_few_lines(tmp_path: Path) -> None:
    for name in ("p01a.png", "p01b.png", "p02a.png"):
        touch(tmp_path / name)
    (tmp_path / "list.txt").write_text("SARS p01a.png\nSARS p01b.png\nNormal p02a.png\n")
    data = CXRDataModule(tmp_path, sources=[Listed(tmp_path)])
    assert [(r.label, r.patient) for r in data.records] == [
        ("COVID-19", "p01"),
        ("COVID-19", "p01"),
        ("Normal", "p02"),
    ]


def test_two_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        touch(tmp_path / folder / "x.png")
        (tmp_path / folder / "list.txt").write_text("SARS x.png\n")
    data = CXRDataModule(tmp_path, sources=[Listed(tmp_path / "a"), Listed(tmp_path / "b")])
    assert [record.source for record in data.records] == ["listed", "listed-2"]
