"""From the runs' predictions to every number of the report, as plain values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jsonargparse import Namespace
from torchmetrics.functional.classification import multiclass_auroc, multiclass_calibration_error

from guidedattn.study.plan import Plan, slug
from guidedattn.study.statistics import bootstrap, confusion_by_patient, limits, mcnemar, scores

STAGES = {1: "I", 2: "II", 3: "III"}
CALIBRATION_BINS = 10
DESCRIPTION = ("architecture", "image_size", "feature_map", "parameters", "bytes")

ModelKey = tuple[int, str, str]
"""Stage, body and arm."""


class Predictions:
    """What one model, in all its repeats, says about one set.

    Args:
        tables: per repeat, as `guidedattn.study.predictions.predict` gives it; the same images in one order.
        class_names: K names.
    """

    def __init__(self, tables: Sequence[pd.DataFrame], class_names: Sequence[str]) -> None:
        self.tables, self.class_names = list(tables), list(class_names)
        number = {name: k for k, name in enumerate(class_names)}
        self.labels = tables[0]["label"].map(number).to_numpy()
        self.patients = tables[0]["patient"].astype(str).to_numpy()
        self.probabilities = [table[[f"prob_{name}" for name in class_names]].to_numpy() for table in tables]
        self.predicted = [table["predicted"].map(number).to_numpy() for table in tables]
        self._distribution: Any = ()
        self.confusions = [
            confusion_by_patient(self.labels, predicted, self.patients, len(class_names))
            for predicted in self.predicted
        ]

    @property
    def right(self) -> Any:
        """`[N]` bool: where the mean of the repeats' probabilities is right."""
        return np.mean(self.probabilities, axis=0).argmax(1) == self.labels

    def distribution(self, resamples: int) -> Any:
        """See `bootstrap`; computed once."""
        if len(self._distribution) != resamples:
            self._distribution = bootstrap(self.confusions, resamples)
        return self._distribution

    def summary(self, resamples: int) -> dict[str, Any]:
        """Every number about this set."""
        values = np.stack([scores(confusion.sum(0)) for confusion in self.confusions])
        low, high = limits(self.distribution(resamples))
        spread = values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
        found = [
            {"mean": number(m), "sd": number(s), "low": number(lo), "high": number(hi)}
            for m, s, lo, hi in zip(values.mean(0), spread, low, high, strict=True)
        ]
        size = len(self.class_names)
        return {
            "images": len(self.labels),
            "patients": len(set(self.patients)),
            "accuracy": found[0],
            "f1_macro": found[1],
            "classes": {
                name: {"accuracy": found[2 + k], "f1": found[2 + size + k]}
                for k, name in enumerate(self.class_names)
            },
            "confusion": np.sum([counts.sum(0) for counts in self.confusions], axis=0).astype(int).tolist(),
            **self._rest(),
        }

    def _rest(self) -> dict[str, Any]:
        size, labels = len(self.class_names), torch.tensor(self.labels)
        aurocs, errors = [], []
        for values in self.probabilities:
            probabilities = torch.tensor(values).float()
            aurocs.append(float(multiclass_auroc(probabilities, labels, size)))
            errors.append(
                float(multiclass_calibration_error(probabilities, labels, size, n_bins=CALIBRATION_BINS))
            )
        has_maps = all("dead" in table for table in self.tables)
        return {
            "auroc": number(np.mean(aurocs)),
            "calibration_error": number(np.mean(errors)),
            "energy_in_mask": number(np.mean([t["energy_in_mask"].mean() for t in self.tables]))
            if has_maps
            else None,
            "dead_maps": number(np.mean([t["dead"].mean() for t in self.tables])) if has_maps else None,
        }


def number(value: Any) -> float | None:
    """A float for JSON, which knows no NaN; rounded to what the predictions' six digits carry."""
    return None if math.isnan(value) else round(float(value), 6)


def set_names(options: Namespace) -> dict[str, str]:
    """From the key of each set, part of file names, to its name."""
    return {
        **{split: split for split in ("train", "val", "test")},
        **{f"external-{slug(name)}": name for name in options.external},
    }


