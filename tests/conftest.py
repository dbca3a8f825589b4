"""Small models and batches that every test can build in milliseconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guidedattn.backbones import ModuleBackbone
from guidedattn.classifier import GuidedClassifier
from guidedattn.heads import LinearHead

torch.set_num_threads(2)


def tiny_backbone(norm: str = "batch", channels: int = 6) -> ModuleBackbone:
    """Images [B, 1, H, W] to features [B, 6, H/4, W/4] by two small convolutions."""
    layer: nn.Module = nn.BatchNorm2d(4) if norm == "batch" else nn.GroupNorm(2, 4)
    return ModuleBackbone(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1), layer, nn.ELU(),
            nn.Conv2d(4, channels, 3, stride=2, padding=1), nn.ELU(),
        ),
        channels=channels, mean=[0.5], std=[0.25],
    )  # fmt: skip


def tiny_classifier(norm: str = "batch", **kwargs: Any) -> GuidedClassifier:
    """A classifier on `tiny_backbone`."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {"backbone": tiny_backbone(norm), "head": LinearHead(), **kwargs}
    return GuidedClassifier(**arguments)


def make_batch(size: int = 4, side: int = 16, masks: bool = True, seed: int = 0) -> dict[str, Any]:
    """A batch of noise with random masks; the last image has none."""
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Any] = {
        "image": torch.rand(size, 1, side, side, generator=generator),
        "label": torch.arange(size) % 3,
        "index": torch.arange(size),
        "path": [f"image-{i}" for i in range(size)],
    }
    if masks:
        mask: Tensor = (torch.rand(size, 1, side, side, generator=generator) > 0.5).float()
        batch["mask"], batch["has_mask"] = mask, torch.arange(size) < size - 1
    return batch


@pytest.fixture
def batch() -> dict[str, Any]:
    return make_batch()
