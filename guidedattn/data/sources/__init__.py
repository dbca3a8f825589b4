"""Collections of images in their native layouts."""

from guidedattn.data.sources.accxrd import ACCXRD
from guidedattn.data.sources.base import Source
from guidedattn.data.sources.ccxrd import CCXRD
from guidedattn.data.sources.covidx import COVIDx
from guidedattn.data.sources.crd import CRD
from guidedattn.data.sources.fccxrd import FCCXRD
from guidedattn.data.sources.find import find_sources, is_manifest
from guidedattn.data.sources.folders import FolderSource
from guidedattn.data.sources.generalblockchain import GeneralBlockchain
from guidedattn.data.sources.manifest import ManifestSource
from guidedattn.data.sources.rsna import RSNAPDD
from guidedattn.data.sources.v7 import V7Labs

__all__ = [
    "ACCXRD",
    "CCXRD",
    "CRD",
    "FCCXRD",
    "RSNAPDD",
    "COVIDx",
    "FolderSource",
    "GeneralBlockchain",
    "ManifestSource",
    "Source",
    "V7Labs",
    "find_sources",
    "is_manifest",
]
