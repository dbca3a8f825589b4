"""Layers inside a backbone: modules by name or by stride, and how their outputs lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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
    if isinstance(layer, int) or layer.isdigit():
        strides = getattr(backbone, "strides", {})
        if int(layer) in strides:
            return str(strides[int(layer)])
        known = ", ".join(map(str, sorted(strides))) or "it tells none"
        raise ConfigError(f"{argument}: the backbone has no stride {layer} ({known}); name a module instead")
    names = [name for name, _ in backbone.named_modules() if name]
    if layer in names:
        return layer
    ending = [name for name in names if name.endswith(f".{layer}")]
    hint = f" (did you mean {', '.join(ending[:3])}?)" if ending else near(layer, names)
    raise ConfigError(f"{argument}: the backbone has no module {layer!r}{hint}")


def is_only_way(backbone: nn.Module, name: str, image: Tensor) -> bool:
    """Whether all that the backbone knows of an image passes through the output of a module, once.

    Args:
        backbone: images to features.
        name: of the module inside it.
        image: `[1, C, H, W]`, of a size that the backbone takes.
    """
    passed = []

    def cut(module: nn.Module, inputs: Any, output: Any) -> Any:  # noqa: ARG001
        passed.append(name)
        return output.detach() if isinstance(output, Tensor) else output

    modes = {module: module.training for module in backbone.modules()}
    handle = backbone.get_submodule(name).register_forward_hook(cut)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            image = image.clone().requires_grad_()
            features = backbone.eval()(image)  # or the image would enter BatchNorm statistics
        reached = features.requires_grad and torch.autograd.grad(features.sum(), image, allow_unused=True)[0]
        return len(passed) == 1 and not isinstance(reached, Tensor)
    finally:
        handle.remove()
        for module, training in modes.items():
            module.training = training


def channels_come_last(shape: Sequence[int], image: Sequence[int], in_doubt: bool = False) -> bool | None:
    """Whether an output of four dimensions is `[B, h, w, D]`, not `[B, D, h, w]`, by the image's sides.

    Args:
        shape: of the output.
        image: `[..., H, W]`.
        in_doubt: the answer where D could be a side.

    Returns:
        None if it is neither: no map of the image.

    >>> channels_come_last([2, 32, 24, 96], [64, 48]), channels_come_last([2, 96, 32, 24], [64, 48])
    (True, False)
    """
    height, width = image[-2:]

    def fits(rows: int, columns: int) -> bool:
        """Same aspect, give or take two cells."""
        return abs(rows * width - columns * height) <= 2 * max(height, width)

    first, last = fits(shape[2], shape[3]), fits(shape[1], shape[2])
    if not first and not last:
        return None
    return last and (in_doubt or not first)
