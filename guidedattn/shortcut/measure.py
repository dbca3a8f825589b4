"""What a planted marker does to a classifier's answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from guidedattn.classifier import GuidedClassifier
from guidedattn.metrics import BackgroundRobustness, DeadMaps, EnergyInMask, margin

Batches = Iterable[Mapping[str, Any]]
SHOWN = ("matched", "absent", "swapped")


@torch.no_grad()
def measure(model: GuidedClassifier, loaders: Mapping[str, Batches]) -> dict[str, Any]:
    """Answers under each marker; the maps are those with the matching one.

    Args:
        model: in eval mode.
        loaders: the same images in the same order, under the keys of `SHOWN`.

    Returns:
        `accuracy` and `margins` (`[N]`, see `guidedattn.metrics.margin`) per key, `energy_in_mask` and
        `dead_maps`.
    """
    margins: dict[str, Tensor] = {}
    energy, dead = EnergyInMask(), DeadMaps()
    for shown, batches in loaders.items():
        parts = []
        for batch in batches:
            guidance = model.guide(batch)
            parts.append(margin(guidance.logits, guidance.target))
            if shown == "matched":
                energy.update(guidance.attention, guidance.mask, guidance.has_mask)
                dead.update(guidance.attention)
        margins[shown] = torch.cat(parts)
    return {
        "accuracy": {shown: float((values > 0).float().mean()) for shown, values in margins.items()},
        "margins": margins,
        "energy_in_mask": float(energy.compute()),
        "dead_maps": float(dead.compute()),
    }


@torch.no_grad()
def accuracy_outside_swapped(model: GuidedClassifier, batches: Batches) -> float:
    """Accuracy with the outside of an image of another class.

    It needs no knowledge of any marker, so weights may be tuned by it on validation images.
    """
    robustness = BackgroundRobustness()
    for batch in batches:
        robustness.update(model.guide(batch))
    return float(robustness.compute()["accuracy_outside_swapped"])
