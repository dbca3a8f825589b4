"""Masks that a provider computes once per image, and that are read, not computed, ever after."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from guidedattn.component import describe
from guidedattn.data import ImageDataModule, ImageDataset, StoredMasks, TensorCache
from guidedattn.errors import ConfigError
from guidedattn.masks import MaskProvider

Item = tuple[tuple[Any, ...], Tensor, str]


class MaskCache(pl.Callback):
    """Computes each image's mask once with the model's own mask provider, before a loader is first used.

    From then on the workers of the data module read the masks, and augmentation moves image and mask as
    one; the provider does not run in a step. An entry belongs to the image's contents and size and to the
    provider's settings, weights and code: where one of them changes, the mask is computed anew. Several
    processes share the work and the folder.

    The provider sees each image as it is before augmentation. Without augmentation a mask equals the one
    that it would give in the step (one that is not zeros and ones to within 1e-5).

    Args:
        folder: Where the masks are kept, for any number of runs, providers and data modules; several
            machines must see one and the same.

    Raises:
        ConfigError: At the start of a run: the model has no mask provider, or one whose masks depend on
            more than the image; or the data module is none of the library's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.cache = TensorCache(folder)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Have the data module ask for masks whenever it makes a loader.

        By then the weights of a checkpoint are in place, and the provider is on its device.
        """
        provider, data = getattr(pl_module, "mask_provider", None), _data_of(trainer)
        if not isinstance(provider, MaskProvider):
            raise ConfigError(
                f"MaskCache needs a model with a mask provider; {type(pl_module).__name__} has none"
            )
        if not provider.from_image_alone:
            raise ConfigError(
                f"MaskCache cannot keep the masks of {type(provider).__name__}: they may depend on more than "
                "the image; leave MaskCache out, or set from_image_alone on a provider of your own"
            )
        if not isinstance(data, ImageDataModule):
            raise ConfigError(f"MaskCache needs an ImageDataModule, not {type(data).__name__}")

        def stored(dataset: ImageDataset) -> StoredMasks:
            masks = fill(
                self.cache, provider, dataset, data.batch_size, data.num_workers,
                pl_module.device, trainer.global_rank, trainer.world_size,
            )  # fmt: skip
            trainer.strategy.barrier("MaskCache")
            return masks

        data.mask_cache = stored

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Leave the data module as it was."""
        data = _data_of(trainer)
        if isinstance(data, ImageDataModule):
            data.mask_cache = None


def _data_of(trainer: pl.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)


def fill(
    cache: TensorCache,
    provider: MaskProvider,
    dataset: ImageDataset,
    batch_size: int = 32,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
) -> StoredMasks:
    """Compute the masks that the cache lacks, and return all of the dataset's.

    Args:
        cache: Where the masks go.
        provider: Gives the masks, on `device`.
        dataset: The images; its transform is left out.
        batch_size: Images that the provider sees at once.
        num_workers: Processes that read images.
        device: Where the provider is.
        rank: Which share of the images is this process's.
        world_size: Number of processes that share the images.

    Raises:
        DataError: An image cannot be read, or the folder not be written to.
        MaskError: The provider gave an unusable mask.
    """
    stored = StoredMasks(cache, provider_digest(provider))
    loader = DataLoader(
        _Lacking(dataset, stored, range(rank, len(dataset), world_size)),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_present,
        generator=torch.Generator(),  # the global one belongs to the run, which the cache must not change
    )
    for items in track(loader, description="masks", transient=True, disable=rank > 0):
        if items:
            origins, images, paths = zip(*items, strict=True)
            batch = {"image": torch.stack(images).to(device), "path": list(paths)}
            masks, has_mask = provider(batch["image"], batch)
            masks = masks.where(has_mask.view(-1, 1, 1, 1), 0)
            for origin, mask in zip(origins, masks.cpu(), strict=True):
                cache.write(origin, mask)
    return stored


def provider_digest(provider: MaskProvider) -> str:
    """SHA-256 of all that a provider's masks depend on: its arguments, its weights and its source code."""
    digest = hashlib.sha256(json.dumps(describe(provider), sort_keys=True, default=Tensor.tolist).encode())
    parts = [part for part in provider.modules() if isinstance(part, MaskProvider)]
    for cls in dict.fromkeys(cls for part in parts for cls in type(part).__mro__):
        module = inspect.getmodule(cls) if issubclass(cls, MaskProvider) else None
        digest.update(inspect.getsource(module).encode() if module else b"")
    for name, value in provider.state_dict().items():
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Lacking(Dataset[Item | None]):
    """The images whose masks are not stored; None for the others, which are not even read."""

    def __init__(self, dataset: ImageDataset, stored: StoredMasks, indices: Sequence[int]) -> None:
        self.dataset, self.stored, self.indices = copy.copy(dataset), stored, indices
        self.dataset.stored_masks = self.dataset.transform = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Item | None:
        index = self.indices[position]
        if self.stored.find(self.dataset, index) is not None:
            return None
        origin = self.stored.origin(self.dataset, index)
        image, _ = self.dataset.read(index, with_mask=False)
        if self.stored.origin(self.dataset, index) != origin:
            return None  # the file changed under our hands: the reader of its mask will say so
        return origin, image, self.dataset.path(index)


def _present(items: Sequence[Item | None]) -> list[Item]:
    return [item for item in items if item is not None]
