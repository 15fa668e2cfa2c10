"""One protocol for every system: subsets by agreement, five folds, seeds; what is kept of each, and what is told.

Folds: "published" are the release's own columns (UPC's lists where the user's copy has them: 880/1,115/1,265 images,
some twins on both sides; docs/how-to/twitter-testing.md); "leak-free" ones cover all images and keep twins, and the
pictures of one tweet, together. Predictions of each (level, folds, fold, seed) are a small file under a fingerprint of
all that they depend on: what is there is not computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from examples.errors import Needs
from examples.evaluation import metrics
from examples.systems.data import Floats, Ints, Pictures
from t4sa_data.files import sha256_file, write_json

Folds = Literal["published", "leak-free"]
Crops = Literal["one", "ten"]
FOLDS: tuple[Folds, ...] = ("published", "leak-free")
NUM_FOLDS = 5
FOLD_SEED = 2017
"""Of the leak-free folds: the same for every system and seed."""
MODEL_JSON = "model.json"
"""Of a model folder; `examples.models.folder` needs torch."""
VERSION = 1
"""Bumped by hand when equal inputs give other predictions."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a system is told besides its rows."""

    seed: int = 0
    smoke: bool = False
    """Small enough for seconds on one core; the number means nothing."""
    device: str = "cpu"
    work: Path
    """Folder for what may be kept between folds: features, checkpoints."""
    init: Path | None = None
    """What the user brings: a model folder, a table of scores."""
    crops: Crops = "one"
    """Of testing, deep rows: one in the middle, or ten."""
    system: str = ""
    """The row, as the catalog names it: one module may serve several."""


FitPredict = Callable[[Pictures, Ints, Ints, Options], Floats]
"""(data, rows to train on, rows to test on, options) -> probability of positive, shape (len(test),)."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Predictions of one fold."""

    number: int
    """1 to 5; 0: tested as is, no folds."""
    seed: int
    test: Ints
    """Rows, shape (n,)."""
    positive: Floats
    """Probability of positive, shape (n,)."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A cell of the table. Shares are 0 to 1."""

    accuracy: float
    """Of all images of all folds together; over several seeds, the mean."""
    low: float
    high: float
    """95 % interval (Wilson) for n images, however many seeds there are: seeds are no further images."""
    n: int
    floor: float
    """Accuracy of always answering the larger class."""
    fold_mean: float
    fold_sd: float
    """Over the folds of the first seed; NaN for fewer than two."""
    seed_sd: float
    """Over the seeds; NaN for fewer than two."""
    num_seeds: int
    is_right: Mapping[str, bool]
    """Key -> right, first seed: what McNemar's test pairs."""


def fold_rows(data: Pictures, level: int, folds: Folds) -> list[tuple[Ints, Ints]]:
    """Rows to train on and to test on, for each of the five folds.

    Raises:
        Needs: the release has no folds of this level, or too few images for five.
    """
    rows = data.rows(level)
    if folds == "published":
        if level not in data.folds:
            raise Needs(
                "no published folds of this level", expected="a copy with UPC's fold lists", got=f"level {level}"
            )
        number = data.folds[level][rows]
    else:
        number = leak_free(data.label[rows], data.group[rows])
    found = [(rows[(number != k) & (number > 0)], rows[number == k]) for k in range(1, NUM_FOLDS + 1)]
    if any(len(test) == 0 or len(np.unique(data.label[train])) < 2 for train, test in found):
        raise Needs("too few images for five folds", got=f"{len(rows)} of level {level}")
    return found


