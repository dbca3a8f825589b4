"""Files that are whole or absent, locks, and digests; the one module that imports filelock."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from filelock import FileLock


@contextmanager
def whole_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes its name once the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes on several machines, which may share a folder, may share a process id.
    part = path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Open a text file for writing that appears under its name only once it is complete."""
    with whole_path(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        yield file


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[None]:
    """Hold the lock that a file stands for; it ends with this process, however it ends.

    Raises:
        TimeoutError: another process holds it, and there is no `wait`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=-1 if wait else 0):
        yield


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's contents."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
