"""The study's example configs compose, and say what they promise."""

from pathlib import Path

import pytest

from guidedattn.study.options import parser
from guidedattn.study.plan import Plan
from guidedattn.study.recipes import parse

CONFIGS = Path(__file__).resolve().parents[2] / "examples" / "configs"


def plan(*names, more=()):
    words = [word for name in names for word in ("--config", str(CONFIGS / f"{name}.yaml"))]
    return Plan(parse([*words, *more]), "data")


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


def test_the_modern_recipe_changes_optimiser_epochs_views_and_repeats_alone():
    study = plan("study_paper", "cxr", more=["--data.root", "here", "--recipe", "modern"])
    assert len(study.first) == 30
    second = study.second(["VGG-16"])[0]
    assert second.arguments["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert second.arguments["optimizer"]["init_args"]["lr"] == 3e-4
    assert second.arguments["lr_scheduler"]["init_args"]["T_max"] == second.training.epochs == 20
    assert second.arguments["head"]["class_path"].endswith("MLPHead")
    assert (study.first[0].views, second.views) == (5, 1)
    assert study.first[0].arguments["optimizer"]["init_args"]["lr"] == 1e-3


def test_what_somebody_gave_wins_over_the_recipe():
    given = ["--recipe", "modern", "--seeds", "[4]", "--stage2.patience", "3", "--stage3.epochs", "7"]
    study = plan("study_phantoms", more=given)  # its configs give an optimizer, and the epochs of all stages
    (second,), third = study.second(["ResNet 10t"]), study.third(["ResNet 10t"])[0]
    assert second.arguments["optimizer"]["init_args"]["lr"] == 2e-3
    assert (second.training.epochs, second.training.patience) == (8, 3)
    assert third.training.patience == 10
    assert third.training.epochs == third.arguments["lr_scheduler"]["init_args"]["T_max"] == 7
    (own,) = plan(
        "study_phantoms",
        more=[*given, "--stage2.model", "{optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.5}}}"],
    ).second(["ResNet 10t"])
    assert own.arguments["optimizer"]["init_args"]["lr"] == 0.5
    assert own.arguments["lr_scheduler"]["init_args"]["T_max"] == 8  # about which nobody said anything


def test_a_stage_that_says_something_else_keeps_the_recipe():
    given = ["--data", "PhantomDataModule", "--recipe", "modern", "--stage2.model"]
    (second,) = plan("study_paper", more=[*given, "{robustness: true}", "--seeds", "[0]"]).second(["VGG-16"])
    assert second.arguments["robustness"] is True
    assert second.arguments["optimizer"]["init_args"]["lr"] == 3e-4
    assert second.arguments["lr_scheduler"]["init_args"]["T_max"] == 20
    (second,) = plan("study_paper", more=[*given, "{lr_scheduler: null}", "--seeds", "[0]"]).second(
        ["VGG-16"]
    )
    assert second.arguments["lr_scheduler"] is None
    assert second.arguments["optimizer"]["init_args"]["lr"] == 3e-4


def test_the_config_that_a_study_leaves_gives_the_same_runs(tmp_path):
    words = [
        "--config",
        str(CONFIGS / "study_paper.yaml"),
        "--data",
        "PhantomDataModule",
        "--recipe",
        "modern",
    ]
    options = parse(words)
    (tmp_path / "config.yaml").write_text(parser().dump(options, skip_unset=False))
    again = Plan(parse(["--config", str(tmp_path / "config.yaml")]), "data")
    assert [run.settings for run in again.possible] == [
        run.settings for run in Plan(options, "data").possible
    ]


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


def test_the_study_on_real_films_has_every_arm_of_the_question_and_two_seeds():
    study = plan("study_cxr")
    third = study.third(["EfficientNet-Lite0"])
    assert [run.arm for run in third[::2]] == [
        "none", "gate", "mining", "both", "recommended", "fitted outside + gate", "crop", "outside only"
    ]  # fmt: skip
    recommended = third[8].arguments
    assert recommended["input_gate"]["class_path"].endswith("ContinueGate")
    assert recommended["attention_losses"][0]["init_args"]["weight"] == 2
    assert third[8].training.epochs == recommended["lr_scheduler"]["init_args"]["T_max"] == 3
    assert len(study.first) == 4 * 2
