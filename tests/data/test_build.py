"""One manifest from a collection: the same file everywhere, nobody on two sides, nothing lost."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from guidedattn.data import (
    Collection,
    CXRDataModule,
    FoldSplit,
    ImageSplit,
    Manifest,
    MaskedImageDataModule,
    build_manifest,
)
from guidedattn.data.report import Report
from guidedattn.data.splits import check_leaks
from guidedattn.errors import ConfigError, DataError

CLASSES = ("No_findings", "Pneumonia", "Covid-19")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of 24 films, two of each patient; four films lie there twice under other names."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "films"
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(24):
            number = 100 * CLASSES.index(name) + i // 2
            film = folder / name / f"{number:08}_{i:03}.png"
            Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).save(film)
            if i % 12 == 0 and name != "Covid-19":
                shutil.copy(film, folder / name / f"copy{i}.png")
    return tmp_path / "data"


def groups(manifest: Manifest) -> dict[str, set[str]]:
    """The splits that each group lies in."""
    where = defaultdict(set)
    for record in manifest.records():
        if record.group:
            where[record.group].add(record.split)
    return where


def test_the_same_seed_gives_the_same_bytes_wherever_the_files_lie(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = build_manifest(Collection.at(root), root / "list.csv", seed=3)
    shutil.copytree(root, tmp_path / "another" / "machine")
    walk, random = os.walk, Random(0)

    def shuffled(top: str | Path) -> object:
        for folder, subfolders, files in walk(top):
            random.shuffle(subfolders)
            yield folder, subfolders, random.sample(files, len(files))

    monkeypatch.setattr(os, "walk", shuffled)
    monkeypatch.chdir(tmp_path / "another")
    (again,) = build_manifest(Collection.at("machine"), "machine/list.csv", seed=3)
    assert first.read_bytes() == Path(again).read_bytes()
    (other,) = build_manifest(Collection.at(root), root / "other.csv", seed=4)
    assert other.read_bytes() != first.read_bytes()


def test_patients_and_copies_stay_whole_and_cells_are_near_to_their_share(root: Path) -> None:
    report = Report()
    (path,) = build_manifest(Collection.at(root), root / "list.csv", report=report)
    manifest = Manifest.read(path)
    assert len(manifest) == 76
    check_leaks(manifest.records())
    assert len(groups(manifest)) == 4
    assert all(len(splits) == 1 for splits in groups(manifest).values())
    assert len(report.notes["files with the bytes of another one, kept in one split"]) == 8
    for row in manifest.counts().to_dict("records"):
        assert abs(row["train"] - 0.8 * row["all"]) <= 3
        assert min(row["val"], row["test"]) > 0


def test_pairs_found_elsewhere_chain_into_groups(root: Path) -> None:
    names = [f"films/{name}/{100 * k:08}_000.png" for k, name in enumerate(CLASSES)]
    rows = [(names[0], names[1]), (names[1], "films/gone.png"), ("films/gone.png", names[2])]
    for number, order in enumerate((rows, rows[::-1])):
        pd.DataFrame(order, columns=["path_a", "path_b"]).to_csv(root / "pairs.csv", index=False)
        report = Report()
        (path,) = build_manifest(
            Collection.at(root), root / f"{number}.csv", duplicates=root / "pairs.csv", report=report
        )
        chained = [r for r in Manifest.read(path).records() if "pairs-" in r.group]
        assert sorted(r.path.relative_to(root).as_posix() for r in chained) == sorted(names)
        assert len({r.split for r in chained}) == 1
        assert "pairs.csv: 3 pairs, 2 of them with an image that is not in use" in report.notes
    assert (root / "0.csv").read_bytes() == (root / "1.csv").read_bytes()


def test_each_image_is_tested_in_one_fold_and_validated_in_another(root: Path) -> None:
    paths = build_manifest(Collection.at(root), root / "list.csv", folds=4)
    assert [path.name for path in paths] == [f"list-fold{i}.csv" for i in range(4)]
    tables = [Manifest.read(path).table for path in paths]
    splits = pd.DataFrame({i: table["split"] for i, table in enumerate(tables)})
    assert all(table["path"].equals(tables[0]["path"]) for table in tables)
    for role, count in (("test", 1), ("val", 1), ("train", 2)):
        assert ((splits == role).sum(axis=1) == count).all()
    for path in paths:
        check_leaks(Manifest.read(path).records())
    data = CXRDataModule(root, splitter=FoldSplit(4, 2))
    data.setup("fit")
    assert {r.split for r in data.records} == {"train", "val", "test"}
    check_leaks(data.records)
    for wrong in ((2, 0), (5, 5), (5, -1)):
        with pytest.raises(ConfigError, match="folds"):
            FoldSplit(*wrong)


def test_folds_refuse_a_split_that_is_given(root: Path) -> None:
    (path,) = build_manifest(Collection.at(root), root / "list.csv")
    with pytest.raises(DataError, match="already; folds share out anew"):
        build_manifest(Collection.at(path), root / "folds.csv", folds=3)


def test_the_papers_split_is_by_image_and_loads_only_when_asked_for(root: Path) -> None:
    (path,) = build_manifest(Collection.at(root), root / "list.csv", split="paper", digests=False)
    with pytest.raises(DataError, match="in more than one split: patient"):
        MaskedImageDataModule(manifest=path).setup("fit")
    MaskedImageDataModule(manifest=path, splitter=ImageSplit()).setup("fit")


def test_both_data_modules_train_from_it_with_its_splits(root: Path) -> None:
    (path,) = build_manifest(Collection.at(root), root / "list.csv", seed=5)
    listed = Manifest.read(path).table.set_index("path")["split"].to_dict()
    for data in (
        MaskedImageDataModule(manifest=path, image_size=4),
        CXRDataModule(path, image_size=4),
    ):
        data.setup("fit")
        assert {r.path.relative_to(root).as_posix(): r.split for r in data.records} == listed
        assert len(next(iter(data.train_dataloader()))["path"]) == 32


def test_nothing_is_written_when_a_class_is_absent_from_a_split(tmp_path: Path) -> None:
    for name, count in (("Normal", 9), ("Pneumonia", 2)):
        (tmp_path / "films" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (4, 4), i).save(tmp_path / "films" / name / f"{i}.png")
    with pytest.raises(DataError, match="'Pneumonia' is absent from"):
        build_manifest(Collection.at(tmp_path), tmp_path / "list.csv")
    assert not list(tmp_path.glob("list*"))


def test_no_real_film_lies_on_two_sides(cxr_root: Path, tmp_path: Path) -> None:
    pairs = cxr_root.parent / "duplicates.csv"
    (path,) = build_manifest(Collection.at(cxr_root.parent), tmp_path / "list.csv", duplicates=pairs)
    manifest = Manifest.read(path)
    assert len(manifest) == 1363
    split = {r.path.relative_to(cxr_root.parent).as_posix(): r.split for r in manifest.records()}
    both = [
        (a, b) for a, b in pd.read_csv(pairs)[["path_a", "path_b"]].to_numpy() if a in split and b in split
    ]
    assert len(both) == 160
    assert all(split[a] == split[b] for a, b in both)
    check_leaks(manifest.records())
