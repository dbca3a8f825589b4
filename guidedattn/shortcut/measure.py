"""What a planted marker does to a classifier's answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


def _after(mistake: Callable[[Tensor], Tensor]) -> Any:
    """A hook on a mask provider, whose output is a mask and `has_mask`; an empty mask is none."""

    def err(module: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        wrong = mistake(output[0])
        return wrong, output[1] & (wrong.amax((1, 2, 3)) > 0)

    return err


@torch.no_grad()
def accuracy_with_wrong_masks(model: GuidedClassifier, batches: Batches) -> dict[str, float]:
    """Accuracy by `MISTAKES`, on images without a marker; that of a model that asks for no mask stays."""
    found = {}
    for name, mistake in MISTAKES.items():
        handle = model.mask_provider.register_forward_hook(_after(mistake))
        try:
            right = [model(batch["image"], batch).argmax(1) == batch["label"] for batch in batches]
        finally:
            handle.remove()
        found[name] = float(torch.cat(right).float().mean())
    return found


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
