"""Every explainer of the package, found by itself: what all must do, and each against a reference."""

from __future__ import annotations

import copy
import inspect

import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

import guidedattn.explainers as family
from guidedattn.backbones import ModuleBackbone, TimmBackbone
from guidedattn.classifier import GuidedClassifier
from guidedattn.component import build, describe
from guidedattn.errors import ConfigError
from guidedattn.explainers import CAM, Explainer, GradCAM, GradientRollout, HiResCAM, LayerCAM
from guidedattn.gates import MultiplyGate
from guidedattn.guidance import resize
from guidedattn.heads import LinearHead
from guidedattn.losses import EnergyOutside, MaskAlignment
from tests.conftest import make_batch, tiny_classifier

EXPLAINERS = [
    member
    for member in vars(family).values()
    if inspect.isclass(member) and issubclass(member, Explainer) and not inspect.isabstract(member)
]
ON_LAYERS = [kind for kind in EXPLAINERS if "layer" in inspect.signature(kind).parameters]
every_explainer = pytest.mark.parametrize("kind", EXPLAINERS, ids=lambda kind: kind.__name__)
every_place = pytest.mark.parametrize(
    ("kind", "layer"),
    [(kind, None) for kind in EXPLAINERS] + [(kind, "module.2") for kind in ON_LAYERS],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", "last"),
)


class Attention(nn.Module):
    """Attention over the cells of a feature map, with timm's names."""

    def __init__(self):
        super().__init__()
        self.qkv, self.attn_drop, self.fused_attn = nn.Linear(6, 18), nn.Identity(), True

    def forward(self, maps):
        batch, channels, height, width = maps.shape
        tokens = maps.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(batch, -1, 3, 2, 3).permute(2, 0, 3, 1, 4)
        if self.fused_attn:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = self.attn_drop((q @ k.transpose(2, 3) / 3**0.5).softmax(-1)) @ v
        tokens = tokens + mixed.transpose(1, 2).flatten(2)
        return tokens.transpose(1, 2).view(batch, channels, height, width)


def attending_backbone() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=4, padding=2), nn.ELU(), Attention(), nn.ELU(), Attention(), nn.ELU()
    )


def model_for(kind, layer=None, **kwargs):
    """A tiny network that the explainer can explain: with attention blocks where it needs them."""
    explainer = kind() if layer is None else kind(layer=layer)
    if kind is GradientRollout:
        torch.manual_seed(0)
        backbone = ModuleBackbone(attending_backbone, channels=6, mean=[0.5], std=[0.25])
        return GuidedClassifier(backbone=backbone, head=LinearHead(), explainer=explainer, **kwargs)
    return tiny_classifier("group", explainer=explainer, **kwargs)


# What every explainer must do -------------------------------------------------------------------------


@every_place
def test_a_batch_is_explained_as_its_images_one_by_one(kind, layer, batch):
    model = model_for(kind, layer).train()
    together = model.guide(batch).attention
    assert together.shape[:2] == (4, 1)
    assert float(together.detach().abs().max()) > 0
    for i in range(4):
        alone = model.guide({key: value[i : i + 1] for key, value in batch.items()}).attention
        assert torch.allclose(alone, together[i : i + 1], atol=1e-6)


@every_place
def test_the_map_is_the_same_without_a_graph(kind, layer, batch):
    model = model_for(kind, layer).train()
    expected = model.guide(batch).attention.detach()
    frozen = model_for(kind, layer, freeze_backbone=True).train()
    frozen.load_state_dict(model.state_dict())
    assert torch.allclose(frozen.guide(batch).attention, expected, atol=1e-6)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            attention = model.eval().guide(batch).attention
        assert not attention.requires_grad
        assert torch.allclose(attention, expected, atol=1e-6)


