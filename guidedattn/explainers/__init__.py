"""Explainers: which cells of the feature map speak for a class, as a differentiable map."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from guidedattn.component import Component
from guidedattn.guidance import Guidance

__all__ = ["Explainer", "GradCAM"]


class Explainer(Component):
    """Base of the explainers: `(guidance, class_index [B]) -> map [B, 1, h, w]`, at least float32.

    A subclass writes `explain`. While training, the map is differentiable and costs one backward pass
    through the head. Otherwise (validation under inference mode, a frozen network) the base scores the
    features once more with gradients switched on, and the map comes back detached.
    """

    @abstractmethod
    def explain(self, features: Tensor, score: Tensor, differentiable: bool) -> Tensor:
        """The map `[B, 1, h, w]` of `score`, the batch's summed logits, on `features` `[B, D, h, w]`."""

    def forward(self, guidance: Guidance, class_index: Tensor) -> Tensor:
        """The map of `class_index` `[B]` for every sample."""
        if torch.is_grad_enabled() and guidance.features.requires_grad:
            return self._explain(guidance.features, guidance.logits, class_index, differentiable=True)
        with torch.inference_mode(False), torch.enable_grad():
            features = guidance.features.detach().clone().requires_grad_()
            return self._explain(
                features, guidance.score(features), class_index.clone(), differentiable=False
            )

    def _explain(self, features: Tensor, logits: Tensor, class_index: Tensor, differentiable: bool) -> Tensor:
        score = logits.gather(1, class_index[:, None]).sum()
        maps = self.explain(features, score, differentiable)
        return maps if differentiable else maps.detach()


class GradCAM(Explainer):
    """Grad-CAM (Selvaraju et al. 2017, Eq. 1 and 2) on the features before the gate.

    w_k = 1/(h w) sum_ij ds/df_kij; A = sum_k w_k f_k, with s the class's logit.

    Args:
        relu: keep only what speaks for the class, as published. Off by default: losses and metrics decide
            for themselves, since a loss on a rectified map has the all-zero map as an optimum.
    """

    def __init__(self, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu

    def explain(self, features: Tensor, score: Tensor, differentiable: bool) -> Tensor:
        """`[B, 1, h, w]`, signed unless `relu`."""
        (gradient,) = torch.autograd.grad(score, features, create_graph=differentiable, retain_graph=True)
        with torch.autocast(features.device.type, enabled=False):
            precise = torch.promote_types(features.dtype, torch.float32)
            weights = gradient.to(precise).mean((2, 3), keepdim=True)
            maps = (weights * features.to(precise)).sum(1, keepdim=True)
        return maps.relu() if self.relu else maps
