"""Parquet: write shards whose images can be addressed by byte, and find those bytes again.

The image column is PLAIN and uncompressed: each value is its 4-byte little-endian length and its bytes, contiguous
inside a page. `image_spans` walks the page headers (Thrift compact protocol, parquet.thrift of the Parquet format) and
gives each image's offset and length, so that a reader needs a range and no Parquet library.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from t4sa_data.errors import ShardError
from t4sa_data.files import HashingFile
from t4sa_data.schema import SAMPLE

ROW_GROUP_BYTES = 48 << 20
"""Image bytes after which a row group ends: large enough for a range request, small enough for a reader's memory."""
ROW_GROUP_ROWS = 512
"""Rows after which one ends: a takedown writes the records of a group anew, a quarter of a KB a row."""
MAX_IMAGE_BYTES = (1 << 31) - 1 - ROW_GROUP_BYTES
"""Offsets inside a row group's column are 32-bit."""
PAGE_BYTES = 16 << 10
"""An image shard's page ends behind the value that reaches this: nearly every picture has a page of its own, so that
one less leaves all other pages as they are (`benchmarks/takedown.py`)."""
CONTENT_DEFINED_CHUNKING = {"min_chunk_size": 256 << 10, "max_chunk_size": 1 << 20}
"""Page bounds of other files follow content, so that an edited one shares chunks with its predecessor on the Hub (the
sizes that `datasets` 5 itself uses). In an image shard they take many pages to fall into step again."""


class ParquetShardWriter:
    """Write the rows of one shard to `sink`, one row group per `ROW_GROUP_BYTES` of images.

    Args:
        sink: where the file goes.
        records: the shard's rows without their images, columns as in `schema`; images follow in this order.
        schema: of the file (`schema.layer_schema`); the image comes first.
        groups: rows of each row group; None: by size. A shard that loses rows keeps the bounds of its groups: moved
            ones would change bytes in all groups behind.
    """

    def __init__(
        self, sink: HashingFile, records: pa.Table, schema: pa.Schema = SAMPLE, groups: Sequence[int] | None = None
    ) -> None:
        self._records = records
        self._writer: Any = open_writer(sink, schema)
        self._groups = None if groups is None else list(groups)
        self._images: list[bytes] = []
        self._start = self._num_bytes = 0

    def write(self, image: bytes) -> None:
        """Append the next row's image.

        Raises:
            ShardError: it is larger than a Parquet row group of ours can be.
        """
        if len(image) > MAX_IMAGE_BYTES:
            raise ShardError("an image too large for a shard", expected=f"at most {MAX_IMAGE_BYTES}", got=len(image))
        self._images.append(image)
        self._num_bytes += len(image)
        if self._is_full():
            self._flush()

    def _is_full(self) -> bool:
        if self._groups is not None:
            return bool(self._groups) and len(self._images) >= self._groups[0]
        return self._num_bytes >= ROW_GROUP_BYTES or len(self._images) >= ROW_GROUP_ROWS

    def _flush(self) -> None:
        if not self._images:
            return
        records = self._records.slice(self._start, len(self._images))
        paths = [f"{key}.jpg" for key in records["key"].to_pylist()]
        ends = np.cumsum([0, *map(len, self._images)], dtype=np.int32)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(self._images))]
        values = pa.Array.from_buffers(pa.binary(), len(self._images), buffers)  # a quarter of `pa.array`'s time
        image = pa.StructArray.from_arrays(
            [values, pa.array(paths, pa.string())], fields=list(SAMPLE.field("image").type)
        )
        self._writer.write_table(records.add_column(0, SAMPLE.field("image"), image))
        self._start += len(self._images)
        self._images, self._num_bytes = [], 0
        if self._groups:
            del self._groups[0]

    def abandon(self) -> None:
        """Write nothing more: the file beneath is going away."""
        self._writer.is_open = False  # else its destructor writes a footer into the closed file, and complains

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._flush()
        self._writer.close()


def open_writer(sink: Any, schema: pa.Schema) -> Any:
    """A `pyarrow.parquet.ParquetWriter` with this project's settings: the one place they stand."""
    images = {"image.bytes": "none", "image.path": "none"} if "image" in schema.names else {}
    others = [name for name in schema.names if name != "image"]
    by_content = {"use_content_defined_chunking": CONTENT_DEFINED_CHUNKING}
    pages = {"data_page_size": PAGE_BYTES, "write_batch_size": 1} if images else by_content
    return pq.ParquetWriter(
        pa.PythonFile(sink, mode="w") if isinstance(sink, HashingFile) else sink,
        schema,
        use_dictionary=[name for name in ("split", "file") if name in others],
        compression={**dict.fromkeys(others, "snappy"), **images},
        write_statistics=others,
        **pages,
    )


