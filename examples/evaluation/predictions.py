"""Tables of predictions: what a release knows about its samples, joined with what a model says. No torch, no images.

`predictions.parquet` has a row a sample, in release order: `key`, `label` (the truth), `negative, neutral, positive`
(probabilities), `logit_negative, logit_neutral, logit_positive` where the network gave them, `confidence` (the text
labeller's), and for twitter-testing `agreement`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from examples.errors import PredictionsError
from t4sa_data.catalog import CLASSES, TWITTER_TESTING
from t4sa_data.errors import ConfigUnavailable, InputMissing, NoRows, ShardError
from t4sa_data.files import write_bytes
from t4sa_data.reading import OpenRelease

LOGITS = tuple(f"logit_{name}" for name in CLASSES)
B_T4SA, TWITTER = "b-t4sa", "twitter-testing"
SCHEMA = pa.schema(
    [("key", pa.string()), ("label", pa.int64())]
    + [(name, pa.float32()) for name in (*CLASSES, *LOGITS, "confidence")]
    + [("agreement", pa.int8())]
)
"""Columns in the order of the file; the logits, `confidence` and `agreement` may be absent."""
SUM_TOLERANCE = 0.01
"""The three probabilities of a row may sum to so much more or less than 1: half precision, printed with 3 digits."""


def require_config(release: OpenRelease, config: str, split: str) -> None:
    """Refuse to evaluate on what a release does not hold.

    Raises:
        ConfigUnavailable: it is not there; for twitter-testing the message names the known places to get it from.
        UnknownConfig: there is no such config or split.
    """
    try:
        release.manifest.parts(config, split)
    except ConfigUnavailable as error:
        if config != TWITTER:
            raise
        counts = "/".join(f"{agreement.total:,}" for agreement in TWITTER_TESTING.values())
        raise ConfigUnavailable(
            "the release has no Twitter Testing Dataset",
            expected=f"{counts} images on which 5, at least 4, at least 3 workers agreed",
            where=release.where,
            hint=error.hint,
        ) from error


def read_truth(release: OpenRelease, config: str, split: str = "test", columns: tuple[str, ...] = ()) -> pa.Table:
    """What the sample tables say about a split: key, label, confidence, agreement where there is one, and `columns`.

    Row i is the sample at position i.

    Raises:
        ConfigUnavailable, UnknownConfig: no such samples here.
        ShardError, NoRows: the sample table cannot be read, or is empty.
    """
    require_config(release, config, split)
    parts = []
    for layer, part in release.manifest.parts(config, split):
        path = release.table(layer)
        try:
            names = pq.read_schema(path).names
            wanted = [name for name in ("key", "label", "confidence", "agreement", *columns) if name in names]
            table = pq.read_table(path, columns=[*wanted, "split"], partitioning=None, memory_map=True)
        except (OSError, pa.ArrowException) as error:
            raise ShardError(
                "the sample table cannot be read", got=str(error).splitlines()[0], where=path, hint="Run `t4sa check`."
            ) from error
        parts.append(table.filter(pc.equal(table["split"], part)).select(wanted))
    table = pa.concat_tables(parts, promote_options="default")
    if not table.num_rows:
        raise NoRows("the release has no sample of this split", where=f"{release.where}, {config}/{split}")
    return table


def make_table(truth: pa.Table, probabilities: npt.NDArray[Any], logits: npt.NDArray[Any] | None = None) -> pa.Table:
    """A table of predictions.

    Args:
        truth: of `read_truth`, n rows.
        probabilities: by class in the catalog's order, shape (n, 3), row for row.
        logits: shape (n, 3); None where unknown.
    """
    values = {name: truth[name] for name in truth.column_names}
    values |= {name: pa.array(probabilities[:, k].astype(np.float32)) for k, name in enumerate(CLASSES)}
    if logits is not None:
        values |= {name: pa.array(logits[:, k].astype(np.float32)) for k, name in enumerate(LOGITS)}
    known = [field for field in SCHEMA if field.name in values]
    return pa.table([values[field.name].cast(field.type) for field in known], schema=pa.schema(known))


def save_table(path: Path, table: pa.Table) -> str:
    """Write predictions as Parquet, in one step; the file's sha256."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return write_bytes(path, buffer.getvalue())


def probabilities_of(table: pa.Table) -> npt.NDArray[np.float64]:
    """The probabilities of a table, shape (n, 3)."""
    return _columns(table, CLASSES)


def logits_of(table: pa.Table) -> npt.NDArray[np.float64] | None:
    """The logits of a table, shape (n, 3), NaN where a row has none; None where the table has none."""
    return _columns(table, LOGITS) if set(LOGITS) <= set(table.column_names) else None


def label_of(table: pa.Table) -> npt.NDArray[np.int64]:
    """The true classes of a table, shape (n,)."""
    return np.asarray(table["label"].to_numpy()).astype(np.int64)


