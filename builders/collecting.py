"""The stage `collect`: raw tweets in, the tweets that are kept out, and a ledger in which every tweet has its fate.

A tweet that comes again is looked at once: the first one counts, files being read in the order of their paths. What is
written is sorted by tweet id, and so is the same for any order of the arguments.

Memory: 9 bytes for each tweet of the input while it is read, about 40 while they are sorted, 8 for each notice of a
deletion; kept rows wait in a temporary file in the output folder. 100 million tweets take 4 GB.
"""

from __future__ import annotations

import tempfile
from array import array
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.collect import MAX_ID, PUBLISHED, REASONS, RT_START, Rules, image_urls, keep, text_of
from builders.keys import Ints
from builders.ledger import COLLECTED, LEDGER_NAME, TWEET
from builders.ledger import SCHEMA as LEDGER_SCHEMA
from builders.sources.tweets import MAX_BAD_SHARE, Seen, expand, read_tweets
from builders.state import BATCH_ROWS
from t4sa_data.errors import OutputError
from t4sa_data.files import TEMPORARY, atomic_file, explain_os_errors, write_json
from t4sa_data.shards import open_writer

STAGE = "collect"
DELETED = "collect/deleted"
"""Its author deleted it since, by a notice of the stream. Only where it is asked for."""
ALL_REASONS = (*REASONS, DELETED)
IDS_NAME, TWEETS_NAME, COUNTS_NAME = "kept_ids.txt", "tweets.parquet", "collect.json"
TWEETS_SCHEMA = pa.schema(
    [
        ("tweet_id", pa.int64()),
        ("text", pa.string()),
        ("lang", pa.string()),
        ("created_at", pa.timestamp("ms", "UTC")),
        ("image_urls", pa.list_(pa.field("element", pa.string()))),
        ("num_images", pa.int8()),
    ]
)
"""The k-th of `image_urls` is the image `<tweet_id>-<k>`; nothing about the author is kept."""
AUTHOR = pa.field("author", pa.int64())
"""Further column, the author's id, only where it is asked for: for splits by author. It enters no release."""
_SPILL_ROWS = 8192
_KEPT = 0
_CODES: dict[str | None, int] = {None: _KEPT} | {reason: code for code, reason in enumerate(ALL_REASONS, 1)}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PROGRESS_TWEETS = 4096
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect, and how."""

    files: tuple[Path, ...]
    """Files and folders."""
    out: Path
    rules: Rules = PUBLISHED
    drop_deleted: bool = False
    """Drop tweets that a notice of the same input deletes; else they are only counted."""
    max_bad_share: float = MAX_BAD_SHARE
    """Of lines, and of files, that may be bad."""
    with_authors: bool = False
    """Add the column `AUTHOR` to `tweets.parquet`."""


@dataclass(kw_only=True)
class Outcome:
    """What was done."""

    seen: Seen
    num_repeated: int
    """Tweets that had come before."""
    by_reason: dict[str, int]
    """Tweets that are dropped, in the order of the rules."""
    num_kept: int
    num_images: int
    """Of kept tweets."""
    num_rt_text: int
    """Kept tweets whose text begins `RT @`."""
    num_deleted: int
    """Kept tweets that a notice deletes; 0 where such are dropped."""

    @property
    def num_candidates(self) -> int:
        """Different tweets; kept and dropped ones add up to it."""
        return self.num_kept + sum(self.by_reason.values())

    def funnel(self) -> list[tuple[str, int]]:
        """From lines to kept tweets: what comes in is what goes out, step by step."""
        seen = self.seen
        notices = [(f"- no tweet: {kind}", num) for kind, num in sorted(seen.notices.items())]
        dropped = [(f"- {reason}", num) for reason, num in self.by_reason.items() if num]
        return [
            ("lines", seen.num_lines), ("- no JSON object", seen.num_bad), *notices, ("- repeated", self.num_repeated),
            ("tweets", self.num_candidates), *dropped, ("kept", self.num_kept),
        ]  # fmt: skip

    def as_text(self) -> str:
        """The funnel, what else is to be known, and where lines and files are bad."""
        seen = self.seen
        more = [
            ("images of kept tweets", self.num_images), ("kept, text begins RT @", self.num_rt_text),
            ("kept, deleted since", self.num_deleted), ("files", seen.num_files),
            ("files cut or damaged", seen.num_damaged), ("files of other names, not read", seen.num_skipped),
        ]  # fmt: skip
        rows = [*self.funnel(), ("", -1), *more]
        width = max(len(name) for name, _ in rows)
        made = [f"{name:<{width}}  {num:>13,}" if name else "" for name, num in rows]
        made += [f"bad: {what}" for what in seen.first_bad] + [f"damaged: {what}" for what in seen.first_damaged]
        return "\n".join(made)

    def as_json(self) -> dict[str, Any]:
        """All counts; no places, no times."""
        seen = self.seen
        return {
            "stage": STAGE,
            "lines": seen.num_lines,
            "bad_lines": seen.num_bad,
            "no_tweets": dict(sorted(seen.notices.items())),
            "repeated": self.num_repeated,
            "tweets": self.num_candidates,
            "dropped": self.by_reason,
            "kept": self.num_kept,
            "images": self.num_images,
            "kept_rt_text": self.num_rt_text,
            "kept_deleted": self.num_deleted,
            "files": seen.num_files,
            "damaged_files": seen.num_damaged,
            "skipped_files": seen.num_skipped,
        }


def run(config: CollectConfig, progress: Callable[[int], object] = lambda _num: None) -> Outcome:
    """Collect tweets; writes `kept_ids.txt`, `tweets.parquet`, `ledger.parquet` and, last, `collect.json` into `out`.

    Args:
        config: what, and where to.
        progress: gets the number of tweets read, now and then.

    Raises:
        InputMissing: no such file.
        BadOption: a share that is none.
        TooManyBadLines: more than may be; nothing is written.
        OutputError, DiskSpaceError: of the output.
    """
    seen = Seen()
    seen.require(config.max_bad_share)
    _require_folder(config.out)
    with _spill(config) as kept:
        ids, codes = _read(config, seen, kept, progress)
        seen.require(config.max_bad_share)
        first = _first_by_id(ids)
        kept.close()
        is_deleted = _is_among(ids[first], np.asarray(seen.deleted))
        if config.drop_deleted:
            codes[first[is_deleted & (codes[first] == _KEPT)]] = _CODES[DELETED]
        chosen = first[codes[first] == _KEPT]
        _write_ids(config.out, ids[chosen])
        num_images, num_rt = _write_tweets(config.out, kept, chosen)
        _write_ledger(config.out, ids, codes, first)
    counts = np.bincount(codes[first], minlength=len(_CODES)).tolist()
    outcome = Outcome(
        seen=seen,
        num_repeated=len(ids) - len(first),
        by_reason={reason: counts[_CODES[reason]] for reason in ALL_REASONS},
        num_kept=counts[_KEPT],
        num_images=num_images,
        num_rt_text=num_rt,
        num_deleted=int((is_deleted & (codes[first] == _KEPT)).sum()),
    )
    options = {**asdict(config.rules), "drop_deleted": config.drop_deleted}
    write_json(config.out / COUNTS_NAME, {**outcome.as_json(), "options": options})
    return outcome


def _require_folder(out: Path) -> None:
    """Make the output folder, or clear it of what a killed run left."""
    if out.exists() and not out.is_dir():
        raise OutputError("the output is a file", expected="a folder", where=out)
    with explain_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in (IDS_NAME, TWEETS_NAME, LEDGER_NAME, COUNTS_NAME):
            for left in out.glob(f".{name}.*{TEMPORARY}"):  # by a run that was killed
                left.unlink(missing_ok=True)


def _read(config: CollectConfig, seen: Seen, kept: _Kept, progress: Callable[[int], object]) -> tuple[Ints, Bytes]:
    """Id and code of each tweet of the input, shape (n,), repeated ones too; rows of kept ones go to `kept`."""
    ids, codes = array("q"), array("B")
    rules, take_id, take_code = config.rules, ids.append, codes.append
    ours = (config.out / COUNTS_NAME).resolve()  # an earlier run's, where the output lies in a folder that is read
    paths = [path for path in expand(config.files, seen) if path.resolve() != ours]
    for number, tweet in read_tweets(paths, seen):
        reason = keep(tweet, rules).reason
        if reason is None:
            kept.add(len(ids), number, tweet)
        take_id(number)
        take_code(_CODES[reason])
        if not len(ids) % _PROGRESS_TWEETS:
            progress(_PROGRESS_TWEETS)
    progress(len(ids) % _PROGRESS_TWEETS)
    return np.asarray(ids), np.asarray(codes)


def _first_by_id(ids: Ints) -> Ints:
    """Positions of the first appearance of each id, by ascending id.

    >>> _first_by_id(np.array([9, 4, 9, 7])).tolist()
    [1, 3, 0]
    """
    order = np.argsort(ids, kind="stable")
    in_order = ids[order]
    is_first = np.ones(len(ids), dtype=bool)
    is_first[1:] = in_order[1:] != in_order[:-1]
    return order[is_first]


def _is_among(ascending: Ints, wanted: Ints) -> npt.NDArray[np.bool_]:
    """Which of these ids are wanted, without sorting them again.

    >>> _is_among(np.array([2, 5, 9]), np.array([9, 9, 1, 10, 3])).tolist()
    [False, False, True]
    """
    found = np.zeros(len(ascending), dtype=bool)
    if len(ascending):
        places = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
        found[places[ascending[places] == wanted]] = True
    return found


class _Kept:
    """Rows of kept tweets, in a file, in the order of the input; then some of them, in any order."""

    def __init__(self, file: Any, folder: Path, schema: pa.Schema) -> None:
        self._file, self._folder = file, folder
        self.schema = pa.schema([*schema, ("is_rt", pa.bool_())])
        self._has_authors = AUTHOR.name in schema.names
        self._writer = pa.ipc.new_file(pa.PythonFile(file, mode="w"), self.schema)
        self._rows: list[tuple[Any, ...]] = []
        self._positions = array("q")

    def add(self, position: int, number: int, tweet: Mapping[str, Any]) -> None:
        """Add the tweet that stands at a position of the input."""
        urls = [None if url is None else _clean(url) for url in image_urls(tweet)]
        text, when = _clean(text_of(tweet)), parse_time(tweet.get("created_at"))
        author = (_author(tweet),) if self._has_authors else ()
        row = (number, text, tweet.get("lang"), when, urls, len(urls), *author, text.startswith(RT_START))
        self._rows.append(row)
        self._positions.append(position)
        if len(self._rows) == _SPILL_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = [
            pa.array(values, field.type)
            for values, field in zip(zip(*self._rows, strict=True), self.schema, strict=True)
        ]
        with explain_os_errors(self._folder):
            self._writer.write_batch(pa.record_batch(columns, schema=self.schema))
        self._rows = []

    def close(self) -> None:
        """No more are added."""
        if self._rows:
            self._flush()
        with explain_os_errors(self._folder):
            self._writer.close()
            self._file.flush()

    def chosen(self, positions: Ints) -> Iterator[pa.Table]:
        """Rows of the tweets at these positions of the input, in this order, `BATCH_ROWS` at a time."""
        reader = pa.ipc.open_file(pa.PythonFile(self._file, mode="r"))
        places = np.searchsorted(np.asarray(self._positions), positions)
        for start in range(0, len(places), BATCH_ROWS):
            batches, rows = np.divmod(places[start : start + BATCH_ROWS], _SPILL_ROWS)
            order = np.argsort(batches, kind="stable")
            parts = [reader.get_batch(int(i)).take(rows[order][batches[order] == i]) for i in np.unique(batches)]
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            yield pa.Table.from_batches(parts, self.schema).combine_chunks().take(back)


@contextmanager
def _spill(config: CollectConfig) -> Iterator[_Kept]:
    """Rows in a file without a name: nothing is left of it, whatever is killed."""
    with explain_os_errors(config.out):
        file = tempfile.TemporaryFile(dir=config.out)  # noqa: SIM115
    with file:
        yield _Kept(file, config.out, pa.schema([*TWEETS_SCHEMA, *([AUTHOR] if config.with_authors else [])]))


def _author(tweet: Mapping[str, Any]) -> int | None:
    """Id of the tweet's author; None: it does not say.

    >>> _author({"user": {"id": 5}}), _author({"user": None})
    (5, None)
    """
    user = tweet.get("user")
    number = user.get("id") if isinstance(user, Mapping) else None
    return number if type(number) is int and 0 <= number <= MAX_ID else None


def _clean(text: str) -> str:
    """Halves of surrogate pairs joined, or replaced where they stand alone: UTF-8 has none."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def parse_time(text: object) -> int | None:
    """A tweet's `created_at` in ms since 1970; None: it is none. `strptime`'s names of months follow the locale.

    >>> parse_time("Tue Mar 21 20:50:14 +0000 2006"), parse_time("yesterday")
    (1142974214000, None)
    """
    try:
        _, month, day, clock, zone, year = str(text).split()
        hour, minute, second = clock.split(":")
        ahead = 0 if zone == "+0000" else 60 * (60 * int(zone[:3]) + int(zone[0] + zone[3:]))
        return 1000 * (_midnight(year, month, day) + 3600 * int(hour) + 60 * int(minute) + int(second) - ahead)
    except (ValueError, IndexError):
        return None


