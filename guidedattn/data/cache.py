"""Tensors that were once computed from files, kept in a folder until what they came from changes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guidedattn.errors import DataError
from guidedattn.files import sha256, whole_file, whole_path

VERSION = 1
"""Part of every entry's name: raise it when images are read or resized differently, or entries stored so."""

_DEPTH = 65535
_SETTLED = 2_000_000_000  # nanoseconds; file systems keep times no finer than a few milliseconds

Digest = Callable[[str], str]
"""From a path to the SHA-256 of what the file holds."""


class TensorCache:
    """Tensors with values in [0, 1] by what they were computed from, one small file each.

    The name of an entry is a digest of its whole origin (contents of files, settings, `VERSION`), so an
    entry is never stale: where anything changes, another name is asked for. Each is written beside its
    place and renamed, so any number of processes may fill and read one folder, and one that is killed
    leaves whole entries only. Zeros and ones are packed into bits, other values kept to 16 bits (rounded
    by less than 1e-5). Entries that are no longer asked for stay until the folder is removed.

    Args:
        folder: Where the entries lie; made when the first is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def digest(self, path: str) -> str:
        """SHA-256 of a file's contents, remembered while its size, times and inode stay the same.

        Raises:
            OSError: The file cannot be read.
        """
        stat = os.stat(path)  # noqa: PTH116  called per sample: no Path for it
        state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        memory = self._file("digests", hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest(), ".txt")  # noqa: PTH100
        try:
            known, _, digest = memory.read_text().rpartition(" ")
        except OSError:
            known = digest = ""
        if known == state and len(digest) == 64:
            return digest
        digest = sha256(path)
        # A file may change twice within one tick of the clock, so a fresh one is not remembered.
        if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED:
            with self._writing(), whole_file(memory) as file:
                file.write(f"{state} {digest}")
        return digest

    def read(self, origin: Sequence[Any], shape: tuple[int, ...]) -> Tensor | None:
        """Return the float32 tensor of that origin; None if there is none, or a damaged one."""
        try:
            stored = np.load(self._entry(origin), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        size = int(np.prod(shape))
        if stored.dtype == np.uint8 and stored.size == -(-size // 8):
            return torch.from_numpy(np.unpackbits(stored, count=size).reshape(shape).astype(np.float32))
        if stored.dtype == np.uint16 and stored.size == size:
            return torch.from_numpy(stored.reshape(shape).astype(np.float32) / np.float32(_DEPTH))
        return None

    def write(self, origin: Sequence[Any], values: Tensor) -> Tensor:
        """Store `values` in [0, 1] and return them as `read` will, rounded to what is stored.

        Raises:
            DataError: The folder cannot be written to; names it and the reason.
        """
        given = values.numpy().ravel()
        binary = bool(((given == 0) | (given == 1)).all())
        stored = np.packbits(given != 0) if binary else np.rint(given * _DEPTH).astype(np.uint16)
        with self._writing(), whole_path(self._entry(origin)) as part, part.open("wb") as file:
            np.save(file, stored, allow_pickle=False)
        rounded = given if binary else stored.astype(np.float32) / np.float32(_DEPTH)
        return torch.from_numpy(rounded.reshape(values.shape).astype(np.float32))

    def _entry(self, origin: Sequence[Any]) -> Path:
        name = hashlib.sha256(json.dumps([VERSION, *origin]).encode()).hexdigest()
        return self._file("entries", name, ".npy")

    def _file(self, kind: str, name: str, suffix: str) -> Path:
        # Two levels, so that no folder holds more than a few thousand files.
        return self.folder / kind / name[:2] / f"{name}{suffix}"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(f"cache {self.folder} cannot be written to: {error.strerror or error}") from None
