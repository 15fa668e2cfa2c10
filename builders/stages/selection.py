"""`select`: the most confident tweets, and the images of these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.build_config import CONFIDENCE_CUT, SelectSettings, settings_of
from builders.building import Build, counted
from builders.keys import find, pack
from builders.ledger import REMOVED
from builders.selection import Cut, select
from builders.sources import official
from builders.stages import collect, label
from builders.state import BATCH_ROWS, stamp, write_arrow
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, NoRows

NAME = "select"
VERSION = 1
BELOW_THRESHOLD = "select/below-threshold"
NOT_AMONG_TOP = "select/not-among-the-most-confident"
TWEETS = pa.schema(
    [
        ("tweet_id", pa.int64()),
        *((name, pa.float32()) for name in CLASSES),
        ("label", pa.int64()),
        ("reason", pa.string()),
    ]
)
"""A row for each collected tweet; no reason: it is selected."""
IMAGES = pa.schema(
    [
        ("tweet_id", pa.int64()),
        ("image_index", pa.int8()),
        ("url", pa.string()),
        ("label", pa.int64()),
        ("confidence", pa.float32()),
        ("created_at", pa.timestamp("ms", "UTC")),
        ("author", pa.int64()),
    ]
)
"""A row for each image of a selected tweet."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    chosen = build.config.select
    cut_of(chosen)
    return [settings_of(chosen), stamp(chosen.removals) if chosen.removals else None]


def cut_of(chosen: SelectSettings) -> Cut:
    """The rule.

    Raises:
        BadOption: several, or numbers outside their ranges.
    """

    def of_each(value: float | tuple[float, ...] | None) -> Any:
        if isinstance(value, tuple) and len(value) == 1:
            return value[0]
        if isinstance(value, tuple) and len(value) != len(CLASSES):
            raise BadOption("a rule for another number of classes", expected=len(CLASSES), got=len(value))
        return value

    threshold, top = of_each(chosen.threshold), of_each(chosen.top)
    if threshold is None and top is None and chosen.top_of_all is None:
        threshold = CONFIDENCE_CUT
    return Cut(threshold=threshold, top=top, top_of_all=chosen.top_of_all)


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `tweets.arrow` (`TWEETS`), `images.arrow` (`IMAGES`) and `removed.arrow` (its keys)."""
    chosen = build.config.select
    labels = build.table(label.NAME, "labels")
    ids = labels["tweet_id"].to_numpy()
    probabilities = np.stack([labels[name].to_numpy() for name in CLASSES], axis=1)
    found = select(ids, probabilities, cut_of(chosen), labels["reason"].to_pylist())
    words = BELOW_THRESHOLD if cut_of(chosen).threshold is not None else NOT_AMONG_TOP
    reasons = found.reasons.copy()  # of a tweet without label: the label stage's
    reasons[found.labels >= 0] = words
    reasons[found.mask] = None
    tweets, images = official.read_removals(chosen.removals) if chosen.removals else (ids[:0], pack(ids[:0], ids[:0]))
    reasons[found.mask & (find(ids, tweets) >= 0)] = REMOVED
    columns = [labels["tweet_id"], *(labels[name] for name in CLASSES)]
    classes = pa.array(found.labels.astype(np.int64), mask=found.labels < 0)
    table = pa.table([*columns, classes, pa.array(reasons, pa.string())], schema=TWEETS)
    write_arrow(build.path(NAME, "tweets.arrow"), TWEETS, [table])
    kept = np.asarray(table["reason"].is_null())
    if not kept.any():
        raise NoRows(
            "not one tweet is selected", got=f"{len(ids):,} collected, {int((found.labels >= 0).sum()):,} labelled",
            hint="See [select] of the configuration.",
        )  # fmt: skip
    num_images, num_removed = _write_images(build, kept, found, images)
    new = [reason for reason in reasons[labels["reason"].is_null().to_numpy()] if reason]
    dropped = {reason: new.count(reason) for reason in set(new)}
    labelled = int(labels["reason"].null_count)
    return counted(labelled, dropped, images=num_images, removed_images=num_removed)


def _write_images(build: Build, kept: np.ndarray, found: Any, removed: np.ndarray) -> tuple[int, int]:
    """Images of the kept tweets: those to fetch, and those that a list of removals names."""
    file = pq.ParquetFile(build.path(collect.NAME, "tweets.parquet"))
    tables, start = [IMAGES.empty_table()], 0
    with file:
        for batch in file.iter_batches(BATCH_ROWS):
            rows = np.flatnonzero(kept[start : start + batch.num_rows])
            tables.append(_images_of(pa.table(batch).take(rows), found, rows + start))
            start += batch.num_rows
    images = pa.concat_tables(tables).combine_chunks()
    gone = find(pack(images["tweet_id"].to_numpy(), images["image_index"].to_numpy()), removed) >= 0
    write_arrow(build.path(NAME, "images.arrow"), IMAGES, [images.filter(pa.array(~gone))])
    write_arrow(build.path(NAME, "removed.arrow"), IMAGES, [images.filter(pa.array(gone))])
    return int((~gone).sum()), int(gone.sum())


def _images_of(tweets: pa.Table, found: Any, rows: np.ndarray) -> pa.Table:
    """A row for each image of these tweets, which stand at these rows of all."""
    num = tweets["num_images"].to_numpy().astype(np.int64)
    which = np.repeat(np.arange(len(num)), num)
    index = np.arange(len(which)) - np.repeat(np.cumsum(num) - num, num) + 1
    author = tweets["author"].take(which) if "author" in tweets.column_names else pa.nulls(len(which), pa.int64())
    urls = tweets["image_urls"].combine_chunks()
    columns = [
        tweets["tweet_id"].take(which),
        index.astype(np.int8),
        urls.flatten() if len(which) else pa.nulls(0, pa.string()),
        found.labels[rows][which].astype(np.int64),
        found.confidence[rows][which],
        tweets["created_at"].take(which),
        author,
    ]
    return pa.table(columns, schema=IMAGES)
