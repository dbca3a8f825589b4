"""The parts of one run of the study."""

from types import SimpleNamespace

import pytest
import torch

from guidedattn.data import Augment, PhantomDataModule
from guidedattn.features import FeatureCache
from guidedattn.study import train
from tests.conftest import tiny_classifier


@pytest.mark.parametrize("workers", [0, 2])
def test_the_views_of_an_image_differ(tmp_path, workers):
    data = PhantomDataModule(
        train_size=9, val_size=3, test_size=3, image_size=32, batch_size=4, num_workers=workers,
        augment=Augment(),
    )  # fmt: skip
    data.setup("fit")
    loaders = []
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit=lambda model, train, val, **options: loaders.append(train),
    )
    run = SimpleNamespace(views=3)
    model = tiny_classifier(freeze_backbone=True)
    train._train_head(model, data, run, trainer, FeatureCache(tmp_path), None)
    first, second, third = loaders[0].dataset.views
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
