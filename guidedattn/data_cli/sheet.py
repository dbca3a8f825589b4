"""`guidedattn data sheet`: films of a manifest on one page, with the outlines of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from guidedattn.cli_errors import ShortParser
from guidedattn.data import Manifest, MaskedImageDataset
from guidedattn.errors import ConfigError, DataError
from guidedattn.figures import save_sheet


def run(words: Sequence[str]) -> None:
    """Draw the sheet.

    Raises:
        ConfigError: The output is no picture.
        DataError: The manifest cannot be read, or lists no image of the kind asked for.
    """
    parser = ShortParser(prog="guidedattn data sheet", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="the films")
    parser.add_argument("--output", type=Path, default="sheet.png", help="the PNG, SVG or PDF to write")
    parser.add_argument("--label", type=str | None, help="films of this class only")
    parser.add_argument("--columns", type=int, default=5)
    parser.add_argument("--rows", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="which films")
    parser.add_argument("--image_size", type=int, default=256, help="side of each film in pixels")
    options = parser.parse_args(list(words[1:]))
    if options.output.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--output {options.output}: a sheet is a .png, .svg or .pdf")
    records = list(Manifest.read(options.manifest).records())
    records = [record for record in records if options.label in (None, *record.labels)]
    if not records:
        raise DataError(f"{options.manifest}: no film of class {options.label!r}")
    number = min(options.rows * options.columns, len(records))
    chosen = np.random.default_rng(options.seed).choice(len(records), number, replace=False)
    films = [records[i] for i in sorted(chosen)]
    names = sorted({label for film in films for label in film.labels})
    dataset = MaskedImageDataset(films, names, options.image_size, multi_label=True, scale_masks=True)
    samples = [dataset[i] for i in range(len(films))]
    blank = torch.ones(1, options.image_size, options.image_size)
    cells = [(sample["image"], None, sample["mask"]) for sample in samples]
    titles = [f"{film.source} {film.label}" for film in films]
    cells += [(blank, None, None)] * (-number % options.columns)
    titles += [""] * (-number % options.columns)
    starts = range(0, len(cells), options.columns)
    save_sheet(
        options.output,
        [cells[i : i + options.columns] for i in starts],
        [""] * options.columns,
        [""] * len(starts),
        [titles[i : i + options.columns] for i in starts],
    )
