"""Runs of the command line besides the paper's stages, what they leave behind, and what mistakes cost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from guidedattn import PhantomDataModule
from guidedattn.cli import main
from guidedattn.segmenter import MaskSegmenter
from tests.conftest import tiny_classifier
from tests.model.test_checkpoints import Payload, save

ROOT = Path(__file__).resolve().parents[2]
QUIET = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
DATA = [
    *("--data.train_size", "18", "--data.val_size", "6", "--data.test_size", "7"),
    *("--data.image_size", "32", "--data.batch_size", "6", *QUIET),
]
FIT = ["fit", *DATA, "--trainer.max_epochs", "1"]
BODY = ["--model.backbone.name", "test_resnet"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # `main` adds the working folder
    return tmp_path


def run_in(folder="."):
    (run,) = Path(folder, "lightning_logs").iterdir()
    return run


def failure(capsys, words):
    """Exit code and what stands on stderr, without Lightning's notes on the machine."""
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    notes = ("Seed set", "GPU available", "TPU available", "💡")
    return code, [line for line in printed.splitlines() if not line.startswith(notes)]


def test_a_run_logs_csv_and_tensorboard_and_writes_its_record():
    assert main([*FIT, *BODY, "--data.image_size", "64"]) == 0
    run = run_in()
    assert list(run.glob("events.out.tfevents.*"))
    metrics = pd.read_csv(run / "metrics.csv")
    wanted = {"loss", "accuracy", "f1_macro", "f1_clear", "f1_nodular", "f1_diffuse", "auroc"}
    assert {f"{stage}/{name}" for stage in ("train", "val") for name in wanted} <= set(metrics.columns)
    assert {"val/energy_in_mask", "val/dead_maps"} <= set(metrics.columns)
    versions = json.loads((run / "versions.json").read_text())
    assert versions["torch"] == torch.__version__.partition("+")[0] or versions["torch"] == torch.__version__
    assert versions["seed"] == "0"
    manifest = pd.read_csv(run / "manifest.csv")
    assert manifest["split"].value_counts().to_dict() == {"train": 18, "val": 6, "test": 7}


def test_a_checkpoint_from_the_command_line_reloads_in_an_empty_folder(here):
    assert main([*FIT, *BODY, "--model.attention_losses+=AttentionMining"]) == 0
    (checkpoint,) = run_in().glob("checkpoints/*.ckpt")
    (here / "empty").mkdir()
    shutil.copy(checkpoint, here / "empty" / "model.ckpt")
    shutil.rmtree("lightning_logs")
    script = (
        "import torch; from guidedattn import GuidedClassifier;"
        "torch.load('model.ckpt', weights_only=True);"
        "m = GuidedClassifier.load_from_checkpoint('model.ckpt');"
        "print(m.backbone.name, *m.class_names, m.attention_losses[0].sigma)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=here / "empty", capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == ["test_resnet", "clear", "nodular", "diffuse", "0.5"]


def test_a_model_from_python_is_validated_tested_and_predicted_without_its_config():
    model = tiny_classifier(gate=None or tiny_classifier().gate)
    save(model, "python.ckpt")
    checkpoint = ["--ckpt_path", "python.ckpt"]
    for command in ("validate", "test"):
        assert main([command, *DATA, *checkpoint, "--trainer.default_root_dir", command]) == 0
    assert "val/accuracy" in pd.read_csv(run_in("validate") / "metrics.csv").columns
    tested = pd.read_csv(run_in("test") / "metrics.csv").iloc[-1]

    assert main(["predict", *DATA, *checkpoint, "--output", "deep/out.csv"]) == 0
    table = pd.read_csv("deep/out.csv")
    data = PhantomDataModule(18, 6, 7, image_size=32)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert list(table["path"]) == list(batch["path"])  # in the order of the data
    with torch.no_grad():
        expected = model.eval()(batch["image"]).softmax(1)
    names = list(data.class_names)
    found = table[[f"prob_{name}" for name in names]].to_numpy()
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)
    assert list(table["predicted"]) == [names[i] for i in expected.argmax(1)]
    right = [names[i] for i in batch["label"]] == table["predicted"]
    assert tested["test/accuracy"] == pytest.approx(right.mean())


