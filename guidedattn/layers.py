"""Layers inside a backbone: modules by name or by stride, and how their outputs lie."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from guidedattn.errors import ConfigError, near


def find_layer(backbone: nn.Module, layer: int | str, argument: str) -> str:
    """The dotted name of a module inside the backbone.

    Args:
        backbone: has `strides`, if layers are to be found by them (see `Backbone`).
        layer: the name itself, or a stride: the module that ends the stage of that stride.
        argument: what the user wrote it under, for the message.

    Raises:
        ConfigError: there is no such module or stride.
    """
    if isinstance(layer, int):
        strides = getattr(backbone, "strides", {})
        if layer in strides:
            return str(strides[layer])
        known = ", ".join(map(str, sorted(strides))) or "it tells none"
        raise ConfigError(f"{argument}: the backbone has no stride {layer} ({known}); name a module instead")
    names = [name for name, _ in backbone.named_modules() if name]
    if layer in names:
        return layer
    ending = [name for name in names if name.endswith(f".{layer}")]
    hint = f" (did you mean {', '.join(ending[:3])}?)" if ending else near(layer, names)
    raise ConfigError(f"{argument}: the backbone has no module {layer!r}{hint}")


def channels_come_last(shape: Sequence[int], image: Sequence[int]) -> bool:
    """Whether a map of four dimensions is `[B, h, w, D]`, by its aspect and that of the image `[..., H, W]`.

    >>> channels_come_last([2, 32, 24, 96], [64, 48]), channels_come_last([2, 96, 32, 24], [64, 48])
    (True, False)
    """
    aspect = math.log(image[-2] / image[-1])
    first, last = (abs(math.log(shape[i] / shape[i + 1]) - aspect) for i in (1, 2))
    return first < last
