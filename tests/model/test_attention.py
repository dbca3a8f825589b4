"""The map and the losses on it, against closed forms, reference libraries and literal transcriptions."""

import copy

import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM as ReferenceGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from guidedattn.backbones import TimmBackbone
from guidedattn.classifier import GuidedClassifier
from guidedattn.gates import MultiplyGate
from guidedattn.guidance import normalise, resize
from guidedattn.heads import MLPHead
from guidedattn.losses import AttentionLoss, AttentionMining, MaskAlignment
from tests.conftest import make_batch, tiny_classifier


def test_grad_cam_on_a_linear_head_is_the_class_activation_map(batch):
    model = tiny_classifier().train()
    guidance = model.guide(batch)
    weight = model.head.net[-1].weight  # [K, D]
    cells = guidance.features.shape[2] * guidance.features.shape[3]
    closed_form = torch.einsum("bd,bdhw->bhw", weight[batch["label"]], guidance.features) / cells
    assert torch.allclose(guidance.attention[:, 0], closed_form, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet18", "densenet121"])
def test_grad_cam_equals_pytorch_grad_cam_before_its_resize(name):
    torch.manual_seed(0)
    model = GuidedClassifier(backbone=TimmBackbone(name)).eval()
    images, labels = torch.rand(3, 1, 96, 96), torch.tensor([0, 1, 2])
    ours = model.guide({"image": images, "label": labels}).attention.relu()[:, 0]

    cam = ReferenceGradCAM(model=nn.Sequential(model.backbone, model.head), target_layers=[model.backbone])
    cam.activations_and_grads(images.requires_grad_())
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    cam(input_tensor=images, targets=targets)
    activations = cam.activations_and_grads.activations[0].numpy()
    gradients = cam.activations_and_grads.gradients[0].numpy()
    raw = cam.get_cam_image(images, cam.target_layers[0], targets, activations, gradients, eigen_smooth=False)
    reference = torch.as_tensor(raw).relu()
    assert torch.allclose(ours, reference, atol=1e-6 * float(reference.max()))


@pytest.mark.parametrize("loss", [MaskAlignment(relu=False), AttentionMining(logit=True)])
def test_gradient_of_the_attention_losses_in_float64(loss):
    model = tiny_classifier(norm="group", attention_losses=[loss]).double().train()
    batch = make_batch(size=2, side=12)
    batch["image"], batch["mask"] = batch["image"].double(), batch["mask"].double()
    first = model.backbone.module[0].weight

    def value(weight):
        stateless = {"backbone.module.0.weight": weight}
        return torch.func.functional_call(
            _Losses(model), {f"model.{k}": v for k, v in stateless.items()}, (batch,)
        )

    start = first.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (start,), eps=1e-6, atol=1e-5, fast_mode=True)


