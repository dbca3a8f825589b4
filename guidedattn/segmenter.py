"""Trains the network whose masks guide a classifier."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

from guidedattn.checkpoints import reading
from guidedattn.component import build_callable, default, describe
from guidedattn.errors import DataError
from guidedattn.guidance import resize
from guidedattn.masks.unet import create_unet, for_unet
from guidedattn.optim import parameter_groups, scheduler_config


class CrossEntropyDice(nn.Module):
    """Binary cross-entropy plus the soft Dice loss."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and target in [0, 1], both `[B, 1, h, w]`, to a scalar."""
        return F.binary_cross_entropy_with_logits(logits, target) + soft_dice_loss(logits, target)


class MaskSegmenter(pl.LightningModule):
    """A binary segmentation network, a U-Net by default; `UNetMask` loads its checkpoint.

    Images without a mask do not count.

    Args:
        architecture: of segmentation_models_pytorch: `Unet`, `FPN`, ...
        encoder: of segmentation_models_pytorch: `resnet18`, `mobilenet_v2`, `tu-<timm model>`, ...
        encoder_weights: see `create_unet`; random without it.
        image_size: side of the square that the network sees; Dice and IoU are measured at the masks' size.
        criterion: builds the loss, a module of logits and target `[B, 1, h, w]`: by class path, for
            instance `segmentation_models_pytorch.losses.DiceLoss` with `mode: binary`.
        optimizer: parameters to optimiser.
        lr_scheduler: optimiser to scheduler.

    Raises:
        ConfigError: no such architecture or encoder, or no weights for it.
    """

    def __init__(
        self,
        architecture: str = "Unet",
        encoder: str = "resnet18",
        encoder_weights: str | Path | None = None,
        image_size: int = 256,
        criterion: Callable[[], nn.Module] = default(CrossEntropyDice),
        optimizer: OptimizerCallable = default(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.net = create_unet(architecture, encoder, encoder_weights)
        make_criterion = build_callable(criterion, nn.Module)
        self.criterion = make_criterion()
        self.optimizer = build_callable(optimizer, Optimizer)
        self.lr_scheduler = None if lr_scheduler is None else build_callable(lr_scheduler, LRScheduler)
        self.save_hyperparameters(
            {
                "architecture": architecture,
                "encoder": encoder,
                "encoder_weights": None,
                "image_size": image_size,
                "criterion": describe(make_criterion),
                "optimizer": describe(self.optimizer),
                "lr_scheduler": describe(self.lr_scheduler),
            },
            logger=False,
        )
        scores = {"dice": BinaryF1Score, "iou": BinaryJaccardIndex}
        self.metrics = nn.ModuleDict(
            {
                stage: nn.ModuleDict({name: score() for name, score in scores.items()})
                for stage in ("val", "test")
            }
        )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        """As Lightning's, always with `weights_only=True`.

        Raises:
            CheckpointError: unreadable, or not made of plain values.
        """
        with reading(checkpoint_path):
            return super().load_from_checkpoint(checkpoint_path, **{**kwargs, "weights_only": True})

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities `[B, 1, H, W]` of images `[B, C, H, W]` in [0, 1]."""
        return resize(self.net(for_unet(images, self.image_size)).float().sigmoid(), images)

    def _step(self, batch: dict[str, Any], stage: str) -> Tensor:
        if "mask" not in batch:
            raise DataError("the data has no masks: a MaskSegmenter needs images with masks")
        has_mask = batch.get("has_mask", torch.ones(len(batch["image"]), dtype=torch.bool))
        images, masks = batch["image"][has_mask], batch["mask"][has_mask]
        if len(images) == 0:
            raise DataError("a batch without a single mask: keep only images with masks (require_mask: true)")
        logits = self.net(for_unet(images, self.image_size)).float()
        target = resize(masks, logits)
        loss: Tensor = self.criterion(logits, target)
        self.log(
            f"{stage}/loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=len(images),
            sync_dist=stage != "train",
        )
        if stage != "train":
            probabilities = resize(logits.sigmoid(), masks)
            for name, metric in self.metrics[stage].items():  # type: ignore[operator]
                metric.update(probabilities, (masks > 0.5).int())
                self.log(
                    f"{stage}/{name}", metric, on_epoch=True, prog_bar=name == "dice", batch_size=len(images)
                )
        return loss

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of one training batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Measure one validation batch."""
        self._step(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Measure one test batch."""
        self._step(batch, "test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, weight decay on weights only, and the scheduler, if any."""
        return scheduler_config(self.optimizer(parameter_groups(self)), self.lr_scheduler)


def soft_dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - 2 |p t| / (|p| + |t|), per image, then averaged (Milletari et al. 2016 with plain sums).

    >>> soft_dice_loss(torch.full((1, 1, 2, 2), 20.0), torch.ones(1, 1, 2, 2)).round(decimals=4)
    tensor(0.)
    """
    probabilities = logits.sigmoid().flatten(1)
    target = target.flatten(1)
    overlap = (probabilities * target).sum(1)
    return (1 - (2 * overlap + 1) / (probabilities.sum(1) + target.sum(1) + 1)).mean()
