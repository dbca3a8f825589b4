"""Two processes equal one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from guidedattn.cli import main
from tests.model.ddp_script import gradients, joined_batch, step

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


@pytest.mark.parametrize("kind", ["group", "frozen", "inner layer"])
def test_gradients_equal_those_of_one_process_on_the_joined_batch(tmp_path, kind):
    """The processes differ in how many of their images have a mask and how many a dead map."""
    script, port = str(ROOT / "tests" / "model" / "ddp_script.py"), free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), port, str(tmp_path / "gradients.pt"), kind],
            env=ENVIRONMENT,
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    single = step(kind)
    batch = joined_batch()
    dead = single.model.guide(batch).attention.flatten(1).amax(1) == 0
    assert dead.tolist() == (batch["label"] == 0).tolist()
    torch.autograd.backward(single(batch))
    assert gradients(single).abs().max() > 1e-3
    assert torch.allclose(torch.load(tmp_path / "gradients.pt"), gradients(single), atol=1e-6)


@pytest.mark.slow
def test_stage_three_on_two_processes_tests_and_predicts_as_on_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = [
        *("--config", str(ROOT / "examples" / "configs" / "stage3.yaml"), "--trainer.accelerator", "cpu"),
        *("--data.train_size", "17", "--data.val_size", "9", "--data.test_size", "13"),
        *("--data.image_size", "64", "--data.batch_size", "4", "--model.backbone.name", "test_resnet"),
        *("--model.robustness", "true"),
        *("--model.attention_losses+=MaskAlignment", "--trainer.enable_progress_bar", "false"),
    ]

    def on_two(*words):
        command = [sys.executable, "-m", "guidedattn", *words, *common]
        command += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    def on_one(*words):
        assert main([*words, *common]) == 0

    on_two("fit", "--trainer.max_epochs", "1", "--trainer.default_root_dir", "fit")
    (runs,) = Path("fit/lightning_logs").iterdir()  # one folder, not one per process
    assert {"config.yaml", "versions.json", "manifest.csv", "metrics.csv"} <= {p.name for p in runs.iterdir()}
    checkpoint = ["--ckpt_path", str(runs / "checkpoints" / "last.ckpt")]
    metrics, predictions = [], []
    for run, name in ((on_one, "one"), (on_two, "two")):
        run("test", *checkpoint, "--trainer.default_root_dir", name)
        run("predict", *checkpoint, "--output", f"{name}.csv", "--overlays", f"{name}-overlays")
        (table,) = Path(name).rglob("metrics.csv")
        metrics.append(pd.read_csv(table).filter(like="test/").iloc[-1].sort_index())
        predictions.append(pd.read_csv(f"{name}.csv"))
        assert len(list(Path(f"{name}-overlays").iterdir())) == 13
    assert {"test/accuracy", "test/energy_in_mask", "test/loss_attention_mining"} <= set(metrics[0].index)
    assert {"test/pointing_game", "test/accuracy_outside_blurred"} <= set(metrics[0].index)
    by_neighbours = ["test/accuracy_outside_swapped", "test/reliance_outside"]  # each process has its own
    metrics = [found.drop(by_neighbours) for found in metrics]
    pd.testing.assert_series_equal(*metrics, rtol=0, atol=1e-6, check_names=False)
    assert len(predictions[0]) == 13
    pd.testing.assert_frame_equal(*predictions, rtol=0, atol=2e-6)  # the file has six digits
