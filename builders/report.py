"""What a build has to say of itself: counts beside the paper's, and everything that is odd about the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from builders.keys import find
from builders.layers import LayerRows
from builders.sources.tables import Sentiment, Texts
from t4sa_data.catalog import CLASSES, CONFIGS, KNOWN_BAD, PUBLISHED, published_class_counts, published_count
from t4sa_data.errors import StrictFailure

NUM_EXAMPLES = 5
"""Keys shown for each oddity; the ledger has them all."""


@dataclass(kw_only=True)
class Report:
    """The content of `DIR/build/report.json`."""

    counts: list[dict[str, Any]] = field(default_factory=list)
    """Rows of config, split, paper, listed, released, quarantined, classes."""
    checks: dict[str, Any] = field(default_factory=dict)
    """Name -> number, or {count, examples}."""
    funnel: dict[str, Any] = field(default_factory=dict)
    """See `Ledger.funnel`."""
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    """Key, reason and detail of each."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {"counts": self.counts, "checks": self.checks, "funnel": self.funnel, "quarantined": self.quarantined}


def count_rows(configs: Sequence[str], layers: Mapping[str, LayerRows]) -> list[dict[str, Any]]:
    """Paper, listed, released and quarantined for each split of each config."""
    made = []
    for config in configs:
        for split, parts in CONFIGS[config].splits.items():
            here = [layers[layer] for layer, _ in parts]
            has_label = all("label" in layer.table.column_names for layer in here)
            columns = ["split", "label"] if has_label else ["split"]
            tables = [
                layer.table.select(columns).filter(pc.equal(layer.table["split"], part))
                for layer, (_, part) in zip(here, parts, strict=True)
            ]
            listed = [layer.listed.get(part) for layer, (_, part) in zip(here, parts, strict=True)]
            labels = (
                np.concatenate([table["label"].to_numpy() for table in tables]) if has_label else np.zeros(0, np.int64)
            )
            published = published_class_counts(config, split) if has_label else None
            made.append(
                {
                    "config": config,
                    "split": split,
                    "paper": published_count(config, split),
                    "listed": sum(listed) if None not in listed else None,  # type: ignore[arg-type]
                    "released": sum(table.num_rows for table in tables),
                    "quarantined": sum(
                        len(layer.quarantined.get(part, ())) for layer, (_, part) in zip(here, parts, strict=True)
                    ),
                    "classes": np.bincount(labels, minlength=3).tolist() if has_label else None,
                    "paper_classes": list(published.values()) if published else None,
                }
            )
    return made


def text_checks(sentiment: Sentiment | None, texts: Texts | None) -> dict[str, Any]:
    """What the TSV and the CSV show."""
    made: dict[str, Any] = {}
    if sentiment is not None:
        made["tweets in the TSV"] = len(sentiment.tweet_id)
        made["tweets in the TSV, paper"] = PUBLISHED["tweets"].total
        made["repeated rows of the TSV"] = sentiment.num_repeated
        made["rows of the TSV whose probabilities do not sum to 1"] = sentiment.num_sum_off
        if len(sentiment.tweet_id):
            made["lowest largest probability"] = float(sentiment.probabilities.max(axis=1).min())
    if texts is not None:
        made["rows of the CSV"] = texts.num_rows
        made["repeated ids in the CSV"] = len(texts.repeated)
        made["of these, with another text"] = texts.num_conflicting
    else:
        made["text"] = "none: without raw_tweets_text.csv (or with --text none) `text` is null"
    if sentiment is not None and texts is not None:
        selected = texts.text.filter(pa.array(find(texts.tweet_id, sentiment.tweet_id) >= 0))
        made["tweets of the TSV without a text"] = int((find(sentiment.tweet_id, texts.tweet_id) < 0).sum())
        made["retweets among the selected texts (RT @)"] = int(pc.sum(pc.starts_with(selected, "RT @")).as_py() or 0)
    return made


