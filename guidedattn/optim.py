"""What the modules share about optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: weights, and biases and norms without weight decay.

    >>> groups = parameter_groups(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    >>> [[tuple(p.shape) for p in group["params"]] for group in groups]
    [[(3, 2)], [(3,), (3,), (3,)]]
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    weights = {"params": [p for p in trainable if p.ndim > 1]}
    rest = {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0}
    return [group for group in (weights, rest) if group["params"]]


def scheduler_config(optimizer: Optimizer, lr_scheduler: Callable[..., Any] | None) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns; a scheduler steps per epoch, or per batch if its kind does."""
    if lr_scheduler is None:
        return optimizer
    scheduler = lr_scheduler(optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor},
        }
    interval = "step" if isinstance(scheduler, OneCycleLR | CyclicLR) else "epoch"
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}
