"""Attention mining: what the map leaves over must not suffice."""

from __future__ import annotations

import torch
from torch import Tensor

from guidedattn.guidance import Guidance, is_dead, normalise, resize, to_probabilities
from guidedattn.losses.schedules import Schedule
from guidedattn.losses.second_pass import SecondPassLoss


class AttentionMining(SecondPassLoss):
    """L_am of GAIN (Li et al. 2018, Eq. 3 to 5), the paper's indirect supervision.

    The loss is the true class's score on I* = I - T(A) * I, T(A) = sigmoid(omega (A - sigma)), the image
    without what the map shows: the map must cover all that speaks for the class. It never sees the mask, and
    covers a shortcut too. A step costs two plain ones; at `scale` 0.5 or `fraction` 0.25, 1.4.

    Args:
        weight: alpha of Eq. 6, or a schedule.
        sigma: threshold of T on the map: rectified, enlarged, normalised to [0, 1] per image.
        omega: steepness of T.
        fill: value in [0, 1] of erased pixels, I* = I - T(A) * (I - fill); 0 is Eq. 3 as printed (black).
        logit: score by the raw logit instead of the probability; it has no lower bound.
        fraction: share of the batch in the second pass.
        scale: side of the images in the second pass.
    """

    needs_mask = False

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        sigma: float = 0.5,
        omega: float = 10.0,
        fill: float = 0.0,
        logit: bool = False,
        fraction: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__(weight, fraction, scale)
        self.sigma, self.omega, self.fill, self.logit = sigma, omega, fill, logit

    def counts(self, guidance: Guidance) -> Tensor:
        """A dead map erases nothing: the loss would then fight the classifier."""
        return super().counts(guidance) & ~is_dead(guidance.attention.relu())

    def erase(self, guidance: Guidance) -> Tensor:
        """I* `[B, C, H, W]`: the images without what the map shows (Eq. 3 and 4)."""
        attention = normalise(resize(guidance.attention.relu(), guidance.images))
        erased = torch.sigmoid(self.omega * (attention - self.sigma)).to(guidance.images.dtype)
        return guidance.images - erased * (guidance.images - self.fill)

    def compute(self, guidance: Guidance) -> Tensor:
        """The class's score on the erased image, `[B]` (Eq. 5)."""
        logits = self.second_pass(guidance, self.erase(guidance))
        scores = logits if self.logit else to_probabilities(logits, guidance.multi_label)
        return scores.gather(1, guidance.class_index[:, None]).squeeze(1)
