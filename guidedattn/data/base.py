"""What every dataset of images and masks shares: one way from pixels to a sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from guidedattn.data.cache import Digest, TensorCache
from guidedattn.errors import DataError

Transform = Callable[[dict[str, Any]], dict[str, Any]]


class StoredMasks:
    """The masks that one provider gave for the images of a dataset, read from a cache.

    Args:
        cache: Holds the masks.
        provider: Digest of the provider: its settings, weights and code.
    """

    def __init__(self, cache: TensorCache, provider: str) -> None:
        self.cache, self.provider = cache, provider

    def origin(self, dataset: ImageDataset, index: int) -> tuple[Any, ...]:
        """What the mask of an image depends on: the provider and the image's own origin."""
        return ("mask of", self.provider, *dataset.origin(index, self.cache.digest))

    def find(self, dataset: ImageDataset, index: int) -> Tensor | None:
        """Return the mask float32 `[1, S, S]` of the image at `index`, or None if there is no whole one."""
        return self.cache.read(self.origin(dataset, index), (1, dataset.image_size, dataset.image_size))

    def read(self, dataset: ImageDataset, index: int) -> Tensor:
        """Return the mask float32 `[1, S, S]` of the image at `index`.

        Raises:
            DataError: There is none, because the image or the folder changed after the cache was filled.
        """
        mask = self.find(dataset, index)
        if mask is None:
            raise DataError(
                f"{dataset.path(index)}: its mask is not in the cache {self.cache.folder}; image or cache "
                "changed since the run began: start it again"
            )
        return mask


class ImageDataset(Dataset[dict[str, Any]]):
    """Images with labels and, given or stored by a provider, masks.

    A subclass writes `read`, `origin`, `path`, `__len__` and `__getitem__`, the latter from `pixels`.

    Attributes:
        image_size: Height and width of the images.
        transform: Called on `{"image": tv_tensors.Image, "mask": tv_tensors.Mask}`.
        stored_masks: Stand in for the given masks, if there are any.
    """

    image_size: int
    transform: Transform | None = None
    stored_masks: StoredMasks | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def read(self, index: int, with_mask: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return image `[C, S, S]` and given mask `[1, S, S]`, if there is one and it is wanted."""

    @abstractmethod
    def origin(self, index: int, digest: Digest) -> tuple[Any, ...]:
        """Return plain values that change whenever the pixels of the image do."""

    @abstractmethod
    def path(self, index: int) -> str:
        """Return the path of the image, or what stands for it."""

    def pixels(self, index: int) -> dict[str, Any]:
        """Return `image`, `mask` and `has_mask` of a sample; `mask_provided` if the mask is a stored one."""
        stored = self.stored_masks
        image, mask = self.read(index, with_mask=stored is None)
        if stored is not None:
            mask = stored.read(self, index)
        has_mask = mask is not None and bool(mask.numpy().any())
        if mask is None:
            mask = torch.from_numpy(np.zeros((1, *image.shape[-2:]), dtype=np.float32))
        if self.transform is not None:
            moved = self.transform({"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)})
            image, mask = moved["image"].as_subclass(Tensor), moved["mask"].as_subclass(Tensor)
        sample = {"image": image, "mask": mask, "has_mask": has_mask}
        return sample if stored is None else {**sample, "mask_provided": True}
