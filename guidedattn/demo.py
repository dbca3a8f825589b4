"""`guidedattn demo`: a plain and a guided classifier on phantoms whose marker betrays the class."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from guidedattn.backbones import TimmBackbone
from guidedattn.backgrounds import ForeignBackground
from guidedattn.callbacks import versions
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli_errors import ShortParser
from guidedattn.component import default
from guidedattn.data import PhantomDataModule
from guidedattn.errors import ConfigError
from guidedattn.figures import save_sheet
from guidedattn.files import whole_file
from guidedattn.gates import BackgroundGate, FeatureGate, MultiplyGate
from guidedattn.heads import LinearHead
from guidedattn.losses import AttentionLoss
from guidedattn.metrics import reliance
from guidedattn.shortcut.measure import measure

Marker = Literal["matched", "absent", "swapped"]
MARKERS: tuple[Marker, ...] = get_args(Marker)


class Demo:
    """Trains two classifiers that differ in nothing but guidance, and tests both.

    Args:
        output: folder for checkpoints, table, picture and config.
        seed: decides phantoms, initial weights and order.
        overwrite: replace the results of an earlier demo in `output`.
        train_size: phantoms to train on.
        test_size: phantoms to test on, with every marker.
        image_size: side in pixels.
        marker_probability: how often the marker agrees with the class in training.
        backbone: timm model, trained from scratch.
        output_stride: pixels per cell of its feature map.
        epochs: passes over the training phantoms.
        batch_size: phantoms per step.
        learning_rate: peak of AdamW's one-cycle schedule.
        gate: direct guidance of the guided classifier.
        input_gate: what happens to its images: half of them get the outside of another in training.
        attention_losses: indirect guidance of the guided classifier.
    """

    def __init__(
        self,
        output: Path = Path("guidedattn_demo"),
        seed: int = 0,
        overwrite: bool = False,
        train_size: int = 1200,
        test_size: int = 600,
        image_size: int = 96,
        marker_probability: float = 0.95,
        backbone: str = "test_resnet",
        output_stride: int = 16,
        epochs: int = 16,
        batch_size: int = 32,
        learning_rate: float = 8e-3,
        gate: FeatureGate = default(MultiplyGate),
        input_gate: FeatureGate = default(
            BackgroundGate, background=default(ForeignBackground), probability=0.5
        ),
        attention_losses: Sequence[AttentionLoss] = (),
    ) -> None:
        if (output / "metrics.json").exists() and not overwrite:
            raise ConfigError(f"{output} holds an earlier demo: choose another --output, or --overwrite true")
        self.output, self.seed = output, seed
        self.epochs, self.learning_rate = epochs, learning_rate
        self.backbone = default(
            TimmBackbone, name=backbone, model_args={"output_stride": output_stride}, channels_last=True
        )
        self.guidance: dict[str, dict[str, Any]] = {
            "plain": {},
            "guided": {"gate": gate, "input_gate": input_gate, "attention_losses": attention_losses},
        }
        self.data = PhantomDataModule(
            train_size=train_size,
            test_size=test_size,
            image_size=image_size,
            batch_size=batch_size,
            seed=seed,
            marker="matched",
            marker_probability=marker_probability,
            augment=v2.RandomHorizontalFlip(),
        )

    def train(self, name: str, progress: Progress) -> GuidedClassifier:
        """Train one of the two, from the same initial weights and on the same batches."""
        pl.seed_everything(self.seed, workers=True, verbose=False)
        steps = self.epochs * len(self.data.train_dataloader())
        model = GuidedClassifier(
            num_classes=self.data.num_classes,
            class_names=self.data.class_names,
            backbone=self.backbone,
            head=default(LinearHead),
            optimizer=default(torch.optim.AdamW, lr=self.learning_rate, weight_decay=0.02),
            lr_scheduler=default(OneCycleLR, max_lr=self.learning_rate, total_steps=steps, pct_start=0.25),
            **self.guidance[name],
        )
        trainer = pl.Trainer(
            max_epochs=self.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_val_batches=0,
            callbacks=[_Bar(progress, f"training the {name} classifier")],
        )
        trainer.fit(model, self.data)
        part = self.output / f".{name}.ckpt.part"
        trainer.save_checkpoint(part, weights_only=True)
        part.replace(self.output / f"{name}.ckpt")
        return model.eval()

    def test(self, model: GuidedClassifier) -> dict[str, Any]:
        """Accuracy and reliance under the three markers; the maps are those with the matching marker."""
        found = measure(model, {marker: self.films(marker) for marker in MARKERS})
        margins = found.pop("margins")
        found["reliance"] = float(reliance(margins["matched"], margins["swapped"], margins["absent"]))
        return found

    def films(self, marker: Marker) -> DataLoader[Any]:
        """The test phantoms, shown with `marker`."""
        return DataLoader(self.data.make_dataset("test", marker), batch_size=100)

    @torch.no_grad()
    def picture(self, models: dict[str, GuidedClassifier]) -> None:
        """Draw each class's first test phantom, its marker swapped, and the map of each prediction."""
        names = self.data.class_names
        batch = next(iter(self.films("swapped")))
        first = {name: model.guide(batch) for name, model in models.items()}
        target = first["plain"].target
        chosen = [int((target == c).nonzero()[0]) for c in range(len(names))]
        maps = {name: g.attention_for(g.logits.argmax(1)) for name, g in first.items()}
        rows, captions = [], []
        for i in chosen:
            image, mask = first["plain"].images[i], first["plain"].mask[i]
            cells: list[tuple[Tensor, Tensor | None, Tensor | None]] = [
                (image, None, None),
                (image, None, mask),
            ]
            said = []
            for name, guidance in first.items():
                cells.append((image, maps[name][i], mask))
                answer = int(guidance.logits[i].argmax())
                said.append(f"says {names[answer]}: {'right' if answer == int(target[i]) else 'wrong'}")
            rows.append(cells)
            captions.append(["marker of another class", "lung mask", *said])
        save_sheet(
            self.output / "comparison.png",
            rows,
            ["input", "mask", "plain: its map", "guided: its map"],
            [names[int(target[i])] for i in chosen],
            captions,
        )

    def run(self) -> dict[str, Any]:
        """Train, test, draw; returns what `metrics.json` holds."""
        self.output.mkdir(parents=True, exist_ok=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns) as progress:
            models = {name: self.train(name, progress) for name in self.guidance}
            task = progress.add_task("testing with the marker matched, absent, swapped", total=len(models))
            results = {}
            for name, model in models.items():
                results[name] = self.test(model)
                progress.advance(task)
        self.picture(models)
        return {"seed": self.seed, **results}


