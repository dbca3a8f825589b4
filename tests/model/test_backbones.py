import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from guidedattn import GuidedClassifier, PhantomDataModule
from guidedattn.backbones import Backbone, PEPXBackbone, TimmBackbone
from guidedattn.cli import main
from guidedattn.errors import CheckpointError, ConfigError
from guidedattn.losses import AttentionMining, MaskAlignment
from tests.conftest import make_batch
from tests.model.test_checkpoints import logits_of_a_fresh_process

PAPER = [  # Table 2 of the paper; the last row is the map that 299 pixels give
    ("mobilenetv2_100", 224, (1280, 7, 7)),
    ("densenet121", 224, (1024, 7, 7)),
    ("tf_efficientnet_b0", 224, (1280, 7, 7)),
    ("tf_efficientnet_b1", 240, (1280, 8, 8)),
    ("tf_efficientnet_b3", 300, (1536, 10, 10)),
    ("tf_efficientnet_b5", 456, (2048, 15, 15)),
    ("vgg16", 224, (512, 7, 7)),
    ("resnetv2_50", 224, (2048, 7, 7)),
    ("inception_v3", 299, (2048, 8, 8)),
    ("inception_resnet_v2", 299, (1536, 8, 8)),
]


@pytest.mark.parametrize(("name", "side", "shape"), PAPER)
def test_the_papers_bodies_give_the_maps_of_table_2(name, side, shape):
    backbone = TimmBackbone(name).eval()
    assert backbone.input_size == (side, side)
    with torch.no_grad():
        assert backbone(torch.rand(1, 1, side, side)).shape[1:] == shape


def test_vgg_has_no_pre_logits():
    parameters = sum(p.numel() for p in TimmBackbone("vgg16").parameters())
    assert 14.7e6 < parameters < 14.8e6  # the convolutions of VGG-16; the paper says 14.9 M with its head


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("vit_tiny_patch16_224", 224, (192, 14, 14)),
        ("vit_tiny_patch16_224", 160, (192, 10, 10)),
        ("swin_tiny_patch4_window7_224", 224, (768, 7, 7)),
        ("convnext_atto", 96, (320, 3, 3)),
        ("mobilenetv3_small_050", 64, (288, 2, 2)),
    ],
)
def test_transformers_and_others_give_nchw(name, side, shape):
    backbone = TimmBackbone(name).eval()
    with torch.no_grad():
        features = backbone(torch.rand(2, 3, side, side))
    assert features.shape == (2, *shape)
    assert backbone.channels == shape[0]


def test_vit_cells_lie_where_their_patches_lie():
    backbone = TimmBackbone("vit_tiny_patch16_224").eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = backbone.net.forward_intermediates(
            (image - backbone.mean) / backbone.std, indices=1, norm=True, intermediates_only=True
        )[-1]
        assert torch.allclose(backbone(image), expected, atol=1e-5)


def test_every_parameter_takes_part():
    for name in ("vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050", "mobilenetv2_100"):
        backbone = TimmBackbone(name)
        side = backbone.input_size[0] if name.startswith("vit") else 64
        backbone(torch.rand(2, 3, side, side)).sum().backward()
        idle = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
        assert idle == [], name


def test_normalisation_is_timms_and_grey_becomes_three_channels():
    backbone = TimmBackbone("mobilenetv2_100").eval()
    net = timm.create_model("mobilenetv2_100").eval()
    net.load_state_dict(backbone.net.state_dict(), strict=False)
    grey = torch.rand(1, 1, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    colour = (grey.repeat(1, 3, 1, 1) - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(backbone(grey), net.forward_features(colour), atol=1e-5)


def test_building_leaves_batch_norm_statistics_alone():
    backbone = TimmBackbone("resnet10t")
    means = [buffer for name, buffer in backbone.named_buffers() if name.endswith("running_mean")]
    assert means
    assert not any(mean.any() for mean in means)


def test_local_weights_are_loaded(tmp_path):
    net = timm.create_model("resnet10t")
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    for name in ("weights.safetensors", "weights.pth"):
        backbone = TimmBackbone("resnet10t", weights=tmp_path / name)
        assert torch.equal(backbone.net.conv1[0].weight, net.conv1[0].weight)


def test_weights_of_another_model_are_refused(tmp_path):
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="is not of this resnet18"):
        TimmBackbone("resnet18", weights=tmp_path / "weights.safetensors")


def test_missing_hub_file_is_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"no pretrained weights for 'resnet10t'.*give `weights` a local file"
    ):
        TimmBackbone("resnet10t", pretrained=True)


def test_unknown_model_names_near_ones():
    with pytest.raises(ConfigError, match=r"no model 'resnet10'.*resnet101"):
        TimmBackbone("resnet10")


def test_a_backbone_that_lies_about_its_channels_is_caught():
    class Liar(Backbone):
        def extract(self, images):
            return images

    with pytest.raises(ConfigError, match=r"must give features \[B, 5, h, w\], got \[1, 3, 8, 8\]"):
        Liar(channels=5)(torch.rand(1, 1, 8, 8))


