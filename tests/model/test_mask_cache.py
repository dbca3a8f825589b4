"""Masks kept once: equal to the live provider's, moved with their images, never a stale one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from guidedattn.data import MaskedImageDataModule, PhantomDataModule
from guidedattn.errors import ConfigError, DataError
from guidedattn.gates import MultiplyGate
from guidedattn.losses import MaskAlignment
from guidedattn.mask_cache import MaskCache
from guidedattn.masks import BatchMask, MaskProvider, UNetMask
from tests.conftest import tiny_classifier

SIDE = 16


class Bright(MaskProvider):
    """Where a blurred image is bright; counts the images that it has seen."""

    from_image_alone = True

    def __init__(self, threshold: float = 0.5, soft: bool = False) -> None:
        super().__init__()
        self.threshold, self.soft, self.seen = threshold, soft, 0
        self.blur = nn.Conv2d(1, 1, 3, padding=1, bias=False)
        nn.init.constant_(self.blur.weight, 1 / 9)

    def provide(self, images: Tensor, batch: Any) -> Tensor:
        self.seen += len(images)
        blurred = self.blur(images).clamp(0, 1)
        return blurred if self.soft else (blurred > self.threshold).float()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        for i in range(10):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (24, 20), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def data_of(root: Path, **options: Any) -> MaskedImageDataModule:
    return MaskedImageDataModule(root=root, image_size=SIDE, batch_size=8, **options)


def trainer(*callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip


def guided(provider: MaskProvider) -> Any:
    return tiny_classifier(mask_provider=provider, gate=MultiplyGate(), attention_losses=[MaskAlignment()])


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_kept_masks_equal_those_of_the_live_provider(
    root: Path, tmp_path: Path, soft: bool, num_workers: int
) -> None:
    def predictions(*callbacks: pl.Callback) -> tuple[Any, int]:
        model = guided(Bright(soft=soft))
        data = data_of(root, num_workers=num_workers)
        return trainer(*callbacks).predict(model, data), model.mask_provider.seen

    live, times = predictions()
    assert times > 0
    for expected in (times, 0):  # computed once, and by the next run not even once
        kept, seen = predictions(MaskCache(tmp_path / "cache"))
        assert seen == expected
        for now, then in zip(kept, live, strict=True):
            assert torch.allclose(now["mask"], then["mask"], atol=1e-5 if soft else 0)
            assert torch.allclose(now["logits"], then["logits"], atol=1e-4)
            assert now["path"] == then["path"]


def test_fit_and_test_learn_and_measure_as_with_the_live_provider(root: Path, tmp_path: Path) -> None:
    def outcome(*callbacks: pl.Callback) -> tuple[dict[str, Tensor], list[dict[str, float]], int]:
        pl.seed_everything(0, verbose=False)
        model, data, engine = guided(Bright()), data_of(root), trainer(*callbacks)
        engine.fit(model, data)
        return model.state_dict(), engine.test(model, data, verbose=False), model.mask_provider.seen

    state, measured, _ = outcome()
    kept_state, kept_measured, seen = outcome(MaskCache(tmp_path / "cache"))
    assert seen == 30
    assert kept_measured == measured
    assert all(torch.equal(kept_state[name], value) for name, value in state.items())


def test_augmentation_moves_image_and_kept_mask_as_one(root: Path, tmp_path: Path) -> None:
    data = data_of(root, augment=v2.RandomHorizontalFlip(1.0))
    provider = Bright()
    model, seen = guided(provider), []
    model.on_train_batch_start = lambda batch, index: seen.append(batch)  # type: ignore[method-assign]
    trainer(MaskCache(tmp_path / "cache")).fit(model, data)
    plain = data_of(root).make_dataset("train")
    for batch in seen:
        for image, mask, index in zip(batch["image"], batch["mask"], batch["index"], strict=True):
            unmoved = plain[int(index)]["image"]
            assert torch.equal(image, unmoved.flip(-1))
            assert torch.equal(mask, provider(unmoved[None], {})[0][0].flip(-1))
    assert data.mask_cache is None


def test_given_masks_are_not_taken_for_the_providers(root: Path, tmp_path: Path) -> None:
    for path in root.rglob("*.png"):
        given = tmp_path / "masks" / path.relative_to(root)
        given.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.repeat(np.uint8([[255], [0]]), 12, 0).repeat(20, 1)).save(given)
    data = data_of(root, mask_root=tmp_path / "masks")
    assert float(data.make_dataset("test")[0]["mask"].mean()) == 0.5
    (batch,) = trainer(MaskCache(tmp_path / "cache")).predict(guided(Bright(0.0)), data) or []
    assert bool((batch["mask"] == 1).all())  # type: ignore[call-overload]


def test_phantoms_are_kept_too(tmp_path: Path) -> None:
    data = PhantomDataModule(train_size=6, val_size=6, test_size=6, image_size=32)
    live = trainer().predict(guided(Bright(0.3)), data)
    kept = trainer(MaskCache(tmp_path)).predict(guided(Bright(0.3)), data)
    assert torch.equal(kept[0]["mask"], live[0]["mask"])  # type: ignore[index, call-overload]
    assert not torch.equal(kept[0]["mask"], next(iter(data.test_dataloader()))["mask"])  # type: ignore[index, call-overload]


def test_a_provider_that_reads_the_batch_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot keep the masks of BatchMask"):
        trainer(MaskCache(tmp_path)).fit(guided(BatchMask()), data_of(root))


def test_a_model_without_a_provider_and_foreign_data_are_refused(root: Path, tmp_path: Path) -> None:
    from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

    with pytest.raises(ConfigError, match="BoringModel has none"):
        trainer(MaskCache(tmp_path)).fit(BoringModel(), data_of(root))
    with pytest.raises(ConfigError, match="not BoringDataModule"):
        trainer(MaskCache(tmp_path)).fit(guided(Bright()), BoringDataModule())


def test_masks_of_a_unet_are_kept(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = guided(UNetMask(encoder="mobilenet_v2", image_size=32))
    live = trainer().predict(model, data_of(root))
    kept = trainer(MaskCache(tmp_path / "cache")).predict(model, data_of(root))
    assert live is not None
    assert kept is not None
    assert 0 < live[0]["mask"].mean() < 1  # type: ignore[call-overload]
    assert torch.equal(kept[0]["mask"], live[0]["mask"])  # type: ignore[call-overload]


def test_a_folder_that_vanishes_during_a_run_is_named(root: Path, tmp_path: Path) -> None:
    data, engine = data_of(root), trainer(MaskCache(tmp_path / "cache"))
    model = guided(Bright())
    model.on_train_start = lambda: (tmp_path / "cache").rename(tmp_path / "gone")  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"png: its mask is not in the cache .*start it again"):
        engine.fit(model, data)


def test_masks_come_from_the_weights_of_the_checkpoint_that_is_measured(root: Path, tmp_path: Path) -> None:
    saved = guided(Bright(soft=True))
    engine = trainer()
    engine.strategy.connect(saved)
    with torch.no_grad():
        saved.mask_provider.blur.weight.mul_(0.25)
    engine.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    fresh, data = guided(Bright(soft=True)), data_of(root)
    (kept,) = (
        trainer(MaskCache(tmp_path / "cache")).predict(fresh, data, ckpt_path=tmp_path / "model.ckpt") or []
    )
    expected, _ = saved.mask_provider(kept["images"], {})  # type: ignore[call-overload]
    assert torch.allclose(kept["mask"], expected, atol=1e-5)  # type: ignore[call-overload]
    assert expected.mean() < 0.2
