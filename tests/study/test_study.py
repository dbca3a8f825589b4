"""`guidedattn study`: what it writes, how it survives being killed, what it refuses."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from guidedattn.cli import main
from guidedattn.jobs import LocalProcesses

CONFIG = """
data:
  class_path: PhantomDataModule
  init_args: {train_size: 48, val_size: 12, test_size: 24, image_size: 32, batch_size: 16, augment: {class_path: Augment}}
external:
  elsewhere:
    class_path: PhantomDataModule
    init_args: {train_size: 3, val_size: 3, test_size: 12, image_size: 32, seed: 7}
bodies:
  Net A: {backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}}
  Net B: {backbone: {class_path: TimmBackbone, init_args: {name: test_efficientnet}}, image_size: 40}
model:
  head: {class_path: LinearHead}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 3.0e-3}}
stage1: {epochs: 4}
stage2: {epochs: 6}
stage3: {epochs: 2}
arms:
  both:
    gate: {class_path: MultiplyGate}
    attention_losses: [{class_path: AttentionMining}]
comparators:
  never seen: {class_path: NoPredictions, init_args: {parameters: 40.2}}
  clear to all: {class_path: PythonModel, init_args: {function: constant.clear, image_size: 16}}
views: 2
select: 1
resamples: 100
"""  # noqa: E501
CONSTANT = """
import torch

def clear(images):
    assert images.shape[1:] == (1, 16, 16)
    return torch.tensor([[0.8, 0.1, 0.1]]).repeat(len(images), 1)
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(CONFIG)
    (tmp_path / "constant.py").write_text(CONSTANT)
    return ["study", "--config", "study.yaml", "--output"]


