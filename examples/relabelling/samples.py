"""Samples that get other labels, and what another source says of them. No torch, no images.

Shapes: n samples, K classes (3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from examples.errors import PredictionsError
from examples.evaluation.predictions import SUM_TOLERANCE
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import InputMissing
from t4sa_data.files import sha256_file
from t4sa_data.reading import OpenRelease
from t4sa_data.streaming import Labels, Where, select
from t4sa_data.streaming.labels import join_labels

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
NONE = -1
"""Number of a class that a sample does not have."""
PRIOR = b"t4sa.prior"
"""In the metadata of what `t4sa label run` writes."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """n samples of some splits, in release order, split after split."""

    config: str
    splits: tuple[str, ...]
    split: Ints
    """Of each sample, an index into `splits`; shape (n,)."""
    keys: pa.Array
    tweet_id: Ints
    label: Ints
    """The release's; shape (n,)."""
    where: str
    """Of the release."""
    digest: str
    """content_digest of the release."""

    def __len__(self) -> int:
        return len(self.label)


@dataclass(kw_only=True)
class Found:
    """What another source says of n samples."""

    label: Ints
    """shape (n,); `NONE` where it says nothing."""
    probabilities: Floats | None
    """shape (n, K), NaN where it says nothing; None: it gives labels alone."""
    about: dict[str, str]
    """What it is, by name, for the report: with a sha256."""
    notes: list[str] = field(default_factory=list)
    """What a reader must know: warnings, and what was left out."""


def read_samples(release: OpenRelease, config: str, splits: Sequence[str]) -> Samples:
    """All samples of some splits.

    Raises:
        ConfigUnavailable, UnknownConfig, NoRows, ShardError: they are not there, or cannot be read.
    """
    found = [select(release, config, split, where=Where(), columns=("tweet_id",)) for split in splits]
    return Samples(
        config=config,
        splits=tuple(splits),
        split=np.repeat(np.arange(len(splits)), [len(one) for one in found]),
        keys=pa.concat_arrays([one.keys for one in found]),
        tweet_id=np.concatenate([np.asarray(one.extra["tweet_id"]) for one in found]).astype(np.int64),
        label=np.concatenate([one.label for one in found]),
        where=release.where,
        digest=release.manifest.content_digest,
    )


def from_file(path: Path, samples: Samples) -> Found:
    """What a table says: Parquet, or CSV with a header; `key` or `tweet_id`, and probabilities by class, or `label`.

    Rows without probabilities are left out (`t4sa label run` writes them with a reason), and so are ids that are no
    sample's. Where there are probabilities, the largest is the label: a column `label` beside them may be the truth
    (`examples/evaluate.py` writes it so).

    Raises:
        InputMissing: no such file.
        PredictionsError: it cannot be read, lacks columns, contradicts itself, or names none of the samples.
        BadOption: a table of labels alone that `stream(labels=)` would refuse.
    """
    if not path.is_file():
        raise InputMissing("no file of predictions", where=path)
    table, about = _read(path), {"predictions": path.name, "sha256": sha256_file(path)}
    notes: list[str] = []
    by = next((name for name in ("key", "tweet_id") if name in table.column_names), None)
    has_chances = all(name in table.column_names for name in CLASSES)
    if by is None or not (has_chances or "label" in table.column_names):
        raise PredictionsError(
            "predictions lack a column",
            expected=f"key or tweet_id, and {', '.join(CLASSES)} (or label)",
            got=", ".join(table.column_names),
            where=path,
        )
    if prior := (table.schema.metadata or {}).get(PRIOR):
        about["prior"] = prior.decode()
    rows = pa.table({"key": samples.keys, "tweet_id": samples.tweet_id})
    if not has_chances:
        joined = join_labels(Labels(path=path), rows, samples.label)
        label, probabilities = np.where(joined.matched, joined.label, NONE), None
    else:
        table = _clean(table, by, rows.schema.field(by).type, path, notes)
        place = pc.index_in(rows[by], value_set=table[by].combine_chunks()).combine_chunks()
        index = np.asarray(place.fill_null(NONE).to_numpy(zero_copy_only=False))
        given = np.stack([table[name].to_numpy() for name in CLASSES], axis=1).astype(np.float32)
        probabilities = np.full((len(samples), len(CLASSES)), np.nan, dtype=np.float32)
        probabilities[index != NONE] = given[index[index != NONE]]
        label = labels_of(probabilities)
        if surplus := len(given) - len(np.unique(index[index != NONE])):
            notes.append(f"{surplus:,} rows are about other samples")
    if not (label != NONE).any():
        raise PredictionsError(
            f"predictions of none of the samples of {samples.config}/{'+'.join(samples.splits)}",
            expected=f"a {by} such as {rows[by][0]}",
            where=path,
        )
    return Found(label=label, probabilities=probabilities, about=about, notes=notes)


