from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cxr_root() -> Path:
    """The real collections, which are never part of the project."""
    data = Path(os.environ.get("GUIDEDATTN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (data / "cxr").is_dir():
        pytest.skip(f"no real X-rays in {data}; set GUIDEDATTN_DATA to their folder")
    return data / "cxr"


@pytest.fixture
def make_folders(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes `count` images into each class folder, and half of them with masks."""

    def make(classes: Sequence[str] = ("cat", "dog"), count: int = 10, size: int = 12) -> Path:
        rng = np.random.default_rng(0)
        for name in classes:
            for i in range(count):
                image = tmp_path / "images" / name / f"{i:03}.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8)).save(image)
                if i % 2 == 0:
                    mask = tmp_path / "masks" / name / f"{i:03}_mask.png"
                    mask.parent.mkdir(parents=True, exist_ok=True)
                    inside = np.zeros((size, size), dtype=np.uint8)
                    inside[: size // 2] = 255
                    Image.fromarray(inside).save(mask)
        return tmp_path / "images"

    return make
