"""The code in the documents runs."""

import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn import explainers, losses
from guidedattn.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
SECTIONS = {
    section.splitlines()[0]: dict(re.findall(r"```(python|yaml)\n(.*?)```", section, re.DOTALL))
    for section in (DOCS / "extend.md").read_text().split("\n## ")[1:]
}


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A folder with all examples in `my_parts.py`, and a few films."""
    (tmp_path / "my_parts.py").write_text("\n\n".join(section["python"] for section in SECTIONS.values()))
    films = tmp_path / "films"
    films.mkdir()
    lines = []
    for i in range(20):
        grey = np.random.default_rng(i).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(grey).save(films / f"{i}.png")
        lines.append(f"{i}.png p{i} {'clear' if i % 2 else 'opaque'}")
    (films / "list.txt").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("my_parts", None)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_example_of_extending_is_short_and_trains(parts, title):
    assert len(SECTIONS[title]["python"].splitlines()) < 20
    config = SECTIONS[title]["yaml"]
    (parts / "own.yaml").write_text(config)
    words = ["fit", "--config", "own.yaml", "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "true"]
    if "backbone" not in config:
        words += ["--model.backbone.name", "test_resnet"]
    if "data:" not in config:
        words += ["--data.train_size", "4", "--data.val_size", "4", "--data.test_size", "4"]
    size = "--data.init_args.image_size" if "data:" in config else "--data.image_size"
    batch = "--data.init_args.batch_size" if "data:" in config else "--data.batch_size"
    assert main([*words, size, "64", batch, "4"]) == 0


def test_the_schedules_in_the_table_of_losses_train(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (config,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "losses.md").read_text(), re.DOTALL)
    Path("losses.yaml").write_text(config)
    words = [
        "fit",
        "--config",
        "losses.yaml",
        "--trainer.accelerator",
        "cpu",
        "--trainer.fast_dev_run",
        "true",
    ]
    small = ["--model.backbone.name", "test_resnet", "--data.image_size", "64", "--data.batch_size", "4"]
    assert main([*words, *small]) == 0


@pytest.mark.parametrize("family", [losses, explainers])
def test_every_loss_and_explainer_has_a_row(family):
    text = (DOCS / "losses.md").read_text()
    members = [thing for thing in vars(family).values() if inspect.isclass(thing)]
    for member in members:
        if issubclass(member, losses.AttentionLoss | explainers.Explainer) and not inspect.isabstract(member):
            assert f"`{member.__name__}`" in text, member


def test_every_family_that_can_be_extended_has_its_page():
    families = [
        "Attention loss",
        "Schedule",
        "Mask provider",
        "Gate",
        "Background",
        "Head",
        "Backbone",
        "Explainer",
        "Source",
    ]
    assert set(families) <= set(SECTIONS)
