"""Gates inside the backbone, and what the classifier sees of an image when only its inside is let through."""

import copy

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import avg_pool2d

from guidedattn import GuidedClassifier
from guidedattn.backbones import ModuleBackbone, PEPXBackbone, TimmBackbone
from guidedattn.errors import ConfigError
from guidedattn.explainers import GradCAM
from guidedattn.gates import BackgroundGate, ContinueGate, MultiplyGate, OutsideGate
from guidedattn.heads import LinearHead
from guidedattn.layers import channels_come_last
from guidedattn.losses import BackgroundConsistency
from tests.conftest import make_batch, tiny_classifier

SMALL = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}


def for_small_images() -> nn.Module:
    """Takes 16x16 pixels and no other size."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Flatten(2), nn.Linear(64, 64), nn.Unflatten(2, (8, 8)))


def near_and_far():
    """The part of a network before a gate of stride 2, and the rest of it."""
    near = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    return near, nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU())


def gated(gate, **arguments):
    torch.manual_seed(0)
    backbone = ModuleBackbone(nn.Sequential(*near_and_far()), channels=8, mean=[0.5], std=[0.5])
    return GuidedClassifier(backbone=backbone, head=LinearHead(), gate=gate, **arguments)


@pytest.mark.parametrize("training", [True, False])
def test_a_gate_on_a_layer_acts_between_the_two_parts_of_the_network(training):
    batch = make_batch(size=4)
    batch["has_mask"] = torch.tensor([True, True, False, True])
    model = gated(MultiplyGate(layer="module.0")).train(training)
    near, far = copy.deepcopy(tuple(model.backbone.module))
    middle = near((batch["image"] - 0.5) / 0.5)
    mask = avg_pool2d(batch["mask"].float(), 2)
    mask[2] = 1
    expected = copy.deepcopy(model.head)(far(middle * mask))
    torch.testing.assert_close(model.guide(batch).logits, expected)


@pytest.mark.parametrize(
    ("backbone", "layer", "side"),
    [
        (lambda: TimmBackbone("test_resnet"), 8, 64),
        (lambda: TimmBackbone("test_efficientnet"), "net.blocks.0", 64),
        (lambda: PEPXBackbone(widths=[8, 16, 16], depths=[1, 1, 1]), 4, 64),
        (lambda: TimmBackbone("swin_tiny_patch4_window7_224", model_args=SMALL), 4, 224),  # channels last
        (lambda: TimmBackbone("test_vit"), "net.patch_embed", 64),  # before positions and class token
    ],
)
def test_behind_a_closed_gate_all_images_look_alike(backbone, layer, side):
    batch = make_batch(size=3, side=side)
    batch["mask"], batch["has_mask"] = torch.ones_like(batch["mask"]), torch.tensor([True, True, False])
    model = GuidedClassifier(backbone=backbone(), head=LinearHead(), gate=OutsideGate(layer=layer)).eval()
    logits = model(batch["image"], batch)
    torch.testing.assert_close(logits[0], logits[1])
    assert not torch.allclose(logits[1], logits[2], atol=1e-6)


def test_what_lies_further_off_than_the_first_cells_see_cannot_change_the_answer():
    torch.manual_seed(0)
    batch = make_batch(size=2, side=64)
    batch["mask"], batch["has_mask"] = torch.zeros_like(batch["mask"]), torch.ones(2, dtype=torch.bool)
    batch["mask"][..., 24:40, 24:40] = 1
    moved = {**batch, "image": batch["image"].clone()}
    moved["image"][..., :8, :] = 1  # 16 pixels off; cells of stride 4 see 7 pixels around themselves
    sizes = [(1, 4, 3), (4, 8, 3), (8, 8, 3), (8, 8, 5)]
    layers = [nn.Conv2d(one, two, side, stride=2, padding=side // 2) for one, two, side in sizes]
    body = ModuleBackbone(nn.Sequential(*layers), channels=8, mean=[0.0], std=[1.0])
    early, late = (
        GuidedClassifier(
            backbone=copy.deepcopy(body), head=LinearHead(), gate=MultiplyGate(layer=layer)
        ).eval()
        for layer in ("module.1", None)
    )
    assert torch.equal(early(batch["image"], batch), early(moved["image"], moved))
    assert not torch.equal(late(batch["image"], batch), late(moved["image"], moved))


def test_second_passes_go_through_the_gate_too():
    batch = make_batch(size=4)
    model = gated(MultiplyGate(layer="module.0"), attention_losses=[BackgroundConsistency()]).train()
    guidance = model.guide(batch)
    torch.testing.assert_close(guidance.rescore(batch["image"]), guidance.logits)
    model.losses(guidance)["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.backbone.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_a_map_of_the_gated_layer_is_that_of_the_two_parts(mode):
    batch = make_batch(size=2)
    batch["has_mask"][:] = True
    model = gated(MultiplyGate(layer="module.0"), explainer=GradCAM(layer="module.0")).eval()
    with mode():
        found = model.guide(batch).attention
    near, far = model.backbone.module
    middle = near((batch["image"] - 0.5) / 0.5).detach().requires_grad_()
    logits = model.head(far(middle * avg_pool2d(batch["mask"].float(), 2)))
    (gradient,) = torch.autograd.grad(logits.gather(1, batch["label"][:, None]).sum(), middle)
    expected = (gradient.mean((2, 3), keepdim=True) * middle).sum(1, keepdim=True)
    torch.testing.assert_close(found, expected.detach())


def test_a_compiled_network_is_gated_by_the_mask_of_each_batch():
    model = gated(MultiplyGate(layer="module.0")).train()
    compiled = copy.deepcopy(model)
    compiled.backbone.module = torch.compile(compiled.backbone.module, backend="aot_eager")
    for seed in range(3):
        batch = make_batch(size=4, seed=seed)
        torch.testing.assert_close(compiled.guide(batch).logits, model.guide(batch).logits)


def test_a_checkpoint_keeps_the_layer(tmp_path):
    model = tiny_classifier(gate=OutsideGate(layer="module.0")).eval()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = GuidedClassifier.load_from_checkpoint(tmp_path / "a.ckpt").eval()
    batch = make_batch(size=3)
    assert again.gate.layer == "module.0"
    assert torch.equal(again(batch["image"], batch), model(batch["image"], batch))


@pytest.mark.parametrize(
    ("backbone", "layer", "message"),
    [
        ("test_resnet", "net.layer9", "the backbone has no module 'net.layer9' .did you mean net"),
        ("test_resnet", 3, r"gate.layer: the backbone has no stride 3 \(2, 4, 8, 16, 32\)"),
        ("test_resnet", "net.layer2.0.conv1", "what goes past net.layer2.0.conv1 would stay ungated"),
        ("legacy_xception", "4", "what goes past net.block2.rep.0 would stay ungated"),
        ("test_resnet", "net.global_pool", "what goes past net.global_pool would stay ungated"),
        ("test_vit", "net.blocks.0", r"net.blocks.0 gives no map of the image, but \[4, 17, 64\]"),
    ],
)
def test_a_layer_that_cannot_be_gated_is_named(backbone, layer, message):
    def look():
        model = GuidedClassifier(backbone=TimmBackbone(backbone), gate=MultiplyGate(layer=layer))
        return model.guide(make_batch(side=64))

    with pytest.raises(ConfigError, match=message):
        look()


def test_looking_for_ways_past_a_layer_leaves_the_network_as_it_was():
    backbone = TimmBackbone("test_resnet").train()
    backbone.net.layer1.eval()
    before = copy.deepcopy(backbone)
    GuidedClassifier(backbone=backbone, gate=MultiplyGate(layer=8))
    assert all(torch.equal(a, b) for a, b in zip(backbone.buffers(), before.buffers(), strict=True))
    assert [m.training for m in backbone.modules()] == [m.training for m in before.modules()]


@pytest.mark.parametrize(
    "backbone",
    [
        lambda: TimmBackbone("test_resnet"),
        lambda: TimmBackbone("test_efficientnet"),
        lambda: TimmBackbone("vgg11"),
        lambda: TimmBackbone("densenet121"),
        lambda: PEPXBackbone(widths=[8, 16, 16], depths=[1, 1, 2]),
    ],
)
def test_a_stride_names_a_layer_of_that_stride(backbone):
    body, sides = backbone().eval(), {}
    for stride, name in body.strides.items():
        keep = body.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, stride=stride: sides.update({stride: output.shape[2:]})
        )
        body(torch.rand(1, 1, 96, 64))
        keep.remove()
    assert {2, 4, 8, 16} <= set(sides)
    assert all(side == (96 // stride, 64 // stride) for stride, side in sides.items())


def test_explainers_take_strides_too():
    model = GuidedClassifier(backbone=TimmBackbone("test_resnet"), explainer=GradCAM(layer=8))
    assert model.guide(make_batch(size=2, side=64)).attention.shape == (2, 1, 8, 8)


def test_masks_made_under_inference_mode_can_gate_a_training_step():
    with torch.inference_mode():
        batch = make_batch(size=4)
    batch = {**make_batch(size=4), "mask": batch["mask"], "has_mask": batch["has_mask"]}
    model = gated(MultiplyGate(layer="module.0")).train()
    model.losses(model.guide(batch))["loss"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("shape", "image", "in_doubt", "last"),
    [
        ([2, 96, 56, 56], [224, 224], False, False),
        ([2, 56, 56, 96], [224, 224], False, True),
        ([2, 64, 64, 65], [256, 257], False, False),  # a side of an odd image equals the channels
        ([2, 32, 24, 19], [192, 145], False, False),
        ([2, 96, 96, 96], [384, 384], False, False),
        ([2, 96, 96, 96], [384, 384], True, True),  # the backbone says so
        ([2, 4, 17, 16], [64, 64], False, False),
        ([2, 5, 40, 3], [64, 64], False, None),  # neither
    ],
)
def test_which_dimensions_are_the_sides(shape, image, in_doubt, last):
    assert channels_come_last(shape, image, in_doubt) is last


@pytest.mark.parametrize("gate", [ContinueGate(), BackgroundGate()])
def test_gates_of_images_are_no_gates_of_features(gate):
    with pytest.raises(ConfigError, match="make it the input_gate"):
        tiny_classifier(gate=gate)


def test_a_network_of_ones_own_tells_no_strides():
    with pytest.raises(ConfigError, match=r"no stride 4 \(it tells none\); name a module"):
        gated(MultiplyGate(layer=4))


def test_a_network_that_does_not_take_its_input_size_is_told_so():
    backbone = ModuleBackbone(for_small_images, channels=4, mean=[0.0], std=[1.0])
    with pytest.raises(ConfigError, match="no image of its input_size 224x224: set that attribute"):
        GuidedClassifier(backbone=backbone, head=LinearHead(), gate=MultiplyGate(layer="module.0"))
    backbone.input_size = (16, 16)
    GuidedClassifier(backbone=backbone, head=LinearHead(), gate=MultiplyGate(layer="module.0"))


def test_gates_on_images_take_no_layer():
    with pytest.raises(ConfigError, match="input_gate acts on the images"):
        tiny_classifier(input_gate=MultiplyGate(layer="module.0"))


# The inside, continued ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), training=st.booleans(), shrink=st.sampled_from([0.0, 0.03, 0.2]))
def test_nothing_outside_the_mask_can_change_what_is_seen(seed, training, shrink):
    generator = torch.Generator().manual_seed(seed)
    images, others, mask = (torch.rand(4, 1, 24, 20, generator=generator) for _ in range(3))
    mask = (mask > 0.4).float()
    gate = ContinueGate(shrink).train(training)
    torch.manual_seed(seed)
    seen = gate(images, mask)
    torch.manual_seed(seed)
    assert torch.equal(gate(torch.where(mask > 0, images, others), mask), seen)
    assert 0 <= seen.min() <= seen.max() <= 1


def test_the_inside_stays_and_runs_on_without_an_edge():
    images, mask = torch.rand(2, 3, 40, 40), torch.zeros(2, 1, 40, 40)
    mask[..., 10:30, 12:28] = 1
    seen = ContinueGate().eval()(images, mask)
    inside = mask.expand_as(images) > 0
    assert torch.equal(seen[inside], images[inside])
    level = ContinueGate().eval()(torch.full((2, 3, 40, 40), 0.7), mask)
    torch.testing.assert_close(level, torch.full((2, 3, 40, 40), 0.7))


def test_in_training_masks_are_shrunk_by_at_most_what_was_asked():
    torch.manual_seed(0)
    images, mask = torch.rand(200, 1, 40, 40), torch.zeros(200, 1, 40, 40)
    mask[:, :, 10:] = 1  # one straight edge
    has_mask = torch.arange(200) % 2 == 0
    seen = ContinueGate(shrink=0.1).train()(images, mask, has_mask)
    kept = (seen == images).all(3)[:, 0]  # rows that are seen as they are
    assert kept[~has_mask].all()
    assert kept[:, 14:].all()  # a tenth of 40 pixels from the edge on
    assert not kept[has_mask][:, :9].any()
    rims = {int(row[10:].float().argmax()) for row in kept[has_mask]}
    assert rims == {0, 1, 2, 3} or rims == {0, 1, 2, 3, 4}


def test_an_organ_smaller_than_the_rim_stays():
    images, mask = torch.rand(8, 1, 40, 40), torch.zeros(8, 1, 40, 40)
    mask[..., 20:22, 20:22] = 1
    seen = ContinueGate(shrink=0.2).train()(images, mask)
    assert torch.equal(seen[..., 20:22, 20:22], images[..., 20:22, 20:22])


def test_half_precision_images_stay_so():
    images, mask = torch.rand(2, 1, 64, 64).bfloat16(), (torch.rand(2, 1, 64, 64) > 0.5).float()
    seen = ContinueGate().eval()(images, mask)
    assert seen.dtype == torch.bfloat16
    assert torch.equal(seen[mask > 0], images[mask > 0])


@pytest.mark.parametrize("gate", [ContinueGate(), BackgroundGate()])
def test_where_no_pixel_is_surely_inside_the_image_passes_whole(gate):
    images, mask = torch.rand(3, 1, 40, 40), torch.full((3, 1, 40, 40), 0.4)
    mask[1, :, 5:25, 5:25] = 0.6
    seen = gate.train()(images, mask)
    assert torch.equal(seen[[0, 2]], images[[0, 2]])
    assert not torch.equal(seen[1], images[1])
    assert torch.equal(gate.eval()(images, mask)[0], images[0])


@pytest.mark.parametrize("shrink", [-0.1, 0.5])
def test_a_senseless_rim_is_refused(shrink):
    with pytest.raises(ConfigError, match="shrink must lie in"):
        ContinueGate(shrink)
