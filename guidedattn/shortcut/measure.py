"""What a planted marker does to a classifier's answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guidedattn.classifier import GuidedClassifier
from guidedattn.metrics import BackgroundRobustness, DeadMaps, EnergyInMask, margin

Batches = Iterable[Mapping[str, Any]]
SHOWN = ("matched", "absent", "swapped")


def shrunk(mask: Tensor) -> Tensor:
    """The mask `[B, 1, H, W]` without a rim of 2.5 % of the image's width."""
    rim = max(1, round(mask.shape[-1] / 40))
    return 1 - F.max_pool2d(1 - mask, 2 * rim + 1, stride=1, padding=rim)


def moved(mask: Tensor) -> Tensor:
    """The mask, 6 % of the image's height too low."""
    return F.pad(mask, (0, 0, round(mask.shape[-2] / 16), 0))[..., : mask.shape[-2], :]


def halved(mask: Tensor) -> Tensor:
    """The mask without what lies in the image's right half: a lung that a segmenter missed."""
    return F.pad(mask[..., : mask.shape[-1] // 2], (0, mask.shape[-1] - mask.shape[-1] // 2))


MISTAKES = {"shrunk": shrunk, "moved": moved, "halved": halved}
"""What masks are often like."""


@torch.no_grad()
def accuracy_with_wrong_masks(model: GuidedClassifier, batches: Batches) -> dict[str, float]:
    """Accuracy by `MISTAKES`, on images without a marker; that of a model that asks for no mask stays.

    A mask that a mistake empties is none, as everywhere.
    """
    right: dict[str, list[Tensor]] = {name: [] for name in MISTAKES}
    for batch in batches:
        mask, has_mask = model.mask_provider(batch["image"], batch)
        for name, mistake in MISTAKES.items():
            wrong = {**batch, "mask": mistake(mask), "has_mask": has_mask, "mask_provided": True}
            right[name].append(model(batch["image"], wrong).argmax(1) == batch["label"])
    return {name: float(torch.cat(parts).float().mean()) for name, parts in right.items()}


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
