"""Heads: features `[B, D, h, w]` to logits `[B, K]`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from guidedattn.component import Component
from guidedattn.errors import ConfigError

__all__ = ["Head", "LinearHead", "MLPHead"]


class Head(Component):
    """Base of the heads: `(features [B, D, h, w]) -> logits [B, K]`.

    A subclass writes `layers`; the classifier calls `attach` once, since only it knows D and K. The
    explainer differentiates through the head twice, so its layers must allow that (PyTorch's do).
    """

    net: nn.Module

    @abstractmethod
    def layers(self, channels: int, num_classes: int) -> nn.Module:
        """The network from features `[B, channels, h, w]` to logits `[B, num_classes]`."""

    def attach(self, channels: int, num_classes: int) -> None:
        """Build the layers for `channels` features and `num_classes` logits."""
        self.net = self.layers(channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features `[B, D, h, w]` to logits `[B, K]`."""
        logits: Tensor = self.net(features)
        return logits


class LinearHead(Head):
    """Global average pooling, dropout and one linear layer.

    Args:
        dropout: probability.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout

    def layers(self, channels: int, num_classes: int) -> nn.Module:
        """Pool, dropout, linear."""
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(channels, num_classes)
        )


class MLPHead(Head):
    """The paper's head (section 3.1): pooling, then dense layers with ELU and dropout, then a dense layer.

    The softmax of the paper is part of the criterion.

    Args:
        hidden: neurons of each dense layer.
        dropout: probability after each dense layer.

    Raises:
        ConfigError: not one dropout for each dense layer.
    """

    def __init__(self, hidden: Sequence[int] = (128, 64), dropout: Sequence[float] = (0.10, 0.05)) -> None:
        super().__init__()
        if len(hidden) != len(dropout):
            raise ConfigError(f"MLPHead has {len(hidden)} hidden layers and {len(dropout)} dropouts")
        self.hidden = tuple(hidden)
        self.dropout = tuple(dropout)

    def layers(self, channels: int, num_classes: int) -> nn.Module:
        """Pool, (dense, ELU, dropout) for each hidden layer, dense."""
        modules: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        for width, dropout in zip(self.hidden, self.dropout, strict=True):
            modules += [nn.Linear(channels, width), nn.ELU(), nn.Dropout(dropout)]
            channels = width
        return nn.Sequential(*modules, nn.Linear(channels, num_classes))
