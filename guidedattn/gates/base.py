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
from guidedattn.layers import channels_come_last, find_layer


class FeatureGate(Component):
    """Base of the gates: `(features [B, D, h, w], mask [B, 1, H, W]) -> features [B, D, h, w]`.

    A subclass writes `gate`. The base brings the mask to the features' size (area average) and passes
    samples without a mask unchanged.

    On the last features, the default, a cell has seen most of the image before the gate closes. Inside the
    backbone, on a `layer` near the images, it has seen little more than itself.

    Args:
        layer: where to act: dotted name of a module inside the backbone, such as `net.layer1`, or its stride,
            such as 4; None for the last features.
    """

    def __init__(self, layer: int | str | None = None) -> None:
        super().__init__()
        self.layer = layer
        self._module = ""

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
            ConfigError: it has no such `layer`.
        """
        if self.layer is not None:
            self._module = find_layer(backbone, self.layer, "gate.layer")

    @contextmanager
    def within(self, backbone: nn.Module, mask: Tensor, has_mask: Tensor) -> Iterator[None]:
        """Act on the output of `layer`, if there is one, in a forward pass of the backbone.

        Raises:
            ConfigError: the pass does not go through the layer, or its output is not a map.
        """
        passed = []

        def act(module: nn.Module, inputs: Any, output: Any) -> Tensor:  # noqa: ARG001
            if not isinstance(output, Tensor) or output.ndim != 4:
                found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ConfigError(f"gate.layer: {self._module} gives no map [B, D, h, w] but {found}")
            passed.append(self._module)
            last = channels_come_last(output.shape, mask.shape)
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
