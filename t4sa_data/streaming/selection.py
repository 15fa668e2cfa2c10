"""The samples that take part, as columns: what an epoch's plan is made of, and what a batch is filled from.

Only the columns that are needed are read from the sample table. A column is a plain array of the selected rows, in
release order, so that the cost of a sample does not depend on how many there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from t4sa_data import catalog
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, NoRows, ShardError, UnknownConfig
from t4sa_data.manifest import Manifest
from t4sa_data.plan import Ints
from t4sa_data.reading import OpenRelease, Range
from t4sa_data.schema import table_schema
from t4sa_data.streaming.labels import Labels, join_labels
from t4sa_data.streaming.where import Where, mask_of

PLACE = ("file", "offset", "length")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Selected samples of a config's split, n of them, in release order."""

    content_digest: str
    """Of the layers that the split is made of: the same in every format, whatever else a release holds."""
    positions: Ints
    """Rows of the whole split, shape (n,), ascending."""
    label: Ints
    """shape (n,): an index into `classes`."""
    classes: tuple[str, ...]
    original_label: Ints | None
    """The release's label, shape (n,), where `label` is another number; else None."""
    probabilities: npt.NDArray[np.float32]
    """shape (n, 3), NaN where unknown."""
    has_own_probabilities: bool
    """Whether they are the release's."""
    keys: pa.Array
    """shape (n,), of strings."""
    extra: Mapping[str, pa.Array]
    """Further columns of the table, each of n values."""
    sha256: pa.Array | None
    """Of the images, shape (n,); None where images are not checked."""
    files: tuple[str, ...]
    file: npt.NDArray[np.int16]
    """Which of `files`, shape (n,)."""
    offset: Ints
    length: npt.NDArray[np.int32]
    num_split: int
    """Rows of the whole split."""

    def __len__(self) -> int:
        return len(self.positions)

    def ranges(self, rows: Ints) -> list[Range]:
        """Where the bytes of some rows are."""
        places = zip(self.file[rows].tolist(), self.offset[rows].tolist(), self.length[rows].tolist(), strict=True)
        return [Range(self.files[file], offset, length) for file, offset, length in places]

    def where(self, row: int) -> str:
        """A sample's key, file and byte, for messages."""
        file = self.files[self.file[row]]
        return f"sample {self.keys[row]}, {file}, byte {self.offset[row]}, {self.length[row]} bytes"


def select(
    release: OpenRelease,
    config: str,
    split: str,
    *,
    where: Where,
    labels: Labels | None = None,
    columns: Sequence[str] = (),
    with_sha256: bool = False,
) -> Selection:
    """Choose samples of a split.

    Args:
        release: an open one.
        config: of the catalog, an image config.
        split: of the config.
        where: which samples.
        labels: labels of another source, in place of the release's.
        columns: further columns of the sample table to carry.
        with_sha256: carry the images' sha256.

    Raises:
        UnknownConfig, ConfigUnavailable: no such config, split or column here.
        NoRows: no sample meets the conditions.
        UnmatchedLabels: `labels` leaves samples without one.
        ShardError: a sample table cannot be read.
    """
    parts = release.manifest.parts(config, split)
    known = table_schema(catalog.CONFIGS[config].layers[0]).names
    if unknown := [name for name in columns if name not in known]:
        raise UnknownConfig("no such column", expected=" | ".join(known), got=", ".join(unknown))
    base = ["key", "label", *CLASSES, *PLACE, *(["sha256"] if with_sha256 else [])]
    needed = list(dict.fromkeys([*base, *columns, *where.columns, *(labels.columns if labels else ())]))
    rows = [_read_part(release.table(layer), part, needed, where.expression) for layer, part in parts]
    if not rows:
        raise NoRows("the release has no sample of this split", where=f"{release.where}, {config}/{split}")
    starts = np.cumsum([0, *(count for _, _, count in rows)])
    positions = np.concatenate([found + start for (_, found, _), start in zip(rows, starts, strict=False)])
    table = pa.concat_tables([table for table, _, _ in rows]).unify_dictionaries()
    del rows
    pa.default_memory_pool().release_unused()
    original = _numbers(table["label"]).astype(np.int64, copy=False)
    joined = join_labels(labels, table, original) if labels else None
    label = joined.label if joined else original
    among = joined.among if joined else np.ones(len(label), dtype=bool)
    keep = mask_of(where, table, positions, label, among)
    if joined:
        joined.require_matched(keep, table["key"])
    if not keep.all():
        table, positions, label, original = table.filter(pa.array(keep)), positions[keep], label[keep], original[keep]
    if not len(positions):
        raise NoRows(
            "no sample meets the conditions",
            got=f"0 of {starts[-1]} samples of {config}/{split}",
            hint="Widen where= (and labels=).",
        )
    if where.classes is not None:
        label = _renumbered(label, where)
    # Each column is given up for its array: the largest tables are never there twice.
    taken = dict(zip(table.column_names, table.columns, strict=True))
    del table
    if joined and joined.probabilities is not None:
        probabilities = joined.probabilities[keep]
    else:
        probabilities = np.empty((len(positions), len(CLASSES)), dtype=np.float32)
        for number, name in enumerate(CLASSES):
            probabilities[:, number] = _numbers(taken.pop(name) if name not in columns else taken[name], np.nan)
    extra = {name: _one(taken[name]) for name in columns}
    keys, sha256 = _one(taken.pop("key")), _one(taken.pop("sha256")) if with_sha256 else None
    offset, length = _numbers(taken.pop("offset")), _numbers(taken.pop("length")).astype(np.int32)
    file = _one(taken.pop("file"))
    del taken
    pa.default_memory_pool().release_unused()
    return Selection(
        content_digest=_content_digest(release.manifest, parts),
        positions=positions,
        label=label,
        classes=where.kept_classes,
        original_label=original if joined or where.classes is not None else None,
        probabilities=probabilities,
        has_own_probabilities=joined is None or joined.probabilities is None,
        keys=keys,
        extra=extra,
        sha256=sha256,
        files=tuple(file.dictionary.to_pylist()),
        file=np.asarray(file.indices).astype(np.int16),
        offset=offset,
        length=length,
        num_split=int(starts[-1]),
    )


