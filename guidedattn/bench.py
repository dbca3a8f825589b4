"""`guidedattn bench`: what guidance costs on this machine, as ratios to a plain training step."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from guidedattn.backbones import TimmBackbone
from guidedattn.bench_caches import mask_steps, reading_steps
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli_errors import ShortParser
from guidedattn.errors import ConfigError
from guidedattn.gates import BackgroundGate, ContinueGate, MultiplyGate
from guidedattn.guidance import normalise, resize
from guidedattn.losses import (
    AttentionMining,
    EnergyOutside,
    InputGradientPenalty,
    MaskAlignment,
    OutsidePenalty,
)
from guidedattn.metrics.grad_cam import library_maps

Step = Callable[[], None]


def training_steps(backbone: str, batch_size: int, image_size: int, folder: Path) -> dict[str, Step]:
    """One training step (forward, loss, backward) per kind of guidance, on the same kind of batch."""
    batch = {
        "image": torch.rand(batch_size, 1, image_size, image_size),
        "label": torch.arange(batch_size) % 3,
        "mask": (torch.rand(batch_size, 1, image_size, image_size) > 0.5).float(),
        "has_mask": torch.ones(batch_size, dtype=torch.bool),
    }
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "gate": {"gate": MultiplyGate()},
        "gate at stride 4": {"gate": MultiplyGate(layer=4)},
        "continued inside + alignment": {"input_gate": ContinueGate(), "attention_losses": [MaskAlignment()]},
        "fitted outside": {"input_gate": BackgroundGate()},
        "mask alignment": {"attention_losses": [MaskAlignment()]},
        "energy outside": {"attention_losses": [EnergyOutside()]},
        "outside penalty": {"attention_losses": [OutsidePenalty()]},
        "attention mining": {"attention_losses": [AttentionMining()]},
        "mining, half resolution": {"attention_losses": [AttentionMining(scale=0.5)]},
        "mining, 1/4 of the batch": {"attention_losses": [AttentionMining(fraction=0.25)]},
        "input gradient penalty": {"attention_losses": [InputGradientPenalty()]},
        "gate + mining (stage III)": {"gate": MultiplyGate(), "attention_losses": [AttentionMining()]},
    }
    if 4 not in TimmBackbone(backbone).strides:
        del kinds["gate at stride 4"]
    steps = {name: _step(backbone, guidance, batch) for name, guidance in kinds.items()}
    steps["mining, published way"] = _published_mining(backbone, batch)
    return {**steps, **_maps(backbone, batch), **mask_steps(backbone, batch, folder)}


def _step(backbone: str, guidance: dict[str, Any], batch: dict[str, Tensor]) -> Step:
    torch.manual_seed(0)
    model = GuidedClassifier(backbone=TimmBackbone(backbone), **guidance).train()

    def step() -> None:
        model.zero_grad()
        torch.autograd.backward(model.losses(model.guide(batch))["loss"])

    return step


def _published_mining(backbone: str, batch: dict[str, Tensor]) -> Step:
    """Attention mining as published code does it: the map's weights by a backward pass to the first layer."""
    torch.manual_seed(0)
    model = GuidedClassifier(backbone=TimmBackbone(backbone)).train()
    images, label = batch["image"], batch["label"][:, None]

    def step() -> None:
        model.zero_grad()
        features = model.backbone(images)
        features.retain_grad()
        logits = model.head(features)
        torch.autograd.backward(logits.gather(1, label).sum(), retain_graph=True)
        weights = features.grad.mean((2, 3), keepdim=True)
        model.zero_grad()
        attention = normalise(resize((weights * features).sum(1, keepdim=True).relu(), images))
        masked = images - torch.sigmoid(10 * (attention - 0.5)) * images
        mined = model.head(model.backbone(masked)).softmax(1).gather(1, label).mean()
        torch.autograd.backward(model.criterion(logits, label[:, 0]) + mined)

    return step


def _maps(backbone: str, batch: dict[str, Tensor]) -> dict[str, Step]:
    """Grad-CAM of a batch without training: ours, and pytorch-grad-cam's where that is installed."""
    torch.manual_seed(0)
    model = GuidedClassifier(backbone=TimmBackbone(backbone)).eval()

    def ours() -> None:
        with torch.inference_mode():
            normalise(resize(model.guide(batch).attention.relu(), batch["image"]))

    def theirs() -> None:
        library_maps(model.backbone, model.head, batch["image"], batch["label"])

    found = find_spec("pytorch_grad_cam") is not None
    return {"maps alone": ours, **({"maps alone, pytorch-grad-cam": theirs} if found else {})}


def alternate(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step, the steps taken in turn, so that a drift of the machine meets all alike."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in track(range(rounds), description="timing", transient=True):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def run(words: Sequence[str]) -> None:
    """Time the steps and print medians and their ratios to the plain step, round by round."""
    parser = ShortParser(prog="guidedattn bench", description=__doc__)
    parser.add_argument("--backbone", default="mobilenetv2_100", help="a timm model")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=12, help="steps of each kind, taken in turn")
    parser.add_argument(
        "--reading_rounds", type=int, default=5, help="16-megapixel films to read; 0 for none"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(list(words[1:]))
    if options.rounds < 2 or options.reading_rounds == 1:
        raise ConfigError("bench: quartiles need --rounds 2 and --reading_rounds 2 (or 0) at least")
    torch.set_num_threads(options.threads)
    size = f"{options.batch_size}@{options.image_size}"
    with tempfile.TemporaryDirectory() as folder:
        steps = training_steps(options.backbone, options.batch_size, options.image_size, Path(folder))
        title = f"{options.backbone}, {size}, {options.threads} threads, {options.rounds} rounds"
        Console().print(_table(title, "step", alternate(steps, options.rounds), "plain"))
        if options.reading_rounds:
            reading = alternate(reading_steps(Path(folder), options.image_size), options.reading_rounds)
            title = f"a film of 16 megapixels to {options.image_size} pixels, {options.reading_rounds} rounds"
            Console().print(_table(title, "reading", reading, "PNG, decoded"))


def _table(title: str, what: str, seconds: dict[str, list[float]], base: str) -> Table:
    """Medians, and the ratios to `base` within each round."""
    table = Table(title=title)
    for heading in (what, "median ms", f"of {base}", "quartiles"):
        table.add_column(heading, justify="left" if heading == what else "right")
    for name, times in seconds.items():
        ratios = [time / plain for time, plain in zip(times, seconds[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        median = 1000 * statistics.median(times)
        table.add_row(
            name,
            f"{median:.0f}" if median >= 10 else f"{median:.2f}",
            f"{middle:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
    return table
