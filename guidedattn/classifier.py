"""The guided classifier: backbone, gate, head, and attention losses on what one forward pass knew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from guidedattn.backbones import Backbone, TimmBackbone
from guidedattn.checkpoints import load_weights, reading
from guidedattn.component import build, build_callable, default, describe
from guidedattn.errors import ConfigError, DataError
from guidedattn.explainers import Explainer, GradCAM
from guidedattn.gates import FeatureGate, OpenGate
from guidedattn.guidance import Guidance
from guidedattn.heads import Head, MLPHead
from guidedattn.losses import AttentionLoss
from guidedattn.masks import BatchMask, MaskProvider
from guidedattn.metrics import StageMetrics, energy_in_mask
from guidedattn.optim import parameter_groups, scheduler_config

PAPER_OPTIMIZER = default(torch.optim.SGD, lr=1e-4, weight_decay=0.002)
"""The paper's: SGD at 1e-4; its L2 penalty of 0.001 on the weights is a weight decay of 0.002."""


class GuidedClassifier(pl.LightningModule):
    """An image classifier that can be told where to look.

    Every batch goes one way: images, mask, features, gated features, logits (or the gate acts between two
    layers of the backbone). What the pass knew is a `Guidance`; the loss is `criterion + sum of attention
    losses(guidance)`. Defaults make a plain classifier with the paper's head and optimiser: no gate, no
    attention loss, masks (if the data has any) only measured against.

    Each component may be an object or a recipe (`{"class_path": ..., "init_args": ...}`). Checkpoints hold
    recipes: `GuidedClassifier.load_from_checkpoint(path)` needs nothing else, not even the weights files
    that the components started from.

    Args:
        num_classes: K.
        backbone: images to features `[B, D, h, w]`.
        head: gated features to logits.
        mask_provider: where to look; always in eval mode and never trained.
        gate: direct guidance: how the mask acts on the features, the last or those of an inner layer.
        input_gate: the same on the images, for classifiers that see only the mask's inside (or outside).
        explainer: the attention map that losses and metrics see.
        attention_losses: indirect guidance; each brings its weight.
        criterion: logits and target to a scalar; cross-entropy by default, binary if `multi_label`.
        multi_label: targets are `[B, K]` multi-hot instead of `[B]` indices.
        freeze_backbone: train the head only (the paper's stage I); the backbone stays in eval mode.
        robustness: when testing, also measure pointing game and IoU of the maps, and the prediction with the
            outside of the mask swapped, blurred and removed (see `guidedattn.metrics.MEANING`).
        initial_weights: start from the weights of this checkpoint of a `GuidedClassifier` (stage II from I,
            III from II), as far as names and shapes agree in backbone and head.
        class_names: for logs and tables; by default the data module's, or numbers.
        optimizer: parameters to optimiser. Weight decay acts on weights only, not on biases and norms.
        lr_scheduler: optimiser to scheduler.

    Raises:
        ConfigError: components that do not fit each other.
        CheckpointError: `initial_weights` cannot be read or does not fit.
    """

    def __init__(
        self,
        num_classes: int = 3,
        backbone: Backbone = default(TimmBackbone),
        head: Head = default(MLPHead),
        mask_provider: MaskProvider = default(BatchMask),
        gate: FeatureGate = default(OpenGate),
        input_gate: FeatureGate = default(OpenGate),
        explainer: Explainer = default(GradCAM),
        attention_losses: Sequence[AttentionLoss] = (),
        criterion: nn.Module | None = None,
        multi_label: bool = False,
        freeze_backbone: bool = False,
        robustness: bool = False,
        initial_weights: str | Path | None = None,
        class_names: Sequence[str] | None = None,
        optimizer: OptimizerCallable = PAPER_OPTIMIZER,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.freeze_backbone = freeze_backbone
        self.robustness = robustness
        self.class_names = tuple(class_names or ())
        self.backbone = build(backbone, Backbone)
        self.head = build(head, Head)
        self.mask_provider = build(mask_provider, MaskProvider).requires_grad_(False)
        self.gate = build(gate, FeatureGate)
        self.input_gate = build(input_gate, FeatureGate)
        self.explainer = build(explainer, Explainer)
        self.attention_losses = nn.ModuleList(build(loss, AttentionLoss) for loss in attention_losses)
        self.criterion = (
            build(criterion, nn.Module)
            if criterion is not None
            else (nn.BCEWithLogitsLoss() if multi_label else nn.CrossEntropyLoss())
        )
        self.optimizer = build_callable(optimizer, Optimizer)
        self.lr_scheduler = None if lr_scheduler is None else build_callable(lr_scheduler, LRScheduler)
        self.head.attach(self.backbone.channels, num_classes)
        self.explainer.attach(self.backbone)
        self.gate.attach(self.backbone)
        if self.gate.for_images:
            raise ConfigError(f"gate: {type(self.gate).__name__} acts on images: make it the input_gate")
        if self.input_gate.layer is not None:
            raise ConfigError("input_gate acts on the images and takes no layer: give gate the layer")
        if freeze_backbone:
            self.backbone.requires_grad_(False).eval()  # Lightning trains in the mode that it finds
        if initial_weights is not None:
            load_weights(self, initial_weights, parts=("backbone.", "head."))
        self.save_hyperparameters(self._recipe(), logger=False)

    def _recipe(self) -> dict[str, Any]:
        """What `__init__` needs to build this model again, in plain values; its state comes separately."""
        parts = ("backbone", "head", "mask_provider", "gate", "input_gate", "explainer", "criterion")
        return {
            "num_classes": self.num_classes,
            **{part: describe(getattr(self, part)) for part in parts},
            "attention_losses": [describe(loss) for loss in self.attention_losses],
            "multi_label": self.multi_label,
            "freeze_backbone": self.freeze_backbone,
            "robustness": self.robustness,
            "class_names": list(self.class_names) or None,
            "optimizer": describe(self.optimizer),
            "lr_scheduler": describe(self.lr_scheduler),
        }

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        """As Lightning's, always with `weights_only=True`.

        Raises:
            CheckpointError: unreadable, not made of plain values, or of classes that are not there.
        """
        with reading(checkpoint_path):
            return super().load_from_checkpoint(checkpoint_path, **{**kwargs, "weights_only": True})

    # One forward pass ---------------------------------------------------------------------------------

    def forward(self, images: Tensor, batch: Mapping[str, Any] | None = None) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] to logits `[B, K]`; masks, if wanted, come from `batch`."""
        mask, has_mask = self.mask_provider(images, batch or {})
        return self._score(self._features(images, mask, has_mask), mask, has_mask)

    def guide(self, batch: Mapping[str, Any]) -> Guidance:
        """One forward pass over a batch (`image`, optionally `label`, `mask`, `has_mask`, `path`).

        Without labels the predicted class stands in for the target.

        Raises:
            DataError: images or logits that are not finite, with their paths.
            MaskError: the mask provider gave an unusable mask.
        """
        images: Tensor = batch["image"]
        mask, has_mask = self.mask_provider(images, batch)
        with self.explainer.watch(self.backbone) as inner:
            features = self._features(images, mask, has_mask)
        if torch.is_grad_enabled() and not features.requires_grad:
            features.requires_grad_()  # a frozen backbone: the map still depends on the head
        logits = self._score(features, mask, has_mask)
        _check_finite(images, logits, batch)
        predicted = logits.detach().argmax(1)
        stand_in = one_hot(predicted, self.num_classes) if self.multi_label else predicted
        target: Tensor = batch.get("label", stand_in)
        return Guidance(
            images=images,
            target=target,
            class_index=target.argmax(1) if target.ndim == 2 else target,
            mask=mask,
            has_mask=has_mask,
            valid=torch.ones_like(has_mask),
            features=features,
            logits=logits,
            explainer=self.explainer,
            score=lambda features: self._score(features, mask, has_mask),
            rescore=lambda images: self._rescore(images, mask, has_mask),
            inner=inner,
            trace=lambda: self._trace(images, mask, has_mask),
        )

    def _features(self, images: Tensor, mask: Tensor, has_mask: Tensor) -> Tensor:
        mask, has_mask = _plain(mask), _plain(has_mask)
        with self.gate.within(self.backbone, mask, has_mask):
            features: Tensor = self.backbone(self.input_gate(images, mask, has_mask))
        # Head and maps run in float32 under autocast: in half precision maps are off by several percent.
        return features.float() if torch.is_autocast_enabled(images.device.type) else features

    def _score(self, features: Tensor, mask: Tensor, has_mask: Tensor) -> Tensor:
        mask, has_mask = _plain(mask), _plain(has_mask)
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.head(self._gated(features, mask, has_mask))
        return logits

    def _gated(self, features: Tensor, mask: Tensor, has_mask: Tensor) -> Tensor:
        """The last features; a gate on an inner layer has acted before."""
        if self.gate.layer is None:
            features = self.gate(features, mask, has_mask)
        return features

    def _rescore(self, images: Tensor, mask: Tensor, has_mask: Tensor) -> Tensor:
        """A second pass over the first images of the batch; running statistics go to copies, then away."""
        mask, has_mask = _plain(mask[: len(images)]), _plain(has_mask[: len(images)])
        images = self.input_gate(images, mask, has_mask)
        with self.gate.within(self.backbone, mask, has_mask):
            features = _without_buffer_updates(self.backbone, images)
        if torch.is_autocast_enabled(images.device.type):
            features = features.float()
        with torch.autocast(features.device.type, enabled=False):
            return _without_buffer_updates(self.head, self._gated(features, mask, has_mask))

    def _trace(self, images: Tensor, mask: Tensor, has_mask: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        with self.explainer.watch(self.backbone) as inner:
            logits = self._rescore(_plain(images), mask, has_mask)
        return inner, logits

    # Steps --------------------------------------------------------------------------------------------

    def losses(self, guidance: Guidance) -> dict[str, Tensor]:
        """The total under `loss`, and each weighted attention loss under `loss_<name>`; scalars."""
        return self._losses(guidance)[0]

    def _losses(self, guidance: Guidance) -> tuple[dict[str, Tensor], list[tuple[Tensor, Tensor]]]:
        """`losses`, and for the epoch's means their parts: values `[B]` and `[B]` bool, which count."""
        target = guidance.target.to(guidance.logits.dtype) if self.multi_label else guidance.target
        total: Tensor = self.criterion(guidance.logits, target)
        losses, parts = {}, [(total.expand(len(guidance.valid)), guidance.valid)]
        for name, attention_loss in self._named_losses().items():
            parts.append(attention_loss.per_sample(guidance))
            losses[name] = attention_loss.reduce(*parts[-1])
            total = total + losses[name]
        return {"loss": total, **losses}, parts

    def _named_losses(self) -> dict[str, AttentionLoss]:
        named: dict[str, AttentionLoss] = {}
        for position, loss in enumerate(self.attention_losses):
            attention_loss = cast("AttentionLoss", loss)
            name = f"loss_{attention_loss.name}"
            named[name if name not in named else f"{name}_{position}"] = attention_loss
        return named

    def _step(self, batch: Mapping[str, Any], stage: str) -> Tensor:
        guidance = self.guide(batch)
        losses, parts = self._losses(guidance)
        for name, value in losses.items():
            if not bool(value.isfinite()):
                samples = _names(batch, range(min(5, len(guidance.images))))
                raise DataError(f"{stage}/{name} is not finite (NaN or Inf) on the batch with {samples}")
        attention = stage != "train" or guidance.has_attention
        self._metrics(stage).update(guidance, parts, attention)
        return losses["loss"]

    def _metrics(self, stage: str) -> StageMetrics:
        return cast("StageMetrics", getattr(self, f"{stage}_metrics"))

    def _log_epoch(self, stage: str) -> None:
        for name, value in self._metrics(stage).compute().items():
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of one training batch."""
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Measure one validation batch."""
        self._step(batch, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # noqa: ARG002
        """Measure one test batch."""
        self._step(batch, "test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:  # noqa: ARG002
        """The guidance as plain tensors, its map that of the predicted class, and the batch's paths."""
        unlabelled = {key: value for key, value in batch.items() if key != "label"}
        guidance = self.guide(unlabelled)
        energy = energy_in_mask(guidance.attention, guidance.mask)
        return {
            **guidance.as_tensors(),
            "energy_in_mask": torch.where(guidance.has_mask, energy, torch.nan),
            "index": batch.get("index"),
            "path": batch.get("path"),
        }

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log_epoch("train")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics."""
        self._log_epoch("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_epoch("test")

    # Around the steps ---------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Take the class names from the data module and build the metrics that need them.

        Raises:
            ConfigError: the data has another number of classes than the model.
        """
        names = tuple(getattr(getattr(self.trainer, "datamodule", None), "class_names", ()))
        if names and len(names) != self.num_classes:
            raise ConfigError(
                f"model.num_classes is {self.num_classes}, but the data has {len(names)} classes: "
                f"{', '.join(names)}"
            )
        self.class_names = names or self.class_names or tuple(map(str, range(self.num_classes)))
        self.hparams["class_names"] = list(self.class_names)
        for name in ("train", "val", "test"):
            setattr(
                self,
                f"{name}_metrics",
                StageMetrics(
                    self.class_names,
                    self.multi_label,
                    tuple(self._named_losses()),
                    robustness=self.robustness and name == "test",
                ),
            )

    def train(self, mode: bool = True) -> Self:
        """As usual, except that a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over what is trainable, weight decay on weights only, and the scheduler, if any."""
        optimizer = self.optimizer(parameter_groups(self))
        return scheduler_config(optimizer, self.lr_scheduler)


def _without_buffer_updates(module: nn.Module, inputs: Tensor) -> Tensor:
    """Call `module` on copies of its buffers: BatchNorm normalises as usual, and forgets this batch."""
    if not module.training:
        return cast("Tensor", module(inputs))
    copies = {name: buffer.clone() for name, buffer in module.named_buffers()}
    return cast("Tensor", functional_call(module, copies, (inputs,)))


def _plain(tensor: Tensor) -> Tensor:
    """A tensor that autograd may keep, also if it was made under inference mode."""
    return tensor.clone() if tensor.is_inference() and not torch.is_inference_mode_enabled() else tensor


def _check_finite(images: Tensor, logits: Tensor, batch: Mapping[str, Any]) -> None:
    """Stop before NaN reaches a metric, which would turn it into a plausible number.

    Raises:
        DataError: with the paths of the samples concerned.
    """
    bad = ~logits.isfinite().all(1)
    culprit = ~images.flatten(1).isfinite().all(1)
    if not bool((bad | culprit).any()):
        return
    what = "images are" if bool(culprit.any()) else "logits are"
    samples = (culprit if bool(culprit.any()) else bad).nonzero().flatten().tolist()
    raise DataError(
        f"{len(samples)} {what} not finite (NaN or Inf): {_names(batch, samples[:5])}; "
        "check the data or lower the learning rate"
    )


def _names(batch: Mapping[str, Any], samples: Iterable[int]) -> str:
    paths = batch.get("path")
    return ", ".join(str(paths[i]) if paths is not None else f"sample {i}" for i in samples)
