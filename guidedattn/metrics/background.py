"""The prediction under other backgrounds: same inside, another outside, the network once more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import rank_zero_warn

from guidedattn.backgrounds import BlurredBackground, ConstantBackground
from guidedattn.guidance import Guidance
from guidedattn.metrics.prediction import Reliance, margin

BACKGROUNDS = ("swapped", "blurred", "removed")


def partners(target: Tensor) -> Tensor:
    """For each sample the last one before it of another class, as `[B]` indices; -1 if there is none.

    Args:
        target: `[B]` class indices, or `[B, K]` multi-hot.

    >>> partners(torch.tensor([0, 0, 1, 1, 0]))
    tensor([-1, -1,  1,  1,  3])
    """
    rows = target.view(len(target), -1)
    order = torch.arange(len(rows), device=target.device)
    fits = (rows[:, None] != rows[None]).any(2) & (order[None] < order[:, None])
    return torch.where(fits, order[None], -1).amax(1)


class BackgroundRobustness(Metric):
    """Accuracy with the outside of the mask swapped, blurred and removed, and reliance on it under swapping.

    The images are I m + J (1 - m): J is the last image of another class before this one, the image blurred,
    or the mean grey of its inside. Three more forward passes per batch, by `guidance.rescore`. Counts the
    images that have a mask; for swapping, those for which another class has been seen. So the batch size does
    not matter; but each process sees only its own images, and with their number swapping finds others. With
    several labels accuracy is over image-label pairs, and there is no reliance. The unit of reliance is the
    spread of the same model's margins on the images as they are.
    """

    right: Tensor
    number: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("right", torch.zeros(len(BACKGROUNDS)), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros(len(BACKGROUNDS)), dist_reduce_fx="sum")
        self.reliance = Reliance()
        self._kept: tuple[Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self, guidance: Guidance) -> None:
        """Add a batch."""
        images, target, mask = guidance.images, guidance.target, guidance.mask
        strangers, has_partner = self._strangers(images, target)
        counted = guidance.has_mask & has_partner
        swapped = images * mask + strangers * (1 - mask)
        own = (BlurredBackground()(images, mask), ConstantBackground()(images, mask))
        for i, changed in enumerate((swapped, *own)):
            logits = guidance.rescore(changed)
            counts = counted if i == 0 else guidance.has_mask
            self.right[i] += (_accuracy(logits, target) * counts).sum()
            self.number[i] += counts.sum()
            if i == 0 and not guidance.multi_label:
                before, after = (margin(scores, target)[counts] for scores in (guidance.logits, logits))
                self.reliance.update(before, after, before)

    def _strangers(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """An image of another class for each, `[B, C, H, W]`, and `[B]` bool: whether there is one.

        The last image and its partner are kept: one of them is what the next image needs, whatever its class.
        """
        pool, labels = images, target
        if self._kept is not None and self._kept[0].shape[1:] == images.shape[1:]:
            pool, labels = torch.cat([self._kept[0], pool]), torch.cat([self._kept[1], labels])
        chosen = partners(labels)
        keep = torch.stack([chosen[-1], chosen.new_tensor(len(pool) - 1)])  # a partner of -1 is the last too
        self._kept = (pool[keep], labels[keep])
        chosen = chosen[-len(images) :]
        return pool[chosen], chosen >= 0

    def compute(self) -> dict[str, Tensor]:
        """`accuracy_outside_<kind>` and `reliance_outside`; NaN where nothing could be measured."""
        if self.number[0] < 0.9 * self.number[1]:
            rank_zero_warn(
                f"the outside could be swapped in {int(self.number[0])} of {int(self.number[1])} images: the "
                "first of the test set are all of one class; accuracy_outside_swapped is about the others"
            )
        shares = self.right / self.number
        values = {f"accuracy_outside_{kind}": shares[i] for i, kind in enumerate(BACKGROUNDS)}
        if self.reliance.update_called:
            values["reliance_outside"] = self.reliance.compute()
        return values

    def reset(self) -> None:
        """Start again."""
        super().reset()
        self.reliance.reset()
        self._kept = None


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """`[B]`: 1 or 0, or the share of an image's labels that are right."""
    if target.ndim == 1:
        return (logits.argmax(1) == target).float()
    return ((logits > 0) == (target > 0.5)).float().mean(1)
