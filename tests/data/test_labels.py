from __future__ import annotations

from pathlib import Path

import pytest

from guidedattn.data.labels import PAPER_LABELS, LabelMap, read_label_map
from guidedattn.errors import DataError


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("No Finding", "Normal"),
        ("No_findings", "Normal"),
        ("Streptococcus", "Pneumonia"),
        ("Pneumonia/Bacterial/Klebsiella", "Pneumonia"),
        ("Pneumonia/Viral/Influenza/H1N1", "Pneumonia"),
        ("COVID-19, ARDS", "COVID-19"),
        ("Covid-19", "COVID-19"),
        ("Pneumonia/Viral/SARS", "COVID-19"),
        ("MERS-CoV", "COVID-19"),
        ("Lipoid", None),
        ("Pneumocystis", None),
        ("ARDS", None),
        ("todo", None),
        ("", None),
    ],
)
def test_the_papers_map(word: str, expected: str | None) -> None:
    assert LabelMap(PAPER_LABELS)(word) == expected


def test_the_classes_are_the_papers_in_its_order() -> None:
    assert LabelMap(PAPER_LABELS).class_names == ("Normal", "Pneumonia", "COVID-19")


def test_several_findings_map_one_by_one() -> None:
    label_map = LabelMap({"mass": "Mass", "nodule": "Nodule", "tumour": "Mass"})
    assert label_map("Mass|Nodule") == "Mass|Nodule"
    assert label_map("mass|tumour") == "Mass"
    assert label_map("mass|gas") is None


def test_a_users_map_comes_from_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text("finding,class\nSARS,sick\nNo Finding,well\n")
    assert read_label_map(path) == {"SARS": "sick", "No Finding": "well"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("finding,class\nSARS,sick\nSARS,well\n", "two classes"),
        ("finding,label\nSARS,sick\n", "columns finding and class"),
        ("finding,class\n", "empty"),
    ],
)
def test_a_bad_map_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_label_map(tmp_path / "map.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_label_map(tmp_path / "absent.csv")
