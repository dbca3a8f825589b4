"""Scores with intervals over patients, and tests between models; the one module that imports statsmodels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from guidedattn.errors import ConfigError

Array = npt.NDArray[Any]
LEVEL = 0.95
_CHUNK = 5_000_000  # draws x patients held at a time


def require_statistics() -> None:
    """Make sure, before hours of training, that the tests between models can be made.

    Raises:
        ConfigError: statsmodels is not installed.
    """
    try:
        import statsmodels  # noqa: F401
    except ImportError:
        raise ConfigError("the study needs statsmodels: pip install 'guidedattn[study]'") from None


def confusion_by_patient(labels: Array, predicted: Array, patients: Array, classes: int) -> Array:
    """Confusion matrices `[P, K, K]` (true, predicted) of the patients in sorted order.

    Args:
        labels: `[N]` class indices.
        predicted: `[N]` class indices.
        patients: `[N]` names.
        classes: K.
    """
    names, place = np.unique(patients, return_inverse=True)
    counts = np.zeros((len(names), classes, classes))
    np.add.at(counts, (place, labels, predicted), 1)
    return counts


def scores(confusion: Array) -> Array:
    """Scores `[..., 2 + 2 K]` of confusion matrices `[..., K, K]`: accuracy, macro F1, K recalls, K F1s.

    A class accuracy in the paper's tables 5 and 7 is a recall. A class that is absent has no recall (NaN);
    one neither present nor predicted has no F1 and is left out of the macro mean, as in torchmetrics.

    >>> scores(np.array([[3, 1], [0, 4]])).round(3)
    array([0.875, 0.873, 0.75 , 1.   , 0.857, 0.889])
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    present, named = confusion.sum(-1), confusion.sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = right.sum(-1) / present.sum(-1)
        recall, f1 = right / present, 2 * right / (present + named)
    counted = np.isfinite(f1)
    macro = np.where(counted, f1, 0).sum(-1) / counted.sum(-1)
    return np.concatenate([accuracy[..., None], macro[..., None], recall, f1], -1)


def bootstrap(repeats: Sequence[Array], resamples: int, seed: int = 0) -> Array:
    """Bootstrap distribution `[resamples, 2 + 2 K]` of the scores' mean over the repeats.

    Whole patients are drawn with replacement, as many as there are (Field & Welsh 2007: the cluster
    bootstrap), and the same ones for every repeat and, with the same seed, for every model on this set.

    Args:
        repeats: per repeat `[P, K, K]` from `confusion_by_patient`, of the same patients.
        resamples: draws.
        seed: of the draws.
    """
    parts = [
        np.mean([scores(np.tensordot(weights, counts, 1)) for counts in repeats], axis=0)
        for weights in _draws(len(repeats[0]), resamples, seed)
    ]
    return np.concatenate(parts)


def _draws(patients: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each patient is drawn, `[n, P]` at a time."""
    rng, step = np.random.default_rng(seed), max(1, _CHUNK // patients)
    for start in range(0, resamples, step):
        number = min(step, resamples - start)
        yield rng.multinomial(patients, np.full(patients, 1 / patients), size=number)


def limits(distribution: Array) -> tuple[Array, Array]:
    """The percentile interval of 95 % of a distribution `[R, ...]`; NaN draws do not count."""
    tail = (1 - LEVEL) / 2
    empty = np.isnan(distribution).all(0)
    filled = np.where(empty, 0.0, distribution)
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def mcnemar(right_a: Array, right_b: Array) -> tuple[int, int, float]:
    """McNemar's exact test that two models err equally often on the same images.

    Args:
        right_a: `[N]` bool, where the first model is right.
        right_b: `[N]` bool, where the second is.

    Returns:
        How many images only the first and only the second gets right, and the two-sided p-value.
    """
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(exact_test([[0, only_a], [only_b, 0]], exact=True).pvalue)
