"""Depths, palettes, alpha, CMYK, EXIF: every file type gives the float image of a reference array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn.data import read_image
from guidedattn.errors import DataError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (13, 17)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (13, 17, 4)).astype(np.uint8)
SMOOTH = np.linspace(0, 255, 32 * 48).reshape(32, 48).astype(np.uint8)
TOLERANCE = 1 / 255 + 1e-6


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., :3].astype(float) @ np.array([0.299, 0.587, 0.114]) / 255


def same(path: Path, reference: np.ndarray, tolerance: float = TOLERANCE, **options: int) -> None:
    image = read_image(path, **options)
    assert tuple(image.shape) == (1, *reference.shape)
    np.testing.assert_allclose(image[0].numpy(), reference, atol=tolerance)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_keeps_every_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(DEEP).save(path)
    same(path, DEEP / 65535, 1e-7)
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(path)
    assert len(read_image(path).unique()) == 4096
    same(path, ramp / 4095, 1e-7, bits=12)


def test_big_endian_tiff(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (17, 13), DEEP.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    same(tmp_path / "big.tif", DEEP / 65535, 1e-7)


def test_more_bits_than_said_are_an_error(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: .* expected 0 to 4095"):
        read_image(tmp_path / "deep.png", bits=12)


@pytest.mark.parametrize("array", [DEEP, SMOOTH], ids=["16 bit", "8 bit"])
def test_white_is_zero_tiff_is_turned_round(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "white.tif"
    Image.fromarray(array).save(path, tiffinfo={262: 0})
    if array.dtype == np.uint8:  # Pillow turns 8-bit values round when it writes this tag
        same(path, array / 255)
    else:
        same(path, 1 - array / 65535, 1e-7)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_becomes_luma_and_alpha_is_ignored(tmp_path: Path, mode: str) -> None:
    Image.fromarray(COLOUR[..., : len(mode)]).save(tmp_path / "colour.png")
    same(tmp_path / "colour.png", luma(COLOUR))


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(COLOUR[..., :2]).save(tmp_path / "la.png")
    same(tmp_path / "la.png", COLOUR[..., 0] / 255)


def test_palette(tmp_path: Path) -> None:
    indexed = Image.fromarray(COLOUR[..., :3]).quantize(16)
    indexed.save(tmp_path / "palette.png")
    colours = np.array(indexed.getpalette(), np.uint8).reshape(-1, 3)
    same(tmp_path / "palette.png", luma(colours[np.asarray(indexed)]))
    indexed.save(tmp_path / "transparent.png", transparency=0)
    same(tmp_path / "transparent.png", luma(colours[np.asarray(indexed)]))


def test_bilevel(tmp_path: Path) -> None:
    Image.fromarray(DEEP > 30000).save(tmp_path / "bits.png")
    same(tmp_path / "bits.png", (DEEP > 30000).astype(float))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    inks = np.stack([255 - SMOOTH, 255 - SMOOTH, 255 - SMOOTH, np.zeros_like(SMOOTH)], -1)
    Image.frombytes("CMYK", (48, 32), inks.tobytes()).save(tmp_path / "inks.jpg", quality=100, subsampling=0)
    same(tmp_path / "inks.jpg", SMOOTH / 255, 2 / 255)  # JPEG itself may lose one step


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "deep.png"])
@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_exif_orientation(tmp_path: Path, name: str, orientation: int, turn: int) -> None:
    array = (SMOOTH * np.uint16(257)) if name.startswith("deep") else SMOOTH
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / name, exif=exif, quality=100)
    same(tmp_path / name, np.rot90(SMOOTH / 255, turn), 2 / 255)
