"""Losses on the prediction under another outside, against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import entropy

from guidedattn.backgrounds import (
    BlurredBackground,
    ConstantBackground,
    FittedBackground,
    ForeignBackground,
    NoiseBackground,
    smooth_over,
)
from guidedattn.component import build, describe
from guidedattn.errors import ConfigError
from guidedattn.gates import BackgroundGate, MultiplyGate
from guidedattn.losses import BackgroundConsistency, ForegroundOnly
from tests.conftest import make_batch, tiny_classifier


@pytest.mark.parametrize(
    "background", [ForeignBackground(), BlurredBackground(pixels=4), NoiseBackground(), ConstantBackground()]
)
def test_the_inside_stays_and_the_outside_is_another(background):
    batch = make_batch(size=5)
    images, mask = batch["image"], batch["mask"].bool()
    found = background(images, batch["mask"])
    assert torch.equal(found[mask], images[mask])
    assert not torch.isclose(found[~mask], images[~mask]).any(dim=0).all()
    assert 0 <= found.min() <= found.max() <= 1


def test_a_foreign_outside_is_never_ones_own_while_training():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 4, 4) / 6
    outside = torch.zeros(6, 1, 4, 4)
    background = ForeignBackground().train()
    seen = set()
    for _ in range(50):
        found = (background(images, outside)[:, 0, 0, 0] * 6).round().int().tolist()
        assert all(found[i] != i for i in range(6))
        assert sorted(found) == list(range(6))
        seen.add(tuple(found))
    assert len(seen) == 5


def test_what_is_smoothed_over_continues_what_is_around_it():
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(30.0), indexing="ij")
    ramp = (0.2 + rows / 80 + columns / 120)[None, None].expand(2, 1, -1, -1)
    mask = torch.zeros(2, 1, 40, 30)
    mask[0, :, 10:25, 8:20] = 1
    filled = smooth_over(torch.where(mask > 0, torch.rand(2, 1, 40, 30), ramp), mask)
    assert torch.allclose(filled[mask == 0], ramp[mask == 0], atol=1e-6)
    assert (filled - ramp).abs().max() < 0.1  # of a range of 0.73
    level = torch.full((2, 3, 40, 30), 0.3)
    assert torch.allclose(smooth_over(level, mask), level, atol=1e-6)


@pytest.fixture
def films():
    """Four noisy films, each of its own brightness, with an organ in another place."""
    torch.manual_seed(0)
    images = 0.3 + 0.1 * torch.arange(4.0).view(4, 1, 1, 1) + 0.05 * torch.rand(4, 1, 48, 48)
    masks = torch.zeros(4, 1, 48, 48)
    for i in range(4):
        masks[i, :, 8 + 4 * i : 30 + 4 * i, 12:30] = 1
    return images, masks


def test_a_fitted_stranger_leaves_nothing_of_the_own_outside_and_the_inside_as_it_is(films):
    images, masks = films
    background = FittedBackground(seam=2 / 48).eval()  # the neighbour's
    found = background(images, masks)
    other = torch.where((masks == 0) & (torch.arange(4) == 2).view(4, 1, 1, 1), 0.9, images)
    changed = (background(other, masks) != found).flatten(1).any(1)
    assert changed.tolist() == [False, False, False, True]  # only in the film that borrows it
    deep = torch.zeros_like(masks)
    for i in range(4):
        deep[i, :, 10 + 4 * i : 28 + 4 * i, 14:28] = 1
    assert torch.equal(found[deep > 0], images[deep > 0])


def test_a_fitted_stranger_shows_no_second_organ_and_is_exposed_alike(films):
    images, masks = films
    background = FittedBackground().eval()
    found = background(images, masks)
    turned, outside = images.clone(), masks == 0
    for i in range(4):
        turned[i][masks[i] > 0] = images[i][masks[i] > 0].flip(0)  # another inside of the same mean
    assert torch.allclose(background(turned, masks)[outside], found[outside], atol=1e-6)
    for i in range(4):
        mean = images[i][masks[i] > 0].mean()
        assert found[i][outside[i]].mean() == pytest.approx(mean.item(), abs=0.02)


def test_only_images_with_a_mask_lend_their_outside_and_without_any_it_is_grey(films):
    images, masks = films
    background = FittedBackground(seam=0.0).eval()
    some = masks.clone()
    some[0], some[2] = 0, 1  # no mask, and nothing but mask
    found, brighter = (
        background(images, some),
        background(images + torch.tensor([0.2, 0, 0, 0]).view(4, 1, 1, 1), some),
    )
    assert torch.equal(found[1:], brighter[1:])
    shift = images[1][masks[1] > 0].mean() - images[3][masks[3] > 0].mean()
    assert torch.allclose(found[1, :, :8], images[3, :, :8] + shift, atol=1e-6)  # its only stranger
    alone = background(images[:1], masks[:1])
    assert torch.allclose(alone[masks[:1] == 0], images[0][masks[0] > 0].mean(), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_fitted_background_in_another_precision_is_the_same(films, dtype):
    images, masks = films
    expected = FittedBackground().eval()(images, masks)
    found = FittedBackground().eval()(images.to(dtype), masks.to(dtype))
    assert found.dtype == dtype
    assert torch.allclose(found.float(), expected, atol=0.01)
    grey = ConstantBackground()(torch.full((1, 1, 512, 512), 0.9, dtype=dtype), torch.ones(1, 1, 512, 512))
    assert torch.allclose(grey.float(), torch.tensor(0.9), atol=0.01)


def test_soft_masks_count_from_a_half():
    images, masks = torch.rand(3, 1, 32, 32), torch.rand(3, 1, 32, 32)
    background = FittedBackground().eval()
    assert torch.equal(background(images, masks), background(images, (masks > 0.5).float()))
    with pytest.raises(ConfigError, match="seam"):
        FittedBackground(seam=-0.1)


def test_a_fitted_background_keeps_the_range():
    images, masks = torch.rand(6, 3, 33, 20), (torch.rand(6, 1, 33, 20) > 0.5).float()
    found = FittedBackground(seam=0.1).train()(images, masks)
    assert found.isfinite().all()
    assert 0 <= found.min() <= found.max() <= 1


def test_the_constant_is_the_mean_of_the_inside():
    images = torch.tensor([[[[0.2, 0.4], [0.9, 1.0]]]])
    mask = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    expected = torch.tensor([[[[0.2, 0.4], [0.3, 0.3]]]])
    assert torch.allclose(ConstantBackground()(images, mask), expected)


def second_look(model, batch):
    """Logits of the images with their neighbour's outside, put together pixel by pixel."""
    images = batch["image"].clone()
    for i in range(len(images)):
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                if not batch["mask"][i, 0, y, x]:
                    images[i, :, y, x] = batch["image"][i - 1, :, y, x]
    with torch.no_grad():
        return model(images, batch).double().numpy(), model(batch["image"], batch).double().numpy()


