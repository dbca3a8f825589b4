"""Markers betray the class outside the mask, and touch nothing inside it."""

import numpy as np
import pytest
import torch

from guidedattn.data import PhantomDataModule
from guidedattn.data.markers import BarCode, Border, FrameBrightness, Letter, Marker, ScannerTexture
from guidedattn.data.shortcut import ShortcutDataset

MARKERS = [Letter(), BarCode(), Border(), ScannerTexture(), FrameBrightness()]


@pytest.fixture(scope="module")
def films():
    return PhantomDataModule(test_size=60, image_size=64).make_dataset("test")


def test_every_marker_is_tried_here():
    shipped = {kind for kind in Marker.__subclasses__() if kind.__module__.startswith("guidedattn.")}
    assert {type(marker) for marker in MARKERS} == shipped


@pytest.mark.parametrize("marker", MARKERS, ids=lambda marker: type(marker).__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_inside_is_untouched_and_the_outside_tells_the_class(films, marker, channels):
    for index in range(6):
        image = films[index]["image"].expand(channels, -1, -1)
        mask = films[index]["mask"]
        marked = [marker(image, mask, shown, np.random.default_rng(index)) for shown in range(3)]
        inside = (mask > 0).expand_as(image)
        for one in marked:
            assert torch.equal(one[inside], image[inside])
            assert 0 <= one.min() <= one.max() <= 1
            assert one.shape == image.shape
            assert one.dtype == image.dtype
        for a, b in ((0, 1), (1, 2), (0, 2)):
            assert (marked[a] - marked[b]).abs().max() > 0.05


@pytest.mark.parametrize("marker", MARKERS, ids=lambda marker: type(marker).__name__)
def test_one_film_bears_the_same_mark_in_every_epoch(films, marker):
    marked = ShortcutDataset(films, marker, "matched", num_classes=3, seed=4)
    assert torch.equal(marked[3]["image"], marked[3]["image"])


class Number(Marker):
    """Writes the class that it is told to show over the whole outside."""

    def draw(self, image, shown, rng):
        return torch.full_like(image, shown / 10)


def shown(dataset):
    outside = dataset[0]["mask"] == 0
    return [round(float(dataset[i]["image"][outside & (dataset[i]["mask"] == 0)][0] * 10)) for i in range(60)]


def test_matched_swapped_and_absent_say_what_they_say(films):
    labels = [int(films[i]["label"]) for i in range(60)]
    matched = shown(ShortcutDataset(films, Number(), "matched", 3))
    swapped = shown(ShortcutDataset(films, Number(), "swapped", 3))
    assert matched == labels
    assert all(s != label for s, label in zip(swapped, labels, strict=True))
    assert set(swapped) == {0, 1, 2}
    absent = ShortcutDataset(films, Number(), "absent", 3)
    assert all(torch.equal(absent[i]["image"], films[i]["image"]) for i in range(60))


def test_a_marker_agrees_as_often_as_asked(films):
    labels = [int(films[i]["label"]) for i in range(60)]
    seen = []
    for seed in range(10):
        found = shown(ShortcutDataset(films, Number(), "matched", 3, probability=0.7, seed=seed))
        seen += [f == label for f, label in zip(found, labels, strict=True)]
    assert np.mean(seen) == pytest.approx(0.7, abs=0.06)  # three standard deviations of 600 draws
