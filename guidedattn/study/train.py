"""One run of the study: train, keep the best epoch, and write down every prediction."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch.utils.data import DataLoader

from guidedattn.checkpoints import load_weights
from guidedattn.classifier import GuidedClassifier
from guidedattn.data import ImageDataModule, ImageDataset, StoredMasks, TensorCache
from guidedattn.data.loaders import train_loader
from guidedattn.errors import ConfigError, DataError
from guidedattn.features import FeatureCache, FeatureDataset, HeadTraining, require_pooling_first
from guidedattn.files import locked, whole_file
from guidedattn.jobs import quieten
from guidedattn.mask_cache import MaskCache, fill
from guidedattn.masks import MaskProvider
from guidedattn.study.options import build_data
from guidedattn.study.plan import RUN_KEYS, Run, record, slug
from guidedattn.study.predictions import judge_external, judge_split, save_maps
from guidedattn.study.resume import (
    BEST,
    LAST,
    PROGRESS,
    KeepEpochs,
    RandomState,
    WholeCheckpoints,
    kept,
    prepare,
)


def carry_out(words: Sequence[str], run: Run, folder: Path, trainer_options: dict[str, Any]) -> None:
    """Do a run in a folder beside its place, which takes its name once everything in it is whole.

    Args:
        words: the command line, from which the data are built again.
        run: what to do.
        folder: of all runs.
        trainer_options: more arguments of Lightning's `Trainer`.
    """
    quieten()  # importing Lightning gave it its voice back
    # A job of a call that was killed may still run on a cluster: its successor waits, and has nothing to do.
    with locked(folder.parent / ".locks" / run.name, wait=True):
        if not record(folder, run.name).exists():
            part = folder / f".{run.name}.part"
            if not _whole(part, run):
                _carry_out(words, run, folder, part, trainer_options)
            for name in (LAST, PROGRESS):
                (part / name).unlink(missing_ok=True)
            shutil.rmtree(folder / run.name, ignore_errors=True)  # no finished run
            part.rename(folder / run.name)


def _whole(part: Path, run: Run) -> bool:
    """Whether all is there but the name: the run's record is written last."""
    path = record(part.parent, part.name)
    return path.exists() and bool(json.loads(path.read_text())["settings"] == run.settings)


def _carry_out(
    words: Sequence[str], run: Run, folder: Path, part: Path, trainer_options: dict[str, Any]
) -> None:
    last, keep = prepare(part, run.settings), KeepEpochs(part, run.settings)
    pl.seed_everything(run.seed, workers=True, verbose=False)
    data, _ = build_data(words, run.image_size)
    data.setup("fit")
    model = _model(run, data, folder)
    callbacks: list[pl.Callback] = [keep]
    if run.stage > 1 and _image_alone(model) is not None:
        callbacks.append(MaskCache(folder.parent / "masks"))
    trainer = _trainer(run, callbacks, trainer_options)
    if run.stage == 1:
        _train_head(model, data, run, trainer, FeatureCache(folder.parent / "features"), last)
    else:
        trainer.fit(model, data, ckpt_path=last, weights_only=True)
    model = _best(model, trainer, run, part)
    training = kept(part)  # from the file: the trainer may have trained in other processes
    with whole_file(part / "history.csv") as file:
        pd.DataFrame(training["history"]).to_csv(file, index=False)
    judging = time.time()
    summary = {
        "settings": run.settings,
        **{key: getattr(run, key) for key in RUN_KEYS},
        **_judge(model, words, run, folder, part, trainer.strategy.root_device),
        "resumed": training["resumed"],
        "seconds": training["seconds"] + time.time() - judging,
    }
    with whole_file(record(part.parent, part.name)) as file:
        json.dump(summary, file, indent=2)


def _model(run: Run, data: ImageDataModule, folder: Path) -> GuidedClassifier:
    if data.multi_label:
        raise ConfigError("a study judges one class per image; data.multi_label must be false")
    start = None if run.start is None else folder / run.start / "best.ckpt"
    names = {"num_classes": data.num_classes, "class_names": data.class_names}
    return GuidedClassifier(**{**run.arguments, **names, "initial_weights": start})


