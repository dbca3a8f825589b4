"""Gates that are one product: of a mask and features, or images."""

from __future__ import annotations

from torch import Tensor

from guidedattn.gates.base import FeatureGate


class OpenGate(FeatureGate):
    """No direct guidance: features pass unchanged."""

    def __init__(self) -> None:
        super().__init__()

    def gate(self, features: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002
        """The features."""
        return features

    def forward(self, features: Tensor, mask: Tensor, has_mask: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The features, without resizing a mask that nobody reads."""
        return features


class MultiplyGate(FeatureGate):
    """f * m, the direct supervision of the paper's Fig. 1.

    Args:
        floor: what passes outside the mask, f * (floor + (1 - floor) m); above 0, an empty mask does not
            blind the network.
        layer: where to act, see `FeatureGate`.

    >>> import torch
    >>> gate = MultiplyGate(floor=0.1)
    >>> gate(torch.ones(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[[[0.1000, 1.0000]]]])
    """

    def __init__(self, floor: float = 0.0, layer: int | str | None = None) -> None:
        super().__init__(layer)
        self.floor = floor

    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """F * (floor + (1 - floor) m)."""
        return features * (self.floor + (1 - self.floor) * mask)


class ResidualGate(FeatureGate):
    """f * (1 + m): the mask stresses what is inside and removes nothing."""

    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """F * (1 + m)."""
        return features * (1 + mask)


class OutsideGate(FeatureGate):
    """f * (1 - m): a control that shows what can be read from outside the mask alone."""

    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """F * (1 - m)."""
        return features * (1 - mask)


class MaskOnlyGate(FeatureGate):
    """m in place of f: a control that shows what can be read from the outline of the mask alone."""

    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """The mask, in every channel."""
        return mask.expand_as(features)
