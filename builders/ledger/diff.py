"""Two ledgers beside each other: which candidates changed fate, and at which stage their ways part.

Memory: two builds of 10 million candidates each take 620 MB, 200 more where a file is not sorted: 12 bytes for each
candidate of both, twice that while they are read, 16 for each that changed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.keys import Packed
from builders.ledger import Fate
from builders.ledger.reading import Codes, Fates, Names, find_ledger, read_fates
from builders.ledger.words import place_of, stage_of
from builders.state import BATCH_ROWS
from t4sa_data.errors import BadOption
from t4sa_data.files import atomic_file
from t4sa_data.shards import open_writer

ABSENT = "-"
"""Fate of a candidate that a ledger does not have."""
NUM_EXAMPLES = 3
SCHEMA = pa.schema([(name, pa.string()) for name in ("kind", "key", "a", "b", "stage")])
"""Of the whole list: a candidate that changed, its fate in A and in B, and the stage where its ways part."""
_ABSENT_CODE = -1


@dataclass(frozen=True, kw_only=True)
class Change:
    """Candidates of one kind that went the same two ways."""

    kind: str
    a: str
    """Fate in A: `layer/split`, a reason, or `ABSENT`; several with ` + ` between."""
    b: str
    stage: str
    """Where the ways part: the earlier of the stages in which they left or stayed."""
    num: int
    examples: tuple[str, ...]
    """Keys, the smallest ones."""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Changed candidates of one kind, by ascending number."""

    numbers: Packed
    a: Codes
    b: Codes


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What differs between two ledgers."""

    num_same: dict[str, int]
    """Candidates of the same fate, by kind."""
    _kinds: dict[str, _Kind]
    _names: Names
    _fates: list[tuple[Fate, ...]] = field(default_factory=list)
    _odd: list[str] = field(default_factory=list)

    @property
    def num_changed(self) -> int:
        """Candidates whose fate changed, those of one ledger only among them."""
        return sum(len(kind.numbers) for kind in self._kinds.values())

    def changes(self) -> list[Change]:
        """By kind, then by stage, then the most frequent first."""
        made = []
        for kind, found in self._kinds.items():
            pairs, inverse, counts = np.unique(
                np.stack([found.a, found.b], axis=1), axis=0, return_inverse=True, return_counts=True
            )
            order = np.argsort(inverse.reshape(-1), kind="stable")
            start = np.cumsum(counts) - counts
            for i, (a, b) in enumerate(pairs.tolist()):
                first = found.numbers[order[start[i] : start[i] + min(NUM_EXAMPLES, counts[i])]]
                change = Change(
                    kind=kind, a=self._text(a), b=self._text(b), stage=self._stage(a, b), num=int(counts[i]),
                    examples=tuple(self._names.key(kind, number, self._odd) for number in first.tolist()),
                )  # fmt: skip
                made.append(change)
        return sorted(made, key=lambda c: (c.kind, place_of(c.stage), c.stage, -c.num, c.a, c.b))

    def tables(self) -> Iterator[pa.Table]:
        """All changed candidates, columns as `SCHEMA`, by kind and ascending key."""
        for kind, found in self._kinds.items():
            for i in range(0, len(found.numbers), BATCH_ROWS):
                numbers, a, b = (column[i : i + BATCH_ROWS].tolist() for column in (found.numbers, found.a, found.b))
                columns = [
                    [kind] * len(numbers), [self._names.key(kind, number, self._odd) for number in numbers],
                    [self._text(code) for code in a], [self._text(code) for code in b],
                    [self._stage(*codes) for codes in zip(a, b, strict=True)],
                ]  # fmt: skip
                yield pa.table([pa.array(column, pa.string()) for column in columns], schema=SCHEMA)

    def _text(self, code: int) -> str:
        if code == _ABSENT_CODE:
            return ABSENT
        return " + ".join(_text_of(*fate) for fate in self._fates[code])

    def _stage(self, a: int, b: int) -> str:
        """Where the ways of two fates part; of a candidate that one ledger does not have, where it ended in the other.

        Only fates that are not shared count, where a candidate has several.
        """
        some, others = (() if code == _ABSENT_CODE else self._fates[code] for code in (a, b))
        differing = set(some) ^ set(others)
        return min((stage_of(layer, reason) for layer, _, reason in differing), key=lambda s: (place_of(s), s))


def _text_of(layer: str | None, split: str | None, reason: str | None) -> str:
    return reason if reason is not None else "/".join(part for part in (layer, split) if part is not None)


def diff(a: Path, b: Path) -> Diff:
    """Compare two ledgers.

    Args:
        a: a ledger, or a build's folder (`find_ledger`).
        b: the other.

    Raises:
        InputMissing: there is none.
        LedgerFaulty, TableError: as `read_fates`.
    """
    names = Names.empty()
    left, right = (read_fates(find_ledger(place), names) for place in (a, b))
    none = Fates(numbers=np.zeros(0, np.uint64), codes=np.zeros(0, np.int32), num_repeated=0)
    kinds, same = {}, {}
    for kind in sorted({*left, *right}):
        kinds[kind], same[kind] = _compare(left.pop(kind, none), right.pop(kind, none))
    return Diff(num_same=same, _kinds=kinds, _names=names, _fates=list(names.fates), _odd=list(names.odd_keys))


def _compare(a: Fates, b: Fates) -> tuple[_Kind, int]:
    """What changed, and how many did not."""
    in_b, is_new = np.empty(len(a.numbers), np.int32), np.ones(len(b.numbers), dtype=bool)
    for i in range(0, len(a.numbers), BATCH_ROWS):  # both ascend: a batch needs only its part of the other
        numbers = a.numbers[i : i + BATCH_ROWS]
        low = int(np.searchsorted(b.numbers, numbers[0]))
        high = int(np.searchsorted(b.numbers, numbers[-1], side="right"))
        found, codes = _lookup(numbers, b.numbers[low:high], b.codes[low:high])
        in_b[i : i + BATCH_ROWS] = codes
        is_new[low + found] = False
    changed = np.flatnonzero(in_b != a.codes)
    numbers = np.concatenate([a.numbers[changed], b.numbers[is_new]])
    codes_a = np.concatenate([a.codes[changed], np.full(int(is_new.sum()), _ABSENT_CODE, np.int32)])
    codes_b = np.concatenate([in_b[changed], b.codes[is_new]])
    order = np.argsort(numbers, kind="stable")
    return _Kind(numbers=numbers[order], a=codes_a[order], b=codes_b[order]), len(a.numbers) - len(changed)


def _lookup(wanted: Packed, among: Packed, codes: Codes) -> tuple[npt.NDArray[np.int64], Codes]:
    """Positions in `among` of those that are there, and the code of each wanted one."""
    made = np.full(len(wanted), _ABSENT_CODE, np.int32)
    if not len(among):
        return np.zeros(0, np.int64), made
    place = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    is_there = among[place] == wanted
    made[is_there] = codes[place[is_there]]
    return place[is_there], made


def write_diff(found: Diff, out: Path) -> None:
    """Write the whole list, columns as `SCHEMA`.

    Args:
        found: from `diff`.
        out: a file that ends in .parquet or .csv; it appears whole or not at all.

    Raises:
        BadOption: another ending.
        OutputError: it cannot be written.
    """
    require_ending(out)
    with atomic_file(out) as sink:
        if out.suffix == ".parquet":
            writer = open_writer(sink, SCHEMA)
            for table in found.tables():
                writer.write_table(table)
            writer.close()
            return
        sink.write((",".join(SCHEMA.names) + "\n").encode())
        for table in found.tables():
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(zip(*table.to_pydict().values(), strict=True))
            sink.write(text.getvalue().encode())


def require_ending(out: Path) -> None:
    """Refuse a file whose ending says neither format.

    Raises:
        BadOption: it does.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise BadOption("no such format", expected="a name that ends in .parquet or .csv", got=out.name)


def as_text(found: Diff) -> str:
    """The table of changes for a terminal."""
    same = [f"same fate: {num:,} {kind}{'' if num == 1 else 's'}" for kind, num in found.num_same.items()]
    changes = found.changes()
    if not changes:
        return "\n".join([*same, "changed: none"])
    rows = [("kind", "stage", "fate in A", "fate in B", "candidates", "as")]
    rows += [(c.kind, c.stage, c.a, c.b, f"{c.num:,}", ", ".join(c.examples)) for c in changes]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4].rjust(widths[4]), row[5]]).rstrip()
        for row in rows
    ]
    return "\n".join([*same, f"changed: {found.num_changed:,}", "", *lines])


def as_json(found: Diff) -> dict[str, Any]:
    """The same as a JSON value."""
    return {"same": found.num_same, "changed": found.num_changed, "changes": [vars(c) for c in found.changes()]}
