"""Instruments: what is measured on maps and, which is what counts, on predictions."""

from guidedattn.metrics.background import BackgroundRobustness
from guidedattn.metrics.grad_cam import road
from guidedattn.metrics.maps import (
    AttentionIoU,
    DeadMaps,
    EnergyInMask,
    MapMetric,
    PointingGame,
    attention_iou,
    energy_in_mask,
    points_into_mask,
)
from guidedattn.metrics.meaning import MEANING
from guidedattn.metrics.prediction import Reliance, margin, reliance
from guidedattn.metrics.stage import LossMeans, StageMetrics

__all__ = [
    "MEANING",
    "AttentionIoU",
    "BackgroundRobustness",
    "DeadMaps",
    "EnergyInMask",
    "LossMeans",
    "MapMetric",
    "PointingGame",
    "Reliance",
    "StageMetrics",
    "attention_iou",
    "energy_in_mask",
    "margin",
    "points_into_mask",
    "reliance",
    "road",
]
