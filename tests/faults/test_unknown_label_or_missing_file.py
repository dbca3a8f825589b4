"""Unknown label, missing patient id, missing file: named and counted in a report, never in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from guidedattn.data import CXRDataModule, MaskedImageDataModule
from guidedattn.errors import DataError

TABLE = """patientid,finding,view,modality,folder,filename
1,COVID-19,PA,X-ray,images,kept.png
2,Martian flu,PA,X-ray,images,unknown.png
3,,PA,X-ray,images,unlabelled.png
4,SARS,L,X-ray,images,lateral.png
5,SARS,Axial,CT,images,scan.png
,Normal,,X-ray,images,nobody.png
7,Pneumonia,AP,X-ray,images,gone.png
8,Pneumonia,AP,X-ray,images,torn.png
9,No Finding,AP,X-ray,images,torn.png
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "down"
    (folder / "images").mkdir(parents=True)
    (folder / "metadata.csv").write_text(TABLE)
    for line in TABLE.splitlines()[1:]:
        name = line.rpartition(",")[2]
        if name != "gone.png":
            Image.new("L", (4, 4)).save(folder / "images" / name)
    return tmp_path


def test_every_row_is_accounted_for(root: Path) -> None:
    data = CXRDataModule(root)
    assert [record.path.name for record in data.records] == ["kept.png", "nobody.png"]
    report = data.report
    assert report.listed == {"CCXRD": 9}
    assert report.dropped == {
        "view L": ["CCXRD/lateral.png"],
        "view CT Axial": ["CCXRD/scan.png"],
        "label 'Martian flu' belongs to no class": ["CCXRD/unknown.png"],
        "no label": ["CCXRD/unlabelled.png"],
        "rows of one file disagree: Normal / Pneumonia": ["CCXRD/torn.png"],
    }
    assert report.missing == {"CCXRD": [str(root / "deep/down/images/gone.png")]}
    assert list(report.notes.values()) == [["CCXRD/nobody.png"]]
    for word in ("Martian flu", "patient unknown", "view CT Axial", "COVID-19 1"):
        assert word in str(report)
    assert report.as_dict()["dropped"]["no label"] == {"count": 1, "names": ["CCXRD/unlabelled.png"]}


def test_an_exclude_pattern_that_matches_nothing_is_told(root: Path) -> None:
    data = CXRDataModule(root, exclude=["deep/up/*"])
    with pytest.warns(UserWarning, match=r"'deep/up/\*' matches nothing"):
        report = data.report
    assert "exclude pattern deep/up/* matches nothing" in report.notes
    assert [r.path.name for r in CXRDataModule(root, exclude=["*/nobody.png"]).records] == ["kept.png"]


def test_nothing_left_is_an_error_with_the_report(root: Path) -> None:
    with pytest.raises(DataError, match=r"no image to use\n.*source(.|\n)*Martian flu"):
        assert CXRDataModule(root, label_map={"anything": "else"}).records


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        CXRDataModule(tmp_path / "nowhere").setup("fit")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        MaskedImageDataModule(root=tmp_path / "nowhere").setup("fit")
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        MaskedImageDataModule(manifest=tmp_path / "nowhere.csv").setup("fit")


def test_a_class_that_was_not_asked_for_is_counted(tmp_path: Path) -> None:
    for name in ("cat", "dog", "cow"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "a.png")
    data = MaskedImageDataModule(root=tmp_path, class_names=["dog", "cat"])
    assert len(data.records) == 2
    assert data.report.dropped == {"label 'cow' belongs to no class": [f"{tmp_path.name}/a.png"]}
