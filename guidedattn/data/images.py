"""Image files to tensors: every file type to the same greys, every bad file to one short error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from guidedattn.errors import DataError
from guidedattn.files import whole_path

MAX_PIXELS = 50_000_000
_GREY = {"1", "L", "LA", "La"}
_DEEP = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS_PER_SAMPLE = 0, 262, 258

Array = npt.NDArray[Any]


def read_image(path: str | Path, channels: int = 1, bits: int = 16, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an image file as floats.

    Greys keep their full depth: 8-bit files are divided by 255, 16-bit files by 2^bits - 1. A container
    of 16 bits does not tell how many of them the detector filled; a 12-bit film read with `bits=16` comes
    out almost black, so say `bits=12`. Colours become grey by the luma weights of ITU-R BT.601. An EXIF
    orientation is applied, a palette looked up, CMYK converted, alpha ignored (the stored colours count);
    of several frames the first is read.

    Args:
        path: Any file that Pillow reads.
        channels: 1 for grey, 3 for RGB.
        bits: Significant bits of 16-bit files.
        max_pixels: Larger images are refused from their header, before they are decoded.

    Returns:
        float32 `[channels, H, W]` in [0, 1].

    Raises:
        DataError: The file is missing, empty, truncated, not an image, larger than `max_pixels`, or holds
            values outside its range; the message names path and reason.
    """
    values, white = _decode(Path(path), max_pixels, bits, colour=channels == 3)
    if values.ndim == 2:
        values = np.broadcast_to(values, (channels, *values.shape))
    else:
        values = values.transpose(2, 0, 1)
    scaled = values.astype(np.float32) / np.float32(white)
    return torch.from_numpy(np.ascontiguousarray(scaled))


def read_mask(path: str | Path, size: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a mask file as zeros and ones.

    A pixel is inside from half of white upwards (128 of 255: a few masks hold grey edges). A file with
    no value but 0 and 1 is taken as it is. An empty mask is returned as one; whether it may be is the
    caller's decision.

    Args:
        path: Any file that Pillow reads; colours count by their luma.
        size: Height and width of the image that the mask belongs to, or None to accept any.
        max_pixels: Larger files are refused from their header.

    Returns:
        float32 `[1, H, W]`, 0 or 1.

    Raises:
        DataError: As for `read_image`; or the size is another one; or the file is not empty but holds
            nothing as bright as half of white, as a label map does.
    """
    values, white = _decode(Path(path), max_pixels, bits=16, colour=False)
    if size is not None and values.shape != tuple(size):
        have, want = values.shape, tuple(size)
        raise DataError(f"{path}: the mask is {have[1]} x {have[0]} pixels, its image {want[1]} x {want[0]}")
    brightest = values.max()
    inside = values >= (brightest if brightest == 1 else white / 2)
    if brightest > 0 and not inside.any():
        raise DataError(
            f"{path}: the brightest value of the mask is {brightest:g} of {white:g}, so nothing is inside; "
            "a mask is 0 outside and white (or 1) inside"
        )
    return torch.from_numpy(inside.astype(np.float32))[None]


def squash(image: Tensor, size: int) -> Tensor:
    """Resize to a square without keeping the aspect ratio: bilinear, antialiased when it shrinks.

    Args:
        image: float32 `[C, H, W]` in [0, 1].
        size: Height and width of the result.

    Returns:
        float32 `[C, size, size]` in [0, 1].
    """
    # Pillow, not torch: images this small lose more to the threads of torch than they gain.
    planes = [
        Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR) for plane in image.numpy()
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes]).clip(0, 1))


def write_mask(path: Path, mask: Tensor, size: tuple[int, int]) -> None:
    """Write a mask that `read_mask` reads: a PNG of one bit per pixel, inside where it exceeds one half.

    Args:
        path: The file; its folder is made.
        mask: float32 `[1, h, w]` in [0, 1].
        size: Height and width of the file, those of the image that the mask belongs to.
    """
    height, width = size
    grey = as_picture(np.rint(mask[0].numpy() * 255).astype(np.uint8))
    inside = np.asarray(grey.resize((width, height), Image.Resampling.BILINEAR)) > 127
    with whole_path(path) as part:
        Image.fromarray(inside).save(part, format="PNG")


def as_picture(pixels: Array) -> Image.Image:
    """Return grey values uint8 `[H, W]` as Pillow's image."""
    return Image.fromarray(np.ascontiguousarray(pixels))


def _decode(path: Path, max_pixels: int, bits: int, colour: bool) -> tuple[Array, float]:
    """Return the values `[H, W]` or `[H, W, 3]` and the value that is white."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
            with Image.open(path) as image:
                _check_size(path, image.size, max_pixels)
                image.load()
                return _values(path, image, bits, colour)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise DataError(f"{path}: {_reason(path, error)}") from None


def _check_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DataError(
            f"{path}: {width} x {height} pixels exceed the limit of {max_pixels} (max_pixels); not decoded"
        )


def _values(path: Path, image: Image.Image, bits: int, colour: bool) -> tuple[Array, float]:
    tags = getattr(image, "tag_v2", {})
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP:
        stored = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        white = float(2 ** min(bits, stored if stored < 16 else 16) - 1)
        values = np.asarray(upright).astype(np.int64)
        _check_range(path, values, white)
        # Pillow turns an 8-bit white-is-zero TIFF round, a 16-bit one not.
        return (white - values if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else values), white
    if upright.mode == "F":
        values = np.asarray(upright)
        _check_range(path, values, 1.0)
        return values, 1.0
    if upright.mode in _GREY:
        return np.asarray(upright.convert("L")), 255.0
    rgb = upright.convert("RGBA").convert("RGB") if upright.mode == "P" else upright.convert("RGB")
    return np.asarray(rgb if colour else rgb.convert("L")), 255.0


def _check_range(path: Path, values: Array, white: float) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{path}: the image holds values that are not finite")
    low, high = values.min(), values.max()
    if low < 0 or high > white:
        raise DataError(f"{path}: the values reach from {low:g} to {high:g}, expected 0 to {white:g}")


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {error}"
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if path.stat().st_size == 0 else "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"the image cannot be decoded ({error or type(error).__name__})"
