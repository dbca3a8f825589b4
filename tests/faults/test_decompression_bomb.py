"""Decompression bomb: refused from the header by a configured limit, memory bounded."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn.data import read_image, read_mask
from guidedattn.errors import DataError


def bomb(path: Path, side: int) -> Path:
    """Write a valid grey PNG of side x side pixels, all black, a row at a time."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (side + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("side", [10_000, 20_000])  # below and above the limit that Pillow has itself
@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.filterwarnings("error")
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int, read: object) -> None:
    path = bomb(tmp_path / "bomb.png", side)
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb\.png: .*(exceed|large)"):
        read(path)  # type: ignore[operator]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "small.png")
    assert read_image(tmp_path / "small.png", max_pixels=100).shape == (1, 10, 10)
    with pytest.raises(DataError, match="10 x 10 pixels exceed the limit of 99"):
        read_image(tmp_path / "small.png", max_pixels=99)
