"""What is measured inside a run: the classifier's metrics, and two of its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import AUROC, Accuracy, F1Score
from torchmetrics.wrappers import ClasswiseWrapper

from guidedattn.guidance import EPS, Guidance, is_dead, resize


def energy_in_mask(maps: Tensor, mask: Tensor) -> Tensor:
    """Share of the rectified map that lies inside the mask, `[B]`; NaN where the map is dead.

    Energy-based pointing game (Wang et al. 2020, Score-CAM): sum(A m) / sum(A). The map is enlarged to the
    mask. It says where the map lies, not what the prediction depends on.

    Args:
        maps: `[B, 1, h, w]`; its negative part is ignored.
        mask: `[B, 1, H, W]` in [0, 1].

    >>> half = torch.tensor([[[[1.0, 0.0]]]])
    >>> energy_in_mask(torch.tensor([[[[3.0, 1.0]]]]), half)
    tensor([0.7500])
    """
    attention = resize(maps.relu(), mask)
    energy = (attention * mask).sum((1, 2, 3)) / attention.sum((1, 2, 3)).clamp_min(EPS)
    return torch.where(is_dead(maps.relu()), torch.nan, energy)


class EnergyInMask(Metric):
    """Mean of `energy_in_mask` over samples that have a mask and a living map."""

    total: Tensor
    number: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("number", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, maps: Tensor, mask: Tensor, has_mask: Tensor) -> None:
        """Add maps `[B, 1, h, w]`, masks `[B, 1, H, W]` and `[B]` bool."""
        energy = energy_in_mask(maps, mask)
        counted = has_mask & energy.isfinite()
        self.total += torch.where(counted, energy, 0.0).sum()
        self.number += counted.sum()

    def compute(self) -> Tensor:
        """The mean; NaN without a sample."""
        return self.total / self.number


class DeadMaps(Metric):
    """Share of maps that show nothing for their class: constant or all zero once rectified."""

    total: Tensor
    number: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("number", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, maps: Tensor) -> None:
        """Add maps `[B, 1, h, w]`."""
        self.total += is_dead(maps.relu()).sum()
        self.number += len(maps)

    def compute(self) -> Tensor:
        """The share; NaN without a sample."""
        return self.total / self.number


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
    """

    def __init__(self, class_names: Sequence[str], multi_label: bool, losses: Sequence[str] = ()) -> None:
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
        self.energy_in_mask = EnergyInMask()
        self.dead_maps = DeadMaps()

    def update(self, guidance: Guidance, parts: Sequence[tuple[Tensor, Tensor]], attention: bool) -> None:
        """Add a batch and the parts of its loss (see `LossMeans`); its map too if `attention`."""
        self.losses.update(parts)
        self.classification.update(guidance.probabilities.detach(), guidance.target.int())
        if attention:
            maps = guidance.attention.detach()
            self.energy_in_mask.update(maps, guidance.mask, guidance.has_mask)
            self.dead_maps.update(maps)

    def compute(self) -> dict[str, Tensor]:
        """What could be measured so far, and start again."""
        values: dict[str, Tensor] = {**self.losses.compute(), **self.classification.compute()}
        if self.dead_maps.update_called:
            values |= {"energy_in_mask": self.energy_in_mask.compute(), "dead_maps": self.dead_maps.compute()}
        for metric in (self.losses, self.classification, self.energy_in_mask, self.dead_maps):
            metric.reset()
        return {name: value.float() for name, value in values.items() if value.isfinite()}


def margin(logits: Tensor, target: Tensor) -> Tensor:
    """True logit minus the largest other one, `[B]`; positive where the prediction is right.

    >>> margin(torch.tensor([[3.0, 1.0, 2.5]]), torch.tensor([0]))
    tensor([0.5000])
    """
    true = logits.gather(1, target[:, None]).squeeze(1)
    others = logits.scatter(1, target[:, None], -torch.inf)
    return true - others.amax(1)


def reliance(matched: Tensor, swapped: Tensor, reference: Tensor) -> Tensor:
    """How much the prediction hangs on what lies outside: mean |shift of the margin| in its own units.

    Args:
        matched: `[N]` margins with the marker that agrees with the class.
        swapped: `[N]` margins of the same images with another class's marker.
        reference: `[N]` margins whose standard deviation is the unit: those of a model trained without the
            marker or, where there is none, the same model's without the marker.

    >>> reliance(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 1.0]), torch.tensor([1.0, 3.0]))
    tensor(1.4142)
    """
    return (matched - swapped).abs().mean() / reference.std().clamp_min(EPS)
