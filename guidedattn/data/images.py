"""Image files to tensors: every file type to the same greys, every bad file to one short error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from guidedattn.data import dicom
from guidedattn.data.crops import is_crops, paste_lungs
from guidedattn.data.paths import AnyPath, RemotePath, as_path
from guidedattn.data.polygons import Outline, Ring, is_outline, read_outline
from guidedattn.errors import DataError
from guidedattn.files import whole_path

MAX_PIXELS = 50_000_000
_GREY = {"1", "L", "LA", "La"}
_DEEP = {"I;16", "I;16L", "I;16B", "I;16N", "I"}
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS_PER_SAMPLE = 0, 262, 258

Array = npt.NDArray[Any]


def read_image(
    path: str | AnyPath, channels: int = 1, bits: int = 16, max_pixels: int = MAX_PIXELS
) -> Tensor:
    """Read an image file as floats.

    Greys keep their full depth: 8-bit files are divided by 255, 16-bit files by 2^bits - 1. A container
    of 16 bits does not tell how many of them the detector filled; a 12-bit film read with `bits=16` comes
    out almost black, so say `bits=12`. Colours become grey by the luma weights of ITU-R BT.601. An EXIF
    orientation is applied, a palette looked up, CMYK converted, alpha ignored (the stored colours count);
    of several frames the first is read. DICOM files (by suffix or magic word) come as they are meant to be
    displayed, see `guidedattn.data.dicom`.

    Args:
        path: Any file that Pillow or pydicom reads, or its fsspec URL.
        channels: 1 for grey, 3 for RGB.
        bits: Significant bits of 16-bit files; a DICOM file knows its own.
        max_pixels: Larger images are refused from their header, before they are decoded.

    Returns:
        float32 `[channels, H, W]` in [0, 1].

    Raises:
        DataError: The file is missing, empty, truncated, not an image, larger than `max_pixels`, or holds
            values outside its range; the message names path and reason.
    """
    values, white = _decode(as_path(path), max_pixels, bits, colour=channels == 3)
    if values.ndim == 2:
        values = np.broadcast_to(values, (channels, *values.shape))
    else:
        values = values.transpose(2, 0, 1)
    scaled = values.astype(np.float32) / np.float32(white)
    return torch.from_numpy(np.ascontiguousarray(scaled))


def read_mask(
    path: str | AnyPath,
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    scale: bool = False,
) -> Tensor:
    """Read a mask file as zeros and ones.

    A pixel is inside from half of white upwards (128 of 255: a few masks hold grey edges). A file with
    no value but 0 and 1 is taken as it is. Polygons (a Darwin JSON, or `<COCO JSON>#<image id>`) are
    filled at the size asked for; `Ignore` polygons are cut out of them. `structure.csv#<film>` puts the
    lungs of GeneralBlockchain together. An empty mask is returned as one;
    whether it may be is the caller's decision.

    Args:
        path: Any file that Pillow reads (colours count by their luma), or polygons; or an fsspec URL.
        size: Height and width of the image that the mask belongs to, or None to accept any.
        max_pixels: Larger files are refused from their header.
        scale: Whether a mask of another size but of the same shape is brought to `size` (nearest pixel).

    Returns:
        float32 `[1, H, W]`, 0 or 1.

    Raises:
        DataError: As for `read_image`; or the size is another one (with `scale` and for polygons: the
            shape); or the file is not empty but holds nothing as bright as half of white, as a label map
            does.
    """
    location = as_path(path)
    if is_outline(location):
        return torch.from_numpy(_filled(location, size, max_pixels))[None]
    if is_crops(location):
        values = paste_lungs(location, lambda crop: _decode(crop, max_pixels, bits=16, colour=False)[0])
        white = 1.0
    else:
        values, white = _decode(location, max_pixels, bits=16, colour=False)
    if size is not None and values.shape != tuple(size):
        _check_shape(location, values.shape, size, scale)
        rows, columns = (np.arange(n) * m // n for n, m in zip(size, values.shape, strict=True))
        values = values[rows[:, None], columns]
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


def draw_letter(letter: str, side: int) -> Tensor:
    """Return a white letter on black, float32 `[side, side]` in [0, 1]."""
    tile = Image.new("L", (side, side))
    font = ImageFont.load_default(side)
    ImageDraw.Draw(tile).text((side / 2, side / 2), letter, fill=255, font=font, anchor="mm")
    return torch.from_numpy(np.asarray(tile, dtype=np.float32) / 255)


def as_picture(pixels: Array) -> Image.Image:
    """Return grey values uint8 `[H, W]` as Pillow's image."""
    return Image.fromarray(np.ascontiguousarray(pixels))


