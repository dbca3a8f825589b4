"""DICOM: every way to store a film gives the float image of a reference array, and no name leaks."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from guidedattn.data import FolderSource, Manifest, read_image
from guidedattn.data.dicom import pseudonym
from guidedattn.errors import DataError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1, RLELossless  # noqa: E402

RAMP = np.linspace(0, 1, 32 * 48).reshape(32, 48)
NAME, NUMBER = "Doe^Jane", "PID-4711"


def write(path: Path, stored: np.ndarray, bits: int = 12, **tags: Any) -> Dataset:
    """Write a film with a patient's name and id in its header."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = "1.2.3"
    film.PatientName, film.PatientID = NAME, NUMBER
    film.Rows, film.Columns = stored.shape[:2]
    film.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    film.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        film.PlanarConfiguration = 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 8 * stored.itemsize, bits, bits - 1
    film.PixelRepresentation = int(stored.dtype.kind == "i")
    film.PixelData = stored.tobytes()
    for name, value in tags.items():
        setattr(film, name, value)
    film.save_as(path, enforce_file_format=True)
    return film


def stored(bits: int = 12) -> np.ndarray:
    return np.round(RAMP * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def same(path: Path, reference: np.ndarray) -> None:
    image = read_image(path)
    assert tuple(image.shape) == (1, *reference.shape)
    np.testing.assert_allclose(image[0].numpy(), reference, atol=1 / 255)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_stored_bits_are_the_range(tmp_path: Path, bits: int) -> None:
    write(tmp_path / "a.dcm", stored(bits), bits)
    same(tmp_path / "a.dcm", RAMP)


def test_white_is_zero_is_turned_round(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", stored(), PhotometricInterpretation="MONOCHROME1")
    same(tmp_path / "a.dcm", 1 - RAMP)


def test_slope_and_intercept_shift_the_range_with_the_values(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", stored(), RescaleSlope=2, RescaleIntercept=-1024)
    same(tmp_path / "a.dcm", RAMP)
    write(tmp_path / "b.dcm", stored(), RescaleSlope=-1, RescaleIntercept=4095)
    same(tmp_path / "b.dcm", 1 - RAMP)


def test_signed_values(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", (stored().astype(np.int32) - 2048).astype(np.int16))
    same(tmp_path / "a.dcm", RAMP)


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (0.5, 100)])
def test_a_window_is_applied_to_rescaled_values(tmp_path: Path, slope: float, intercept: float) -> None:
    centre, width = 2000 * slope + intercept, 1000 * slope
    write(
        tmp_path / "a.dcm", stored(), RescaleSlope=slope, RescaleIntercept=intercept,
        WindowCenter=centre, WindowWidth=width,
    )  # fmt: skip
    values = stored() * float(slope) + intercept
    same(tmp_path / "a.dcm", np.clip((values - centre) / width + 0.5, 0, 1))


def test_of_several_windows_the_first_counts(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", stored(), WindowCenter=[1000, 3000], WindowWidth=[400, 400])
    same(tmp_path / "a.dcm", np.clip((stored() - 1000.0) / 400 + 0.5, 0, 1))


def test_a_table_of_values_of_interest_is_looked_up(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (np.linspace(0, 1, 4096) ** 2 * 65535).astype(np.uint16).tobytes()
    write(tmp_path / "a.dcm", stored(), VOILUTSequence=[table])
    same(tmp_path / "a.dcm", RAMP**2)


def test_colour_becomes_luma(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)
    write(tmp_path / "a.dcm", rgb, bits=8)
    same(tmp_path / "a.dcm", rgb @ np.array([0.299, 0.587, 0.114]) / 255)
    np.testing.assert_allclose(
        read_image(tmp_path / "a.dcm", channels=3).numpy(), rgb.transpose(2, 0, 1) / 255
    )


def test_a_file_without_suffix_is_told_by_its_magic_word(tmp_path: Path) -> None:
    write(tmp_path / "IM0001", stored())
    same(tmp_path / "IM0001", RAMP)
    (tmp_path / "IM0002").write_text("neither")
    with pytest.raises(DataError, match=r"IM0002: not an image that Pillow can read"):
        read_image(tmp_path / "IM0002")


def test_a_compressed_film_is_read_where_a_decoder_is_there(tmp_path: Path) -> None:
    film = write(tmp_path / "a.dcm", stored())
    film.compress(RLELossless)
    film.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    same(tmp_path / "rle.dcm", RAMP)


def test_else_the_error_says_what_to_install(tmp_path: Path) -> None:
    film = write(tmp_path / "a.dcm", stored())
    if pydicom.pixels.get_decoder(JPEGLosslessSV1).is_available:
        pytest.skip("the decoder is installed")
    film.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    film.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    film["PixelData"].is_undefined_length = True
    film.save_as(tmp_path / "jpeg.dcm", enforce_file_format=True)
    with pytest.raises(
        DataError, match=r"jpeg\.dcm: compressed as JPEG Lossless.* needs .*pylibjpeg-libjpeg"
    ):
        read_image(tmp_path / "jpeg.dcm")


def test_the_pixel_limit_is_read_from_the_header(tmp_path: Path) -> None:
    write(tmp_path / "bomb.dcm", stored(), Rows=50_000, Columns=50_000)
    with pytest.raises(DataError, match=r"bomb\.dcm: 50000 x 50000 pixels exceed the limit"):
        read_image(tmp_path / "bomb.dcm")


def test_no_name_and_no_id_in_errors_logs_and_manifests(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    folder = tmp_path / "films" / "Normal"
    folder.mkdir(parents=True)
    write(folder / "a.dcm", stored(), PatientID=NUMBER, PatientBirthDate=f"{NAME} no date")
    data = (folder / "a.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(data[: len(data) // 2])
    caplog.clear()  # pydicom has told the name while it wrote
    recwarn.clear()
    with caplog.at_level(logging.DEBUG):
        read_image(folder / "a.dcm")
        with pytest.raises(DataError) as caught:
            read_image(folder / "cut.dcm")
        records = list(FolderSource(tmp_path / "films").records())
        text = Manifest.from_records(records, tmp_path).write(tmp_path / "list.csv").read_text()
    said = [str(caught.value), text, caplog.text, *(str(w.message) for w in recwarn)]
    assert not [line for line in said if NUMBER in line or "Doe" in line]
    assert {record.patient for record in records} == {pseudonym(NUMBER)}


def test_a_pseudonym_never_changes() -> None:
    digest = hashlib.sha256(b"\nPID-4711").hexdigest()
    assert pseudonym(NUMBER) == digest[:16]
    assert pseudonym(NUMBER, "A") != pseudonym(NUMBER, "B")


def test_a_film_without_pixels_is_named(tmp_path: Path) -> None:
    film = write(tmp_path / "a.dcm", stored())
    del film.PixelData, film.Rows
    film.save_as(tmp_path / "report.dcm", enforce_file_format=True)
    with pytest.raises(DataError, match=r"report\.dcm: the DICOM file holds no image"):
        read_image(tmp_path / "report.dcm")
    Image.new("L", (4, 4)).save(tmp_path / "fake.png")
    (tmp_path / "fake.png").rename(tmp_path / "fake.dcm")
    with pytest.raises(DataError, match=r"fake\.dcm: the DICOM file cannot be decoded"):
        read_image(tmp_path / "fake.dcm")
