"""What one forward pass knew, and the small arithmetic on maps that losses and metrics share.

Shapes: B samples, C image channels, H x W pixels, D feature channels, h x w cells, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

EPS = 1e-8
"""Keeps float32 divisions finite; a map whose range is not above it is called dead."""


@dataclass(frozen=True, eq=False)
class Guidance:
    """What one forward pass knew; all that an attention loss or a metric gets to see.

    Attributes:
        images: `[B, C, H, W]`, in [0, 1].
        target: `[B]` class indices, or `[B, K]` multi-hot.
        class_index: `[B]`, the class whose attention `attention` is.
        mask: `[B, 1, H, W]` in [0, 1]; 1 means "look here".
        has_mask: `[B]` bool; false where the data has no usable mask for the image.
        valid: `[B]` bool; samples that count in this view (see `views`).
        features: `[B, D, h, w]`, the backbone's, before the gate (behind the gate attention outside the
            mask is zero by construction, and every loss on it vacuous), unless that acts inside the backbone.
        logits: `[B, K]`.
        explainer: computes `attention_for`.
        score: features to logits: gate (on the last features) and head, on this batch's masks.
        rescore: images to logits: the whole network once more, leaving every buffer as it was; images
            `[n, C, h, w]` of any size stand for the first n of the batch.
        inner: outputs of the modules inside the backbone that the explainer asked for, by name.
        trace: one more pass over the images: its `inner`, and its logits.
    """

    images: Tensor
    target: Tensor
    class_index: Tensor
    mask: Tensor
    has_mask: Tensor
    valid: Tensor
    features: Tensor
    logits: Tensor
    explainer: Callable[[Guidance, Tensor], Tensor]
    score: Callable[[Tensor], Tensor]
    rescore: Callable[[Tensor], Tensor]
    inner: Mapping[str, Tensor]
    trace: Callable[[], tuple[Mapping[str, Tensor], Tensor]]

    @cached_property
    def attention(self) -> Tensor:
        """The map `[B, 1, h, w]` of `class_index`, differentiable while training; computed once."""
        return self.attention_for(self.class_index)

    def attention_for(self, class_index: Tensor) -> Tensor:
        """The explainer's map `[B, 1, h, w]` of any class, given as `[B]` indices."""
        return self.explainer(self, class_index)

    @property
    def has_attention(self) -> bool:
        """Whether `attention` has been computed already, so that reading it costs nothing."""
        return "attention" in self.__dict__

    @property
    def multi_label(self) -> bool:
        """Whether an image can have several classes."""
        return self.target.ndim == 2

    @property
    def probabilities(self) -> Tensor:
        """`[B, K]`: softmax of the logits, or sigmoid where an image can have several classes."""
        return to_probabilities(self.logits, self.multi_label)

    def views(self) -> Iterator[Guidance]:
        """One guidance per label of an image: the j-th view looks at every image's j-th class.

        A single-label batch has one view, itself. With several labels, images with fewer are not `valid` in
        the later views; Eq. 5 and 7 of GAIN (Li et al. 2018) average an image's views.
        """
        if self.multi_label:
            yield from self._views
        else:
            yield self

    @cached_property
    def _views(self) -> tuple[Guidance, ...]:
        # Kept, so that several losses share their maps.
        counts = (self.target > 0.5).sum(1)
        order = (self.target > 0.5).to(torch.int8).argsort(dim=1, descending=True, stable=True)
        number = max(int(counts.max()), 1)
        return tuple(
            replace(self, class_index=order[:, j], valid=self.valid & (counts > j)) for j in range(number)
        )

    def as_tensors(self) -> dict[str, Tensor]:
        """Plain tensors, as `predict` returns them."""
        names = ("images", "target", "class_index", "mask", "has_mask", "features", "logits")
        tensors: dict[str, Any] = {name: getattr(self, name) for name in names}
        return {**tensors, "probabilities": self.probabilities, "attention": self.attention}


def twice_differentiable() -> AbstractContextManager[None]:
    """Where a forward pass shall be differentiated twice: PyTorch's fused attention allows it only once."""
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context


def to_probabilities(logits: Tensor, multi_label: bool) -> Tensor:
    """`[B, K]` logits to probabilities: softmax, or sigmoid if `multi_label`."""
    return logits.sigmoid() if multi_label else logits.softmax(dim=1)


def resize(maps: Tensor, size: Tensor | tuple[int, int]) -> Tensor:
    """Bring maps `[B, 1, H, W]` to `size`: area average downwards, bilinear upwards.

    Args:
        maps: the maps.
        size: a tensor whose last two sizes count, or (height, width).

    >>> resize(torch.eye(4)[None, None], (2, 2))
    tensor([[[[0.5000, 0.0000],
              [0.0000, 0.5000]]]])
    """
    height, width = size.shape[-2:] if isinstance(size, Tensor) else size
    if maps.shape[-2:] == (height, width):
        return maps
    if height <= maps.shape[-2] and width <= maps.shape[-1]:
        return F.adaptive_avg_pool2d(maps, (height, width))
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


def normalise(maps: Tensor) -> Tensor:
    """Min-max normalisation per image, `(A - min) / (max - min + eps)`; constant maps give 0.

    >>> normalise(torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]]))
    tensor([[[[0.0000, 0.2500],
              [0.5000, 1.0000]]]])
    """
    low = maps.amin((1, 2, 3), keepdim=True)
    high = maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low + EPS)


def is_dead(maps: Tensor) -> Tensor:
    """`[B]` bool: maps that are constant (mostly: all zero) and so point nowhere.

    >>> is_dead(torch.tensor([[[[0.0, 0.0]]], [[[0.0, 0.1]]]]))
    tensor([ True, False])
    """
    return ~(maps.detach().amax((1, 2, 3)) - maps.detach().amin((1, 2, 3)) > EPS)


def per_sample(maps: Tensor) -> Tensor:
    """Mean over all but the batch dimension: `[B, ...]` to `[B]`."""
    return maps.flatten(1).mean(1)