# PEPX-style ---------------------------------------------------------------------------------------------

SMALL = {"widths": [8, 16, 24, 32], "depths": [1, 2, 1, 1]}


@pytest.mark.parametrize(
    ("side", "cells"), [((64, 64), (2, 2)), ((224, 160), (7, 5)), ((100, 33), (4, 2)), ((16, 16), (1, 1))]
)
def test_pepx_halves_the_side_five_times(side, cells):
    with torch.no_grad():
        assert PEPXBackbone().eval()(torch.rand(2, 1, *side)).shape == (2, 512, *cells)
        assert PEPXBackbone(widths=[4, 6], depths=[1, 1]).eval()(torch.rand(1, 1, 64, 32)).shape == (
            1,
            6,
            8,
            4,
        )


def test_pepx_takes_colour_where_it_has_three_means():
    backbone = PEPXBackbone(**SMALL, mean=[0.5, 0.4, 0.3], std=[0.2, 0.2, 0.2]).eval()
    with torch.no_grad():
        grey = torch.rand(1, 1, 32, 32)
        assert torch.equal(backbone(grey), backbone(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(ConfigError, match="takes 1 or 1 image channels, got 3"):
        PEPXBackbone(**SMALL)(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("arguments", [{}, SMALL, {**SMALL, "narrow": 0.5, "wide": 2.0}])
def test_pepx_prints_how_many_parameters_it_has(arguments):
    backbone = PEPXBackbone(**arguments)
    (printed,) = re.findall(r"parameters=(\d+)", repr(backbone))
    assert int(printed) == sum(p.numel() for p in backbone.parameters())


def test_pepx_blocks_project_expand_project_and_extend():
    block = PEPXBackbone(widths=[16, 32], depths=[1, 2]).stages[1].blocks[1]
    shapes = [(m.in_channels, m.out_channels, m.kernel_size[0], m.groups)
              for m in block.modules() if isinstance(m, nn.Conv2d)]  # fmt: skip
    assert shapes == [(32, 8, 1, 1), (8, 48, 1, 1), (48, 48, 3, 48), (48, 8, 1, 1), (8, 32, 1, 1)]


def test_the_shortcut_of_a_pepx_stage_reaches_its_end():
    """With every block silenced the input still comes through."""
    backbone = PEPXBackbone(**SMALL).eval()
    for stage in backbone.stages:
        for block in stage.blocks:
            nn.init.zeros_(block.extension[1].weight)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert not torch.allclose(backbone(images)[0], backbone(images)[1])


def test_every_parameter_of_pepx_learns_and_maps_train_it_too():
    model = GuidedClassifier(
        backbone=PEPXBackbone(**SMALL), attention_losses=[MaskAlignment(relu=False), AttentionMining()]
    )
    model.losses(model.guide(make_batch(side=64)))["loss"].backward()
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_pepx_reloads_in_a_fresh_process(tmp_path):
    model = GuidedClassifier(backbone=PEPXBackbone(**SMALL, narrow=0.5)).train()
    model.guide(make_batch(side=64))  # moves the statistics of BatchNorm
    expected, found = logits_of_a_fresh_process(model, tmp_path / "elsewhere", side=64)
    assert torch.allclose(expected, found, atol=1e-6)


def test_pepx_trains_from_yaml_by_its_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = "{widths: [8, 16, 24, 32], depths: [1, 1, 1, 1]}"
    Path("pepx.yaml").write_text(f"model: {{backbone: {{class_path: PEPXBackbone, init_args: {arguments}}}}}")
    words = ["--data.train_size", "4", "--data.val_size", "4", "--data.image_size", "64"]
    words += ["--data.batch_size", "4", "--trainer.accelerator", "cpu", "--trainer.fast_dev_run", "1"]
    assert main(["fit", "--config", "pepx.yaml", *words]) == 0


def test_pepx_learns_a_batch_of_phantoms():
    torch.manual_seed(0)
    model = GuidedClassifier(
        backbone=PEPXBackbone(widths=[16, 32, 64, 128], depths=[1, 1, 2, 1]),
        optimizer={"class_path": "torch.optim.Adam", "init_args": {"lr": 3e-3}},
    ).train()
    data = PhantomDataModule(train_size=12, image_size=64, batch_size=12, num_workers=0)
    data.setup("fit")
    batch, optimizer, losses = next(iter(data.train_dataloader())), model.configure_optimizers(), []
    for _ in range(20):
        losses.append(model.losses(model.guide(batch))["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 10


@pytest.mark.parametrize(
    "wrong", [{"widths": []}, {"widths": [8]}, {**SMALL, "depths": [1, 1, 0, 1]}, {"narrow": 2.0}]
)
def test_pepx_refuses_sizes_that_make_no_network(wrong):
    with pytest.raises(ConfigError, match="needs a width and a depth from 1 for each stage"):
        PEPXBackbone(**wrong)
