"""Backbones: images `[B, C, H, W]` to feature maps `[B, D, h, w]`."""

from guidedattn.backbones.base import Backbone
from guidedattn.backbones.module import ModuleBackbone
from guidedattn.backbones.pepx import PEPXBackbone
from guidedattn.backbones.timm import TimmBackbone

__all__ = ["Backbone", "ModuleBackbone", "PEPXBackbone", "TimmBackbone"]
