"""Table 1's protocol: trained on B-T4SA, tested as it is, on the Twitter Testing Dataset and on B-T4SA's test split.

A two-way system learns from B-T4SA's negative and positive pictures (neutral dropped) and has no three-way answer; the
last column of its row says so, and what to bring for one. The catalog does not hold how the paper filled these cells
[unknown].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from examples.errors import Needs
from examples.evaluation import metrics
from examples.evaluation.predictions import label_of, logits_of, probabilities_of, read_truth
from examples.systems import chance, released
from examples.systems.data import LEVELS, TWITTER, Floats, Ints, Pictures, joined, open_pictures
from examples.systems.protocol import Fold, Options, Result, kept_prediction, pooled
from t4sa_data.errors import ConfigUnavailable, NoRows
from t4sa_data.reading import open_release

B_T4SA = ("b-t4sa", "b-t4sa-256")
"""The first that the release holds."""
NO_TWITTER = "not run: a release with twitter-testing is needed, see docs/how-to/twitter-testing.md"
TWO_WAY_ONLY = "answers two ways only; bring one of three classes: --init with RUN/best of {trainer}"
TRAINERS = {"CNN": "examples/train.py --recipe you-cnn", "PCNN": "examples/systems/progressive.py"}
Cells = dict[int | str, "Result | str"]
"""Level (5, 4, 3) or "b_t4sa" -> result, or why there is none."""


def cells(data: str | Path, module: Any, options: Options, *, seeds: list[int], is_released: bool) -> Cells:
    """The row's cells.

    Args:
        data: a release.
        module: of the system; see `registry.module_of`.
        options: see there.
        seeds: of what is trained or drawn.
        is_released: it is a network of three classes that is there already, `options.init`.

    Raises:
        Needs: the user must bring a file first.
        WeightsMismatch: what was brought for CNN or PCNN is another network.
    """
    twitter = _twitter(data)
    if is_released:
        if options.system in TRAINERS and options.init is not None:
            from examples.systems import you_cnn

            you_cnn.brought(options.init)  # refuses another network
        found = _of_two_ways(twitter, lambda pictures: [(0, _two_way(data, pictures, options))])
        found["b_t4sa"] = _three_way(data, lambda config: _answers(released.predictions(data, config, options)))
        return found
    is_chance = module is chance
    found = _of_two_ways(twitter, lambda pictures: _learned(data, pictures, module, options, seeds, is_chance))
    if is_chance:
        found["b_t4sa"] = _three_way(data, lambda config: _guesses(data, config, seeds[0]))
    else:
        found["b_t4sa"] = TWO_WAY_ONLY.format(trainer=TRAINERS[options.system])
    return found


def _twitter(data: str | Path) -> Pictures | None:
    """The Twitter Testing Dataset; None where the release has none."""
    return open_pictures(data) if TWITTER in open_release(data).manifest.configs else None


def _learned(
    data: str | Path, twitter: Pictures, module: Any, options: Options, seeds: list[int], is_chance: bool
) -> list[tuple[int, Floats]]:
    """Each seed's probabilities of positive after training on B-T4SA (or none), shape (n,)."""
    weak = None if is_chance else _weak(data)
    both = twitter if weak is None else joined(weak, twitter)
    start = 0 if weak is None else len(weak)
    train, test = np.arange(start, dtype=np.int64), np.arange(start, len(both), dtype=np.int64)
    version = getattr(module, "VERSION", 1)
    return [
        (seed, kept_prediction(module.fit_predict, both, train, test, replace(options, seed=seed), version=version))
        for seed in seeds
    ]


def _of_two_ways(twitter: Pictures | None, ask: Callable[[Pictures], list[tuple[int, Floats]]]) -> Cells:
    if twitter is None:
        return dict.fromkeys(LEVELS, NO_TWITTER)
    found, done = Cells(), ask(twitter)
    for level in LEVELS:
        rows = twitter.rows(level)
        folds = [Fold(number=0, seed=seed, test=rows, positive=positive[rows]) for seed, positive in done]
        found[level] = pooled(twitter, folds) if len(rows) else f"no picture of level {level}"
    return found


def _two_way(data: str | Path, twitter: Pictures, options: Options) -> Floats:
    """1 where the answer is positive, else 0, shape (n,)."""
    table = released.predictions(data, TWITTER, options)
    answer, _ = metrics.two_way(probabilities_of(table), logits_of(table))
    by_key = dict(zip(table["key"].to_pylist(), answer.tolist(), strict=True))
    return np.array([float(by_key[key]) for key in twitter.keys])


def _answers(table: Any) -> tuple[list[str], Ints, Ints]:
    scores = metrics.three_way_scores(probabilities_of(table), logits_of(table))
    return table["key"].to_pylist(), label_of(table), scores.argmax(axis=1)


def _guesses(data: str | Path, config: str, seed: int) -> tuple[list[str], Ints, Ints]:
    truth = read_truth(open_release(data), config)
    keys = truth["key"].to_pylist()
    return keys, label_of(truth), np.array([int(3 * chance.draw(key, seed)) for key in keys])


def held_config(data: str | Path) -> str | None:
    """Of `B_T4SA`, the first whose test split the release holds; None: neither."""
    held = open_release(data).manifest.configs
    return next((config for config in B_T4SA if config in held), None)


def _three_way(data: str | Path, ask: Any) -> Result | str:
    config = held_config(data)
    if config is None:
        return "not run: a release with b-t4sa is needed"
    keys, label, answer = ask(config)
    return _plain(keys, label, answer)


def _plain(keys: list[str], label: Ints, answer: Ints) -> Result:
    right: Mapping[str, bool] = dict(zip(keys, (answer == label).tolist(), strict=True))
    share = float(np.mean(answer == label))
    low, high = metrics.wilson(int((answer == label).sum()), len(keys))
    return Result(
        accuracy=share,
        low=low,
        high=high,
        n=len(keys),
        floor=metrics.majority_floor(label),
        fold_mean=share,
        fold_sd=float("nan"),
        seed_sd=float("nan"),
        num_seeds=1,
        is_right=right,
    )


def _weak(data: str | Path) -> Pictures:
    for config in B_T4SA:
        try:
            return open_pictures(data, config, "train")
        except (ConfigUnavailable, NoRows):
            continue
    raise Needs("no B-T4SA to train on", expected="a release with b-t4sa or b-t4sa-256", where=data)
