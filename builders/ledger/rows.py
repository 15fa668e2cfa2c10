"""The ledger: every candidate that ever entered a build leaves with one status, and the counts add up.

Reasons are constants `stage/reason`; a kept candidate has a layer and a split instead. The ledger of a build from raw
tweets says besides what was fetched for each image: `PROVENANCE`.

Memory: what is told is held as Arrow and never copied, rows of an earlier ledger stay in their file; keys as text are
made while they are written, `BATCH_ROWS` at a time. 1.5 million images with their provenance take 80 MB, 10 million
tweets told row by row (ids, and fates of dictionary type) 130 MB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from builders.state import BATCH_ROWS
from t4sa_data.errors import LedgerFaulty
from t4sa_data.files import atomic_file
from t4sa_data.shards import open_writer

IMAGES = ("image", "small image")
"""Kinds of candidates: an image that is kept in `b-t4sa` and, resized, in `b-t4sa-256` is there once as each."""
TWEET = "tweet"
LEDGER_NAME = "ledger.parquet"
COLLECTED = "collected"
"""In place of a layer, without a split, in the ledger of `t4sa collect`: kept there, and of no release yet."""
SELECTED = "selected"
"""The same of a selected tweet in a build that writes no text layers: its images are what it is there for."""

NOT_LISTED = "official/not-listed"
"""An image of the archive that no split list names."""
NOT_IN_ARCHIVE = "official/not-in-archive"
"""A line of a split list whose image is not there."""
NO_LABEL = "official/no-label"
"""An image of a further archive whose tweet is not in the TSV."""
ALREADY_IN_B_T4SA = "official/already-in-b-t4sa"
"""An image of a further archive that B-T4SA lists."""
REPEATED = "official/repeated"
"""A row of the CSV with the id of an earlier one."""
UNLISTED_PICTURE = "twitter-testing/not-listed"
"""A picture of the Twitter Testing Dataset that no list names; told by its file name."""
REMOVED = "removals/removed"
BEYOND_LIMIT = "limit/beyond"
OTHER_SPLIT = "splits/not-asked-for"
"""An image of a split that was not asked for."""
NOT_BUILT = "configs/not-built"
"""A candidate of a layer that was not asked for."""
QUARANTINED = "inspection/"
"""Followed by the reason of `t4sa_data.pixels`."""

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("key", pa.string()),
        ("layer", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
    ]
)
PROVENANCE = pa.schema([("status", pa.int16()), ("bytes", pa.int64()), ("sha256", pa.string())])
"""Further columns of a build from raw tweets, null for tweets and where nothing came: HTTP status, size, hex digits."""
BUILD_SCHEMA = pa.schema([*SCHEMA, *PROVENANCE])

Column: TypeAlias = pa.ChunkedArray | pa.Array
Fate = tuple[str | None, str | None, str | None]
"""Layer, split and reason."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Candidates of one kind; layer, split and reason each one for all, or one for each."""

    kind: str
    keys: Column | pa.Table
    """Text, tweet ids, or a table of `tweet_id` and `image_index`."""
    layer: Column | str | None = None
    splits: Column | None = None
    reason: Column | str | None = None
    provenance: pa.Table | None = None
    """Columns of `PROVENANCE`; `sha256` as text or as 32 bytes."""

    def __len__(self) -> int:
        return len(self.keys)

    def batches(self) -> Iterator[pa.Table]:
        """Its rows, columns as `BUILD_SCHEMA`."""
        for start in range(0, len(self), BATCH_ROWS):
            keys = self.keys.slice(start, BATCH_ROWS)
            fate = [_slice(column, start, len(keys)) for column in (self.layer, self.splits, self.reason)]
            columns = [pa.repeat(self.kind, len(keys)), _text(keys), *fate, *self._provenance(start, len(keys))]
            yield pa.table(columns, schema=BUILD_SCHEMA)

    def _provenance(self, start: int, rows: int) -> list[Column]:
        if self.provenance is None:
            return [pa.nulls(rows, field.type) for field in PROVENANCE]
        table = self.provenance.slice(start, rows)
        return [_hex(table[field.name]).cast(field.type) for field in PROVENANCE]

    def fates(self) -> Counter[Fate]:
        """How many candidates have which fate."""
        found: Counter[Fate] = Counter()
        for start in range(0, len(self), BATCH_ROWS):
            rows = min(BATCH_ROWS, len(self) - start)
            found += count_fates(*(_slice(column, start, rows) for column in (self.layer, self.splits, self.reason)))
        return found


