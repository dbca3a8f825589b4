"""Same patient, group or file in two splits: an error with the ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from guidedattn.data import MaskedImageDataModule, Record
from guidedattn.data.splits import check_leaks, split_by_patient
from guidedattn.errors import DataError


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"patient": "p7"}, {"patient": "p7"}, "patient A/p7"),
        ({"patient": "p7|p8"}, {"patient": "p8"}, "patient A/p8"),
        ({"group": "g1"}, {"group": "g0|g1"}, "group g1"),
    ],
)
def test_the_shared_id_is_named(first: dict[str, str], second: dict[str, str], named: str) -> None:
    records = [
        Record(Path("/a"), "x", "A", split="train", **first),
        Record(Path("/b"), "x", "A", split="test", **second),
    ]
    with pytest.raises(DataError, match=rf"{named.replace('|', '.')} \(test, train\)"):
        check_leaks(records)
    with pytest.raises(DataError, match="more than one split"):
        split_by_patient(records, 0)


def test_a_chain_of_ids_between_two_splits_is_found() -> None:
    records = [
        Record(Path("/a"), "x", "A", patient="1", split="train"),
        Record(Path("/b"), "x", "A", patient="1|2"),
        Record(Path("/c"), "x", "A", patient="2", split="test"),
    ]
    with pytest.raises(DataError, match="patient A/"):
        split_by_patient(records, 0)


def test_a_manifest_with_a_torn_patient_stops_before_training(tmp_path: Path) -> None:
    for i in range(6):
        Image.new("L", (4, 4)).save(tmp_path / f"{i}.png")
    rows = [
        f"{i}.png,x,{'p' if i in (0, 2) else i},{split}"
        for i, split in enumerate(["train", "val", "test"] * 2)
    ]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,patient,split", *rows]))
    with pytest.raises(DataError, match=r"1 in more than one split: patient manifest/p \(test, train\)"):
        MaskedImageDataModule(manifest=tmp_path / "list.csv").setup("fit")


def test_a_file_listed_in_two_splits_is_named(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,label,split\na.png,x,train\na.png,x,test\n")
    with pytest.raises(DataError, match=r"a\.png: listed in more than one split \(test, train\)"):
        MaskedImageDataModule(manifest=tmp_path / "list.csv").setup("fit")
