"""`labels=`: labels of another source, joined to the samples at plan time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, UnmatchedLabels
from t4sa_data.plan import Ints


@dataclass(frozen=True, kw_only=True)
class Labels:
    """A table of labels: a column `key` or `tweet_id`, and `label` (a class's name or number) or the three columns
    `negative`, `neutral`, `positive` (probabilities, whose largest is the label; the first of equal ones)."""

    path: Path
    """Parquet (`.parquet`) or CSV with a header."""
    unmatched: Literal["refuse", "drop"] = "refuse"
    """What becomes of samples that the table does not name."""

    @property
    def columns(self) -> list[str]:
        """Columns of the sample table that a join may need."""
        return ["key", "tweet_id"]


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What a join gives, row for row with the n samples it was made for."""

    labels: Labels
    matched: npt.NDArray[np.bool_]
    """Which samples the table names, shape (n,)."""
    label: Ints
    """shape (n,); the release's where not matched."""
    probabilities: npt.NDArray[np.float32] | None
    """shape (n, 3), NaN where not matched; None where the table has labels only."""

    @property
    def among(self) -> npt.NDArray[np.bool_]:
        """Samples that may take part, shape (n,)."""
        return self.matched if self.labels.unmatched == "drop" else np.ones_like(self.matched)

    def require_matched(self, keep: npt.NDArray[np.bool_], keys: pa.ChunkedArray) -> None:
        """Refuse samples that take part and have no label.

        Raises:
            UnmatchedLabels: counts them.
        """
        missing = np.flatnonzero(keep & ~self.matched)
        if len(missing):
            raise UnmatchedLabels(
                f"labels: {len(missing):,} of {int(keep.sum()):,} samples have none",
                got=f"the first is {keys[int(missing[0])]}",
                where=self.labels.path,
                hint='Complete the table, or drop them: labels=Labels(path=..., unmatched="drop").',
            )


def join_labels(labels: Labels, rows: pa.Table, original: Ints) -> Joined:
    """Give samples the labels of a table.

    Args:
        labels: the table.
        rows: samples, n of them, with `labels.columns`.
        original: the release's labels, shape (n,).

    Raises:
        BadOption: the table cannot be read, lacks columns, names a sample twice, or holds what is no label.
    """
    table = _read(labels.path)
    by = next((name for name in labels.columns if name in table.column_names), None)
    has_chances = all(name in table.column_names for name in CLASSES)
    if by is None or not (has_chances or "label" in table.column_names):
        raise BadOption(
            "labels: a column is missing",
            expected=f"key or tweet_id, and label or {', '.join(CLASSES)}",
            got=", ".join(table.column_names),
            where=labels.path,
        )
    identity = _cast(table, by, rows.schema.field(by).type, labels.path).combine_chunks()
    if len(identity) != pc.count_distinct(identity).as_py():
        raise BadOption(f"labels: a {by} stands there twice", where=labels.path, hint="Keep one row of each.")
    found = pc.index_in(rows[by], value_set=identity)
    matched = np.asarray(found.is_valid().to_numpy())
    label, probabilities = original.copy(), None
    index = np.asarray(found.drop_null().to_numpy())
    chances = None
    if has_chances:
        chances = np.stack([_cast(table, name, pa.float32(), labels.path).to_numpy() for name in CLASSES], axis=1)
    if chances is not None:
        probabilities = np.full((rows.num_rows, len(CLASSES)), np.nan, dtype=np.float32)
        probabilities[matched] = chances[index]
    if "label" in table.column_names:
        label[matched] = _label_numbers(table["label"], labels.path)[index]
    elif chances is not None:
        label[matched] = np.argmax(chances, axis=1)[index]
    return Joined(labels=labels, matched=matched, label=label, probabilities=probabilities)


def _read(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path, partitioning=None)
        # An id of a tweet and a class number are integers to the reader, a key and a name are text.
        return pyarrow.csv.read_csv(path)
    except (OSError, pa.ArrowException) as error:
        raise BadOption("labels: cannot be read", got=str(error).splitlines()[0], where=path) from error


def _cast(table: pa.Table, name: str, kind: pa.DataType, path: Path) -> pa.ChunkedArray:
    """A column as a type, without a null."""
    try:
        # Not safe: a probability may be a double.
        made = table[name].cast(kind, safe=not pa.types.is_floating(kind))
    except pa.ArrowException as error:
        raise BadOption(f"labels: {name} is not {kind}", got=str(error).splitlines()[0], where=path) from error
    if made.null_count or (pa.types.is_floating(kind) and pc.any(pc.is_nan(made)).as_py()):
        raise BadOption(f"labels: a {name} is missing", where=path, hint="Leave out rows without a label.")
    return made


def _label_numbers(column: pa.ChunkedArray, path: Path) -> Ints:
    """Class numbers of a column of names or numbers."""
    if pa.types.is_dictionary(column.type):  # categories of pandas
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.index_in(column, value_set=pa.array(CLASSES, column.type))
    is_integer = pa.types.is_integer(column.type)
    numbers = np.asarray(column.cast(pa.int64(), safe=False).fill_null(-1).to_numpy() if is_integer else [-1])
    if ((numbers < 0) | (numbers >= len(CLASSES))).any():
        raise BadOption(
            "labels: not a class", expected=f"0 to {len(CLASSES) - 1}, or {' | '.join(CLASSES)}", where=path
        )
    return numbers
