"""Gates on the images that put something else outside the mask."""

from __future__ import annotations

import torch
from torch import Tensor

from guidedattn.backgrounds import Background, FittedBackground, share_nearby, smooth_over
from guidedattn.component import build, default
from guidedattn.errors import ConfigError
from guidedattn.gates.base import FeatureGate


class BackgroundGate(FeatureGate):
    """As `input_gate`: in training, images get another outside; at any other time they pass unchanged.

    With the outside of another image of the batch, whatever lies there (a marker, a scanner's border) no
    longer agrees with the label, at the price of a plain step.

    Args:
        background: what to put outside the mask.
        probability: share of the training images that get it. In the others the label may still be read from
            the outside.
    """

    for_images = True

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


class ContinueGate(FeatureGate):
    """As `input_gate`: at all times, only the inside, continued smoothly over everything else.

    Given its mask, nothing outside it can change the answer for an image. In place of a black or grey
    outside, which cuts the outline out of the image, each edge runs on into ever wider averages of the
    inside (see `smooth_over`). In training, masks are shrunk by a random width, so that the classifier
    neither trusts their edges nor misses what an imprecise mask cuts off.

    Masks count as 1 above 0.5, and where they do nowhere, the image passes whole. They are needed at test
    time too. Second passes (of some losses and explainers) draw a width of their own; a penalty on gradients
    outside the mask finds none.

    Args:
        shrink: by how much at most, as a share of the image's width.

    Raises:
        ConfigError: `shrink` does not lie in [0, 0.5).
    """

    for_images = True

    def __init__(self, shrink: float = 0.03) -> None:
        super().__init__()
        if not 0 <= shrink < 0.5:
            raise ConfigError(f"ContinueGate: shrink must lie in [0, 0.5), got {shrink}")
        self.shrink = shrink

    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """The images, their outside made of their inside."""
        inside = (mask > 0.5).float()
        if self.training and (margin := round(self.shrink * mask.shape[-1])):
            least = 0.5 + 0.5 * torch.rand(len(mask), 1, 1, 1, device=mask.device)
            shrunk = inside * (share_nearby(inside, margin) > least)
            inside = torch.where(shrunk.amax((1, 2, 3), keepdim=True) > 0, shrunk, inside)
        images = features.to(torch.promote_types(features.dtype, torch.float32))
        seen = smooth_over(images, 1 - inside.to(images.dtype)).to(features.dtype)
        return torch.where(inside.amax((1, 2, 3), keepdim=True) > 0, seen, features)