@dataclass(frozen=True, kw_only=True)
class _TakenOver:
    """Tweets of the ledger of `t4sa collect`, read from its file again and again; those it kept have later fates."""

    path: Path
    later: _Part
    """Of the tweets that were kept, in the file's order."""
    kind: str = TWEET

    def __len__(self) -> int:
        with pq.ParquetFile(self.path) as file:
            return int(file.metadata.num_rows)

    def batches(self) -> Iterator[pa.Table]:
        """All tweets, in the file's order.

        Raises:
            LedgerFaulty: later fates are not those of the tweets that were kept.
        """
        done = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=SCHEMA.names):
                table = pa.Table.from_batches([batch], SCHEMA)
                is_kept = table["reason"].is_null().combine_chunks()
                num = int(pc.sum(is_kept).as_py() or 0)
                keys = _text(self.later.keys.slice(done, num))
                if not table["key"].filter(is_kept).combine_chunks().equals(_flat(keys)):
                    self._refuse(f"row {done + 1:,} of those kept")
                columns = [table["kind"], table["key"]]
                for name, later in (
                    ("layer", self.later.layer), ("split", self.later.splits), ("reason", self.later.reason)
                ):  # fmt: skip
                    before = table["reason"].combine_chunks() if name == "reason" else pa.nulls(len(table), pa.string())
                    columns.append(pc.replace_with_mask(before, is_kept, _flat(_slice(later, done, num))))
                done += num
                yield pa.table([*columns, *(pa.nulls(len(table), f.type) for f in PROVENANCE)], schema=BUILD_SCHEMA)
        if done != len(self.later):
            self._refuse(f"{len(self.later):,} fates for {done:,} tweets")

    def _refuse(self, got: str) -> None:
        raise LedgerFaulty(
            "later fates do not fit the tweets that were collected",
            expected="the tweets kept there, in their order", got=got, where=self.path,
        )  # fmt: skip

    def fates(self) -> Counter[Fate]:
        """How many tweets have which fate."""
        found: Counter[Fate] = Counter()
        for table in self.batches():
            found += count_fates(table["layer"], table["split"], table["reason"])
        return found


@dataclass
class Ledger:
    """Candidates and their status, in the order in which they are told. What is told is held, never copied."""

    of_build: bool = False
    """Of a build from raw tweets: its file has the columns `PROVENANCE`."""
    _parts: list[_Part | _TakenOver] = field(default_factory=list)

    @property
    def schema(self) -> pa.Schema:
        """Columns of its file."""
        return BUILD_SCHEMA if self.of_build else SCHEMA

    def keep(
        self, kind: str, keys: Column | pa.Table, layer: str, splits: Column, provenance: pa.Table | None = None
    ) -> None:
        """Candidates that are in the release.

        Args:
            kind: of `IMAGES`, or `TWEET`.
            keys: image keys as text, tweet ids, or a table of `tweet_id` and `image_index`; as long as `splits`.
            layer: where they are.
            splits: one for each.
            provenance: what was fetched, row for row, columns as `PROVENANCE` (`sha256` may be 32 bytes).
        """
        self._add(_Part(kind=kind, keys=keys, layer=layer, splits=splits, provenance=provenance))

    def drop(self, kind: str, keys: Column | pa.Table, reason: str, provenance: pa.Table | None = None) -> None:
        """Candidates that are not."""
        self._add(_Part(kind=kind, keys=keys, reason=reason, provenance=provenance))

    def tell(
        self,
        kind: str,
        keys: Column | pa.Table,
        *,
        layers: Column,
        splits: Column,
        reasons: Column,
        provenance: pa.Table | None = None,
    ) -> None:
        """Candidates whose fates differ from row to row: the rows of a whole build in ascending order, told once.

        Args:
            kind: of `IMAGES`, or `TWEET`.
            keys: as in `keep`.
            layers: where each is; null: it left. Strings, or of dictionary type (1 to 4 bytes a row).
            splits: of those that have a layer, else null.
            reasons: why each left; null: it is in a layer.
            provenance: as in `keep`.

        Raises:
            LedgerFaulty: columns of different lengths; a row with a layer and a reason, or with neither.
        """
        self._add(
            _Part(kind=kind, keys=keys, layer=layers, splits=splits, reason=reasons, provenance=provenance),
        )

    def take_over(self, path: Path, ids: Column, *, layers: Column, splits: Column, reasons: Column) -> None:
        """All tweets of the ledger of `t4sa collect`; its file is read when this one is counted or written.

        Args:
            path: that ledger; its tweets keep the reason that they have there.
            ids: of the tweets that it says are kept, in its (ascending) order.
            layers, splits, reasons: what became of these, as in `tell`.

        Raises:
            LedgerFaulty: as in `tell`; later, where the ids are not those of the file.
        """
        later = _Part(kind=TWEET, keys=ids, layer=layers, splits=splits, reason=reasons)
        _require(later)
        self._parts.append(_TakenOver(path=Path(path), later=later))

    def _add(self, part: _Part) -> None:
        _require(part)
        self._parts.append(part)

    @property
    def table(self) -> pa.Table:
        """All candidates, columns as `schema`: for small ones."""
        tables = [batch.select(self.schema.names) for part in self._parts for batch in part.batches()]
        return pa.concat_tables([self.schema.empty_table(), *tables])

    def num_dropped(self, reason: str) -> int:
        """Candidates dropped for one reason."""
        if any(isinstance(part, _TakenOver) or not isinstance(part.reason, str | None) for part in self._parts):
            return sum(num for part in self._parts for fate, num in part.fates().items() if fate[2] == reason)
        return sum(len(part) for part in self._parts if isinstance(part, _Part) and part.reason == reason)

    def funnel(self) -> dict[str, dict[str, Any]]:
        """Per kind: `candidates`, `kept` by layer and split, `dropped` by reason. The counts add up."""
        fates: dict[str, Counter[Fate]] = {kind: Counter() for kind in (*IMAGES, TWEET)}
        for part in self._parts:
            fates[part.kind] += part.fates()
        return {kind: counts_of(found) for kind, found in fates.items() if found}

    def write(self, folder: Path) -> None:
        """Write `ledger.parquet` into `folder`."""
        with atomic_file(folder / LEDGER_NAME) as sink:
            writer = open_writer(sink, self.schema)
            for part in self._parts:
                for batch in part.batches():
                    writer.write_table(batch.select(self.schema.names))
            writer.close()


