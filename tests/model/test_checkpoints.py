"""Checkpoints reload in a fresh process with nothing but their path."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import timm
import torch
from safetensors.torch import save_file

from guidedattn.backbones import Backbone, ModuleBackbone, TimmBackbone
from guidedattn.classifier import GuidedClassifier
from guidedattn.component import build
from guidedattn.errors import CheckpointError, ConfigError
from guidedattn.gates import MultiplyGate
from guidedattn.heads import LinearHead
from guidedattn.losses import AttentionMining
from guidedattn.masks import MaskProvider, UNetMask
from guidedattn.segmenter import MaskSegmenter
from tests.conftest import tiny_backbone, tiny_classifier

ROOT = Path(__file__).resolve().parents[2]
RELOAD = """
import sys, torch
from guidedattn import GuidedClassifier
model = GuidedClassifier.load_from_checkpoint("model.ckpt").eval()
with torch.no_grad():
    torch.save(model(torch.load("images.pt")), "logits.pt")
"""


def save(module, path):
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)


def logits_of_a_fresh_process(model, folder, side):
    folder.mkdir()
    images = torch.rand(2, 1, side, side)
    save(model, folder / "model.ckpt")
    torch.save(images, folder / "images.pt")
    with torch.no_grad():
        expected = model.eval()(images)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", RELOAD], cwd=folder, check=True, env=environment)
    return expected, torch.load(folder / "logits.pt")


def test_a_model_from_python_whose_weights_files_are_gone(tmp_path):
    save(MaskSegmenter(encoder="mobilenet_v2", image_size=32), tmp_path / "unet.ckpt")
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "body.safetensors")
    model = GuidedClassifier(
        backbone=TimmBackbone("test_resnet", weights=tmp_path / "body.safetensors"),
        mask_provider=UNetMask(tmp_path / "unet.ckpt", threshold=0.0),
        gate=MultiplyGate(),
        attention_losses=[AttentionMining(weight=0.3)],
        optimizer=functools.partial(torch.optim.Adam, lr=0.1),
    )
    (tmp_path / "unet.ckpt").unlink()
    (tmp_path / "body.safetensors").unlink()
    expected, found = logits_of_a_fresh_process(model, tmp_path / "elsewhere", side=64)
    assert torch.allclose(expected, found, atol=1e-6)
    again = GuidedClassifier.load_from_checkpoint(tmp_path / "elsewhere" / "model.ckpt")
    assert again.attention_losses[0].weight == 0.3
    assert isinstance(again.configure_optimizers(), torch.optim.Adam)


def test_layers_of_torch_are_rebuilt(tmp_path):
    expected, found = logits_of_a_fresh_process(tiny_classifier(), tmp_path / "elsewhere", side=16)
    assert torch.allclose(expected, found, atol=1e-6)


def make_body() -> torch.nn.Module:
    return torch.nn.Conv2d(1, 3, 3)


def test_a_function_with_a_return_annotation_is_rebuilt(tmp_path):
    body = ModuleBackbone(make_body, channels=3, mean=[0.0], std=[1.0])
    model = GuidedClassifier(backbone=body, head=LinearHead())
    expected, found = logits_of_a_fresh_process(model, tmp_path / "elsewhere", side=16)
    assert torch.allclose(expected, found, atol=1e-6)


def test_what_no_other_process_could_rebuild_is_refused_with_a_reason():
    class Local(LinearHead):
        pass

    class Opaque(torch.nn.Module):
        pass

    for message, arguments in (
        ("return annotation", {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}),
        ("Local cannot be rebuilt .*: move it to the top level", {"head": Local()}),
        ("Opaque cannot be rebuilt .*: move it to the top level", {"criterion": Opaque()}),
        ("does not tell how it was built", {"criterion": Criterion(3)}),
        ("needs a return annotation", {"backbone": ModuleBackbone(make_nameless_body, channels=3)}),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            tiny_classifier(**arguments)
        assert len(str(caught.value).splitlines()) == 1


class Criterion(torch.nn.CrossEntropyLoss):
    def __init__(self, number):
        super().__init__()


def make_nameless_body():
    return torch.nn.Conv2d(3, 3, 3)


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "builtins.eval"])
def test_a_recipe_cannot_run_a_command(tmp_path, path):
    target = tmp_path / "owned"
    recipe = {"class_path": path, "init_args": {"command": f"touch {target}", "args": f"touch {target}"}}
    with pytest.raises(ConfigError, match="does not build a MaskProvider"):
        build(recipe, MaskProvider)
    assert not target.exists()


class Payload:
    def __reduce__(self):
        return (os.system, ("touch owned",))


def test_a_pickle_payload_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "hyper_parameters": {"encoder": Payload()}}, "bad.ckpt")
    for load in (
        lambda: UNetMask("bad.ckpt"),
        lambda: tiny_classifier(initial_weights="bad.ckpt"),
        lambda: TimmBackbone("test_resnet", weights="bad.ckpt"),
        lambda: GuidedClassifier.load_from_checkpoint("bad.ckpt"),
        lambda: GuidedClassifier.load_from_checkpoint("bad.ckpt", weights_only=False),
        lambda: MaskSegmenter.load_from_checkpoint("bad.ckpt"),
    ):
        with pytest.raises(CheckpointError, match=r"bad\.ckpt cannot be read safely: it holds code .*system"):
            load()
    assert not Path("owned").exists()


@pytest.mark.parametrize("kept", [0, 1, 2000, -100])
def test_a_truncated_checkpoint_names_its_path(tmp_path, kept):
    save(tiny_classifier(), tmp_path / "whole.ckpt")
    part = tmp_path / "part.ckpt"
    part.write_bytes((tmp_path / "whole.ckpt").read_bytes()[:kept])
    for load in (
        lambda: tiny_classifier(initial_weights=part),
        lambda: GuidedClassifier.load_from_checkpoint(part),
    ):
        with pytest.raises(CheckpointError, match=r"part\.ckpt cannot be read"):
            load()


def test_a_missing_checkpoint_names_its_path():
    with pytest.raises(CheckpointError, match=r"gone\.ckpt"):
        GuidedClassifier.load_from_checkpoint("gone.ckpt")


MODULE = """
from torch import nn
from guidedattn.backbones import Backbone