def _trainer(run: Run, callbacks: Sequence[pl.Callback], options: dict[str, Any]) -> pl.Trainer:
    """The trainer of a run.

    Raises:
        ConfigError: epochs without validation, or a strategy that begins by calling the command again.
    """
    if options.get("check_val_every_n_epoch", 1) != 1:
        raise ConfigError("trainer.check_val_every_n_epoch must be 1: every epoch is judged")
    trainer = pl.Trainer(
        max_epochs=run.training.epochs,
        logger=False,
        plugins=[WholeCheckpoints(), LightningEnvironment()],  # a run is one job, whatever started it
        callbacks=[EarlyStopping("val/loss", patience=run.training.patience), RandomState(), *callbacks],
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        **options,
    )
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
        raise ConfigError(
            "trainer.strategy starts the whole command again in every process: several devices need ddp_spawn"
        )
    return trainer


def _train_head(
    model: GuidedClassifier,
    data: ImageDataModule,
    run: Run,
    trainer: pl.Trainer,
    cache: FeatureCache,
    last: Path | None,
) -> None:
    device = trainer.strategy.root_device
    val_batches = data.val_dataloader()
    with torch.no_grad():
        model.backbone.eval()
        require_pooling_first(model.head, model.backbone(next(iter(val_batches))["image"]))
    val_features, val_labels = cache.pooled(model.backbone, val_batches, device)
    views = []
    data.predict_split = "train"  # in order, and augmented as in training
    for view in range(run.views if data.augment is not None else 1):
        with torch.random.fork_rng():
            torch.manual_seed(view)  # the same views for every body's repeats
            features, labels = cache.pooled(model.backbone, data.predict_dataloader(), device)
        views.append(features)
    batch_size = data.batch_size
    train = train_loader(FeatureDataset(views, labels), batch_size, 0, data.seed)
    val = DataLoader(FeatureDataset([val_features], val_labels), batch_size)
    trainer.fit(HeadTraining(model), train, val, ckpt_path=last, weights_only=True)


def _best(model: GuidedClassifier, trainer: pl.Trainer, run: Run, part: Path) -> GuidedClassifier:
    """The weights of the epoch with the lowest validation loss, as a checkpoint of the whole classifier.

    Raises:
        DataError: the validation loss was never finite.
    """
    best = part / BEST
    if not best.is_file():
        raise DataError(f"{run.name}: the validation loss was never finite; lower the learning rate")
    if run.stage == 1:
        load_weights(model, best, parts=("head.",))
        trainer.strategy.connect(model)
        trainer.save_checkpoint(best, weights_only=True)
    return GuidedClassifier.load_from_checkpoint(best)


def _image_alone(model: GuidedClassifier) -> MaskProvider | None:
    """The model's mask provider, if its masks are worth keeping for all runs."""
    provider = model.mask_provider
    return provider if isinstance(provider, MaskProvider) and provider.from_image_alone else None


def _keep_masks(model: GuidedClassifier, data: ImageDataModule, folder: Path) -> None:
    """What `MaskCache` does, without a trainer."""
    provider, cache = _image_alone(model), TensorCache(folder.parent / "masks")
    if provider is None:
        return

    def stored(dataset: ImageDataset) -> StoredMasks:
        return fill(cache, provider, dataset, data.batch_size, data.num_workers, model.device)

    data.mask_cache = stored


def _judge(
    model: GuidedClassifier, words: Sequence[str], run: Run, folder: Path, part: Path, device: torch.device
) -> dict[str, Any]:
    """Write predictions on every set and maps of a few test images; returns what the body is."""
    model.eval().to(device)
    data, external = build_data(words, run.image_size)
    data.augment = None
    for module in (data, *external.values()):
        _keep_masks(model, module, folder)
    data.setup("fit")
    accuracies = {
        split: judge_split(model, data, split, part / "predictions" / f"{split}.csv", device)
        for split in ("train", "val", "test")
    }
    for name, module in external.items():
        judge_external(
            model, module, data.class_names, part / "predictions" / f"external-{slug(name)}.csv", device
        )
    save_maps(model, data, part / "maps.npz", device)
    with torch.no_grad():
        shape = model.backbone(
            torch.zeros(1, data.channels, data.image_size, data.image_size, device=device)
        ).shape
    nets = (model.backbone, model.head)  # without the mask provider
    state = [value for net in nets for value in net.state_dict().values()]
    body = getattr(model.backbone, "name", type(model.backbone).__name__)
    return {
        "val_accuracy": accuracies["val"],
        "class_names": list(data.class_names),
        "architecture": body,
        "image_size": data.image_size,
        "feature_map": list(shape[1:]),
        "parameters": sum(p.numel() for net in nets for p in net.parameters()),
        "bytes": sum(value.numel() * value.element_size() for value in state),
    }
