"""The ledger: every candidate that ever entered a build leaves with one status, and the counts add up.

Reasons are constants `stage/reason`; a kept candidate has a layer and a split instead.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from t4sa_data.files import atomic_file
from t4sa_data.shards import write_table

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
REMOVED = "removals/removed"
BEYOND_LIMIT = "limit/beyond"
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


@dataclass
class Ledger:
    """Candidates and their status, in the order in which they are told."""

    _tables: list[pa.Table] = field(default_factory=list)

    def keep(
        self, kind: str, keys: pa.ChunkedArray | list[str], layer: str, splits: pa.ChunkedArray | list[str]
    ) -> None:
        """Candidates that are in the release.

        Args:
            kind: `image` or `tweet`.
            keys: image keys, or tweet ids as text.
            layer: where they are.
            splits: one for each.
        """
        self._add(kind, keys, layer, splits, None)

    def drop(self, kind: str, keys: pa.ChunkedArray | list[str], reason: str) -> None:
        """Candidates that are not."""
        self._add(kind, keys, None, None, reason)

    def _add(self, kind: str, keys: object, layer: str | None, splits: object, reason: str | None) -> None:
        rows = len(keys)  # type: ignore[arg-type]
        columns = [
            pa.repeat(kind, rows),
            keys,
            _repeat(layer, rows),
            splits if splits is not None else pa.nulls(rows, pa.string()),
            _repeat(reason, rows),
        ]
        self._tables.append(pa.table(columns, names=_SCHEMA.names).cast(_SCHEMA))

    @property
    def table(self) -> pa.Table:
        """All candidates: kind, key, layer, split, reason."""
        return pa.concat_tables([_SCHEMA.empty_table(), *self._tables])

    def num_dropped(self, reason: str) -> int:
        """Candidates dropped for one reason."""
        return sum(t.num_rows for t in self._tables if t.num_rows and t["reason"][0].as_py() == reason)

    def funnel(self) -> dict[str, dict[str, object]]:
        """Per kind: `candidates`, `kept` by layer and split, `dropped` by reason. The counts add up."""
        made: dict[str, dict[str, object]] = {}
        for kind in ("image", "tweet"):
            kept: Counter[str] = Counter()
            dropped: Counter[str] = Counter()
            for table in self._tables:
                if table.num_rows and table["kind"][0].as_py() == kind:
                    reason = table["reason"][0].as_py()
                    if reason is not None:
                        dropped[reason] += table.num_rows
                    for run in table["split"].combine_chunks().value_counts() if reason is None else ():
                        kept[f"{table['layer'][0].as_py()}/{run['values'].as_py()}"] += run["counts"].as_py()
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
            write_table(sink, self.table)


def _repeat(value: str | None, rows: int) -> object:
    return pa.nulls(rows, pa.string()) if value is None else pa.repeat(value, rows)
