"""Every metric on maps, found by itself, and what is measured on the prediction under other backgrounds."""

from __future__ import annotations

import copy
import inspect
import sys
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

import guidedattn.metrics as family
from guidedattn.backgrounds import BlurredBackground
from guidedattn.cli import main
from guidedattn.errors import ConfigError
from guidedattn.guidance import Guidance
from guidedattn.metrics import (
    MEANING,
    AttentionIoU,
    BackgroundRobustness,
    EnergyInMask,
    MapMetric,
    PointingGame,
    Reliance,
    margin,
    reliance,
    road,
)
from guidedattn.metrics.background import partners
from tests.conftest import make_batch, tiny_classifier

MAP_METRICS = [
    member
    for member in vars(family).values()
    if inspect.isclass(member) and issubclass(member, MapMetric) and member is not MapMetric
]
every_map_metric = pytest.mark.parametrize("kind", MAP_METRICS, ids=lambda kind: kind.__name__)


def maps_and_masks(count=8):
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(count, 1, 4, 4, generator=generator)
    mask = (torch.rand(count, 1, 16, 16, generator=generator) > 0.6).float()
    return maps, mask


@every_map_metric
def test_inside_is_one_outside_is_zero(kind):
    maps, mask = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 16, 16)
    maps[..., 1:3, 1:3], mask[..., 4:12, 4:12] = 2.0, 1
    inside, outside = kind(), kind()
    inside.update(maps, mask, torch.tensor([True]))
    outside.update(
        maps, torch.nn.functional.pad(torch.ones(1, 1, 1, 16), [0, 0, 0, 15]), torch.tensor([True])
    )
    assert float(inside.compute()) > 0.5
    assert float(outside.compute()) == pytest.approx(0.0, abs=0.01)


@every_map_metric
def test_dead_maps_and_images_without_a_mask_do_not_count(kind):
    maps, mask = maps_and_masks(3)
    maps[1] = -maps[1].abs()  # rectified: all zero
    metric, alone = kind(), kind()
    metric.update(maps, mask, torch.tensor([True, True, False]))
    alone.update(maps[:1], mask[:1], torch.tensor([True]))
    assert metric.compute() == alone.compute()
    nothing = kind()
    nothing.update(maps[1:], mask[1:], torch.tensor([True, False]))
    assert nothing.compute().isnan()


@every_map_metric
def test_two_processes_add_up_to_one(kind):
    """States are sums: what torchmetrics reduces over processes."""
    maps, mask = maps_and_masks()
    has_mask = torch.arange(8) % 3 != 0
    whole, parts = kind(), [kind(), kind()]
    whole.update(maps, mask, has_mask)
    for part, here in zip(parts, (slice(0, 3), slice(3, 8)), strict=True):
        part.update(maps[here], mask[here], has_mask[here])
    assert {reduction.__name__ for reduction in whole._reductions.values()} == {"dim_zero_sum"}
    joined = sum(part.total for part in parts) / sum(part.number for part in parts)
    assert torch.allclose(joined, whole.compute())


def test_pointing_game_and_iou_pixel_by_pixel():
    maps, mask = maps_and_masks()
    large = torch.nn.functional.interpolate(maps.relu(), size=(16, 16), mode="bilinear")
    hits, overlaps = [], []
    for i in range(8):
        row, column = divmod(int(large[i, 0].argmax()), 16)
        hits.append(float(mask[i, 0, row, column]))
        low, high = float(large[i].min()), float(large[i].max())
        both = either = 0
        for r in range(16):
            for c in range(16):
                shown = (float(large[i, 0, r, c]) - low) / (high - low) >= 0.5
                inside = bool(mask[i, 0, r, c])
                both, either = both + (shown and inside), either + (shown or inside)
        overlaps.append(both / either)
    for kind, expected in ((PointingGame, hits), (AttentionIoU, overlaps)):
        metric = kind()
        metric.update(maps, mask, torch.ones(8, dtype=torch.bool))
        assert float(metric.compute()) == pytest.approx(sum(expected) / 8, abs=1e-6)


def test_reliance_over_batches_is_that_of_all_at_once():
    torch.manual_seed(0)
    matched, swapped, reference = (torch.randn(20) * 100 + 1e4 for _ in range(3))
    metric = Reliance()
    for part in (slice(0, 7), slice(7, 20)):
        metric.update(matched[part], swapped[part], reference[part])
    assert metric.compute() == reliance(matched, swapped, reference)