def write_table(sink: HashingFile, table: pa.Table, *, rows_per_group: int = 65_536) -> None:
    """Write a table without images (a text layer, a sample table)."""
    writer = open_writer(sink, table.schema)
    for start in range(0, table.num_rows, rows_per_group):  # given all at once, all of it is held
        writer.write_table(table.slice(start, rows_per_group))
    writer.close()


def image_spans(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each image of a shard is: offsets and lengths in bytes, shape (rows,) each.

    Raises:
        ShardError: the column is compressed, dictionary-encoded, holds nulls, or its pages do not add up.
    """
    offsets: list[int] = []
    lengths: list[int] = []
    with pq.ParquetFile(path) as parquet, Path(path).open("rb") as file:
        for group in range(parquet.metadata.num_row_groups):
            chunk = parquet.metadata.row_group(group).column(0)
            where = f"{path}, row group {group}"
            if (
                chunk.path_in_schema != "image.bytes"
                or chunk.compression != "UNCOMPRESSED"
                or chunk.has_dictionary_page
            ):
                raise ShardError("images are not addressable", expected="image.bytes, PLAIN, uncompressed", where=where)
            start, found = chunk.data_page_offset, len(offsets)
            base = start - start % mmap.ALLOCATIONGRANULARITY
            length = start + chunk.total_compressed_size - base
            try:
                # One row group at a time: a map of the whole file would count as this process's memory.
                with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=base) as data:
                    for position, num_bytes in _plain_values(data, start - base, where):
                        offsets.append(base + position)
                        lengths.append(num_bytes)
            except (struct.error, IndexError, KeyError, TypeError, ValueError) as error:  # what damaged pages lead to
                raise ShardError("a page does not add up (null images?)", got=repr(error), where=where) from error
            if len(offsets) - found != chunk.num_values:
                raise ShardError(
                    "pages do not add up", expected=chunk.num_values, got=len(offsets) - found, where=where
                )
    return np.array(offsets, dtype=np.int64), np.array(lengths, dtype=np.int64)


def _plain_values(data: mmap.mmap, position: int, where: str) -> Iterator[tuple[int, int]]:
    """(offset, length) of each value of a PLAIN BYTE_ARRAY column chunk: its pages from `position` to the end."""
    while position < len(data):
        header, body = _thrift_struct(data, position)
        size, data_page = header[3], header.get(5)  # PageHeader: 2 uncompressed size, 3 compressed size, 5 data page
        if header[1] != 0 or data_page is None or data_page[2] != 0:
            raise ShardError("images are not addressable", expected="PLAIN data pages (v1)", got=header, where=where)
        # Definition levels of the two nullable nestings come first, behind their own length.
        (levels,) = struct.unpack_from("<I", data, body)
        cursor, end = body + 4 + levels, body + size
        for _ in range(data_page[1]):
            (length,) = struct.unpack_from("<I", data, cursor)
            yield cursor + 4, length
            cursor += 4 + length
        if cursor != end:
            raise ShardError("a page does not add up (null images?)", expected=end, got=cursor, where=where)
        position = end


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _thrift_struct(data: mmap.mmap, position: int) -> tuple[dict[int, Any], int]:
    """A struct of the Thrift compact protocol as {field id: value}, and the byte after it; integers, bytes, structs."""
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[position]) != 0:
        position += 1
        kind, delta = head & 0x0F, head >> 4
        if delta:
            number += delta
        else:
            raw, position = _varint(data, position)
            number = (raw >> 1) ^ -(raw & 1)
        if kind in (1, 2):  # a boolean's value is its type
            fields[number] = kind == 1
        elif kind in (4, 5, 6):  # i16, i32, i64: zigzag
            raw, position = _varint(data, position)
            fields[number] = (raw >> 1) ^ -(raw & 1)
        elif kind == 8:  # bytes
            length, position = _varint(data, position)
            fields[number] = data[position : position + length]
            position += length
        elif kind == 12:
            fields[number], position = _thrift_struct(data, position)
        else:
            raise ShardError("a page header with a field of an unknown kind", got=kind)
    return fields, position + 1