def gather(
    plan: Plan,
    results: Sequence[Mapping[str, Any]],
    chosen: Sequence[str],
    elsewhere: Mapping[str, Mapping[str, pd.DataFrame]],
) -> dict[str, Any]:
    """All numbers of a study.

    Args:
        plan: of the study.
        results: of the runs, as they describe themselves.
        chosen: bodies that went on.
        elsewhere: what the comparators say, by name and set.

    Returns:
        `class_names, seeds, chosen, sets` (title by key), `models` (one per stage, body and arm, repeats
        together), `comparators`, and `pairs` (models against each other on the test sets).
    """
    options, names = plan.options, results[0]["class_names"]
    titles = {"train": "Training", "val": "Validation", "test": "Testing"}
    sets = {key: titles.get(key, f"External: {name}") for key, name in set_names(options).items()}
    own = dict(_by_model(results))
    folders = {run.settings: plan.folder / run.name for run in plan.possible}
    said = {
        key: {
            s: Predictions([read_predictions(folders[r["settings"]], s) for r in repeats], names)
            for s in sets
        }
        for key, repeats in own.items()
    }
    others = {
        name: {key: Predictions([table], names) for key, table in tables.items()}
        for name, tables in elsewhere.items()
    }
    models = [
        {
            "stage": key[0], "body": key[1], "arm": key[2], "title": title(*key),
            **{k: repeats[0][k] for k in DESCRIPTION},
            "runs": [folders[r["settings"]].name for r in repeats],
            "sets": {s: said[key][s].summary(options.resamples) for s in sets},
        }
        for key, repeats in own.items()
    ]  # fmt: skip
    comparators = [
        {
            "title": name, "parameters": options.comparators[name].init_args.get("parameters"),
            "sets": {s: found.summary(options.resamples) for s, found in others[name].items()},
        }
        for name in others
    ]  # fmt: skip
    return {
        "class_names": names, "seeds": list(options.seeds), "chosen": list(chosen),
        "resamples": options.resamples, "sets": sets, "models": models, "comparators": comparators,
        "pairs": _pairs(said, others, options.resamples),
    }  # fmt: skip


def _by_model(results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[ModelKey, list[Mapping[str, Any]]]]:
    """The repeats of each model."""
    for key, repeats in itertools.groupby(results, lambda r: (r["stage"], r["body"], r["arm"])):
        yield key, list(repeats)


def title(stage: int, body: str, arm: str) -> str:
    """A model's name in tables and figures.

    >>> title(3, "VGG-16", "gate")
    'VGG-16 (S3 gate)'
    """
    return f"{body} (S{stage}{' ' + arm if arm else ''})"


def read_predictions(folder: Path, key: str) -> pd.DataFrame:
    """The predictions of a run on a set."""
    return pd.read_csv(
        folder / "predictions" / f"{key}.csv",
        dtype={"path": str, "patient": str, "label": str, "predicted": str},
        keep_default_na=False,  # a class may be called None
        na_values={"energy_in_mask": [""]},
    )


def _pairs(
    said: Mapping[ModelKey, Mapping[str, Predictions]],
    others: Mapping[str, Mapping[str, Predictions]],
    resamples: int,
) -> list[dict[str, Any]]:
    """Models of one body, of one stage or neighbouring ones, and comparators against stage III's."""
    pairs = [
        (title(*a), said[a], title(*b), said[b])
        for a, b in itertools.combinations(said, 2)
        if a[1] == b[1] and b[0] - a[0] < 2
    ]
    pairs += [(name, others[name], title(*b), said[b]) for name in others for b in said if b[0] == 3]
    return [
        _pair(key, (name_a, a[key]), (name_b, b[key]), resamples)
        for name_a, a, name_b, b in pairs
        for key in a
        if key not in ("train", "val")
    ]


def _pair(
    key: str, first: tuple[str, Predictions], second: tuple[str, Predictions], resamples: int
) -> dict[str, Any]:
    """Two models on one set: the difference of their accuracies with its interval, and McNemar's test."""
    (name_a, a), (name_b, b) = first, second
    low, high = limits(b.distribution(resamples)[:, :1] - a.distribution(resamples)[:, :1])
    only_first, only_second, p = mcnemar(a.right, b.right)
    mean_a, mean_b = (np.mean([scores(c.sum(0))[0] for c in said.confusions]) for said in (a, b))
    difference = {"mean": number(mean_b - mean_a), "sd": None, "low": number(low[0]), "high": number(high[0])}
    return {
        "set": key, "first": name_a, "second": name_b, "difference": difference,
        "only_first_right": only_first, "only_second_right": only_second, "p": number(p),
    }  # fmt: skip
