"""Files that may be compressed, line by line, with memory that no file can fill."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from t4sa_data.errors import InputMissing, TableError

COMPRESSED = (".gz", ".bz2", ".zst")
MAX_LINE_BYTES = 16 << 20
"""A line that is longer is none: a file of another kind, or one without line ends."""


def suffix_of(path: Path) -> str:
    """What a file is, by its name, compression aside.

    >>> suffix_of(Path("tweets.JSONL.gz")), suffix_of(Path("a.parquet"))
    ('.jsonl', '.parquet')
    """
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSED else name.suffix


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, decompressed by its name: `.gz`, `.bz2`, `.zst`.

    Raises:
        InputMissing: no such file.
        TableError: compressed data that is cut or damaged (also while it is read inside the block).
    """
    path = Path(path)
    if not path.is_file():
        raise InputMissing("no such file", where=path)
    file = _open(path)
    try:
        yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None and path.suffix.lower() in COMPRESSED:  # not the system's: a decompressor's
            raise _damaged(path, error) from error
        raise
    finally:
        file.close()


def _open(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix == ".bz2":
        return bz2.open(path)
    if suffix == ".zst":
        import pyarrow as pa

        raw: Any = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
        return io.BufferedReader(raw, 1 << 16)
    return path.open("rb")


def _damaged(path: Path, error: Exception) -> TableError:
    return TableError("compressed data that is cut or damaged", got=error, where=path, hint="Fetch the file again.")


def lines(file: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers from 1, without their ends; None in place of one beyond `MAX_LINE_BYTES`."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, None
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield number, line.removesuffix(b"\n").removesuffix(b"\r")
