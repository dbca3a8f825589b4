"""Attention losses: indirect guidance, added to the criterion."""

from guidedattn.losses.alignment import MaskAlignment
from guidedattn.losses.background import BackgroundConsistency, ForegroundOnly
from guidedattn.losses.base import AttentionLoss
from guidedattn.losses.mining import AttentionMining

__all__ = ["AttentionLoss", "AttentionMining", "BackgroundConsistency", "ForegroundOnly", "MaskAlignment"]
