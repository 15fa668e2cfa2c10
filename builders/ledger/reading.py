"""Reading ledgers: where one is, its rows in batches, the fates of all candidates as numbers.

Memory: `read_fates` gives 12 bytes for each candidate and holds twice that while it reads (10 million: 240 MB; 8 bytes
more for each where a file that is not sorted is put in order); everything else holds a batch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.keys import Packed, pack
from builders.ledger import IMAGES, LEDGER_NAME, PROVENANCE, SCHEMA, TWEET, Fate, count_fates, counts_of
from builders.state import BATCH_ROWS
from t4sa_data.errors import InputMissing, LedgerFaulty, MissingColumn, TableError

BUILD, REPORT_NAME = "build", "report.json"
_TWEET_KEY, _IMAGE_KEY = r"^(0|[1-9][0-9]{0,17}|[1-8][0-9]{18})$", r"^(0|[1-9][0-9]{0,17}|1[0-9]{18})-[1-4]$"
"""Keys that are kept as numbers: ids below 9 * 10^18, of images below 2 * 10^18, so that 63 bits hold them packed."""
_ODD = np.uint64(1 << 63)
"""Marks the number of a key that is none of these: a picture of another data set, told by its file name."""
Codes = npt.NDArray[np.int32]


def find_ledger(place: Path) -> Path:
    """The ledger of a build's DIR, of its `build` folder, of the output of `t4sa collect`, or the file itself.

    Raises:
        InputMissing: there is none.
    """
    place = Path(place)
    for path in (place / BUILD / LEDGER_NAME, place / LEDGER_NAME) if place.is_dir() else (place,):
        if path.is_file():
            return path
    raise InputMissing("no ledger here", expected=f"{BUILD}/{LEDGER_NAME}", where=place)


@contextmanager
def open_ledger(path: Path) -> Iterator[pq.ParquetFile]:
    """A ledger's file, its columns checked.

    Raises:
        TableError: no Parquet, or damaged; MissingColumn: not a ledger's columns.
    """
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if absent := [name for name in SCHEMA.names if name not in names]:
                raise MissingColumn("no ledger: a column is not there", expected=absent[0], got=names, where=path)
            yield file
    except (pa.ArrowException, OSError) as error:
        raise TableError("no Parquet file, or a damaged one", got=error, where=path) from error


def is_of_build(path: Path) -> bool:
    """Whether a ledger is of a build from raw tweets: it says what was fetched."""
    with open_ledger(path) as file:
        return set(PROVENANCE.names) <= set(file.schema_arrow.names)


@dataclass(frozen=True, kw_only=True)
class Fates:
    """Candidates of one kind and their fates, by ascending number."""

    numbers: Packed
    """Of keys, shape (n,), ascending: ids of tweets, packed keys of images, marked positions in `odd_keys`."""
    codes: Codes
    """Positions in `names`, shape (n,)."""
    num_repeated: int
    """Rows of candidates that had a row before; their fates are joined."""


@dataclass(kw_only=True)
class Names:
    """What numbers stand for; shared by ledgers that are compared."""

    fates: dict[tuple[Fate, ...], int]
    """Of a candidate: one, or several where it has several rows."""
    odd_keys: dict[str, int]

    @classmethod
    def empty(cls) -> Names:
        """Nothing yet."""
        return cls(fates={}, odd_keys={})

    def code(self, *fates: Fate) -> int:
        """The number of a fate."""
        return self.fates.setdefault(fates, len(self.fates))

    def key(self, kind: str, number: int, odd: list[str]) -> str:
        """The key of a number; `odd` is the list of `odd_keys`."""
        if number >= int(_ODD):
            return odd[number - int(_ODD)]
        return str(number) if kind == TWEET else f"{number >> 2}-{(number & 3) + 1}"


def read_fates(path: Path, names: Names) -> dict[str, Fates]:
    """All candidates of a ledger, by kind.

    Args:
        path: of its file.
        names: gets the fates and odd keys that it does not have yet.

    Raises:
        LedgerFaulty: a row without a fate, or with two.
        TableError: as `open_ledger`.
    """
    found: dict[str, list[tuple[Packed, Codes]]] = {}
    with open_ledger(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=SCHEMA.names):
            table = pa.Table.from_batches([batch]).cast(SCHEMA)
            _require_one_fate(table, path)
            for kind in table["kind"].unique().to_pylist():
                mine = table.filter(pc.equal(table["kind"], kind))
                found.setdefault(str(kind), []).append((_numbers(str(kind), mine["key"], names), _codes(mine, names)))
    return {kind: _in_order(parts, names) for kind, parts in sorted(found.items())}


def _require_one_fate(table: pa.Table, path: Path) -> None:
    has_one = pc.xor(pc.is_valid(table["layer"]), pc.is_valid(table["reason"]))
    if table["kind"].null_count or table["key"].null_count or not pc.all(has_one, min_count=0).as_py():
        row = table.filter(pc.invert(has_one)).slice(0, 1).to_pylist()
        raise LedgerFaulty(
            "a candidate without a fate, or with two", expected="either a layer or a reason",
            got=f"{row[0]['kind']} {row[0]['key']}" if row else "a row without kind or key", where=path,
        )  # fmt: skip


def _numbers(kind: str, keys: pa.ChunkedArray, names: Names) -> Packed:
    """Keys as numbers, shape (n,)."""
    keys = keys.combine_chunks()
    is_plain = pc.match_substring_regex(keys, _TWEET_KEY if kind == TWEET else _IMAGE_KEY)
    made = np.zeros(len(keys), dtype=np.uint64)
    which = is_plain.to_numpy(zero_copy_only=False)
    plain = keys.filter(is_plain)
    if kind == TWEET:
        made[which] = plain.cast(pa.int64()).to_numpy().astype(np.uint64)
    elif len(plain):
        ids = pc.utf8_slice_codeunits(plain, 0, -2).cast(pa.int64()).to_numpy()
        made[which] = pack(ids, pc.utf8_slice_codeunits(plain, -1).cast(pa.int8()).to_numpy())
    for row in np.flatnonzero(~which).tolist():
        made[row] = _ODD | np.uint64(names.odd_keys.setdefault(keys[row].as_py(), len(names.odd_keys)))
    return made


def _codes(table: pa.Table, names: Names) -> Codes:
    """The fate of each row, shape (n,)."""
    encoded = [table[name].combine_chunks().dictionary_encode(null_encoding="encode") for name in SCHEMA.names[2:]]
    code = np.zeros(len(table), dtype=np.int64)
    for column in encoded:
        code = code * len(column.dictionary) + column.indices.to_numpy()
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    rows = table.select(SCHEMA.names[2:]).take(pa.array(first)).to_pylist()
    known = [names.code((row["layer"], row["split"], row["reason"])) for row in rows]
    found: Codes = np.array(known, dtype=np.int32)[inverse.reshape(-1)]
    return found


def _in_order(parts: list[tuple[Packed, Codes]], names: Names) -> Fates:
    """Sorted by number, one row a candidate."""
    numbers, codes = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    parts.clear()
    if not (numbers[1:] > numbers[:-1]).all():
        order = np.argsort(numbers, kind="stable")
        numbers, codes = numbers[order], codes[order]
    is_again = np.zeros(len(numbers), dtype=bool)
    is_again[1:] = numbers[1:] == numbers[:-1]
    if not is_again.any():
        return Fates(numbers=numbers, codes=codes, num_repeated=0)
    start = np.flatnonzero(~is_again)
    rows = np.diff(np.append(start, len(numbers)))
    joined = codes[start]
    for k in range(1, int(rows.max())):
        more = np.flatnonzero(rows > k)
        joined[more] = _joined(joined[more], codes[start[more] + k], names)
    return Fates(numbers=numbers[start], codes=joined, num_repeated=int(is_again.sum()))


def _joined(some: Codes, others: Codes, names: Names) -> Codes:
    """Codes of what candidates of two rows have for fates."""
    pairs, inverse = np.unique(some.astype(np.int64) << 32 | others, return_inverse=True)
    known = list(names.fates)
    made = []
    for pair in pairs.tolist():
        fates = {*known[pair >> 32], *known[pair & 0xFFFFFFFF]}
        made.append(names.code(*sorted(fates, key=lambda fate: tuple(part or "" for part in fate))))
    found: Codes = np.array(made, dtype=np.int32)[inverse.reshape(-1)]
    return found


def read_counts(path: Path) -> dict[str, dict[str, Any]]:
    """What `Ledger.funnel` says of a ledger's rows, one pass, memory of a batch.

    Raises:
        LedgerFaulty, TableError: as `read_fates`.
    """
    fates: dict[str, Counter[Fate]] = {kind: Counter() for kind in (*IMAGES, TWEET)}
    with open_ledger(path) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=SCHEMA.names):
            table = pa.Table.from_batches([batch]).cast(SCHEMA)
            _require_one_fate(table, path)
            for kind in table["kind"].unique().to_pylist():
                mine = table.filter(pc.equal(table["kind"], kind))
                fates.setdefault(str(kind), Counter())
                fates[str(kind)] += count_fates(mine["layer"], mine["split"], mine["reason"])
    return {kind: counts_of(found) for kind, found in fates.items() if found}


def require_sound(path: Path) -> None:
    """In the ledger of a build every candidate stands once, and so does the tweet of every image; in that of `prepare`
    every image does (a tweet may be in two text layers).

    Raises:
        LedgerFaulty: else.
    """
    names = Names.empty()
    found = read_fates(path, names)
    is_build = is_of_build(path)
    for kind, fates in found.items():
        if fates.num_repeated and (is_build or kind != TWEET):
            raise LedgerFaulty(f"candidates that stand twice ({kind})", got=f"{fates.num_repeated:,} rows", where=path)
    if is_build and "image" in found:
        tweets = found[TWEET].numbers if TWEET in found else np.zeros(0, np.uint64)
        images = found["image"].numbers
        of_tweets = images[images < _ODD] >> np.uint64(2)
        place = np.minimum(np.searchsorted(tweets, of_tweets), max(0, len(tweets) - 1))
        orphans = of_tweets[tweets[place] != of_tweets] if len(tweets) else of_tweets
        if len(orphans):
            raise LedgerFaulty(
                "images whose tweet is not in the ledger", got=f"{len(orphans):,}, as of {orphans[0]}", where=path
            )


def told_counts(path: Path) -> dict[str, Any] | None:
    """What the report beside a ledger says of its funnel; None where there is no report.

    Raises:
        LedgerFaulty: the report is no JSON, or has no funnel.
    """
    report = path.parent / REPORT_NAME
    if not report.is_file():
        return None
    try:
        return dict(json.loads(report.read_bytes())["funnel"])
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerFaulty("a report that does not say what it counted", got=repr(error), where=report) from error
