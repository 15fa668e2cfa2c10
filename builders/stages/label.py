"""`label`: three probabilities for each collected tweet, from the labeller or from a file that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from builders.build_config import settings_of
from builders.building import Build, counted
from builders.keys import find, first_of_each
from builders.sources.tables import read_sentiment
from builders.stages import collect
from builders.state import stamp, write_arrow
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, InputMissing, MissingColumn, TableError
from t4sa_data.files import sha256_file

NAME = "label"
VERSION = 1
NO_LABEL = "label/no-label"
"""A tweet that the given file of labels does not name, or names without probabilities."""
SCHEMA = pa.schema([("tweet_id", pa.int64()), *((name, pa.float32()) for name in CLASSES), ("reason", pa.string())])
"""A row for each collected tweet: three probabilities, or a reason."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    chosen = build.config.label
    if (chosen.model is None) == (chosen.labels is None):
        raise BadOption(
            "what labels the tweets?",
            expected='[label] with model = "FOLDER" or labels = "FILE" in the configuration',
            hint="`t4sa label train` makes a model.",
        )
    if chosen.labels is not None:
        _require(chosen.labels)
        return [settings_of(chosen), stamp(chosen.labels)]
    from builders.label.folder import model_digest

    assert chosen.model is not None
    return [settings_of(chosen), model_digest(chosen.model)]


def digest(build: Build) -> str:
    """sha256 of what labelled the tweets: the model, or the file of labels."""
    from builders.label.folder import model_digest

    chosen = build.config.label
    return model_digest(chosen.model) if chosen.model is not None else sha256_file(chosen.labels or Path())


def _require(path: Path) -> None:
    if not path.is_file():
        raise InputMissing("no such file of labels", where=path)


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `labels.arrow`, columns as `SCHEMA`."""
    chosen = build.config.label
    tweets = build.path(collect.NAME, "tweets.parquet")
    table = _given(chosen.labels, tweets) if chosen.labels is not None else _labelled(build, tweets)
    write_arrow(build.path(NAME, "labels.arrow"), SCHEMA, [table])
    reasons = table["reason"].drop_null().value_counts().to_pylist()
    return counted(table.num_rows, {one["values"]: one["counts"] for one in reasons})


def _labelled(build: Build, tweets: Path) -> pa.Table:
    """What the labeller says; its reasons are `label/<words-of-it>`."""
    from builders.label.run import label_file

    assert build.config.label.model is not None
    out = build.path(NAME, "labels.parquet")
    out.parent.mkdir(parents=True, exist_ok=True)
    total = pq.read_metadata(tweets).num_rows
    label_file(
        build.config.label.model, tweets, out, workers=build.engine.workers, progress=build.progress("label", total)
    )
    table = pq.read_table(out)
    reasons = [reason and f"{NAME}/{reason.replace(' ', '-')}" for reason in table["reason"].to_pylist()]
    return table.set_column(table.schema.get_field_index("reason"), "reason", pa.array(reasons, pa.string())).cast(
        SCHEMA
    )


def _given(path: Path, tweets: Path) -> pa.Table:
    """What a file says of the collected tweets."""
    ids = pq.read_table(tweets, columns=["tweet_id"])["tweet_id"].to_numpy()
    known, probabilities = _read_labels(path)
    row = find(ids, known)
    values = probabilities[row] if len(known) else np.full((len(ids), 3), np.nan, np.float32)
    absent = (row < 0) | np.isnan(values).any(axis=1)
    reasons = pa.array(np.where(absent, NO_LABEL, ""), mask=~absent)
    columns = [ids, *(pa.array(np.ascontiguousarray(column), mask=absent) for column in values.T), reasons]
    return pa.table(columns, schema=SCHEMA)


def _read_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Tweet ids, shape (n,), and probabilities, shape (n, 3), NaN where there are none; an id counts once."""
    if path.suffix != ".parquet":
        sentiment = read_sentiment(path)
        return sentiment.tweet_id, sentiment.probabilities
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TableError("no Parquet file", got=error, where=path) from error
    with file:
        if (file.schema_arrow.metadata or {}).get(b"t4sa.prior", b"raw") != b"raw":
            raise BadOption(
                "probabilities with the prior divided out: they must not be ranked by", expected="raw ones", where=path,
                hint="Label again without --prior.",
            )  # fmt: skip
        names = ["tweet_id", *CLASSES]
        if absent := [name for name in names if name not in file.schema_arrow.names]:
            raise MissingColumn("a column is not there", expected=", ".join(names), got=f"no {absent[0]}", where=path)
        table = file.read(names)
    table = table.filter(table["tweet_id"].is_valid())
    ids = table["tweet_id"].to_numpy().astype(np.int64)
    values = np.stack([table[name].cast(pa.float32()).to_numpy() for name in CLASSES], axis=1)
    first = first_of_each(ids)
    return ids[first], values[first]
