"""`guidedattn data duplicates`: which images show one film, so that no split tears them apart."""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track

from guidedattn.cli_errors import ShortParser
from guidedattn.data.duplicates import THRESHOLD, Film, Pair, find_pairs, group_names, read_film
from guidedattn.data.images import MAX_PIXELS
from guidedattn.data.sources import ManifestSource
from guidedattn.data.sources.base import require_folder
from guidedattn.data.sources.folders import image_files
from guidedattn.errors import ConfigError, DataError
from guidedattn.files import whole_file


def run(words: Sequence[str]) -> int:
    """Compare the images and write the groups; 1 if a file could not be read.

    Raises:
        ConfigError: Not exactly one of `--root` and `--manifest`.
        DataError: There is no image to compare.
    """
    options = _parser().parse_args(list(words[1:]))
    paths = _paths(options.root, options.manifest, options.exclude)
    films, errors = _read(paths, options.bits, options.max_pixels)
    pairs = find_pairs(films, options.threshold, options.crops, partial(_shown, "comparing"))
    names = group_names(films, pairs)
    _write_groups(options.output, films, names)
    if options.pairs is not None:
        _write_pairs(options.pairs, films, pairs)
    kinds = Counter(pair.kind for pair in pairs)
    counted = ", ".join(f"{kinds[kind]} {kind}" for kind in ("exact", "near", "mirrored"))
    groups = {name for name in names if name}
    print(f"{len(films)} images, {len(pairs)} pairs ({counted})")  # noqa: T201
    print(f"{sum(map(bool, names))} images in {len(groups)} groups: {options.output}")  # noqa: T201
    for error in errors:
        print(f"not compared: {error}", file=sys.stderr)  # noqa: T201
    return 1 if errors else 0


def _parser() -> ShortParser:
    parser = ShortParser(prog="guidedattn data duplicates", description=__doc__)
    parser.add_argument("--root", type=Path | None, help="compare all images below this folder")
    parser.add_argument("--manifest", type=Path | None, help="compare the images of this manifest")
    parser.add_argument(
        "--exclude", type=list[str], default=[], help="glob patterns below root, as '*/masks/*'"
    )
    parser.add_argument("--output", type=Path, default="duplicates.csv", help="CSV of path and group")
    parser.add_argument("--pairs", type=Path | None, help="CSV of the pairs: path_a, path_b, kind, distance")
    parser.add_argument("--threshold", type=int, default=THRESHOLD, help="bits of 256 that may differ")
    parser.add_argument("--crops", type=bool, default=True, help="find cropped copies, 81 times slower")
    parser.add_argument("--bits", type=int, default=16, help="significant bits of 16-bit files")
    parser.add_argument("--max_pixels", type=int, default=MAX_PIXELS)
    return parser


def _paths(root: Path | None, manifest: Path | None, exclude: Sequence[str]) -> list[Path]:
    if (root is None) == (manifest is None):
        raise ConfigError("give either --root (a folder) or --manifest (a CSV table)")
    if root is None:
        assert manifest is not None
        listed = dict.fromkeys(record.path for record in ManifestSource(manifest).records())
        paths = [path for path in listed if isinstance(path, Path)]
        if len(paths) < len(listed):
            raise DataError(f"{manifest}: copies are found among local files, but it names URLs")
    else:
        paths = [
            path
            for path in image_files(require_folder(root))
            if not any(fnmatchcase(path.relative_to(root).as_posix(), pattern) for pattern in exclude)
        ]
    if not paths:
        raise DataError(f"{root or manifest}: no image to compare")
    return paths


def _read(paths: Sequence[Path], bits: int, max_pixels: int) -> tuple[list[Film], list[DataError]]:
    read = partial(read_film, bits=bits, max_pixels=max_pixels)
    films: list[Film] = []
    errors: list[DataError] = []
    with ProcessPoolExecutor() as pool:
        for result in _shown("hashing", pool.map(read, paths, chunksize=8), len(paths)):
            (errors if isinstance(result, DataError) else films).append(result)
    return films, errors


def _shown(what: str, steps: Iterable[Any], total: int) -> Iterable[Any]:
    return track(steps, total=total, description=what, transient=True)


def _write_groups(output: Path, films: Sequence[Film], names: Sequence[str]) -> None:
    with whole_file(output) as file:
        writer = csv.writer(file)
        writer.writerow(["path", "group"])
        grouped = [(name, _relative(film, output)) for film, name in zip(films, names, strict=True) if name]
        writer.writerows((path, name) for name, path in sorted(grouped))


def _write_pairs(output: Path, films: Sequence[Film], pairs: Sequence[Pair]) -> None:
    with whole_file(output) as file:
        writer = csv.writer(file)
        writer.writerow(["path_a", "path_b", "kind", "distance"])
        for pair in pairs:
            first, second = (_relative(films[place], output) for place in (pair.first, pair.second))
            writer.writerow([first, second, pair.kind, pair.distance])


def _relative(film: Film, output: Path) -> str:
    return Path(os.path.relpath(film.path, output.parent)).as_posix()