@pytest.mark.parametrize("multi_label", [False, True])
def test_values_equal_those_worked_out_by_hand(multi_label):
    batch = make_batch(size=4)
    batch["has_mask"][:] = True
    if multi_label:
        batch["label"] = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
    model = tiny_classifier(gate=MultiplyGate(), multi_label=multi_label).eval()
    with torch.no_grad():
        model.head.net[-1].weight.mul_(30)
    guidance = model.guide(batch)
    second, first = second_look(model, batch)
    label = batch["label"].numpy()
    if multi_label:
        p, q = expit(first), expit(second)
        consistency = entropy([p, 1 - p], [q, 1 - q], axis=0).mean(1)
        suffices = -np.mean(label * np.log(q) + (1 - label) * np.log(1 - q), 1)
    else:
        consistency = entropy(softmax(first, 1), softmax(second, 1), axis=1)
        suffices = -np.log(softmax(second, 1)[np.arange(4), label])
    for loss, expected in ((BackgroundConsistency(2.0), consistency), (ForegroundOnly(2.0), suffices)):
        loss.eval()
        assert loss(guidance).item() == pytest.approx(2 * expected.mean(), rel=1e-4)


def test_images_without_a_mask_and_buffers_are_left_alone_and_no_map_is_computed():
    batch = make_batch(size=4)  # the last has no mask
    model = tiny_classifier(attention_losses=[BackgroundConsistency(), ForegroundOnly()]).train()
    guidance = model.guide(batch)
    before = {name: value.clone() for name, value in model.backbone.named_buffers()}
    values, counted = model.attention_losses[1].per_sample(guidance)
    assert counted.tolist() == [True, True, True, False]
    assert values[3] == 0
    assert all(torch.equal(before[name], value) for name, value in model.backbone.named_buffers())
    model.losses(guidance)["loss"].backward()
    assert not guidance.has_attention
    assert all(p.grad is not None for p in model.backbone.parameters())


def test_a_prediction_that_reads_the_inside_only_has_nothing_to_mend():
    batch = make_batch(size=4)
    batch["has_mask"][:] = True
    model = tiny_classifier(input_gate=MultiplyGate()).eval()
    assert BackgroundConsistency()(model.guide(batch)).item() == pytest.approx(0, abs=1e-9)


def test_the_background_gate_changes_its_share_of_the_training_images_and_no_other():
    images, masks = torch.rand(400, 1, 4, 4), torch.zeros(400, 1, 4, 4)
    masks[:, :, :2] = 1
    has_mask = torch.arange(400) % 2 == 0
    gate = BackgroundGate(ForeignBackground(), probability=0.25)
    assert torch.equal(gate.eval()(images, masks, has_mask), images)
    torch.manual_seed(0)
    found = gate.train()(images, masks, has_mask)
    assert torch.equal(found[:, :, :2], images[:, :, :2])
    changed = (found != images).flatten(1).any(1)
    assert not changed[~has_mask].any()
    assert 0.15 < changed[has_mask].float().mean() < 0.35  # 200 draws at 0.25, three standard deviations
    assert torch.equal(BackgroundGate(probability=0.0).train()(images, masks, has_mask), images)


def test_a_gated_classifier_reloads_with_its_background(tmp_path):
    model = tiny_classifier(input_gate=BackgroundGate(ConstantBackground(0.25), probability=0.75))
    again = build(describe(model.input_gate), BackgroundGate)
    assert again.probability == 0.75
    assert again.background.value == 0.25