def _columns(table: pa.Table, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    # To NumPy first: NaN is what a null becomes.
    return np.stack([np.asarray(table[name].to_numpy(), dtype=np.float64) for name in names], axis=1)


def read_file(path: Path) -> pa.Table:
    """Predictions of any framework: Parquet or CSV with columns key, negative, neutral, positive; logits if there are.

    Raises:
        InputMissing: no such file.
        PredictionsError: it cannot be read, or lacks a column.
    """
    if not path.is_file():
        raise InputMissing("no file of predictions", where=path)
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
        else:
            options = pyarrow.csv.ConvertOptions(column_types={"key": pa.string()})
            table = pyarrow.csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        raise PredictionsError(
            "predictions cannot be read", expected="Parquet, or CSV", got=str(error).splitlines()[0], where=path
        ) from error
    needed = ("key", *CLASSES)
    if missing := [name for name in needed if name not in table.column_names]:
        raise PredictionsError(
            f"predictions lack {', '.join(missing)}",
            expected=", ".join(needed),
            got=", ".join(table.column_names),
            where=path,
        )
    return _cast(table, path)


def _cast(table: pa.Table, path: Path) -> pa.Table:
    """The columns that count, keys as strings, scores as doubles (null: NaN)."""
    has_logits = set(LOGITS) <= set(table.column_names)
    columns = {}
    for name in ("key", *CLASSES, *(LOGITS if has_logits else ())):
        kind = pa.string() if name == "key" else pa.float64()
        try:
            column = table[name].cast(kind)
        except pa.ArrowException as error:
            first = next((one for one in table[name].to_pylist() if not _is_number(one)), None)
            raise PredictionsError(f"column {name}", expected=kind, got=repr(first), where=path) from error
        columns[name] = column if name == "key" else column.fill_null(float("nan"))
    return pa.table(columns)


def _is_number(value: object) -> bool:
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def check_file(table: pa.Table, path: Path) -> None:
    """Refuse scores that are no probabilities, and keys that stand there twice.

    Args:
        table: of `read_file`.
        path: of the file, for messages.

    Raises:
        PredictionsError: names the number of such rows and the first key.
    """
    if nulls := table["key"].null_count:
        raise PredictionsError("rows without a key", got=f"{nulls:,}", where=path)
    keys = table["key"].combine_chunks()
    counts = pc.value_counts(keys)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise PredictionsError(
            "keys stand there twice", got=f"{len(twice):,} of them, the first is {twice[0]['values']}", where=path
        )
    p = probabilities_of(table)
    is_bad = {
        "probabilities that are no numbers": ~np.isfinite(p).all(axis=1),
        "probabilities outside 0 to 1": ((p < 0) | (p > 1)).any(axis=1),
        "probabilities that do not sum to 1": np.abs(p.sum(axis=1) - 1) > SUM_TOLERANCE,
    }
    for what, bad in is_bad.items():
        rows = np.flatnonzero(bad)
        if len(rows):
            raise PredictionsError(
                what,
                got=f"{len(rows):,} rows, the first is {keys[rows[0]]}: {', '.join(f'{v:g}' for v in p[rows[0]])}",
                where=path,
                hint=f"Give the softmax of the logits in the order {', '.join(CLASSES)}.",
            )


def align(table: pa.Table, truths: dict[str, pa.Table], path: Path) -> dict[str, pa.Table]:
    """Give each config the predictions of its samples.

    Args:
        table: of `read_file`, n rows.
        truths: by config, of `read_truth`.
        path: of the file, for messages.

    Returns:
        tables of predictions by config, rows in release order.

    Raises:
        PredictionsError: a sample has none, or two, or a key belongs to no sample; names counts and the first key.
    """
    check_file(table, path)
    keys = table["key"].combine_chunks()
    used = np.zeros(len(keys), dtype=bool)
    made = {}
    for config, truth in truths.items():
        rows = pc.index_in(truth["key"].combine_chunks(), value_set=keys)
        if rows.null_count:
            first = truth["key"].combine_chunks().filter(rows.is_null())[0]
            raise PredictionsError(
                f"samples of {config} without a prediction",
                expected=f"{len(rows):,}",
                got=f"{rows.null_count:,} are missing, the first is {first}",
                where=path,
            )
        index = np.asarray(rows.to_numpy(zero_copy_only=False))
        used[index] = True
        found = table.take(pa.array(index))
        made[config] = make_table(truth, probabilities_of(found), logits_of(found))
    if not used.all():
        first = keys[int(np.flatnonzero(~used)[0])]
        raise PredictionsError(
            f"predictions of samples that are not among those of {', '.join(truths)}",
            got=f"{int((~used).sum()):,} surplus keys, the first is {first}",
            where=path,
        )
    return made


def configs_in(table: pa.Table, truths: dict[str, pa.Table]) -> list[str]:
    """The configs of which a file names at least one sample."""
    keys = table["key"].combine_chunks()
    return [name for name, truth in truths.items() if pc.any(pc.is_in(truth["key"], value_set=keys)).as_py()]
