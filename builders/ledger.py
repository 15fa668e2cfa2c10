"""The ledger: every candidate that ever entered a build leaves with one status, and the counts add up.

Reasons are constants `stage/reason`; a kept candidate has a layer and a split instead.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from builders.state import BATCH_ROWS
from t4sa_data.files import atomic_file
from t4sa_data.shards import open_writer

IMAGES = ("image", "small image")
"""Kinds of candidates: an image that is kept in `b-t4sa` and, resized, in `b-t4sa-256` is there once as each."""
LEDGER_NAME = "ledger.parquet"

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

_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("key", pa.string()),
        ("layer", pa.string()),
        ("split", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Candidates of one status."""

    kind: str
    keys: pa.ChunkedArray | pa.Array
    """Text, or tweet ids."""
    layer: str | None = None
    splits: pa.ChunkedArray | pa.Array | None = None
    reason: str | None = None

    def table(self, start: int = 0, rows: int | None = None) -> pa.Table:
        """Some of its rows, columns as `_SCHEMA`."""
        keys = self.keys.slice(start, rows)
        columns = [
            _repeat(self.kind, len(keys)),
            keys.cast(pa.string()),
            _repeat(self.layer, len(keys)),
            _repeat(None, len(keys)) if self.splits is None else self.splits.slice(start, rows),
            _repeat(self.reason, len(keys)),
        ]
        return pa.table(columns, schema=_SCHEMA)


@dataclass
class Ledger:
    """Candidates and their status, in the order in which they are told. Keys and splits are held, never copied."""

    _parts: list[_Part] = field(default_factory=list)

    def keep(
        self,
        kind: str,
        keys: pa.ChunkedArray | pa.Array,
        layer: str,
        splits: pa.ChunkedArray | pa.Array,
    ) -> None:
        """Candidates that are in the release.

        Args:
            kind: of `IMAGES`, or `tweet`.
            keys: image keys as text, or tweet ids.
            layer: where they are.
            splits: one for each.
        """
        self._parts.append(_Part(kind=kind, keys=keys, layer=layer, splits=splits))

    def drop(self, kind: str, keys: pa.ChunkedArray | pa.Array, reason: str) -> None:
        """Candidates that are not."""
        self._parts.append(_Part(kind=kind, keys=keys, reason=reason))

    @property
    def table(self) -> pa.Table:
        """All candidates: kind, key, layer, split, reason."""
        return pa.concat_tables([_SCHEMA.empty_table(), *(part.table() for part in self._parts)])

    def num_dropped(self, reason: str) -> int:
        """Candidates dropped for one reason."""
        return sum(len(part.keys) for part in self._parts if part.reason == reason)

    def funnel(self) -> dict[str, dict[str, object]]:
        """Per kind: `candidates`, `kept` by layer and split, `dropped` by reason. The counts add up."""
        made: dict[str, dict[str, object]] = {}
        for kind in (*IMAGES, "tweet"):
            kept: Counter[str] = Counter()
            dropped: Counter[str] = Counter()
            for part in (part for part in self._parts if part.kind == kind and len(part.keys)):
                if part.splits is None:
                    dropped[str(part.reason)] += len(part.keys)
                    continue
                for run in part.splits.value_counts().to_pylist():
                    kept[f"{part.layer}/{run['values']}"] += run["counts"]
            if kept or dropped:
                made[kind] = {
                    "candidates": kept.total() + dropped.total(),
                    "kept": dict(sorted(kept.items())),
                    "dropped": dict(sorted(dropped.items())),
                }
        return made

    def write(self, folder: Path) -> None:
        """Write `ledger.parquet` into `folder`."""
        with atomic_file(folder / LEDGER_NAME) as sink:
            writer = open_writer(sink, _SCHEMA)
            for part in self._parts:
                for start in range(0, len(part.keys), BATCH_ROWS):
                    writer.write_table(part.table(start, BATCH_ROWS))
            writer.close()


def _repeat(value: str | None, rows: int) -> pa.Array:
    return pa.nulls(rows, pa.string()) if value is None else pa.repeat(value, rows)
