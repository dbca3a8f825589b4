"""Schedules: how the weight of an attention loss changes while training, and when the loss rests."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from guidedattn.component import Component
from guidedattn.errors import ConfigError


class Schedule(Component):
    """Base of the schedules: training step to weight; a loss takes one in place of a number.

    A subclass writes `at`. The base counts the batches trained on in a buffer, so that a resumed run goes on
    where it stopped. Every process counts the same batches, so all agree; a step of weight 0 computes
    nothing of its loss. Outside training the weight is `weight` throughout: a `val/loss` that followed the
    schedule could not be compared between epochs.

    Args:
        weight: the full weight.

    Raises:
        ConfigError: the weight is negative.
    """

    steps: Tensor

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ConfigError(f"{type(self).__name__}: weight must not be negative, got {weight}")
        self.weight = weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @abstractmethod
    def at(self, step: int) -> float:
        """The weight of training step `step`, from 0."""

    def forward(self) -> float:
        """The weight now; while training each call is a step."""
        if not self.training:
            return self.weight
        step = int(self.steps)
        self.steps += 1
        return self.at(step)


class WarmUp(Schedule):
    """Nothing for `delay` steps, then a straight line to the full weight in `steps_up` steps.

    Args:
        weight: the full weight.
        steps_up: length of the rise.
        delay: steps before it, which cost nothing: a classifier that knows nothing yet has no map to guide.

    >>> [WarmUp(2.0, steps_up=4, delay=1).at(step) for step in range(6)]
    [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    """

    def __init__(self, weight: float = 1.0, steps_up: int = 100, delay: int = 0) -> None:
        super().__init__(weight)
        if steps_up < 1 or delay < 0:
            raise ConfigError(f"WarmUp needs steps_up >= 1 and delay >= 0, got {steps_up} and {delay}")
        self.steps_up = steps_up
        self.delay = delay

    def at(self, step: int) -> float:
        """The weight of training step `step`."""
        return self.weight * min(max(step - self.delay + 1, 0) / self.steps_up, 1.0)


class EveryNthStep(Schedule):
    """The full weight on every `every`-th step, from the first; nothing, at no cost, between.

    On average the loss then acts with weight / every.

    Args:
        weight: the weight on the steps that count.
        every: how many steps from one to the next.

    >>> [EveryNthStep(2.0, every=3).at(step) for step in range(5)]
    [2.0, 0.0, 0.0, 2.0, 0.0]
    """

    def __init__(self, weight: float = 1.0, every: int = 2) -> None:
        super().__init__(weight)
        if every < 1:
            raise ConfigError(f"EveryNthStep needs every >= 1, got {every}")
        self.every = every

    def at(self, step: int) -> float:
        """The weight of training step `step`."""
        return 0.0 if step % self.every else self.weight
