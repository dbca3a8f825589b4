"""What is measured on the prediction when only the outside changes: the proof that guidance worked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from guidedattn.guidance import EPS


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """True logit minus the largest other one, `[B]`; positive where the prediction is right.

    >>> margin(torch.tensor([[3.0, 1.0, 2.5]]), torch.tensor([0]))
    tensor([0.5000])
    """
    true = logits.gather(1, target[:, None]).squeeze(1)
    others = logits.scatter(1, target[:, None], -torch.inf)
    return true - others.amax(1)


def reliance(matched: Tensor, swapped: Tensor, reference: Tensor) -> Tensor:
    """How much the prediction hangs on what lies outside: mean |shift of the margin| in its own units.

    Args:
        matched: `[N]` margins with the marker that agrees with the class.
        swapped: `[N]` margins of the same images with another class's marker.
        reference: `[N]` margins whose standard deviation is the unit: those of a model trained without the
            marker or, where there is none, the same model's without the marker.

    >>> reliance(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 3.0]))
    tensor(1.4142)
    """
    return (matched - swapped).abs().mean() / reference.std().clamp_min(EPS)


class Reliance(Metric):
    """`reliance` over batches and processes.

    >>> metric = Reliance()
    >>> metric.update(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([1.0]))
    >>> metric.update(torch.tensor([4.0]), torch.tensor([1.0]), torch.tensor([3.0]))
    >>> metric.compute()
    tensor(1.4142)
    """

    matched: list[Tensor]
    swapped: list[Tensor]
    reference: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("matched", "swapped", "reference"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, matched: Tensor, swapped: Tensor, reference: Tensor) -> None:
        """Add margins: `[N]`, `[N]`, and `[M]` whose spread is the unit."""
        self.matched.append(matched)
        self.swapped.append(swapped)
        self.reference.append(reference)

    def compute(self) -> Tensor:
        """The reliance; NaN without samples."""
        return reliance(*(dim_zero_cat(part) for part in (self.matched, self.swapped, self.reference)))
