"""Stage I without its waste: a frozen backbone gives the same features in every epoch, so ask it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import Dataset

from guidedattn.backbones import Backbone
from guidedattn.classifier import GuidedClassifier
from guidedattn.component import describe
from guidedattn.errors import ConfigError, DataError
from guidedattn.files import whole_path
from guidedattn.gates import OpenGate
from guidedattn.heads import Head
from guidedattn.optim import parameter_groups, scheduler_config

VERSION = 1
"""Part of every entry's name: raise it when features are pooled or stored otherwise."""


class FeatureCache:
    """Globally average-pooled features of a frozen backbone, one small file per batch of images.

    An entry's name is a digest of the backbone (recipe, parameters and buffers) and of the pixels that it was
    shown, so an entry is never stale: other weights, images, sizes or augmented views ask for another name.
    Entries are whole or absent; a killed pass goes on where it stopped, and any number of processes may
    fill and read one folder. The backbone runs in eval mode.

    Args:
        folder: where the entries lie; made when the first is written.

    Attributes:
        computed: batches that went through a backbone.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.computed = 0

    def pooled(
        self, backbone: Backbone, batches: Iterable[Mapping[str, Any]], device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Features `[N, D]` and labels `[N]` (multi-label: `[N, K]`) of the images, in their order.

        Args:
            backbone: comes back on the CPU, its mode unchanged.
            batches: dicts of `image` and `label`.
            device: where the backbone runs.

        Raises:
            DataError: there is no image, or the folder cannot be written to.
        """
        was_training, network = backbone.training, backbone_digest(backbone)
        backbone.eval().to(device)
        features, labels = [], []
        try:
            for batch in batches:
                features.append(self._pooled(backbone, network, batch["image"], device))
                labels.append(batch["label"])
        finally:
            backbone.train(was_training).to("cpu")
        if not features:
            raise DataError("no image to compute features of")
        return torch.cat(features), torch.cat(labels)

    def _pooled(self, backbone: Backbone, network: str, images: Tensor, device: torch.device | str) -> Tensor:
        pixels = np.ascontiguousarray(images.numpy())
        name = hashlib.sha256(f"{VERSION} {network} {pixels.dtype} {pixels.shape}".encode())
        name.update(pixels.data)
        path = self.folder / name.hexdigest()[:2] / f"{name.hexdigest()}.npy"
        known = _read(path, (len(images), backbone.channels))
        if known is not None:
            return known
        with torch.no_grad():
            features: Tensor = backbone(images.to(device)).float().mean((2, 3)).cpu()
        self.computed += 1
        try:
            with whole_path(path) as part, part.open("wb") as file:
                np.save(file, features.numpy(), allow_pickle=False)
        except OSError as error:
            raise DataError(f"features {self.folder}: {error.strerror or error}") from None
        return features


def _read(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """An entry; None if there is none, or a damaged one."""
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(stored) if stored.shape == shape and stored.dtype == np.float32 else None


def backbone_digest(backbone: Backbone) -> str:
    """Identifies what a backbone computes: its recipe, its parameters and its buffers."""
    digest = hashlib.sha256(json.dumps(describe(backbone), sort_keys=True, default=str).encode())
    for name, value in [*backbone.named_parameters(), *backbone.named_buffers()]:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class FeatureDataset(Dataset[dict[str, Tensor]]):
    """Pooled features as maps of one cell, `feature` `[D, 1, 1]`, and `label`.

    Args:
        views: one or several `[N, D]`, of the same images under different augmentations; with several, each
            access draws one.
        labels: `[N]` or `[N, K]`.
    """

    def __init__(self, views: Sequence[Tensor], labels: Tensor) -> None:
        self.views, self.labels = torch.stack(tuple(views))[..., None, None], labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return features and label of one image."""
        view = int(torch.randint(len(self.views), ())) if len(self.views) > 1 else 0
        return {"feature": self.views[view, index], "label": self.labels[index]}


class HeadTraining(pl.LightningModule):
    """Trains the head of a classifier, in place, on pooled features; logs `train|val` `/` `loss, accuracy`.

    The global average of a map of one cell is the map, so a head that begins by pooling gives the same
    logits, and gets the same gradients, as behind its frozen backbone.

    Args:
        model: single-label, with `freeze_backbone` and without guidance.

    Raises:
        ConfigError: the model has gates, attention losses or a backbone that is not frozen.
    """

    def __init__(self, model: GuidedClassifier) -> None:
        super().__init__()
        gated = not all(isinstance(gate, OpenGate) for gate in (model.gate, model.input_gate))
        if gated or len(model.attention_losses) or not model.freeze_backbone or model.multi_label:
            raise ConfigError(
                "only a single-label head behind a frozen backbone, without gates and attention losses, "
                "trains on cached features"
            )
        self.head, self.criterion = model.head, model.criterion
        self._optimizer, self._lr_scheduler = model.optimizer, model.lr_scheduler

    def _step(self, batch: dict[str, Tensor], stage: str) -> Tensor:
        logits = self.head(batch["feature"])
        loss: Tensor = self.criterion(logits, batch["label"])
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        values = {f"{stage}/loss": loss, f"{stage}/accuracy": accuracy}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(logits))
        return loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of one training batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Measure one validation batch."""
        self._step(batch, "val")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The classifier's own optimiser and scheduler, over the head."""
        return scheduler_config(self._optimizer(parameter_groups(self)), self._lr_scheduler)


@torch.no_grad()
def require_pooling_first(head: Head, features: Tensor) -> None:
    """Make sure that a head sees nothing of features `[B, D, h, w]` but their global average.

    Raises:
        ConfigError: it does.
    """
    was_training = head.training
    head.eval()
    try:
        same = torch.allclose(head(features), head(features.mean((2, 3), keepdim=True)), rtol=1e-3, atol=1e-4)
    except RuntimeError:  # a map of one cell is too small for it
        same = False
    head.train(was_training)
    if not same:
        raise ConfigError(
            f"{type(head).__name__} does not begin with global average pooling, so it cannot train on "
            "pooled features"
        )
