"""How good probabilities of negative, neutral and positive are: figures with intervals, calibration, coverage.

Macro recall is meant for the `uniform` rule (the training data's share of classes divided out), everything that reads a
probability as one for `raw`: measure both, `evaluate(p, y)` and `evaluate(p, y, prior)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from t4sa_data.errors import BadOption, NoRows, UnknownLabel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLASSES = ("negative", "neutral", "positive")
BINS = 15
"""Of equal width, for the calibration error (Guo et al. 2017)."""
TOP = (10, 20, 30, 50)
"""Percent of the rows, the most confident ones, that accuracy is given of."""
DRAWS, CONFIDENCE, SEED = 1000, 0.95, 0
"""Of the bootstrap (percentile intervals)."""
SMALLEST = 1e-15
"""Probabilities below count as this in the log-likelihood."""
_CHUNK_CELLS = 2_000_000
"""Draws times rows that are worked on at a time: 16 MB an array."""
NEGATIVE, _NEUTRAL, POSITIVE = range(3)


def uniform(probabilities: npt.ArrayLike, prior: npt.ArrayLike) -> Floats:
    """Probabilities as they would be if the three classes were equally frequent: divided by the prior, normalised.

    Args:
        probabilities: under the prior, shape (rows, 3).
        prior: share of each class in the training data, shape (3,), all above 0.

    Raises:
        BadOption: a share that is not above 0, or other shapes.

    >>> uniform([[0.2, 0.5, 0.3]], [0.2, 0.5, 0.3]).round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    p, shares = _probabilities(probabilities), np.asarray(prior, dtype=np.float64)
    if shares.shape != (3,) or not (np.isfinite(shares) & (shares > 0)).all():
        raise BadOption("no prior to divide by", expected="three shares above 0", got=shares.tolist())
    made: Floats = p / shares
    made /= made.sum(axis=1, keepdims=True)
    return made


def by_confidence(probabilities: npt.ArrayLike) -> Ints:
    """Rows, the most confident first; those that are equal in their own order."""
    return np.argsort(-_probabilities(probabilities).max(axis=1), kind="stable")


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Rows by their largest probability, in bins of equal width (lower edge exclusive)."""

    edges: Floats
    """Shape (bins + 1,)."""
    count: Ints
    """Rows, shape (bins,)."""
    confidence: Floats
    """Mean largest probability; NaN where there is no row, shape (bins,)."""
    accuracy: Floats
    """Share of rows whose most probable class is theirs; NaN where there is no row, shape (bins,)."""

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean over rows of |accuracy - confidence| of their bin."""
        gaps = np.abs(np.nan_to_num(self.accuracy - self.confidence))
        return float((gaps * self.count).sum() / self.count.sum())


