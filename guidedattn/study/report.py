"""`report.html`: one page that holds everything and needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from guidedattn.files import whole_file
from guidedattn.study.tables import Table

_STYLE = """
body {font: 15px/1.45 system-ui, sans-serif; max-width: 75rem;
   margin: 2rem auto; padding: 0 1rem; color: #222}
table {border-collapse: collapse; font-size: 13px; margin: .4rem 0 1.4rem}
th, td {padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap}
th {border-bottom: 2px solid #888; white-space: normal} .wide {overflow-x: auto} img {max-width: 100%}
pre {background: #f4f4f4; padding: .7rem; overflow-x: auto; font-size: 12px}
.bad {color: #b00020; font-weight: bold}
"""


def data_counts(manifest: pd.DataFrame) -> list[dict[str, Any]]:
    """Images and patients per source, class and split."""
    groups = manifest.groupby(["source", "label", "split"], sort=True)
    return [
        {"source": source, "label": label, "split": split, "images": len(rows), "patients": _patients(rows)}
        for (source, label, split), rows in groups
    ]


def _patients(rows: pd.DataFrame) -> int:
    """Patients, where an image without one counts as a patient of its own."""
    return len({patient or path for patient, path in zip(rows["patient"], rows["path"], strict=True)})


def leaks(manifest: pd.DataFrame) -> dict[str, list[str]]:
    """What lies in more than one split: patients, groups of copies, files of the same bytes."""
    patients = (manifest["source"] + "/" + manifest["patient"]).where(manifest["patient"] != "", "")
    keys = {"patients": patients, "files": manifest["path"]}
    keys |= {column: manifest[column] for column in ("group", "sha256") if column in manifest}
    found = {}
    for name, key in keys.items():
        splits = manifest[key != ""].groupby(key[key != ""])["split"].nunique()
        found[name] = sorted(str(value) for value in splits[splits > 1].index)
    return found


def write_report(
    folder: Path, results: Mapping[str, Any], tables: Sequence[Table], figures: Mapping[str, str]
) -> None:
    """Write the page from what lies in the study's folder.

    Args:
        folder: of the study, with `versions.json` and `config.yaml`.
        results: as in `results.json`.
        tables: to show.
        figures: captions by name.
    """
    repeats = f"{len(results['seeds'])} repeat(s), seeds {', '.join(map(str, results['seeds']))}"
    parts = [
        "<h1>Study</h1>",
        f"<p>Bodies chosen on validation: {escape(', '.join(results['chosen']))}. {repeats}. "
        f"Intervals in brackets: 95 %, percentiles of {results['resamples']} bootstrap draws of whole "
        "patients; ±: standard deviation over the repeats. McNemar's exact test is on the mean "
        "probability of the repeats, image by image: where patients have several images its p is "
        "too small, and the interval of the difference is to be preferred. p values are not "
        "corrected for their number. This is research software; nothing here is a clinical claim.</p>",
        "<h2>Data</h2>",
        _data(results["data"]),
        _leaks(results["leaks"]),
        "<h2>Tables</h2>",
        *(_table(table) for table in tables),
        "<h2>Figures</h2>",
        *(_figure(folder / "figures" / f"{name}.png", caption) for name, caption in figures.items()),
        "<h2>To run it again</h2>",
        "<pre>guidedattn study --config config.yaml --output FOLDER</pre>",
        _file("config.yaml", folder),
        _file("versions.json", folder),
        "<p>Every number above is in <code>results.json</code> beside this page.</p>",
    ]
    page = "\n".join(parts)
    with whole_file(folder / "report.html") as file:
        file.write(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Study</title>'
                   f"<style>{_STYLE}</style>\n{page}</html>\n")  # fmt: skip


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _table(table: Table) -> str:
    return f"<h3>{escape(table.name.replace('_', ' '))}: {escape(table.title)}</h3>" + _rows(
        table.columns, table.as_text()
    )


def _data(counts: Sequence[Mapping[str, Any]]) -> str:
    columns = ("source", "label", "split", "images", "patients")
    return _rows(columns, [[str(row[column]) for column in columns] for row in counts])


def _leaks(found: Mapping[str, Sequence[str]]) -> str:
    checked = ", ".join(found)
    if not any(found.values()):
        return f"<p>Leak check ({escape(checked)}): nothing lies in more than one split.</p>"
    lines = [f"{name}: {', '.join(names)}" for name, names in found.items() if names]
    return f'<p class="bad">Leak: in more than one split: {escape("; ".join(lines))}</p>'


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(path.stem)}: {escape(caption)}</figcaption></figure>"
    )


def _file(name: str, folder: Path) -> str:
    text = (folder / name).read_text()
    text = json.dumps(json.loads(text), indent=1) if name.endswith(".json") else text
    return f"<details><summary>{escape(name)}</summary><pre>{escape(text)}</pre></details>"
