"""Train image classifiers that look where they should."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guidedattn.classifier import GuidedClassifier as GuidedClassifier
    from guidedattn.component import Component as Component
    from guidedattn.data import CXRDataModule as CXRDataModule
    from guidedattn.data import MaskedImageDataModule as MaskedImageDataModule
    from guidedattn.data import PhantomDataModule as PhantomDataModule
    from guidedattn.guidance import Guidance as Guidance
    from guidedattn.mask_cache import MaskCache as MaskCache
    from guidedattn.segmenter import MaskSegmenter as MaskSegmenter

__version__ = "0.1.0"

_HOMES = {
    "CXRDataModule": "guidedattn.data",
    "Component": "guidedattn.component",
    "Guidance": "guidedattn.guidance",
    "GuidedClassifier": "guidedattn.classifier",
    "MaskCache": "guidedattn.mask_cache",
    "MaskSegmenter": "guidedattn.segmenter",
    "MaskedImageDataModule": "guidedattn.data",
    "PhantomDataModule": "guidedattn.data",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `guidedattn --help` need not wait for torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