def test_a_segmenter_is_trained_tested_and_serves_a_classifier():
    segmenter = ["--model", "MaskSegmenter", "--model.encoder", "mobilenet_v2", "--model.image_size", "32"]
    assert main([FIT[0], *segmenter, *FIT[1:], "--trainer.default_root_dir", "unet"]) == 0
    (checkpoint,) = run_in("unet").glob("checkpoints/*.ckpt")
    Path("segmenter.yaml").write_text(
        "model: {class_path: MaskSegmenter, init_args: {encoder: mobilenet_v2}}"
    )
    words = ["test", "--config", "segmenter.yaml", *DATA, "--ckpt_path", str(checkpoint)]
    assert main([*words, "--trainer.default_root_dir", "tested"]) == 0
    assert {"test/dice", "test/iou"} <= set(pd.read_csv(run_in("tested") / "metrics.csv").columns)

    guided = ["--model.mask_provider", "UNetMask", "--model.mask_provider.weights", str(checkpoint)]
    assert main([*FIT, *BODY, *guided, "--model.gate", "MultiplyGate"]) == 0
    config = yaml.safe_load((run_in() / "config.yaml").read_text())
    assert config["model"]["mask_provider"]["init_args"]["weights"] == str(checkpoint)
    trained = torch.load(next(run_in().glob("checkpoints/*.ckpt")), weights_only=True)["state_dict"]
    for name, value in torch.load(checkpoint, weights_only=True)["state_dict"].items():
        assert torch.equal(value, trained[f"mask_provider.{name}"]), name  # it did not move


def test_a_segmenter_learns_by_a_loss_of_another_library_and_reloads():
    segmenter = ["--model", "MaskSegmenter", "--model.encoder", "mobilenet_v2", "--model.image_size", "32"]
    loss = ["--model.criterion", "segmentation_models_pytorch.losses.DiceLoss"]
    assert main([FIT[0], *segmenter, *loss, "--model.criterion.mode", "binary", *FIT[1:]]) == 0
    (checkpoint,) = run_in().glob("checkpoints/*.ckpt")
    again = MaskSegmenter.load_from_checkpoint(checkpoint)
    assert type(again.criterion).__name__ == "DiceLoss"
    found, target = torch.full((1, 1, 4, 4), 20.0), torch.ones(1, 1, 4, 4)
    target[..., 2:] = 0
    assert float(again.criterion(found, target)) == pytest.approx(1 - 2 * 8 / (16 + 8), abs=1e-4)


OWN_MODULE = """
import lightning.pytorch as pl, torch

class Mean(pl.LightningModule):
    def __init__(self, rate: float = 0.1):
        super().__init__()
        self.rate, self.layer = rate, torch.nn.Linear(1, 3)
    def training_step(self, batch, batch_idx):
        logits = self.layer(batch["image"].mean((1, 2, 3))[:, None])
        return torch.nn.functional.cross_entropy(logits, batch["label"])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.rate)
"""


def test_a_lightning_module_of_the_users_own_trains_from_the_working_folder():
    Path("own_module.py").write_text(OWN_MODULE)
    Path("own.yaml").write_text("model: {class_path: own_module.Mean, init_args: {rate: 0.5}}")
    assert main([FIT[0], "--config", "own.yaml", *FIT[1:]]) == 0
    assert list(run_in().glob("checkpoints/*.ckpt"))
    sys.modules.pop("own_module")


def test_a_run_does_not_write_over_another(capsys):
    logger = [
        "--trainer.logger",
        "CSVLogger",
        "--trainer.logger.save_dir",
        ".",
        "--trainer.logger.version",
        "mine",
    ]
    assert main([*FIT, *BODY, *logger]) == 0
    before = {path: path.read_bytes() for path in Path("lightning_logs").rglob("*") if path.is_file()}
    capsys.readouterr()
    code, lines = failure(capsys, [*FIT, *BODY, *logger])
    assert code == 2
    assert "holds an earlier run" in lines[-1]
    assert {path: path.read_bytes() for path in before} == before


def films(manifest):
    """Six small films and a manifest."""
    for i in range(6):
        Image.fromarray(np.full((32, 32), 40 * i, np.uint8)).save(f"{i}.png")
    Path("list.csv").write_text(manifest)
    words = ["--data", "MaskedImageDataModule", "--data.image_size", "32", *BODY, *QUIET]
    return ["fit", *words, "--trainer.max_epochs", "1"]