def start(words):
    command = [sys.executable, "-m", "guidedattn", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_when(process, seen, delay):
    """SIGKILL some time after something is seen, unless the study ends before."""
    deadline = time.monotonic() + 240
    while not seen() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(delay)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_killed_four_times_and_resumed_it_ends_with_the_same_bytes(config, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    reference = start([*config, str(whole)])
    chance = random.Random(5)
    runs = broken / "runs"
    moments = [  # while features are computed; during or just after a checkpoint's write; in stage III
        (lambda: any((broken / "features").rglob("*.npy")), chance.uniform(0, 0.05)),
        (lambda: any(runs.glob(".stage2*.part/*.ckpt*")), 0.0),
        (lambda: any(runs.glob(".stage2*.part/last.ckpt")), 0.0),  # an epoch is finished
        (lambda: any(runs.glob(".stage3*.part/progress.json")), chance.uniform(0, 0.3)),
    ]
    for seen, delay in moments:
        kill_when(start([*config, str(broken)]), seen, delay)
        assert not (broken / "report.html").exists()
        for run in runs.glob("stage*"):
            assert json.loads((run / "run.json").read_text())["settings"]  # in place means whole
    last = start([*config, str(broken), "--jobs", "2"])
    for process in (reference, last):
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    names = sorted(path.name for path in (whole / "tables").iterdir())
    assert {"table_2.csv", "table_4.md", "table_5.tex", "table_5_external-elsewhere.csv"} <= set(names)
    assert names == sorted(path.name for path in (broken / "tables").iterdir())
    for name in [*(f"tables/{name}" for name in names), "results.json"]:
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert {run["state"] for run in json.loads((broken / "status.json").read_text()).values()} == {"done"}
    assert not list(runs.rglob(".*"))  # nothing half-made is left
    (second,) = runs.glob("stage2*")
    assert json.loads((second / "run.json").read_text())["resumed"][0] >= 1  # not at the first epoch
    predictions = [path.relative_to(whole) for path in whole.rglob("predictions/*.csv")]
    assert len(predictions) == 4 * 4
    for path in predictions:
        assert (whole / path).read_bytes() == (broken / path).read_bytes(), path

    results = json.loads((broken / "results.json").read_text())
    assert [m["title"] for m in results["models"][2:]] == [
        f"{results['chosen'][0]} {kind}" for kind in ("(S2)", "(S3 both)")
    ]
    assert "| never seen (no predictions given) |" in (broken / "tables/table_4.md").read_text()
    constant = results["comparators"][1]["sets"]["test"]
    assert constant["classes"]["clear"]["accuracy"]["mean"] == 1
    assert constant["confusion"] == [[8, 0, 0]] * 3
    page = (broken / "report.html").read_text()
    assert "nothing lies in more than one split" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # self-contained

    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert main(["study", "--config", str(broken / "config.yaml"), "--output", str(broken)]) == 0
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before
    assert main([*config, str(broken), "--stage2.epochs", "3"]) == 2


@pytest.mark.slow
def test_masks_of_a_network_are_computed_once_for_all_runs(config, tmp_path):
    (tmp_path / "unet.yaml").write_text(
        "model: {mask_provider: {class_path: UNetMask, init_args: {image_size: 32, threshold: 0.0}}}\n"
        "bodies: {A: {backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}}}\n"
        "stage1: {epochs: 1}\nstage2: {epochs: 1}\narms: {}\nexternal: {}\ncomparators: {}\n"
        "data:\n  class_path: PhantomDataModule\n"
        "  init_args: {train_size: 9, val_size: 6, test_size: 6, image_size: 32}\n"
    )
    assert main([*config[:3], "--config", "unet.yaml", "--output", "out"]) == 0
    assert len(list((tmp_path / "out" / "masks").rglob("*.npy"))) == 9 + 6 + 6
    table = (tmp_path / "out" / "tables" / "attention.csv").read_text()
    assert re.search(r"A \(S2\),Testing,", table)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("arms: {both: {gat: {class_path: MultiplyGate}}}", "stage3 Net A both: .*gat"),
        ("bodies: {A: {backbone: {class_path: TimBackbone}}}", "stage1 A: .*TimBackbone"),
        ("select: 0", "select: 1"),
        ("arms: {a b: {}, a/b: {}}", "two runs would be called stage3-Net_A-a_b-seed0"),
    ],
)
def test_a_mistake_shows_before_anything_is_trained(config, tmp_path, capsys, wrong, message):
    (tmp_path / "wrong.yaml").write_text(wrong)
    assert main([*config[:3], "--config", "wrong.yaml", "--output", "out"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_second_call_keeps_out_of_a_folder_in_work(config, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"):
        assert main([*config, "out"]) == 2
    assert "another call works in out" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def tell_gpu(path):
    time.sleep(0.5)  # so that both processes have something to do
    path.write_text(os.environ["CUDA_VISIBLE_DEVICES"])


def fail_or_not(fails):
    if fails:
        raise ValueError("no luck")


def test_gpus_are_dealt_out_and_a_failing_job_stops_no_other(tmp_path):
    paths = [tmp_path / str(i) for i in range(6)]
    jobs = {path.name: [path] for path in paths}
    assert LocalProcesses(2, gpus=["3", "5"]).run(tell_gpu, jobs, tmp_path) == {}
    assert {path.read_text() for path in paths} == {"3", "5"}
    errors = LocalProcesses().run(fail_or_not, {"a": [True], "b": [False], "c": [True]}, tmp_path)
    assert {name: str(error) for name, error in errors.items()} == {"a": "no luck", "c": "no luck"}


SLEEPER = """
import os, pathlib, signal, sys, time
from guidedattn.jobs import LocalProcesses

signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in what they start behind

def sleep(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(120)

if __name__ == "__main__":
    LocalProcesses().run(sleep, {"a": [sys.argv[1]]}, pathlib.Path())
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_job_ends_with_its_parent(tmp_path, sent):
    script, told = tmp_path / "sleeper.py", tmp_path / "pid"
    script.write_text(SLEEPER)
    parent = subprocess.Popen([sys.executable, str(script), str(told)])
    while not (told.exists() and told.read_text()):
        assert parent.poll() is None
        time.sleep(0.05)
    job = int(told.read_text())
    parent.send_signal(sent)
    parent.wait(20)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(job, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the job outlived its parent")
