"""Losses on the prediction itself: it must not follow what lies outside the mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from guidedattn.backgrounds import Background, ForeignBackground
from guidedattn.component import build, default
from guidedattn.guidance import Guidance
from guidedattn.losses.schedules import Schedule
from guidedattn.losses.second_pass import SecondPassLoss


class _OtherOutside(SecondPassLoss):
    """Scores the images once more with another outside; reads no map, so none is computed.

    Args:
        weight: number or schedule.
        background: what to put outside the mask.
        fraction: share of the batch in the second pass.
        scale: side of the images in the second pass.
    """

    per_class = False

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        background: Background = default(ForeignBackground),
        fraction: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(weight, fraction, scale)
        self.background = build(background, Background)

    def look(self, guidance: Guidance) -> Tensor:
        """Logits `[B, K]` of the images with another outside."""
        return self.second_pass(guidance, self.background(guidance.images, guidance.mask))


class BackgroundConsistency(_OtherOutside):
    """KL(p(I) || p(I m + J (1 - m))): the prediction stays what it is when the outside changes.

    Several labels: the mean of their binary divergences. Costs a second forward and backward pass.
    """

    def compute(self, guidance: Guidance) -> Tensor:
        """The divergence, `[B]`."""
        first = _log_probabilities(guidance.logits, guidance)
        second = _log_probabilities(self.look(guidance), guidance)
        return F.kl_div(second, first, reduction="none", log_target=True).sum(-1).flatten(1).mean(1)


class ForegroundOnly(_OtherOutside):
    """Cross-entropy of the images with another outside: what is inside the mask must suffice.

    With a foreign outside it says more than `BackgroundConsistency`: a marker of another class's image now
    contradicts the label. Several labels: the mean of their binary cross-entropies. Costs a second forward
    and backward pass.
    """

    def compute(self, guidance: Guidance) -> Tensor:
        """The cross-entropy, `[B]`."""
        logits = self.look(guidance)
        if guidance.multi_label:
            target = guidance.target.to(logits.dtype)
            return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        return F.cross_entropy(logits, guidance.target, reduction="none")


def _log_probabilities(logits: Tensor, guidance: Guidance) -> Tensor:
    """`[B, 1, K]`, or with several labels `[B, K, 2]`: log-probabilities over the last dimension."""
    if guidance.multi_label:
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)], -1)
    return logits.log_softmax(1)[:, None]
