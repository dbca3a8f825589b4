"""Scores, intervals and tests between models, against scikit-learn, SciPy and closed forms."""

from math import comb

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, recall_score

from guidedattn.study.statistics import bootstrap, confusion_by_patient, limits, mcnemar, scores


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    predicted = np.where(rng.random(120) < 0.7, labels, rng.integers(0, 3, 120))
    patients = np.array([f"p{i}" for i in rng.integers(0, 40, 120)])
    return labels, predicted, patients


def test_scores_are_scikit_learns(answers):
    labels, predicted, patients = answers
    counts = confusion_by_patient(labels, predicted, patients, 3)
    assert counts.shape == (len(set(patients)), 3, 3)
    found = scores(counts.sum(0))
    wanted = [
        accuracy_score(labels, predicted), f1_score(labels, predicted, average="macro"),
        *recall_score(labels, predicted, average=None), *f1_score(labels, predicted, average=None),
    ]  # fmt: skip
    np.testing.assert_allclose(found, wanted)


def test_a_class_that_does_not_occur_has_no_score_and_is_left_out_of_the_mean():
    found = scores(np.array([[2.0, 1, 0], [0, 3, 0], [0, 0, 0]]))
    assert np.isnan(found[[4, 7]]).all()
    assert found[1] == pytest.approx(np.mean([0.8, 6 / 7]))


def test_intervals_draw_patients_as_scipys_bootstrap_does(answers):
    counts = confusion_by_patient(*answers, 3)
    ours = limits(bootstrap([counts], 4000, seed=1))

    def accuracy(patients, axis):
        total = counts[patients].sum(-3)
        return np.trace(total, axis1=-2, axis2=-1) / total.sum((-2, -1))

    theirs = stats.bootstrap(
        (np.arange(len(counts)),), accuracy, method="percentile", n_resamples=4000, rng=2, vectorized=True
    ).confidence_interval
    assert ours[0][0] == pytest.approx(theirs.low, abs=0.01)
    assert ours[1][0] == pytest.approx(theirs.high, abs=0.01)


def test_patients_with_many_images_widen_the_interval():
    right = np.repeat(np.random.default_rng(0).random(30) < 0.7, 10)  # a patient's ten images stand or fall
    labels = np.zeros(300, int)
    predicted = np.where(right, 0, 1)
    by_patient = confusion_by_patient(labels, predicted, np.repeat(np.arange(30), 10), 2)
    by_image = confusion_by_patient(labels, predicted, np.arange(300), 2)
    widths = [
        high[0] - low[0] for low, high in (limits(bootstrap([c], 2000)) for c in (by_patient, by_image))
    ]
    assert widths[0] / widths[1] == pytest.approx(10**0.5, rel=0.15)


def test_equal_models_differ_by_nothing_in_every_draw(answers):
    counts = confusion_by_patient(*answers, 3)
    assert np.array_equal(bootstrap([counts], 50), bootstrap([counts, counts], 50))


def test_mcnemar_is_the_sign_test_on_the_images_where_two_models_differ():
    first = np.array([True] * 9 + [False] * 2 + [True] * 30 + [False] * 5)
    second = np.array([False] * 9 + [True] * 2 + [True] * 30 + [False] * 5)
    closed_form = 2 * sum(comb(11, k) for k in range(3)) / 2**11
    assert mcnemar(first, second) == (9, 2, pytest.approx(closed_form))
    assert mcnemar(first, first) == (0, 0, 1.0)
