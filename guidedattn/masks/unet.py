"""A U-Net as mask provider; the one module that imports segmentation_models_pytorch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from guidedattn.checkpoints import (
    load_entries,
    load_network,
    read_checkpoint,
    read_safetensors,
    reading,
    write_safetensors,
)
from guidedattn.errors import CheckpointError, ConfigError, near
from guidedattn.guidance import resize
from guidedattn.masks.base import MaskProvider
from guidedattn.masks.parts import largest_parts

_CONFIG = "guidedattn.unet"


def create_unet(architecture: str, encoder: str, encoder_weights: str | Path | None = None) -> nn.Module:
    """A segmentation network of segmentation_models_pytorch: `[B, 3, H, W]` to one channel of logits.

    Args:
        architecture: as there: `Unet`, `UnetPlusPlus`, `FPN`, ...
        encoder: as there: `resnet18`, `mobilenet_v2`, `tu-<timm model>`, ...
        encoder_weights: None, `imagenet` (local cache or hub), or for a `tu-` encoder a file in timm's names.

    Raises:
        ConfigError: there is no such architecture or encoder, or its weights cannot be had.
        CheckpointError: the weights file does not fit.
    """
    from_file = encoder_weights is not None and Path(encoder_weights).suffix != ""
    import segmentation_models_pytorch as smp  # a second of import that classifiers without a U-Net save

    architectures = {model.__name__: model for model in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if architecture not in architectures:
        raise ConfigError(
            f"segmentation_models_pytorch has no {architecture!r}{near(architecture, architectures)}"
        )
    try:
        named = None if from_file else encoder_weights
        net = architectures[architecture](encoder_name=encoder, encoder_weights=named, classes=1)
    except KeyError as error:
        known = smp.encoders.get_encoder_names()
        raise ConfigError(f"no encoder {encoder!r}{near(encoder, known)}") from error
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"encoder {encoder!r} with weights {encoder_weights!r}: {reason:.160}") from error
    if from_file:
        load_network(getattr(net.encoder, "model", net.encoder), str(encoder_weights), encoder)
    return cast("nn.Module", net)


class UNetMask(MaskProvider):
    """Masks from a trained segmentation network, frozen: the paper's lungs (section 3.2).

    Args:
        weights: a checkpoint of `MaskSegmenter`, or a `.safetensors` file that `save_weights` wrote;
            architecture, encoder and size are read from it. Without it the network starts at random and
            the other arguments say what it is.
        architecture: see `create_unet`.
        encoder: see `create_unet`.
        image_size: side of the square that the network sees; masks come back at the images' size.
        threshold: probability above which a pixel is inside; 0 keeps the probability itself.
        largest: connected parts to keep, the largest ones; 2 for lungs, 0 for all. Where probabilities are
            kept, the parts are those above one half, and the others become 0.

    Raises:
        CheckpointError: `weights` cannot be read or is not of a `MaskSegmenter`.
        ConfigError: `largest` is negative.
    """

    from_image_alone = True

    def __init__(
        self,
        weights: str | Path | None = None,
        architecture: str = "Unet",
        encoder: str = "resnet18",
        image_size: int = 256,
        threshold: float = 0.5,
        largest: int = 0,
    ) -> None:
        super().__init__()
        if largest < 0:
            raise ConfigError(f"largest must be at least 0, got {largest}")
        state: dict[str, Tensor] | None = None
        if weights is not None:
            settings, state = _read_weights(weights)
            architecture, encoder = settings["architecture"], settings["encoder"]
            image_size = settings["image_size"]
        self._network = {"architecture": architecture, "encoder": encoder, "image_size": image_size}
        self.threshold, self.largest = threshold, largest
        self.image_size = image_size
        self.net = create_unet(architecture, encoder)
        if state is not None:
            load_entries(self.net, state, str(weights), f"{architecture} on {encoder}")
        self.requires_grad_(False)
        self.eval()

    def recipe_args(self) -> dict[str, Any]:
        """The network instead of its weights file: the state of the checkpoint brings the weights."""
        return {**super().recipe_args(), **self._network, "weights": None}

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002
        """Lung masks `[B, 1, H, W]` of images in [0, 1]."""
        logits = self.net(for_unet(images, self.image_size))
        probabilities = resize(logits.float().sigmoid(), images).clamp(0, 1)
        inside = probabilities > (self.threshold or 0.5)
        if self.largest:
            others = inside & ~largest_parts(inside, self.largest)
            inside, probabilities = inside & ~others, probabilities.masked_fill(others, 0)
        return inside.float() if self.threshold > 0 else probabilities

    def save_weights(self, path: str | Path) -> None:
        """Write a safetensors file that `weights` takes: the network's tensors and what they belong to."""
        write_safetensors(path, self.net.state_dict(), {_CONFIG: json.dumps(self._network)})


def _read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings of a network (architecture, encoder, image_size), and its tensors."""
    if Path(path).suffix == ".safetensors":
        state, metadata = read_safetensors(path)
        if _CONFIG not in metadata:
            raise CheckpointError(
                f"{path} was not written by UNetMask.save_weights: it does not tell the network"
            )
        with reading(path, "weights file"):
            return json.loads(metadata[_CONFIG]), state
    saved = read_checkpoint(path)
    settings = saved.get("hyper_parameters", {})
    if not {"architecture", "encoder", "image_size"} <= settings.keys():
        raise CheckpointError(f"{path} is not a checkpoint of MaskSegmenter")
    entries = saved["state_dict"].items()
    return settings, {key.removeprefix("net."): value for key, value in entries if key.startswith("net.")}


def for_unet(images: Tensor, image_size: int) -> Tensor:
    """Images `[B, C, H, W]` in [0, 1] as the network sees them: three grey channels, `image_size`, mean 0."""
    grey = images.mean(1, keepdim=True)
    size = (image_size, image_size)
    if grey.shape[-2:] != size:
        grey = F.interpolate(grey, size, mode="bilinear", align_corners=False, antialias=True)
    return (grey.expand(-1, 3, -1, -1) - 0.5) / 0.25
