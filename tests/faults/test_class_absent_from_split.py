"""A class absent from a split: an error before training, with the counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from guidedattn.data import MaskedImageDataModule
from guidedattn.errors import DataError


def folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir()
        for i in range(count):
            Image.new("L", (4, 4)).save(root / name / f"{i}.png")
    return root


def test_too_few_images_of_a_class(tmp_path: Path) -> None:
    data = MaskedImageDataModule(root=folders(tmp_path, cat=10, dog=2))
    with pytest.raises(
        DataError, match=r"'dog' is absent from \w+ \(train: cat 8, dog 1; val: cat 1, dog .; "
    ):
        data.setup("fit")


def test_three_patients_are_enough(tmp_path: Path) -> None:
    MaskedImageDataModule(root=folders(tmp_path, cat=100, dog=3)).setup("fit")


def test_a_class_that_nothing_shows(tmp_path: Path) -> None:
    data = MaskedImageDataModule(root=folders(tmp_path, cat=10, dog=10), class_names=["cat", "dog", "cow"])
    with pytest.raises(DataError, match=r"'cow' is absent from train, 'cow' is absent from val, 'cow'"):
        data.setup("fit")


def test_a_test_set_of_another_hospital_may_lack_a_class(tmp_path: Path) -> None:
    folders(tmp_path, cat=3)
    lines = [f"cat/{i}.png,cat,test" for i in range(3)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    data = MaskedImageDataModule(manifest=tmp_path / "list.csv", class_names=["cat", "dog"])
    data.setup("test")
    with pytest.raises(DataError, match="the train split is empty, the val split is empty"):
        data.setup("fit")


def test_a_misspelt_split_is_named(tmp_path: Path) -> None:
    folders(tmp_path, cat=1)
    (tmp_path / "list.csv").write_text("path,label,split\ncat/0.png,cat,training\n")
    with pytest.raises(DataError, match=r"0\.png: split 'training' is not one of train, val, test"):
        MaskedImageDataModule(manifest=tmp_path / "list.csv").setup("fit")
