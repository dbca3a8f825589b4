"""Lung outlines of V7 Labs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.paths import AnyPath
from guidedattn.data.polygons import Outline, read_coco, read_outline
from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source, read_table, with_modality
from guidedattn.errors import DataError

PLACES = "annotation_to_image.csv"
FINDINGS = (
    "COVID-19",
    "Viral Pneumonia",
    "Bacterial Pneumonia",
    "Fungal Pneumonia",
    "No Pneumonia (healthy)",
)


class V7Labs(Source):
    """Lungs outlined by hand, github.com/v7labs/covid-19-xray-dataset.

    Below `annotations` lie Darwin JSON files (one per image), a COCO file, or masks as pictures (0, 127
    Ignore, 255 Lung): the first kind found is read. The outlines become pixels where masks are read. An
    image is looked up by its name in `images`, or by `annotation_to_image.csv` (annotation, image, geometry)
    where that lies in the root; a row whose geometry `differs` is left out: there the outlines do not fit.

    Its films come from other collections, so it gives them masks and adds none. Most are of COVID-19: a
    classifier that sees these masks alone can tell the class by them.

    Args:
        root: The folder that holds `annotations`.
        images: The folder that holds the images; by default `images` in the root.
    """

    name = "V7Labs"
    masks_only = True

    def __init__(self, root: str | Path, images: str | Path | None = None) -> None:
        super().__init__(root)
        self.images = self.root / "images" if images is None else Path(images)

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether `annotations` holds outlines; of many JSON files the first one tells."""
        first = next(iter(_annotations(folder)), None)
        return first is not None and (first.suffix.lower() == ".png" or _is_coco(first) or _is_darwin(first))

    def records(self) -> Iterator[Record]:
        """Yield one record per annotated image; the mask is the annotation, None where it has no lung."""
        places = self._places()
        for mask, name, outline in self._outlines():
            file = mask.name.partition("#")[0]
            for path, geometry in places.get(file, places.get(name, [(self.images / name, "same")])):
                excluded = "" if geometry == "same" else "the outline was drawn on another crop of the film"
                yield _record(path, mask, outline, excluded)

    def _outlines(self) -> Iterator[tuple[AnyPath, str, Outline | None]]:
        """Annotation, name of its image and what it says; a picture of a mask says nothing."""
        for path in _annotations(self.root):
            if path.suffix.lower() == ".png":
                yield path, path.name, None
            elif _is_coco(path):
                for image_id, outline in read_coco(path):
                    yield path.with_name(f"{path.name}#{image_id}"), outline.name, outline
            else:
                outline = read_outline(path)
                yield path, outline.name, outline

    def _places(self) -> dict[str, list[tuple[Path, str]]]:
        """Images by annotation and, for a COCO file and pictures of masks, by their own names."""
        if not (self.root / PLACES).is_file():
            return {}
        table = read_table(self.root / PLACES, "annotation", "original_filename", "image", "geometry")
        # Images are named relative to a folder above, which every collection lies in.
        above = [self.root, *self.root.parents]
        base = next((f for f in above if len(table) and (f / table["image"].iloc[0]).exists()), self.root)
        found: dict[str, list[tuple[Path, str]]] = {}
        for row in table.to_dict("records"):
            place = (base / row["image"], row["geometry"])
            for key in (row["annotation"], Path(row["annotation"]).stem + ".png", row["original_filename"]):
                found.setdefault(key, []).append(place)
        return found


def _record(path: Path, mask: AnyPath, outline: Outline | None, excluded: str) -> Record:
    tags = () if outline is None else outline.tags
    views = [tag.removeprefix("View/").replace("_", " ") for tag in tags if tag.startswith("View/")]
    view = with_modality(views[0] if views else "", "CT" if "CT" in tags else "")
    label = next((finding for finding in FINDINGS if finding in tags), "")
    patient = next((tag.partition(":")[2] for tag in tags if tag.startswith("PatientID:")), "")
    has_lung = outline is None or bool(outline.inside)
    return Record(path, label, V7Labs.name, patient, view, mask if has_lung else None, excluded=excluded)


def _annotations(folder: Path) -> list[Path]:
    """Return the Darwin files, else the COCO file, else the pictures of masks."""
    files = sorted((folder / "annotations").rglob("*.json"))
    coco = [path for path in files if _is_coco(path)]
    darwin = [path for path in files if not _is_coco(path)]
    pictures = sorted((folder / "annotations").glob("*semantic-masks*/*.png"))
    return darwin or coco or pictures


def _is_coco(path: Path) -> bool:
    return "coco" in path.parent.name.lower() or "coco" in path.name.lower()


def _is_darwin(path: Path) -> bool:
    try:
        read_outline(path)
    except DataError:
        return False
    return True
