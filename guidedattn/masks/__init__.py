"""Mask providers: where a classifier should look."""

from guidedattn.masks.base import MaskProvider
from guidedattn.masks.simple import BatchMask, FullMask
from guidedattn.masks.unet import UNetMask

__all__ = ["BatchMask", "FullMask", "MaskProvider", "UNetMask"]
