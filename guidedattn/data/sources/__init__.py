"""Collections of images in their native layouts."""

from guidedattn.data.sources.accxrd import ACCXRD
from guidedattn.data.sources.base import Source
from guidedattn.data.sources.ccxrd import CCXRD
from guidedattn.data.sources.fccxrd import FCCXRD
from guidedattn.data.sources.find import find_sources
from guidedattn.data.sources.folders import FolderSource
from guidedattn.data.sources.manifest import ManifestSource

__all__ = ["ACCXRD", "CCXRD", "FCCXRD", "FolderSource", "ManifestSource", "Source", "find_sources"]