def _table(results: dict[str, Any]) -> Table:
    """The results as people read them."""
    table = Table(title="Accuracy on the same test phantoms, by what their marker says")
    for heading in ("classifier", "matched", "absent", "swapped", "energy in mask", "reliance", "dead maps"):
        table.add_column(heading, justify="left" if heading == "classifier" else "right")
    for name in ("plain", "guided"):
        result = results[name]
        accuracy = [f"{result['accuracy'][marker]:.3f}" for marker in MARKERS]
        others = [f"{result[key]:.2f}" for key in ("energy_in_mask", "reliance", "dead_maps")]
        table.add_row(name, *accuracy, *others)
    return table


class _Bar(pl.Callback):
    """Shows the training in a progress display that others share."""

    def __init__(self, progress: Progress, description: str) -> None:
        self.progress, self.description = progress, description

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Begin the bar."""
        total = int(trainer.num_training_batches) * (trainer.max_epochs or 1)
        self.task = self.progress.add_task(self.description, total=total)

    def on_train_batch_end(self, *args: Any) -> None:  # noqa: ARG002
        """One step more."""
        self.progress.advance(self.task)


def run(words: Sequence[str]) -> None:
    """Run the demo, print its table and leave its results in the output folder."""
    parser = ShortParser(prog="guidedattn demo", description=__doc__)
    parser.add_argument("--config", action="config", help="settings of an earlier demo, to run it again")
    parser.add_class_arguments(Demo)
    settings = parser.parse_args(list(words[1:]))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    arguments = vars(parser.instantiate(settings))
    demo = Demo(**{name: value for name, value in arguments.items() if name != "config"})
    console = Console()
    console.print(
        "Phantoms with lesions in the lungs; in training a marker in the corner agrees with the class "
        f"{demo.data.marker_probability:.0%} of the time. Does a classifier read the lungs or the marker?"
    )
    results = demo.run()
    with whole_file(demo.output / "config.yaml") as file:
        file.write(parser.dump(settings, skip_unset=False))
    with whole_file(demo.output / "versions.json") as file:
        json.dump(versions(), file, indent=2)
    with whole_file(demo.output / "metrics.json") as file:
        json.dump(results, file, indent=2)
    console.print(_table(results))
    console.print(
        "Reliance: how far the answer moves when only the marker changes, in units of its usual spread.\n"
        "Energy in mask says where the map lies, not what the answer depends on: judge by `swapped`.\n"
        f"Pictures, numbers and checkpoints: {demo.output}"
    )
