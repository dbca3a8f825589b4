"""Maps at the resolution of the image, from the gradient by its pixels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from guidedattn.explainers.base import Explainer
from guidedattn.guidance import Guidance, twice_differentiable


class InputGradient(Explainer):
    """The derivative of the class's logit by each pixel (Simonyan et al. 2014), summed over colours; signed.

    Costs one more pass through the whole network, and in a loss a double backward through it.

    Args:
        times_input: multiply by the image. For a network of ReLUs this is the relevance of LRP-0, so that
            `EnergyOutside` on it minimises background relevance as ISNet does (Bassi et al. 2024).
    """

    def __init__(self, times_input: bool = False) -> None:
        super().__init__()
        self.times_input = times_input

    def sources(self, guidance: Guidance) -> tuple[Sequence[Tensor], Tensor]:
        """Of the images, which the first pass does not differentiate by."""
        return self.sources_again(guidance)

    def sources_again(self, guidance: Guidance) -> tuple[Sequence[Tensor], Tensor]:
        """The images and their logits."""
        images = guidance.images.detach().clone().requires_grad_()
        with twice_differentiable():
            return [images], guidance.rescore(images)

    def explain(self, features: Tensor, gradient: Tensor) -> Tensor:
        """`[B, 1, H, W]`; here the features are the images."""
        return (gradient * features if self.times_input else gradient).sum(1, keepdim=True)
