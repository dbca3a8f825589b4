"""Every attention loss of the package, found by itself: what all must do, and each against its formula."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import guidedattn.losses as family
from guidedattn.backbones import TimmBackbone
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli import main
from guidedattn.component import build, describe
from guidedattn.errors import ConfigError
from guidedattn.losses import (
    AttentionLoss,
    AttentionMining,
    EveryNthStep,
    ForegroundOnly,
    InputGradientPenalty,
    MaskAlignment,
    OutsidePenalty,
    SecondPassLoss,
    WarmUp,
)
from tests.conftest import make_batch, tiny_classifier

LOSSES = [
    member
    for member in vars(family).values()
    if inspect.isclass(member) and issubclass(member, AttentionLoss) and not inspect.isabstract(member)
]
every_loss = pytest.mark.parametrize("kind", LOSSES, ids=lambda kind: kind.__name__)


def with_loss(kind, norm="group", multi_label=False, **arguments):
    """A tiny classifier in training mode with one loss, and that loss."""
    model = tiny_classifier(norm, attention_losses=[kind(**arguments)], multi_label=multi_label).train()
    return model, model.attention_losses[0]


def value(model, loss, batch):
    torch.manual_seed(1)  # for losses that draw random numbers
    return loss(model.guide(batch))


# What every loss must do ------------------------------------------------------------------------------


@every_loss
def test_the_loss_is_the_mean_over_the_samples_that_count_and_reaches_the_first_layer(kind, batch):
    model, loss = with_loss(kind)
    torch.manual_seed(1)
    values, counted = loss.per_sample(model.guide(batch))
    assert values.shape == counted.shape == (4,)
    assert values.isfinite().all()
    assert counted.any()
    assert counted[3].logical_not() or not loss.needs_mask  # the fourth image has no mask
    assert not values[~counted].any()
    assert torch.allclose(value(model, loss, batch), values[counted].mean())
    values.sum().backward()
    assert float(model.backbone.module[0].weight.grad.abs().max()) > 0


@every_loss
def test_a_loss_is_its_value_times_its_weight(kind, batch):
    model, loss = with_loss(kind, weight=1.0)
    once = value(model, loss, batch)
    loss.weight = 3.0
    assert torch.allclose(value(model, loss, batch), 3 * once)


@every_loss
def test_batches_without_masks(kind):
    model, loss = with_loss(kind)
    total = value(model, loss, make_batch(masks=False))
    total.backward()
    if loss.needs_mask:
        assert float(total.detach()) == 0
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_loss
def test_an_image_with_two_labels_gets_the_mean_of_both(kind):
    model, loss = with_loss(kind, multi_label=True)
    if isinstance(loss, ForegroundOnly):
        pytest.skip("reads all labels at once")
    values = []
    for label in ([1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]):
        batch = make_batch(size=2) | {"label": torch.tensor([label, label])}
        batch["has_mask"] = torch.tensor([True, True])
        torch.manual_seed(1)
        values.append(loss.per_sample(model.guide(batch)))
    (both, _), (first, alive), (second, alive_too) = values
    counted = alive & alive_too
    assert counted.any()
    assert torch.allclose(both[counted], ((first + second) / 2)[counted], atol=1e-6)


@every_loss
def test_dead_maps_are_not_rewarded(kind, batch):
    model, loss = with_loss(kind)
    with torch.no_grad():
        model.head.net[-1].weight.zero_()
    guidance = model.guide(batch)
    values, counted = loss.per_sample(guidance)
    if guidance.has_attention:  # the loss looked at the map
        assert not counted.any()
        assert not values.any()


@every_loss
def test_bf16_autocast_is_finite_and_close(kind, batch):
    model, loss = with_loss(kind)
    full = value(model, loss, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = value(model, loss, batch)
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(full), rel=5e-2)
    half.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@every_loss
def test_no_graph_is_needed_to_measure(kind, batch):
    model, loss = with_loss(kind)
    expected = value(model.eval(), loss, batch)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            found = value(model, loss, batch)
        assert not found.requires_grad
        assert torch.allclose(found, expected, atol=1e-6)


@every_loss
def test_a_frozen_backbone_learns_nothing_and_breaks_nothing(kind, batch):
    model = tiny_classifier(attention_losses=[kind()], freeze_backbone=True).train()
    model.losses(model.guide(batch))["loss"].backward()
    assert all(p.grad is None for p in model.backbone.parameters())


@every_loss
def test_running_statistics_are_those_of_the_first_pass_alone(kind, batch):
    plain, (model, _) = tiny_classifier().train(), with_loss(kind, norm="batch")
    plain.guide(batch)
    model.losses(model.guide(batch))["loss"].backward()
    buffers = dict(model.backbone.named_buffers())
    for name, expected in plain.backbone.named_buffers():
        assert torch.equal(buffers[name], expected), name


@every_loss
def test_gradient_in_float64(kind):
    model, loss = with_loss(kind)
    model.double()
    batch = make_batch(size=2, side=12)
    batch["image"], batch["mask"] = batch["image"].double(), batch["mask"].double()
    batch["has_mask"] = torch.tensor([True, True])
    layer = model.backbone.module[0]
    start = layer.weight.detach().clone().requires_grad_()

    def of_weight(weight):
        return torch.func.functional_call(
            _Loss(model, loss), {"model.backbone.module.0.weight": weight}, (batch,)
        )

    assert torch.autograd.gradcheck(of_weight, (start,), eps=1e-6, atol=1e-5, fast_mode=True)


class _Loss(torch.nn.Module):
    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch):
        return value(self.model, self.loss, batch)


@every_loss
def test_a_checkpoint_can_rebuild_it(kind):
    loss = kind(weight=EveryNthStep(2.0, every=3))
    again = build(describe(loss), AttentionLoss)
    assert type(again) is kind
    assert (again.weight.weight, again.weight.every) == (2.0, 3)


def test_all_losses_together_from_yaml_by_short_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    losses = [{"class_path": kind.__name__, "init_args": {"weight": 0.1}} for kind in LOSSES]
    losses[0]["init_args"]["weight"] = {"class_path": "WarmUp", "init_args": {"weight": 0.1, "steps_up": 2}}
    Path("all.yaml").write_text(yaml.safe_dump({"model": {"attention_losses": losses}}))
    words = ["--model.backbone.name", "test_resnet", "--data.image_size", "64", "--data.train_size", "4"]
    words += ["--data.val_size", "4", "--data.test_size", "4", "--trainer.accelerator", "cpu"]
    assert main(["fit", "--config", "all.yaml", *words, "--trainer.fast_dev_run", "true"]) == 0


# Each against its formula, image by image, cell by cell ---------------------------------------------------


def literal_map(model, image, label):
    """Signed Grad-CAM of one image as 4 rows of 4 numbers."""
    features = model.backbone(image)
    gradient = torch.autograd.grad(model.head(features)[0, label], features)[0]
    weights = [float(gradient[0, k].sum()) / 16 for k in range(6)]
    cells = features.detach()[0]
    return [
        [sum(w * float(cells[k, i, j]) for k, w in enumerate(weights)) for j in range(4)] for i in range(4)
    ]


def literal_cells(model, batch, i):
    """Pairs (normalised map, mask share) of an image's 16 cells."""
    attention = literal_map(model, batch["image"][i : i + 1], int(batch["label"][i]))
    positive = [[max(a, 0.0) for a in row] for row in attention]
    low, high = min(map(min, positive)), max(map(max, positive))
    mask = batch["mask"][i, 0]
    return [
        ((positive[r][c] - low) / (high - low), float(mask[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean()))
        for r in range(4)
        for c in range(4)
    ]


def soft_log(a):
    return math.log(0.01 + 0.98 * a)


def literal_energy_outside(model, batch, i):
    attention = literal_map(model, batch["image"][i : i + 1], int(batch["label"][i]))
    cells = [abs(a) for row in attention for a in row]
    shares = [m for _, m in literal_cells(model, batch, i)]
    return sum(a * (1 - m) for a, m in zip(cells, shares, strict=True)) / sum(cells)


def literal_outside_penalty(model, batch, i):
    features = model.backbone(batch["image"][i : i + 1])[0]
    shares = [m for _, m in literal_cells(model, batch, i)]
    energy = [float((features[:, c // 4, c % 4] ** 2).sum()) for c in range(16)]
    return sum(e * (1 - m) for e, m in zip(energy, shares, strict=True)) / sum(energy)


def literal_input_gradient(model, batch, i):
    """The derivative by finite differences, pixel by pixel."""
    model = model.double()
    image, step, total = batch["image"][i : i + 1].double(), 1e-5, 0.0
    for r in range(16):
        for c in range(16):
            shifted = []
            for sign in (1, -1):
                moved = image.clone()
                moved[0, 0, r, c] += sign * step
                shifted.append(float(model.head(model.backbone(moved)).log_softmax(1).sum()))
            slope = (shifted[0] - shifted[1]) / (2 * step)
            total += ((1 - float(batch["mask"][i, 0, r, c])) * slope) ** 2
    model.float()
    return total


def mean(values):
    values = list(values)
    return sum(values) / len(values)


LITERAL = {
    "MaskAlignment": lambda *x: mean((a - m) ** 2 for a, m in literal_cells(*x)),
    "L1Alignment": lambda *x: mean(abs(a - m) for a, m in literal_cells(*x)),
    "BCEAlignment": lambda *x: mean(
        -(m * soft_log(a) + (1 - m) * soft_log(1 - a)) for a, m in literal_cells(*x)
    ),
    "InsideBCE": lambda *x: (
        sum(-m * soft_log(a) for a, m in literal_cells(*x)) / sum(m for _, m in literal_cells(*x))
    ),
    "EnergyOutside": literal_energy_outside,
    "OutsidePenalty": literal_outside_penalty,
    "InputGradientPenalty": literal_input_gradient,
}


@pytest.mark.parametrize("name", LITERAL)
def test_the_formula_taken_literally(name, batch):
    model, loss = with_loss(getattr(family, name), weight=1.0)
    values, counted = loss.per_sample(model.guide(batch))
    assert counted.tolist() == [True, True, True, False]
    for i in range(3):
        assert float(values[i].detach()) == pytest.approx(LITERAL[name](model, batch, i), rel=1e-3, abs=1e-6)


def test_log_probabilities_of_several_labels_are_of_both_answers(batch):
    model, loss = with_loss(InputGradientPenalty, multi_label=True, weight=1.0)
    batch["label"] = torch.eye(3)[batch["label"]]
    image = batch["image"][:1].clone().requires_grad_()
    probabilities = model.head(model.backbone(image)).sigmoid()
    (slope,) = torch.autograd.grad((probabilities.log() + (1 - probabilities).log()).sum(), image)
    expected = (((1 - batch["mask"][:1]) * slope) ** 2).sum()
    assert torch.allclose(loss.per_sample(model.guide(batch))[0][0], expected, rtol=1e-4)


def test_a_transformer_can_be_differentiated_twice():
    """Its fused attention cannot; the penalty goes around it."""
    loss = InputGradientPenalty(scale=0.5)
    model = GuidedClassifier(backbone=TimmBackbone("test_vit"), attention_losses=[loss]).train()
    model.losses(model.guide(make_batch(side=64)))["loss_input_gradient_penalty"].backward()
    gradients = [p.grad for p in model.backbone.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_outside_penalty_cannot_be_met_by_small_features(batch):
    model, loss = with_loss(OutsidePenalty, weight=1.0)
    guidance = model.guide(batch)
    shrunk = replace(guidance, features=guidance.features / 100)
    assert torch.allclose(loss(shrunk), loss(guidance), atol=1e-5)
    absolute = OutsidePenalty(relative=False)
    assert float(absolute(shrunk)) == pytest.approx(float(absolute(guidance)) / 1e4, rel=1e-3)
    assert not guidance.has_attention  # no map was computed for it


# Schedules, and less of the second pass -----------------------------------------------------------------


def test_a_resting_loss_computes_nothing_and_stays_connected(batch):
    model, loss = with_loss(MaskAlignment, weight=EveryNthStep(2.0, every=2))
    always = MaskAlignment(weight=2.0)
    for step in range(4):
        guidance = model.guide(batch)
        found = loss(guidance)
        assert guidance.has_attention == (step % 2 == 0)
        assert float(found) == pytest.approx(0.0 if step % 2 else float(always(guidance)))
        found.backward()
    assert int(loss.weight.steps) == 4


def test_the_counter_of_a_schedule_is_part_of_the_checkpoint_and_rests_while_validating(batch):
    schedule = WarmUp(4.0, steps_up=4)
    model, loss = with_loss(MaskAlignment, weight=schedule)
    full = float(MaskAlignment(weight=4.0)(model.guide(batch)))
    assert [float(loss(model.guide(batch))) for _ in range(3)] == pytest.approx(
        [full / 4, full / 2, 3 * full / 4]
    )
    model.eval()
    assert float(loss(model.guide(batch))) == pytest.approx(full)
    state = model.state_dict()
    again, resumed = with_loss(MaskAlignment, weight=WarmUp(4.0, steps_up=4))
    again.load_state_dict(state)
    assert float(resumed(again.guide(batch))) == pytest.approx(full)
    assert int(resumed.weight.steps) == 4


class Recorder:
    """Stands between a loss and the network and notes what goes through it."""

    def __init__(self, guidance):
        self.shapes, self.guidance = [], guidance

    def __call__(self, images):
        self.shapes.append(tuple(images.shape))
        return self.guidance.rescore(images)

    def watched(self):
        return replace(self.guidance, rescore=self)


@pytest.mark.parametrize("kind", [kind for kind in LOSSES if issubclass(kind, SecondPassLoss)])
def test_fraction_and_scale_of_the_second_pass(kind):
    model, loss = with_loss(kind, fraction=0.3, scale=0.5)
    batch = make_batch(size=8)
    seen = Recorder(model.guide(batch))
    _, counted = loss.per_sample(seen.watched())
    assert seen.shapes == [(3, 1, 8, 8)]
    assert not counted[3:].any()
    assert counted[:3].any()
    model.eval()  # measuring takes the whole batch
    seen = Recorder(model.guide(batch))
    loss(seen.watched())
    assert seen.shapes == [(8, 1, 8, 8)]


def test_a_quarter_of_the_batch_is_mined_as_the_whole_would_be():
    batch = make_batch(size=8)
    model, quarter = with_loss(AttentionMining, fraction=0.25)
    whole = AttentionMining().train()
    guidance = model.guide(batch)
    part, counted = quarter.per_sample(guidance)
    assert torch.allclose(part[:2], whole.per_sample(guidance)[0][:2])
    assert int(counted.sum()) <= 2


@pytest.mark.parametrize("wrong", [
    lambda: AttentionMining(fraction=0.0), lambda: InputGradientPenalty(scale=1.5),
    lambda: EveryNthStep(every=0), lambda: WarmUp(steps_up=0), lambda: WarmUp(weight=-1.0),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()
