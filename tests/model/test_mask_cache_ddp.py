"""Two processes share the work of filling a cache, and both read all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from guidedattn.mask_cache import MaskCache
from tests.conftest import tiny_classifier
from tests.model.test_mask_cache import Bright, data_of, root  # noqa: F401  a fixture


class Count(pl.Callback):
    """Writes down how many images the provider of this process has seen, and which masks its batches had."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.masks: dict[int, float] = {}

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.masks.update(zip(batch["index"].tolist(), batch["mask"].mean((1, 2, 3)).tolist(), strict=True))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        record = {"seen": pl_module.mask_provider.seen, "masks": self.masks}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(record))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_processes_fill_one_cache_once(root: Path, tmp_path: Path) -> None:  # noqa: F811
    data = data_of(root)
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[MaskCache(tmp_path / "cache"), Count(tmp_path)],
    )  # fmt: skip
    trainer.fit(tiny_classifier(mask_provider=Bright()), data)
    records = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    train, val = data.make_dataset("train"), data.make_dataset("val")
    assert sum(record["seen"] for record in records) == len(train) + len(val)
    assert all(record["seen"] > 0 for record in records)
    assert len(list((tmp_path / "cache" / "entries").rglob("*.npy"))) == len(train) + len(val)
    masks = {int(index): mean for record in records for index, mean in record["masks"].items()}
    assert set(masks) == set(range(len(train)))
    for index, mean in masks.items():
        expected, _ = Bright()(train[index]["image"][None], {})
        assert mean == pytest.approx(float(expected.mean()), abs=1e-6)
    assert not torch.distributed.is_initialized()
