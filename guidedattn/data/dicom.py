"""DICOM files to greys, through pydicom; nothing that names a patient leaves this file unhashed."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from guidedattn.errors import DataError

SUFFIXES = frozenset({".dcm", ".dicom"})
_MAGIC_AT, _MAGIC = 128, b"DICM"

Array = npt.NDArray[Any]


def has_magic(file: BinaryIO) -> bool:
    """Tell whether a file holds `DICM` behind the preamble; the file is rewound."""
    file.seek(_MAGIC_AT)
    found = file.read(len(_MAGIC)) == _MAGIC
    file.seek(0)
    return found


def pseudonym(patient: str, source: str = "") -> str:
    """Return what stands for a patient's id wherever it is written: 16 hexadecimal digits.

    The first half of the SHA-256 of `<source>`, a line feed and the id, so that one patient is one
    pseudonym on every machine. It keeps ids out of sight; it is no protection against somebody who can
    list all possible ids and hash them.

    >>> pseudonym("12345") == pseudonym("12345"), pseudonym("")
    (True, '')
    """
    digest = hashlib.sha256(f"{source}\n{patient}".encode()).hexdigest()
    return digest[:16] if patient else ""


def patient_of(path: Path) -> str:
    """Return the pseudonym of the patient id (0010,0020) in a header, empty where there is none to read.

    A file that is broken is found when its pixels are read.
    """
    try:
        with _silent():
            header = _pydicom().dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True)
            return pseudonym(str(header.get("PatientID") or "").strip())
    except (DataError, OSError):
        return ""


def read_greys(file: BinaryIO, check_size: Callable[[tuple[int, int]], None]) -> Array:
    """Read the first frame as it is meant to be displayed.

    Rescale slope and intercept (or the modality LUT), then the VOI LUT or window are applied. Without
    either the range that the stored bits span becomes 0 to 1, whatever the film fills of it. MONOCHROME1
    is turned round, so that white is bone in every file.

    Args:
        file: An open DICOM file.
        check_size: Called with width and height from the header, before any pixel is decoded.

    Returns:
        float64 `[H, W]` in [0, 1], or uint8 `[H, W, 3]` of a colour file.

    Raises:
        DataError: The file holds no image, its compression needs a package that is not installed, or
            pydicom itself is missing. Messages never quote the header.
    """
    pydicom = _pydicom()
    with _silent():
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if "Rows" not in header or "Columns" not in header:
            raise DataError("the DICOM file holds no image")
        check_size((int(header.Columns), int(header.Rows)))
        _require_decoder(pydicom, header)
        file.seek(0)
        dataset = pydicom.dcmread(file)
        stored = pydicom.pixels.pixel_array(dataset, index=0)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            stored = pydicom.pixels.apply_color_lut(stored, dataset)
        if stored.ndim == 3:
            return _eight_bits(stored)
        greys = _displayed(pydicom.pixels, stored, dataset)
        turned = dataset.PhotometricInterpretation == "MONOCHROME1"
    return np.subtract(1, greys) if turned else greys


def _displayed(pixels: Any, stored: Array, dataset: Any) -> Array:
    """Stored values to display values in [0, 1]: modality, then values of interest (PS3.3 C.11)."""
    greys = pixels.apply_modality_lut(stored, dataset)
    low, high = _range(dataset)
    if dataset.get("VOILUTSequence"):
        greys = pixels.apply_voi(greys, dataset)
        low, high = 0.0, 2.0 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif "WindowCenter" in dataset and "WindowWidth" in dataset:
        # pydicom spreads the window from what the least stored value becomes to what the greatest does.
        greys = pixels.apply_windowing(greys, dataset)
    else:
        low, high = min(low, high), max(low, high)
    return np.clip((np.asarray(greys, dtype=np.float64) - low) / (high - low), 0, 1)


def _range(dataset: Any) -> tuple[float, float]:
    """What the least and the greatest stored value become by slope and intercept."""
    if dataset.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits = int(dataset.BitsStored)
    signed = bool(dataset.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
    slope, intercept = float(1 if slope is None else slope), float(intercept or 0)
    if slope == 0:
        raise DataError("the DICOM file has a rescale slope of 0")
    return low * slope + intercept, high * slope + intercept


def _eight_bits(colour: Array) -> Array:
    return colour if colour.dtype == np.uint8 else (colour >> 8).astype(np.uint8)


def _require_decoder(pydicom: Any, header: Any) -> None:
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = pydicom.pixels.get_decoder(syntax)
    except NotImplementedError:
        raise DataError(f"no decoder exists for the transfer syntax {syntax}") from None
    if decoder.is_encapsulated and not decoder.is_available:
        needed = "; or ".join(text.partition(" requires ")[2] for text in decoder.missing_dependencies)
        raise DataError(f"compressed as {syntax.name}, which needs {needed} (pip install)")


@contextmanager
def _silent() -> Iterator[None]:
    """Keep pydicom's warnings and log away: they quote header fields, names among them."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DataError, OSError):
        raise
    except Exception as error:  # a broken header raises almost anything, and its text may quote a name
        raise DataError(f"the DICOM file cannot be decoded ({type(error).__name__})") from None
    finally:
        logger.setLevel(level)


def _pydicom() -> Any:
    try:
        import pydicom
        import pydicom.pixels
    except ImportError:
        raise DataError("a DICOM file needs pydicom: pip install 'guidedattn[dicom]'") from None
    return pydicom
