"""Rows of a sample table with their images, batch by batch.

Apart from the builder on purpose: for streaming, `datasets` replaces `pq.read_table`, `Path` and `open` in the module
of the builder, and its replacements leave files open.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t4sa_data import plan
from t4sa_data.errors import ShardError
from t4sa_data.schema import IMAGE_TYPE
from t4sa_data.shards import RangeReader

BATCH_ROWS = 32
"""Images read at a time: about 4 MB."""


def read_run(
    reader: RangeReader, index: str, split: str, number: int, count: int, columns: list[str], filters: Any
) -> Iterator[pa.Table]:
    """Run `number` of `count` of a split's rows that pass the filters, in release order, `BATCH_ROWS` at a time.

    Args:
        reader: over the tables' data root.
        index: path of the sample table.
        split: the rows' split.
        number: which run, from 0.
        count: how many runs the split is cut into.
        columns: of the record, or `image`; the order is that of the result.
        filters: as for `pyarrow.parquet.read_table`, or None.

    Raises:
        ShardError: the table or a range cannot be read.
    """
    table = _rows(index, split, columns, filters)
    start, stop = plan.even_bounds(table.num_rows, count)[number]
    for low in range(start, stop, BATCH_ROWS):
        batch = table.slice(low, min(BATCH_ROWS, stop - low))
        yield (_with_images(batch, reader) if "image" in columns else batch).select(columns)


_last: dict[Any, pa.Table] = {}  # the table read last: every run of a split asks for the same one


def _rows(index: str, split: str, columns: list[str], filters: Any) -> pa.Table:
    """The rows of one split of a sample table that pass the filters, in release order."""
    key = (index, Path(index).stat().st_mtime_ns, split, tuple(columns), str(filters))
    if key not in _last:
        condition = pc.field("split") == split
        if filters is not None:
            given = pq.filters_to_expression(filters) if isinstance(filters, list) else filters
            condition = condition & given
        needed = [*(name for name in columns if name != "image"), *_WHERE]
        try:
            rows = pq.read_table(index, columns=list(dict.fromkeys(needed)), filters=condition, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            raise ShardError(
                "the sample table cannot be read", got=str(error).splitlines()[0], where=index, hint="Run `t4sa check`."
            ) from error
        _last.clear()
        _last[key] = rows
    return _last[key]


_WHERE = ("key", "file", "offset", "length")


def _with_images(batch: pa.Table, reader: RangeReader) -> pa.Table:
    keys, *where = (batch[name].to_pylist() for name in _WHERE)
    ranges = list(zip(*where, strict=True))
    for file, offset, length in ranges:
        reader.will_need(file, offset, length)
    images = [reader.read(file, offset, length) for file, offset, length in ranges]
    paths = [f"{key}.jpg" for key in keys]
    column = pa.StructArray.from_arrays(
        [pa.array(images, pa.binary()), pa.array(paths, pa.string())], fields=list(IMAGE_TYPE)
    )
    return batch.append_column("image", column)
