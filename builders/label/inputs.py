"""Tweets to label, read in a stream: JSON lines, CSV, TSV or Parquet; the first three plain or `.gz`, `.bz2`, `.zst`.

What is a row gives a row, also where nothing can be made of it: then it has a reason in place of a text. What is no row
is a malformed line: a JSON line that is no object, a line with another number of fields than the header, quotes that do
not close. It has no id to stand under, so it stops the work by name and number, or is counted with `skip_bad`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from builders.label.files import MAX_LINE_BYTES, lines, opened, suffix_of
from builders.label.text import MAX_CHARS, clean
from builders.label.training_data import parse_id
from t4sa_data.errors import BadOption, InputMissing, MalformedRow, MissingColumn, TableError

EMPTY, MISSING, TOO_LONG, UNDECODABLE, BAD_ID, NOT_TEXT = (
    "empty text", "missing text", "text too long", "text not UTF-8", "bad id", "text not a string",
)  # fmt: skip
REASONS = (BAD_ID, MISSING, NOT_TEXT, UNDECODABLE, TOO_LONG, EMPTY)
"""Why a row is not labelled; where several hold, the first of these."""
ID_NAMES = ("id_str", "tweet_id", "twid", "id")
TEXT_NAMES = ("full_text", "text")
"""Fields that are looked for, the first ones first; column names in any capitals."""
_LINES = (".jsonl", ".ndjson", ".json")
_TABLES = (".csv", ".tsv", ".txt")
FORMATS = "JSON lines (.jsonl, .ndjson), CSV (.csv), TSV (.tsv, .txt), each also .gz, .bz2, .zst; Parquet (.parquet)"
MAX_FIELD_CHARS = 4 << 20
"""A field of a CSV file that is longer has a quote that does not close."""
_UNDECODED = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of bytes that are not UTF-8."""
_BATCH_ROWS = 8192


class Tweet(NamedTuple):
    """A row of the input."""

    tweet_id: int | None
    """None: it has none."""
    text: str | None
    """As it came; None: not to be labelled."""
    reason: str | None
    """Of `REASONS`; None: to be labelled."""


@dataclass(kw_only=True)
class Bad:
    """Malformed lines."""

    skip: bool = False
    """Count them, in place of an error."""
    num_lines: int = 0
    """Lines that were skipped."""
    first: list[str] = field(default_factory=list)
    """The first ten: what is wrong, and where."""

    def found(self, what: str, where: str, *, expected: object = None, got: object = None, count: int = 1) -> None:
        """A malformed line, or several that a quote holds together.

        Raises:
            MalformedRow: unless they are to be skipped.
        """
        if not self.skip:
            hint = "Mend it, or leave such lines out with --skip-bad."
            raise MalformedRow(what, expected=expected, got=got, where=where, hint=hint)
        self.num_lines += count
        if len(self.first) < 10:
            self.first.append(f"{what} [{where}]")


def read_tweets(path: str | Path, bad: Bad | None = None) -> Iterator[Tweet]:
    """The tweets of a file, in its order; a generator, and memory is flat.

    Args:
        path: see the module; the name tells the format.
        bad: what becomes of malformed lines, and their count; None: they are errors.

    Raises:
        InputMissing: no such file.
        BadOption: a name that tells no format.
        MissingColumn: a table without an id or a text column.
        MalformedRow: see the module; ids in a column of floats, which rounds them.
        TableError: a file that is cut or damaged.
    """
    path, bad = Path(path), bad or Bad()
    suffix = suffix_of(path)
    if suffix not in (*_LINES, *_TABLES, ".parquet"):
        raise BadOption("a name that tells no format", expected=FORMATS, got=path.name)
    if not path.is_file():
        raise InputMissing("no such file", where=path)
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    with opened(path) as file:
        if suffix in _LINES:
            yield from _json_lines(file, path, bad)
        elif suffix == ".csv":
            yield from _csv(file, path, bad)
        else:
            yield from _tsv(file, path, bad)


def num_rows(path: str | Path) -> int | None:
    """Rows where a file says so itself (Parquet), for a progress bar; else None."""
    path = Path(path)
    if suffix_of(path) != ".parquet" or not path.is_file():
        return None
    with _parquet_faults(path):
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            return int(file.metadata.num_rows)


def tweet(raw_id: object, text: object, *, is_utf8: bool = True) -> Tweet:
    """A row of what stands in its fields.

    Args:
        raw_id: an integer, or its digits.
        text: a string, or None.
        is_utf8: False: the row held bytes that are not UTF-8, which stand as lone surrogates now.

    >>> tweet("783393626990194689", " "), tweet(7.8e17, "good"), tweet(1, None)  # doctest: +NORMALIZE_WHITESPACE
    (Tweet(tweet_id=783393626990194689, text=None, reason='empty text'), Tweet(tweet_id=None, text=None,
    reason='bad id'), Tweet(tweet_id=1, text=None, reason='missing text'))
    """
    number = _id_of(raw_id)
    reason = BAD_ID if number is None else _reason(text, is_utf8)
    return Tweet(number, None, reason) if reason else Tweet(number, str(text), None)


def _id_of(raw: object) -> int | None:
    if isinstance(raw, bool):
        return None
    if isinstance(raw, int):
        return raw if 0 <= raw < 2**63 else None
    return parse_id(raw.strip()) if isinstance(raw, str) else None


def _reason(text: object, is_utf8: bool) -> str | None:
    if text is None:
        return MISSING
    if not isinstance(text, str):
        return NOT_TEXT
    if not is_utf8 and _UNDECODED.search(text):
        return UNDECODABLE
    if len(text) > MAX_CHARS:
        return TOO_LONG
    first = text.lstrip()[:1]  # most texts begin with what no cleaning takes away
    return None if first.isalnum() or first in ("@", "#") or clean(text) else EMPTY


