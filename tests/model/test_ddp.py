"""Two processes equal one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

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
