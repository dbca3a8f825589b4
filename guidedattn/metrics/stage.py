"""What is measured over one stage of a run, under the names of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import AUROC, Accuracy, F1Score
from torchmetrics.wrappers import ClasswiseWrapper

from guidedattn.guidance import Guidance
from guidedattn.metrics.background import BackgroundRobustness
from guidedattn.metrics.maps import AttentionIoU, DeadMaps, EnergyInMask, PointingGame


class LossMeans(Metric):
    """Each part of the loss, averaged over the samples of an epoch that count in it, and their sum as `loss`.

    However the samples fall into batches, and batches to processes, the means are the same.

    Args:
        names: of the attention losses; the criterion comes first and needs none.
    """

    total: Tensor
    number: Tensor

    def __init__(self, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.names = tuple(names)
        self.add_state("total", torch.zeros(1 + len(self.names)), dist_reduce_fx="sum")
        self.add_state("number", torch.zeros(1 + len(self.names)), dist_reduce_fx="sum")

    def update(self, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Add a batch: for the criterion and each attention loss `[B]` values and `[B]` bool, which count."""
        self.total += torch.stack([values.detach().float().sum() for values, _ in parts])
        self.number += torch.stack([counted.sum() for _, counted in parts])

    def compute(self) -> dict[str, Tensor]:
        """The sum of the means, and each attention loss; NaN for one in which no sample counted."""
        means = self.total / self.number
        return {"loss": means.nansum(), **dict(zip(self.names, means[1:], strict=True))}


class StageMetrics(nn.Module):
    """All that is measured over one stage of a run, under the names of the log.

    Accuracy, macro and per-class F1 and AUROC from the probabilities (with several labels, accuracy is over
    image-label pairs); energy in mask and dead maps from the same forward pass.

    Args:
        class_names: K names.
        multi_label: whether targets are multi-hot.
        losses: names of the attention losses.
        robustness: measure pointing game, IoU and the prediction under other backgrounds too, at the price of
            three more forward passes.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        multi_label: bool,
        losses: Sequence[str] = (),
        robustness: bool = False,
    ) -> None:
        super().__init__()
        size = len(class_names)
        task: dict[str, Any] = {"task": "multiclass", "num_classes": size}
        if multi_label:
            task = {"task": "multilabel", "num_labels": size}
        f1 = F1Score(**task, average="none")
        self.classification = MetricCollection(
            {
                "accuracy": Accuracy(**task, average="micro"),
                "f1_macro": F1Score(**task, average="macro"),
                "f1": ClasswiseWrapper(f1, labels=list(class_names), prefix="f1_"),
                "auroc": AUROC(**task),
            }
        )
        self.losses = LossMeans(losses)
        maps: dict[str, Metric | MetricCollection] = {"energy_in_mask": EnergyInMask()}
        if robustness:
            maps |= {"pointing_game": PointingGame(), "attention_iou": AttentionIoU()}
        self.maps = MetricCollection(maps, compute_groups=False)
        self.dead_maps = DeadMaps()
        self.background = BackgroundRobustness() if robustness else None

    def update(self, guidance: Guidance, parts: Sequence[tuple[Tensor, Tensor]], attention: bool) -> None:
        """Add a batch and the parts of its loss (see `LossMeans`); its map too if `attention`."""
        self.losses.update(parts)
        self.classification.update(guidance.probabilities.detach(), guidance.target.int())
        if attention:
            maps = guidance.attention.detach()
            self.maps.update(maps, guidance.mask, guidance.has_mask)
            self.dead_maps.update(maps)
        if self.background is not None:
            self.background.update(guidance)

    def compute(self) -> dict[str, Tensor]:
        """What could be measured so far, and start again."""
        values: dict[str, Tensor] = {**self.losses.compute(), **self.classification.compute()}
        if self.dead_maps.update_called:
            values |= {**self.maps.compute(), "dead_maps": self.dead_maps.compute()}
        if self.background is not None:
            values |= self.background.compute()
            self.background.reset()
        for metric in (self.losses, self.classification, self.maps, self.dead_maps):
            metric.reset()
        return {name: value.float() for name, value in values.items() if value.isfinite()}