@every_place
def test_a_loss_on_the_map_reaches_the_first_layer_and_no_buffer(kind, layer, batch):
    model = model_for(kind, layer, attention_losses=[EnergyOutside(weight=100.0)]).train()
    model.losses(model.guide(batch))["loss_energy_outside"].backward()
    assert float(next(model.backbone.parameters()).grad.abs().max()) > 0
    frozen = model_for(
        kind, layer, attention_losses=[MaskAlignment(relu=False)], freeze_backbone=True
    ).train()
    frozen.losses(frozen.guide(batch))["loss"].backward()
    assert all(p.grad is None for p in frozen.backbone.parameters())
    assert float(frozen.head.net[-1].weight.grad.abs().max()) > 0


@every_place
def test_bf16_autocast_gives_float32_maps_that_are_close(kind, layer, batch):
    model = model_for(kind, layer).train()
    full = model.guide(batch).attention
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.guide(batch).attention
    assert half.dtype == torch.float32
    assert float((half - full).abs().max()) < 5e-2 * float(full.abs().max())


@every_place
def test_gradient_in_float64(kind, layer):
    model = model_for(kind, layer).double().train()
    batch = make_batch(size=2, side=12)
    batch["image"], batch["mask"] = batch["image"].double(), batch["mask"].double()
    names, start = zip(*model.named_parameters(), strict=True)

    def of_weights(*weights):
        named = {f"model.{name}": weight for name, weight in zip(names, weights, strict=True)}
        return torch.func.functional_call(_Map(model), named, (batch,))

    start = tuple(weight.detach().clone().requires_grad_() for weight in start)
    assert torch.autograd.gradcheck(of_weights, start, eps=1e-6, atol=1e-5, fast_mode=True)


class _Map(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return self.model.guide(batch).attention


@every_explainer
def test_several_labels_are_explained_one_by_one(kind):
    model = model_for(kind, multi_label=True).train()
    batch = make_batch(size=2) | {"label": torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])}
    guidance = model.guide(batch)
    first, second = list(guidance.views())
    assert torch.allclose(first.attention, guidance.attention_for(torch.tensor([0, 1])))
    assert torch.allclose(second.attention[:1], guidance.attention_for(torch.tensor([2, 2]))[:1])


@every_explainer
def test_a_checkpoint_can_rebuild_it(kind):
    assert type(build(describe(kind()), Explainer)) is kind


# Each against a reference -----------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [None, "net.layer3", "net.layer4.0.bn1"])
@pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "LayerCAM", "HiResCAM"])
def test_maps_equal_pytorch_grad_cams_before_its_resize(name, layer):
    torch.manual_seed(0)
    explainer = getattr(family, name)(layer=layer)
    model = GuidedClassifier(backbone=TimmBackbone("test_resnet"), explainer=explainer).eval()
    with torch.no_grad():
        model.head.net[-1].weight.mul_(100)  # Grad-CAM++ adds 1e-6 to squared gradients
    images, labels = torch.rand(3, 1, 96, 96), torch.tensor([0, 1, 2])
    for context in (torch.enable_grad(), torch.inference_mode()):
        with context:
            ours = model.guide({"image": images, "label": labels}).attention[:, 0]
        reference = library_maps(name, model, layer, images, labels)
        assert torch.allclose(ours.detach(), reference, atol=2e-6 * float(reference.abs().max()))


def library_maps(name, model, layer, images, labels):
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False  # the library keeps a reference to the output that the next layer changes
    target = model.backbone if layer is None else model.backbone.get_submodule(layer)
    kind = getattr(pytorch_grad_cam, name)
    cam = kind(model=nn.Sequential(model.backbone, model.head), target_layers=[target])
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    cam(input_tensor=images.clone().requires_grad_(), targets=targets)
    activations = cam.activations_and_grads.activations[0].numpy()
    gradients = cam.activations_and_grads.gradients[0].numpy()
    return torch.as_tensor(cam.get_cam_image(images, target, targets, activations, gradients, False))


