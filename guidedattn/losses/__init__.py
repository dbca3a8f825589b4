"""Attention losses: indirect guidance, added to the criterion."""

from guidedattn.losses.alignment import MaskAlignment
from guidedattn.losses.alignment_bce import BCEAlignment, InsideBCE
from guidedattn.losses.alignment_l1 import L1Alignment
from guidedattn.losses.background import BackgroundConsistency, ForegroundOnly
from guidedattn.losses.base import AttentionLoss
from guidedattn.losses.energy import EnergyOutside
from guidedattn.losses.features import OutsidePenalty
from guidedattn.losses.input_gradient import InputGradientPenalty
from guidedattn.losses.mining import AttentionMining
from guidedattn.losses.schedules import EveryNthStep, Schedule, WarmUp
from guidedattn.losses.second_pass import SecondPassLoss

__all__ = [
    "AttentionLoss",
    "AttentionMining",
    "BCEAlignment",
    "BackgroundConsistency",
    "EnergyOutside",
    "EveryNthStep",
    "ForegroundOnly",
    "InputGradientPenalty",
    "InsideBCE",
    "L1Alignment",
    "MaskAlignment",
    "OutsidePenalty",
    "Schedule",
    "SecondPassLoss",
    "WarmUp",
]
