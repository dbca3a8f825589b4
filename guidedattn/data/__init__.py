"""Images, labels and masks: from files to the batches that the models take."""

from guidedattn.data.base import ImageDataset, StoredMasks
from guidedattn.data.build import build_manifest
from guidedattn.data.cache import TensorCache
from guidedattn.data.collection import Collection
from guidedattn.data.cxr import CXRDataModule
from guidedattn.data.dataset import MaskedImageDataset
from guidedattn.data.images import read_image, read_mask
from guidedattn.data.manifest import Manifest
from guidedattn.data.masked import MaskedImageDataModule
from guidedattn.data.module import ImageDataModule
from guidedattn.data.phantoms import PhantomDataModule, PhantomDataset
from guidedattn.data.records import Record
from guidedattn.data.report import Report
from guidedattn.data.sources import (
    ACCXRD,
    CCXRD,
    CRD,
    FCCXRD,
    RSNAPDD,
    COVIDx,
    FolderSource,
    GeneralBlockchain,
    ManifestSource,
    Source,
    V7Labs,
    find_sources,
)
from guidedattn.data.splits import FoldSplit, ImageSplit, PatientSplit, Splitter
from guidedattn.data.transforms import Augment
from guidedattn.data.verify import find_faults

__all__ = [
    "ACCXRD",
    "CCXRD",
    "CRD",
    "FCCXRD",
    "RSNAPDD",
    "Augment",
    "COVIDx",
    "CXRDataModule",
    "Collection",
    "FoldSplit",
    "FolderSource",
    "GeneralBlockchain",
    "ImageDataModule",
    "ImageDataset",
    "ImageSplit",
    "Manifest",
    "ManifestSource",
    "MaskedImageDataModule",
    "MaskedImageDataset",
    "PatientSplit",
    "PhantomDataModule",
    "PhantomDataset",
    "Record",
    "Report",
    "Source",
    "Splitter",
    "StoredMasks",
    "TensorCache",
    "V7Labs",
    "build_manifest",
    "find_faults",
    "find_sources",
    "read_image",
    "read_mask",
]
