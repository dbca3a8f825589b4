"""The image cache: what it gives back, and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from guidedattn.cli import main
from guidedattn.data import (
    Augment,
    CXRDataModule,
    MaskedImageDataModule,
    MaskedImageDataset,
    Record,
    TensorCache,
)
from guidedattn.data import cache as cache_module
from guidedattn.data import dataset as dataset_module
from guidedattn.errors import DataError

Folders = Callable[..., Path]


def modules(make_folders: Folders, cache: Path, **options: object) -> list[MaskedImageDataModule]:
    root = make_folders()
    arguments: dict[str, object] = {
        "root": root,
        "mask_root": root.parent / "masks",
        "image_size": 8,
        **options,
    }
    return [MaskedImageDataModule(**arguments, cache=folder) for folder in (None, cache)]  # type: ignore[arg-type]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_the_same_with_and_without_the_cache(
    make_folders: Folders, tmp_path: Path, num_workers: int
) -> None:
    plain, cached = modules(make_folders, tmp_path / "cache", num_workers=num_workers)
    for _ in range(2):  # filled, then read
        for one, other in zip(plain.train_dataloader(), cached.train_dataloader(), strict=True):
            assert torch.allclose(one["image"], other["image"], atol=1e-5)
            assert torch.allclose(one["mask"], other["mask"], atol=1e-5)
            for key in ("label", "has_mask", "index", "path"):
                assert list(one[key]) == list(other[key])


def test_augmentation_comes_after_the_cache(make_folders: Folders, tmp_path: Path) -> None:
    _, cached = modules(make_folders, tmp_path / "cache", augment=Augment(degrees=30))
    dataset = cached.make_dataset("train")
    first, second = dataset[0]["image"], dataset[0]["image"]
    assert not torch.equal(first, second)
    assert torch.equal(dataset.read(0)[0], dataset.read(0)[0])


def test_files_are_decoded_once(
    make_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cached = modules(make_folders, tmp_path / "cache")
    dataset = cached.make_dataset("train")
    filled = [dataset[i] for i in range(len(dataset))]

    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("decoded")

    monkeypatch.setattr(dataset_module, "read_image", refuse)
    for i, sample in enumerate(filled):
        assert torch.equal(dataset[i]["image"], sample["image"])  # the first epoch sees what the others see
        assert torch.equal(dataset[i]["mask"], sample["mask"])


def test_sixteen_bits_keep_their_depth(tmp_path: Path) -> None:
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)  # 4,096 greys of a 12-bit film
    Image.fromarray(ramp).save(tmp_path / "film.png")
    record = [Record(tmp_path / "film.png", "x", "s")]
    dataset = MaskedImageDataset(record, ["x"], 64, bits=12, cache=TensorCache(tmp_path / "cache"))
    expected = torch.from_numpy(ramp.astype(np.float32) / 4095)[None]
    for _ in range(2):
        assert torch.allclose(dataset[0]["image"], expected, atol=1e-5)
    other = MaskedImageDataset(record, ["x"], 64, bits=16, cache=TensorCache(tmp_path / "cache"))
    assert float(other[0]["image"].max()) < 0.07


def test_an_empty_mask_is_none_from_the_cache_too(tmp_path: Path) -> None:
    for name, grey in (("image", 90), ("mask", 0)):
        Image.fromarray(np.full((9, 9), grey, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    record = Record(tmp_path / "image.png", "x", "s", mask=tmp_path / "mask.png")
    dataset = MaskedImageDataset([record], ["x"], 8, cache=TensorCache(tmp_path / "cache"))
    for _ in range(2):
        with pytest.warns(UserWarning, match="mask is empty"):
            assert not dataset[0]["has_mask"]


def test_a_mask_of_another_size_is_still_an_error(make_folders: Folders, tmp_path: Path) -> None:
    _, cached = modules(make_folders, tmp_path / "cache")
    dataset = cached.make_dataset("train")
    index = next(i for i in range(len(dataset)) if dataset[i]["has_mask"])
    Image.fromarray(np.zeros((30, 30), dtype=np.uint8)).save(dataset.path(index))  # another image now
    with pytest.raises(DataError, match="the mask is 12 x 12 pixels, its image 30 x 30"):
        dataset[index]


def test_a_missing_file_is_named_as_without_a_cache(make_folders: Folders, tmp_path: Path) -> None:
    _, cached = modules(make_folders, tmp_path / "cache")
    dataset = cached.make_dataset("train")
    assert dataset[0]["path"]
    Path(dataset.path(0)).unlink()
    with pytest.raises(DataError, match="no such file"):
        dataset[0]


def test_a_folder_that_cannot_be_written_is_named(make_folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    _, cached = modules(make_folders, tmp_path / "cache")
    with pytest.raises(DataError, match=r"cache .*cache cannot be written to: Not a directory"):
        cached.make_dataset("train")[0]


def test_the_digest_of_a_fresh_file_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, file = TensorCache(tmp_path / "cache"), tmp_path / "file"
    file.write_bytes(b"one")
    first = cache.digest(str(file))
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(cache_module, "_SETTLED", -1)
    assert cache.digest(str(file)) == first
    (memory,) = (tmp_path / "cache" / "digests").rglob("*.txt")
    state, _, _ = memory.read_text().rpartition(" ")
    memory.write_text(f"{state} {'0' * 64}")
    assert cache.digest(str(file)) == "0" * 64  # so the file was not read again
    os.utime(file, (1, 1))
    assert cache.digest(str(file)) == first


@settings(max_examples=30, deadline=None)
@given(
    data=st.data(), shape=st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9)), binary=st.booleans()
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shape: tuple[int, ...], binary: bool
) -> None:
    element = st.sampled_from([0.0, 1.0]) if binary else st.floats(0, 1, width=32)
    count = int(np.prod(shape))
    values = torch.tensor(data.draw(st.lists(element, min_size=count, max_size=count))).reshape(shape)
    cache = TensorCache(tmp_path_factory.mktemp("cache"))
    assert cache.read(("a", 1), shape) is None
    written = cache.write(("a", 1), values)
    read = cache.read(("a", 1), shape)
    assert read is not None
    assert torch.equal(read, written)
    assert torch.allclose(read, values, atol=0 if binary else 1e-5)
    assert read.dtype == torch.float32
    assert cache.read(("a", 2), shape) is None
    assert cache.read(("a", 1), (*shape, 17)) is None


def test_real_films_are_the_same_from_the_cache(cxr_root: Path, tmp_path: Path) -> None:
    options = {"image_size": 64, "require_mask": True}
    plain, cached = (
        CXRDataModule(cxr_root, cache=cache, **options).make_dataset("val")  # type: ignore[arg-type]
        for cache in (None, tmp_path / "cache")
    )
    for _ in range(2):
        for i in range(len(plain)):
            assert torch.allclose(plain[i]["image"], cached[i]["image"], atol=1e-5)
            assert torch.allclose(plain[i]["mask"], cached[i]["mask"], atol=1e-5)


def test_the_option_is_there_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--data", "MaskedImageDataModule", "--data.root", str(tmp_path / "absent")]
    assert main([*words, "--data.cache", str(tmp_path / "cache")]) == 2
    assert "no such folder" in capsys.readouterr().err
