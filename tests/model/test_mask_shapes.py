"""Masks from shapes and from other masks, pixel by pixel."""

import inspect
import math
from pathlib import Path

import pytest
import torch

import guidedattn.masks as family
from guidedattn.classifier import GuidedClassifier
from guidedattn.cli import main
from guidedattn.component import build, describe
from guidedattn.errors import ConfigError, MaskError
from guidedattn.masks import AnyOf, BatchMask, BoxMask, Dilated, EllipseMask, FullMask, MaskProvider
from tests.conftest import make_batch, tiny_classifier

ARGUMENTS = {"AnyOf": {"providers": [BatchMask(), EllipseMask()]}, "Dilated": {"provider": BatchMask()}}
PROVIDERS = [
    member
    for name, member in vars(family).items()
    if inspect.isclass(member) and issubclass(member, MaskProvider) and not inspect.isabstract(member)
]


@pytest.mark.parametrize("kind", PROVIDERS, ids=lambda kind: kind.__name__)
def test_every_provider_gives_masks_at_the_images_size_and_comes_back_from_a_checkpoint(kind):
    provider = kind(**ARGUMENTS.get(kind.__name__, {}))
    batch = make_batch(size=3, side=20)
    masks, has_mask = provider(batch["image"], batch)
    again, has_mask_too = build(describe(provider), MaskProvider)(batch["image"], batch)
    assert masks.shape == (3, 1, 20, 20)
    assert torch.equal(has_mask.cpu(), masks.flatten(1).any(1) & has_mask)
    if kind.__name__ != "UNetMask":  # whose weights come with the checkpoint's state
        assert torch.equal(masks, again)
        assert torch.equal(has_mask, has_mask_too)
    model = tiny_classifier(mask_provider=provider)
    assert model.guide(batch).mask.shape == (3, 1, 20, 20)


def test_ellipses_cover_what_they_say():
    mask, has_mask = EllipseMask([(0.5, 0.25, 0.4, 0.2), (0.3, 0.8, 0.1, 0.1)])(
        torch.zeros(2, 1, 200, 100), {}
    )
    assert has_mask.all()
    assert torch.equal(mask[0], mask[1])
    assert float(mask[0].mean()) == pytest.approx(math.pi * (0.4 * 0.2 + 0.1 * 0.1), rel=0.01)
    assert mask[0, 0, 100, 25] == 1
    assert mask[0, 0, 60, 80] == 1
    assert mask[0, 0, 150, 80] == 0


def test_the_default_ellipses_are_two_lungs():
    mask = EllipseMask()(torch.zeros(1, 1, 64, 64), {})[0][0, 0]
    assert torch.equal(mask, mask.flip(1))
    assert not mask[:, 31:33].any()  # the mediastinum
    assert not mask[:6].any()
    assert 0.35 < float(mask.mean()) < 0.5


@pytest.mark.parametrize("padded", [False, True])
def test_boxes_pixel_by_pixel(padded):
    images = torch.zeros(3, 1, 10, 12)
    boxes = [torch.tensor([[1.0, 2.0, 4.0, 5.0], [8.0, 0.0, 12.0, 2.0]]), torch.zeros(0, 4), [[0, 0, 12, 10]]]
    if padded:
        sets = [torch.as_tensor(each, dtype=torch.float32).view(-1, 4) for each in boxes]
        boxes = torch.stack([torch.cat([each, torch.zeros(2 - len(each), 4)]) for each in sets])
    masks, has_mask = BoxMask()(images, {"boxes": boxes})
    assert has_mask.tolist() == [True, False, True]
    expected = torch.zeros(10, 12)
    expected[2:5, 1:4] = 1
    expected[0:2, 8:12] = 1
    assert torch.equal(masks[0, 0], expected)
    assert masks[2].all()
    assert not BoxMask(key="other")(images, {"boxes": boxes})[1].any()


def test_boxes_of_the_wrong_shape_are_named():
    images = torch.zeros(2, 1, 8, 8)
    with pytest.raises(MaskError, match=r"boxes of sample 1 are \[5\]"):
        BoxMask()(images, {"boxes": [torch.zeros(0, 4), torch.ones(5)]})
    with pytest.raises(MaskError, match="1 sets of boxes for 2 images"):
        BoxMask()(images, {"boxes": [torch.zeros(0, 4)]})


def test_the_union_counts_a_mask_only_where_its_image_has_it():
    batch = make_batch(side=16) | {"boxes": [[], [[0, 0, 4, 4]], [], [[2, 2, 3, 3]]]}
    masks, has_mask = AnyOf([BatchMask(), BoxMask()])(batch["image"], batch)
    assert has_mask.tolist() == [True, True, True, True]
    assert torch.equal(masks[0], batch["mask"][0])
    assert torch.equal(masks[1, 0, 4:], batch["mask"][1, 0, 4:])
    assert masks[1, 0, :4, :4].all()
    assert int(masks[3].sum()) == 1  # the batch's mask of the fourth image does not count
    nothing = AnyOf([BatchMask(), BoxMask()])(batch["image"], {})
    assert not nothing[1].any()


def test_dilation_grows_by_so_many_pixels():
    images, mask = torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    mask[:, 0, 7, 1] = 0.5
    batch = {"mask": mask, "has_mask": torch.tensor([True, False])}
    grown, has_mask = Dilated(BatchMask(), pixels=3)(images, batch)
    expected = torch.zeros(16, 16)
    expected[4:11, 0:5] = 0.5
    assert torch.equal(grown[0, 0], expected)
    assert has_mask.tolist() == [True, False]
    assert torch.equal(Dilated(BatchMask(), pixels=0)(images, batch)[0][0], mask[0])


@pytest.mark.parametrize(
    "wrong", [lambda: EllipseMask([(0.5, 0.5, 0.0, 0.1)]), lambda: AnyOf([]), lambda: Dilated(FullMask(), -1)]
)
def test_shapes_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


CONFIG = """
model:
  backbone: {class_path: TimmBackbone, init_args: {name: test_resnet}}
  explainer: {class_path: LayerCAM, init_args: {layer: net.layer3}}
  attention_losses: [EnergyOutside]
  mask_provider:
    class_path: AnyOf
    init_args:
      providers:
      - {class_path: Dilated, init_args: {provider: BatchMask, pixels: 4}}
      - {class_path: guidedattn.masks.EllipseMask, init_args: {ellipses: [[0.5, 0.5, 0.2, 0.2]]}}
data: {image_size: 64, batch_size: 4, train_size: 8, val_size: 4, test_size: 4}
trainer: {accelerator: cpu, max_epochs: 1}
"""


def test_combined_masks_and_an_inner_layer_from_yaml_and_again_from_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("parts.yaml").write_text(CONFIG)
    assert main(["fit", "--config", "parts.yaml"]) == 0
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    model = GuidedClassifier.load_from_checkpoint(checkpoint)
    dilated, ellipse = model.mask_provider.providers
    assert (type(dilated.provider), dilated.pixels) == (BatchMask, 4)
    assert ellipse.ellipses == [(0.5, 0.5, 0.2, 0.2)]
    assert model.explainer.layers == ("net.layer3",)
    assert main(["test", "--config", "parts.yaml", "--ckpt_path", str(checkpoint)]) == 0


def test_a_wrong_layer_costs_a_line(capsys):
    words = ["--model.backbone.name", "test_resnet", "--model.explainer.layer", "net.layer33"]
    assert main(["fit", *words]) == 2
    assert "the backbone has no module 'net.layer33' (did you mean net.layer3" in capsys.readouterr().err