class Strided(Backbone):
    def __init__(self, width, *, stride=2, names=("a", "b")):
        super().__init__(channels=width, mean=[0.5], std=[0.25])
        self.names = names
        self.conv = nn.Conv2d(1, width, 3, stride=stride)

    def extract(self, images):
        return self.conv(images)
"""


@pytest.fixture
def their_module(tmp_path, monkeypatch):
    """A module of the user's, importable here and in child processes."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "their_parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    yield __import__("their_parts")
    sys.modules.pop("their_parts")


def test_a_component_of_the_users_own_comes_back_with_its_arguments(tmp_path, their_module):
    model = GuidedClassifier(backbone=their_module.Strided(5, stride=4, names=["x"]), head=LinearHead())
    expected, found = logits_of_a_fresh_process(model, tmp_path / "elsewhere", side=16)
    assert torch.equal(expected, found)
    again = GuidedClassifier.load_from_checkpoint(tmp_path / "elsewhere" / "model.ckpt")
    assert (again.backbone.channels, again.backbone.conv.stride, again.backbone.names) == (5, (4, 4), ["x"])


def test_a_component_whose_class_is_gone_is_named_with_the_path(tmp_path, their_module, monkeypatch):
    save(GuidedClassifier(backbone=their_module.Strided(5), head=LinearHead()), tmp_path / "model.ckpt")
    monkeypatch.delattr(their_module, "Strided")
    with pytest.raises(CheckpointError, match=r"model\.ckpt: cannot import 'their_parts\.Strided'"):
        GuidedClassifier.load_from_checkpoint(tmp_path / "model.ckpt")


@pytest.mark.parametrize(
    "part",
    ["backbone", "head", "mask_provider", "gate", "explainer", "criterion", "optimizer", "lr_scheduler"],
)
@pytest.mark.parametrize("command", ["os.system", "subprocess.Popen", "subprocess.run", "os.popen"])
def test_a_recipe_in_a_checkpoint_cannot_run_a_command(tmp_path, monkeypatch, part, command):
    monkeypatch.chdir(tmp_path)
    save(tiny_classifier(), "good.ckpt")
    checkpoint = torch.load("good.ckpt", weights_only=True)
    checkpoint["hyper_parameters"][part] = {
        "class_path": command, "args": ["touch owned"], "init_args": {"shell": True}
    }  # fmt: skip
    torch.save(checkpoint, "bad.ckpt")
    with pytest.raises(CheckpointError, match=rf"bad\.ckpt: .*'{command}' does not build a"):
        GuidedClassifier.load_from_checkpoint("bad.ckpt")
    assert not Path("owned").exists()


def test_nor_can_a_recipe_among_the_arguments_of_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = {"class_path": "subprocess.Popen", "args": ["touch owned"], "init_args": {"shell": True}}
    recipe = {
        "class_path": "guidedattn.backbones.ModuleBackbone",
        "init_args": {"module": command, "channels": 3},
    }
    with pytest.raises(ConfigError, match="does not build a Module"):
        build(recipe, Backbone)
    assert not Path("owned").exists()


def test_the_next_stage_starts_from_the_weights_of_the_last(tmp_path):
    first = tiny_classifier(freeze_backbone=True)
    with torch.no_grad():
        first.head.net[-1].weight.fill_(0.25)
    save(first, tmp_path / "one.ckpt")
    second = tiny_classifier(initial_weights=tmp_path / "one.ckpt", gate=MultiplyGate())
    for name in ("backbone", "head"):
        states = (getattr(model, name).state_dict().values() for model in (first, second))
        assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
    with pytest.raises(CheckpointError, match="is not of this backbone"):
        GuidedClassifier(
            backbone=tiny_backbone(channels=5), head=LinearHead(), initial_weights=tmp_path / "one.ckpt"
        )