# The prediction under other backgrounds -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ([0, 1, 2, 0], [-1, 0, 1, 2]),
        ([0, 0, 0, 1, 1], [-1, -1, -1, 2, 2]),
        ([1, 1], [-1, -1]),
        ([[1, 0], [1, 0], [1, 1]], [-1, -1, 1]),
    ],
)
def test_the_partner_is_the_last_image_of_another_class(target, expected):
    assert partners(torch.tensor(target)).tolist() == expected


class Recorder:
    """Stands in for the network and keeps the images that it is shown."""

    def __init__(self, network):
        self.network, self.shown = network, []

    def __call__(self, images):
        self.shown.append(images)
        return self.network(images)


def test_backgrounds_change_the_outside_alone(batch):
    model = tiny_classifier().eval()
    recorder = Recorder(model)
    BackgroundRobustness().update(replace(model.guide(batch), rescore=recorder))
    images, inside = batch["image"], batch["mask"].bool()
    assert len(recorder.shown) == 3
    for changed in recorder.shown:
        assert torch.equal(changed[inside], images[inside])
        assert not torch.isclose(changed[~inside], images[~inside]).all()
    swapped, blurred, removed = recorder.shown
    assert torch.equal(swapped[1][~inside[1]], images[0][~inside[1]])
    assert float(blurred[0][~inside[0]].std()) < float(images[0][~inside[0]].std()) / 2
    assert torch.allclose(removed[2][~inside[2]], images[2][inside[2]].mean())


def test_a_batch_of_one_class_borrows_from_earlier_ones():
    model = tiny_classifier().eval()
    metric = BackgroundRobustness()
    shown = []
    for labels in ([0, 0, 0], [0, 1, 1], [1, 1, 1]):
        batch = make_batch(size=3, seed=len(shown)) | {"label": torch.tensor(labels)}
        recorder = Recorder(model)
        metric.update(replace(model.guide(batch), rescore=recorder))
        shown.append((batch, recorder.shown[0]))
    assert metric.number.tolist() == [3, 6, 6]  # two of each three have a mask; the first three see no other
    (second, _), (third, swapped) = shown[1:]
    outside = ~third["mask"].bool()[0]
    assert torch.equal(swapped[0][outside], second["image"][0][outside])
    with pytest.warns(UserWarning, match="could be swapped in 3 of 6 images"):
        metric.compute()
    metric.reset()
    metric.update(model.guide(shown[2][0]))
    assert metric.number.tolist() == [0, 2, 2]


@pytest.mark.parametrize("labels", ["mixed", "sorted", "several"])
def test_the_batch_size_does_not_matter(labels):
    whole = make_batch(size=12)
    order = torch.tensor([0, 0, 2, 1, 1, 1, 2, 0, 1, 2, 2, 0])
    whole["label"] = order.sort()[0] if labels == "sorted" else order
    if labels == "several":
        whole["label"] = torch.eye(3)[order] + torch.eye(3)[order.roll(1)]
    model = tiny_classifier("group", multi_label=labels == "several").eval()
    found = []
    for size in (12, 5, 2, 1):
        metric = BackgroundRobustness()
        for start in range(0, 12, size):
            part = {key: value[start : start + size] for key, value in whole.items()}
            metric.update(model.guide(part))
        found.append(metric.compute())
        assert metric.number[0] >= 6
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.allclose(other[name], value, atol=1e-5) for name, value in found[0].items())


class CornerReader(torch.nn.Module):
    """A classifier that reads nothing but the first pixel: 0, 0.4 or 1 for the classes 0, 1, 2."""

    def forward(self, images):
        grey = images[:, :, :1, :1].mean((1, 2, 3))[:, None]
        return -((grey - torch.tensor([[0.0, 0.4, 1.0]])) ** 2) * 10


def marked_guidance(reader, inside_corner):
    batch = make_batch(size=6)
    batch["image"][:, 0, 0, 0] = torch.tensor([0.0, 0.4, 1.0])[batch["label"]]
    mask = torch.zeros_like(batch["mask"])
    mask[:, :, 4:] = 1
    if inside_corner:
        mask = 1 - mask
    logits = reader(batch["image"])
    return Guidance(
        images=batch["image"], target=batch["label"], class_index=batch["label"], mask=mask,
        has_mask=torch.tensor([True] * 5 + [False]), valid=torch.ones(6, dtype=torch.bool),
        features=batch["image"], logits=logits, explainer=lambda *_: None, score=lambda *_: None,
        rescore=reader, inner={}, trace=lambda: ({}, logits),
    )  # fmt: skip


