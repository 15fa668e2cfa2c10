"""The official TSV, CSV and split lists, read with a real parser and exact ids."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.keys import Ints, find, first_of_each
from t4sa_data.catalog import CSV_HEADER, TSV_HEADER
from t4sa_data.errors import BadKey, ConflictingRows, MalformedRow, MissingColumn, UnknownLabel
from t4sa_data.schema import parse_key

SUM_TOLERANCE = 1e-3
"""How far the three probabilities may be from 1 in sum; the official ones have 12 digits. Beyond, a row is counted."""

_CHUNK_ROWS = 65_536
_MAX_ID = 2**62
_MAX_ID_DIGITS = 19


@dataclass(frozen=True, kw_only=True)
class Sentiment:
    """The TSV: the selected tweets and their probabilities."""

    tweet_id: Ints
    """Shape (n,), in the file's order."""
    probabilities: npt.NDArray[np.float32]
    """Shape (n, 3): negative, neutral, positive."""
    num_repeated: int = 0
    """Rows that say again what an earlier row said; left out."""
    num_sum_off: int = 0
    """Rows whose probabilities are further from 1 in sum than `SUM_TOLERANCE`; kept."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The CSV, or the part of it that was wanted."""

    tweet_id: Ints
    """Shape (n,), in the file's order."""
    text: pa.Array
    """Strings, n of them."""
    num_rows: int
    """Rows of the file, wanted or not."""
    repeated: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """Ids of rows left out because an earlier row has the same id."""
    num_conflicting: int = 0
    """Of these, rows whose text differs from the first one's."""


@dataclass(frozen=True, kw_only=True)
class SplitList:
    """One official split list."""

    tweet_id: Ints
    image_index: npt.NDArray[np.int8]
    label: Ints
    num_blank: int = 0
    """Empty lines, left out."""