def test_cam_is_the_weights_of_a_linear_head(batch):
    model = tiny_classifier(explainer=CAM()).train()
    guidance = model.guide(batch)
    weight = model.head.net[-1].weight
    expected = torch.einsum("bd,bdhw->bhw", weight[batch["label"]], guidance.features)
    assert torch.allclose(guidance.attention[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("last", [0, 2])
def test_rollout_follows_the_blocks_of_a_vision_transformer(last):
    """Block by block and token by token, with attention and its gradient from hooks of the test's own."""
    torch.manual_seed(0)
    model = GuidedClassifier(backbone=TimmBackbone("test_vit"), explainer=GradientRollout(last=last)).eval()
    images = torch.rand(2, 1, 64, 64)
    found = model.guide({"image": images, "label": torch.tensor([2, 0])}).attention
    side = 64 // model.backbone.net.patch_embed.patch_size[0]
    assert found.shape == (2, 1, side, side)
    drops = [block.attn.attn_drop for block in model.backbone.net.blocks][-last:]
    for i, label in enumerate((2, 0)):
        seen: list[torch.Tensor] = []
        handles = [drop.register_forward_hook(lambda m, x, y, s=seen: s.append(y)) for drop in drops]
        score = model(images[i : i + 1])[0, label]
        for handle in handles:
            handle.remove()
        gradients = torch.autograd.grad(score, seen)
        size = seen[0].shape[-1]
        relevance = torch.eye(size)
        for attention, gradient in zip(seen, gradients, strict=True):
            moved = torch.zeros(size, size)
            for head in range(attention.shape[1]):
                moved += (attention[0, head] * gradient[0, head]).clamp_min(0) / attention.shape[1]
            relevance = relevance + moved @ relevance
        prefix = size - side * side
        expected = [
            mean(float(relevance[row, column]) - (row == column) for row in range(prefix, size))
            for column in range(prefix, size)
        ]
        assert torch.allclose(found[i].flatten(), torch.tensor(expected), atol=1e-6)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_hires_cam_shows_only_what_the_gate_lets_through(batch):
    model = tiny_classifier(explainer=HiResCAM(), gate=MultiplyGate()).train()
    batch["mask"][:, :, :8] = 0
    guidance = model.guide(batch)
    assert not guidance.attention[:3, :, :2].any()  # the fourth image has no mask
    assert guidance.attention[:3, :, 2:].any()
    assert GradCAM()(guidance, guidance.class_index)[:3, :, :2].any()


# Layers of every kind of network ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("test_resnet", "net.layer2", (8, 8)),
        ("test_efficientnet", "net.blocks.1", (16, 16)),
        ("test_vit", "net.blocks.0", (4, 4)),  # tokens, with a class token before them
        ("swin_tiny_patch4_window7_224", "net.layers.1", (28, 28)),  # channels last
    ],
)
def test_a_layer_of_any_layout_gives_a_map_that_can_be_trained(name, layer, shape):
    torch.manual_seed(0)
    small = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)} if "swin" in name else {}
    backbone = TimmBackbone(name, model_args=small)
    model = GuidedClassifier(
        backbone=backbone, explainer=LayerCAM(layer=layer), attention_losses=[EnergyOutside()]
    )
    side = 224 if name.startswith("swin") else 64
    batch = make_batch(size=2, side=side)
    guidance = model.train().guide(batch)
    assert guidance.attention.shape == (2, 1, *shape)
    model.losses(guidance)["loss"].backward()
    assert all(p.grad.isfinite().all() for p in model.backbone.parameters() if p.grad is not None)
    assert resize(guidance.attention, guidance.images).shape[-1] == side


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer3", "did you mean net.layer3"),
        ("net.layer33", "did you mean net.layer3"),
        ("net.global_pool", "the forward pass does not go through net.global_pool"),
    ],
)
def test_a_layer_that_is_not_there_names_near_ones(layer, message):
    def look():
        model = GuidedClassifier(backbone=TimmBackbone("test_resnet"), explainer=GradCAM(layer=layer))
        return model.guide(make_batch(side=64)).attention

    with pytest.raises(ConfigError, match=message):
        look()


def test_rollout_needs_a_transformer():
    with pytest.raises(ConfigError, match="needs a vision transformer"):
        tiny_classifier(explainer=GradientRollout())


def test_no_hook_stays_behind(batch):
    model = tiny_classifier(explainer=GradCAM(layer="module.0"))
    _ = model.guide(batch).attention
    assert not any(module._forward_hooks for module in model.modules())
