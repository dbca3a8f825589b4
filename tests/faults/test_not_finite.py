"""NaN or Inf in an image, logits or loss: the run stops with the paths, before a metric sees it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from guidedattn.errors import DataError
from guidedattn.losses import AttentionLoss
from tests.conftest import make_batch, tiny_classifier
from tests.model.test_classifier import trainer


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_image_is_named_also_where_batch_norm_spreads_it(value: float, norm: str) -> None:
    batch = make_batch()
    batch["image"][2, 0, 3, 3] = value
    with pytest.raises(DataError, match=r"1 images are not finite \(NaN or Inf\): image-2;"):
        tiny_classifier(norm=norm).train().guide(batch)


def test_an_infinite_pixel_that_the_network_squashes_is_caught_before_its_gradient() -> None:
    model = tiny_classifier(norm="group")
    with torch.no_grad():
        model.backbone.module[0].weight.abs_()  # -inf everywhere, and the ELU makes that -1
    batch = make_batch()
    batch["image"][1] = -torch.inf
    with pytest.raises(DataError, match="image-1"):
        model.guide(batch)


def test_weights_that_ran_away_are_told_from_bad_images() -> None:
    model = tiny_classifier(norm="group")
    with torch.no_grad():
        model.head.net[-1].weight[0, 0] = torch.nan
    with pytest.raises(DataError, match=r"4 logits are not finite .*lower the learning rate"):
        model.guide(make_batch())


class Broken(AttentionLoss):
    def compute(self, guidance):
        return guidance.attention.sum((1, 2, 3)) / 0 * 0


@pytest.mark.parametrize("stage", ["train", "test"])
def test_a_loss_that_is_not_finite_is_named_with_the_paths(stage: str) -> None:
    batch = make_batch(4)
    data = DataLoader([{key: value[i] for key, value in batch.items()} for i in range(4)], batch_size=2)
    model = tiny_classifier(attention_losses=[Broken()])
    run = trainer(max_epochs=1)
    with pytest.raises(DataError, match=rf"{stage}/loss is not finite .*image-0, image-1"):
        (run.fit if stage == "train" else run.test)(model, data)


def test_a_bad_image_stops_the_run_before_any_metric(capsys: pytest.CaptureFixture[str]) -> None:
    batch = make_batch(4)
    batch["image"][3] = torch.nan
    data = DataLoader([{key: value[i] for key, value in batch.items()} for i in range(4)], batch_size=2)
    with pytest.raises(DataError, match="image-3"):
        trainer().test(tiny_classifier(), data)
    assert "accuracy" not in capsys.readouterr().out
