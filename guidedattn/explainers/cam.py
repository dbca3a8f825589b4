"""Class activation maps: the channels of a feature map, weighted by what they do for a class.

All are equal to pytorch-grad-cam's maps before its rectification and resizing, where it has them.
f: features, g: derivative of the class's logit by them; k: channel; sums and means over cells.
"""

from __future__ import annotations

from torch import Tensor

from guidedattn.explainers.base import Explainer


class GradCAM(Explainer):
    """Grad-CAM (Selvaraju et al. 2017, Eq. 1 and 2): A = sum_k mean(g_k) f_k, before the gate.

    Args:
        relu: keep only what speaks for the class, as published. Off by default: losses and metrics decide
            for themselves, since a loss on a rectified map has the all-zero map as an optimum.
        layer: name of a module inside the backbone, or its stride; None for its last features.
    """

    def __init__(self, relu: bool = False, layer: int | str | None = None) -> None:
        super().__init__(layer)
        self.relu = relu

    def weighted(self, features: Tensor, gradient: Tensor) -> Tensor:
        """What is summed over the channels, `[B, D, h, w]`."""
        return gradient.mean((2, 3), keepdim=True) * features

    def explain(self, features: Tensor, gradient: Tensor) -> Tensor:
        """`[B, 1, h, w]`, signed unless `relu`."""
        maps = self.weighted(features, gradient).sum(1, keepdim=True)
        return maps.relu() if self.relu else maps


class CAM(GradCAM):
    """CAM (Zhou et al. 2016): A = sum_k w_k f_k, w the class's weights on the pooled features.

    With pooling and one linear layer w is that layer's row; for a deeper head it is the logit's derivative by
    the pooled features. h w times Grad-CAM on an open gate; arguments as there.
    """

    def weighted(self, features: Tensor, gradient: Tensor) -> Tensor:
        """The weight of each channel times the channel, `[B, D, h, w]`."""
        return gradient.sum((2, 3), keepdim=True) * features


class HiResCAM(GradCAM):
    """HiResCAM (Draelos and Carin 2020): A = sum_k g_k f_k, gradients not averaged over the cells.

    On a pooling head it equals Grad-CAM on an open gate; behind a gate, and on inner layers, it shows only
    what the score really used. Arguments as there.
    """

    def weighted(self, features: Tensor, gradient: Tensor) -> Tensor:
        """Gradient times feature, `[B, D, h, w]`."""
        return gradient * features


class LayerCAM(GradCAM):
    """LayerCAM (Jiang et al. 2021): A = sum_k relu(g_k) f_k, for inner layers. Arguments as `GradCAM`."""

    def weighted(self, features: Tensor, gradient: Tensor) -> Tensor:
        """Rectified gradient times feature, `[B, D, h, w]`."""
        return gradient.relu() * features


class GradCAMPlusPlus(GradCAM):
    """Grad-CAM++ (Chattopadhay et al. 2018, Eq. 19), its higher derivatives those of exp(score).

    w_k = sum(alpha_k relu(g_k)), alpha_k = g_k^2 / (2 g_k^2 + g_k^3 sum(f_k)). Arguments as `GradCAM`. The
    denominator can vanish for negative features: meant for pictures and measuring rather than for losses.
    """

    def weighted(self, features: Tensor, gradient: Tensor) -> Tensor:
        """The weight of each channel times the channel, `[B, D, h, w]`."""
        total = features.sum((2, 3), keepdim=True)
        # The constant is pytorch-grad-cam's; it outweighs gradients below 1e-3.
        alpha = gradient**2 / (2 * gradient**2 + total * gradient**3 + 1e-6)
        return (gradient.relu() * alpha).sum((2, 3), keepdim=True) * features
