"""`guidedattn data table|build|verify` as a user types them."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from guidedattn.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> tuple[int, str, str]:
        code = main(["data", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def films(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("Normal", "Pneumonia"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for i in range(12):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            image.save(tmp_path / "films" / name / f"{i}.png")
    return tmp_path


@pytest.fixture
def real() -> Path:
    data = Path(os.environ.get("GUIDEDATTN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (data / "rsna").is_dir():
        pytest.skip(f"no real X-rays in {data}; set GUIDEDATTN_DATA to their folder")
    return data


def test_the_published_rows_are_met(run: Run, real: Path) -> None:
    code, out, _ = run("table", "--root", real, "--format", "json")
    found = json.loads(out)

    def cells(source: str, column: str) -> tuple[int, ...]:
        by_class = {row["class"]: row[column] for row in found["table"] if row["source"] == source}
        return by_class["Normal"], by_class["Pneumonia"], by_class["COVID-19"]

    assert code == 0
    assert cells("ACCXRD", "rows") == (127, 0, 58)
    assert cells("FCCXRD", "rows") == (3, 2, 35)
    assert cells("CCXRD", "rows") == (19, 53, 450)
    assert cells("CCXRD", "images") == (19, 49, 450)
    assert cells("CCXRD", "present") == (14, 38, 347)
    assert cells("RSNAPDD", "rows") == (20672, 9555, 0)
    assert cells("RSNAPDD", "images") == (800, 700, 0)
    assert any("6012 patients" in note and "boxes" in note for note in found["notes"])
    dropped = {row["dropped"]: row["rows"] for row in found["dropped"] if row["source"] == "RSNAPDD"}
    assert sum(dropped.values()) == 26684
    assert dropped["label 'No Lung Opacity / Not Normal' belongs to no class"] == 11821


def test_the_table_comes_in_four_forms(run: Run, films: Path) -> None:
    Image.new("L", (4, 4)).save(films / "films" / "Normal" / "extra.png")
    forms = {
        name: run("table", "--root", films, "--format", name)[1] for name in ("table", "csv", "json", "md")
    }
    row = next(csv.DictReader(io.StringIO(forms["csv"])))
    assert row == {"source": "films", "class": "Normal", "rows": "13", "images": "13", "present": "13"}
    assert "| films | Normal | 13 | 13 | 13 |" in forms["md"]
    assert json.loads(forms["json"])["table"][1]["class"] == "Pneumonia"
    named = json.loads(run("table", "--root", films, "--format", "json", "--names", "true")[1])["report"]
    (names,) = [note["names"] for note in named["notes"].values()]
    assert len(names) == named["notes"][next(iter(named["notes"]))]["count"] == 25
    assert "films/extra.png" in names
    assert "present" in forms["table"]
    assert "patient unknown" in forms["table"]


def test_a_labelled_table_and_another_map_serve_as_well(run: Run, films: Path) -> None:
    (films / "map.csv").write_text("finding,class\nNormal,well\nPneumonia,ill\n")
    _, out, _ = run("table", "--root", films, "--labels", films / "map.csv", "--format", "csv")
    assert "films,well,12,12,12" in out
    (films / "list.csv").write_text("path,label\nfilms/Normal/0.png,cat\nfilms/Normal/gone.png,cat\n")
    _, out, _ = run("table", "--root", films / "list.csv", "--format", "csv")
    assert out.splitlines()[1:] == ["manifest,cat,2,2,1,", "manifest,,1,,,not on disk"]


def test_build_prints_table_3_and_verify_accepts_the_manifest(run: Run, films: Path) -> None:
    code, out, _ = run("build", "--root", films, "--output", films / "list.csv", "--seed", 1)
    assert code == 0
    assert "24 images" in out
    assert "train" in out
    code, out, _ = run("verify", "--root", films / "list.csv", "--processes", 2)
    assert (code, out) == (0, "24 images read, 0 faults\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tabel",), "did you mean table"),
        (("table", "--root", "nowhere"), "nowhere: no such folder"),
        (("table",), "root"),
        (("table", "--root", ".", "--format", "xml"), "format"),
        (("build", "--root", "films", "--output", "a.csv", "--split", "random"), "patient or paper"),
        (("build", "--root", "films", "--output", "a.csv", "--folds", 2), "at least 3"),
        (("build", "--root", "films", "--output", "a.csv", "--duplicates", "no.csv"), "no.csv: no such file"),
        (("verify", "--root", "no.csv"), "no.csv: no such file"),
    ],
)
def test_mistakes_cost_a_line_and_exit_2(
    run: Run, films: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(films)
    code, _, err = run(*words)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) <= 5
    assert "Traceback" not in err
