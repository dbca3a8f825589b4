"""A killed run goes on at its last finished epoch, and ends with the bytes of an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from guidedattn.study import train
from guidedattn.study.options import parser
from guidedattn.study.plan import Plan

CONFIG = """
data:
  class_path: PhantomDataModule
  init_args: {train_size: 24, val_size: 6, test_size: 6, image_size: 32, batch_size: 8, augment: {class_path: Augment}}
bodies: {A: {backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}}}
model:
  head: {class_path: MLPHead, init_args: {hidden: [16], dropout: [0.3]}}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-2}}
  lr_scheduler: {class_path: lightning.pytorch.cli.ReduceLROnPlateau, init_args: {monitor: val/loss, patience: 0}}
stage1: {epochs: 4}
stage2: {epochs: 4, patience: 3}
arms: {}
views: 2
"""  # noqa: E501

# Does both runs, and kills itself at a moment: a stage's training batch in an epoch, a half-written file, or
# while predictions are written.
KILLED = """
import os, signal, sys
import torch
from guidedattn.classifier import GuidedClassifier
from guidedattn.features import HeadTraining
from guidedattn.jobs import limit_threads
from guidedattn.study import train
from tests.study.test_resume import do

kind, epoch = sys.argv[1].split()

def killing(cls):
    step = cls.training_step
    def training_step(self, batch, batch_idx):
        if self.current_epoch == int(epoch) and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, batch_idx)
    cls.training_step = training_step

def half(checkpoint, path):
    whole(checkpoint, path)
    if "last" in path.name and len(checkpoint["callbacks"]["KeepEpochs"]["history"]) == int(epoch):
        os.truncate(path, 1000)
        os.kill(os.getpid(), signal.SIGKILL)

whole = torch.save
if kind == "head":
    killing(HeadTraining)
if kind == "body":
    killing(GuidedClassifier)
if kind == "write":
    torch.save = half
if kind == "judge":
    train.save_maps = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
limit_threads(1)
do(sys.argv[2], sys.argv[3:])
"""


def do(folder, words):
    """Stage I and II of the one body, in this process."""
    plan = Plan(parser().parse_args([*words, "--output", str(folder)]), "data")
    for run in [*plan.first, *plan.second(["A"])]:
        if plan.result(run) is None:
            train.carry_out(words, run, plan.folder, {"accelerator": "cpu"})


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(CONFIG)
    Path("killed.py").write_text(KILLED)
    return ["--config", "study.yaml"]


def start(moment, folder, words):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "killed.py", moment, folder, *words]
    return subprocess.run(command, env=environment, timeout=300).returncode


def killed(moment, folder, words):
    assert start(moment, folder, words) == -signal.SIGKILL


def finished(folder, words):
    assert start("never 0", folder, words) == 0


def assert_same(whole, broken):
    names = [f"{run}/{file}" for run in ("stage1-A-seed0", "stage2-A-seed0") for file in ("history.csv", *(
        f"predictions/{split}.csv" for split in ("train", "val", "test")))]  # fmt: skip
    for name in names:
        assert (Path(whole) / "runs" / name).read_bytes() == (Path(broken) / "runs" / name).read_bytes(), name
    for run in ("stage1-A-seed0", "stage2-A-seed0"):
        one, other = (
            torch.load(Path(folder) / "runs" / run / "best.ckpt", weights_only=True)["state_dict"]
            for folder in (whole, broken)
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def resumed(folder, run):
    return json.loads((Path(folder) / "runs" / run / "run.json").read_text())["resumed"]


def test_killed_in_stage_two_it_goes_on_at_its_last_epoch(words):
    finished("whole", words)
    killed("body 2", "broken", words)
    (part,) = Path("broken/runs").glob(".stage2*")
    assert json.loads((part / "progress.json").read_text())["epoch"] == 2
    finished("broken", words)
    assert_same("whole", "broken")
    assert resumed("broken", "stage2-A-seed0") == [2]
    assert resumed("whole", "stage2-A-seed0") == resumed("broken", "stage1-A-seed0") == []
    assert list(pd.read_csv("broken/runs/stage2-A-seed0/history.csv")["epoch"]) == [0, 1, 2, 3]
    assert sorted(path.name for path in Path("broken/runs/stage2-A-seed0").iterdir()) == [
        "best.ckpt", "history.csv", "maps.npz", "predictions", "run.json"
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_wherever_it_hurts_it_ends_with_the_same_bytes(words, workers):
    words += ["--data.init_args.num_workers", workers]
    finished("whole", words)
    for moment in ("head 2", "write 1", "body 1", "write 3", "judge 0"):
        killed(moment, "broken", words)
    finished("broken", words)
    assert_same("whole", "broken")
    assert resumed("broken", "stage1-A-seed0")[0] == 2
    assert resumed("broken", "stage2-A-seed0") == [1, 2]  # and the last time there was nothing to train


def test_what_other_settings_left_half_done_is_begun_anew(words):
    killed("body 2", "broken", words)
    words += ["--stage2.patience", "2"]
    finished("broken", words)
    assert resumed("broken", "stage2-A-seed0") == []


@pytest.mark.slow
def test_a_run_that_stopped_early_does_not_train_again_after_a_kill(words):
    words += ["--stage2.epochs", "30", "--stage2.patience", "2"]
    finished("whole", words)
    epochs = len(pd.read_csv("whole/runs/stage2-A-seed0/history.csv"))
    assert epochs < 30
    killed(f"body {epochs - 1}", "broken", words)
    killed("judge 0", "broken", words)
    finished("broken", words)
    assert_same("whole", "broken")
    assert resumed("broken", "stage2-A-seed0") == [epochs - 1]