def _decoded(line: bytes) -> tuple[str, bool]:
    """A line's text, and whether it was UTF-8."""
    try:
        return line.decode("utf-8"), True
    except UnicodeDecodeError:
        return line.decode("utf-8", "surrogateescape"), False


def _json_lines(file: IO[bytes], path: Path, bad: Bad) -> Iterator[Tweet]:
    for number, line in lines(file):
        where = f"{path}, line {number}"
        if line is None:
            bad.found("a line without an end", where, expected=f"at most {MAX_LINE_BYTES:,} bytes")
            continue
        text, is_utf8 = _decoded(line)
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            bad.found("a line that is not JSON", where, got=str(error)[:80])
            continue
        if not isinstance(found, dict):
            bad.found("a line that is no object", where, expected="{...}", got=type(found).__name__)
            continue
        yield tweet(_first(found, ID_NAMES), _text_of(found), is_utf8=is_utf8)


def _first(found: dict[str, Any], names: Sequence[str]) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _text_of(found: dict[str, Any]) -> Any:
    """The whole text: a tweet of the streaming API has it one level below."""
    extended = found.get("extended_tweet")
    if isinstance(extended, dict) and extended.get("full_text") is not None:
        return extended["full_text"]
    return _first(found, TEXT_NAMES)


def _places(header: Sequence[str], path: Path) -> tuple[int, int]:
    """Columns of the id and of the text."""
    names = [name.strip().lower() for name in header]
    found = [next((names.index(n) for n in wanted if n in names), None) for wanted in (ID_NAMES, TEXT_NAMES)]
    for place, wanted in zip(found, (ID_NAMES, TEXT_NAMES), strict=True):
        if place is None:
            raise MissingColumn(
                "a header that lacks a column", expected=" or ".join(wanted), where=f"{path}, line 1",
                hint="The first line must name the columns, as `id,text`.",
            )  # fmt: skip
    return int(found[0] or 0), int(found[1] or 0)


def _csv(file: IO[bytes], path: Path, bad: Bad) -> Iterator[Tweet]:
    csv.field_size_limit(MAX_FIELD_CHARS)
    header: list[str] | None = None
    with closing(_csv_lines(file)) as text:
        reader = csv.reader(text, strict=True)
        while True:
            start = reader.line_num + 1
            where = f"{path}, line {start}"
            try:
                row = next(reader, None)
            except csv.Error as error:
                bad.found("a row that does not parse", where, got=error, count=max(1, reader.line_num + 1 - start))
                continue
            if row is None:
                break
            if header is None:
                header = row
                place_id, place_text = _places(header, path)
            elif row and len(row) != len(header):
                count = reader.line_num + 1 - start
                bad.found("a row with another number of fields", where, expected=len(header), got=len(row), count=count)
            elif row:
                yield tweet(row[place_id], row[place_text], is_utf8=False)
    if header is None:
        raise MissingColumn("an empty file", expected="a header, as `id,text`", where=path)


def _csv_lines(file: IO[bytes]) -> Generator[str, None, None]:
    # Bounded: `readline` of a file without line ends would read it whole.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        while line := text.readline(MAX_FIELD_CHARS):
            yield line
    finally:
        text.detach()


def _tsv(file: IO[bytes], path: Path, bad: Bad) -> Iterator[Tweet]:
    """Fields between tabs, as they are: a quote is a quote."""
    header: list[str] | None = None
    for number, line in lines(file):
        where = f"{path}, line {number}"
        if line is None:
            bad.found("a line without an end", where, expected=f"at most {MAX_LINE_BYTES:,} bytes")
            continue
        text, is_utf8 = _decoded(line)
        row = text.split("\t")
        if header is None:
            header = row
            place_id, place_text = _places(header, path)
        elif text and len(row) != len(header):
            bad.found("a row with another number of fields", where, expected=len(header), got=len(row))
        elif text:
            yield tweet(row[place_id], row[place_text], is_utf8=is_utf8)
    if header is None:
        raise MissingColumn("an empty file", expected="a header, as `id<tab>text`", where=path)


@contextmanager
def _parquet_faults(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise TableError("not a Parquet file, or one that is damaged", got=str(error)[:120], where=path) from error


def _parquet(path: Path) -> Iterator[Tweet]:
    import pyarrow.parquet as pq

    with _parquet_faults(path), pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        place_id, place_text = _places(names, path)
        as_ids, as_texts = (_reader_of(file.schema_arrow.field(place), path) for place in (place_id, place_text))
        wanted = [names[place_id], names[place_text]]
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            ids, texts = as_ids(batch.column(wanted[0])), as_texts(batch.column(wanted[1]))
            for raw_id, text in zip(ids, texts, strict=True):
                yield tweet(raw_id, text, is_utf8=False)


def _reader_of(column: Any, path: Path) -> Callable[[Any], list[Any]]:
    """Values of a column of integers or strings as Python has them; bytes that are not UTF-8 as lone surrogates."""
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    where = f"{path}, column {column.name}"
    if pa.types.is_integer(kind):
        return lambda values: values.cast(kind).to_pylist()
    if any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)) or any(
        test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    ):
        return lambda values: [_from_bytes(value) for value in values.cast(kind).cast(pa.large_binary()).to_pylist()]
    if pa.types.is_null(kind):
        return lambda values: values.to_pylist()
    hint = "Floats round ids beyond 2^53: fetch the original file." if pa.types.is_floating(kind) else None
    raise MalformedRow("a column of another type", expected="integers or strings", got=kind, where=where, hint=hint)


def _from_bytes(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")
