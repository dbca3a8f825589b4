"""Explainers: which cells of the feature map, or pixels, speak for a class, as a differentiable map."""

from guidedattn.explainers.attention import GradientRollout
from guidedattn.explainers.base import Explainer
from guidedattn.explainers.cam import CAM, GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM
from guidedattn.explainers.gradient import InputGradient

__all__ = [
    "CAM",
    "Explainer",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientRollout",
    "HiResCAM",
    "InputGradient",
    "LayerCAM",
]