def rows_of(path: Path, header: Sequence[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a delimited file behind its header, each with the number of its first line; blank lines are left out.

    Raises:
        MissingColumn: the header is not `header`.
        MalformedRow: not UTF-8, wrong quotes, or another number of fields.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        first: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except UnicodeDecodeError as error:
                raise MalformedRow(
                    "not UTF-8", where=f"{path}, line {_first_undecodable(path)}", hint="Fetch the file again."
                ) from error
            except csv.Error as error:
                raise MalformedRow(
                    "a row that does not parse",
                    got=error,
                    where=f"{path}, the row from line {line} on",
                    hint="Fetch the file again; fields are quoted by doubled quotes.",
                ) from error
            if row is None:
                break
            if first is None:
                first = row
                if [name.strip().lower() for name in row] != [name.lower() for name in header]:
                    raise MissingColumn(
                        "a header that does not fit", expected=list(header), got=str(row)[:200], where=f"{path}, line 1"
                    )
            elif row and len(row) != len(header):
                raise MalformedRow(
                    "a row with another number of fields",
                    expected=len(header),
                    got=f"{len(row)}: {row[0][:40]!r}",
                    where=f"{path}, line {line}",
                )
            elif row:
                yield line, row
        if first is None:
            raise MissingColumn("an empty file", expected=list(header), where=path, hint="Fetch it again.")


def _first_undecodable(path: Path) -> int:
    """The line that is not UTF-8: the decoder works ahead of the parser and does not know lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise AssertionError(f"{path} is UTF-8")


def parse_id(text: str, where: str) -> int:
    """A tweet id.

    Raises:
        MalformedRow: not a plain decimal integer below 2^62.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_ID_DIGITS) or int(text) >= _MAX_ID:
        raise MalformedRow(
            "not a tweet id",
            expected="a decimal integer",
            got=repr(text[:40]),
            where=where,
            hint="A spreadsheet or a float column rounds ids: fetch the original file.",
        )
    return int(text)


def read_lines(path: Path) -> list[str]:
    """The lines of a small text file.

    Raises:
        MalformedRow: not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise MalformedRow("not a text file", got=error, where=path) from error


def parse_image_key(text: str, where: str) -> tuple[int, int]:
    """Tweet id and image index of a key whose id leaves room for two bits (`keys.pack`).

    Raises:
        BadKey: not `<tweet id>-<1..4>`, or an id of 2^62 and more.
    """
    tweet_id, image_index = parse_key(text, where=where)
    if tweet_id >= _MAX_ID:
        raise BadKey("not a key of T4SA", expected="an id below 2^62", got=repr(text), where=where)
    return tweet_id, image_index


def read_sentiment(path: Path) -> Sentiment:
    """Read `t4sa_text_sentiment.tsv`.

    Raises:
        MissingColumn, MalformedRow: see `rows_of`; also an id or a probability that is none.
        ConflictingRows: two rows of one tweet with other probabilities.
    """
    ids, values = array("q"), array("d")
    for line, row in rows_of(path, TSV_HEADER, "\t"):
        where = f"{path}, line {line}"
        ids.append(parse_id(row[0], where))
        for text in row[1:]:
            values.append(_probability(text, where))
    tweet_id = np.frombuffer(ids, np.int64)
    exact = np.frombuffer(values, np.float64).reshape(-1, 3)
    first = first_of_each(tweet_id)
    if len(first) < len(tweet_id):
        original = first[find(tweet_id, tweet_id[first])]
        other = np.flatnonzero((exact != exact[original]).any(axis=1))
        if len(other):
            raise ConflictingRows(
                "two rows of one tweet differ",
                got=f"tweet {tweet_id[other[0]]}, data rows {original[other[0]] + 1} and {other[0] + 1}",
                where=path,
            )
    kept = exact[first]
    return Sentiment(
        tweet_id=tweet_id[first],
        probabilities=kept.astype(np.float32),
        num_repeated=len(tweet_id) - len(first),
        num_sum_off=int((np.abs(kept.sum(axis=1) - 1) > SUM_TOLERANCE).sum()),
    )


def _probability(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise MalformedRow("not a probability", expected="a number from 0 to 1", got=repr(text[:40]), where=where)
    return value


def read_texts(path: Path, wanted: Ints | None = None) -> Texts:
    """Read `raw_tweets_text.csv`; the first row of an id counts.

    Args:
        path: the CSV.
        wanted: ids to keep; None for all.

    Raises:
        MissingColumn, MalformedRow: see `rows_of`.
    """
    ids, chunks, kept_ids, num_rows = array("q"), [], [], 0
    texts: list[str] = []

    def flush() -> None:
        nonlocal ids, texts
        tweet_id = np.frombuffer(ids, np.int64)
        keep = np.arange(len(tweet_id)) if wanted is None else np.flatnonzero(find(tweet_id, wanted) >= 0)
        kept_ids.append(tweet_id[keep])
        chunks.append(pa.array(texts, pa.string()).take(pa.array(keep)))
        ids, texts = array("q"), []

    for line, row in rows_of(path, CSV_HEADER, ","):
        ids.append(parse_id(row[0], f"{path}, line {line}"))
        texts.append(row[1])
        num_rows += 1
        if len(texts) == _CHUNK_ROWS:
            flush()
    flush()
    tweet_id, text = np.concatenate(kept_ids), pa.concat_arrays(chunks)  # one array: `take` copies many into one
    chunks.clear()
    first = first_of_each(tweet_id)
    if len(first) == len(tweet_id):
        return Texts(tweet_id=tweet_id, text=text, num_rows=num_rows)
    again = np.setdiff1d(np.arange(len(tweet_id)), first)
    original = first[find(tweet_id[again], tweet_id[first])]
    conflicting = sum(
        a != b for a, b in zip(text.take(again).to_pylist(), text.take(original).to_pylist(), strict=True)
    )
    return Texts(
        tweet_id=tweet_id[first],
        text=text.take(pa.array(first)),
        num_rows=num_rows,
        repeated=tweet_id[again],
        num_conflicting=conflicting,
    )


def read_split_list(data: bytes, name: str) -> SplitList:
    """Read a split list: `data/76772/767724493873516544-1.jpg 2`, one image a line; CRLF and blank lines are fine.

    Raises:
        MalformedRow: a line that is not a path and a label.
        BadKey: a path whose name is no key.
        UnknownLabel: a label that is not 0, 1 or 2.
        ConflictingRows: a key that stands twice.
    """
    ids, indices, labels, num_blank = array("q"), array("b"), array("q"), 0
    seen: dict[tuple[int, int], int] = {}
    try:
        lines = io.StringIO(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise MalformedRow("not a text file", got=error, where=name) from error
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}"
        fields = line.split()
        if not fields:
            num_blank += 1
            continue
        if len(fields) != 2:
            raise MalformedRow(
                "not a line of a split list", expected="<path> <label>", got=repr(line.strip()[:80]), where=where
            )
        path, label = fields
        stem, _, suffix = path.rsplit("/", 1)[-1].rpartition(".")
        tweet_id, image_index = parse_image_key(stem if suffix == "jpg" else path, where)
        if label not in ("0", "1", "2"):
            raise UnknownLabel("an unknown label", expected="0, 1 or 2", got=repr(label), where=where)
        before = seen.setdefault((tweet_id, image_index), number)
        if before != number:
            raise ConflictingRows("an image is listed twice", got=stem, where=f"{name}, lines {before} and {number}")
        ids.append(tweet_id)
        indices.append(image_index)
        labels.append(int(label))
    return SplitList(
        tweet_id=np.frombuffer(ids, np.int64),
        image_index=np.frombuffer(indices, np.int8),
        label=np.frombuffer(labels, np.int64),
        num_blank=num_blank,
    )
