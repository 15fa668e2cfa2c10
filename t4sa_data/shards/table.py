"""The sample table: one row a sample, and where its bytes are. A sample is a byte range of some file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from t4sa_data.errors import ShardError
from t4sa_data.schema import table_schema

TABLE_NAME = "index.parquet"


def read_table(path: Path, columns: list[str] | None = None, *, layer: str = "b-t4sa") -> pa.Table:
    """Read the sample table of a layer (all columns, or those named).

    Raises:
        ShardError: no readable Parquet file, or not a sample table's columns.
    """
    try:
        table = pq.read_table(path, columns=columns, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise ShardError(
            "the sample table cannot be read", got=str(error).splitlines()[0], where=path, hint="Run `t4sa check`."
        ) from error
    expected = columns or table_schema(layer).names
    if table.schema.names != expected:
        raise ShardError("not a sample table", expected=expected, got=table.schema.names, where=path)
    return table


class RangeReader:
    """Read byte ranges of files below one folder; keeps each file open until closed. Use as a context manager.

    Not for sharing between threads (seek, then read: `os.pread` does not exist on Windows).

    Args:
        root: the folder.
        most_open: files that are open at a time; None for all that are read.
    """

    def __init__(self, root: Path, *, most_open: int | None = None) -> None:
        self._root, self._most_open = Path(root), most_open
        self._files: dict[str, io.FileIO] = {}

    def _open(self, name: str) -> io.FileIO:
        file = self._files.get(name)
        if file is None:
            if self._most_open is not None and len(self._files) >= self._most_open:
                self._files.pop(next(iter(self._files))).close()  # the one that was opened first
            try:
                file = self._files[name] = io.FileIO(self._root / name)
            except FileNotFoundError as error:
                raise ShardError(
                    "a file of the sample table is missing", where=self._root / name, hint="Run `t4sa check`."
                ) from error
        return file

    def read(self, name: str, offset: int, length: int) -> bytes:
        """`length` bytes of the file `name` from `offset`.

        Raises:
            ShardError: there is no such file, or it ends before.
        """
        file = self._open(name)
        file.seek(offset)
        data = file.read(length) or b""
        while len(data) < length and (more := file.read(length - len(data))):
            data += more  # a single read may be short (2 GiB limit, network file systems)
        if len(data) != length:
            raise ShardError(
                "a range runs past the end of its file",
                expected=f"{length} bytes",
                got=len(data),
                where=f"{self._root / name}, byte {offset}",
            )
        return data

    def will_need(self, name: str, offset: int, length: int) -> None:
        """Tell the operating system that a range comes soon (a hint; a no-op where it takes none)."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._open(name).fileno(), offset, length, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close every file."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
