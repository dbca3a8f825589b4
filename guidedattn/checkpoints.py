"""Reading weights out of checkpoints: always with `weights_only=True`, never with a fallback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from guidedattn.errors import CheckpointError


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint without running any code that it may hold.

    Raises:
        CheckpointError: no such file, truncated, or not made of plain values.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"checkpoint {path} cannot be read safely: {_gist(error)}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is not a Lightning checkpoint: it has no state_dict")
    return checkpoint


def load_network(net: nn.Module, path: str | Path, name: str) -> None:
    """Load a file of weights (`.safetensors`, or what `torch.save` wrote) into `net` (`name` in errors).

    Entries that `net` has no use for, such as a classifier, are left aside; one that it lacks is an error.

    Raises:
        CheckpointError: unreadable, or of another network.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"weights file {path} does not exist")
    state: dict[str, Any]
    try:
        if Path(path).suffix == ".safetensors":
            state = dict(load_file(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"weights file {path} cannot be read safely: {_gist(error)}") from error
    _load_entries(net, state.get("state_dict", state), path, name)


def load_weights(module: nn.Module, path: str | Path, parts: Sequence[str]) -> None:
    """Load the entries of a Lightning checkpoint whose names start with one of `parts` into `module`.

    Raises:
        CheckpointError: unreadable, or an entry is missing or has another shape.
    """
    state = read_checkpoint(path)["state_dict"]
    for part in parts:
        entries = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        _load_entries(module.get_submodule(part.rstrip(".")), entries, path, part.rstrip("."))


def _load_entries(net: nn.Module, given: dict[str, Any], path: str | Path, name: str) -> None:
    wanted = net.state_dict()
    for key, value in wanted.items():
        if key not in given:
            raise CheckpointError(f"{path} is not of this {name}: it lacks {key}")
        if given[key].shape != value.shape:
            raise CheckpointError(
                f"{path} is not of this {name}: {key} is {list(given[key].shape)} there, "
                f"{list(value.shape)} here"
            )
    net.load_state_dict({key: given[key] for key in wanted})


def _gist(error: Exception) -> str:
    return f"{str(error).splitlines()[0]:.160}" if str(error) else type(error).__name__