def count_fates(layer: Column, split: Column, reason: Column) -> Counter[Fate]:
    """How many rows have which layer, split and reason; columns of text, shape (n,)."""
    table = pa.table([layer, split, reason], names=["layer", "split", "reason"])
    groups = table.group_by(table.column_names).aggregate([([], "count_all")])
    return Counter({(row["layer"], row["split"], row["reason"]): row["count_all"] for row in groups.to_pylist()})


def counts_of(fates: Counter[Fate]) -> dict[str, Any]:
    """`candidates`, `kept` by `layer/split` (by layer where there is no split), `dropped` by reason."""
    kept: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for (layer, split, reason), num in fates.items():
        if reason is not None:
            dropped[reason] += num
        else:
            kept["/".join(part for part in (layer, split) if part is not None)] += num
    return {
        "candidates": kept.total() + dropped.total(),
        "kept": dict(sorted(kept.items())),
        "dropped": dict(sorted(dropped.items())),
    }


def _require(part: _Part) -> None:
    """Every candidate of a part has one fate."""
    columns = {"layers": part.layer, "splits": part.splits, "reasons": part.reason, "provenance": part.provenance}
    for name, column in columns.items():
        if column is not None and not isinstance(column, str) and len(column) != len(part):
            raise LedgerFaulty(f"keys and {name} do not fit", expected=f"{len(part):,} rows", got=f"{len(column):,}")
    if isinstance(part.layer, str | None) or isinstance(part.reason, str | None):
        return
    has_one = pc.xor(_flat(pc.is_valid(part.layer)), _flat(pc.is_valid(part.reason)))
    if not pc.all(has_one, min_count=0).as_py():
        row = pc.index(has_one, False).as_py()
        raise LedgerFaulty(
            "a candidate without a fate, or with two", expected="either a layer or a reason",
            got=f"{part.kind} {_text(part.keys.slice(row, 1))[0]}", where=f"row {row}",
        )  # fmt: skip


def _slice(column: Column | str | None, start: int, rows: int) -> Column:
    """Some rows as text."""
    if column is None or isinstance(column, str):
        return pa.nulls(rows, pa.string()) if column is None else pa.repeat(column, rows)
    return column.slice(start, rows).cast(pa.string())


def _text(keys: Column | pa.Table) -> Column:
    if isinstance(keys, pa.Table):
        return pc.binary_join_element_wise(*(keys[n].cast(pa.string()) for n in ("tweet_id", "image_index")), "-")
    return keys.cast(pa.string())


def _flat(column: Column) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _hex(column: Column) -> Column:
    """Bytes as hex digits, anything else as it is."""
    if not (pa.types.is_fixed_size_binary(column.type) or pa.types.is_binary(column.type)):
        return column
    return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())
