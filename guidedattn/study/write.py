"""Numbers, tables, figures and the report of a study, in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from guidedattn.files import whole_file
from guidedattn.study.plan import slug
from guidedattn.study.plots import save_bars, save_curves, save_heatmaps, save_judgements
from guidedattn.study.report import data_counts, leaks, write_report
from guidedattn.study.results import STAGES, Predictions, read_predictions
from guidedattn.study.tables import study_tables


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    """Write `results.json`, `tables/`, `figures/` and `report.html` from the finished runs of a study."""
    manifest = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    results = {**results, "data": data_counts(manifest), "leaks": leaks(manifest)}
    with whole_file(folder / "results.json") as file:
        json.dump(results, file, indent=1)
    tables = study_tables(results)
    for table in tables:
        table.write(folder / "tables")
    figures = _figures(folder, results)
    write_report(folder, results, tables, figures)


def _figures(folder: Path, results: Mapping[str, Any]) -> dict[str, str]:
    """Draw everything; returns captions by the figures' names."""
    runs, figures = folder / "runs", folder / "figures"
    models = results["models"]
    by_body = {(m["body"], m["stage"]): m for m in models if m["stage"] < 3}
    history = {key: pd.read_csv(runs / m["runs"][0] / "history.csv") for key, m in by_body.items()}
    first = [(m["body"], {"": history[m["body"], 1]}) for m in models if m["stage"] == 1]
    columns = {"val/accuracy": "validation", "train/accuracy": "training"}
    save_curves(figures / "fig3", first, columns)
    second = [(b, {f"stage {STAGES[s]}": history[b, s] for s in (1, 2)}) for b in results["chosen"]]
    save_curves(figures / "fig4", second, {"val/accuracy": "validation"})
    star = "a star marks the epoch whose weights are kept (first repeat)"
    captions = {"fig3": f"Accuracy in stage I; {star}.", "fig4": f"Stage I and stage II; {star}."}
    for name, key in (("fig5", "val"), ("fig6", "test")):
        save_bars(figures / name, results, key)
        captions[name] = f"Accuracy on the {results['sets'][key].lower()} images, absolute and relative."
    captions |= _heatmaps(folder, results)
    for stage, numeral in STAGES.items():
        titled = {m["title"]: _said(runs, m, results["class_names"]) for m in models if m["stage"] == stage}
        if titled:
            save_judgements(figures / f"judgement_stage{stage}", titled)
            captions[f"judgement_stage{stage}"] = f"How the models of stage {numeral} judge the test images."
    return captions


def _said(runs: Path, model: Mapping[str, Any], class_names: list[str]) -> Predictions:
    return Predictions([read_predictions(runs / name, "test") for name in model["runs"]], class_names)


def _heatmaps(folder: Path, results: Mapping[str, Any]) -> dict[str, str]:
    """Figures 7 and 8 of the paper, and one more for every further class."""
    maps: dict[str, dict[str, Any]] = {}
    for model in results["models"]:
        if model["stage"] == 3:
            with np.load(folder / "runs" / model["runs"][0] / "maps.npz", allow_pickle=False) as found:
                maps.setdefault(model["body"], {})[model["arm"]] = dict(found)
    captions = {}
    for number, label in enumerate(results["class_names"] if maps else []):
        name = f"fig{7 + number}_{slug(label)}"
        save_heatmaps(folder / "figures" / name, maps, label)
        captions[name] = (
            f"Test images of class {label}: reference mask, each model's map of the class, and its answer."
        )
    return captions
