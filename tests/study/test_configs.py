"""The study's example configs compose, and say what they promise."""

from pathlib import Path

import pytest

from guidedattn.study.options import parser
from guidedattn.study.plan import Plan

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"


def plan(*names, more=()):
    words = [word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
    return Plan(parser().parse_args([*words, *more]), "data")


def test_the_papers_recipe_is_its_ten_bodies_and_its_optimiser():
    study = plan("study_paper", "cxr", more=["--data.root", "here", "--model.mask_provider", "FullMask"])
    assert len(study.first) == 10
    run = study.third(["EfficientNet B5"])[2]
    assert (run.name, run.image_size, run.training.patience) == (
        "stage3-EfficientNet_B5-both-seed0", 456, 10
    )  # fmt: skip
    arguments = run.arguments
    assert arguments["optimizer"]["class_path"] == "torch.optim.SGD"
    assert arguments["optimizer"]["init_args"]["lr"] == 1e-4
    assert arguments["gate"]["class_path"].endswith("MultiplyGate")
    assert arguments["attention_losses"][0]["class_path"].endswith("AttentionMining")
    assert arguments["mask_provider"]["class_path"].endswith("FullMask")
    assert [study.first[0].arguments["freeze_backbone"], arguments["freeze_backbone"]] == [True, False]


def test_the_modern_recipe_changes_optimiser_epochs_and_repeats_alone():
    study = plan("study_paper", "study_modern", "cxr", more=["--data.root", "here"])
    assert len(study.first) == 30
    second = study.second(["VGG-16"])[0]
    assert second.arguments["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert second.arguments["optimizer"]["init_args"]["lr"] == 3e-4
    assert second.arguments["lr_scheduler"]["init_args"]["T_max"] == second.training.epochs == 20
    assert second.arguments["head"]["class_path"].endswith("MLPHead")
    assert (study.first[0].views, second.views) == (5, 1)


def test_a_run_is_identified_by_all_it_depends_on_and_by_nothing_else():
    base = plan("study_phantoms")
    for same in (["--jobs", "3"], ["--seeds", "[0, 1]"], ["--select", "1"], ["--stage3.epochs", "9"]):
        changed = plan("study_phantoms", more=same)
        assert changed.second(["ResNet 10t"])[0].settings == base.second(["ResNet 10t"])[0].settings
    for other in (
        ["--stage1.epochs", "9"],  # of the run that it starts from
        ["--stage2.patience", "3"],
        ["--data.init_args.seed", "1"],
        ["--model.criterion", "torch.nn.MultiMarginLoss"],
    ):
        changed = plan("study_phantoms", more=other)
        assert changed.second(["ResNet 10t"])[0].settings != base.second(["ResNet 10t"])[0].settings


@pytest.mark.parametrize(("select", "chosen"), [(1, ["small ResNet"]), (2, ["ResNet 10t", "small ResNet"])])
def test_the_most_accurate_bodies_over_all_repeats_go_on(select, chosen):
    study = plan("study_phantoms", more=["--select", str(select), "--seeds", "[0, 1]"])
    accuracies = {"ResNet 10t": (0.7, 0.6), "small ResNet": (0.5, 0.9), "small EfficientNet": (0.9, 0.39)}
    results = [{"body": b, "val_accuracy": a} for b, values in accuracies.items() for a in values]
    assert study.choose(results) == chosen
