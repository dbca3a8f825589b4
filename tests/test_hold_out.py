"""`examples/hold_out.py`: sources kept apart, without copies of what is trained on."""

import sys

import pandas as pd
import pytest

from examples import hold_out
from guidedattn.data import Manifest

TABLE = """path,label,source,patient,view,mask,split,group,sha256
a1.png,Normal,A,p1,,,train,,
a2.png,COVID-19,A,p2,,,val,g1,
b1.png,Normal,B,p1,,,train,,
b2.png,COVID-19,B,p2,,,test,g1,
b3.png,COVID-19,B,p3,,,train,g2,
b4.png,COVID-19,B,p3,,,val,g2,
"""


def test_a_held_out_source_is_all_test_and_holds_no_copy(tmp_path, monkeypatch, capsys):
    (tmp_path / "all.csv").write_text(TABLE)
    words = ["hold_out", "all.csv", "B", "--films", "films.csv", "--elsewhere", "elsewhere.csv"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", words)
    hold_out.main()
    films, elsewhere = (Manifest.read(f"{name}.csv").table for name in ("films", "elsewhere"))
    assert dict(zip(films["path"], films["split"], strict=True)) == {"a1.png": "train", "a2.png": "val"}
    assert elsewhere["path"].tolist() == ["b1.png", "b3.png", "b4.png"]  # b2 is a copy of a2
    assert set(elsewhere["split"]) == {"test"}
    assert "2 films, 3 elsewhere; 1 copies left out" in capsys.readouterr().out


def test_a_source_that_is_not_there_is_named(tmp_path, monkeypatch):
    pd.DataFrame({"path": ["a.png"], "label": ["x"], "source": ["A"]}).to_csv(tmp_path / "all.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["h", "all.csv", "C", "--films", "f.csv", "--elsewhere", "e.csv"])
    with pytest.raises(SystemExit, match="no image of C"):
        hold_out.main()