ABSENT = (
    "path,label,split\n0.png,a,train\n1.png,b,train\n2.png,a,val\n3.png,a,val\n4.png,b,test\n5.png,a,test\n"
)
WHOLE = ABSENT.replace("2.png,a", "2.png,b")
BAD_DATA = {
    "missing folder": (["--data.root", "nowhere"], ABSENT, "nowhere: no such folder"),
    "empty folder": (["--data.root", "void"], ABSENT, "void: no class folders"),
    "missing manifest": (["--data.manifest", "no.csv"], ABSENT, "no.csv"),
    "absent class": (["--data.manifest", "list.csv"], ABSENT, "'b' is absent from val"),
    "classes": (["--data.manifest", "list.csv"], WHOLE, "num_classes is 3, but the data has 2"),
    "no source": ([], ABSENT, "give either manifest"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
def test_unusable_data_costs_a_message_and_leaves_nothing(capsys, case):
    words, manifest, message = BAD_DATA[case]
    Path("void").mkdir()
    code, lines = failure(capsys, [*films(manifest), *words])
    assert code == 2
    errors = [line for line in lines if line.startswith("guidedattn: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not Path("lightning_logs").exists()


def test_an_unreadable_image_stops_the_run_with_its_path(capsys):
    words = films(WHOLE)
    Path("1.png").write_bytes(b"not an image")
    code, lines = failure(capsys, [*words, "--data.manifest", "list.csv", "--model.num_classes", "2"])
    assert code == 2
    assert any(line.startswith("guidedattn: error: ") and "1.png" in line for line in lines)
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "does not exist"), (b"PK\3\4", "cannot be read"), ("payload", "it holds code")],
)
def test_an_unusable_checkpoint_costs_a_line_and_leaves_nothing(here, capsys, command, content, reason):
    if content == "payload":
        torch.save({"state_dict": {}, "hyper_parameters": {"head": Payload()}}, "bad.ckpt")
    elif content is not None:
        Path("bad.ckpt").write_bytes(content)
    code, lines = failure(capsys, [command, *DATA, *BODY, "--ckpt_path", "bad.ckpt"])
    assert code == 2
    assert len(lines) == 1
    assert "bad.ckpt" in lines[0]
    assert reason in lines[0]
    assert {path.name for path in here.iterdir()} <= {"bad.ckpt"}


def test_a_command_in_the_recipe_of_a_checkpoint_is_not_run(capsys):
    save(tiny_classifier(), "bad.ckpt")
    checkpoint = torch.load("bad.ckpt", weights_only=True)
    command = {"class_path": "subprocess.Popen", "args": ["touch owned"], "init_args": {"shell": True}}
    checkpoint["hyper_parameters"]["lr_scheduler"] = command
    torch.save(checkpoint, "bad.ckpt")
    code, lines = failure(capsys, ["test", *DATA, "--ckpt_path", "bad.ckpt"])
    assert code == 2
    assert "'subprocess.Popen' does not build a" in lines[0]
    assert not Path("owned").exists()


WRONG_OPTIONS = [
    (["--trainer.max_epoch", "3"], "trainer.max_epoch: no such key (did you mean trainer.max_epochs"),
    (["--model.backbon.name", "vgg16"], "model.backbon.name: no such key (did you mean model.backbone"),
    (["--model.backbone.nam", "vgg16"], "model.backbone.nam: TimmBackbone takes no nam (did you mean name?)"),
    (["--model.gate", "MultiplyGat"], "model.gate: no class MultiplyGat (did you mean MultiplyGate"),
    (["--model.gate=MultiplyGate", "--model.gate.flor=1"], "model.gate.flor: MultiplyGate takes no flor"),
    (
        ["--model.attention_losses+=MaskAlignment", "--model.attention_losses.wait", "2"],
        "model.attention_losses.wait: MaskAlignment takes no wait (did you mean weight?)",
    ),
    (["--model.num_classes", "many"], "model.num_classes: Expected a <class 'int'>"),
    (["--model.head", "LinearHead", "--model.head.dropout", "much"], "model.head.dropout: Expected a"),
    (["--model.backbone.name", "vgg17"], "timm has no model 'vgg17' (did you mean vgg19, vgg16"),
    (["--model.head.hidden", "[8, 8, 8]"], "MLPHead has 3 hidden layers and 2 dropouts"),
    (["--model", "MaskSegmenter", "--model.encoder", "resnet19"], "no encoder 'resnet19' (did you mean resn"),
    (["--model.optimizer", "subprocess.Popen", "--model.optimizer.args", "touch owned"], "model.optimizer"),
    (["--trainer.accelerator", "gppu"], "trainer: You selected an invalid accelerator name"),
    (["--data.marker", "matchd"], "data.marker: Expected"),
    (["--config", "none.yaml"], "none.yaml"),
    (["stage3.yaml"], "stage3.yaml"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), WRONG_OPTIONS, ids=lambda value: str(value[0]))
def test_a_wrong_option_costs_a_few_lines(here, capsys, words, message):
    code, lines = failure(capsys, ["fit", *words])
    assert code == 2
    assert 1 <= len(lines) <= 5
    assert message in "\n".join(lines)
    assert list(here.iterdir()) == []


POPEN = "{class_path: subprocess.Popen, init_args: {args: [touch, owned]}}"
MINING = "class_path: AttentionMining, init_args"
WRONG_FILES = [
    ("model: {gate: 3}", "model.gate: expected the class path of a FeatureGate, got 3"),
    ("modle: {num_classes: 3}", "modle.num_classes: no such key (did you mean model.num_classes"),
    (
        "model: {attention_losses: [{class_path: AttentionMinin}]}",
        "model.attention_losses: no class AttentionMinin (did you mean AttentionMining",
    ),
    (
        f"model: {{attention_losses: [{{{MINING}: {{sigm: 1}}}}]}}",
        "model.attention_losses[0].init_args.sigm: AttentionMining takes no sigm (did you mean sigma?)",
    ),
    (
        f"model: {{attention_losses: [{{{MINING}: {{sigma: much}}}}]}}",
        "model.attention_losses[0].init_args.sigma: Expected a <class 'float'>. Got value: much",
    ),
    ("model: {class_path: MaskSegmentr}", "model: no class MaskSegmentr (did you mean MaskSegmenter"),
    (f"model: {POPEN}", "model: "),
    (f"model: {{criterion: {POPEN}}}", "model.criterion"),
    (f"model: {{lr_scheduler: {POPEN}}}", "model.lr_scheduler"),
    (f"trainer: {{callbacks: [{POPEN}]}}", "trainer.callbacks"),
    ("trainer: {logger: {class_path: os.system, init_args: {command: touch owned}}}", "trainer.logger"),
    ("model: {head: !!python/object/apply:os.system [touch owned]}", "wrong.yaml is not valid YAML"),
    ("model: [1,", "wrong.yaml is not valid YAML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES, ids=[text for text, _ in WRONG_FILES])
def test_a_wrong_file_costs_a_few_lines_and_runs_nothing(here, capsys, text, message):
    Path("wrong.yaml").write_text(text)
    code, lines = failure(capsys, ["fit", "--config", "wrong.yaml"])
    assert code == 2
    assert 1 <= len(lines) <= 5
    assert message in "\n".join(lines)
    assert [path.name for path in here.iterdir()] == ["wrong.yaml"]


def test_the_whole_of_stderr_is_short_in_a_process_of_its_own(here):
    """Warnings of libraries included, which pytest would swallow."""
    Path("wrong.yaml").write_text("model: {gate: {class_path: subprocess.Popen, init_args: {args: ls}}}")
    done = subprocess.run(
        [sys.executable, "-m", "guidedattn", "fit", "--config", "wrong.yaml"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 5, done.stderr
    assert "model.gate" in done.stderr


def test_a_checkpoint_trained_on_another_body_is_refused_on_resuming(capsys):
    save(tiny_classifier(), "other.ckpt")
    checkpoint = torch.load("other.ckpt", weights_only=True)
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=1)
    checkpoint |= {"optimizer_states": [], "lr_schedulers": [], "loops": trainer.fit_loop.state_dict()}
    torch.save(checkpoint, "other.ckpt")
    capsys.readouterr()
    code, lines = failure(capsys, [*FIT, *BODY, "--ckpt_path", "other.ckpt"])
    assert code == 2
    assert any("other.ckpt" in line and "guidedattn: error" in line for line in lines)
