"""Gates: how a mask acts on a feature map (direct guidance), or on the images themselves."""

from guidedattn.gates.base import FeatureGate
from guidedattn.gates.outside import BackgroundGate, ContinueGate
from guidedattn.gates.simple import MaskOnlyGate, MultiplyGate, OpenGate, OutsideGate, ResidualGate

__all__ = [
    "BackgroundGate",
    "ContinueGate",
    "FeatureGate",
    "MaskOnlyGate",
    "MultiplyGate",
    "OpenGate",
    "OutsideGate",
    "ResidualGate",
]
