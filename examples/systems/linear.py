"""The classifier of the low- and mid-level rows: square root, linear SVM, C by cross-validation inside the training.

You et al. (AAAI 2015) used an SVM on these features after Siersdorfer et al. (ACM MM 2010) [recalled]; kernel and C are
not known. Ours: the Hellinger map (square root of histograms that sum to 1) and LinearSVC. An RBF kernel on
standardised histograms collapsed to the larger class in this project's trial, so it is not offered [measured].
The probability is a logistic function of the margin: its side of 0.5 is the SVM's answer, its size is not calibrated.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from examples.systems.data import Floats, Ints

C_CHOICES = (0.01, 0.1, 1.0, 10.0, 100.0)
NUM_INNER_FOLDS = 3


def square_root(blocks: list[Floats]) -> Floats:
    """Histograms, each summing to 1 (or 0: nothing seen), side by side under the Hellinger map; shape (n, sum of D).

    >>> square_root([np.array([[0.25, 0.75]]), np.array([[1.0]])]).round(2).tolist()
    [[0.35, 0.61, 0.71]]
    """
    return np.asarray(np.sqrt(np.concatenate(blocks, axis=1) / len(blocks)))


def fit_svm(train_ND: Floats, label: Ints, *, seed: int) -> Any:
    """A linear SVM; C is the least of the best by inner cross-validation, of C_CHOICES.

    Args:
        train_ND: features, one row a picture.
        label: 0 or 1, shape (N,), both present.
        seed: of the inner folds and of the solver.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.svm import LinearSVC

    svm = LinearSVC(random_state=seed, max_iter=5000)
    num = min(NUM_INNER_FOLDS, int(np.bincount(label, minlength=2).min()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ConvergenceWarning at the largest C: such a C is judged like any other
        if num < 2:
            return svm.fit(train_ND, label)
        inner = StratifiedKFold(num, shuffle=True, random_state=seed)
        return GridSearchCV(svm, {"C": list(C_CHOICES)}, cv=inner).fit(train_ND, label).best_estimator_


def positive_of(svm: Any, test_ND: Floats) -> Floats:
    """Probability of positive, shape (N,): the logistic function of the margin."""
    margin = np.clip(svm.decision_function(test_ND), -50, 50)
    return np.asarray(1 / (1 + np.exp(-margin)))
