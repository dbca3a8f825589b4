"""What the caches save: masks that are read instead of computed, images that are not decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guidedattn.backbones import TimmBackbone
from guidedattn.classifier import GuidedClassifier
from guidedattn.data import MaskedImageDataset, Record, TensorCache
from guidedattn.data.images import as_picture
from guidedattn.gates import MultiplyGate
from guidedattn.masks import UNetMask

Step = Callable[[], None]
SIDE = 4096
"""Side of a full-size radiograph in pixels: 16.8 megapixels."""


def mask_steps(backbone: str, batch: dict[str, Tensor], folder: Path) -> dict[str, Step]:
    """A training step with the gate on masks of a U-Net: computed in the step, and read from a cache.

    The second reads the masks of its batch from files within the step, as if there were no workers.
    """
    torch.manual_seed(0)
    size = batch["image"].shape[-1]
    unet = UNetMask(image_size=size)
    model = GuidedClassifier(backbone=TimmBackbone(backbone), mask_provider=unet, gate=MultiplyGate()).train()
    cache = TensorCache(folder)
    for index, mask in enumerate((batch["mask"] > 0.5).float()):
        cache.write(("mask", index), mask)

    def read() -> Tensor:
        masks = [cache.read(("mask", index), (1, size, size)) for index in range(len(batch["image"]))]
        return torch.stack([mask for mask in masks if mask is not None])

    def step(batch: dict[str, Tensor]) -> None:
        model.zero_grad()
        torch.autograd.backward(model.losses(model.guide(batch))["loss"])

    def kept() -> None:
        provided = torch.ones(len(batch["image"]), dtype=torch.bool)
        step({**batch, "mask": read(), "has_mask": provided, "mask_provided": provided})

    return {"gate, masks of a U-Net": lambda: step(batch), "gate, its masks from MaskCache": kept}


def reading_steps(folder: Path, image_size: int) -> dict[str, Step]:
    """Reading one film of 16 megapixels per step, as PNG and JPEG, with and without the image cache."""
    rng = np.random.default_rng(0)
    coarse = as_picture(rng.integers(0, 256, (64, 64), dtype=np.uint8)).resize((SIDE, SIDE))
    film = np.asarray(coarse) * 0.9 + rng.integers(0, 16, (SIDE, SIDE))  # noise, as a detector's
    steps: dict[str, Step] = {}
    for name in ("png", "jpg"):
        path = folder / f"film.{name}"
        as_picture(film.astype(np.uint8)).save(path)
        for cache in (None, TensorCache(folder / "cache")):
            dataset = MaskedImageDataset([Record(path, "film", "bench")], ["film"], image_size, cache=cache)
            steps[f"{name.upper()}, {'decoded' if cache is None else 'cached'}"] = _reader(dataset)
    return steps


def _reader(dataset: MaskedImageDataset) -> Step:
    def step() -> None:
        dataset[0]

    return step
