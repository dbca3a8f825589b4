"""What a gate is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from guidedattn.component import Component
from guidedattn.errors import ConfigError
from guidedattn.guidance import resize
from guidedattn.layers import channels_come_last, find_layer, is_only_way


class FeatureGate(Component):
    """Base of the gates: `(features [B, D, h, w], mask [B, 1, H, W]) -> features [B, D, h, w]`.

    A subclass writes `gate`. The base brings the mask to the features' size (area average) and passes
    samples without a mask unchanged.

    On the last features, the default, a cell has seen most of the image before the gate closes. Inside the
    backbone, on a `layer` near the images, it has seen little more than itself. Attention maps, also of that
    layer, are of what comes into the gate.

    Args:
        layer: where to act: dotted name of a module inside the backbone, such as `net.layer1`, or its stride,
            such as 4; None for the last features. Everything must pass through it, once, so no part of a
            residual block will do; and gradient checkpointing must leave it alone.

    Attributes:
        for_images: it makes sense as `input_gate` only.
    """

    for_images = False

    def __init__(self, layer: int | str | None = None) -> None:
        super().__init__()
        self.layer = layer
        self._module, self._channels_last = "", False

    @abstractmethod
    def gate(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features `[B, D, h, w]` and mask `[B, 1, h, w]` in [0, 1] to gated features."""

    def forward(self, features: Tensor, mask: Tensor, has_mask: Tensor | None = None) -> Tensor:
        """Apply the gate where `has_mask` `[B]` is true; everywhere if it is not given."""
        gated = self.gate(features, resize(mask, features).to(features.dtype))
        return gated if has_mask is None else torch.where(has_mask.view(-1, 1, 1, 1), gated, features)

    def attach(self, backbone: nn.Module) -> None:
        """Meet the backbone, once.

        Raises:
            ConfigError: it has no such `layer`, some way leads past it, or its `input_size` is wrong.
        """
        if self.layer is None:
            return
        self._module = find_layer(backbone, self.layer, "gate.layer")
        self._channels_last = bool(getattr(backbone, "channels_last_maps", False))
        colours, size = backbone.get_buffer("mean").shape[1], getattr(backbone, "input_size", (224, 224))
        device = backbone.get_buffer("mean").device
        try:
            closed = is_only_way(backbone, self._module, torch.zeros(1, colours, *size, device=device))
        except RuntimeError as error:
            raise ConfigError(
                f"gate.layer: the backbone takes no image of its input_size {size[0]}x{size[1]}: set that "
                f"attribute ({str(error).splitlines()[0]})"
            ) from error
        if not closed:
            raise ConfigError(
                f"gate.layer: what goes past {self._module} would stay ungated, since not everything passes "
                "through it, once: take the end of a stage"
            )

    @contextmanager
    def within(self, backbone: nn.Module, mask: Tensor, has_mask: Tensor) -> Iterator[None]:
        """Act on the output of `layer`, if there is one, in a forward pass of the backbone.

        Raises:
            ConfigError: the pass does not go through the layer, or its output is not a map.
        """
        passed = []

        def act(module: nn.Module, inputs: Any, output: Any) -> Tensor:  # noqa: ARG001
            shape = list(output.shape) if isinstance(output, Tensor) else []
            last = None
            if len(shape) == 4 and shape[0] == len(mask):
                last = channels_come_last(shape, mask.shape, self._channels_last)
            if last is None:
                found = shape or type(output).__name__
                raise ConfigError(f"gate.layer: {self._module} gives no map of the image, but {found}")
            passed.append(self._module)
            gated: Tensor = self(output.permute(0, 3, 1, 2) if last else output, mask, has_mask)
            return gated.permute(0, 2, 3, 1) if last else gated

        if self.layer is None:
            yield
            return
        handle = backbone.get_submodule(self._module).register_forward_hook(act)
        try:
            yield
        finally:
            handle.remove()
        if not passed:
            raise ConfigError(f"gate.layer: the forward pass does not go through {self._module}")
