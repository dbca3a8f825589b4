from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torchvision.transforms.v2 import functional as tvf

from guidedattn.data import read_image, read_mask
from guidedattn.data.images import squash


@settings(deadline=None, max_examples=30)
@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
    )
)
def test_png_greys_of_both_depths_are_exact(array: np.ndarray, tmp_path_factory: object) -> None:
    path = tmp_path_factory.getbasetemp() / "greys.png"  # type: ignore[attr-defined]
    Image.fromarray(array).save(path)
    image = read_image(path)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image[0], array / np.iinfo(array.dtype).max, atol=1e-7)


def test_three_channels_repeat_grey_and_keep_colour(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 3), 51, np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png", channels=3).tolist() == torch.full((3, 2, 3), 0.2).tolist()
    Image.new("RGB", (3, 2), (255, 0, 51)).save(tmp_path / "colour.png")
    image = read_image(tmp_path / "colour.png", channels=3)
    assert image.shape == (3, 2, 3)
    assert image[:, 0, 0].tolist() == torch.tensor([1, 0, 0.2]).tolist()


def test_masks_are_cut_at_half_of_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 127, 128, 254, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (1, 6)).tolist() == [[[0, 0, 0, 1, 1, 1]]]
    Image.fromarray(np.array([[0, 1]], np.uint8)).save(tmp_path / "01.png")
    assert read_mask(tmp_path / "01.png").tolist() == [[[0, 1]]]
    Image.new("1", (2, 1), 1).save(tmp_path / "1bit.png")
    assert read_mask(tmp_path / "1bit.png").tolist() == [[[1, 1]]]


def test_squash_equals_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for shape in [(1, 30, 41), (3, 10, 9), (1, 64, 20)]:
        image = torch.rand(shape)
        torch.testing.assert_close(
            squash(image, 24), tvf.resize(image, [24, 24], antialias=True), atol=1e-4, rtol=0
        )
