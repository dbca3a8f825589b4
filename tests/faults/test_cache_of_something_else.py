"""A cache made from other contents, weights, size or code is detected by digest and rebuilt, never used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from guidedattn.data import MaskedImageDataModule, StoredMasks, TensorCache
from guidedattn.data import cache as cache_module
from guidedattn.mask_cache import fill, provider_digest
from guidedattn.masks import UNetMask
from tests.model.test_mask_cache import Bright


def picture(path: Path, grey: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20), grey, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        for i in range(8):
            picture(tmp_path / "images" / name / f"{i}.png", 100)
    return tmp_path / "images"


def images_of(root: Path, cache: Path, **options: Any) -> Tensor:
    data = MaskedImageDataModule(root=root, cache=cache, **{"image_size": 8, **options})
    return torch.cat([batch["image"] for batch in data.val_dataloader()])


def settle(root: Path) -> None:
    """Make the files old enough for their digests to be remembered."""
    for path in root.rglob("*.png"):
        os.utime(path, (1e9, 1e9))


def overwrite(path: Path, grey: int) -> None:
    """Write another picture of the same size in bytes, and set the time back."""
    before = path.stat()
    picture(path, grey)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_an_image_that_changed_is_read_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_SETTLED", -1)  # remember digests at once
    settle(root)
    first = images_of(root, tmp_path / "cache")
    assert torch.allclose(first, torch.tensor(100 / 255), atol=1e-5)
    for path in root.rglob("*.png"):
        overwrite(path, 200)
    second = images_of(root, tmp_path / "cache")
    assert torch.allclose(second, torch.tensor(200 / 255), atol=1e-5)


def test_another_size_and_other_channels_are_other_entries(root: Path, tmp_path: Path) -> None:
    images_of(root, tmp_path / "cache")
    assert images_of(root, tmp_path / "cache", image_size=4).shape == (2, 1, 4, 4)
    assert images_of(root, tmp_path / "cache", channels=3).shape == (2, 3, 8, 8)


def test_another_version_of_the_code_reads_the_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images_of(root, tmp_path / "cache")
    count = len(list((tmp_path / "cache" / "entries").rglob("*.npy")))
    monkeypatch.setattr(cache_module, "VERSION", -1)
    images_of(root, tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "entries").rglob("*.npy"))) == 2 * count


@pytest.mark.parametrize("damage", [b"", b"half an entry", b"\x93NUMPY\x01\x00"])
def test_a_damaged_entry_is_replaced(root: Path, tmp_path: Path, damage: bytes) -> None:
    first = images_of(root, tmp_path / "cache")
    entries = list((tmp_path / "cache" / "entries").rglob("*.npy"))
    whole = [entry.read_bytes() for entry in entries]
    for entry in entries:
        entry.write_bytes(damage)
    assert torch.equal(images_of(root, tmp_path / "cache"), first)
    assert [entry.read_bytes() for entry in entries] == whole


def filled(root: Path, cache: Path, provider: Bright, size: int = 8) -> tuple[int, StoredMasks]:
    """Fill the cache for the validation images; how many the provider had to see."""
    before = provider.seen
    dataset = MaskedImageDataModule(root=root, image_size=size).make_dataset("val")
    stored = fill(TensorCache(cache), provider, dataset)
    return provider.seen - before, stored


def test_masks_are_computed_anew_for_other_weights_settings_sizes_and_contents(
    root: Path, tmp_path: Path
) -> None:
    provider, cache = Bright(0.3), tmp_path / "cache"
    assert [filled(root, cache, provider)[0] for _ in range(2)] == [2, 0]
    with torch.no_grad():
        provider.blur.weight.mul_(0.5)
    assert [filled(root, cache, provider)[0] for _ in range(2)] == [2, 0]
    assert filled(root, cache, Bright(0.2))[0] == 2
    assert filled(root, cache, provider, size=12)[0] == 2
    for path in root.rglob("*.png"):
        picture(path, 120)
    seen, stored = filled(root, cache, provider)
    assert seen == 2
    dataset = MaskedImageDataModule(root=root, image_size=8).make_dataset("val")
    expected, _ = provider(dataset[0]["image"][None], {})
    assert torch.equal(stored.read(dataset, 0), expected[0])


def test_a_damaged_mask_is_computed_anew(root: Path, tmp_path: Path) -> None:
    cache, provider = tmp_path / "cache", Bright(0.3)
    filled(root, cache, provider)
    for entry in (cache / "entries").rglob("*.npy"):
        entry.write_bytes(b"half")
    assert filled(root, cache, provider)[0] == 2
    assert filled(root, cache, provider)[0] == 0


def test_the_digest_of_a_unet_follows_weights_and_clean_up_but_not_the_object() -> None:
    torch.manual_seed(0)
    unet = UNetMask(encoder="mobilenet_v2", image_size=32)
    digest = provider_digest(unet)
    twin = UNetMask(encoder="mobilenet_v2", image_size=32)
    assert provider_digest(twin) != digest
    twin.load_state_dict(unet.state_dict())
    assert provider_digest(twin) == digest
    soft = UNetMask(encoder="mobilenet_v2", image_size=32, threshold=0.0)
    soft.load_state_dict(unet.state_dict())
    assert provider_digest(soft) != digest
