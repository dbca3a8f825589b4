"""What a run leaves behind: its record, and the predictions."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import SaveConfigCallback

from guidedattn.errors import ConfigError
from guidedattn.files import whole_file

PACKAGES = ("guidedattn", "torch", "torchvision", "lightning", "timm", "torchmetrics", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def holds_earlier_run(folder: str | Path) -> ConfigError:
    """The refusal to write into a folder that holds the record of an earlier run."""
    return ConfigError(
        f"{folder} holds an earlier run: choose another folder (trainer.default_root_dir, or the logger's) "
        "or remove it"
    )


class RunRecord(SaveConfigCallback):
    """Leaves `config.yaml` (to run again from), `versions.json` and `manifest.csv` beside a run's logs."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the record, on one process.

        Raises:
            ConfigError: the folder holds the record of an earlier run.
        """
        folder = trainer.log_dir  # asks all processes, so not in `save_config`, which one of them runs
        self.folder = Path(folder or ".")
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            raise holds_earlier_run(self.folder) from error

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Write what the config does not tell: versions, seed and which image went into which split."""
        with whole_file(self.folder / "versions.json") as file:
            json.dump({**versions(), "seed": os.environ.get("PL_GLOBAL_SEED")}, file, indent=2)
        manifest = getattr(getattr(trainer, "datamodule", None), "manifest", None)
        if callable(manifest):
            with whole_file(self.folder / "manifest.csv") as file:
                manifest().to_csv(file, index=False)


class PredictionWriter(BasePredictionWriter):
    """Writes `path, prob_<class>..., predicted, energy_in_mask`, and overlays if asked.

    Args:
        output: the CSV file; it appears when it is complete.
        overlays: folder for one PNG per image, with the map of the predicted class.
    """

    def __init__(self, output: str | Path = "predictions.csv", overlays: str | Path | None = None) -> None:
        super().__init__("batch")
        self.output = Path(output)
        self.overlays = None if overlays is None else Path(overlays)
        self.rows: list[list[Any]] = []

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        prediction: dict[str, Any],
        batch_indices: Sequence[int] | None,  # noqa: ARG002
        batch: dict[str, Any],  # noqa: ARG002
        batch_idx: int,  # noqa: ARG002
        dataloader_idx: int,  # noqa: ARG002
    ) -> None:
        """Keep the rows of a batch and draw its overlays."""
        names = self._class_names(pl_module)
        probabilities = prediction["probabilities"].float().cpu()
        energies = prediction["energy_in_mask"].tolist()
        predicted = probabilities.argmax(1).tolist()
        paths = [str(path) for path in prediction["path"]]
        indices = prediction["index"].tolist()
        for i, path in enumerate(paths):
            energy = "" if energies[i] != energies[i] else f"{energies[i]:.6f}"
            row = [path, *(f"{p:.6f}" for p in probabilities[i].tolist()), names[predicted[i]], energy]
            self.rows.append([indices[i], row])
        if self.overlays is not None:
            from guidedattn.figures import save_overlay  # matplotlib only where pictures are wanted

            for i, path in enumerate(paths):
                save_overlay(
                    self.overlays / f"{indices[i]:05d}-{Path(path).stem}.png",
                    prediction["images"][i], prediction["attention"][i], prediction["mask"][i],
                    title=f"{names[predicted[i]]} {probabilities[i, predicted[i]]:.2f}",
                )  # fmt: skip

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the rows of all processes, in the order of the data, and write the file."""
        rows = self.rows
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(gathered, rows)
            rows = [row for part in gathered for row in part]
        if not trainer.is_global_zero:
            return
        unique = dict(rows)
        header = [
            "path",
            *(f"prob_{name}" for name in self._class_names(pl_module)),
            "predicted",
            "energy_in_mask",
        ]
        with whole_file(self.output) as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(unique[index] for index in sorted(unique))
        self.rows = []

    @staticmethod
    def _class_names(pl_module: pl.LightningModule) -> tuple[str, ...]:
        names = getattr(pl_module, "class_names", ())
        return tuple(str(name) for name in names)