def _decode(path: AnyPath, max_pixels: int, bits: int, colour: bool) -> tuple[Array, float]:
    """Return the values `[H, W]` or `[H, W, 3]` and the value that is white."""
    try:
        if path.suffix.lower() not in dicom.SUFFIXES:
            try:
                return _decode_picture(path, max_pixels, bits, colour)
            except UnidentifiedImageError:
                with path.open("rb") as file:
                    if not dicom.has_magic(file):
                        raise
        with path.open("rb") as file:
            return _decode_dicom(path, file, max_pixels, colour)
    except DataError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from None
    except Exception as error:  # Pillow's decoders raise almost anything on a broken file
        raise DataError(f"{path}: {_reason(path, error)}") from None


def _decode_picture(path: AnyPath, max_pixels: int, bits: int, colour: bool) -> tuple[Array, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
        # Pillow closes what it opens; a file from behind a URL is closed by whoever collects it.
        with Image.open(path.open() if isinstance(path, RemotePath) else path) as image:
            _check_size(path, image.size, max_pixels)
            image.load()
            return _values(path, image, bits, colour)


def _decode_dicom(path: AnyPath, file: BinaryIO, max_pixels: int, colour: bool) -> tuple[Array, float]:
    values = dicom.read_greys(file, lambda size: _check_size(path, size, max_pixels))
    if values.ndim == 2:
        return values, 1.0
    return (values if colour else np.asarray(Image.fromarray(values).convert("L"))), 255.0


def _filled(path: AnyPath, size: tuple[int, int] | None, max_pixels: int) -> Array:
    """Fill the polygons of an image: float32 `[H, W]`, 0 or 1."""
    outline = read_outline(path)
    drawn = (outline.height, outline.width)
    _check_size(path, (outline.width, outline.height), max_pixels)
    if size is not None:
        _check_shape(path, drawn, size, scale=True)
    height, width = size or drawn
    ignored = _union(outline.ignore, outline, (width, height))
    inside = ImageChops.logical_and(
        _union(outline.inside, outline, (width, height)), ImageChops.invert(ignored.convert("L")).convert("1")
    )
    return np.asarray(inside).astype(np.float32)


def _union(shapes: tuple[list[Ring], ...], outline: Outline, size: tuple[int, int]) -> Image.Image:
    whole = Image.new("1", size)
    across, down = size[0] / outline.width, size[1] / outline.height
    for rings in shapes:
        shape = Image.new("1", size)
        for ring in rings:  # even-odd: a ring inside a ring is a hole
            one = Image.new("1", size)
            if len(ring) > 2:
                ImageDraw.Draw(one).polygon([(x * across, y * down) for x, y in ring], fill=1)
            shape = ImageChops.logical_xor(shape, one)
        whole = ImageChops.logical_or(whole, shape)
    return whole


def _check_shape(path: AnyPath, have: tuple[int, ...], want: tuple[int, int], scale: bool) -> None:
    """Refuse a mask of another size; with `scale` one of another shape, a pixel of rounding set aside."""
    across, down = want[1] / have[1], want[0] / have[0]
    close = min(abs(have[0] * across - want[0]), abs(have[1] * down - want[1])) <= 1
    if not (scale and close):
        advice = "; set scale_masks to scale it" if close and not scale else ""
        raise DataError(
            f"{path}: the mask is {have[1]} x {have[0]} pixels, its image {want[1]} x {want[0]}{advice}"
        )


def _check_size(path: AnyPath, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DataError(
            f"{path}: {width} x {height} pixels exceed the limit of {max_pixels} (max_pixels); not decoded"
        )


def _values(path: AnyPath, image: Image.Image, bits: int, colour: bool) -> tuple[Array, float]:
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


def _check_range(path: AnyPath, values: Array, white: float) -> None:
    if not np.isfinite(values).all():
        raise DataError(f"{path}: the image holds values that are not finite")
    low, high = values.min(), values.max()
    if low < 0 or high > white:
        raise DataError(f"{path}: the values reach from {low:g} to {high:g}, expected 0 to {white:g}")


def _reason(path: AnyPath, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "a folder, not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large: {error}"
    if isinstance(error, UnidentifiedImageError):
        empty = isinstance(path, Path) and path.stat().st_size == 0
        return "the file is empty" if empty else "not an image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"the image cannot be decoded ({error or type(error).__name__})"
