"""What an attention loss is."""

from __future__ import annotations

import re
from abc import abstractmethod

import torch
import torch.distributed as dist
from torch import Tensor

from guidedattn.component import Component
from guidedattn.errors import ConfigError
from guidedattn.guidance import Guidance, is_dead
from guidedattn.losses.schedules import Schedule


class AttentionLoss(Component):
    """Base of the attention losses: a scalar from what one forward pass knew (indirect guidance).

    A subclass writes `compute`, one value per sample, and sets `needs_mask` if it reads `guidance.mask`.
    The base averages over an image's labels and over the samples that count, and multiplies by `weight`.
    Samples without a mask (where one is needed) and dead maps do not count; a batch in which none counts
    gives a zero that stays connected to the graph.

    Args:
        weight: factor of this loss in the total (alpha or omega in GAIN, Eq. 6 and 8): a number, or a
            schedule. Where it is 0 nothing is computed.

    Attributes:
        needs_mask: whether `compute` reads the mask; images without one then do not count.
        per_class: whether the value depends on the class looked at; if not, several labels cost no more
            than one.
    """

    needs_mask: bool = True
    per_class: bool = True

    def __init__(self, weight: float | Schedule = 1.0) -> None:
        super().__init__()
        self.weight = weight

    @property
    def name(self) -> str:
        """Name in the log: the class in snake_case, `MaskAlignment` as `mask_alignment`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def compute(self, guidance: Guidance) -> Tensor:
        """One value per sample, `[B]`."""

    def counts(self, guidance: Guidance) -> Tensor:
        """`[B]` bool: samples whose value counts; by default those whose map is not dead."""
        return ~is_dead(guidance.attention)

    def forward(self, guidance: Guidance) -> Tensor:
        """Weighted mean over the samples that count; a scalar.

        Raises:
            ConfigError: `compute` did not give one value per sample.
        """
        return self.reduce(*self.per_sample(guidance))

    def reduce(self, values: Tensor, counted: Tensor) -> Tensor:
        """The scalar from what `per_sample` gave."""
        return values.sum() / self._divisor(counted.sum())

    def per_sample(self, guidance: Guidance) -> tuple[Tensor, Tensor]:
        """`[B]` weighted values, averaged over an image's labels, and `[B]` bool: which samples count.

        The values of the others are 0 and stay connected to the graph.

        Raises:
            ConfigError: `compute` did not give one value per sample.
        """
        weight = self.weight() if isinstance(self.weight, Schedule) else self.weight
        total = torch.zeros_like(guidance.logits[:, 0])
        if weight == 0:
            return 0 * guidance.logits[:, 0], torch.zeros_like(guidance.valid)
        number = torch.zeros_like(total)
        for view in guidance.views() if self.per_class else [guidance]:
            values = self.compute(view)
            if values.shape != total.shape:
                raise ConfigError(
                    f"{type(self).__name__}.compute must give one value per sample, "
                    f"[{len(total)}]; got {list(values.shape)}"
                )
            counted = view.valid & self.counts(view)
            if self.needs_mask:
                counted = counted & view.has_mask
            total = total + torch.where(counted, values, torch.zeros_like(values))
            number = number + counted
        return weight * total / number.clamp_min(1), number > 0

    def _divisor(self, count: Tensor) -> Tensor:
        """Samples to average over; while training on several processes, their mean over the processes.

        DDP averages gradients over processes, and these differ in how many of their samples count. Dividing
        by the mean count makes the result that of one process on the joined batch.
        """
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return count.clamp_min(1)
        everywhere = count.to(torch.float32)
        dist.all_reduce(everywhere)
        return everywhere.clamp_min(1) / dist.get_world_size()
