"""Sources with tables, lists, class folders and outlines of their own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from guidedattn.data import (
    CRD,
    RSNAPDD,
    COVIDx,
    CXRDataModule,
    GeneralBlockchain,
    MaskedImageDataset,
    Record,
    V7Labs,
    find_sources,
    read_mask,
)
from guidedattn.errors import DataError


def touch(path: Path, size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 255).save(path)
    return path


def found(root: Path) -> dict[str, Path]:
    return {source.name: source.root for source in find_sources(root)}


# COVID-19 Radiography Database


@pytest.mark.parametrize(("covid", "below"), [("COVID", "images"), ("COVID-19", "")])
def test_crd_takes_covid_alone_and_names_the_rest(tmp_path: Path, covid: str, below: str) -> None:
    root = tmp_path / "radiography"
    for name in (covid, "Normal", "Viral Pneumonia"):
        touch(root / name / below / f"{name}-1.png")
    if below:
        touch(root / covid / "masks" / f"{covid}-1.png")
    assert found(tmp_path) == {"CRD": root}
    data = CXRDataModule(tmp_path)
    assert [record.label for record in data.records] == ["COVID-19"]
    assert (data.records[0].mask is not None) == bool(below)
    assert len(data.report.dropped["CRD is taken for COVID-19 only"]) == 2
    every = CXRDataModule(tmp_path, sources=[CRD(root, covid_only=False)])
    assert sorted(record.label for record in every.records) == ["COVID-19", "Normal", "Pneumonia"]


def test_crd_lists_what_its_sheet_names_and_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    for name in ("COVID-19", "NORMAL", "Viral Pneumonia"):
        touch(tmp_path / name / f"{name} (1).png")
    table = pd.DataFrame({"FILE NAME": ["COVID-19(1)", "COVID-19(2)"], "URL": ["x", "y"]})
    table.to_excel(tmp_path / "COVID-19.matadata.xlsx", index=False)
    names = [r.path.name for r in CRD(tmp_path).records() if not r.excluded]
    assert names == ["COVID-19 (1).png", "COVID-19(2).png"]


def test_a_smaller_mask_is_refused_or_scaled_as_told(tmp_path: Path) -> None:
    image, mask = touch(tmp_path / "a.png", (9, 9)), tmp_path / "m.png"
    Image.fromarray(np.repeat([[0, 0, 255]], 3, 0).astype(np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"3 x 3 pixels, its image 9 x 9; set scale_masks"):
        read_mask(mask, (9, 9))
    assert read_mask(mask, (9, 9), scale=True)[0].tolist() == [[0.0] * 6 + [1.0] * 3] * 9
    with pytest.raises(DataError, match=r"3 x 3 pixels, its image 4 x 9$"):
        read_mask(mask, (9, 4), scale=True)
    sample = MaskedImageDataset([Record(image, "x", "s", mask=mask)], ["x"], 9, scale_masks=True)[0]
    assert sample["has_mask"]


# RSNA


def rsna(root: Path, healthy: int = 12, neither: int = 5, sick: int = 9) -> Path:
    """A label file in which every second sick patient has two boxes."""
    names = [f"{kind}-{i:02}" for kind, n in (("h", healthy), ("n", neither), ("s", sick)) for i in range(n)]
    boxes = [name for i, name in enumerate(names) for _ in range(1 + (name[0] == "s" and i % 2))]
    word = {"h": "Normal", "n": "No Lung Opacity / Not Normal", "s": "Lung Opacity"}
    root.mkdir(parents=True, exist_ok=True)
    rows = [f"{name},,,,,{int(name[0] == 's')}" for name in boxes]
    (root / "stage_2_train_labels.csv").write_text("\n".join(["patientId,x,y,width,height,Target", *rows]))
    info = [f"{name},{word[name[0]]}" for name in boxes]
    (root / "stage_2_detailed_class_info.csv").write_text("\n".join(["patientId,class", *info]))
    return root


def test_rsna_is_one_record_per_patient_and_counts_rows_apart(tmp_path: Path) -> None:
    source = RSNAPDD(rsna(tmp_path), normal=None, pneumonia=None)
    assert Counter(r.label for r in source.records()) == {
        "Normal": 12, "Pneumonia": 9, "No Lung Opacity / Not Normal": 5,
    }  # fmt: skip
    assert source.row_counts() == {"Normal": 17, "Pneumonia": 9 + 5}
    papers = RSNAPDD(tmp_path, paper_labels=True, normal=None, pneumonia=None)
    assert Counter(r.label for r in papers.records()) == {"Normal": 17, "Pneumonia": 9}


def test_rsna_is_subsampled_by_the_seed_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    def taken(seed: int) -> dict[str, list[str]]:
        source = RSNAPDD(tmp_path, normal=4, pneumonia=3, seed=seed)
        records = [r for r in source.records() if not r.excluded and r.label in ("Normal", "Pneumonia")]
        return {
            name: sorted(r.path.stem for r in records if r.label == name) for name in ("Normal", "Pneumonia")
        }

    rsna(tmp_path)
    first = taken(0)
    assert {name: len(ids) for name, ids in first.items()} == {"Normal": 4, "Pneumonia": 3}
    assert taken(1) != first
    table = tmp_path / "stage_2_train_labels.csv"
    head, *rows = table.read_text().splitlines()
    table.write_text("\n".join([head, *reversed(rows)]))
    assert taken(0) == first


def test_rsna_takes_converted_images_and_hides_the_patient(tmp_path: Path) -> None:
    rsna(tmp_path, 2, 0, 1)
    touch(tmp_path / "stage_2_train_images" / "h-00.jpg")
    touch(tmp_path / "stage_2_train_images_png" / "h-01.png")
    records = {record.path.stem: record for record in RSNAPDD(tmp_path).records()}
    names = [records[k].path.relative_to(tmp_path).as_posix() for k in ("h-00", "h-01", "s-00")]
    assert names == [
        "stage_2_train_images/h-00.jpg", "stage_2_train_images_png/h-01.png", "stage_2_train_images/s-00.dcm",
    ]  # fmt: skip
    assert len({r.patient for r in records.values()}) == 3
    assert not any(name in record.patient for name, record in records.items())


# COVIDx


def test_covidx_reads_every_list_and_keeps_the_official_test_set_when_told(tmp_path: Path) -> None:
    (tmp_path / "train_COVIDx8.txt").write_text(
        "9 a b.png positive cohen\n9 c.jpg negative rsna\n\n7 d.jpg normal rsna\n"
    )
    (tmp_path / "test_COVIDx8.txt").write_text("8 e.png pneumonia\n")
    (tmp_path / "requirements.txt").write_text("torch\n")
    assert found(tmp_path) == {"COVIDx": tmp_path}
    records = {record.path.relative_to(tmp_path).as_posix(): record for record in COVIDx(tmp_path).records()}
    assert set(records) == {"train/a b.png", "train/c.jpg", "train/d.jpg", "test/e.png"}
    assert records["train/a b.png"].label == "COVID-19 positive"
    assert records["train/a b.png"].patient != records["train/c.jpg"].patient
    for path in records:
        touch(tmp_path / path)
    data = CXRDataModule(tmp_path)
    assert {r.path.name: r.label for r in data.records} == {
        "a b.png": "COVID-19", "d.jpg": "Normal", "e.png": "Pneumonia",
    }  # fmt: skip
    official = {r.path.name: r.split for r in COVIDx(tmp_path, official_test=True).records()}
    assert official == {"a b.png": "", "c.jpg": "", "d.jpg": "", "e.png": "test"}
    (tmp_path / "train_COVIDx8.txt").write_text("9 a.png positive cohen\nonly two\n")
    with pytest.raises(DataError, match=r"train_COVIDx8\.txt, line 2"):
        list(COVIDx(tmp_path).records())


# outlines


def square(left: float, top: float, side: float) -> list[dict[str, float]]:
    right, low = left + side, top + side
    return [{"x": x, "y": y} for x, y in ((left, top), (right, top), (right, low), (left, low))]


def darwin(
    path: Path, *annotations: dict[str, Any], size: tuple[int, int] = (80, 40), version: int = 1
) -> Path:
    image = {"width": size[0], "height": size[1], "filename": "0001.jpg", "original_filename": "film.png"}
    item = {"name": "film.png", "slots": [{"width": size[0], "height": size[1]}]}
    head = {"image": image} if version == 1 else {"version": "2.0", "item": item}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, "annotations": list(annotations)}))
    return path


LUNG = {"name": "Lung", "polygon": {"path": square(8, 8, 24)}}
RING = {"name": "Lung", "complex_polygon": {"path": [square(8, 8, 24), square(16, 16, 8)]}}
IGNORED = {"name": "Ignore", "polygon": {"path": square(8, 8, 8)}}


def share(mask: Any) -> float:
    return float(mask.mean()) * 80 * 40


@pytest.mark.parametrize(
    ("annotations", "area"),
    [((LUNG,), 576), ((RING,), 512), ((LUNG, IGNORED), 512)],
    ids=["plain", "hole", "ignore"],
)
def test_polygons_are_filled_at_the_size_of_the_image(
    tmp_path: Path, annotations: tuple[dict[str, Any], ...], area: float
) -> None:
    path = darwin(tmp_path / "a.json", *annotations)
    assert share(read_mask(path)) == pytest.approx(area, rel=0.15)  # an outline is a pixel wide
    assert share(read_mask(path, (400, 800))) == pytest.approx(area, rel=0.02)
    assert read_mask(path, (20, 40)).shape == (1, 20, 40)
    with pytest.raises(DataError, match=r"a\.json: the mask is 80 x 40 pixels, its image 40 x 40"):
        read_mask(path, (40, 40))


def test_version_2_of_darwin_says_the_same(tmp_path: Path) -> None:
    first = read_mask(darwin(tmp_path / "1.json", RING))
    rings = {"name": "Lung", "polygon": {"paths": RING["complex_polygon"]["path"]}}  # type: ignore[index]
    assert bool((read_mask(darwin(tmp_path / "2.json", rings, version=2)) == first).all())


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"image": {}}'])
def test_a_broken_outline_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"a\.json: (not JSON|no polygons)"):
        read_mask(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"b\.json: no such file"):
        read_mask(tmp_path / "b.json")


def test_outlines_of_v7_go_to_the_films_of_other_collections(tmp_path: Path) -> None:
    v7 = tmp_path / "v7"
    tags = [{"name": name, "tag": {}} for name in ("COVID-19", "View/AP_Supine", "PatientID:253")]
    darwin(v7 / "annotations" / "set" / "1.json", LUNG, *tags)
    darwin(v7 / "annotations" / "set" / "2.json", *tags)
    rows = ["annotation,original_filename,image,geometry", "1.json,film.png,films/COVID-19/a.png,same"]
    rows += ["1.json,film.png,films/COVID-19/b.png,differs", "2.json,film.png,films/Normal/c.png,same"]
    (v7 / "annotation_to_image.csv").write_text("\n".join(rows))
    for name in ("COVID-19/a", "COVID-19/b", "Normal/c"):
        touch(tmp_path / "films" / f"{name}.png", (80, 40))
    first, cropped, without = V7Labs(v7).records()
    assert (first.label, first.view, first.patient) == ("COVID-19", "AP Supine", "253")
    assert (bool(cropped.excluded), without.mask) == (True, None)
    data = CXRDataModule(tmp_path)
    masks = {record.path.name: record.mask for record in data.records}
    assert masks == {"a.png": v7 / "annotations" / "set" / "1.json", "b.png": None, "c.png": None}
    assert data.report.listed == {"films": 3}
    assert "V7Labs: 1 films have a mask there, 1 listed films take it" in data.report.notes


def test_the_real_polygons_equal_the_real_pictures_of_them(cxr_root: Path) -> None:
    v7 = cxr_root.parent / "masks" / "v7" / "annotations"
    overlap = []
    for path in sorted((v7 / "all-images-semantic-masks").glob("*.png")):
        drawn = read_mask(path)
        filled = read_mask(v7 / "covid-only" / f"{path.stem}.json", (drawn.shape[1], drawn.shape[2]))
        overlap.append(float(2 * (drawn * filled).sum() / (drawn.sum() + filled.sum())))
    assert len(overlap) == 40
    assert min(overlap) > 0.97


def test_the_real_coco_file_says_what_the_darwin_files_say(cxr_root: Path) -> None:
    v7 = cxr_root.parent / "masks" / "v7" / "annotations"
    coco = v7 / "covid-only-coco" / "output.json"
    # 6699 has an `Ignore` in run lengths.
    for image_id, name in (("6434", "1676192.json"), ("6699", None)):
        path = coco.with_name(f"output.json#{image_id}")
        mask = read_mask(path, None)
        if name:
            other = read_mask(v7 / "covid-only" / name)
            assert float((mask != other).float().mean()) < 1e-3
        assert 0.1 < float(mask.mean()) < 0.6
    with pytest.raises(DataError, match="no '0'"):
        read_mask(coco.with_name("output.json#0"))


def test_the_real_collections_of_masks_are_whole(cxr_root: Path) -> None:
    masks = cxr_root.parent / "masks"
    v7 = [r for r in V7Labs(masks / "v7").records() if not r.excluded and r.mask]
    assert len([r for r in v7 if r.path.is_file()]) == len(v7) == 374
    radiologists = list(GeneralBlockchain(masks / "generalblockchain").records())
    assert len(radiologists) == sum(r.mask is not None for r in radiologists) == 100
    assert sum(r.path.is_file() for r in radiologists) == 77


def test_the_real_crops_come_together_as_the_pictures_at_full_size(cxr_root: Path) -> None:
    root = cxr_root.parent / "masks" / "generalblockchain"
    overlap = []
    for full in sorted((root / "masks_full").glob("*/Lungs.png")):
        drawn = read_mask(full)
        pasted = read_mask(root / f"structure.csv#{full.parent.name}", (drawn.shape[1], drawn.shape[2]))
        overlap.append(float(2 * (drawn * pasted).sum() / (drawn.sum() + pasted.sum())))
    assert len(overlap) == 77
    assert min(overlap) > 0.99
    with pytest.raises(DataError, match="the table has no lungs of that film"):
        read_mask(root / "structure.csv#nobody.png")
