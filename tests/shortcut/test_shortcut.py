"""`guidedattn shortcut`: what is measured, what is resumed, what is refused."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from guidedattn.cli import main
from guidedattn.gates import MultiplyGate, OpenGate
from guidedattn.jobs import LocalProcesses
from guidedattn.shortcut import cost
from guidedattn.shortcut.command import Benchmark, _bench, parser
from guidedattn.shortcut.cost import step_costs
from guidedattn.shortcut.measure import (
    MISTAKES,
    SHOWN,
    accuracy_outside_swapped,
    accuracy_with_wrong_masks,
    halved,
    measure,
    moved,
    shrunk,
)
from guidedattn.shortcut.report import summarise
from tests.conftest import make_batch, tiny_classifier

CONFIG = """
data:
  class_path: PhantomDataModule
  init_args: {train_size: 30, val_size: 12, test_size: 12, image_size: 32}
marker: {class_path: Border}
epochs: 1
seeds: [0, 1]
model:
  backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}
  head: {class_path: LinearHead}
recipes:
  aligned:
    attention_losses: [{class_path: MaskAlignment, init_args: {weight: 1.0}}]
    tune: {attention_losses.0.init_args.weight: [5.0, 20.0]}
"""


CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"


def test_the_config_of_other_markers_leaves_the_recommended_recipe_alone():
    def runs(*names, more=()):
        words = [word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
        return Benchmark(parser().parse_args([*words, *more]), words, LocalProcesses()).first_runs()

    other = ["--marker", "ScannerTexture", "--marker.num_classes", "2"]
    few = runs("shortcut_cxr", "shortcut_markers", more=other)
    always = {"ceiling", "inside only", "plain"}
    best = "fitted outside + gate at stride 4 + alignment"
    others = {"gate at stride 4", "fitted outside + alignment", "continued inside + alignment"}
    assert {run.recipe for run in few} == {*always, *others, best}
    assert len(few) == 7 * 3
    many = {run.recipe: run for run in runs("shortcut_cxr")}
    assert all(many[run.recipe].arguments == run.arguments for run in few)
    assert {name for name, run in many.items() if run.shown == "absent"} == {"ceiling", f"{best}, no marker"}


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "shortcut.yaml").write_text(CONFIG)
    return ["shortcut", "--config", "shortcut.yaml", "--output", "out"]


def test_accuracies_and_margins_are_those_of_the_logits():
    model = tiny_classifier().eval()
    batches = {shown: [make_batch(5, seed=i), make_batch(4, seed=9 + i)] for i, shown in enumerate(SHOWN)}
    found = measure(model, batches)
    for shown in SHOWN:
        logits = torch.cat([model(batch["image"]) for batch in batches[shown]])
        labels = torch.cat([batch["label"] for batch in batches[shown]])
        right = (logits.argmax(1) == labels).tolist()
        assert found["accuracy"][shown] == pytest.approx(sum(right) / 9)
        assert [value > 0 for value in found["margins"][shown].tolist()] == right


def test_mistakes_of_masks_are_those_of_segmenters():
    mask = torch.zeros(1, 1, 80, 80)
    mask[..., 20:60, 10:70] = 1
    assert shrunk(mask).nonzero()[:, 2:].aminmax(dim=0).min.tolist() == [22, 12]
    assert shrunk(mask).sum() == 36 * 56
    assert torch.equal(moved(mask)[..., 25:65, :], mask[..., 20:60, :])
    assert moved(mask).sum() == mask.sum()
    assert torch.equal(halved(mask)[..., :40], mask[..., :40])
    assert not halved(mask)[..., 40:].any()


def test_a_mask_that_a_mistake_empties_is_none():
    batch = make_batch(4, side=40)
    batch["mask"] = torch.zeros_like(batch["mask"])
    batch["mask"][..., 30:] = 1
    model = tiny_classifier(input_gate=MultiplyGate()).eval()
    batch["label"] = model(batch["image"]).argmax(1)  # the whole images
    assert accuracy_with_wrong_masks(model, [batch])["halved"] == 1


def test_wrong_masks_mislead_only_those_who_ask_for_masks():
    batches = [make_batch(12, side=80, seed=seed) for seed in range(2)]
    for batch in batches:
        batch["mask"] = torch.zeros_like(batch["mask"])
        batch["mask"][..., 20:60, 20:60], batch["has_mask"] = 1, torch.ones(12, dtype=torch.bool)
    for gate in (OpenGate(), MultiplyGate()):
        model = tiny_classifier(input_gate=gate).eval()
        (linear,) = (layer for layer in model.head.modules() if isinstance(layer, torch.nn.Linear))
        linear.bias.data -= model(batches[0]["image"], batches[0]).mean(0).detach()  # answers that differ
        found = accuracy_with_wrong_masks(model, batches)
        for name, mistake in MISTAKES.items():
            wrong = [{**batch, "mask": mistake(batch["mask"])} for batch in batches]
            right = [model(batch["image"], batch).argmax(1) == batch["label"] for batch in wrong]
            assert found[name] == pytest.approx(torch.cat(right).float().mean().item())
        assert (len(set(found.values())) == 1) == isinstance(gate, OpenGate)


def test_a_model_that_sees_the_inside_only_is_not_moved_by_another_outside():
    model = tiny_classifier(input_gate=MultiplyGate()).eval()
    batches = [make_batch(12, seed=seed) for seed in range(3)]
    for batch in batches:
        batch["has_mask"][:] = True
    logits = torch.cat([model(batch["image"], batch) for batch in batches])
    right = logits.argmax(1) == torch.cat([batch["label"] for batch in batches])
    plain = right[1:].float().mean().item()  # before the first there is nobody to swap with
    assert accuracy_outside_swapped(model, batches) == pytest.approx(plain)


def result(recipe, seed, matched, swapped):
    margins = {"matched": matched, "absent": matched, "swapped": swapped}
    accuracy = {shown: sum(m > 0 for m in values) / len(values) for shown, values in margins.items()}
    return {
        "recipe": recipe, "variant": "", "seed": seed, "accuracy": accuracy, "margins": margins,
        "energy_in_mask": 0.5, "dead_maps": 0.0, "wrong_masks": {"shrunk": 0.75, "moved": 0.5},
    }  # fmt: skip


def test_reliance_is_in_units_of_the_ceilings_margins_of_the_same_seed():
    results = [
        result("ceiling", 0, [1.0, 3.0], [1.0, 3.0]),  # standard deviation sqrt(2)
        result("ceiling", 1, [0.0, 4.0], [0.0, 4.0]),  # 2 sqrt(2)
        *(result("plain", seed, [1.0, 1.0], [-1.0, -3.0]) for seed in (0, 1)),  # a mean shift of 3
        *(result("guided", seed, [1.0, 1.0], [1.0, 1.0]) for seed in (0, 1)),
    ]
    found = summarise(results, {"ceiling": 1.0, "plain": 1.0, "guided": 2.0})
    values = [run["reliance"] for run in found["plain"]["runs"]]
    assert values == pytest.approx([3 / 2**0.5, 1.5 / 2**0.5])
    assert found["plain"]["mean"]["reliance"] == pytest.approx(2.25 / 2**0.5)
    assert found["plain"]["sd"]["reliance"] == pytest.approx(0.75)  # of two values: difference / sqrt(2)
    expected = {"matched": 1, "absent": 1, "swapped": 1, "reliance": 0, "energy_in_mask": 0.5}
    assert found["guided"]["mean"] == pytest.approx({**expected, "dead_maps": 0, "wrong_masks": 0.5})
    assert found["guided"]["step"] == 2


def test_steps_are_timed_on_the_device_of_the_runs(config, monkeypatch):
    words = config[1:]
    runs = Benchmark(parser().parse_args(words), words, LocalProcesses()).first_runs()
    one = {run.recipe: run for run in runs if run.recipe != "aligned"}
    bench = _bench(words)
    assert step_costs(bench, {"plain": one["plain"]}, 1) == {"plain": 1}
    seen = set()

    def step(model, batch):
        seen.add((model.device.type, batch["image"].device.type, batch["mask"].device.type))
        return lambda: None

    strategy = SimpleNamespace(root_device=torch.device("meta"))
    monkeypatch.setattr(cost.pl, "Trainer", lambda **options: SimpleNamespace(strategy=strategy))
    monkeypatch.setattr(cost, "_step", step)
    assert list(step_costs(bench, one, 1)) == list(one)
    assert seen == {("meta", "meta", "meta")}


@pytest.mark.slow
def test_the_benchmark_runs_tunes_resumes_and_refuses_other_settings(config, tmp_path, capsys):
    assert main([*config, "--jobs", "2"]) == 0
    printed = capsys.readouterr().out
    assert "aligned (weight=" in printed
    runs = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").iterdir()}
    tried = {f"aligned-weight={w}-0.json" for w in (5, 20)}
    assert tried < set(runs)
    assert len(runs) == 3 * 2 + 2 + 1  # always there, tried on the first seed, the chosen one on the second
    tries = {name: json.loads((tmp_path / "out/runs" / name).read_text()) for name in tried}
    best = max(tries.values(), key=lambda r: r["val_accuracy_outside_swapped"])
    summary = json.loads((tmp_path / "out/results.json").read_text())
    assert list(summary) == ["ceiling", "inside only", "plain", "aligned"]
    assert summary["plain"]["step"] == 1
    assert summary["aligned"]["step"] > 0
    chosen = {run["variant"] for run in summary["aligned"]["runs"]}
    assert len(chosen) == 1
    scores = {r["variant"]: r["val_accuracy_outside_swapped"] for r in tries.values()}
    assert scores[chosen.pop()] == best["val_accuracy_outside_swapped"]
    assert summary["inside only"]["mean"]["reliance"] == pytest.approx(0, abs=1e-3)

    (tmp_path / "out/runs/plain-1.json").unlink()  # as if the call had been killed
    assert main(config) == 0
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").iterdir()}
    assert {name for name in again if again[name] != runs[name]} == {"plain-1.json"}
    repeated = json.loads((tmp_path / "out/results.json").read_text())["plain"]["runs"][1]
    assert repeated["swapped"] == summary["plain"]["runs"][1]["swapped"]

    assert main([*config, "--epochs", "2"]) == 2
    assert "holds a run of other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("  bad:\n    gat: {class_path: MultiplyGate}\n", "recipe 'bad': .*gat"),
        ("  bad:\n    gate: {class_path: MultiplyGat}\n", "recipe 'bad': .*MultiplyGat"),
        (
            "  bad:\n    tune: {attention_losses.0.weight: [1.0]}\n",
            "tune: the recipe has no attention_losses.0",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_written(config, tmp_path, capsys, wrong, message):
    (tmp_path / "shortcut.yaml").write_text(CONFIG + wrong)
    assert main(config) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