def image_checks(layers: Mapping[str, LayerRows], inspected: pa.Table, sentiment: Sentiment) -> dict[str, Any]:
    """What the images show, over all layers."""
    table = pa.concat_tables([layer.table for layer in layers.values() if layer.source is not None])
    label = table["label"].to_numpy()
    row = find(table["tweet_id"].to_numpy(), sentiment.tweet_id)
    known = row >= 0
    odd = known.copy()
    odd[known] = sentiment.probabilities[row[known]].argmax(axis=1) != label[known]
    keys = table["key"]
    tweets, per_tweet = np.unique(table["tweet_id"].to_numpy(), return_counts=True)
    sizes = pc.value_counts(table["duplicate_group"].combine_chunks()).field("counts").to_numpy()
    return {
        "labels that are not the most probable class": _some(keys, odd),
        "images whose tweet is not in the TSV": _some(keys, ~known),
        "tweets of the TSV without an image": int((find(sentiment.tweet_id, tweets) < 0).sum()),
        "images per tweet": round(float(per_tweet.mean()), 3) if len(per_tweet) else 0.0,
        "tweets that stand in two splits": _in_two_splits(table, "tweet_id"),
        "near-duplicate groups that stand in two splits": _in_two_splits(table, "duplicate_group"),
        "near-duplicate groups of two and more": int((sizes > 1).sum()),
        "largest near-duplicate group": int(sizes.max(initial=0)),
        "formats": tally(inspected["format"]),
        "modes": tally(inspected["mode"]),
    }


def _some(keys: pa.ChunkedArray, which: Any) -> dict[str, Any]:
    found = keys.filter(pa.array(which))
    return {"count": len(found), "examples": sorted(found.to_pylist())[:NUM_EXAMPLES]}


def _in_two_splits(table: pa.Table, column: str) -> dict[str, Any]:
    splits = table.select([column, "split"]).group_by([column]).aggregate([("split", "count_distinct")])
    found = splits.filter(pc.greater(splits["split_count_distinct"], 1))[column]
    return {"count": len(found), "examples": [str(value) for value in sorted(found.to_pylist())[:NUM_EXAMPLES]]}


def tally(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs, by value; nulls left out."""
    runs = column.drop_null().value_counts().to_pylist()
    return dict(sorted((run["values"], run["counts"]) for run in runs))


def strict_faults(counts: Iterable[Mapping[str, Any]], quarantined: Iterable[str], missing: int) -> list[str]:
    """What `--strict` does not let pass: listed counts that are not the paper's, and unknown bad images.

    Args:
        counts: from `count_rows`.
        quarantined: keys.
        missing: listed images that the archive does not hold.
    """
    faults = [
        f"{row['config']}/{row['split']}: listed {row['listed']}, paper {row['paper']}"
        for row in counts
        if row["listed"] is not None and row["paper"] is not None and row["listed"] != row["paper"]
    ]
    unknown = sorted(set(quarantined) - set(KNOWN_BAD))
    if unknown:
        faults.append(
            f"{len(unknown)} images do not decode that are not known to be bad, e.g. {', '.join(unknown[:3])}"
        )
    if missing:
        faults.append(f"{missing} listed images are not in the archive")
    return faults


def require_strict(faults: Sequence[str], where: object) -> None:
    """Raise for `--strict` where there are faults.

    Raises:
        StrictFailure: the first few.
    """
    if faults:
        raise StrictFailure(
            "this is not the published dataset",
            got="; ".join(faults[:4]),
            where=where,
            hint="Without --strict it is built all the same, and the report says so.",
        )


def as_text(report: Report) -> str:
    """The report for a terminal."""
    lines = [
        f"{'config/split':<24}{'paper':>11}{'listed':>11}{'released':>11}{'quarantined':>13}  " + " / ".join(CLASSES)
    ]
    for row in report.counts:
        numbers = (row["paper"], row["listed"], row["released"])
        classes = " / ".join(f"{n:,}" for n in row["classes"]) if row["classes"] else "-"
        cells = "".join(f"{'-' if n is None else format(n, ','):>11}" for n in numbers)
        lines.append(f"{row['config'] + '/' + row['split']:<24}{cells}{row['quarantined']:>13,}  {classes}")
    lines.append("")
    for name, value in report.checks.items():
        lines.append(f"{name}: {_shown(value)}")
    for kind, funnel in report.funnel.items():
        kept = sum(funnel["kept"].values())
        dropped = "; ".join(f"{reason} {n:,}" for reason, n in funnel["dropped"].items()) or "none"
        lines.append(f"{kind}s: {funnel['candidates']:,} candidates = {kept:,} kept + dropped ({dropped})")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "examples" in value:
        return f"{value['count']:,}" + (f" (e.g. {', '.join(value['examples'][:2])})" if value["examples"] else "")
    if isinstance(value, dict):
        return ", ".join(f"{name} {n:,}" for name, n in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
