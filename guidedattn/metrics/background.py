"""The prediction under other backgrounds: same inside, another outside, the network once more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from guidedattn.backgrounds import Background, BlurredBackground, ConstantBackground
from guidedattn.guidance import Guidance
from guidedattn.metrics.prediction import Reliance, margin

BACKGROUNDS = ("swapped", "blurred", "removed")
_OWN: dict[str, Background] = {"blurred": BlurredBackground(), "removed": ConstantBackground()}


def partners(target: Tensor) -> Tensor:
    """For each sample of a batch the next one of another class, as `[B]` indices; itself if all are alike.

    Args:
        target: `[B]` class indices, or `[B, K]` multi-hot.

    >>> partners(torch.tensor([0, 0, 1, 1]))
    tensor([2, 2, 0, 0])
    """
    rows = target.view(len(target), -1)
    differs = (rows[:, None] != rows[None]).any(2)
    order = torch.arange(len(rows), device=target.device)
    distance = (order[None] - order[:, None]) % len(rows)
    return torch.where(differs, distance, torch.where(distance == 0, len(rows), 2 * len(rows))).argmin(1)


def with_background(guidance: Guidance, kind: str) -> Tensor:
    """The images `[B, C, H, W]` with what lies outside the mask replaced: I m + J (1 - m).

    Args:
        guidance: of a batch.
        kind: `swapped`, J is another image of the batch, of another class if there is one; `blurred`, J is
            the image, blurred; `removed`, J is the mean grey of the image's inside.
    """
    images, mask = guidance.images, guidance.mask
    if kind == "swapped":
        return images * mask + images[partners(guidance.target)] * (1 - mask)
    changed: Tensor = _OWN[kind](images, mask)
    return changed


class BackgroundRobustness(Metric):
    """Accuracy with the outside swapped, blurred and removed, and reliance on it under swapping.

    Three more forward passes per batch, by `guidance.rescore`. Counts the images that have a mask; for
    swapping, those with an image of another class in their batch. With several labels accuracy is over
    image-label pairs, and there is no reliance. The unit of reliance is the spread of the same model's
    margins on the images as they are.
    """

    right: Tensor
    number: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("right", torch.zeros(len(BACKGROUNDS)), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros(len(BACKGROUNDS)), dist_reduce_fx="sum")
        self.reliance = Reliance()

    @torch.no_grad()
    def update(self, guidance: Guidance) -> None:
        """Add a batch."""
        partner = partners(guidance.target)
        has_partner = partner != torch.arange(len(partner), device=partner.device)
        for i, kind in enumerate(BACKGROUNDS):
            counted = guidance.has_mask & has_partner if kind == "swapped" else guidance.has_mask
            logits = guidance.rescore(with_background(guidance, kind))
            self.right[i] += (_accuracy(logits, guidance.target) * counted).sum()
            self.number[i] += counted.sum()
            if kind == "swapped" and not guidance.multi_label:
                now, then = margin(logits, guidance.target), margin(guidance.logits, guidance.target)
                self.reliance.update(then[counted], now[counted], then[counted])

    def compute(self) -> dict[str, Tensor]:
        """`accuracy_outside_<kind>` and `reliance_outside`; NaN where nothing could be measured."""
        shares = self.right / self.number
        values = {f"accuracy_outside_{kind}": shares[i] for i, kind in enumerate(BACKGROUNDS)}
        if self.reliance.update_called:
            values["reliance_outside"] = self.reliance.compute()
        return values

    def reset(self) -> None:
        """Start again."""
        super().reset()
        self.reliance.reset()


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """`[B]`: 1 or 0, or the share of an image's labels that are right."""
    if target.ndim == 1:
        return (logits.argmax(1) == target).float()
    return ((logits > 0) == (target > 0.5)).float().mean(1)