def reliability(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS) -> Reliability:
    """Confidence beside accuracy.

    Args:
        probabilities: shape (rows, 3).
        labels: 0, 1, 2, shape (rows,).
        bins: of equal width from 0 to 1.

    Raises:
        BadOption, NoRows, UnknownLabel: as `evaluate`.
    """
    p, y = checked(probabilities, labels)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    number = _bins(confidence, bins)
    count = np.bincount(number, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges=np.linspace(0, 1, bins + 1),
            count=count,
            confidence=np.bincount(number, confidence, bins) / count,
            accuracy=np.bincount(number, right, bins) / count,
        )


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What is right among the k most confident rows, k = 1, 2, ...; shape (rows,) each."""

    share: Floats
    """k of all rows."""
    threshold: Floats
    """The least largest probability among them."""
    accuracy: Floats
    """Share of them whose most probable class is theirs."""


def coverage(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Coverage:
    """The accuracy/coverage curve.

    Raises:
        BadOption, NoRows, UnknownLabel: as `evaluate`.
    """
    p, y = checked(probabilities, labels)
    order = by_confidence(p)
    rank = np.arange(1, len(y) + 1)
    right = np.cumsum((p.argmax(axis=1) == y)[order])
    return Coverage(share=rank / len(y), threshold=p.max(axis=1)[order], accuracy=right / rank)


def evaluate(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    prior: npt.ArrayLike | None = None,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> dict[str, Any]:
    """All figures of one set of probabilities.

    Args:
        probabilities: shape (rows, 3).
        labels: 0, 1, 2, shape (rows,).
        prior: None: `probabilities` as they are (raw); else divided by it first, see `uniform`.
        draws: of the bootstrap; 0: no intervals.
        seed: of the bootstrap.

    Returns:
        values for JSON: `n`; `macro_recall` (over the classes that occur), `accuracy`, `f1_negative_positive` (mean F1
        of negative and positive), `ece`, `nll` (nats a row), `top_10` .. `top_50` (accuracy of so many percent, the
        most confident ones); `recall` and `precision` of each class (None: it does not occur, or is never said);
        `confusion` (rows: truth, columns: said); `intervals`: name -> [low, high] of the single figures.

    Raises:
        BadOption: shapes that do not fit, numbers that are not finite or below 0.
        NoRows: nothing to measure.
        UnknownLabel: a label that is not 0, 1 or 2.
    """
    p, y = checked(probabilities, labels)
    if prior is not None:
        p = uniform(p, prior)
    rows = _Rows.of(p, y)
    figures = {name: float(value[0]) for name, value in rows.figures(np.ones((1, len(y)))).items()}
    confusion = np.bincount(y * 3 + p.argmax(axis=1), minlength=9).reshape(3, 3)
    hits, true, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    made: dict[str, Any] = {"n": len(y), **figures}
    for name, of in (("recall", true), ("precision", said)):
        made[name] = {c: float(h / k) if k else None for c, h, k in zip(CLASSES, hits, of, strict=True)}
    made["confusion"] = confusion.tolist()
    if draws:
        found = [rows.figures(weights) for weights in resamples(len(y), draws, seed)]
        made["intervals"] = {name: interval(np.concatenate([one[name] for one in found])) for name in figures}
    return made


def compare(
    one: npt.ArrayLike, other: npt.ArrayLike, labels: npt.ArrayLike, *, draws: int = DRAWS, seed: int = SEED
) -> dict[str, dict[str, Any]]:
    """What `one` is better by than `other` on the same rows; the intervals are paired, so that they tell more than two.

    Returns:
        name -> {`difference`, `interval`, `positive` (share of draws in which it is above 0)}, names of `evaluate`.
    """
    y = checked(one, labels)[1]
    first, second = (_Rows.of(*checked(p, labels)) for p in (one, other))
    whole = np.ones((1, len(y)))
    found = [(first.figures(w), second.figures(w)) for w in resamples(len(y), draws, seed)]
    made: dict[str, dict[str, Any]] = {}
    for name, value in first.figures(whole).items():
        gaps = np.concatenate([a[name] - b[name] for a, b in found])
        made[name] = {
            "difference": float((value - second.figures(whole)[name])[0]),
            "interval": interval(gaps),
            "positive": float((gaps > 0).mean()),
        }
    return made


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows, the most confident first, as sums that weights can be put to."""

    counted: Floats
    """Of each row: its cell of the confusion (9), confidence less right in its bin (`BINS`), its log-loss (1)."""
    right: npt.NDArray[np.bool_]
    order: Ints

    @classmethod
    def of(cls, p: Floats, y: Ints) -> _Rows:
        order = by_confidence(p)
        p, y = p[order], y[order]
        said, confidence, rank = p.argmax(axis=1), p.max(axis=1), np.arange(len(y))
        counted = np.zeros((len(y), 9 + BINS + 1))
        counted[rank, y * 3 + said] = 1
        counted[rank, 9 + _bins(confidence, BINS)] = confidence - (said == y)
        counted[:, -1] = -np.log(np.maximum(p[rank, y], SMALLEST))
        return cls(counted=counted, right=said == y, order=order)

    def figures(self, weights: Floats) -> dict[str, Floats]:
        """The single figures, each for every draw: shape (draws,).

        Args:
            weights: how often each row was drawn, in the rows' own order, shape (draws, rows).
        """
        num = weights.shape[1]
        weights = weights[:, self.order]
        sums = weights @ self.counted
        cells = sums[:, :9].reshape(-1, 3, 3)
        hits = np.diagonal(cells, axis1=1, axis2=2)
        true, said = cells.sum(axis=2), cells.sum(axis=1)
        recall = np.divide(hits, true, out=np.zeros_like(hits), where=true > 0)
        f1 = np.divide(2 * hits, true + said, out=np.zeros_like(hits), where=true + said > 0)
        made = {
            "macro_recall": recall.sum(axis=1) / (true > 0).sum(axis=1),
            "accuracy": hits.sum(axis=1) / num,
            "f1_negative_positive": (f1[:, NEGATIVE] + f1[:, POSITIVE]) / 2,
            "ece": np.abs(sums[:, 9:-1]).sum(axis=1) / num,
            "nll": sums[:, -1] / num,
        }
        drawn, right = np.cumsum(weights, axis=1), np.cumsum(weights * self.right, axis=1)
        draw = np.arange(len(weights))
        for percent in TOP:
            most = max(1, num * percent // 100)
            last = (drawn < most).sum(axis=1)  # the row that the most-th one drawn is
            beyond = (drawn[draw, last] - most) * self.right[last]
            made[f"top_{percent}"] = (right[draw, last] - beyond) / most
        return made


def resamples(num: int, draws: int = DRAWS, seed: int = SEED) -> Iterator[Floats]:
    """How often each of `num` rows is drawn, with replacement, `num` times; shape (some draws, num) at a time."""
    chance = np.random.default_rng(seed)
    step = max(1, _CHUNK_CELLS // num)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        drawn = chance.integers(0, num, (count, num)) + np.arange(count)[:, None] * num
        yield np.bincount(drawn.ravel(), minlength=count * num).reshape(count, num).astype(np.float64)


def interval(values: Floats, confidence: float = CONFIDENCE) -> list[float]:
    """Percentile interval of a figure's draws: [low, high]."""
    tail = (1 - confidence) / 2
    return [float(x) for x in np.quantile(values, [tail, 1 - tail])]


def checked(probabilities: npt.ArrayLike, labels: npt.ArrayLike | Sequence[int]) -> tuple[Floats, Ints]:
    """Probabilities, shape (rows, 3), and labels, shape (rows,), fit to be measured.

    Raises:
        BadOption, NoRows, UnknownLabel: see `evaluate`.
    """
    p, y = _probabilities(probabilities), np.asarray(labels)
    if y.shape != (len(p),):
        raise BadOption("labels and probabilities do not fit", expected=f"{len(p)} labels", got=f"shape {y.shape}")
    if not len(p):
        raise NoRows("nothing to measure", expected="at least one row", got=0)
    odd = np.flatnonzero(~np.isin(y, (0, 1, 2)))
    if len(odd):
        raise UnknownLabel("unknown label", expected="0, 1 or 2", got=y[odd[0]].item(), where=f"row {odd[0]}")
    return p, y.astype(np.int64)


def _probabilities(probabilities: npt.ArrayLike) -> Floats:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != 3:
        raise BadOption("no table of three probabilities", expected="shape (rows, 3)", got=f"shape {p.shape}")
    odd = np.flatnonzero(~(np.isfinite(p) & (p >= 0)).all(axis=1))
    if len(odd):
        raise BadOption("no probabilities", expected="numbers from 0", got=p[odd[0]].tolist(), where=f"row {odd[0]}")
    return p


def _bins(confidence: Floats, bins: int) -> Ints:
    # Lower edge exclusive; the subtraction keeps what only rounding lifted over an edge below it.
    return np.clip(np.ceil(confidence * bins - 1e-9).astype(np.int64) - 1, 0, bins - 1)
