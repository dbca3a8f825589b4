"""Masks from shapes: ellipses that lie alike in every image, and bounding boxes of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from guidedattn.errors import ConfigError, MaskError
from guidedattn.masks.base import MaskProvider

LUNGS = ((0.48, 0.29, 0.36, 0.19), (0.48, 0.71, 0.36, 0.19))
"""Two upright ellipses about where the lungs of a frontal chest film lie."""


class EllipseMask(MaskProvider):
    """The same ellipses for every image: masks where there is no segmentation, for roughly centred films.

    Args:
        ellipses: each as (row, column, half height, half width), in shares of the image's height and width;
            two lungs by default.

    Raises:
        ConfigError: an ellipse is not four numbers, or has no extent.
    """

    from_image_alone = True

    def __init__(self, ellipses: Sequence[Sequence[float]] = LUNGS) -> None:
        super().__init__()
        if not ellipses or any(len(each) != 4 or min(each[2:]) <= 0 for each in ellipses):
            raise ConfigError("EllipseMask: each ellipse is (row, column, half height > 0, half width > 0)")
        self.ellipses = [tuple(each) for each in ellipses]

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:  # noqa: ARG002
        """Ones inside any ellipse, `[B, 1, H, W]`."""
        height, width = images.shape[-2:]
        rows = (torch.arange(height, device=images.device) + 0.5)[:, None] / height
        columns = (torch.arange(width, device=images.device) + 0.5)[None, :] / width
        inside = torch.zeros(height, width, dtype=torch.bool, device=images.device)
        for row, column, half_height, half_width in self.ellipses:
            inside |= ((rows - row) / half_height) ** 2 + ((columns - column) / half_width) ** 2 <= 1
        return inside.float().expand(len(images), 1, -1, -1)


class BoxMask(MaskProvider):
    """The inside of the batch's bounding boxes; an image without a box has no mask.

    Args:
        key: where the batch holds them: per image `[n, 4]` (a list, so that n may differ), or `[B, n, 4]`
            padded with boxes of no extent. A box is (left, top, right, bottom) in pixels of the image; a
            pixel is inside if its centre is. Without the key no image has a mask.
    """

    def __init__(self, key: str = "boxes") -> None:
        super().__init__()
        self.key = key

    def provide(self, images: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """Ones inside any box, `[B, 1, H, W]`.

        Raises:
            MaskError: boxes that are not `[n, 4]`, or not one set per image.
        """
        height, width = images.shape[-2:]
        boxes = batch.get(self.key, [images.new_zeros(0, 4)] * len(images))
        if len(boxes) != len(images):
            raise MaskError(f"BoxMask: {len(boxes)} sets of {self.key} for {len(images)} images")
        rows = torch.arange(height, device=images.device)[:, None] + 0.5
        columns = torch.arange(width, device=images.device)[None, :] + 0.5
        masks = images.new_zeros(len(images), 1, height, width)
        for i, found in enumerate(boxes):
            given = torch.as_tensor(found, dtype=torch.float32, device=images.device)
            if given.numel() and (given.ndim != 2 or given.shape[1] != 4):
                raise MaskError(f"BoxMask: {self.key} of sample {i} are {list(given.shape)}, expected [n, 4]")
            for left, top, right, bottom in given.view(-1, 4):
                inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
                masks[i, 0][inside] = 1
        return masks