def leak_free(label: Ints, group: Ints, seed: int = FOLD_SEED) -> Ints:
    """Fold of each image, 1 to 5: groups stay together, classes are balanced.

    Args:
        label: shape (n,).
        group: shape (n,).
        seed: another one, other folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    number = np.zeros(len(label), dtype=np.int64)
    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    for k, (_, test) in enumerate(splitter.split(label, label, group)):
        number[test] = k + 1
    return number


def cross_validate(
    fit_predict: FitPredict,
    data: Pictures,
    options: Options,
    *,
    level: int,
    folds: Folds,
    seeds: Sequence[int],
    version: int = 1,
) -> Result:
    """Train on four folds and test on the fifth, five times, for each seed.

    Args:
        fit_predict: the system.
        data: the pictures.
        options: `seed` is set here; predictions are kept in `work/predictions`.
        level: of agreement.
        folds: which ones.
        seeds: at least one.
        version: of the system; see VERSION.

    Raises:
        Needs: the user must bring a file first.
    """
    done = []
    for seed in seeds:
        for number, (train, test) in enumerate(fold_rows(data, level, folds), 1):
            own = replace(options, seed=seed)
            positive = kept_prediction(fit_predict, data, train, test, own, version=version)
            done.append(Fold(number=number, seed=seed, test=test, positive=positive))
    return pooled(data, done)


def kept_prediction(
    fit_predict: FitPredict, data: Pictures, train: Ints, test: Ints, options: Options, *, version: int = 1
) -> Floats:
    """Predictions of one fold: those kept under their fingerprint, else computed and kept; shape (len(test),).

    Raises:
        ValueError: the system did not give one probability for each row.
    """
    about = {
        "protocol": VERSION,
        "system": [options.system, f"{fit_predict.__module__}.{fit_predict.__qualname__}", version],
        "data": data.digest,
        "train": _digest(train),
        "test": _digest(test),
        "seed": options.seed,
        "smoke": options.smoke,
        "init": digest_of(options.init),
    } | ({} if options.crops == "one" else {"crops": options.crops})
    fingerprint = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = options.work / "predictions" / f"{fingerprint[:24]}.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["fingerprint"] == fingerprint:
            return np.array(kept["positive"], dtype=np.float64)
    positive = np.asarray(fit_predict(data, train, test, options), dtype=np.float64)
    if positive.shape != test.shape or not np.isfinite(positive).all() or (np.abs(positive - 0.5) > 0.5).any():
        raise ValueError(f"{options.system}: expected {len(test)} probabilities, got shape {positive.shape}")
    keys = [data.keys[row] for row in test]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"fingerprint": fingerprint, **about, "keys": keys, "positive": positive.tolist()})
    return positive


def pooled(data: Pictures, done: Sequence[Fold]) -> Result:
    """Accuracy of all folds together, with its interval, and how far folds and seeds are apart."""
    seeds = sorted({one.seed for one in done})
    right = {seed: dict(_right(data, (one for one in done if one.seed == seed))) for seed in seeds}
    first = right[seeds[0]]
    by_seed = [float(np.mean(list(right[seed].values()))) for seed in seeds]
    accuracy, n = float(np.mean(by_seed)), len(first)
    low, high = metrics.wilson(round(accuracy * n), n)
    by_fold = [float(np.mean(_is_right(data, one))) for one in done if one.seed == seeds[0]]
    rows = np.concatenate([one.test for one in done if one.seed == seeds[0]])
    return Result(
        accuracy=accuracy,
        low=low,
        high=high,
        n=n,
        floor=metrics.majority_floor(data.label[rows]),
        fold_mean=float(np.mean(by_fold)),
        fold_sd=_sd(by_fold),
        seed_sd=_sd(by_seed),
        num_seeds=len(seeds),
        is_right=first,
    )


def against(one: Result, other: Result) -> tuple[int, int, float]:
    """McNemar's exact test on the images that both were tested on: only the first right, only the other, p-value."""
    keys = [key for key in one.is_right if key in other.is_right]
    first, second = (np.array([result.is_right[key] for key in keys], dtype=bool) for result in (one, other))
    return metrics.mcnemar(first, second)


def digest_of(path: Path | None) -> str | None:
    """sha256 of a file, of a model folder's model.json (it has those of its files), or of a folder's names and files;
    None of nothing.

    Raises:
        Needs: it is not there.
    """
    if path is None:
        return None
    if (path / MODEL_JSON).is_file():  # whoever loads the files checks them against it
        return sha256_file(path / MODEL_JSON)
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise Needs("what was brought is not there", where=path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    lines = [f"{one.relative_to(path).as_posix()} {sha256_file(one)}\n" for one in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _right(data: Pictures, done: Iterator[Fold]) -> Iterator[tuple[str, bool]]:
    for one in done:
        yield from zip((data.keys[row] for row in one.test), _is_right(data, one), strict=True)


def _is_right(data: Pictures, one: Fold) -> list[bool]:
    return [bool(right) for right in (one.positive > 0.5) == (data.label[one.test] == 1)]


def _sd(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _digest(rows: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()
