"""The command line as a person uses it, on small phantoms."""

import csv
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from guidedattn.cli import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "examples" / "configs"
SMALL = [
    *("--data.train_size", "24", "--data.val_size", "12", "--data.test_size", "13"),
    *("--data.image_size", "64", "--data.batch_size", "8", "--model.backbone.name", "test_resnet"),
    *("--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fit_test_predict_and_rerun(here):
    fit = ["fit", "--config", str(CONFIGS / "stage3.yaml"), *SMALL]
    fit += ["--model.attention_losses+=MaskAlignment", "--model.attention_losses.weight", "20"]
    assert main(fit) == 0
    run = here / "lightning_logs" / "version_0"
    config = yaml.safe_load((run / "config.yaml").read_text())
    losses = [loss["class_path"].rpartition(".")[2] for loss in config["model"]["attention_losses"]]
    assert losses == ["AttentionMining", "MaskAlignment"]
    assert config["model"]["attention_losses"][1]["init_args"]["weight"] == 20
    assert {"versions.json", "manifest.csv", "metrics.csv"} <= {path.name for path in run.iterdir()}

    checkpoint = str(run / "checkpoints" / "last.ckpt")
    small = [word for word in SMALL if not word.startswith("--trainer.max")]
    small.remove("1")
    assert main(["test", "--config", str(CONFIGS / "stage3.yaml"), *small, "--ckpt_path", checkpoint]) == 0
    predict = ["predict", "--config", str(CONFIGS / "stage3.yaml"), *small, "--ckpt_path", checkpoint]
    assert main([*predict, "--output", "out.csv", "--overlays", "overlays"]) == 0
    table = pd.read_csv("out.csv")
    probabilities = [f"prob_{name}" for name in ("clear", "nodular", "diffuse")]
    assert list(table.columns) == ["path", *probabilities, "predicted", "energy_in_mask"]
    assert len(table) == 13
    assert torch.allclose(torch.tensor(table[probabilities].sum(axis=1)), torch.ones(13).double(), atol=1e-5)
    assert len(list(Path("overlays").glob("*.png"))) == 13

    assert main(["fit", "--config", str(run / "config.yaml")]) == 0
    fits = sorted(path.parent for path in here.glob("lightning_logs/*/checkpoints"))
    metrics = [path / "metrics.csv" for path in fits]
    first, second = (list(csv.DictReader(path.open())) for path in (metrics[0], metrics[-1]))
    assert metrics[0] != metrics[-1]
    assert [row["val/loss"] for row in first] == [row["val/loss"] for row in second]


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3", "gainext", "guided"])
def test_each_stage_runs_alone_on_phantoms(here, stage):
    assert (
        main(["fit", "--config", str(CONFIGS / f"{stage}.yaml"), *SMALL, "--trainer.fast_dev_run", "true"])
        == 0
    )


def test_components_of_the_users_own(here, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    small = [word for word in SMALL if word not in ("--model.backbone.name", "test_resnet")]
    config = ["--config", str(CONFIGS / "custom.yaml"), *small, "--model.backbone.name", "test_resnet"]
    assert main(["fit", *config]) == 0
    checkpoint = next(here.glob("lightning_logs/version_0/checkpoints/*.ckpt"))
    script = (
        "import sys; from guidedattn import GuidedClassifier;"
        "m = GuidedClassifier.load_from_checkpoint(sys.argv[1]);"
        "print(type(m.mask_provider).__name__, type(m.attention_losses[0]).__name__, m.mask_provider.height)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["EllipseMask", "OutsideEnergy", "0.9"]


def test_a_later_list_replaces_the_earlier_one_whole(here):
    mining = "class_path: AttentionMining, init_args"
    Path("a.yaml").write_text(
        f"model: {{attention_losses: [{{{mining}: {{sigma: 0.3}}}}, {{class_path: MaskAlignment}}]}}"
    )
    Path("b.yaml").write_text(f"model: {{attention_losses: [{{{mining}: {{weight: 2}}}}]}}")
    assert main(["fit", "--config", "a.yaml", "--config", "b.yaml", *SMALL]) == 0
    config = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
    assert len(config["model"]["attention_losses"]) == 1
    arguments = config["model"]["attention_losses"][0]["init_args"]
    assert (arguments["weight"], arguments["sigma"]) == (2, 0.5)


WRONG = [
    ("model: {backbon: {class_path: TimmBackbone}}", "model.backbon", "model.backbone"),
    ("model: {backbone: {class_path: TimBackbone}}", "model.backbone", "TimmBackbone"),
    ("model: {backbone: {class_path: TimmBackbone, init_args: {nam: vgg16}}}", "init_args.nam", "name"),
    ("model: {backbone: {class_path: TimmBackbone, init_args: {name: vgg17}}}", "vgg17", "vgg16"),
    ("model: {num_classes: many}", "model.num_classes", "int"),
    ("model: {gate: {class_path: subprocess.Popen, init_args: {args: ls}}}", "model.gate", "FeatureGate"),
    ("model: !!python/object/apply:os.system ['touch owned']", "not valid YAML", "os.system"),
    ("trainer: {max_epoch: 3}", "trainer.max_epoch", "trainer.max_epochs"),
    ("data: {class_path: CXRDataModule, init_args: {rot: x}}", "data.init_args.rot", "root"),
    ("data: {class_path: CXRDataModule, init_args: {root: nowhere}}", "nowhere", "no such folder"),
    ("model: {initial_weights: nofile.ckpt}", "nofile.ckpt", "does not exist"),
    ("model: {mask_provider: {class_path: UNetMask, init_args: {weights: no.ckpt}}}", "no.ckpt", "not exist"),
]


@pytest.mark.parametrize(("text", "names", "also"), WRONG)
def test_a_wrong_config_costs_a_few_lines(here, capsys, text, names, also):
    Path("wrong.yaml").write_text(text)
    try:
        code = main(["fit", "--config", "wrong.yaml"])
    except SystemExit as stop:
        code = stop.code
    lines = [
        line for line in capsys.readouterr().err.splitlines() if "error" in line or line.startswith("  ")
    ]
    assert code == 2
    assert 1 <= len(lines) <= 5
    assert names in "\n".join(lines)
    assert also in "\n".join(lines)
    assert "Traceback" not in "\n".join(lines)
    assert not Path("owned").exists()


def test_help_lists_the_commands_without_waiting_for_torch():
    script = (
        "import sys; from guidedattn.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    for name in ("fit", "validate", "test", "predict", "demo", "bench"):
        assert f"\n  {name} " in done.stdout


def test_an_unknown_command_names_a_near_one(capsys):
    assert main(["ft"]) == 2
    assert "did you mean fit" in capsys.readouterr().err
