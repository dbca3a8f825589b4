"""Reading weights out of checkpoints: always with `weights_only=True`, never with a fallback."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guidedattn.errors import CheckpointError, ConfigError
from guidedattn.files import whole_path


@contextmanager
def reading(path: Any, what: str = "checkpoint") -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into one short error.

    Raises:
        CheckpointError: names the file and the reason.
    """
    try:
        yield
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"{what} {path}: {error}") from error
    except Exception as error:
        raise CheckpointError(f"{what} {path} cannot be read safely: {_gist(error)}") from error


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint without running any code that it may hold.

    Raises:
        CheckpointError: no such file, truncated, or not made of plain values.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"checkpoint {path} does not exist")
    with reading(path):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path} is not a Lightning checkpoint: it has no state_dict")
    return checkpoint


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file, and its metadata.

    Raises:
        CheckpointError: no such file, or truncated.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"weights file {path} does not exist")
    with reading(path, "weights file"), safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata() or {}


def write_safetensors(path: str | Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and metadata; the file appears when it is complete."""
    with whole_path(Path(path)) as part:
        save_file({key: value.contiguous() for key, value in state.items()}, part, metadata)


def load_network(net: nn.Module, path: str | Path, name: str) -> None:
    """Load a file of weights (`.safetensors`, or what `torch.save` wrote) into `net` (`name` in errors).

    Entries that `net` has no use for, such as a classifier, are left aside; one that it lacks is an error.

    Raises:
        CheckpointError: unreadable, or of another network.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"weights file {path} does not exist")
    state: dict[str, Any]
    with reading(path, "weights file"):
        if Path(path).suffix == ".safetensors":
            state = dict(load_file(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    load_entries(net, state.get("state_dict", state), path, name)


def load_weights(module: nn.Module, path: str | Path, parts: Sequence[str]) -> None:
    """Load the entries of a Lightning checkpoint whose names start with one of `parts` into `module`.

    Raises:
        CheckpointError: unreadable, or an entry is missing or has another shape.
    """
    state = read_checkpoint(path)["state_dict"]
    for part in parts:
        entries = {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}
        load_entries(module.get_submodule(part.rstrip(".")), entries, path, part.rstrip("."))


def load_entries(net: nn.Module, given: dict[str, Any], path: str | Path, name: str) -> None:
    """Load the entries that `net` has out of `given`, read from `path`; `name` stands for `net` in errors.

    Raises:
        CheckpointError: an entry is missing or has another shape.
    """
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
    text = " ".join(str(error).split())
    if code := re.search(r"GLOBAL (\S+)", text):
        return f"it holds code ({code[1]}) where only plain values may stand"
    if isinstance(error, KeyError | EOFError | pickle.UnpicklingError):
        return "it is truncated, or of another kind"
    return f"{text:.200}" if text else type(error).__name__
