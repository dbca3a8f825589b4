"""Every attention loss of the package, found by itself: what all must do, and each against its formula."""

from __future__ import annotations

import inspect
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
from guidedattn.guidance import normalise
from guidedattn.losses import (
    AttentionLoss,
    AttentionMining,
    EveryNthStep,
    InputGradientPenalty,
    InsideBCE,
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
def test_dead_maps_are_not_rewarded(kind, batch):
    model, loss = with_loss(kind)
    with torch.no_grad():
        model.head.net[-1].weight.zero_()
    guidance = model.guide(batch)
    values, counted = loss.per_sample(guidance)
    if guidance.has_attention:  # the loss looked at the map
        assert not counted.any()
        assert not values.any()


@pytest.mark.parametrize("multi_label", [False, True])
@every_loss
def test_bf16_autocast_is_finite_and_close(kind, multi_label, batch):
    model, loss = with_loss(kind, multi_label=multi_label)
    if multi_label:
        batch["label"] = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1], [0, 1, 1]])
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


@pytest.mark.parametrize("multi_label", [False, True])
@every_loss
def test_gradient_in_float64(kind, multi_label):
    """By every parameter, on a batch whose last image has no mask."""
    model, loss = with_loss(kind, multi_label=multi_label)
    model.double()
    batch = make_batch(size=3, side=12)
    batch["image"], batch["mask"] = batch["image"].double(), batch["mask"].double()
    if multi_label:
        batch["label"] = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    names, start = zip(*model.named_parameters(), strict=True)

    def of_weights(*weights):
        named = {f"model.{name}": weight for name, weight in zip(names, weights, strict=True)}
        return torch.func.functional_call(_Loss(model, loss), named, (batch,))

    start = tuple(weight.detach().clone().requires_grad_() for weight in start)
    assert torch.autograd.gradcheck(of_weights, start, eps=1e-6, atol=1e-5, fast_mode=True)


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


# Details of one loss or another (their formulas: test_formulas) ---------------------------------------


def test_inside_bce_of_a_lesion_of_one_pixel_is_that_of_its_cell(batch):
    model, loss = with_loss(InsideBCE)
    guidance = model.guide(batch)
    pixel = torch.zeros(4, 1, 224, 224)
    pixel[:, :, 3, 3] = 1
    values, counted = loss.per_sample(replace(guidance, mask=pixel))
    cell = normalise(guidance.attention.relu())[:, 0, 0, 0]
    expected = -loss.weight * (0.01 + 0.98 * cell).log()
    assert torch.allclose(values[counted], expected[counted])


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
