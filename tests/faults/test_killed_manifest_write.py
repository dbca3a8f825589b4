"""Kill during a manifest write: the old file or the new one, never half of one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guidedattn.data import Manifest, Record
from guidedattn.errors import DataError

SCRIPT = """
import sys
from pathlib import Path
from guidedattn.data import Manifest, Record
size, path = int(sys.argv[1]), Path(sys.argv[2])
manifest = Manifest.from_records(
    [Record(path.parent / f"{i}.png", "x", "S", f"patient {i}") for i in range(size)], path.parent
)
print("ready", flush=True)
while True:
    manifest.write(path)
"""


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.37])
def test_a_kill_at_any_moment_leaves_a_whole_manifest(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "list.csv"
    Manifest.from_records([Record(tmp_path / "old.png", "x", "S")], tmp_path).write(path)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "60000", str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    assert len(Manifest.read(path)) in (1, 60000)


def test_an_error_while_writing_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Manifest.from_records([Record(tmp_path / "old.png", "x", "S")], tmp_path).write(
        tmp_path / "list.csv"
    )
    before = path.read_bytes()
    new = Manifest.from_records([Record(tmp_path / f"{i}.png", "x", "S") for i in range(9)], tmp_path)

    def full(table: object, file: object, **options: object) -> None:
        file.write("path,label\n0.p")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(new.table), "to_csv", full)
    with pytest.raises(OSError, match="No space"):
        new.write(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["list.csv", "list.csv.sha256"]


def test_a_manifest_that_was_cut_is_noticed(tmp_path: Path) -> None:
    rows = [Record(tmp_path / f"{i}.png", "x", "S") for i in range(50)]
    path = Manifest.from_records(rows, tmp_path).write(tmp_path / "list.csv")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="changed since it was written"):
        Manifest.read(path)
