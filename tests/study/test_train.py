"""The parts of one run of the study."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch

from guidedattn.data import Augment, PhantomDataModule
from guidedattn.errors import ConfigError
from guidedattn.features import FeatureCache
from guidedattn.mask_cache import MaskCache
from guidedattn.study import train
from guidedattn.study.options import parser
from guidedattn.study.plan import Plan
from guidedattn.study.resume import KeepEpochs
from tests.conftest import tiny_classifier


@pytest.mark.parametrize("workers", [0, 2])
def test_the_views_of_an_image_differ(tmp_path, workers):
    data = PhantomDataModule(
        train_size=9, val_size=3, test_size=3, image_size=32, batch_size=4, num_workers=workers,
        augment=Augment(),
    )  # fmt: skip
    data.setup("fit")
    loaders = []
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit=lambda model, train, val, **options: loaders.append(train),
    )
    run = SimpleNamespace(views=3)
    model = tiny_classifier(freeze_backbone=True)
    train._train_head(model, data, run, trainer, FeatureCache(tmp_path), None)
    first, second, third = loaders[0].dataset.views
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


CONFIG = """
data:
  class_path: PhantomDataModule
  init_args: {train_size: 9, val_size: 3, test_size: 3, image_size: 32, batch_size: 3}
bodies: {A: {backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}}}
model:
  head: {class_path: LinearHead}
  mask_provider: {class_path: guidedattn.masks.EllipseMask}
  lr_scheduler: {class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/loss}}
stage1: {epochs: 3}
stage2: {epochs: 1}
arms: {}
"""
WORDS = ["--config", "study.yaml", "--output", "out"]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(CONFIG)
    return Plan(parser().parse_args(WORDS), "data")


def test_what_other_processes_are_sent_can_be_pickled(plan, monkeypatch):
    sent = []

    def fit(trainer, model, data, **options):
        sent.append(pickle.dumps((trainer, model, data)))
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    run = replace(plan.second(["A"])[0], start=None)
    with pytest.raises(KeyboardInterrupt):
        train.carry_out(WORDS, run, plan.folder, {"accelerator": "cpu"})
    trainer, _, _ = pickle.loads(sent[0])
    assert any(isinstance(callback, MaskCache) for callback in trainer.callbacks)


def test_a_run_killed_before_it_takes_its_place_takes_it_and_leaves_nothing(plan, monkeypatch):
    (run,), part = plan.first, plan.folder / ".stage1-A-seed0.part"

    def killed(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_judge", lambda *arguments: {})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            train.carry_out(WORDS, run, plan.folder, {"accelerator": "cpu"})
    made = (part / "best.ckpt").stat().st_mtime_ns
    (plan.folder / run.name).mkdir()  # and somebody's folder, of no finished run
    train.carry_out(WORDS, run, plan.folder, {"accelerator": "cpu"})
    assert (plan.folder / run.name / "best.ckpt").stat().st_mtime_ns == made
    assert not part.exists()
    left = sorted(path.name for path in (plan.folder / run.name).iterdir())
    assert left == ["best.ckpt", "history.csv", "run.json"]
    assert json.loads((plan.folder / run.name / "run.json").read_text())["resumed"] == []


def test_training_may_end_within_an_epoch(plan, monkeypatch):
    (run,) = plan.first
    monkeypatch.setattr(train, "_judge", lambda *arguments: {})
    train.carry_out(WORDS, run, plan.folder, {"accelerator": "cpu", "max_steps": 5})  # of three an epoch
    assert list(pd.read_csv(plan.folder / run.name / "history.csv")["epoch"]) == [0, 1]


def test_epochs_without_validation_are_refused(plan):
    with pytest.raises(ConfigError, match="check_val_every_n_epoch must be 1"):
        train.carry_out(WORDS, plan.first[0], plan.folder, {"check_val_every_n_epoch": 2})


def test_a_schedule_that_watches_what_nobody_measures_is_left_to_lightning(tmp_path):
    stepped = []
    scheduler = SimpleNamespace(step=stepped.append)
    configs = [
        SimpleNamespace(reduce_on_plateau=True, interval="epoch", monitor=name, scheduler=scheduler)
        for name in ("val/los", "val/loss")
    ]
    keep = KeepEpochs(tmp_path, "")
    keep.history = [{"epoch": 0, "val/loss": 0.5}]
    trainer = SimpleNamespace(lr_scheduler_configs=configs, is_global_zero=False)
    keep.on_train_start(trainer, None)
    assert stepped == [0.5]
