"""What a split lets through: tweets, near-duplicates, equal files and authors on both sides, and times that overlap.

Works on columns, for any split: ours, the official one, anybody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from builders import dedup
from builders.keys import Ints
from builders.split import NONE, TEST, TRAIN, snowflake_ms
from t4sa_data.catalog import SPLITS
from t4sa_data.summary import table

DISTANCES = (0, 4, 8)
"""Bits at which near-duplicates are looked for."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Rows of a split. What is None is not looked at; all of shape (n,)."""

    split: npt.NDArray[np.int8]
    """0 train, 1 validation, 2 test; -1: in none, left out."""
    label: Ints
    tweet_id: Ints
    phash: npt.NDArray[np.uint64] | None = None
    sha256: Ints | None = None
    """A number for each file: equal for equal files."""
    author: Ints | None = None
    """As `split.alone_where_null` gives it."""
    time_ms: Ints | None = None
    """Since 1970; None: as the tweet ids say."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """What rows of one kind of kinship do across the splits."""

    name: str
    sets: int
    """Sets of kin (a tweet, a group) with rows in two splits or more."""
    rows: int
    """Rows in these sets."""
    pairs: dict[str, int]
    """`train-test` and so on: pairs of kin, one on each side."""
    test_rows: int
    """Rows of test with kin in train: its twins, where kin are near-duplicates."""
    test_conflicts: int
    """Of these, rows none of whose kin in train has their label."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """A leak report."""

    rows: dict[str, int]
    """By split."""
    classes: dict[str, list[int]]
    """By split, in class order."""
    relations: tuple[Relation, ...]
    times: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By split: first and last, UTC."""
    test_before_last_train: int = 0
    """Rows of test that are not later than the last row of train."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "rows": self.rows,
            "classes": self.classes,
            "relations": {one.name: {k: v for k, v in vars(one).items() if k != "name"} for one in self.relations},
            "times": {split: list(span) for split, span in self.times.items()},
            "test_rows_before_last_train_row": self.test_before_last_train,
        }

    def as_text(self) -> str:
        """A short table for a terminal."""
        pairs = list(self.relations[0].pairs) if self.relations else []
        share = max(1, self.rows["test"])
        rows = [
            (
                one.name, one.sets, *(one.pairs[pair] for pair in pairs), one.test_rows,
                f"{one.test_rows / share:.1%}", one.test_conflicts,
            )
            for one in self.relations
        ]  # fmt: skip
        header = ("kin", "sets in two splits", *(f"pairs {pair}" for pair in pairs))
        lines = [", ".join(f"{split} {num:,}" for split, num in self.rows.items()), ""]
        lines += table((*header, "test rows with kin in train", "share", "with another label"), rows)
        lines += ["", *(f"{split}: {first} to {last}" for split, (first, last) in self.times.items())]
        lines.append(f"test rows not later than the last of train: {self.test_before_last_train:,}")
        return "\n".join(lines)


def find_leaks(columns: Columns, *, distances: Sequence[int] = DISTANCES) -> Leaks:
    """Look at a split.

    Args:
        columns: of its rows.
        distances: bits; near-duplicates are those of `dedup.group`: also those of near-duplicates.
    """
    inside = columns.split != NONE
    split, label, tweet_id = columns.split[inside], columns.label[inside], columns.tweet_id[inside]
    kin: list[tuple[str, Ints]] = [("same tweet", tweet_id)]
    if columns.sha256 is not None:
        kin.append(("same file", columns.sha256[inside]))
    if columns.phash is not None:
        hashes = columns.phash[inside]
        kin += [(f"near-duplicate, {bits} bits", dedup.group(hashes, bits)) for bits in distances]
    if columns.author is not None:
        kin.append(("same author", columns.author[inside]))
    num = {name: int((split == i).sum()) for i, name in enumerate(SPLITS)}
    classes = {name: np.bincount(label[split == i], minlength=3).tolist() for i, name in enumerate(SPLITS)}
    relations = tuple(_relation(name, values, split, label) for name, values in kin)
    time = snowflake_ms(tweet_id) if columns.time_ms is None else columns.time_ms[inside]
    times = {name: _span(time[split == i]) for i, name in enumerate(SPLITS) if num[name]}
    late = time[split == TRAIN].max(initial=np.iinfo(np.int64).min)
    early = int((time[split == TEST] <= late).sum())
    return Leaks(rows=num, classes=classes, relations=relations, times=times, test_before_last_train=early)


def _relation(name: str, values: Ints, split: npt.NDArray[np.int8], label: Ints) -> Relation:
    kin = np.unique(values, return_inverse=True)[1]
    num = int(kin.max(initial=-1)) + 1
    # Rows of each set in each split, shape (num, 3).
    counts = np.bincount(kin * 3 + split, minlength=3 * num).reshape(num, 3)
    is_across = (counts > 0).sum(axis=1) > 1
    pairs = {f"{SPLITS[a]}-{SPLITS[b]}": int((counts[:, a] * counts[:, b]).sum()) for a, b in combinations(range(3), 2)}
    has_train = (counts[:, TRAIN] > 0)[kin] & (split == TEST)
    # Labels that a set has in train, as bits.
    labels = np.zeros(num, dtype=np.int64)
    np.bitwise_or.at(labels, kin[split == TRAIN], 1 << label[split == TRAIN])
    conflicts = has_train & ((labels[kin] >> label) & 1 == 0)
    return Relation(
        name=name,
        sets=int(is_across.sum()),
        rows=int(counts[is_across].sum()),
        pairs=pairs,
        test_rows=int(has_train.sum()),
        test_conflicts=int(conflicts.sum()),
    )


def _span(time: Ints) -> tuple[str, str]:
    first, last = (
        np.array([time.min(), time.max()], dtype="datetime64[ms]").astype("datetime64[s]").astype(str).tolist()
    )
    return f"{first}Z", f"{last}Z"