class _Losses(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        guidance = self.model.guide(batch)
        return sum(loss.compute(guidance).sum() for loss in self.model.attention_losses)


def test_mining_is_equations_3_to_5_taken_literally():
    """One image after the other, the whole network differentiated, no shared code."""
    model = tiny_classifier(
        norm="group", gate=MultiplyGate(floor=0.2), attention_losses=[AttentionMining(weight=0.7)]
    )
    batch = make_batch()
    total = 0.0
    for i in range(4):
        image, c = batch["image"][i : i + 1], int(batch["label"][i])
        mask = F.interpolate(batch["mask"][i : i + 1], size=(4, 4), mode="area")
        gate = (0.2 + 0.8 * mask) if bool(batch["has_mask"][i]) else torch.ones_like(mask)

        def network(image, gate=gate):
            features = model.backbone(image)
            return features, model.head(features * gate)

        features, logits = network(image)
        gradient = torch.autograd.grad(logits[0, c], features, create_graph=True)[0]
        attention = torch.relu(sum(gradient[0, k].sum() / 16 * features[0, k] for k in range(6)))
        attention = F.interpolate(attention[None, None], size=(16, 16), mode="bilinear", align_corners=False)[
            0, 0
        ]
        attention = (attention - attention.min()) / (attention.max() - attention.min() + 1e-8)
        threshold = 1 / (1 + torch.exp(-10.0 * (attention - 0.5)))
        masked = image - threshold * image
        total = total + torch.softmax(network(masked)[1], dim=1)[0, c] / 4
    guidance = model.train().guide(batch)
    loss = model.attention_losses[0](guidance)
    assert torch.allclose(loss, 0.7 * total, atol=1e-6)
    ours = torch.autograd.grad(loss, list(model.backbone.parameters()) + list(model.head.parameters()))
    literal = torch.autograd.grad(
        0.7 * total, list(model.backbone.parameters()) + list(model.head.parameters())
    )
    for a, b in zip(ours, literal, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert float(ours[0].abs().max()) > 0  # it reaches the first layer


def test_several_labels_are_averaged_per_image():
    batch = make_batch(size=2, masks=True)
    batch["has_mask"] = torch.tensor([True, True])
    batch["label"] = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    model = tiny_classifier(
        norm="group", multi_label=True, attention_losses=[MaskAlignment(weight=1.0)]
    ).train()
    guidance = model.guide(batch)

    def squared(i, c):
        attention = guidance.attention_for(torch.tensor([c, c]))[i].relu()
        return ((normalise(attention[None])[0] - resize(batch["mask"], attention[None])[i]) ** 2).mean()

    expected = ((squared(0, 0) + squared(0, 2)) / 2 + squared(1, 1)) / 2
    assert torch.allclose(model.attention_losses[0](guidance), expected)


def test_a_batch_without_masks_gives_a_connected_zero():
    model = tiny_classifier(attention_losses=[MaskAlignment()]).train()
    loss = model.attention_losses[0](model.guide(make_batch(masks=False)))
    assert float(loss) == 0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_dead_maps_are_left_out_of_mining(batch):
    model = tiny_classifier(attention_losses=[AttentionMining()]).train()
    with torch.no_grad():
        model.head.net[-1].weight[0].zero_()  # class 0 has no map
    guidance = model.guide(batch)
    alive = batch["label"] != 0
    scores = model.attention_losses[0].compute(guidance)
    alive = alive & (guidance.attention.relu().amax((1, 2, 3)) > 1e-8)
    assert torch.allclose(model.attention_losses[0](guidance), scores[alive].mean())


def test_the_mining_pass_leaves_batch_norm_bitwise_alone(batch):
    plain, mined = tiny_classifier(), tiny_classifier(attention_losses=[AttentionMining()])
    mined.load_state_dict(plain.state_dict())
    for model in (plain, mined):
        model.train()
        model.losses(model.guide(batch))["loss"].backward()
    for (name, a), (_, b) in zip(plain.named_buffers(), mined.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    start = dict(tiny_classifier().named_buffers())
    assert not torch.equal(
        dict(mined.named_buffers())["backbone.module.1.running_mean"], start["backbone.module.1.running_mean"]
    )


def test_the_mining_pass_uses_batch_statistics_as_the_first_does(batch):
    model = tiny_classifier().train()
    guidance = model.guide(batch)
    assert torch.allclose(guidance.rescore(batch["image"]), guidance.logits, atol=1e-6)


def test_a_loss_that_forgets_the_batch_dimension_is_told():
    class Scalar(AttentionLoss):
        def compute(self, guidance):
            return guidance.attention.mean()

    model = tiny_classifier()
    with pytest.raises(ValueError, match=r"Scalar.compute must give one value per sample, \[4\]; got \[\]"):
        Scalar()(model.guide(make_batch()))


@pytest.mark.parametrize("stage", ["frozen", "eval", "inference"])
def test_the_map_is_the_same_without_a_graph(batch, stage):
    model = tiny_classifier(norm="group").train()
    expected = model.guide(batch).attention.detach()
    if stage == "frozen":
        frozen = tiny_classifier(norm="group", freeze_backbone=True).train()
        frozen.load_state_dict(model.state_dict())
        attention = frozen.guide(batch).attention
        attention.sum().backward()  # stage I: the head still learns from the map
        assert frozen.head.net[-1].weight.grad.abs().sum() > 0
        assert all(p.grad is None for p in frozen.backbone.parameters())
    else:
        context = torch.no_grad() if stage == "eval" else torch.inference_mode()
        with context:
            attention = model.eval().guide(batch).attention
        assert not attention.requires_grad
    assert torch.allclose(attention, expected, atol=1e-7)


def test_maps_under_bf16_autocast_are_float32_and_close(batch):
    model = tiny_classifier(norm="group", attention_losses=[AttentionMining(), MaskAlignment()]).train()
    full = normalise(model.guide(batch).attention.relu())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guidance = model.guide(batch)
        losses = model.losses(guidance)
    losses["loss"].backward()
    assert guidance.attention.dtype == torch.float32
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert float((normalise(guidance.attention.relu()) - full).abs().max()) < 5e-2


def test_the_backbone_may_be_compiled_away_from_the_head(batch):
    model = tiny_classifier(
        norm="group", head=MLPHead(hidden=[4], dropout=[0.0]), attention_losses=[MaskAlignment()]
    )
    compiled = copy.deepcopy(model)
    compiled.backbone.module = torch.compile(compiled.backbone.module, backend="aot_eager")
    gradients = []
    for net in (model, compiled):
        net.losses(net.guide(batch))["loss"].backward()
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    assert torch.allclose(*gradients, atol=1e-6)
