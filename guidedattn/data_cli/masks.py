"""`guidedattn data masks`: the masks of a provider as PNG files, and a manifest that names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jsonargparse import Namespace
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from guidedattn.cli_errors import ShortParser
from guidedattn.data.dataset import SampleError
from guidedattn.data.images import MAX_PIXELS, read_image, squash, write_mask
from guidedattn.data.manifest import Manifest, relative
from guidedattn.data.paths import AnyPath
from guidedattn.data.sources import ManifestSource
from guidedattn.data.tables import read_table
from guidedattn.errors import ConfigError, DataError, GuidedAttnError
from guidedattn.masks import MaskProvider

Item = tuple[int, Tensor, tuple[int, int]]


def run(words: Sequence[str]) -> None:
    """Write a mask per image, and a manifest like the given one with these masks.

    Raises:
        ConfigError: The folder holds masks already, or the provider cannot be built.
        DataError: The manifest or an image cannot be read.
        MaskError: The provider gave an unusable mask.
    """
    options, provider = _parse(words)
    manifest = options.output / "manifest.csv"
    if manifest.exists() and not options.overwrite:
        raise ConfigError(f"{manifest} exists: choose another --output, or say --overwrite true")
    paths = [record.path for record in ManifestSource(options.manifest).records()]
    images = _Images(paths, options.image_size, options.bits, options.max_pixels)
    loader = DataLoader(
        images, batch_size=options.batch_size, num_workers=options.num_workers, collate_fn=list
    )
    names = [""] * len(paths)
    for items in track(loader, description="masks", transient=True):
        for index, mask, size in _masks(provider, items, paths):
            names[index] = f"masks/{index:06}-{paths[index].stem}.png"
            write_mask(options.output / names[index], mask, size)
    table = read_table(options.manifest, "path")  # whatever else it says stays
    table["path"] = [relative(path, options.output) for path in paths]
    table["mask"] = names
    Manifest(table, options.output).write(manifest)
    without = names.count("")
    print(f"{len(names) - without} masks, {without} images without one: {manifest}")  # noqa: T201


def _parse(words: Sequence[str]) -> tuple[Namespace, MaskProvider]:
    parser = ShortParser(prog="guidedattn data masks", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="the images")
    parser.add_argument("--output", type=Path, required=True, help="folder for the masks and manifest.csv")
    parser.add_subclass_arguments(MaskProvider, "provider", required=True)
    parser.add_argument("--image_size", type=int, default=256, help="side of the images that it sees")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--num_workers", type=int, default=0, help="processes that read images")
    parser.add_argument("--overwrite", type=bool, default=False)
    parser.add_argument("--bits", type=int, default=16, help="significant bits of 16-bit files")
    parser.add_argument("--max_pixels", type=int, default=MAX_PIXELS)
    options = parser.parse_args(list(words[1:]))
    try:
        provider: MaskProvider = parser.instantiate(options).provider
    except ValueError as error:  # jsonargparse wraps ours
        raise error.__cause__ if isinstance(error.__cause__, GuidedAttnError) else error from None
    if not provider.from_image_alone:
        raise ConfigError(f"{type(provider).__name__} does not make its masks from the image alone")
    return options, provider


class _Images(Dataset[Item]):
    """Images `[1, S, S]` with their position and their size in the file."""

    def __init__(self, paths: Sequence[AnyPath], image_size: int, bits: int, max_pixels: int) -> None:
        self.paths, self.image_size, self.bits, self.max_pixels = paths, image_size, bits, max_pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Item:
        try:
            image = read_image(self.paths[index], 1, self.bits, self.max_pixels)
        except DataError as error:
            raise SampleError(str(error)) from None
        height, width = image.shape[-2:]
        return index, squash(image, self.image_size), (height, width)


def _masks(provider: MaskProvider, items: Sequence[Item], paths: Sequence[AnyPath]) -> Iterator[Item]:
    """Give the masks `[1, S, S]` of the images that have one."""
    indices, images, sizes = zip(*items, strict=True)
    batch = {"image": torch.stack(images), "path": [str(paths[index]) for index in indices]}
    masks, has_mask = provider(batch["image"], batch)
    for index, mask, size, has in zip(indices, masks, sizes, has_mask.tolist(), strict=True):
        if has:
            yield index, mask, size
