"""Pre-trained word vectors from a file: word2vec (text or binary), GloVe, fastText (`.vec`), plain or compressed."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from builders.label.files import opened
from builders.label.text import NUMBER
from t4sa_data.errors import VectorsError

Floats = npt.NDArray[np.float32]
MAX_WORD_BYTES = 4096
MAX_DIM = 4096
_ALIASES = {"<number>": NUMBER}
"""Marks that GloVe's tweets have under another name."""
_FASTTEXT_MODEL = struct.pack("<i", 793712314)
"""The first bytes of a fastText model (`.bin`; fasttext.cc, `FASTTEXT_FILEFORMAT_MAGIC_INT32`)."""
_PEEK = 1 << 15


class _Header(NamedTuple):
    num_words: int | None
    """None: the file does not say (GloVe)."""
    dim: int


class _Wanted:
    """Vectors of the words that are wanted; one in the same capitals goes before one in others."""

    def __init__(self, words: Collection[str]) -> None:
        self.words = frozenset(words)
        self.exact: dict[str, Floats] = {}
        self.lower: dict[str, Floats] = {}

    def slot(self, word: str) -> tuple[dict[str, Floats], str] | None:
        """Where a word's vector goes; None: it is not wanted, or there already."""
        word = _ALIASES.get(word, word)
        if word in self.words:
            return (self.exact, word) if word not in self.exact else None
        lower = word.lower()
        if lower in self.words and lower not in self.lower:
            return self.lower, lower
        return None


def read_vectors(path: str | Path, words: Collection[str]) -> dict[str, Floats]:
    """The vectors of some words; others are passed over, so that memory is that of the words.

    Args:
        path: the file; what it is shows from its first bytes. `.gz`, `.bz2`, `.zst` are decompressed.
        words: that are wanted, in lower case; a word of the file in other capitals serves where there is no other.

    Returns:
        word -> float32, all of the file's dimension; words without a vector are absent.

    Raises:
        InputMissing: no such file.
        VectorsError: not such a file, cut, a row of another dimension, a number that is none or not finite; or no
            word of it is wanted.
        TableError: compressed data that is damaged.
    """
    path = Path(path)
    wanted = _Wanted(words)
    with opened(path) as file:
        header, first = _header(file, path)
        ahead = file.read(_PEEK)
        behind = io.BufferedReader(_Behind(ahead, file), 1 << 16)
        if header.num_words is not None and _is_binary(ahead, header.dim):
            _read_binary(behind, header, wanted, path)
        else:
            _read_text(behind, first, header, wanted, path)
    found = {**wanted.lower, **wanted.exact}
    if not found:
        raise VectorsError(
            "no word of the training texts has a vector in the file", expected="words in English", where=path
        )
    return {word: found[word] for word in sorted(found)}


def _header(file: IO[bytes], path: Path) -> tuple[_Header, bytes]:
    """What the file is, and its first line where that is a word already (else b"")."""
    line = file.readline(_PEEK * 8)
    if line.startswith(_FASTTEXT_MODEL):
        raise VectorsError("a fastText model, not its vectors", where=path, hint="Give the .vec file beside it.")
    fields = line.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        num_words, dim = int(fields[0]), int(fields[1])
        _check_dim(dim, path)
        return _Header(num_words, dim), b""
    dim = len(fields) - 1
    _check_dim(dim, path)
    try:
        line.decode("utf-8")
        np.array(fields[1:], dtype=np.float32)
    except ValueError as error:
        raise VectorsError(
            "not a file of word vectors",
            expected="`count dimension`, or a word and its numbers",
            where=f"{path}, line 1",
        ) from error
    return _Header(None, dim), line


def _check_dim(dim: int, path: Path) -> None:
    if not 1 < dim <= MAX_DIM:
        raise VectorsError(
            "not a file of word vectors", expected=f"2 to {MAX_DIM} numbers a word", got=dim, where=f"{path}, line 1"
        )


def _is_binary(ahead: bytes, dim: int) -> bool:
    """Whether floats stand behind the first word, by the first bytes behind the header."""
    word, _, rest = ahead.partition(b" ")
    numbers = rest.split(b"\n")[0].split()
    try:
        np.array(numbers[: dim - 1], dtype=np.float32)  # the last one may be cut
    except ValueError:
        return bool(word)
    return not numbers


class _Behind(io.RawIOBase):
    """Bytes that were read already, then the file they are from."""

    def __init__(self, ahead: bytes, file: IO[bytes]) -> None:
        self._ahead, self._file = ahead, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._ahead[: len(buffer)] if self._ahead else self._file.read(len(buffer))
        self._ahead = self._ahead[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _read_text(file: IO[bytes], first: bytes, header: _Header, wanted: _Wanted, path: Path) -> None:
    number, count = (1, 0) if first else (2, 0)
    line = first or file.readline()
    while line:
        where = f"{path}, line {number}"
        # From the right: GloVe has words with blanks in them.
        fields = line.rstrip().rsplit(b" ", header.dim)
        if len(fields) != header.dim + 1:
            raise VectorsError(
                "a row of another dimension", expected=header.dim, got=len(line.split()) - 1, where=where,
                hint="Was the file cut?",
            )  # fmt: skip
        slot = wanted.slot(fields[0].decode("utf-8", "replace"))
        if slot is not None:
            try:
                vector = np.array(fields[1:], dtype=np.float32)
            except ValueError as error:
                raise VectorsError("not a number", got=error, where=where) from error
            slot[0][slot[1]] = _finite(vector, where)
        count, number = count + 1, number + 1
        line = file.readline()
    if header.num_words is not None and count != header.num_words:
        raise VectorsError(
            "the file was cut", expected=f"{header.num_words:,} words", got=f"{count:,}", where=path,
            hint="Fetch it again.",
        )  # fmt: skip


def _read_binary(file: IO[bytes], header: _Header, wanted: _Wanted, path: Path) -> None:
    size = 4 * header.dim
    for number in range(header.num_words or 0):
        where = f"{path}, word {number + 1}"
        raw = bytearray()
        while (char := file.read(1)) not in (b" ", b""):
            raw += char
            if len(raw) > MAX_WORD_BYTES:
                raise VectorsError("not a file of word vectors", expected="a word and a blank", where=where)
        data = file.read(size)
        if len(data) != size:
            raise VectorsError(
                "the file was cut", expected=f"{header.num_words:,} words", got=f"{number:,}", where=path,
                hint="Fetch it again.",
            )  # fmt: skip
        slot = wanted.slot(raw.lstrip(b"\n").decode("utf-8", "replace"))
        if slot is not None:
            slot[0][slot[1]] = _finite(np.frombuffer(data, dtype="<f4").astype(np.float32), where)
    if file.read(_PEEK).strip():
        raise VectorsError(
            "bytes behind the last word", expected=f"{header.num_words:,} words of {header.dim} floats", where=path
        )


def _finite(vector: Floats, where: str) -> Floats:
    if not np.isfinite(vector).all():
        raise VectorsError("a number that is not finite", where=where)
    return vector
