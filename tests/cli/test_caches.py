"""The caches from the command line: one option each, for fit, test and predict."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from guidedattn.cli import main
from guidedattn.masks import UNetMask

MODEL = [
    "--model.backbone.name", "test_resnet", "--model.gate", "MultiplyGate",
    "--model.mask_provider", "UNetMask", "--model.mask_provider.threshold", "0",
]  # fmt: skip


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Images in three classes, and the options of a guided run on them with both caches."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        for i in range(10):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(path)
    torch.manual_seed(0)
    UNetMask(encoder="mobilenet_v2", image_size=32).save_weights(tmp_path / "unet.safetensors")
    return [
        *MODEL, "--model.mask_provider.weights", str(tmp_path / "unet.safetensors"),
        "--data", "MaskedImageDataModule", "--data.root", str(tmp_path / "images"),
        "--data.image_size", "32", "--data.cache", str(tmp_path / "cache"),
        "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
        "--trainer.default_root_dir", str(tmp_path / "runs"),
    ]  # fmt: skip


def predictions(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_fit_test_and_predict_take_their_masks_from_the_cache(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ["--trainer.callbacks+", "MaskCache", "--trainer.callbacks.folder", str(tmp_path / "cache")]
    assert main(["fit", *words, *kept]) == 0
    entries = tmp_path / "cache" / "entries"
    assert len(list(entries.rglob("*.npy"))) == 2 * 27  # image and mask, of 24 to train on and 3 to validate
    checkpoint = ["--ckpt_path", str(next((tmp_path / "runs").rglob("*.ckpt")))]
    assert main(["predict", *words, *checkpoint, "--output", str(tmp_path / "live.csv")]) == 0
    assert main(["test", *words, *checkpoint, *kept]) == 0
    assert len(list(entries.rglob("*.npy"))) == 2 * 30

    def provide(*_: object) -> torch.Tensor:
        raise AssertionError("the network ran")

    monkeypatch.setattr(UNetMask, "provide", provide)
    assert main(["predict", *words, *checkpoint, *kept, "--output", str(tmp_path / "kept.csv")]) == 0
    live, from_cache = predictions(tmp_path / "live.csv"), predictions(tmp_path / "kept.csv")
    assert [row["path"] for row in live] == [row["path"] for row in from_cache]
    for one, other in zip(live, from_cache, strict=True):
        assert float(one["prob_cat"]) == pytest.approx(float(other["prob_cat"]), abs=1e-4)


def test_masks_that_cannot_be_kept_cost_one_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = words.index("UNetMask")
    options = [*words[:at], "BatchMask", *words[at + 5 :]]
    kept = ["--trainer.callbacks+", "MaskCache", "--trainer.callbacks.folder", str(tmp_path / "cache")]
    assert main(["fit", *options, *kept]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("guidedattn: error: MaskCache cannot keep the masks of BatchMask")
