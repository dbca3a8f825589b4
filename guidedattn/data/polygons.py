"""Outlines drawn by hand, as annotation tools export them: Darwin (V7) and COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from guidedattn.data.paths import AnyPath, as_path
from guidedattn.errors import DataError

INSIDE, IGNORE = "Lung", "Ignore"
Ring = list[tuple[float, float]]


@dataclass(frozen=True)
class Outline:
    """The polygons of one image, in pixels of the size that they were drawn on.

    Attributes:
        name: The name of the image that was drawn on.
        width: Width of that image.
        height: Height of that image.
        inside: Shapes of the organ; a shape is one or more rings, filled by the even-odd rule.
        ignore: Shapes over arrows, text and devices; what they cover is not inside.
        tags: Words attached to the image.
    """

    name: str
    width: int
    height: int
    inside: tuple[list[Ring], ...]
    ignore: tuple[list[Ring], ...]
    tags: tuple[str, ...] = ()


def is_outline(path: AnyPath) -> bool:
    """Tell whether a mask is a polygon file, `*.json`, or `*.json#<image id>` for an image of a COCO file."""
    return path.name.partition("#")[0].lower().endswith(".json")


def read_outline(path: AnyPath) -> Outline:
    """Read the polygons of one image.

    Args:
        path: A Darwin JSON (version 1 or 2), or `<COCO JSON>#<image id>`.

    Raises:
        DataError: The file is missing, no such JSON, or does not hold the image.
    """
    file, _, image_id = path.name.partition("#")
    try:
        if image_id:
            return dict(_coco(str(path.with_name(file))))[image_id]
        return _darwin(_load(path))
    except DataError:
        raise
    except KeyError as error:
        raise DataError(f"{path}: no polygons as Darwin or COCO write them (no {error})") from None
    except (TypeError, ValueError, IndexError):
        raise DataError(f"{path}: no polygons as Darwin or COCO write them") from None


def read_coco(path: AnyPath) -> Iterator[tuple[str, Outline]]:
    """Yield image id and polygons of each image of a COCO file.

    Raises:
        DataError: The file is missing or no COCO file.
    """
    try:
        yield from _coco(str(path))
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, IndexError):
        raise DataError(f"{path}: not a COCO file of polygons") from None


def _load(path: AnyPath) -> Any:
    try:
        with path.open("rb") as file:
            return json.load(file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except ValueError:
        raise DataError(f"{path}: not JSON") from None


def _darwin(document: Any) -> Outline:
    if "item" in document:  # version 2
        item = document["item"]
        name, slot = item["name"], item["slots"][0]
        width, height = slot["width"], slot["height"]
    else:
        image = document["image"]
        name, width, height = (
            image.get("original_filename", image["filename"]),
            image["width"],
            image["height"],
        )
    shapes: dict[str, list[list[Ring]]] = {INSIDE: [], IGNORE: []}
    tags = []
    for annotation in document["annotations"]:
        if "tag" in annotation:
            tags.append(annotation["name"])
        elif annotation["name"] in shapes:
            rings = _darwin_rings(annotation)
            if rings:
                shapes[annotation["name"]].append(rings)
    return Outline(name, width, height, tuple(shapes[INSIDE]), tuple(shapes[IGNORE]), tuple(tags))


def _darwin_rings(annotation: Any) -> list[Ring]:
    if "complex_polygon" in annotation:
        paths = annotation["complex_polygon"]["path"]
    elif "polygon" in annotation:
        polygon = annotation["polygon"]
        paths = polygon["paths"] if "paths" in polygon else [polygon["path"]]
    else:
        return []
    return [[(point["x"], point["y"]) for point in path] for path in paths]


@lru_cache(maxsize=4)
def _coco(path: str) -> tuple[tuple[str, Outline], ...]:
    document = _load(as_path(path))
    names = {category["id"]: category["name"] for category in document["categories"]}
    words = {tag["id"]: tag["name"] for tag in document.get("tag_categories", ())}
    shapes: dict[tuple[Any, str], list[list[Ring]]] = {}
    for annotation in document["annotations"]:
        name, outline = names[annotation["category_id"]], annotation["segmentation"]
        mine = shapes.setdefault((annotation["image_id"], name), [])
        if not isinstance(outline, dict):
            mine.append([_pairs(ring) for ring in outline])
        elif name == IGNORE:
            mine.extend([ring] for ring in _runs(outline))
        else:
            raise DataError(f"{path}: run-length masks are read for {IGNORE} only, draw {name} as polygons")
    outlines = []
    for image in document["images"]:
        inside, ignore = (tuple(shapes.get((image["id"], name), ())) for name in (INSIDE, IGNORE))
        tags = tuple(words[tag] for tag in image.get("tag_ids", ()) if tag in words)
        outline = Outline(image["file_name"], image["width"], image["height"], inside, ignore, tags)
        outlines.append((str(image["id"]), outline))
    return tuple(outlines)


def _runs(outline: Any) -> Iterator[Ring]:
    """Yield a box per run of an uncompressed run-length mask.

    V7 writes its runs along the rows, where COCO has them along the columns. That is why no lung is read
    from runs: another tool's would come out turned.
    """
    width, position = outline["size"][1], 0
    for number, count in enumerate(outline["counts"]):
        start, position = position, position + count
        while number % 2 and start < position:
            row, column = divmod(start, width)
            end = min(column + position - start, width)
            yield [(column, row), (end, row), (end, row + 1), (column, row + 1)]
            start += end - column


def _pairs(flat: Sequence[float]) -> Ring:
    return list(zip(flat[::2], flat[1::2], strict=True))