@lru_cache
def _midnight(year: str, month: str, day: str) -> int:
    return timegm(date(int(year), _MONTHS.index(month) + 1, int(day)).timetuple())


def _write_ids(out: Path, ids: Ints) -> None:
    with atomic_file(out / IDS_NAME) as sink:
        for start in range(0, len(ids), BATCH_ROWS):
            sink.write("".join(f"{number}\n" for number in ids[start : start + BATCH_ROWS].tolist()).encode())


def _write_tweets(out: Path, kept: _Kept, positions: Ints) -> tuple[int, int]:
    """Write `tweets.parquet`; the number of images, and of texts that begin `RT @`."""
    num_images = num_rt = 0
    with atomic_file(out / TWEETS_NAME) as sink:
        writer = open_writer(sink, kept.schema.remove(kept.schema.get_field_index("is_rt")))
        for table in kept.chosen(positions):
            num_images += int(np.sum(table["num_images"].to_numpy(), dtype=np.int64))
            num_rt += int(table["is_rt"].to_numpy().sum())
            writer.write_table(table.drop_columns(["is_rt"]))
        writer.close()
    return num_images, num_rt


def _write_ledger(out: Path, ids: Ints, codes: Bytes, first: Ints) -> None:
    """Write `ledger.parquet`, in the schema of every ledger: kept tweets are in the layer `COLLECTED`."""
    names = pa.array([*ALL_REASONS], pa.string())
    with atomic_file(out / LEDGER_NAME) as sink:
        writer = open_writer(sink, LEDGER_SCHEMA)
        for start in range(0, len(first), BATCH_ROWS):
            rows = first[start : start + BATCH_ROWS]
            code = codes[rows].astype(np.int32)
            reasons = pa.DictionaryArray.from_arrays(pa.array(code - 1, mask=code == _KEPT), names).cast(pa.string())
            kept = pa.DictionaryArray.from_arrays(pa.array(code, mask=code != _KEPT), pa.array([COLLECTED]))
            columns = [
                pa.repeat(TWEET, len(rows)), pa.array(ids[rows]).cast(pa.string()), kept.cast(pa.string()),
                pa.nulls(len(rows), pa.string()), reasons,
            ]  # fmt: skip
            writer.write_table(pa.table(columns, schema=LEDGER_SCHEMA))
        writer.close()
