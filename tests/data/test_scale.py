"""A manifest of MIMIC-CXR's size fits a workstation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = 400_000
SCRIPT = """
import json, pickle, resource, sys, time
from pathlib import Path
from guidedattn.data import Collection, Manifest, MaskedImageDataModule, build_manifest

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
with (folder / "films.csv").open("w") as file:
    file.write("path,label,source,patient\\n")
    for i in range(rows):
        label = ("Normal", "Pneumonia", "COVID-19")[i % 7 % 3]
        name = f"s3://bucket/files/p{i // 6 % 10}/p{i // 6}/s{i // 2}/{i:08}.jpg"
        file.write(f"{name},{label},S{i // 6 % 3},{i // 6}\\n")
start = time.perf_counter()
(path,) = build_manifest(Collection.at(folder / "films.csv"), folder / "list.csv", digests=False)
built = time.perf_counter()
data = MaskedImageDataModule(manifest=path)
data.setup("fit")
dataset = data.make_dataset("train")
loaded = time.perf_counter()
print(json.dumps({
    "rows": len(data.records), "train": len(dataset), "bytes": len(pickle.dumps(dataset)),
    "objects": sum(isinstance(value, (list, dict)) and len(value) > 99 for value in vars(dataset).values()),
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "build": round(built - start, 1), "load": round(loaded - built, 1),
}))
"""


@pytest.mark.slow
def test_400_000_rows_build_split_and_load_in_2_gib(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(ROWS)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert found["rows"] == ROWS
    assert abs(found["train"] - 0.8 * ROWS) < 20
    assert found["peak"] < 2 * 2**30
    # What a worker is given: arrays, some 60 bytes for the path of an image.
    assert found["objects"] == 0
    assert found["bytes"] < 100 * ROWS
