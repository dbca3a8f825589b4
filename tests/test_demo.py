"""`guidedattn demo`: what it leaves behind, and (slow) whether guidance does its job."""

import json

import pytest
import torch
import yaml
from PIL import Image

from guidedattn import GuidedClassifier
from guidedattn.cli import main
from guidedattn.data import PhantomDataModule

TINY = ["--train_size", "48", "--test_size", "30", "--image_size", "32", "--epochs", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def test_the_demo_leaves_table_picture_numbers_config_and_checkpoints(folder, capsys):
    assert main(["demo", "--output", "out", "--seed", "5", *TINY]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((folder / "out/metrics.json").read_text())
    assert metrics["seed"] == 5
    for name in ("plain", "guided"):
        result = metrics[name]
        assert set(result) == {"accuracy", "energy_in_mask", "reliance", "dead_maps"}
        assert set(result["accuracy"]) == {"matched", "absent", "swapped"}
        assert all(f"{value:.3f}" in printed for value in result["accuracy"].values())
    with Image.open(folder / "out/comparison.png") as picture:
        assert min(picture.size) > 500
    assert {path.name for path in (folder / "out").iterdir()} == {
        "plain.ckpt", "guided.ckpt", "comparison.png", "config.yaml", "metrics.json", "versions.json"
    }  # fmt: skip

    data = PhantomDataModule(train_size=48, test_size=30, image_size=32, seed=5)
    model = GuidedClassifier.load_from_checkpoint(folder / "out/guided.ckpt").eval()
    batch = torch.utils.data.default_collate(list(data.make_dataset("test", "absent")))
    with torch.no_grad():
        right = model.guide(batch).logits.argmax(1) == batch["label"]
    assert right.float().mean().item() == pytest.approx(metrics["guided"]["accuracy"]["absent"])


def test_a_demo_is_repeated_from_its_config_and_not_written_over(folder, capsys):
    assert main(["demo", "--output", "out", *TINY]) == 0
    assert main(["demo", "--output", "out", *TINY]) == 2
    assert "out holds an earlier demo" in capsys.readouterr().err
    config = yaml.safe_load((folder / "out/config.yaml").read_text())
    config["output"] = "again"
    (folder / "again.yaml").write_text(yaml.safe_dump(config))
    assert main(["demo", "--config", "again.yaml"]) == 0
    first, second = (json.loads((folder / name / "metrics.json").read_text()) for name in ("out", "again"))
    assert first == second


@pytest.mark.slow
def test_guidance_does_its_job_on_seed_0(folder):
    """The other seeds are in the documentation; each takes minutes."""
    assert main(["demo", "--output", "out"]) == 0
    metrics = json.loads((folder / "out/metrics.json").read_text())
    plain, guided = metrics["plain"]["accuracy"], metrics["guided"]["accuracy"]
    assert guided["swapped"] >= plain["swapped"] + 0.2
    assert guided["absent"] >= plain["absent"] - 0.03
    assert plain["matched"] > 0.95  # the plain one has found the marker