def _content_digest(manifest: Manifest, parts: Sequence[tuple[str, str]]) -> str:
    """sha256 of the layers' content digests, in release order."""
    lines = [f"{layer} {manifest.layers[layer].content_digest}\n" for layer, _ in parts]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _read_part(path: Path, split: str, columns: list[str], expression: Any) -> tuple[pa.Table, Ints, int]:
    """The rows of a layer's split that an expression keeps, their places in the split, and the rows of the split."""
    try:
        with pq.ParquetFile(path, memory_map=True, read_dictionary=["file", "split"]) as file:
            table = file.read(use_threads=False, columns=["split", *(name for name in columns if name != "split")])
        inside = _code_of(table["split"], split)
        # All rows of one split in one piece, as most are: a slice, not a copy.
        first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        is_piece = last - first == len(inside)
        table = table.slice(first, last - first) if is_piece else table.take(pa.array(inside))
        found = np.arange(len(inside), dtype=np.int64)
        if expression is not None:
            keep = _kept(path, expression)[inside]
            table, found = table.filter(pa.array(keep)), found[keep]
    except (OSError, pa.ArrowException) as error:
        raise ShardError(
            "the sample table cannot be read", got=str(error).splitlines()[0], where=path, hint="Run `t4sa check`."
        ) from error
    return table.select(columns), found, len(inside)


def _code_of(column: pa.ChunkedArray, word: str) -> Ints:
    """Rows whose value is `word`, of a dictionary-encoded column."""
    column = _one(column)
    code = column.dictionary.index(pa.scalar(word)).as_py()
    return np.flatnonzero(np.asarray(column.indices) == code)


def _kept(path: Path, expression: Any) -> npt.NDArray[np.bool_]:
    """Which rows of a table an expression keeps (null: not kept)."""
    import pyarrow.dataset as ds  # brings pandas, where it is installed, and worker processes import this module

    try:
        if isinstance(expression, list | tuple):
            expression = pq.filters_to_expression(expression)
        kept = ds.dataset(path, format="parquet").to_table(columns={"keep": expression})["keep"]
        if not pa.types.is_boolean(kept.type):
            raise TypeError(f"{kept.type}, where true or false is needed")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
        raise BadOption(
            "where: the expression does not fit the sample table",
            got=str(error).splitlines()[0],
            hint=f"Columns: {', '.join(pq.read_schema(path).names)}.",
        ) from error
    return np.asarray(kept.fill_null(False).to_numpy())


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _numbers(column: pa.ChunkedArray, null: float = -1) -> Any:
    """A column of numbers as an array; null becomes `null`."""
    return _one(column.fill_null(null) if column.null_count else column).to_numpy(zero_copy_only=False)


def _renumbered(label: Ints, where: Where) -> Ints:
    """Labels as indices into the kept classes."""
    number = np.full(len(CLASSES), -1, dtype=np.int64)
    for new, name in enumerate(where.kept_classes):
        number[CLASSES.index(name)] = new
    return np.asarray(number[label])
