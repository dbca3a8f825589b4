import pytest
import timm
import torch
from safetensors.torch import save_file

from guidedattn.backbones import Backbone, TimmBackbone
from guidedattn.errors import CheckpointError, ConfigError

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
