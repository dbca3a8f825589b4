"""Any timm model as a backbone; the one module that imports timm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from guidedattn.backbones.base import Backbone
from guidedattn.checkpoints import load_network
from guidedattn.errors import ConfigError, near


class TimmBackbone(Backbone):
    """The feature extractor of any timm model, CNN or transformer, as a map `[B, D, h, w]`.

    Input size, mean and standard deviation are timm's for the model. Parameters that the feature map does
    not depend on (classifiers, VGG's `pre_logits`) are removed: nothing idle is trained or synchronised.

    Args:
        name: a timm model, such as `mobilenetv2_100`, `vgg16`, `vit_tiny_patch16_224`.
        pretrained: load timm's weights, from the local cache or the hub.
        weights: a local file of weights instead (`.safetensors`, `.pth`), in timm's names.
        model_args: further arguments of `timm.create_model`, such as `{"output_stride": 16}`.
        channels_last: keep channels innermost in memory: up to several times faster for CNNs, on CPU and with
            mixed precision on GPU; slower for some at small batches.

    Raises:
        ConfigError: timm has no such model, or its weights cannot be had.
        CheckpointError: `weights` cannot be read or belongs to another model.
    """

    def __init__(
        self,
        name: str = "mobilenetv2_100",
        pretrained: bool = False,
        weights: str | Path | None = None,
        model_args: dict[str, Any] | None = None,
        channels_last: bool = False,
    ) -> None:
        if pretrained and weights:
            raise ConfigError("give either pretrained or weights to TimmBackbone, not both")
        net = _create(name, pretrained, dict(model_args or {}))
        config = net.pretrained_cfg
        super().__init__(channels=0, mean=config["mean"], std=config["std"])
        self.name = name
        self.input_size = (config["input_size"][1], config["input_size"][2])
        self.net = net
        self.memory_format = torch.contiguous_format
        with torch.enable_grad():
            side = self.input_size[0] if config.get("fixed_input_size") else 96
            net.eval()  # in training mode this image would enter pretrained BatchNorm statistics
            features = self.extract(torch.zeros(1, 3, side, side))
            _remove_idle_parts(net, features)
            net.train()
        self.channels = features.shape[1]
        self.channels_last_maps = getattr(net, "output_fmt", "NCHW") == "NHWC"
        modules = dict(self.named_modules())
        ends = {info["reduction"]: f"net.{info['module']}" for info in getattr(net, "feature_info", ())}
        self.strides = {stride: name for stride, name in ends.items() if name in modules}
        if weights:
            load_network(net, weights, name)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        net.to(memory_format=self.memory_format)

    def recipe_args(self) -> dict[str, Any]:
        """Without the weights: the state of the checkpoint brings them."""
        return {**super().recipe_args(), "pretrained": False, "weights": None}

    def extract(self, images: Tensor) -> Tensor:
        """Normalised images `[B, 3, H, W]` to timm's last features, `[B, D, h, w]` whatever its layout.

        Raises:
            ConfigError: the model has a fixed input size, and this is another.
        """
        try:
            features: Tensor = self.net.forward_features(images.contiguous(memory_format=self.memory_format))
        except AssertionError as error:  # how timm's transformers refuse a size
            raise ConfigError(
                f"{self.name} takes images of {self.input_size[0]}x{self.input_size[1]} pixels, got "
                f"{images.shape[2]}x{images.shape[3]}: set data.image_size, or model_args.img_size ({error})"
            ) from error
        if not isinstance(features, Tensor):
            raise ConfigError(f"{self.name} gives several maps at once, not one: choose another model")
        if features.ndim == 3:
            tokens = features[:, getattr(self.net, "num_prefix_tokens", 0) :]
            height = round(math.sqrt(tokens.shape[1] * images.shape[2] / images.shape[3]))
            return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], height, -1)
        if getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            return features.permute(0, 3, 1, 2).contiguous()
        return features


def _create(name: str, pretrained: bool, model_args: dict[str, Any]) -> Any:
    """Create a timm model, with free input size where a transformer allows it."""
    plain = name.split(".")[0]
    if ":" not in name and not timm.is_model(plain):
        raise ConfigError(f"timm has no model {name!r}{near(plain, timm.list_models())}")
    options = [{"dynamic_img_size": True}, {"strict_img_size": False}, {}]
    for index, option in enumerate(options):
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **{**option, **model_args})
        except TypeError as error:  # this family does not know the option
            if index + 1 == len(options) or set(option) <= set(model_args):
                raise ConfigError(f"timm model {name!r}: {error}") from error
        except Exception as error:
            if not pretrained:
                raise ConfigError(f"timm model {name!r}: {error}") from error
            raise ConfigError(
                f"no pretrained weights for {name!r} in the local cache, and the hub does not answer: give "
                f"`weights` a local file, or set pretrained to false ({type(error).__name__})"
            ) from error
    raise AssertionError("unreachable")


def _remove_idle_parts(net: nn.Module, features: Tensor) -> None:
    """Replace every part of `net` by `Identity` whose parameters `features` does not depend on."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    used = {id(p) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None}

    def prune(module: nn.Module) -> None:
        for name, child in module.named_children():
            own = list(child.parameters())
            if own and not any(id(p) in used for p in own):
                setattr(module, name, nn.Identity())
            else:
                prune(child)

    prune(net)
    for parameter in net.parameters():
        parameter.requires_grad_(id(parameter) in used)
