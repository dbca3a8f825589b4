"""Connected parts of masks; the one module that imports scipy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def largest_parts(masks: Tensor, count: int) -> Tensor:
    """Keep the largest connected parts of each mask; pixels that touch at a corner only are not connected.

    Args:
        masks: bool `[B, 1, H, W]`.
        count: parts to keep, at least 1; of parts of one size, the first from the top left.

    Returns:
        bool `[B, 1, H, W]`.

    >>> mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]).bool()
    >>> largest_parts(mask[None, None], 2).int()[0, 0]
    tensor([[1, 1, 0, 0],
            [0, 0, 0, 0],
            [1, 1, 1, 0]], dtype=torch.int32)
    """
    from scipy.ndimage import label  # a quarter of a second of import that other runs save

    kept = np.zeros(tuple(masks.shape), dtype=bool)
    for sample, mask in enumerate(masks[:, 0].cpu().numpy()):
        parts, _ = label(mask)
        sizes = np.bincount(parts.ravel())[1:]
        largest = np.argsort(-sizes, kind="stable")[:count] + 1
        kept[sample, 0] = np.isin(parts, largest)
    return torch.from_numpy(kept).to(masks.device)
