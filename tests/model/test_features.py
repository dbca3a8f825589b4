"""Stage I on cached features: the same head as behind the frozen backbone, and never a stale entry."""

import copy

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from guidedattn.component import default
from guidedattn.data import PhantomDataModule
from guidedattn.data.loaders import train_loader
from guidedattn.errors import ConfigError
from guidedattn.features import (
    FeatureCache,
    FeatureDataset,
    HeadTraining,
    backbone_digest,
    require_pooling_first,
)
from guidedattn.gates import MultiplyGate
from guidedattn.heads import Head, MLPHead
from tests.conftest import make_batch, tiny_backbone, tiny_classifier


def trainer(epochs):
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[Curve()],
        enable_model_summary=False, enable_progress_bar=False, num_sanity_val_steps=0,
    )  # fmt: skip


class Curve(pl.Callback):
    def __init__(self):
        self.values = []

    def on_validation_end(self, trainer, pl_module):
        names = ("val/loss", "val/accuracy")
        self.values.append([float(trainer.callback_metrics[name]) for name in names])


def stage_one():
    return tiny_classifier(
        head=MLPHead((8,), (0.2,)), freeze_backbone=True, optimizer=default(torch.optim.SGD, lr=0.3)
    )


def test_the_head_and_its_curve_are_those_of_the_naive_way(tmp_path):
    data = PhantomDataModule(train_size=50, val_size=20, test_size=6, image_size=32, batch_size=16)
    naive, quick = stage_one(), stage_one()
    quick.load_state_dict(naive.state_dict())
    pl.seed_everything(3, verbose=False)
    first = trainer(4)
    first.fit(naive, data)

    cache = FeatureCache(tmp_path)
    data.predict_split = "train"
    train, val = (
        FeatureDataset([features], labels)
        for features, labels in (
            cache.pooled(quick.backbone, loader)
            for loader in (data.predict_dataloader(), data.val_dataloader())
        )
    )
    pl.seed_everything(3, verbose=False)
    second = trainer(4)
    second.fit(HeadTraining(quick), train_loader(train, 16, 0, data.seed), DataLoader(val, 16))

    assert not torch.equal(quick.head.net[-1].weight, stage_one().head.net[-1].weight)
    for ours, theirs in zip(quick.head.parameters(), naive.head.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    np.testing.assert_allclose(second.callbacks[0].values, first.callbacks[0].values, atol=1e-5)


def test_entries_are_reused_and_change_with_weights_pixels_and_statistics(tmp_path):
    backbone, batches = tiny_backbone(), [make_batch(4), make_batch(3, seed=1)]
    cache = FeatureCache(tmp_path)
    features, labels = cache.pooled(backbone, batches)
    wanted = torch.cat([backbone.eval()(batch["image"]).mean((2, 3)) for batch in batches])
    torch.testing.assert_close(features, wanted)
    assert labels.tolist() == [0, 1, 2, 0, 0, 1, 2]
    again = FeatureCache(tmp_path)
    assert torch.equal(again.pooled(backbone, batches)[0], features)
    assert (cache.computed, again.computed) == (2, 0)

    batches[1]["image"][2, 0, 0, 0] += 1e-3
    again.pooled(backbone, batches)
    assert again.computed == 1
    next(b for name, b in backbone.named_buffers() if name.endswith("running_mean")).add_(
        1
    )  # a buffer: BatchNorm in eval mode reads it
    again.pooled(backbone, batches)
    assert again.computed == 3
    backbone.mean += 0.1  # not in the state dict
    changed, _ = again.pooled(backbone, batches)
    assert again.computed == 5
    assert not torch.allclose(changed, features)


def test_a_damaged_entry_is_computed_again(tmp_path):
    backbone, batches = tiny_backbone(), [make_batch(4)]
    features, _ = FeatureCache(tmp_path).pooled(backbone, batches)
    (entry,) = tmp_path.rglob("*.npy")
    entry.write_bytes(entry.read_bytes()[:-7])
    again = FeatureCache(tmp_path)
    assert torch.equal(again.pooled(backbone, batches)[0], features)
    assert again.computed == 1


def test_the_backbone_runs_in_eval_mode_and_keeps_its_statistics(tmp_path):
    backbone = tiny_backbone().train()
    before = copy.deepcopy(backbone.state_dict())
    FeatureCache(tmp_path).pooled(backbone, [make_batch(4)])
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_two_backbones_with_equal_weights_but_other_recipes_differ():
    one, two = tiny_backbone(), tiny_backbone()
    two.load_state_dict(one.state_dict())
    assert backbone_digest(one) == backbone_digest(two)
    assert backbone_digest(one) != backbone_digest(tiny_backbone("group"))


def test_several_views_are_drawn_at_random():
    torch.manual_seed(0)
    data = FeatureDataset([torch.zeros(2, 3), torch.ones(2, 3)], torch.tensor([0, 1]))
    drawn = {float(data[0]["feature"].mean()) for _ in range(20)}
    assert drawn == {0.0, 1.0}
    assert data[1]["feature"].shape == (3, 1, 1)


class Corner(Head):
    """Looks at one cell."""

    def layers(self, channels, num_classes):
        return nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(channels, num_classes))


def test_what_would_not_equal_the_naive_way_is_refused():
    head = Corner()
    head.attach(6, 3)
    with pytest.raises(ConfigError, match="Corner does not begin with global average pooling"):
        require_pooling_first(head, torch.rand(2, 6, 4, 4))
    pooling = MLPHead()
    pooling.attach(6, 3)
    require_pooling_first(pooling, torch.rand(2, 6, 4, 4))
    for wrong in (tiny_classifier(), tiny_classifier(freeze_backbone=True, gate=MultiplyGate())):
        with pytest.raises(ConfigError, match="cached features"):
            HeadTraining(wrong)
