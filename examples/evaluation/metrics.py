"""Figures of a classifier, as functions of arrays: no files, no torch.

Shapes: n samples, K classes (3; 2 for two-way). A confusion matrix has a row a ground truth, a column a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]

LEVEL = 0.95
"""Of all intervals."""
NUM_BINS = 15
"""Of the expected calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""
CONFIDENCE_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
"""Bins of the text labeller's confidence, each without its lower and with its upper edge. Finer above 0.85, where the
released rows seem to begin."""
NUM_RESAMPLES = 10_000
"""Of the bootstrap."""


def confusion(label: Ints, predicted: Ints, num_classes: int = 3) -> Ints:
    """Counts of (ground truth, prediction), int64 [K, K].

    >>> confusion(np.array([0, 0, 2]), np.array([0, 1, 2])).tolist()
    [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    """
    counts = np.bincount(label * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


def accuracy(counts: Ints) -> float:
    """Share of right answers, 0 to 1, of a confusion matrix."""
    return float(np.trace(counts) / counts.sum())


def recall(counts: Ints) -> list[float | None]:
    """For each class, the share of its samples that are recognised; None where it has none."""
    return [float(counts[k, k] / row.sum()) if row.sum() else None for k, row in enumerate(counts)]


def macro_f1(counts: Ints) -> float:
    """Mean over the classes of 2 TP / (2 TP + FP + FN); 0 for a class that is nowhere, as scikit-learn has it."""
    right = np.diag(counts)
    whole = counts.sum(0) + counts.sum(1)
    return float(np.mean(np.divide(2 * right, whole, out=np.zeros(len(counts)), where=whole > 0)))


def majority_floor(label: Ints) -> float:
    """Accuracy of always answering the most frequent class.

    >>> majority_floor(np.array([0, 2, 2, 2]))
    0.75
    """
    return float(np.bincount(label).max() / len(label))


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, k of n (Wilson 1927); of nothing: 0 to 1."""
    from scipy.stats import binomtest

    if n == 0:
        return 0.0, 1.0
    found = binomtest(int(k), int(n)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Samples whose confidence lies in (low, high]."""

    low: float
    high: float
    n: int
    num_right: int
    confidence: float
    """Their mean confidence."""

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.num_right / self.n


def binned(confidence: Floats, is_right: Bools, edges: Floats | tuple[float, ...]) -> list[Bin]:
    """Right answers by confidence; bins with nothing in them, and samples without a confidence (NaN), are left out.

    Args:
        confidence: shape (n,), 0 to 1.
        is_right: shape (n,).
        edges: ascending; a bin has its upper edge, the first its lower one, too.
    """
    values = confidence.astype(np.float64)
    known = ~np.isnan(values)
    values, is_right = values[known], is_right[known]
    last = len(edges) - 2
    place = np.clip(np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="left") - 1, 0, last)
    made = []
    for k in np.unique(place).tolist():
        inside = place == k
        made.append(
            Bin(
                low=round(float(edges[k]), 6),
                high=round(float(edges[k + 1]), 6),
                n=int(inside.sum()),
                num_right=int(is_right[inside].sum()),
                confidence=float(values[inside].mean()),
            )
        )
    return made


def reliability(probabilities: Floats, label: Ints, num_bins: int = NUM_BINS) -> list[Bin]:
    """Accuracy by the largest probability, in bins of equal width.

    Args:
        probabilities: shape (n, K).
        label: shape (n,).
        num_bins: over 0 to 1.
    """
    right = probabilities.argmax(axis=1) == label
    return binned(probabilities.max(axis=1), right, np.linspace(0, 1, num_bins + 1))


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: mean over the samples of |accuracy - confidence| of their bin (Guo et al. 2017)."""
    return sum(abs(one.num_right - one.n * one.confidence) for one in bins) / sum(one.n for one in bins)


def by_text_confidence(confidence: Floats, is_right: Bools) -> list[Bin]:
    """Right answers by the confidence of the text labeller, that is by how sure the label is."""
    return binned(confidence, is_right, np.asarray(CONFIDENCE_EDGES, dtype=np.float32))


def two_way(probabilities: Floats, logits: Floats | None = None) -> tuple[Ints, Bools]:
    """Two-way answers of three-way scores: the neutral column is dropped, then argmax (`catalog.PROTOCOL`).

    Args:
        probabilities: shape (n, 3).
        logits: shape (n, 3): decide in place of the probabilities, which may both be 0; rows with a NaN fall back.

    Returns:
        0 negative, 1 positive, shape (n,); whether neutral had the largest score, shape (n,).

    >>> two_way(np.array([[0.0, 1.0, 0.0]]), np.array([[-50.0, 90.0, -40.0]]))
    (array([1]), array([ True]))
    """
    scores = three_way_scores(probabilities, logits)
    return scores[:, [0, 2]].argmax(axis=1), scores.argmax(axis=1) == 1


def three_way_scores(probabilities: Floats, logits: Floats | None) -> Floats:
    """What an answer is the largest of: logits where there are any, else probabilities; shape (n, 3)."""
    if logits is None:
        return probabilities
    return np.where(np.isnan(logits).any(axis=1, keepdims=True), probabilities, logits)


def mcnemar(first_right: Bools, second_right: Bools) -> tuple[int, int, float]:
    """McNemar's exact test of two models on the same n samples.

    Args:
        first_right: shape (n,).
        second_right: shape (n,).

    Returns:
        samples only the first has right, only the second has right, and the two-sided p-value (binomial, 1/2).
    """
    from scipy.stats import binomtest

    first = int((first_right & ~second_right).sum())
    second = int((second_right & ~first_right).sum())
    return first, second, 1.0 if first + second == 0 else float(binomtest(first, first + second).pvalue)


def paired_bootstrap(first_right: Bools, second_right: Bools, *, seed: int = 0) -> tuple[float, float, float]:
    """Difference of two accuracies on the same n samples, with its 95 % percentile interval.

    A sample's contribution is 1, 0 or -1, so a resample of n samples is one multinomial draw of three counts.

    Args:
        first_right: shape (n,).
        second_right: shape (n,).
        seed: of the NUM_RESAMPLES draws.

    Returns:
        accuracy of the first minus that of the second, and the interval's ends.
    """
    n = len(first_right)
    gains = np.array([(first_right & ~second_right).sum(), (second_right & ~first_right).sum()])
    shares = np.array([*gains, n - gains.sum()]) / n
    drawn = np.random.default_rng(seed).multinomial(n, shares, size=NUM_RESAMPLES)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / n, [tail, 100 - tail])
    return float((gains[0] - gains[1]) / n), float(low), float(high)
