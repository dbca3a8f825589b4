"""Copies of films: what is found among generated and real ones."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from guidedattn.cli import main
from guidedattn.data.duplicates import Film, Pair, find_pairs, group_names, read_film
from guidedattn.data.patients import union_find
from guidedattn.errors import DataError

SIZE = (300, 260)


def film(seed: int) -> Image.Image:
    """Smooth noise: as different from another seed's as two photographs."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    return Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(3))


def films_of(folder: Path, **images: Image.Image) -> dict[str, Film]:
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, image in images.items():
        image.save(folder / f"{name}.png")
        result = read_film(folder / f"{name}.png")
        assert isinstance(result, Film)
        found[name] = result
    return found


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "smaller": (lambda image: image.resize((120, 100)), "near"),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.2), "near"),
    "without margins": (lambda image: image.crop((30, 20, 290, 250)), "near"),
    "mirrored": (ImageOps.mirror, "mirrored"),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_changed_copy_is_found_among_other_films(tmp_path: Path, copy: str) -> None:
    change, kind = COPIES[copy]
    films = films_of(tmp_path, a=film(0), b=film(1), c=change(film(0)), d=film(2))
    pairs = find_pairs(list(films.values()))
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [(0, 2, kind)]


def test_the_same_bytes_are_exact_and_crops_can_be_left_out(tmp_path: Path) -> None:
    cut = film(0).crop((36, 31, 300, 260))
    films = list(films_of(tmp_path, a=film(0), b=film(0), c=cut).values())
    assert [(p.first, p.second, p.kind) for p in find_pairs(films)] == [
        (0, 1, "exact"), (0, 2, "near"), (1, 2, "near")
    ]  # fmt: skip
    assert [(p.first, p.second) for p in find_pairs(films, crops=False)] == [(0, 1)]


def test_distances_equal_those_of_imagehash(tmp_path: Path) -> None:
    imagehash = pytest.importorskip("imagehash")
    images = [film(seed).resize((256, 256)) for seed in range(3)]
    films = list(films_of(tmp_path, **{str(i): image for i, image in enumerate(images)}).values())
    hashes = [imagehash.phash(image, hash_size=16) for image in images]
    pairs = find_pairs(films, threshold=256, crops=False)
    assert len(pairs) == 3
    for pair in pairs:
        mirrored = [imagehash.phash(ImageOps.mirror(image), hash_size=16) for image in images]
        first, second = pair.first, pair.second
        expected = [
            hashes[first] - hashes[second],
            hashes[first] - mirrored[second],
            mirrored[first] - hashes[second],
        ]
        assert pair.distance == min(expected)


def test_groups_join_chains_and_bear_the_same_name_in_any_order(tmp_path: Path) -> None:
    films = list(films_of(tmp_path, **{name: film(i) for i, name in enumerate("abcde")}).values())
    chain = [Pair(0, 1, "near", 4), Pair(1, 3, "near", 8)]
    names = group_names(films, chain)
    assert names[0] == names[1] == names[3] != ""
    assert names[2] == names[4] == ""
    reverse = [Pair(3, 4, "near", 4), Pair(1, 3, "near", 8)]  # the same films, the other way round
    assert group_names(films[::-1], reverse)[4] == names[0]


def test_the_command_writes_groups_beside_a_manifest_and_names_bad_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films_of(tmp_path / "images", a=film(0), b=film(1), c=film(0).resize((200, 200)))
    (tmp_path / "images" / "broken.png").write_text("no image")
    (tmp_path / "list.csv").write_text("path,label\nimages/a.png,x\nimages/b.png,x\nimages/c.png,x\n")
    output = tmp_path / "out" / "groups.csv"
    words = ["data", "duplicates", "--output", str(output), "--pairs", str(tmp_path / "pairs.csv")]
    assert main([*words, "--manifest", str(tmp_path / "list.csv")]) == 0
    rows = list(csv.DictReader(output.open()))
    assert [row["path"] for row in rows] == ["../images/a.png", "../images/c.png"]
    assert rows[0]["group"] == rows[1]["group"] != ""
    (pair,) = csv.DictReader((tmp_path / "pairs.csv").open())
    assert (pair["path_a"], pair["path_b"], pair["kind"]) == ("images/a.png", "images/c.png", "near")
    capsys.readouterr()
    assert main([*words, "--root", str(tmp_path), "--exclude", '["*/b.png"]']) == 1
    printed = capsys.readouterr()
    assert "2 images, 1 pairs (0 exact, 1 near, 0 mirrored)" in printed.out
    assert "broken.png: not an image" in printed.err
    assert main([*words, "--root", str(tmp_path), "--manifest", "x.csv"]) == 2


def test_a_bad_file_is_returned_as_an_error(tmp_path: Path) -> None:
    assert isinstance(read_film(tmp_path / "absent.png"), DataError)


def listed(cxr_root: Path) -> dict[tuple[str, str], str]:
    with (cxr_root.parent / "duplicates.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(min(r["path_a"], r["path_b"]), max(r["path_a"], r["path_b"])): r["kind"] for r in rows}


def held_out(pairs: dict[tuple[str, str], str]) -> set[str]:
    """The images of that half of the groups on which the threshold was not tuned."""
    paths = sorted({path for pair in pairs for path in pair})
    ties = {path: [path] for path in paths}
    for first, second in pairs:
        ties[second].append(first)
    least: dict[int, str] = {}
    roots = union_find(list(ties.values()))
    for path, root in zip(paths, roots, strict=True):
        least.setdefault(root, path)
    parity = {root: int(hashlib.sha256(path.encode()).hexdigest(), 16) % 2 for root, path in least.items()}
    return {path for path, root in zip(paths, roots, strict=True) if parity[root] == 1}


@pytest.mark.slow  # hashes 1,569 films
def test_precision_and_recall_on_real_films_held_out(cxr_root: Path) -> None:
    root = cxr_root.parent
    truth = listed(cxr_root)
    half = held_out(truth)
    other_half = {path for pair in truth for path in pair} - half
    names = [
        path.relative_to(root).as_posix()
        for folder in (cxr_root, root / "masks" / "generalblockchain" / "images")
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and "annotations" not in path.parts
    ]
    names = [name for name in names if name not in other_half]
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        films = list(pool.map(read_film, [root / name for name in names], chunksize=20))
    assert all(isinstance(film, Film) for film in films)
    found = {
        (min(names[p.first], names[p.second]), max(names[p.first], names[p.second]))
        for p in find_pairs([film for film in films if isinstance(film, Film)])
    }
    wanted = {pair: kind for pair, kind in truth.items() if pair[0] in half}
    same = {pair for pair, kind in wanted.items() if kind != "related"}
    recall, precision = len(found & same) / len(same), len(found & wanted.keys()) / len(found)
    print(f"recall {len(found & same)}/{len(same)} = {recall:.3f}, precision {precision:.3f} of {len(found)}")
    assert {pair for pair, kind in wanted.items() if kind == "exact"} <= found
    assert recall > 0.88
    assert precision > 0.93
