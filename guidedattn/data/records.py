"""What is known about one image before a pixel of it is read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from guidedattn.data.paths import AnyPath

SPLITS = ("train", "val", "test")
COLUMNS = ("path", "label", "source", "patient", "view", "mask", "split", "group", "sha256")
SEPARATOR = "|"


@dataclass(frozen=True, slots=True)
class Record:
    """One image: where it lies, what it shows and whom.

    Attributes:
        path: The image file, or the URL of one.
        label: The class; several classes as `a|b`. A source gives its own words, `guidedattn.data.labels`
            turns them into class names; empty means unlabelled.
        source: The collection that the image comes from. Patient ids are unique inside a source only.
        patient: The patient's id, empty when unknown; `a|b` when one file is listed under two patients.
        view: The projection in the source's words, empty when unknown. Anything that is not an X-ray has
            its modality in front, as in `CT Axial`.
        mask: The mask file, or None. A polygon file of many images has the image's id behind a `#`.
        split: `train`, `val` or `test`; empty until it is decided.
        group: A further id, across sources, of images that must stay in one split; `a|b` for several.
        sha256: Digest of the file's bytes, empty when unknown.
        excluded: Why the source itself leaves the image out, empty when it does not.
    """

    path: AnyPath
    label: str
    source: str
    patient: str = ""
    view: str = ""
    mask: AnyPath | None = None
    split: str = ""
    group: str = ""
    sha256: str = ""
    excluded: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the image, one or several."""
        return parts(self.label)

    def as_row(self) -> dict[str, str]:
        """Return the record as a row of a manifest: every column a string, no mask an empty one."""
        mask = "" if self.mask is None else str(self.mask)
        values = (str(self.path), self.label, self.source, self.patient, self.view, mask)
        return dict(zip(COLUMNS, (*values, self.split, self.group, self.sha256), strict=True))


def parts(text: str) -> tuple[str, ...]:
    """Split `a|b` into its parts; an empty text has none.

    >>> parts("Effusion|Pneumonia")
    ('Effusion', 'Pneumonia')
    """
    if SEPARATOR not in text:  # nearly always, and a manifest asks millions of times
        return (text.strip(),) if text.strip() else ()
    return tuple(part.strip() for part in text.split(SEPARATOR) if part.strip())


def union(texts: list[str]) -> str:
    """Join texts of the form `a|b` into one that holds each part once, in order of appearance.

    >>> union(["285", "339|285"])
    '285|339'
    """
    return SEPARATOR.join(dict.fromkeys(part for text in texts for part in parts(text)))


@contextmanager
def in_bulk() -> Iterator[None]:
    """Make many records without the garbage collector walking through all of them time and again.

    Records refer to nothing that refers back, so there is nothing for it to find; 400,000 rows split in
    half the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
