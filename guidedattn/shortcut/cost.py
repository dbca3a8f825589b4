"""What a training step of each recipe costs: all recipes in turn on one batch, in a quiet process."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device

from guidedattn.bench import alternate
from guidedattn.classifier import GuidedClassifier
from guidedattn.data.loaders import train_loader
from guidedattn.shortcut.runs import TRAIN_STREAM, Bench, Run

ROUNDS = 12


def step_costs(bench: Bench, runs: Mapping[str, Run], rounds: int = ROUNDS) -> dict[str, float]:
    """Time of a training step (forward, loss, backward) over that of the plain recipe, by recipe.

    The steps are taken in turn and compared within each round, so that a drift of the machine meets all
    alike; the median over the rounds counts. They are taken on the device that the runs train on, which
    holds the weights of all recipes at once (but the gradients of one).

    Args:
        bench: the data and the marker.
        runs: by recipe, one run of each; `plain` is among them.
        rounds: steps of each recipe.
    """
    pl.seed_everything(0, workers=True, verbose=False)
    bench.data.setup("fit")
    marked = bench.plant("train", "matched", TRAIN_STREAM, 0)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False)  # chooses the device as that of a run does
    device = trainer.strategy.root_device
    batch = move_data_to_device(next(iter(train_loader(marked, bench.data.batch_size, 0, 0))), device)
    steps = {name: _step(bench.model(run).train().to(device), batch) for name, run in runs.items()}
    seconds = alternate(steps, rounds)
    return {
        name: statistics.median(own / plain for own, plain in zip(times, seconds["plain"], strict=True))
        for name, times in seconds.items()
    }


def _step(model: GuidedClassifier, batch: dict[str, Any]) -> Callable[[], None]:
    def step() -> None:
        torch.autograd.backward(model.losses(model.guide(batch))["loss"])
        model.zero_grad()
        if model.device.type != "cpu":  # which waits by itself
            torch.accelerator.synchronize(model.device)

    return step
