"""What tables and report hold."""

import csv

import numpy as np
import pandas as pd
import pytest

from guidedattn.study.report import data_counts, leaks
from guidedattn.study.results import Predictions
from guidedattn.study.tables import Table

INTERVAL = {"mean": 0.8123, "sd": None, "low": 0.75, "high": 0.9}


def test_a_table_is_written_for_machines_and_for_people(tmp_path):
    table = Table("t", "50% & more", ["Model", "Accuracy"], [["a_b", INTERVAL], ["c", None]])
    table.write(tmp_path)
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert rows[0] == {
        "Model": "a_b", "Accuracy": "0.8123", "Accuracy sd": "", "Accuracy low": "0.75",
        "Accuracy high": "0.9",
    }  # fmt: skip
    assert rows[1]["Accuracy"] == ""
    assert "| a_b | 0.81 [0.75, 0.90] |" in (tmp_path / "t.md").read_text()
    latex = (tmp_path / "t.tex").read_text()
    assert r"a\_b & 0.81 [0.75, 0.90] \\" in latex
    assert r"\caption{50\% \& more}" in latex


def predictions(probabilities):
    labels = ["a", "b", "a", "b"]
    frame = pd.DataFrame(probabilities, columns=["prob_a", "prob_b"])
    frame["label"], frame["patient"] = labels, ["1", "1", "2", "3"]
    frame["predicted"] = np.where(frame["prob_a"] > frame["prob_b"], "a", "b")
    return frame


def test_repeats_are_averaged_and_their_spread_told():
    perfect = predictions([[0.9, 0.1], [0.2, 0.8], [0.8, 0.2], [0.3, 0.7]])
    poor = predictions([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.4, 0.6]])
    said = Predictions([perfect, poor], ["a", "b"])
    found = said.summary(200)
    assert found["accuracy"]["mean"] == 0.75
    assert found["accuracy"]["sd"] == pytest.approx(0.25 * 2**0.5, abs=1e-6)
    assert (found["images"], found["patients"]) == (4, 3)
    assert found["classes"]["b"]["accuracy"]["mean"] == 0.75
    assert found["confusion"] == [[3, 1], [1, 3]]
    assert found["energy_in_mask"] is None  # nothing but predictions is known
    assert said.right.tolist() == [True, True, False, True]  # of the mean probabilities


def test_whatever_lies_in_two_splits_is_named():
    manifest = pd.DataFrame(
        [
            ("x.png", "a", "S", "7", "train", "g1"), ("y.png", "a", "S", "7", "test", "g2"),
            ("z.png", "a", "T", "7", "val", "g2"), ("v.png", "b", "T", "", "val", ""),
            ("w.png", "b", "T", "", "train", ""),
        ],
        columns=["path", "label", "source", "patient", "split", "group"],
    )  # fmt: skip
    assert leaks(manifest) == {"patients": ["S/7"], "files": [], "group": ["g2"]}
    counts = {(row["source"], row["label"], row["split"]): row for row in data_counts(manifest)}
    assert counts["T", "b", "val"]["patients"] == 1
    assert sum(row["images"] for row in counts.values()) == 5
