from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from guidedattn.data import CXRDataModule, ImageSplit, MaskedImageDataModule, find_sources
from guidedattn.data.splits import check_leaks
from guidedattn.errors import ConfigError, DataError

Folders = Callable[..., Path]


class Counting(LightningModule):
    """Notes the order of the images that each epoch trains on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.epochs: dict[int, list[int]] = {}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        self.epochs.setdefault(self.current_epoch, []).extend(batch["index"].tolist())
        return self.layer(torch.zeros(1, 1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(**options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
    }
    return Trainer(**{**quiet, "enable_checkpointing": False, "num_sanity_val_steps": 0, **options})


def test_folders_give_classes_masks_and_three_splits(make_folders: Folders, tmp_path: Path) -> None:
    data = MaskedImageDataModule(root=make_folders(count=20), mask_root=tmp_path / "masks", image_size=8)
    data.setup("fit")
    data.setup("test")
    assert data.class_names == ("cat", "dog")
    assert data.num_classes == 2
    table = data.manifest()
    assert table.groupby(["label", "split"]).size().to_dict() == {
        (c, s): n for c in ("cat", "dog") for s, n in (("train", 16), ("val", 2), ("test", 2))
    }
    assert (table["mask"] != "").sum() == 20
    assert sum(len(batch["path"]) for batch in data.train_dataloader()) == 32
    assert sum(batch["has_mask"].sum() for batch in data.train_dataloader()) > 0


def test_a_saved_manifest_gives_the_same_data_again(make_folders: Folders, tmp_path: Path) -> None:
    first = MaskedImageDataModule(root=make_folders(), mask_root=tmp_path / "masks", seed=4)
    first.manifest().to_csv(tmp_path / "list.csv", index=False)
    again = MaskedImageDataModule(manifest=tmp_path / "list.csv", seed=5)
    again.setup()
    pd.testing.assert_frame_equal(again.manifest(), first.manifest())


def test_only_images_with_masks_for_a_segmenter(make_folders: Folders, tmp_path: Path) -> None:
    data = MaskedImageDataModule(root=make_folders(count=20), mask_root=tmp_path / "masks", require_mask=True)
    assert len(data.records) == 20
    assert len(data.report.dropped["no mask"]) == 20


def test_the_last_batch_is_never_a_single_image(make_folders: Folders) -> None:
    root = make_folders(count=10)
    for batch_size, batches in (
        (3, [3, 3, 3, 3, 3]),
        (4, [4, 4, 4, 4]),
        (16, [16]),
        (7, [7, 7, 2]),
        (1, [1] * 16),
    ):
        data = MaskedImageDataModule(root=root, image_size=4, batch_size=batch_size)
        assert [len(batch["path"]) for batch in data.train_dataloader()] == batches


def test_the_order_is_a_function_of_seed_and_epoch(make_folders: Folders, tmp_path: Path) -> None:
    def run(seed: int, **options: Any) -> dict[int, list[int]]:
        data = MaskedImageDataModule(root=root, image_size=4, seed=seed)
        model = Counting()
        engine = trainer(max_epochs=3)
        if options:
            engine.fit_loop.epoch_progress.current.completed = 2
            engine.fit_loop.epoch_progress.current.processed = 2
        engine.fit(model, data)
        return model.epochs

    root = make_folders()
    whole = run(0)
    assert sorted(whole[0]) == sorted(whole[1]) == list(range(16))
    assert whole[0] != whole[1] != whole[2]
    assert run(0) == whole
    assert run(0, resumed=True)[2] == whole[2]
    assert run(1)[0] != whole[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_goes_on_with_the_order_of_its_epoch(
    make_folders: Folders, tmp_path: Path, num_workers: int
) -> None:
    root, checkpoint = make_folders(), tmp_path / "two epochs.ckpt"

    def run(epochs: int, resumed: bool) -> tuple[Trainer, dict[int, list[int]]]:
        data = MaskedImageDataModule(root=root, image_size=4, num_workers=num_workers, batch_size=4)
        model, engine = Counting(), trainer(max_epochs=epochs)
        engine.fit(model, data, ckpt_path=checkpoint if resumed else None, weights_only=True)
        return engine, model.epochs

    run(2, resumed=False)[0].save_checkpoint(checkpoint)
    assert run(3, resumed=True)[1][2] == run(3, resumed=False)[1][2]


def test_workers_and_processes_read_the_same_images(make_folders: Folders) -> None:
    root = make_folders()
    alone = MaskedImageDataModule(root=root, image_size=4)
    helped = MaskedImageDataModule(root=root, image_size=4, num_workers=2, batch_size=5)
    images = [torch.cat([b["image"] for b in d.test_dataloader()]) for d in (alone, helped)]
    assert torch.equal(*images)


@pytest.mark.parametrize(
    "arguments", [{}, {"manifest": "a.csv", "root": "b"}, {"manifest": "a.csv", "mask_root": "m"}]
)
def test_contradicting_arguments_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        MaskedImageDataModule(**arguments)


def test_wrong_numbers_are_refused(tmp_path: Path) -> None:
    for wrong in ({"batch_size": 0}, {"image_size": 0}, {"channels": 2}, {"bits": 17}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            MaskedImageDataModule(root=tmp_path, **wrong)


def test_an_official_split_without_test_set_can_train(make_folders: Folders, tmp_path: Path) -> None:
    table = MaskedImageDataModule(root=make_folders()).manifest()
    table.loc[table["split"] == "test", "split"] = "train"
    table.to_csv(tmp_path / "list.csv", index=False)
    data = MaskedImageDataModule(manifest=tmp_path / "list.csv")
    data.setup("fit")
    with pytest.raises(DataError, match="the test split is empty"):
        data.setup("test")


def test_modules_are_built_from_yaml(make_folders: Folders) -> None:
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = {
        "class_path": "guidedattn.data.CXRDataModule",
        "init_args": {
            "root": str(make_folders(classes=["No_findings", "Pneumonia", "COVID-19"])),
            "sources": None,
            "label_map": {"No_findings": "well", "Pneumonia": "ill", "COVID-19": "ill"},
            "exclude": ["Pneumonia/00*"],
            "splitter": {
                "class_path": "guidedattn.data.PatientSplit",
                "init_args": {"fractions": [0.6, 0.2, 0.2]},
            },
            "augment": {"class_path": "guidedattn.data.Augment", "init_args": {"scale": [0.9, 1.1]}},
        },
    }
    data = parser.instantiate(parser.parse_object({"data": config})).data
    assert isinstance(data, CXRDataModule)
    assert data.class_names == ("well", "ill")
    assert data.manifest()["split"].value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}
    source = {
        "class_path": "guidedattn.data.FolderSource",
        "init_args": {"root": config["init_args"]["root"]},
    }
    config["init_args"]["sources"] = [source]
    data = parser.instantiate(parser.parse_object({"data": config})).data
    assert len(data.records) == 20


def test_the_real_collection_is_counted_whole(cxr_root: Path) -> None:
    data = CXRDataModule(cxr_root, exclude=["X-Ray-Image-DataSet/Covid-19/*"])
    data.setup("fit")
    report = data.report
    kept = report.as_dict()["kept"]
    assert data.class_names == ("Normal", "Pneumonia", "COVID-19")
    assert kept["CCXRD"] == {"COVID-19": 347, "Normal": 14, "Pneumonia": 38}
    assert kept["ACCXRD"] == {"COVID-19": 26, "Normal": 18}
    assert kept["FCCXRD"] == {"COVID-19": 35, "Normal": 3, "Pneumonia": 2}
    assert kept["X-Ray-Image-DataSet"] == {"Normal": 397, "Pneumonia": 400}
    doubled = 3  # files with two rows that are kept
    rows = (
        sum(report.kept.values())
        + sum(map(len, report.dropped.values()))
        + sum(map(len, report.missing.values()))
    )
    assert sum(report.listed.values()) == 1846
    assert rows + doubled == 1846
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()
    assert "CCXRD" in str(report)
    check_leaks(data.records)


def test_two_ids_for_one_film_make_one_patient(cxr_root: Path) -> None:
    source = next(s for s in find_sources(cxr_root) if s.name == "CCXRD")
    data = CXRDataModule(cxr_root, sources=[source])
    twice = [r for r in data.records if "285" in r.patient.split("|")]
    assert {r.patient for r in twice} == {"285|339"}
    assert len({r.split for r in twice}) == 1


def test_the_papers_split_leaks_patients_by_name(cxr_root: Path) -> None:
    data = CXRDataModule(cxr_root, splitter=ImageSplit())
    data.setup("fit")
    with pytest.raises(DataError, match="patient CCXRD/"):
        check_leaks(data.records)


def test_a_real_batch_has_the_range_of_an_image(cxr_root: Path) -> None:
    data = CXRDataModule(cxr_root, image_size=64, batch_size=64)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (64, 1, 64, 64)
    assert 0 <= batch["image"].min() < 0.1 < 0.9 < batch["image"].max() <= 1
    assert 0.3 < batch["image"].mean() < 0.7
    masked = batch["mask"][batch["has_mask"]]
    assert 0.05 < masked.mean() < 0.5
    assert not batch["mask"][~batch["has_mask"]].any()
