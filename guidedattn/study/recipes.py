"""How the stages train unless they are told: the paper's way, or a later one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jsonargparse import Namespace
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from guidedattn.component import default
from guidedattn.study.options import Stage, parser

MODERN = {
    "stage1": {"epochs": 100, "patience": 10, "lr": 1e-3},
    "stage2": {"epochs": 20, "patience": 10, "lr": 3e-4},
    "stage3": {"epochs": 20, "patience": 10, "lr": 1e-4},
}
"""AdamW with a cosine schedule over the stage's epochs; and five views in stage I, three repeats."""


def parse(words: Sequence[str]) -> Namespace:
    """The options of a command line with those of its recipe filled in, wherever nobody gave another.

    The paper's recipe is what the options are by default.
    """
    options = parser().parse_args(list(words))
    if options.recipe == "modern":
        _fill(options, parser().parse_args(list(words), defaults=False))
    return options


def _fill(options: Namespace, given: Namespace) -> None:
    """Set what the modern recipe says in `options`, unless it is among the `given` ones."""
    for stage, preset in MODERN.items():
        own = given.get(stage, {})
        if isinstance(options[stage], Stage):  # nobody gave any of it
            options[stage] = Namespace(asdict(options[stage]))  # type: ignore[no-untyped-call]
        for key in ("epochs", "patience"):
            if key not in own:
                options[stage][key] = preset[key]
        model: dict[str, Any] = {
            "optimizer": default(AdamW, lr=preset["lr"], weight_decay=0.05),
            "lr_scheduler": default(CosineAnnealingLR, T_max=options[stage]["epochs"]),
        }
        named = given.get("model", {})
        silent = {key: value for key, value in model.items() if key not in named}
        options[stage]["model"] = {
            **silent,
            **own.get("model", {}),
        }  # each alone: a stage may say one of them
    for key, value in {"views": 5, "seeds": [0, 1, 2]}.items():
        if key not in given:
            options[key] = value
