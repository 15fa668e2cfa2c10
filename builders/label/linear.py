"""A linear SVM with calibrated probabilities: alone on words (a baseline), and as the tandem's second half."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from builders.label.features import Floats

SEED = 0
Ints = npt.NDArray[np.int64]


def fit_svm(features: Any, labels: Ints, c: float) -> tuple[Floats, Floats]:
    """One-against-rest linear SVM (LIBLINEAR); weights, shape (3, features), and intercepts, shape (3,).

    scikit-learn's weights are Fortran-ordered, and safetensors scrambles such arrays: these are contiguous.
    """
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=c, random_state=SEED).fit(features, labels)
    return np.ascontiguousarray(svm.coef_, dtype=np.float32), np.ascontiguousarray(svm.intercept_, dtype=np.float32)


def margins(features: Any, weights: Floats, intercept: Floats) -> npt.NDArray[np.float64]:
    """Distances from the three planes, shape (rows, 3)."""
    return np.asarray(features @ weights.T, dtype=np.float64) + intercept


def out_of_fold(features: Any, labels: Ints, folds: Ints, c: float) -> npt.NDArray[np.float64]:
    """Margins of each row by an SVM that was not trained on its fold, shape (rows, 3)."""
    made = np.zeros((len(labels), 3))
    for fold in np.unique(folds):
        held = folds == fold
        made[held] = margins(features[held], *fit_svm(features[~held], labels[~held], c))
    return made


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Multinomial Platt scaling: a logistic regression from scores to probabilities (Platt 1999, several classes at
    once). Fitted on scores that were made out of fold; on others its probabilities are far too sure."""

    weights: Floats
    """Shape (3, scores)."""
    intercept: Floats
    """Shape (3,)."""

    @classmethod
    def fit(cls, scores: npt.NDArray[np.float64], labels: Ints) -> Self:
        """Scores, shape (rows, any), with their labels."""
        from sklearn.linear_model import LogisticRegression

        fitted = LogisticRegression(C=1.0, max_iter=2000, tol=1e-8).fit(scores, labels)
        return cls(
            weights=np.ascontiguousarray(fitted.coef_, dtype=np.float32),
            intercept=np.ascontiguousarray(fitted.intercept_, dtype=np.float32),
        )

    def probabilities(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Shape (rows, 3)."""
        logits = scores @ self.weights.astype(np.float64).T + self.intercept
        logits -= logits.max(axis=1, keepdims=True)
        made: npt.NDArray[np.float64] = np.exp(logits)
        made /= made.sum(axis=1, keepdims=True)
        return made
