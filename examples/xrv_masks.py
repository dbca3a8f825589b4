"""Masks from torchxrayvision's anatomy network: lungs, heart and more, without a U-Net of one's own.

pip install torchxrayvision
guidedattn fit --config stage3.yaml --model.mask_provider examples.xrv_masks.AnatomyMask

On first use it downloads its weights to `~/.torchxrayvision`; a folder that holds them can be named instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from guidedattn.errors import ConfigError, near
from guidedattn.guidance import resize
from guidedattn.masks import MaskProvider


class AnatomyMask(MaskProvider):
    """Structures found by the PSPNet of torchxrayvision, trained on ChestX-Det (Lian et al. 2021).

    Args:
        structures: their union is the mask; names are the network's.
        threshold: probability above which a pixel is inside.
        cache_dir: folder of the weights.

    Raises:
        ConfigError: torchxrayvision is missing, its weights cannot be had, or it knows no such structure.
    """

    def __init__(
        self,
        structures: Sequence[str] = ("Left Lung", "Right Lung"),
        threshold: float = 0.5,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        try:
            from torchxrayvision.baseline_models.chestx_det import PSPNet
        except ImportError as error:
            raise ConfigError("AnatomyMask needs torchxrayvision: pip install torchxrayvision") from error
        for name in structures:
            if name not in PSPNet.targets:
                raise ConfigError(f"AnatomyMask: no structure {name!r}{near(name, PSPNet.targets)}")
        try:
            self.net = PSPNet(cache_dir=None if cache_dir is None else str(cache_dir))
        except Exception as error:
            raise ConfigError(
                "AnatomyMask: torchxrayvision cannot download or read its weights; put "
                "pspnet_chestxray_best_model_4.pth from its releases on GitHub into cache_dir "
                f"({type(error).__name__})"
            ) from error
        self.channels = [PSPNet.targets.index(name) for name in structures]
        self.threshold = threshold

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002
        """Ones where any of the structures is, `[B, 1, H, W]`."""
        grey = images.mean(1, keepdim=True)
        square = F.interpolate(grey, (512, 512), mode="bilinear", antialias=True).clamp(0, 1)
        logits: Tensor = self.net(square * 2048 - 1024)  # the size and range in which it takes X-rays
        found = logits[:, self.channels].sigmoid().amax(1, keepdim=True)
        return (resize(found, images) > self.threshold).float()
