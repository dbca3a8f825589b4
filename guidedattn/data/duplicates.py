"""Exact and near duplicates among images, by perceptual hashes; the one module that imports imagehash.

Two films are compared by the 256-bit perceptual hash (DCT of 64 x 64 pixels, `imagehash.phash`) of the one
and of 81 crops of the other: public collections copy from each other with margins cut off. A mirrored copy
is looked for too. See docs/duplicates.md for how the threshold was chosen and what it finds.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guidedattn.data.images import MAX_PIXELS, as_picture, read_image, squash
from guidedattn.data.patients import union_find
from guidedattn.errors import ConfigError, DataError
from guidedattn.files import sha256

THRESHOLD = 50
"""Bits of 256 in which two films of one exposure may differ."""

MARGINS = (0.0, 0.06, 0.12)
"""Shares of width or height that a copy may lack, at each of its four sides."""

_SIDE = 256
_BLOCK = 4096

Prints = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Film:
    """What is compared of an image.

    Attributes:
        path: The file.
        digest: SHA-256 of its contents.
        prints: `[V, 4]` hashes of 256 bits: of the whole image, of its crops, and last of its mirror image.
    """

    path: str
    digest: str
    prints: Prints


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of one film.

    Attributes:
        first: Position of one in the sequence of films.
        second: Position of the other, greater than `first`.
        kind: `exact` for the same bytes, `near`, or `mirrored`.
        distance: Bits in which the best pair of hashes differs.
    """

    first: int
    second: int
    kind: str
    distance: int


def read_film(path: str | Path, bits: int = 16, max_pixels: int = MAX_PIXELS) -> Film | DataError:
    """Read a file and hash it; the error is returned, not raised, so that one bad file ends no search.

    Raises:
        ConfigError: The package ImageHash is missing.
    """
    try:
        pixels = squash(read_image(path, 1, bits, max_pixels), _SIDE)[0].numpy()
        return Film(str(path), sha256(path), _prints(np.rint(pixels * 255).astype(np.uint8)))
    except DataError as error:
        return error


def _prints(pixels: npt.NDArray[np.uint8]) -> Prints:
    phash = _phash()
    views = [_cropped(pixels, margins) for margins in itertools.product(MARGINS, repeat=4)]
    mirrored = pixels[:, ::-1]
    hashes = [phash(as_picture(view), hash_size=16).hash.ravel() for view in (*views, mirrored)]
    return np.packbits(hashes, axis=1).view(np.uint64)


def _phash() -> Callable[..., Any]:
    try:
        from imagehash import phash
    except ImportError:
        raise ConfigError(
            "near duplicates need the package ImageHash: pip install 'guidedattn[duplicates]'"
        ) from None
    hasher: Callable[..., Any] = phash
    return hasher


def _cropped(pixels: npt.NDArray[np.uint8], margins: tuple[float, ...]) -> npt.NDArray[np.uint8]:
    left, top, right, bottom = (round(_SIDE * margin) for margin in margins)
    return pixels[top : _SIDE - bottom, left : _SIDE - right]


def find_pairs(
    films: Sequence[Film],
    threshold: int = THRESHOLD,
    crops: bool = True,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda steps, total: steps,  # noqa: ARG005
) -> list[Pair]:
    """Compare every film with every other, on all cores; about 5 ns per pair of hashes and core.

    Args:
        films: What `read_film` gave.
        threshold: Bits of 256 that may differ.
        crops: Whether to look for cropped copies, which takes 81 times as long.
        track: Called with the steps and their number, to show progress.

    Returns:
        The pairs, sorted by position.
    """
    if not films:
        return []
    whole = np.stack([film.prints[0] for film in films])
    columns = np.ascontiguousarray(whole.T)
    last = films[0].prints.shape[0] - 1
    chosen = range(last + 1) if crops else (0, last)

    def compare(row: int) -> dict[int, tuple[int, bool]]:
        return _neighbours(films[row].prints[list(chosen)], columns, threshold)

    best: dict[tuple[int, int], tuple[int, bool]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # NumPy lets go of the interpreter while it compares
        for row, found in enumerate(track(pool.map(compare, range(len(films))), len(films))):
            for other, match in found.items():
                if other != row:
                    key = (min(row, other), max(row, other))
                    best[key] = min(match, best.get(key, match))
    pairs = {key: Pair(*key, "mirrored" if mirrored else "near", d) for key, (d, mirrored) in best.items()}
    for key in _same_bytes(films):
        pairs[key] = Pair(*key, "exact", 0)
    return [pairs[key] for key in sorted(pairs)]


def _neighbours(prints: Prints, columns: Prints, threshold: int) -> dict[int, tuple[int, bool]]:
    """For each film within the threshold of one of `prints` `[V, 4]`, the distance and whether mirrored."""
    found: dict[int, tuple[int, bool]] = {}
    for start in range(0, columns.shape[1], _BLOCK):  # blocks that stay in the cache of a core
        block = columns[:, start : start + _BLOCK]
        distance = np.zeros((len(prints), block.shape[1]), np.uint16)
        for word in range(4):
            distance += np.bitwise_count(prints[:, word, None] ^ block[word])
        for view, column in zip(*np.nonzero(distance <= threshold), strict=True):
            match = (int(distance[view, column]), bool(view == len(prints) - 1))
            film = start + int(column)
            found[film] = min(match, found.get(film, match))
    return found


def _same_bytes(films: Sequence[Film]) -> Iterator[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for place, film in enumerate(films):
        places.setdefault(film.digest, []).append(place)
    for same in places.values():
        yield from itertools.combinations(same, 2)


def group_names(films: Sequence[Film], pairs: Sequence[Pair]) -> list[str]:
    """Return for each film the name of its group, empty if it has no duplicate.

    Pairs are joined transitively, so that a film and all its copies bear one name. The name is made from
    the contents of the group's files: it depends neither on their order nor on where they lie.
    """
    ties: list[list[str]] = [[str(place)] for place in range(len(films))]
    for pair in pairs:
        ties[pair.second].append(str(pair.first))
    roots = union_find(ties)
    least: dict[int, str] = {}
    for root, film in zip(roots, films, strict=True):
        least[root] = min(film.digest, least.get(root, film.digest))
    paired = {place for pair in pairs for place in (pair.first, pair.second)}
    return [f"film-{least[root][:16]}" if place in paired else "" for place, root in enumerate(roots)]
