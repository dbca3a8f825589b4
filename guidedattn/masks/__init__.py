"""Mask providers: where a classifier should look."""

from guidedattn.masks.base import MaskProvider
from guidedattn.masks.combined import AnyOf, Dilated
from guidedattn.masks.shapes import BoxMask, EllipseMask
from guidedattn.masks.simple import BatchMask, FullMask
from guidedattn.masks.unet import UNetMask

__all__ = ["AnyOf", "BatchMask", "BoxMask", "Dilated", "EllipseMask", "FullMask", "MaskProvider", "UNetMask"]
