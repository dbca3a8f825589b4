"""Every command of its own parser: a mistake costs one line, help costs nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from guidedattn.cli import COMMANDS, main
from guidedattn.data_cli import COMMANDS as DATA_COMMANDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--sead", "1"], "sead: no such key (did you mean seed?); see guidedattn demo --help"),
        (["demo", "--epochs", "many"], "epochs: Expected a <class 'int'>"),
        (["bench", "--round", "2"], "round: no such key (did you mean rounds?)"),
        (["shortcut", "--outptu", "x"], "outptu: no such key (did you mean output?)"),
        (
            ["shortcut", "--data", "PhantomDataModule", "--marker", "Leter"],
            "marker: no class Leter (did you mean Letter?)",
        ),
        (["study", "--outptu", "x"], "outptu: no such key (did you mean output?)"),
        (["tune", "--trails", "2"], "trails: no such key (did you mean trials"),
        (["data", "tabel"], "no command data 'tabel' (did you mean table?)"),
        (["data", "table", "--rot", "x"], "rot: no such key (did you mean root?)"),
        (["data", "build", "--root", "gone", "--output", "x.csv"], "gone: no such folder"),
        (["data", "masks", "--manifset", "x"], "manifset: no such key (did you mean manifest?)"),
        (["data", "duplicates", "--rot", "x"], "rot: no such key (did you mean root?)"),
        (["data", "sheet", "--colums", "2"], "colums: no such key (did you mean columns?)"),
    ],
)
def test_a_mistake_costs_one_line(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"guidedattn: error: {message}")
    assert len(error.splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"data"}))
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert "--" in capsys.readouterr().out


@pytest.mark.parametrize("command", sorted(DATA_COMMANDS))
def test_every_data_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as caught:
        main(["data", command, "--help"])
    assert caught.value.code == 0
    assert "--" in capsys.readouterr().out


def test_a_reader_that_has_seen_enough_costs_no_traceback(tmp_path):
    (tmp_path / "films.csv").write_text("path,label\ngone.png,COVID-19\n")
    words = [sys.executable, "-m", "guidedattn", "data", "table", "--root", "films.csv", "--format", "md"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    process.stdout.close()
    assert process.wait(120) == 141
    assert b"Traceback" not in process.stderr.read()
