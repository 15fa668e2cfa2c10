"""From tables of predictions to `results.json` and `results.md`: our numbers with intervals, beside the paper's.

Shares are 0 to 1 in JSON and percent in text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from examples.errors import PredictionsError
from examples.evaluation import metrics
from examples.evaluation.compare import paper_percent, verdict
from examples.evaluation.markdown import results_markdown
from examples.evaluation.predictions import TWITTER, label_of, logits_of, probabilities_of
from t4sa_data import catalog
from t4sa_data.catalog import CLASSES

__all__ = ["evaluate_predictions", "results_markdown", "verdict"]

TWO_WAY = ("negative", "positive")
AGREEMENTS: dict[str, tuple[str, int]] = {
    "five_agree": ("five", 5),
    "four_agree": ("four", 4),
    "three_agree": ("three", 3),
}
"""Cell of the paper's table: name in `catalog.TWITTER_TESTING`, and how many of five workers agreed at least."""
COMPARABLE = 0.99
"""Share of the published samples below which a number is not set beside the paper's: it is of other data."""


def evaluate_predictions(
    tables: Mapping[str, pa.Table],
    *,
    split: str = "test",
    system: str | None = None,
    about: Mapping[str, Any] | None = None,
    against: Mapping[str, pa.Table] | None = None,
) -> dict[str, Any]:
    """Everything that is reported, as JSON values: the content of `results.json`.

    Args:
        tables: predictions by config, columns as `predictions.SCHEMA`.
        split: that they are of; only the test split is set beside the paper.
        system: row of `catalog.TABLE_1` that the model is meant to reproduce.
        about: what the predictions come from, carried along.
        against: predictions of another model for some of the same configs, same rows.

    Raises:
        PredictionsError: `against` has other rows.
    """
    results: dict[str, Any] = {"about": {"split": split, "system": system, **(about or {})}}
    for config, table in tables.items():
        other = (against or {}).get(config)
        if other is not None and not other["key"].equals(table["key"]):
            raise PredictionsError("two tables that are compared have other rows", where=config)
        if config == TWITTER:
            results[config] = _twitter(table, other, split, system)
        else:
            results[config] = _three_way(table, other, config, split, system)
    return results


def _three_way(table: pa.Table, other: pa.Table | None, config: str, split: str, system: str | None) -> dict[str, Any]:
    label, probabilities = label_of(table), probabilities_of(table)
    predicted = metrics.three_way_scores(probabilities, logits_of(table)).argmax(axis=1)
    bins = metrics.reliability(probabilities, label)
    entry = _entry(label, predicted, CLASSES, catalog.published_count(config, split))
    entry |= {"ece": metrics.calibration_error(bins), "reliability": [_bin(one) for one in bins]}
    if "confidence" in table.column_names:
        confidence = np.asarray(table["confidence"].to_numpy(), dtype=np.float32)
        found = metrics.by_text_confidence(confidence, predicted == label)
        entry["by_text_confidence"] = [_bin(one) for one in found]
    if other is not None:
        theirs = metrics.three_way_scores(probabilities_of(other), logits_of(other)).argmax(axis=1)
        entry["against"] = _against(predicted == label, theirs == label)
    return entry | _compared(entry, "b_t4sa" if (config, split) == ("b-t4sa", "test") else None, system)


def _twitter(table: pa.Table, other: pa.Table | None, split: str, system: str | None) -> dict[str, Any]:
    """One entry for each cell of the paper's table; a sample counts in a cell if at least so many workers agreed."""
    truth = label_of(table)
    if (truth == CLASSES.index("neutral")).any() or "agreement" not in table.column_names:
        raise PredictionsError(
            "not the Twitter Testing Dataset", expected="negative and positive labels, and agreement"
        )
    label, agreement = truth // CLASSES.index("positive"), np.asarray(table["agreement"].to_numpy())
    predicted, is_neutral = metrics.two_way(probabilities_of(table), logits_of(table))
    entries: dict[str, Any] = {}
    for cell, (name, least) in AGREEMENTS.items():
        inside = agreement >= least
        if not inside.any():
            continue
        entry = _entry(label[inside], predicted[inside], TWO_WAY, catalog.TWITTER_TESTING[name].total)
        num_neutral = int(is_neutral[inside].sum())
        entry["neutral_on_top"] = {"n": num_neutral, "share": num_neutral / int(inside.sum())}
        if other is not None:
            theirs, _ = metrics.two_way(probabilities_of(other), logits_of(other))
            entry["against"] = _against((predicted == label)[inside], (theirs == label)[inside])
        entries[cell] = entry | _compared(entry, cell if split == "test" else None, system)
    return entries


def _entry(
    label: metrics.Ints, predicted: metrics.Ints, classes: tuple[str, ...], published: int | None
) -> dict[str, Any]:
    counts = metrics.confusion(label, predicted, len(classes))
    n = len(label)
    low, high = metrics.wilson(int(np.trace(counts)), n)
    return {
        "accuracy": metrics.accuracy(counts),
        "low": low,
        "high": high,
        "n": n,
        "n_published": published,
        "classes": list(classes),
        "confusion": counts.tolist(),
        "recall": dict(zip(classes, metrics.recall(counts), strict=True)),
        "macro_f1": metrics.macro_f1(counts),
        "floor": metrics.majority_floor(label),
    }


def _bin(one: metrics.Bin) -> dict[str, Any]:
    low, high = metrics.wilson(one.num_right, one.n)
    return {**asdict(one), "accuracy": one.accuracy, "accuracy_low": low, "accuracy_high": high}


def _against(ours: metrics.Bools, theirs: metrics.Bools) -> dict[str, Any]:
    only_ours, only_theirs, p = metrics.mcnemar(ours, theirs)
    difference, low, high = metrics.paired_bootstrap(ours, theirs)
    return {
        "accuracy": float(theirs.mean()),
        "only_ours": only_ours,
        "only_theirs": only_theirs,
        "mcnemar_p": p,
        "difference": difference,
        "low": low,
        "high": high,
    }


def _compared(entry: Mapping[str, Any], cell: str | None, system: str | None) -> dict[str, Any]:
    """`comparable`, and where a system is named the paper's number and the verdict."""
    published = entry["n_published"]
    comparable = cell is not None and published is not None and COMPARABLE * published <= entry["n"] <= published
    found: dict[str, Any] = {"comparable": comparable}
    if cell is not None and system is not None:
        paper = paper_percent(system, cell)
        found["paper"] = None if paper is None else round(paper / 100, 6)
        if comparable:
            value, low, high = (100 * entry[name] for name in ("accuracy", "low", "high"))
            word, sentence = verdict(value, low, high, system, cell)
            found["verdict"] = {"word": word, "sentence": sentence}
    return found
