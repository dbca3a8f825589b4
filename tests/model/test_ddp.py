"""Two processes equal one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from tests.model.ddp_script import gradients, joined_batch, step

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def test_gradients_equal_those_of_one_process_on_the_joined_batch(tmp_path):
    """The processes differ in how many of their images have a mask."""
    script, port = str(ROOT / "tests" / "model" / "ddp_script.py"), free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), port, str(tmp_path / "gradients.pt")],
            env=ENVIRONMENT,
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    single = step()
    torch.autograd.backward(single(joined_batch()))
    assert torch.allclose(torch.load(tmp_path / "gradients.pt"), gradients(single), atol=1e-6)


def test_stage_three_on_two_processes_tests_as_on_one(tmp_path):
    common = [
        *("--config", str(ROOT / "examples" / "configs" / "stage3.yaml"), "--data.train_size", "24"),
        *("--data.val_size", "12", "--data.test_size", "13", "--data.image_size", "64"),
        *("--data.batch_size", "4", "--model.backbone.name", "test_resnet", "--trainer.accelerator", "cpu"),
        *("--trainer.enable_progress_bar", "false"),
    ]
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]

    def run(*words):
        command = [sys.executable, "-m", "guidedattn", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr[-3000:]

    run("fit", *common, *two, "--trainer.max_epochs", "1")
    checkpoint = str(next(tmp_path.glob("lightning_logs/version_0/checkpoints/last.ckpt")))
    results = []
    for devices, output in (([], "one.csv"), (two, "two.csv")):
        logs = ["--trainer.default_root_dir", str(tmp_path / output.removesuffix(".csv"))]
        run("test", *common, *devices, *logs, "--ckpt_path", checkpoint)
        run("predict", *common, *devices, "--ckpt_path", checkpoint, "--output", output)
        table = pd.read_csv(next((tmp_path / output.removesuffix(".csv")).glob("**/metrics.csv")))
        results.append(table.filter(like="test/").iloc[-1])
    assert len(results[0]) >= 9
    pd.testing.assert_series_equal(*results, atol=1e-6, check_names=False)
    predictions = [pd.read_csv(tmp_path / name) for name in ("one.csv", "two.csv")]
    assert len(predictions[0]) == 13
    pd.testing.assert_frame_equal(*predictions, atol=2e-6)
