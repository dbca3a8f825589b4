"""What an explainer is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from guidedattn.component import Component
from guidedattn.errors import ConfigError
from guidedattn.guidance import Guidance, twice_differentiable
from guidedattn.layers import channels_come_last, find_layer


class Explainer(Component):
    """Base of the explainers: `(guidance, class_index [B]) -> map [B, 1, h, w]`, at least float32.

    A subclass writes `explain`, from features and the gradient of the class's logit by them. While training,
    the map is differentiable. Otherwise (validation under inference mode) the base scores once more with
    gradients switched on, and the map comes back detached.

    On the backbone's last features, the default, this costs a backward pass through the head. On an inner
    `layer` the gradient comes through the rest of the network, outside training at one more forward pass.

    Args:
        layer: dotted name of a module inside the backbone, such as `net.layer3`, or its stride, such as 16;
            None for the last features.

    Attributes:
        layers: the modules whose outputs the map is made of.
    """

    def __init__(self, layer: int | str | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.layers: tuple[str, ...] = ()
        self._channels_last = False

    @abstractmethod
    def explain(self, features: Tensor, gradient: Tensor) -> Tensor:
        """The map `[B, 1, h, w]` from features and gradient, both `[B, D, h, w]` and at least float32."""

    def attach(self, backbone: nn.Module) -> None:
        """Meet the backbone, once.

        Raises:
            ConfigError: it has no such `layer`.
        """
        wanted = self.layers if self.layer is None else (self.layer,)
        self._channels_last = bool(getattr(backbone, "channels_last_maps", False))
        self.layers = tuple(find_layer(backbone, layer, "explainer.layer") for layer in wanted)

    @contextmanager
    def watch(self, backbone: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Keep the outputs of `layers` in a forward pass of the backbone, connected to its result."""
        seen: dict[str, Tensor] = {}

        def keeper(name: str) -> Any:
            def keep(module: nn.Module, inputs: Any, output: Any) -> Tensor:  # noqa: ARG001
                if not isinstance(output, Tensor):
                    raise ConfigError(f"explainer.layer: {name} gives no tensor but {type(output).__name__}")
                if torch.is_grad_enabled() and not output.requires_grad:
                    output.requires_grad_()  # a frozen backbone: the map still depends on the head
                seen[name] = output
                return output.clone()  # the next layer may work in place

            return keep

        modules = [(name, backbone.get_submodule(name)) for name in self.layers]
        handles = [module.register_forward_hook(keeper(name)) for name, module in modules]
        try:
            with twice_differentiable() if self.layers else nullcontext():
                yield seen
        finally:
            for handle in handles:
                handle.remove()

    def forward(self, guidance: Guidance, class_index: Tensor) -> Tensor:
        """The map of `class_index` `[B]` for every sample."""
        differentiable = torch.is_grad_enabled() and guidance.features.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            sources, logits = self.sources(guidance) if differentiable else self.sources_again(guidance)
            score = logits.gather(1, class_index.clone()[:, None]).sum()
            gradients = torch.autograd.grad(score, sources, create_graph=differentiable)
            with torch.autocast(score.device.type, enabled=False):
                precise = [_precise(tensor) for tensor in (*sources, *gradients)]
                maps = self.combine(guidance, precise[: len(sources)], precise[len(sources) :])
        return maps if differentiable else maps.detach()

    def sources(self, guidance: Guidance) -> tuple[Sequence[Tensor], Tensor]:
        """What the gradient is taken by, and logits `[B, K]` that depend on it, of the first pass.

        Raises:
            ConfigError: the pass did not go through a layer.
        """
        return self._chosen(guidance.inner) or [guidance.features], guidance.logits

    def sources_again(self, guidance: Guidance) -> tuple[Sequence[Tensor], Tensor]:
        """The same with gradients switched on, where the first pass ran without."""
        if self.layers:
            inner, logits = guidance.trace()
            return self._chosen(inner), logits
        features = guidance.features.detach().clone().requires_grad_()
        return [features], guidance.score(features)

    def _chosen(self, inner: Any) -> list[Tensor]:
        if missing := [name for name in self.layers if name not in inner]:
            raise ConfigError(f"explainer.layer: the forward pass does not go through {missing[0]}")
        return [inner[name] for name in self.layers]

    def combine(self, guidance: Guidance, sources: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
        """The map from all sources and their gradients; by default `explain` of the first, as maps."""
        features, gradient = (as_maps(t[0], guidance, self._channels_last) for t in (sources, gradients))
        return self.explain(features, gradient)


def as_maps(output: Tensor, guidance: Guidance, channels_last: bool = False) -> Tensor:
    """A layer's output as `[B, D, h, w]`: `[B, h, w, D]` and tokens `[B, N, D]` (a transformer's) too.

    Raises:
        ConfigError: it has no place in the image.
    """
    if output.ndim == 4:
        last = channels_come_last(output.shape, guidance.images.shape, channels_last)
        if last is not None:
            return output.permute(0, 3, 1, 2) if last else output
    height, width = guidance.features.shape[-2:]
    if output.ndim == 3 and output.shape[1] >= height * width:
        tokens = output[:, output.shape[1] - height * width :]  # behind class and register tokens
        return tokens.transpose(1, 2).reshape(len(tokens), -1, height, width)
    raise ConfigError(f"explainer.layer: an output of shape {list(output.shape)} is not a map of the image")


def _precise(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
