"""Gates: how a mask acts on a feature map (direct guidance), or on the images themselves."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from guidedattn.backgrounds import Background, FittedBackground
from guidedattn.component import Component, build, default
from guidedattn.guidance import resize

__all__ = [
    "BackgroundGate",
    "FeatureGate",
    "MaskOnlyGate",
    "MultiplyGate",
    "OpenGate",
    "OutsideGate",
    "ResidualGate",
]


class FeatureGate(Component):
    """Base of the gates: `(features [B, D, h, w], mask [B, 1, H, W]) -> features [B, D, h, w]`.

    A subclass writes `gate`. The base brings the mask to the features' size (area average) and passes
    samples without a mask unchanged.
    """

    @abstractmethod
    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features `[B, D, h, w]` and mask `[B, 1, h, w]` in [0, 1] to gated features."""

    def forward(self, features: Tensor, mask: Tensor, has_mask: Tensor | None = None) -> Tensor:
        """Apply the gate where `has_mask` `[B]` is true; everywhere if it is not given."""
        gated = self.gate(features, resize(mask, features).to(features.dtype))
        return gated if has_mask is None else torch.where(has_mask.view(-1, 1, 1, 1), gated, features)


class OpenGate(FeatureGate):
    """No direct guidance: features pass unchanged."""

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

    >>> gate = MultiplyGate(floor=0.1)
    >>> gate(torch.ones(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]]))
    tensor([[[[0.1000, 1.0000]]]])
    """

    def __init__(self, floor: float = 0.0) -> None:
        super().__init__()
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


class BackgroundGate(FeatureGate):
    """As `input_gate`: in training, images get another outside; at any other time they pass unchanged.

    With the outside of another image of the batch, whatever lies there (a marker, a scanner's border) no
    longer agrees with the label, at the price of a plain step.

    Args:
        background: what to put outside the mask.
        probability: share of the training images that get it. In the others the label may still be read from
            the outside.
    """

    def __init__(self, background: Background = default(FittedBackground), probability: float = 1.0) -> None:
        super().__init__()
        self.background = build(background, Background)
        self.probability = probability

    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """Some of the images with another outside, in training."""
        if not self.training:
            return features
        changed = torch.rand(len(features), 1, 1, 1, device=features.device) < self.probability
        return torch.where(changed, self.background(features, mask), features)
