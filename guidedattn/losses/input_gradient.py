"""Right for the right reasons: the prediction must not move with pixels outside the mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from guidedattn.guidance import Guidance, twice_differentiable
from guidedattn.losses.schedules import Schedule
from guidedattn.losses.second_pass import SecondPassLoss


class InputGradientPenalty(SecondPassLoss):
    """RRR (Ross et al. 2017): squared derivative of the log-probabilities by the pixels outside the mask.

    It differentiates through the whole network twice, at five times the cost of a plain step: use
    `fraction`, `scale` or `EveryNthStep`. It bounds what an infinitely small change outside can do, and no
    more: a marker is a large one.

    Args:
        weight: number or schedule. The penalty is a sum over pixels, as published: it falls with 1 / (H W).
        fraction: share of the batch that takes part.
        scale: side of the images in this pass.
    """

    per_class = False

    def __init__(self, weight: float | Schedule = 1.0, fraction: float = 1.0, scale: float = 1.0) -> None:
        super().__init__(weight, fraction, scale)

    def compute(self, guidance: Guidance) -> Tensor:
        """Sum over pixels and channels of ((1 - m) d/dx sum_k log p_k)^2, `[B]`."""
        differentiable = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad(), twice_differentiable():
            images = self.reduced(guidance.images.detach().clone()).requires_grad_()
            logits = guidance.rescore(images)
            surprise = (
                logsigmoid(logits) + logsigmoid(-logits)
                if guidance.multi_label
                else logits.log_softmax(dim=1)
            )
            (gradient,) = torch.autograd.grad(surprise.sum(), images, create_graph=differentiable)
        outside = 1 - self.reduced(guidance.mask)
        return self.padded(((outside * gradient) ** 2).sum((1, 2, 3)), len(guidance.images))
