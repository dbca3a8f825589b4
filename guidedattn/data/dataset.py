"""One image, its label and its mask at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guidedattn.data.base import ImageDataset, Transform
from guidedattn.data.cache import Digest, TensorCache
from guidedattn.data.images import MAX_PIXELS, read_image, read_mask, squash
from guidedattn.data.paths import AnyPath
from guidedattn.data.records import Record
from guidedattn.errors import ConfigError, DataError, near


class SampleError(DataError):
    """A sample that cannot be read; stays one line when a worker process hands it over.

    The loader rebuilds a worker's exception from a text that ends in the whole traceback; only the
    message at its end helps the user.
    """

    def __init__(self, message: str) -> None:
        if message.startswith("Caught "):
            message = message.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(message)


class MaskedImageDataset(ImageDataset):
    """Images, labels and masks as plain tensors that the default collate function takes.

    A sample is a dict of
    `image` float32 `[channels, H, W]` in [0, 1], not normalised;
    `label` int64 scalar, or with `multi_label` float32 `[K]` of zeros and ones;
    `mask` float32 `[1, H, W]` in [0, 1], zeros where there is none;
    `has_mask` bool scalar; `index` int, the position in this dataset; `path` str.

    Image and mask are resized alike, with antialiasing, to a square; the aspect ratio is not kept (nor
    does the paper), so a mask has soft edges. A mask file that is empty counts as no mask, with a
    warning that names it.

    Args:
        records: The images of one split.
        class_names: The classes in the order of the logits.
        image_size: Height and width of the result.
        channels: 1 for grey, 3 for colour.
        transform: Called on `{"image": tv_tensors.Image, "mask": tv_tensors.Mask}` after resizing.
        multi_label: Whether a record may have several classes (or none).
        bits: Significant bits of 16-bit files.
        max_pixels: Larger images are refused before they are decoded.
        cache: Keeps the resized images and masks, so that each file is decoded once.
        scale_masks: Whether a mask of another size but of its image's shape is scaled, not refused.

    Raises:
        DataError: A record has a label that is not a class, or several without `multi_label`; and from
            `__getitem__`, an image or mask cannot be read or their sizes differ. Names the file.
    """

    def __init__(
        self,
        records: Sequence[Record],
        class_names: Sequence[str],
        image_size: int = 224,
        channels: int = 1,
        transform: Transform | None = None,
        multi_label: bool = False,
        bits: int = 16,
        max_pixels: int = MAX_PIXELS,
        cache: TensorCache | None = None,
        scale_masks: bool = False,
    ) -> None:
        self.class_names = tuple(class_names)
        self.image_size, self.channels, self.transform = image_size, channels, transform
        self.multi_label, self.bits, self.max_pixels = multi_label, bits, max_pixels
        self.cache = cache
        self.scale_masks = scale_masks
        # Packed arrays, not a list of objects: forked workers then share the memory.
        self._paths = _pack([record.path for record in records])
        self._masks = _pack([record.mask for record in records])
        self._labels = self._encode(records)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the sample at `index`."""
        try:
            pixels = self.pixels(index)
        except DataError as error:
            raise SampleError(str(error)) from None
        return {
            **pixels,
            "label": torch.tensor(self._labels[index]),
            "index": index,
            "path": self.path(index),
        }

    def path(self, index: int) -> str:
        """Return the path of the image at `index`."""
        return os.fsdecode(self._paths[index])

    def origin(self, index: int, digest: Digest) -> tuple[Any, ...]:
        """Return what the pixels of the image at `index` depend on: its file's contents and the settings.

        Raises:
            SampleError: The file cannot be read.
        """
        path = self.path(index)
        try:
            return (digest(path), self.image_size, self.channels, self.bits)
        except OSError as error:
            raise SampleError(f"{path}: {error.strerror or error}") from None

    def read(self, index: int, with_mask: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return image `[C, S, S]` and mask `[1, S, S]` at `index` as they are before the transform."""
        path = self.path(index)
        mask_path = os.fsdecode(self._masks[index]) if with_mask else ""
        if self.cache is None:
            image, mask = self._decode(path, mask_path)
        else:
            image, mask = self._cached(self.cache, path, mask_path)
        if mask is None or mask.numpy().any():
            return image, mask
        warnings.warn(
            f"{mask_path}: the mask is empty, so {path} counts as an image without one", stacklevel=2
        )
        return image, None

    def _cached(self, cache: TensorCache, path: str, mask_path: str) -> tuple[Tensor, Tensor | None]:
        files = [file for file in (path, mask_path) if file]
        try:
            digests = [cache.digest(file) for file in files]
        except OSError:
            return self._decode(path, mask_path)  # which says what is wrong with the file
        size = self.image_size
        image_origin = ("image", digests[0], size, self.channels, self.bits)
        # With the image's digest: a mask must have its size.
        mask_origin = (
            "mask",
            *digests,
            size,
            self.scale_masks,
        )
        image = cache.read(image_origin, (self.channels, size, size))
        mask = cache.read(mask_origin, (1, size, size)) if mask_path else None
        if image is not None and (mask is not None or not mask_path):
            return image, mask
        image, mask = self._decode(path, mask_path)
        if [cache.digest(file) for file in files] != digests:
            return image, mask  # a file changed under our hands: nothing to keep
        return cache.write(image_origin, image), None if mask is None else cache.write(mask_origin, mask)

    def _decode(self, path: str, mask_path: str) -> tuple[Tensor, Tensor | None]:
        image = read_image(path, self.channels, self.bits, self.max_pixels)
        if not mask_path:
            return squash(image, self.image_size), None
        height, width = image.shape[-2:]
        try:
            mask = read_mask(mask_path, (height, width), self.max_pixels, self.scale_masks)
        except DataError as error:
            raise DataError(f"{error} (mask of {path})") from None
        return squash(image, self.image_size), squash(mask, self.image_size)

    def _encode(self, records: Sequence[Record]) -> Any:
        number = {name: k for k, name in enumerate(self.class_names)}
        if len(number) != len(self.class_names):
            raise ConfigError(f"class_names names one class twice: {', '.join(self.class_names)}")
        shape = (len(records), len(number)) if self.multi_label else (len(records),)
        encoded = np.zeros(shape, dtype=np.float32 if self.multi_label else np.int64)
        for row, record in enumerate(records):
            for label in record.labels:
                if label not in number:
                    known = ", ".join(self.class_names)
                    hint = near(label, self.class_names)
                    raise DataError(f"{record.path}: label {label!r} is not among the classes {known}{hint}")
            if self.multi_label:
                encoded[row, [number[label] for label in record.labels]] = 1
            elif len(record.labels) == 1:
                encoded[row] = number[record.label]
            else:
                raise DataError(
                    f"{record.path}: one class expected, got {record.label!r}; set multi_label for several"
                )
        return encoded


def _pack(paths: Sequence[AnyPath | None]) -> Any:
    return np.array([b"" if path is None else os.fsencode(path) for path in paths], dtype=np.bytes_)
