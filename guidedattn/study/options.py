"""The options of `guidedattn study`, and what other processes build from them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from guidedattn.classifier import GuidedClassifier
from guidedattn.cli_errors import ShortParser
from guidedattn.component import default
from guidedattn.data import ImageDataModule
from guidedattn.gates import ContinueGate, MultiplyGate
from guidedattn.launchers import add_job_options
from guidedattn.losses import AttentionMining, MaskAlignment
from guidedattn.study import onnx_model as _onnx  # noqa: F401  short class names resolve for what is imported
from guidedattn.study.comparators import Comparator

DESCRIPTION = """The paper's study: a frozen body's head (stage I), the best bodies (II), and guided (III).

A call with the same --output goes on where the last one stopped, however it stopped."""

ARMS: dict[str, dict[str, Any]] = {
    "gate": {"gate": default(MultiplyGate)},
    "mining": {"attention_losses": [default(AttentionMining)]},
    "both": {"gate": default(MultiplyGate), "attention_losses": [default(AttentionMining)]},
    "recommended": {
        "input_gate": default(ContinueGate),
        "attention_losses": [default(MaskAlignment, weight=2.0)],
    },
    "crop": {"input_gate": default(MultiplyGate)},
}
"""Stage III: direct guidance, indirect, the paper's, ours, and the lungs alone (its introduction)."""


@dataclass(frozen=True)
class Stage:
    """How the runs of a stage train.

    Attributes:
        epochs: at most.
        patience: epochs without a better validation loss before it stops.
        model: arguments of `GuidedClassifier` that differ in this stage, such as the optimizer.
    """

    epochs: int = 200
    patience: int = 10
    model: dict = field(default_factory=dict)  # type: ignore[type-arg]  # with them, jsonargparse adds defaults


def parser() -> ShortParser:
    """The options of the command."""
    options = ShortParser(prog="guidedattn study", description=DESCRIPTION)
    options.add_argument("--config", action="config", help="a YAML file of these options; may come twice")
    options.add_argument("--data", type=ImageDataModule, required=True, help="any single-label data module")
    options.add_argument(
        "--external", type=dict[str, ImageDataModule], default={}, help="by name, test sets judged apart"
    )
    options.add_class_arguments(GuidedClassifier, "model", instantiate=False)
    options.add_argument(
        "--bodies",
        type=dict,
        required=True,
        help="by name, arguments of GuidedClassifier (backbone, ...), and `image_size` where it differs",
    )
    options.add_argument(
        "--recipe",
        type=Literal["paper", "modern"],
        default="paper",
        help="optimizer, schedule and epochs, where `model` and the stages are silent",
    )
    options.add_argument("--stage1", type=Stage, default=Stage(), help="the head on a frozen body")
    options.add_argument("--stage2", type=Stage, default=Stage(), help="body and head")
    options.add_argument("--stage3", type=Stage, default=Stage(), help="with guidance")
    options.add_argument("--arms", type=dict, default=ARMS, help="by name, arguments that guide stage III")
    options.add_argument(
        "--comparators", type=dict[str, Comparator], default={}, help="by name, models from elsewhere"
    )
    options.add_argument("--select", type=int, default=4, help="bodies that go on, by validation accuracy")
    options.add_argument("--views", type=int, default=1, help="augmented views of stage I's cached features")
    options.add_argument("--seeds", type=list[int], default=[0], help="repeats: one run of everything each")
    options.add_argument("--trainer", type=dict, default={}, help="more arguments of Lightning's Trainer")
    options.add_argument("--resamples", type=int, default=1000, help="bootstrap draws of an interval")
    add_job_options(options, "runs", "guidedattn_study")
    return options


def build_data(
    words: Sequence[str], image_size: int | None = None
) -> tuple[ImageDataModule, dict[str, ImageDataModule]]:
    """Fresh data modules of a command line: the study's own, and the external test sets.

    Args:
        words: the command line.
        image_size: in place of the config's.
    """
    options = parser().parse_args(list(words))
    if image_size is not None:
        for module in (options.data, *options.external.values()):
            module.init_args.image_size = image_size
    del options["model"]  # each run builds its own
    built = parser().instantiate(options)
    return built.data, dict(built.external)


def build_comparators(words: Sequence[str]) -> dict[str, Comparator]:
    """The models from elsewhere that a command line names."""
    options = parser().parse_args(list(words))
    del options["model"]
    return dict(parser().instantiate(options).comparators)


def build_set(words: Sequence[str], key: str, image_size: int | None) -> tuple[ImageDataModule, str]:
    """The data module of a set, ready and without augmentation, and the split to judge.

    Args:
        words: the command line.
        key: `train`, `val`, `test` or the name of an external set.
        image_size: in place of the config's.
    """
    data, external = build_data(words, image_size)
    module, split = (external[key], "test") if key in external else (data, key)
    module.augment, module.predict_split = None, split  # type: ignore[assignment]
    module.setup("predict")
    return module, split
