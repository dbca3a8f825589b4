"""Mask providers: frozen whoever wrote them, and what `UNetMask` reads from a segmenter's checkpoint."""

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from guidedattn.component import build, describe
from guidedattn.errors import CheckpointError, ConfigError
from guidedattn.masks import BatchMask, FullMask, MaskProvider, UNetMask
from guidedattn.segmenter import MaskSegmenter
from tests.conftest import make_batch, tiny_classifier
from tests.model.test_checkpoints import save


class Careless(MaskProvider):
    """A user's network that says nothing about training."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Dropout(0.5))

    def provide(self, images, batch):
        return self.net(images).sigmoid()


def test_a_users_mask_network_is_frozen_before_its_first_batch():
    model = tiny_classifier(mask_provider=Careless())
    trained = {id(p) for group in model.configure_optimizers().param_groups for p in group["params"]}
    assert not trained & {id(p) for p in model.mask_provider.parameters()}
    batch = make_batch()
    first, second = (model.mask_provider(batch["image"], batch)[0] for _ in range(2))
    assert torch.equal(first, second)  # no dropout, no running statistics
    assert not first.requires_grad
    assert not any(module.training for module in model.train().mask_provider.modules())


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    torch.manual_seed(0)
    model = MaskSegmenter(encoder="mobilenet_v2", image_size=32).eval()
    path = tmp_path_factory.mktemp("unet") / "unet.ckpt"
    save(model, path)
    return model, path


def test_unet_mask_gives_what_its_segmenter_gave(segmenter):
    model, path = segmenter
    images = torch.rand(2, 1, 48, 40)
    with torch.no_grad():
        probability = model(images)
    soft, _ = UNetMask(path, threshold=0.0)(images, {})
    hard, has_mask = UNetMask(path, threshold=0.5)(images, {})
    assert soft.shape == (2, 1, 48, 40)
    assert torch.allclose(soft, probability, atol=1e-6)
    assert torch.equal(hard, (probability > 0.5).float())
    assert torch.equal(has_mask, hard.flatten(1).any(1))


def test_unet_weights_that_do_not_fit_are_named(segmenter, tmp_path):
    _, path = segmenter
    saved = torch.load(path, weights_only=True)
    del saved["state_dict"]["net.segmentation_head.0.weight"]
    torch.save(saved, tmp_path / "part.ckpt")
    with pytest.raises(CheckpointError, match=r"part\.ckpt is not of this .*lacks segmentation_head"):
        UNetMask(tmp_path / "part.ckpt")
    save(tiny_classifier(), tmp_path / "classifier.ckpt")
    with pytest.raises(CheckpointError, match=r"classifier\.ckpt is not a checkpoint of MaskSegmenter"):
        UNetMask(tmp_path / "classifier.ckpt")


def test_safetensors_hold_the_network_and_what_it_is(segmenter, tmp_path):
    _, path = segmenter
    saved = UNetMask(path)
    saved.save_weights(tmp_path / "unet.safetensors")
    loaded = UNetMask(tmp_path / "unet.safetensors")
    images = torch.rand(2, 1, 40, 40)
    assert loaded.image_size == 32
    assert torch.equal(loaded(images, {})[0], saved(images, {})[0])
    save_file(saved.net.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match=r"bare\.safetensors was not written by UNetMask"):
        UNetMask(tmp_path / "bare.safetensors")
    whole = (tmp_path / "unet.safetensors").read_bytes()
    (tmp_path / "unet.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"unet\.safetensors cannot be read"):
        UNetMask(tmp_path / "unet.safetensors")


def blobs() -> torch.Tensor:
    """Logits [1, 1, 32, 32] that are positive in two large parts and a small one."""
    logits = torch.full((1, 1, 32, 32), -4.0)
    logits[..., 4:28, 2:12] = logits[..., 4:28, 18:30] = 2.0
    logits[..., 0:3, 14:17] = 5.0
    return logits


class Fixed(nn.Module):
    def forward(self, images):
        return blobs().expand(len(images), -1, -1, -1)


@pytest.mark.parametrize("threshold", [0.5, 0.0])
def test_the_clean_up_keeps_the_largest_parts(threshold):
    images = torch.rand(3, 1, 32, 32)
    providers = [
        UNetMask(encoder="mobilenet_v2", image_size=32, threshold=threshold, largest=n) for n in (0, 2, 1)
    ]
    for provider in providers:
        provider.net = Fixed()
    everything, two, one = (provider(images, {})[0] for provider in providers)
    island = torch.zeros(3, 1, 32, 32, dtype=torch.bool)
    island[..., 0:3, 14:17] = True
    left = torch.zeros_like(island)
    left[..., 4:28, 2:12] = True
    expected = blobs().sigmoid().expand(3, -1, -1, -1)
    expected = (expected > threshold).float() if threshold else expected
    assert torch.allclose(everything, expected)
    assert torch.equal(two, everything.masked_fill(island, 0))
    assert torch.equal(one, everything.masked_fill(island | left, 0))


def test_a_clean_up_survives_a_checkpoint_and_must_not_be_negative():
    assert build(describe(UNetMask(encoder="mobilenet_v2", largest=2)), MaskProvider).largest == 2
    with pytest.raises(ConfigError, match="largest must be at least 0"):
        UNetMask(largest=-1)


def test_unknown_architectures_and_encoders_name_near_ones():
    with pytest.raises(ConfigError, match=r"no 'Unett' \(did you mean Unet"):
        UNetMask(architecture="Unett")
    with pytest.raises(ConfigError, match=r"no encoder 'resnet19' \(did you mean resnet18"):
        UNetMask(encoder="resnet19")


def test_a_batch_without_masks_has_none_and_full_mask_has_all():
    batch = make_batch(masks=False)
    mask, has_mask = BatchMask()(batch["image"], batch)
    assert not mask.any()
    assert not has_mask.any()
    mask, has_mask = FullMask()(batch["image"], batch)
    assert bool((mask == 1).all())
    assert bool(has_mask.all())


def test_what_stands_in_for_a_missing_mask_is_not_checked():
    batch = make_batch()
    batch["mask"][3] = torch.nan  # has_mask is false there
    _, has_mask = BatchMask()(batch["image"], batch)
    assert has_mask.tolist() == [True, True, True, False]
    model = tiny_classifier(mask_provider=BatchMask())
    assert bool(model(batch["image"], batch).isfinite().all())


def test_the_segmenter_learns_and_leaves_images_without_a_mask_out():
    batch = make_batch(4, side=32)
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(4, 1, 32, 32)
    batch["image"], batch["mask"] = rows / 32, (rows > 15).float()
    model = MaskSegmenter(encoder="mobilenet_v2", image_size=32).train()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    model.trainer = trainer
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    model.log = lambda *args, **kwargs: None
    for _ in range(12):
        batch["mask"][3] = torch.rand(1, 32, 32)  # the image without a mask
        loss = model.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    alone = {**batch, "mask": batch["mask"].clone()}
    alone["mask"][3] = 0
    model.eval()
    assert torch.equal(model.training_step(batch, 0), model.training_step(alone, 0))
