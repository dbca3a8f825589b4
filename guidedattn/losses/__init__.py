"""Attention losses: indirect guidance, added to the criterion."""

from guidedattn.losses.alignment import MaskAlignment
from guidedattn.losses.base import AttentionLoss
from guidedattn.losses.mining import AttentionMining

__all__ = ["AttentionLoss", "AttentionMining", "MaskAlignment"]
