"""One image, its label and its mask at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from guidedattn.data.images import MAX_PIXELS, read_image, read_mask, squash
from guidedattn.data.paths import AnyPath
from guidedattn.data.records import Record
from guidedattn.errors import ConfigError, DataError, near

Transform = Callable[[dict[str, Any]], dict[str, Any]]


class SampleError(DataError):
    """A sample that cannot be read; stays one line when a worker process hands it over.

    The loader rebuilds a worker's exception from a text that ends in the whole traceback; only the
    message at its end helps the user.
    """

    def __init__(self, message: str) -> None:
        if message.startswith("Caught "):
            message = message.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(message)


class MaskedImageDataset(Dataset[dict[str, Any]]):
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
        scale_masks: bool = False,
    ) -> None:
        self.class_names = tuple(class_names)
        self.image_size, self.channels, self.transform = image_size, channels, transform
        self.multi_label, self.bits, self.max_pixels = multi_label, bits, max_pixels
        self.scale_masks = scale_masks
        # Packed arrays, not a list of objects: forked workers then share the memory.
        self._paths = _pack([record.path for record in records])
        self._masks = _pack([record.mask for record in records])
        self._labels = self._encode(records)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the sample at `index`."""
        path = os.fsdecode(self._paths[index])
        mask_path = os.fsdecode(self._masks[index])
        try:
            image = read_image(path, self.channels, self.bits, self.max_pixels)
            mask = self._read_mask(mask_path, path, image)
        except DataError as error:
            raise SampleError(str(error)) from None
        has_mask = mask is not None
        image, mask = self._transformed(
            squash(image, self.image_size),
            self._empty_mask() if mask is None else squash(mask, self.image_size),
        )
        return {
            "image": image,
            "label": torch.tensor(self._labels[index]),
            "mask": mask,
            "has_mask": has_mask,
            "index": index,
            "path": path,
        }

    def _read_mask(self, mask_path: str, path: str, image: Tensor) -> Tensor | None:
        if not mask_path:
            return None
        height, width = image.shape[-2:]
        try:
            mask = read_mask(mask_path, (height, width), self.max_pixels, self.scale_masks)
        except DataError as error:
            raise DataError(f"{error} (mask of {path})") from None
        if mask.numpy().any():
            return mask
        warnings.warn(
            f"{mask_path}: the mask is empty, so {path} counts as an image without one", stacklevel=2
        )
        return None

    def _empty_mask(self) -> Tensor:
        return torch.from_numpy(np.zeros((1, self.image_size, self.image_size), dtype=np.float32))

    def _transformed(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.transform is None:
            return image, mask
        moved = self.transform({"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(mask)})
        return moved["image"].as_subclass(Tensor), moved["mask"].as_subclass(Tensor)

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
