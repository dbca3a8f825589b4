"""Kill -9 while a cache is built: whole entries only. Two processes at once: one whole cache."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guidedattn.data import MaskedImageDataModule, TensorCache
from guidedattn.mask_cache import fill
from tests.model.test_mask_cache import Bright

REPOSITORY = Path(__file__).resolve().parents[2]
COUNT = 60
BUILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from guidedattn.data import MaskedImageDataModule, TensorCache
from guidedattn.mask_cache import fill
from tests.model.test_mask_cache import Bright

root, cache, go = map(Path, sys.argv[1:])
dataset = MaskedImageDataModule(root=root, image_size=64, cache=cache).make_dataset("train")
print("ready", flush=True)
while not go.exists():
    time.sleep(0.005)
fill(TensorCache(cache), Bright(), dataset, batch_size=1)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for i in range(COUNT // 2):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (300, 300), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def start(root: Path, cache: Path, go: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root), str(cache), str(go)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def entries(cache: Path) -> list[Path]:
    return sorted((cache / "entries").rglob("*.npy"))


def assert_whole(root: Path, cache: Path) -> None:
    """Every entry of the cache equals what a cache built in peace holds."""
    peaceful = cache.with_name("peaceful")
    dataset = MaskedImageDataModule(root=root, image_size=64, cache=peaceful).make_dataset("train")
    stored = fill(TensorCache(peaceful), Bright(), dataset)
    assert [path.name for path in entries(cache)] == [path.name for path in entries(peaceful)]
    for mine, other in zip(entries(cache), entries(peaceful), strict=True):
        assert mine.read_bytes() == other.read_bytes()
    sample = dataset[0]
    dataset.stored_masks = stored
    assert torch.equal(dataset[0]["image"], sample["image"])


def test_a_killed_build_leaves_whole_entries_and_the_next_one_completes_it(
    root: Path, tmp_path: Path
) -> None:
    cache, go = tmp_path / "cache", tmp_path / "go"
    process = start(root, cache, go)
    go.touch()
    deadline = time.monotonic() + 60
    while len(entries(cache)) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = len(entries(cache))
    dataset = MaskedImageDataModule(root=root, image_size=64, cache=cache).make_dataset("train")
    assert left < 2 * len(dataset)
    for path in entries(cache):
        np.load(path)
    provider = Bright()
    fill(TensorCache(cache), provider, dataset)
    assert 0 < provider.seen < len(dataset)  # what the killed process had done is used
    assert_whole(root, cache)


def test_two_processes_build_one_whole_cache(root: Path, tmp_path: Path) -> None:
    cache, go = tmp_path / "cache", tmp_path / "go"
    processes = [start(root, cache, go) for _ in range(2)]
    go.touch()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert not list(cache.rglob("*.part"))
    assert_whole(root, cache)
