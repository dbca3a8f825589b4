from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from guidedattn.data import MaskedImageDataModule


class Watching(LightningModule):
    """Writes down which images each process meets."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.folder = folder

    def note(self, stage: str, batch: dict[str, Any]) -> torch.Tensor:
        with (self.folder / f"{stage}-{self.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([self.current_epoch, batch["path"]]) + "\n")
        return self.layer(torch.zeros(1, 1)).sum()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> torch.Tensor:
        return self.note("train", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.note("test", batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.note("predict", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def seen(self, stage: str, epoch: int = 0) -> list[list[str]]:
        rows = [
            [json.loads(line) for line in (self.folder / f"{stage}-{rank}.jsonl").read_text().splitlines()]
            for rank in (0, 1)
        ]
        return [[path for e, paths in mine if e == epoch for path in paths] for mine in rows]


def test_two_processes_test_each_image_of_an_odd_set_once(
    make_folders: Callable[..., Path], tmp_path: Path
) -> None:
    data = MaskedImageDataModule(root=make_folders(classes=["cat"], count=50), image_size=4, batch_size=2)
    data.setup("fit")
    model = Watching(tmp_path)
    trainer = Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=2, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    trainer.predict(model, data, return_predictions=False)
    expected = sorted(str(record.path) for record in data.records if record.split == "test")
    assert len(expected) % 2 == 1
    for stage in ("test", "predict"):
        first, second = model.seen(stage)
        assert sorted(first + second) == expected
    trained = sorted(str(record.path) for record in data.records if record.split == "train")
    for epoch in (0, 1):
        first, second = model.seen("train", epoch)
        assert sorted(first + second) == trained
    assert model.seen("train", 0) != model.seen("train", 1)
