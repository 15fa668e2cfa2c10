"""The figures of a classifier against hand-made, scikit-learn's and scipy's numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

pytest.importorskip("sklearn")
from sklearn import metrics as theirs

from examples.evaluation import metrics


def test_confusion_and_what_follows_from_it() -> None:
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
    counts = metrics.confusion(label, predicted)
    assert counts.tolist() == theirs.confusion_matrix(label, predicted).tolist()
    assert metrics.accuracy(counts) == theirs.accuracy_score(label, predicted)
    assert metrics.recall(counts) == pytest.approx(theirs.recall_score(label, predicted, average=None))
    assert metrics.macro_f1(counts) == pytest.approx(theirs.f1_score(label, predicted, average="macro"))


def test_a_class_that_is_nowhere() -> None:
    label, predicted = np.array([0, 0, 2]), np.array([0, 2, 2])
    counts = metrics.confusion(label, predicted)
    assert metrics.recall(counts) == [0.5, None, 1.0]
    expected = theirs.f1_score(label, predicted, average="macro", labels=[0, 1, 2], zero_division=0)
    assert metrics.macro_f1(counts) == pytest.approx(expected)


def test_wilson() -> None:
    # statsmodels.stats.proportion.proportion_confint(8, 10, method="wilson")
    assert metrics.wilson(8, 10) == pytest.approx((0.49016247153664183, 0.9433178485456247), abs=1e-12)
    for k, n in ((0, 5), (5, 5), (25_500, 51_000)):
        z, p = 1.959963984540054, k / n
        middle, half = (p + z * z / (2 * n)), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        expected = (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
        assert metrics.wilson(k, n) == pytest.approx(expected, abs=1e-9)
    low, high = metrics.wilson(round(0.785 * 882), 882)
    assert (high - low) / 2 == pytest.approx(0.027, abs=5e-4)  # the sampling error that is known of this test set
    assert metrics.wilson(0, 0) == (0.0, 1.0)


def test_calibration_error_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    probabilities = rng.dirichlet((1, 1, 1), 700)
    probabilities[:3] = [[0.4, 0.3, 0.3], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]]  # on the edges of bins
    label = rng.integers(0, 3, 700)
    bins = metrics.reliability(probabilities, label)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == label
    edges, expected = np.linspace(0, 1, 16), 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.calibration_error(bins) == pytest.approx(expected, abs=1e-12)
    assert sum(one.n for one in bins) == 700


def test_calibration_error_by_hand() -> None:
    bins = metrics.reliability(np.array([[0.9, 0.1, 0.0], [0.0, 0.1, 0.9], [0.5, 0.3, 0.2]]), np.array([0, 0, 0]))
    assert metrics.calibration_error(bins) == pytest.approx((2 * abs(0.5 - 0.9) + abs(1 - 0.5)) / 3)


def test_bins_of_text_confidence() -> None:
    confidence = np.array([0.85, 0.850001, 0.9, 1.0, np.nan, 0.0], dtype=np.float32)
    bins = metrics.by_text_confidence(confidence, np.array([True, False, True, True, True, False]))
    found = [(one.low, one.high, one.n, one.num_right) for one in bins]
    assert found == [(0.0, 0.5, 1, 0), (0.8, 0.85, 1, 1), (0.85, 0.9, 2, 1), (0.98, 1.0, 1, 1)]


def test_two_way_decides_by_logits_where_probabilities_are_gone() -> None:
    logits = np.array([[-950.0, 50.0, -900.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    probabilities = np.array([[0.0, 1.0, 0.0], [0.24, 0.09, 0.67], [0.4, 0.2, 0.4]])
    answers, is_neutral = metrics.two_way(probabilities, logits)
    assert (answers.tolist(), is_neutral.tolist()) == ([1, 1, 0], [True, False, False])
    logits[1] = np.nan
    assert metrics.two_way(probabilities, logits)[0].tolist() == [1, 1, 0]
    assert metrics.two_way(np.array([[0.1, 0.7, 0.2]]))[0].tolist() == [1]


def test_mcnemar() -> None:
    ours = np.array([True] * 1 + [False] * 6 + [True] * 20)
    other = np.array([False] * 1 + [True] * 6 + [True] * 20)
    # (1 of 7) or further out, on both sides: 2 (1 + 7) / 2^7
    assert metrics.mcnemar(ours, other) == (1, 6, pytest.approx(0.125))
    rng = np.random.default_rng(1)
    one, two = rng.random(400) < 0.6, rng.random(400) < 0.5
    b, c, p = metrics.mcnemar(one, two)
    assert p == binomtest(b, b + c, 0.5).pvalue < 0.05
    assert metrics.mcnemar(one, one) == (0, 0, 1.0)


def test_paired_bootstrap_is_that_of_resampled_rows() -> None:
    rng = np.random.default_rng(2)
    one = rng.random(300) < 0.6
    two = np.where(rng.random(300) < 0.8, one, rng.random(300) < 0.4)
    difference, low, high = metrics.paired_bootstrap(one, two)
    gain = one.astype(int) - two.astype(int)
    means = gain[rng.integers(0, 300, (10_000, 300))].mean(axis=1)
    assert difference == pytest.approx(gain.mean())
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.005)
    assert metrics.paired_bootstrap(one, two) == (difference, low, high)  # seeded
    assert metrics.paired_bootstrap(one, one) == (0.0, 0.0, 0.0)
