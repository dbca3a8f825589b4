"""What lets a run go on at its last finished epoch: all that training is then, whole, in one file."""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from guidedattn.checkpoints import read_checkpoint
from guidedattn.errors import CheckpointError
from guidedattn.files import whole_file, whole_path

BEST, LAST, PROGRESS = "best.ckpt", "last.ckpt", "progress.json"


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place. Lightning writes it in the system's folder for temporary files.

    Moving it from there is copying where the two are on different disks, and a copy may be cut short.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ARG002
        """Write it, whole or not at all."""
        with whole_path(Path(path)) as part:
            torch.save(checkpoint, part)


class RandomState(pl.Callback):
    """Keeps the states of Python's, NumPy's and torch's generators (CUDA's too) in checkpoints, by process.

    Lightning keeps none. Those of other devices (MPS, XPU) are not kept.
    """

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The states of Python, NumPy, torch and its GPUs, as plain values."""
        numpy = np.random.get_state(legacy=False)
        own: dict[str, Any] = {
            "python": random.getstate(),
            "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        states = [own]
        if dist.is_available() and dist.is_initialized():
            states *= dist.get_world_size()
            dist.all_gather_object(states, own)
        return {"states": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training begins."""
        self.kept = state_dict["states"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Restore this process's states: before the loader draws the seed of its workers."""
        if trainer.global_rank < len(self.kept):
            state = self.kept[trainer.global_rank]
            random.setstate(state["python"])
            numpy = state["numpy"]
            key = np.array(numpy["state"]["key"], np.uint32)
            np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
            torch.set_rng_state(state["torch"])
            if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["cuda"])


class KeepEpochs(Checkpoint):
    """After every epoch leaves the best epoch's weights in `best.ckpt`, and in `last.ckpt` all there is.

    ModelCheckpoint would do, but it finds the best again by its absolute path (a folder that was moved has
    two), and no logger's file is as old as the checkpoint that it belongs to.

    Args:
        folder: of the run in work.
        settings: the run's digest.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.since = time.time()
        self.best, self.stopped = math.inf, False
        self.history: list[dict[str, Any]] = []
        self.resumed: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        """What the run is, and how far."""
        kept = {key: getattr(self, key) for key in ("settings", "best", "stopped", "history", "resumed")}
        return {**kept, "seconds": time.time() - self.since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.stopped = state_dict["best"], state_dict["stopped"]
        self.history = list(state_dict["history"])
        self.resumed = [*state_dict["resumed"], len(self.history)]
        self.since -= state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """On resuming: what Lightning does after it saved, and what it forgets."""
        if self.history:
            trainer.should_stop = self.stopped
            for config in trainer.lr_scheduler_configs:
                measured = config.monitor in self.history[-1]  # if not, Lightning says so at the epoch's end
                if config.reduce_on_plateau and config.interval == "epoch" and measured:
                    config.scheduler.step(self.history[-1][str(config.monitor)])
        self._tell(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Keep the epoch; early stopping has judged it before."""
        values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self.history.append({"epoch": trainer.current_epoch, **values})
        self.stopped = trainer.should_stop
        # One answer for all processes. In an epoch that was cut short (max_steps) it is the last one's, which
        # is not below the best.
        loss = trainer.strategy.broadcast(values.get("val/loss", math.inf))
        if loss < self.best:
            self.best = loss
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        trainer.save_checkpoint(self.folder / LAST)
        self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            told = {"epoch": len(self.history), "of": trainer.max_epochs, "resumed": self.resumed}
            with whole_file(self.folder / PROGRESS) as file:
                json.dump(told, file)


def kept(folder: Path) -> Mapping[str, Any]:
    """The state of `KeepEpochs` in a folder.

    Raises:
        CheckpointError: no epoch was finished, or the file cannot be read.
    """
    state: Mapping[str, Any] = read_checkpoint(folder / LAST).get("callbacks", {}).get("KeepEpochs", {})
    return state


def prepare(folder: Path, settings: str) -> Path | None:
    """Make the folder of a run in work ready; returns the checkpoint to go on from, None to begin.

    What lies there goes, unless it is of a run of these settings that finished an epoch.
    """
    try:
        known = kept(folder).get("settings") == settings
    except CheckpointError:
        known = False
    if not known:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return None
    for half in folder.rglob(".*.part"):
        half.unlink()
    return folder / LAST