def test_a_reader_of_the_corner_is_found_out():
    metric = BackgroundRobustness()
    guidance = marked_guidance(CornerReader(), inside_corner=False)
    metric.update(guidance)
    found = metric.compute()
    assert found["accuracy_outside_swapped"] == 0
    assert found["accuracy_outside_removed"] == pytest.approx(2 / 5)  # mean grey means class 1
    matched = margin(guidance.logits, guidance.target)[1:5]  # before the first there is none
    swapped = margin(CornerReader()(guidance.images[:4]), guidance.target[1:5])
    assert torch.allclose(found["reliance_outside"], (matched - swapped).abs().mean() / matched.std())
    metric.reset()
    metric.update(marked_guidance(CornerReader(), inside_corner=True))  # now the corner may be read
    found = metric.compute()
    assert found["accuracy_outside_swapped"] == found["accuracy_outside_blurred"] == 1
    assert found["reliance_outside"] == 0


def trainer():
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_switch_adds_the_instruments_to_the_test_and_to_nothing_else(multi_label):
    batch = make_batch(size=6)
    if multi_label:
        batch["label"] = torch.eye(3)[batch["label"]]
    items = [{key: value[i] for key, value in batch.items()} for i in range(6)]
    data = DataLoader(items, batch_size=3)
    model = tiny_classifier(robustness=True, multi_label=multi_label).eval()
    (found,) = trainer().test(model, data, verbose=False)
    new = {"pointing_game", "attention_iou"} | {
        f"accuracy_outside_{kind}" for kind in ("swapped", "blurred", "removed")
    }
    new |= set() if multi_label else {"reliance_outside"}
    assert {f"test/{name}" for name in new} <= set(found)
    (validated,) = trainer().validate(model, data, verbose=False)
    assert not {f"val/{name}" for name in new} & set(validated)
    right = []
    for start in (0, 3):
        part = {key: value[start : start + 3] for key, value in batch.items()}
        with torch.no_grad():
            guidance = model.guide(part)
            inside = guidance.mask
            logits = model(BlurredBackground()(part["image"], inside), part)
        hit = (
            (logits > 0) == part["label"].bool()
            if multi_label
            else (logits.argmax(1) == part["label"])[:, None]
        )
        right += hit.float().mean(1)[part["has_mask"]].tolist()
    assert found["test/accuracy_outside_blurred"] == pytest.approx(sum(right) / len(right))


def test_a_checkpoint_is_measured_by_the_test_commands_own_switch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--model.backbone.name", "test_resnet", "--data.image_size", "64", "--data.train_size", "6"]
    words += ["--data.val_size", "6", "--data.test_size", "9", "--trainer.accelerator", "cpu"]
    words += ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    assert main(["fit", *words, "--trainer.max_epochs", "1"]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    printed = {}
    for switch in ("false", "true"):
        capsys.readouterr()
        assert main(["test", *words, "--ckpt_path", str(checkpoint), "--model.robustness", switch]) == 0
        printed[switch] = capsys.readouterr().out
    for name in MEANING:
        says = f"{name}: {MEANING[name]}"
        assert says in printed["true"]
        assert (says in printed["false"]) == (name in ("energy_in_mask", "dead_maps"))


def test_road_tells_a_map_that_matters_from_its_opposite():
    """A network that sums the left half of the image; its true map, the opposite, and a dead one."""
    torch.manual_seed(0)
    images = torch.rand(3, 1, 24, 24) * 0.2
    images[:, :, 8:16, 2:8] = 1.0

    def score(images):
        return torch.stack([20 * images[:, 0, :, :12].mean((1, 2)), torch.ones(len(images))], 1)

    true_map = torch.zeros(1, 1, 24, 24)
    true_map[..., 8:16, 2:8] = 1.0
    maps = torch.cat([true_map, 1 - true_map, torch.zeros_like(true_map)]) + torch.rand(3, 1, 24, 24) * 0.01
    maps[2] = 0
    target = torch.zeros(3, dtype=torch.long)
    guidance = Guidance(
        images=images, target=target, class_index=target, mask=true_map, has_mask=target == 0,
        valid=target == 0, features=images, logits=score(images), explainer=lambda *_: maps,
        score=score, rescore=score, inner={}, trace=lambda: ({}, score(images)),
    )  # fmt: skip
    scores = road(guidance, percentiles=(80, 90))
    assert float(scores[0]) > 0.05
    assert float(scores[1]) < -0.05
    assert scores[2].isnan()


def test_road_without_its_library_names_the_extra(monkeypatch, batch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ConfigError, match=r"pip install 'guidedattn\[explain\]'"):
        road(tiny_classifier().eval().guide(batch))


def test_the_instruments_leave_the_model_as_it_was(batch):
    model = tiny_classifier().eval()
    before = copy.deepcopy(model.state_dict())
    metric = BackgroundRobustness()
    metric.update(model.guide(batch))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not EnergyInMask().update_called
