"""One run of the shortcut benchmark: train one recipe on one seed, and measure what it learnt."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import Dataset, Subset

from guidedattn.classifier import GuidedClassifier
from guidedattn.data import ImageDataModule
from guidedattn.data.loaders import evaluation_loader, train_loader
from guidedattn.data.markers import Marker
from guidedattn.data.shortcut import ShortcutDataset, Shown
from guidedattn.errors import ConfigError
from guidedattn.files import whole_file
from guidedattn.jobs import quieten
from guidedattn.shortcut.measure import (
    SHOWN,
    accuracy_outside_swapped,
    accuracy_with_wrong_masks,
    measure,
)

VERSION = 2
"""Part of every run's digest: raise it when runs train or measure otherwise."""

TRAIN_STREAM, VAL_STREAM, TEST_STREAM = range(3)


@dataclass(frozen=True, eq=False)
class Run:
    """What one run trains.

    Attributes:
        recipe: its name in the tables.
        seed: of the initial weights, the order and the markers.
        arguments: of `GuidedClassifier`, as plain values.
        shown: `absent` for the ceiling, which never meets a marker in training.
        variant: which value of a tuned weight this is; empty if it is the chosen or only one.
    """

    recipe: str
    seed: int
    arguments: Mapping[str, Any]
    shown: Shown = "matched"
    variant: str = ""

    @property
    def name(self) -> str:
        """Name of its files."""
        return "-".join(part for part in (self.recipe, self.variant, str(self.seed)) if part)


class Bench:
    """The data, the marker and the training that all recipes share.

    Args:
        data: any single-label data module whose images have masks.
        marker: planted outside the masks.
        probability: how often the marker agrees with the class in training and validation.
        epochs: passes over the training images.
    """

    def __init__(self, data: ImageDataModule, marker: Marker, probability: float, epochs: int) -> None:
        self.data, self.marker = data, marker
        self.probability, self.epochs = probability, epochs

    def plant(self, split: Any, shown: Shown, stream: int, seed: int) -> Dataset[dict[str, Any]]:
        """The images of a split, marked; without exceptions in the test split."""
        probability = 1.0 if split == "test" else self.probability
        images = self.data.make_dataset(split)
        return ShortcutDataset(
            images, self.marker, shown, self.data.num_classes, probability, 3 * seed + stream
        )

    def model(self, run: Run) -> GuidedClassifier:
        """The classifier of a run, as it is before training; the data are set up."""
        names = {"num_classes": self.data.num_classes, "class_names": self.data.class_names}
        return GuidedClassifier(**{**run.arguments, **names})

    def run(self, run: Run) -> dict[str, Any]:
        """Train and measure; plain values, `margins` as lists."""
        started = time.perf_counter()
        pl.seed_everything(run.seed, workers=True, verbose=False)
        data = self.data
        data.setup("fit")
        model = self.model(run)
        trainer = pl.Trainer(
            max_epochs=self.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        train = self.plant("train", run.shown, TRAIN_STREAM, run.seed)
        trainer.fit(model, train_loader(train, data.batch_size, data.num_workers, run.seed))
        model.eval()
        val = self.plant("val", run.shown, VAL_STREAM, run.seed)
        mixed = torch.randperm(len(val)).tolist()  # type: ignore[arg-type]  # or batches of one class
        tests = {shown: self.plant("test", shown, TEST_STREAM, run.seed) for shown in SHOWN}  # type: ignore[arg-type]
        found = measure(model, {shown: self._loader(test) for shown, test in tests.items()})
        found["margins"] = {shown: values.tolist() for shown, values in found["margins"].items()}
        return {
            "recipe": run.recipe,
            "variant": run.variant,
            "seed": run.seed,
            "val_accuracy_outside_swapped": accuracy_outside_swapped(model, self._loader(Subset(val, mixed))),
            **found,
            "wrong_masks": accuracy_with_wrong_masks(model, self._loader(tests["absent"])),
            "seconds": time.perf_counter() - started,
        }

    def _loader(self, dataset: Dataset[dict[str, Any]]) -> Any:
        return evaluation_loader(dataset, self.data.batch_size, self.data.num_workers)


def settings_digest(run: Run, shared: Mapping[str, Any]) -> str:
    """Identifies what a result depends on."""
    text = json.dumps(
        [VERSION, run.recipe, run.seed, run.shown, dict(run.arguments), dict(shared)],
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(run: Run, folder: Path, digest: str) -> dict[str, Any] | None:
    """The result that an earlier call left, if it did.

    Raises:
        ConfigError: the result belongs to other settings.
    """
    path = folder / f"{run.name}.json"
    if not path.exists():
        return None
    result: dict[str, Any] = json.loads(path.read_text())
    if result["settings"] != digest:
        raise ConfigError(f"{path} holds a run of other settings: choose another --output or remove it")
    return result


def carry_out(bench: Bench, run: Run, folder: Path, digest: str) -> None:
    """Run and leave the result in a file, whole or not at all."""
    quieten()
    result = {"settings": digest, **bench.run(run)}
    with whole_file(folder / f"{run.name}.json") as file:
        json.dump(result, file)
