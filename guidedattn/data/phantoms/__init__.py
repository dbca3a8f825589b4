"""Chest-like phantom films, generated: known masks, known lesions, a known shortcut."""

from guidedattn.data.phantoms.dataset import PhantomDataset
from guidedattn.data.phantoms.film import CLASS_NAMES
from guidedattn.data.phantoms.module import PhantomDataModule

__all__ = ["CLASS_NAMES", "PhantomDataModule", "PhantomDataset"]