def labels_of(scores: npt.NDArray[np.floating]) -> Ints:
    """The class of the largest score, the first of equal ones; `NONE` where a score is missing.

    >>> labels_of(np.array([[0.2, 0.5, 0.3], [np.nan, np.nan, np.nan]])).tolist()
    [1, -1]
    """
    missing = np.isnan(scores).any(axis=1)
    return np.where(missing, NONE, np.where(missing[:, None], 0, scores).argmax(axis=1)).astype(np.int64)


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path, partitioning=None)
        options = pyarrow.csv.ConvertOptions(column_types={"key": pa.string(), "tweet_id": pa.int64()})
        return pyarrow.csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        raise PredictionsError(
            "predictions cannot be read", expected="Parquet, or CSV", got=str(error).splitlines()[0], where=path
        ) from error


def _clean(table: pa.Table, by: str, kind: pa.DataType, path: Path, notes: list[str]) -> pa.Table:
    """Rows that say something, each id once, probabilities as float64.

    Raises:
        PredictionsError: see `from_file`.
    """
    columns = {}
    for name, wanted in ((by, kind), *((one, pa.float64()) for one in CLASSES)):
        try:
            columns[name] = table[name].cast(wanted)
        except pa.ArrowException as error:
            raise PredictionsError(
                f"column {name}", expected=wanted, got=str(error).splitlines()[0], where=path
            ) from error
    made = pa.table(columns)
    empty = np.zeros(made.num_rows, dtype=bool)
    for name in made.column_names:
        empty |= np.asarray(made[name].is_null(nan_is_null=name != by).to_numpy(zero_copy_only=False))
    if empty.any():
        notes.append(f"{int(empty.sum()):,} rows say nothing{_reasons(table, empty)}")
        made = made.filter(pa.array(~empty))
    _check(made, by, path)
    return _once(made, by, path)


def _reasons(table: pa.Table, empty: npt.NDArray[np.bool_]) -> str:
    """Why, where the table says it."""
    if "reason" not in table.column_names:
        return ""
    counts = pc.value_counts(table["reason"].filter(pa.array(empty)).combine_chunks())
    words = sorted(f"{one['values']} {one['counts'].as_py():,}" for one in counts)
    return f" ({', '.join(words)})"


def _check(table: pa.Table, by: str, path: Path) -> None:
    p = np.stack([table[name].to_numpy() for name in CLASSES], axis=1)
    is_bad = {
        "probabilities outside 0 to 1": ((p < 0) | (p > 1)).any(axis=1),
        "probabilities that do not sum to 1": ~(np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE),
    }
    for what, bad in is_bad.items():
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            numbers = ", ".join(f"{value:g}" for value in p[first])
            raise PredictionsError(
                what,
                got=f"{int(bad.sum()):,} rows, the first is {table[by][first]}: {numbers}",
                where=path,
                hint=f"Give the softmax of the logits in the order {', '.join(CLASSES)}.",
            )


def _once(table: pa.Table, by: str, path: Path) -> pa.Table:
    """Each id once; rows that repeat another to the letter are one.

    Raises:
        PredictionsError: two rows of an id say different things.
    """
    apart = table.group_by([*table.column_names], use_threads=False).aggregate([])
    ids = apart[by].combine_chunks()
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise PredictionsError(
            f"rows of one {by} say different things",
            got=f"{len(twice):,} such, the first is {twice[0]['values']}",
            where=path,
            hint="Keep one row of each.",
        )
    return apart
