"""The phantoms: the same films everywhere, the marker outside the lungs, the class inside them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import Counter
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from guidedattn.data.phantoms import CLASS_NAMES, PhantomDataModule, PhantomDataset
from guidedattn.data.phantoms.film import draw_phantom, phantom_label, stamp_marker
from guidedattn.errors import ConfigError

SIZE = 48


def field(dataset: PhantomDataset, name: str) -> Any:
    return [dataset[i][name] for i in range(len(dataset))]


def images(dataset: PhantomDataset) -> Tensor:
    return torch.stack(field(dataset, "image"))


def test_sample_has_the_promised_types_shapes_and_ranges() -> None:
    dataset = PhantomDataset(6, seed=1)
    for i in range(6):
        sample = dataset[i]
        image, mask = sample["image"], sample["mask"]
        assert image.shape == mask.shape == (1, 128, 128)
        assert image.dtype == mask.dtype == torch.float32
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std() > 0.1
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        assert sample["label"].dtype == torch.int64
        assert sample["label"].shape == ()
        assert sample["has_mask"] is True
        assert (sample["index"], sample["path"]) == (i, f"phantom-1-{i}")
    assert torch.equal(dataset[-1]["image"], dataset[5]["image"])
    with pytest.raises(IndexError):
        dataset[6]


def test_films_are_the_same_in_another_process_in_any_order_and_in_workers() -> None:
    arguments = (9, 5, SIZE, "matched", 0.5, 0.5)
    code = (
        "import torch; from hashlib import sha256; from guidedattn.data.phantoms import PhantomDataset\n"
        f"d = PhantomDataset(*{arguments!r})\n"
        "print(sha256(torch.stack([d[i]['image'] for i in range(9)]).numpy().tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    dataset = PhantomDataset(*arguments)  # type: ignore[arg-type]
    here = torch.stack([dataset[i]["image"] for i in reversed(range(9))][::-1])
    assert there.strip() == sha256(here.numpy().tobytes()).hexdigest()
    fresh = PhantomDataset(*arguments)  # type: ignore[arg-type]
    workers = torch.cat([batch["image"] for batch in DataLoader(fresh, batch_size=4, num_workers=2)])
    assert torch.equal(workers, here)
    assert torch.equal(images(pickle.loads(pickle.dumps(dataset))), here)


def test_films_differ_between_indices_and_seeds() -> None:
    first, second = images(PhantomDataset(6, 0, SIZE)), images(PhantomDataset(6, 1, SIZE))
    both = torch.cat([first, second]).flatten(1)
    assert (torch.cdist(both, both) + torch.eye(12) * 9).min() > 1


def test_a_larger_set_begins_with_the_smaller_one() -> None:
    assert torch.equal(images(PhantomDataset(6, 0, SIZE)), images(PhantomDataset(12, 0, SIZE))[:6])


@pytest.mark.parametrize("image_size", [32, 96, 128])
def test_marker_modes_differ_only_outside_the_lungs_and_near_a_corner(image_size: int) -> None:
    sets = {m: PhantomDataset(60, 2, image_size, m) for m in ("matched", "absent", "swapped")}  # type: ignore[arg-type]
    for name in ("label", "path"):
        assert field(sets["matched"], name) == field(sets["absent"], name) == field(sets["swapped"], name)
    mask = torch.stack(field(sets["absent"], "mask"))
    bare = images(sets["absent"])
    for mode in ("matched", "swapped"):
        changed = images(sets[mode]) != bare
        assert torch.equal(torch.stack(field(sets[mode], "mask")), mask)
        assert changed.flatten(1).any(1).all()
        assert not (changed & (mask > 0)).any()
        assert not changed[:, :, image_size // 3 :].any()
    assert not torch.equal(images(sets["matched"]), images(sets["swapped"]))


def test_markers_are_never_cut_by_a_lung() -> None:
    """The lungs stay clear of the corners by a margin, so that no marker loses a part to them."""
    for index in range(300):
        _, lungs = draw_phantom(7, index, 0, 64)
        columns = np.abs((np.arange(64) + 0.5) / 32 - 1)
        assert not lungs[: int(64 * 0.2)][:, columns > 0.55].any()


def shown_marker(dataset: PhantomDataset, index: int) -> int | None:
    """Class whose marker the pixels show, or None."""
    film, lungs = draw_phantom(dataset.seed, index, phantom_label(dataset.seed, index), dataset.image_size)
    films = {k: stamp_marker(film, lungs, k, dataset._marker(index)[1]) for k in range(3)} | {None: film}
    bytes_ = np.rint(dataset[index]["image"][0].numpy() * 255)
    (shown,) = (k for k, candidate in films.items() if np.array_equal(np.rint(candidate * 255), bytes_))
    return shown


def test_which_marker_is_shown() -> None:
    size = 240
    labels = [phantom_label(3, i) for i in range(size)]
    matched = PhantomDataset(12, 3, SIZE)
    assert [shown_marker(matched, i) for i in range(12)] == labels[:12]
    assert shown_marker(PhantomDataset(3, 3, SIZE, "absent"), 0) is None
    swapped = PhantomDataset(size, 3, SIZE, "swapped")
    pairs = Counter((labels[i], shown_marker(swapped, i)) for i in range(size))
    assert len(pairs) == 6
    assert all(label != shown and count > 25 for (label, shown), count in pairs.items())
    mixed = PhantomDataset(size, 3, SIZE, "matched", marker_probability=0.8)
    agreeing = sum(shown_marker(mixed, i) == labels[i] for i in range(size))
    assert abs(agreeing / size - 0.8) < 0.08  # three standard deviations


def test_labels_are_balanced_in_every_stretch() -> None:
    labels = [phantom_label(0, i) for i in range(300)]
    for start in range(0, 300, 3):
        assert sorted(labels[start : start + 3]) == [0, 1, 2]
    assert len({tuple(labels[i : i + 3]) for i in range(0, 300, 3)}) == 6


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.1, 4), (0.5, 20), (1.0, 40)])
def test_mask_fraction_is_exact_and_leaves_the_film_alone(fraction: float, expected: int) -> None:
    dataset, whole = (PhantomDataset(40, 0, 32, mask_fraction=f) for f in (fraction, 1.0))
    has_mask = field(dataset, "has_mask")
    assert sum(has_mask) == expected
    assert [bool(mask.any()) for mask in field(dataset, "mask")] == has_mask
    assert torch.equal(images(dataset), images(whole))


def test_lungs_are_two_dark_regions_of_plausible_size() -> None:
    dataset = PhantomDataset(60, 11, SIZE, "absent")
    for i in range(60):
        image, mask = dataset[i]["image"][0], dataset[i]["mask"][0] > 0
        assert 0.1 < mask.float().mean() < 0.5
        assert mask[:, : SIZE // 2].float().mean() > 0.07
        assert mask[:, SIZE // 2 :].float().mean() > 0.07
        body = image[SIZE // 3 : -4, 4:-4]
        assert image[mask].mean() < body[~mask[SIZE // 3 : -4, 4:-4]].mean()


@pytest.mark.parametrize("label", [1, 2])
def test_lesions_lie_inside_the_lungs_and_change_nothing_else(label: int) -> None:
    for index in range(30):
        clear, lungs = draw_phantom(4, index, 0, 64)
        ill, same_lungs = draw_phantom(4, index, label, 64)
        assert np.array_equal(lungs, same_lungs)
        change = np.abs(ill - clear)
        near = lungs.copy()  # a border pixel next to the lungs is partly lung
        for axis in (0, 1):
            near |= np.roll(near, 1, axis) | np.roll(near, -1, axis)
        assert change[~near].max() < 0.02
        assert change[lungs].max() > 0.02


def test_global_brightness_does_not_tell_the_class() -> None:
    dataset = PhantomDataset(300, 0, 32, "absent")
    label = torch.stack(field(dataset, "label"))
    mask, image = torch.stack(field(dataset, "mask")), images(dataset)
    inside = (image * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3))
    outside = (image * (1 - mask)).sum((1, 2, 3)) / (1 - mask).sum((1, 2, 3))
    for value, most in ((inside, 1.0), (outside, 0.25), (mask.mean((1, 2, 3)), 0.25)):
        means = torch.stack([value[label == k].mean() for k in range(3)])
        assert (means.max() - means.min()) / value.std() < most


def test_transform_moves_image_and_mask_alike() -> None:
    plain, flipped = (PhantomDataset(3, 0, SIZE, transform=t) for t in (None, v2.RandomHorizontalFlip(1.0)))
    for i in range(3):
        assert type(flipped[i]["image"]) is Tensor
        for name in ("image", "mask"):
            assert torch.equal(flipped[i][name], plain[i][name].flip(-1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"image_size": 8}, "image_size >= 16"),
        ({"marker": "mached"}, "did you mean matched"),
        ({"marker_probability": 1.2}, r"marker_probability must lie in \[0, 1\], got 1.2"),
        ({"mask_fraction": -0.1}, "mask_fraction"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhantomDataset(**{"size": 3, "seed": 0, **arguments})


def make_module(**arguments: Any) -> PhantomDataModule:
    return PhantomDataModule(
        **{"train_size": 12, "val_size": 6, "test_size": 6, "image_size": 32, **arguments}
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_module_serves_disjoint_splits(workers: int) -> None:
    module = make_module(batch_size=4, num_workers=workers, mask_fraction=1 / 3)
    module.setup("fit")
    module.setup("test")
    assert (module.class_names, module.num_classes, module.multi_label) == (CLASS_NAMES, 3, False)
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    batches = [list(loader) for loader in loaders]
    assert [sum(len(b["label"]) for b in split) for split in batches] == [12, 6, 6]
    assert [sum(int(b["has_mask"].sum()) for b in split) for split in batches] == [4, 6, 6]
    paths = [path for split in batches for b in split for path in b["path"]]
    assert len(set(paths)) == 24
    assert sorted(paths) == sorted(module.manifest()["path"])
    assert batches[0][0]["image"].shape == (4, 1, 32, 32)


def test_no_seed_shares_films_with_another() -> None:
    modules = [make_module(seed=seed) for seed in range(4)]
    streams = [module.split_seed(split) for module in modules for split in ("train", "val", "test")]
    assert len(set(streams)) == 12


def test_module_markers() -> None:
    assert all(make_module().make_dataset(s).marker == "absent" for s in ("train", "val", "test"))
    module = make_module(marker="matched", marker_probability=0.5, test_marker="swapped")
    assert [module.make_dataset(s).marker for s in ("train", "val", "test")] == [
        "matched",
        "matched",
        "swapped",
    ]
    absent, matched = module.make_dataset("test", "absent"), module.make_dataset("test", "matched")
    assert absent is module.make_dataset("test", "absent")
    assert [shown_marker(matched, i) for i in range(6)] == [int(label) for label in field(matched, "label")]


def test_module_augments_training_images_alone() -> None:
    flip = v2.RandomHorizontalFlip(1.0)
    module, plain = make_module(augment=flip), make_module()
    assert torch.equal(images(module.make_dataset("train")), images(plain.make_dataset("train")).flip(-1))
    assert torch.equal(images(module.make_dataset("val")), images(plain.make_dataset("val")))


def test_module_refuses_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="val_size"):
        make_module(val_size=0)
    with pytest.raises(ConfigError, match="test_marker"):
        make_module(test_marker="no")
