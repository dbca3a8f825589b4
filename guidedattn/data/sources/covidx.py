"""COVIDx, the lists of COVID-Net."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from guidedattn.data.records import Record
from guidedattn.data.sources.base import Source
from guidedattn.errors import DataError

_LIST = re.compile(r"^(train|test|val).*\.txt$", re.IGNORECASE)
_LINE = re.compile(r"^(?P<patient>\S+) (?P<file>\S.*\.\w+) (?P<label>\S+)(?: (?P<origin>\S+))?$")
_WORDS = {"positive": "COVID-19 positive", "negative": "COVID-19 negative"}


class COVIDx(Source):
    """Text lists of COVID-Net, github.com/lindawangg/COVID-Net: `patientid filename class source` per line.

    Every list beside each other is read (`train_COVIDx5.txt`, `test_COVIDx5.txt`); the images of a list lie
    in `train` or `test` below `images`. Versions from 7 on tell COVID-19 `positive` from
    `negative` alone. COVIDx is made of CCXRD, ACCXRD, FCCXRD, CRD and RSNAPDD: beside those its films are
    there twice.

    Args:
        root: The folder that holds the lists.
        images: The folder that holds `train` and `test`; by default `root`.
        official_test: Keep COVIDx's own test set; training and validation share the rest.

    Raises:
        DataError: From `records`, a line is written otherwise.
    """

    name = "COVIDx"

    def __init__(
        self, root: str | Path, images: str | Path | None = None, official_test: bool = False
    ) -> None:
        super().__init__(root)
        self.images = self.root if images is None else Path(images)
        self.official_test = official_test

    @classmethod
    def matches(cls, folder: Path) -> bool:
        """Tell whether a list lies there whose first line has its form."""
        return any(_LINE.match(_first_line(path)) for path in _lists(folder))

    def records(self) -> Iterator[Record]:
        """Yield every line; a patient is told by its origin and id."""
        for path in _lists(self.root):
            part = path.name.partition("_")[0].lower()
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if not line.strip():
                    continue
                match = _LINE.match(line.strip())
                if match is None:
                    raise DataError(f"{path}, line {number}: expected patientid filename class source")
                patient = f"{match['origin'] or ''} {match['patient']}".strip()
                label = _WORDS.get(match["label"].casefold(), match["label"])
                split = "test" if self.official_test and part == "test" else ""
                yield Record(self._image(part, match["file"]), label, self.name, patient, split=split)

    def _image(self, part: str, file: str) -> Path:
        return self.images / part / file


def _lists(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.txt") if _LIST.match(path.name))


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000).strip()
