"""`where=`: which samples of a split take part. Evaluated on the sample table, before a byte of an image is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t4sa_data import plan
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption

Mask = npt.NDArray[np.bool_]
_KEY_OR_TWEET = re.compile(r"([0-9]{1,18}|[0-8][0-9]{18})(-[1-4])?")


@dataclass(frozen=True, kw_only=True)
class Where:
    """Conditions that a sample must meet, all of them; `one_per` and `fraction` choose among those that do."""

    expression: Any = None
    """A pyarrow expression on the columns of the sample table, or filters as `[("width", ">=", 224)]`."""
    classes: Sequence[str] | None = None
    """Names. Labels are then numbered 0, 1, ... among these in the catalog's order (two-way: without neutral)."""
    min_confidence: float | Mapping[str, float] | None = None
    """Least `confidence`, the release's own also with `labels=`; by class name where it differs (a class that is not
    named has no limit)."""
    keys: Sequence[str] | Path | str | None = None
    """Only these: keys, or a file with one a line."""
    removals: Sequence[str] | Path | str | None = None
    """None of these: keys or tweet ids, or a file with one a line."""
    one_per: Literal["tweet", "duplicate_group"] | None = None
    """Only the first, in release order, of each tweet or near-duplicate group."""
    fraction: float | None = None
    """This share of each class, rounded: a smaller fraction is part of a larger one."""
    fraction_seed: int = 0
    """Another seed, another part."""

    def __post_init__(self) -> None:
        """Raise `BadOption` for what cannot be meant."""
        if isinstance(self.classes, str):
            raise BadOption("classes is a list of names", got=repr(self.classes))
        limits = self.min_confidence.values() if isinstance(self.min_confidence, Mapping) else [self.min_confidence]
        try:
            is_number = not any(one is not None and np.isnan(one) for one in limits)
        except TypeError:
            is_number = False
        if not is_number:
            raise BadOption("min_confidence", expected="numbers", got=self.min_confidence)
        named = [*(self.classes or ()), *(self.min_confidence if isinstance(self.min_confidence, Mapping) else ())]
        if unknown := [name for name in named if name not in CLASSES]:
            raise BadOption("no such class", expected=" | ".join(CLASSES), got=", ".join(map(str, unknown)))
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise BadOption("not a fraction", expected="more than 0, at most 1", got=self.fraction)
        if self.one_per not in (None, "tweet", "duplicate_group"):
            raise BadOption("one_per", expected="tweet | duplicate_group", got=self.one_per)

    @property
    def kept_classes(self) -> tuple[str, ...]:
        """The classes in the catalog's order: a label is an index into them."""
        return CLASSES if self.classes is None else tuple(name for name in CLASSES if name in self.classes)

    @property
    def columns(self) -> list[str]:
        """Columns of the sample table that the conditions need, but for the expression's."""
        needed = {
            "confidence": self.min_confidence is not None,
            "key": self.keys is not None or self.removals is not None,
            "tweet_id": self.removals is not None or self.one_per == "tweet",
            "duplicate_group": self.one_per == "duplicate_group",
        }
        return [name for name, is_needed in needed.items() if is_needed]


def as_where(value: Any) -> Where:
    """What the user gave for `where=`, as a `Where`.

    Args:
        value: None, a `Where`, its fields as a mapping, a pyarrow expression, or filters as a list.

    Raises:
        BadOption: a field that does not exist.
    """
    if value is None or isinstance(value, Where):
        return value or Where()
    if isinstance(value, Mapping):
        known = [field.name for field in fields(Where)]
        if unknown := [name for name in value if name not in known]:
            raise BadOption("where: no such condition", expected=" | ".join(known), got=", ".join(map(str, unknown)))
        return Where(**value)
    return Where(expression=value)


def mask_of(where: Where, rows: pa.Table, positions: plan.Ints, label: plan.Ints, among: Mask) -> Mask:
    """Which rows meet the conditions, the expression apart.

    Args:
        where: the conditions.
        rows: candidates, n of them, with `where.columns`.
        positions: shape (n,).
        label: shape (n,), an index into all classes.
        among: rows that may be kept, shape (n,).

    Returns:
        shape (n,).
    """
    keep = among.copy()
    if where.classes is not None:
        keep &= np.isin(label, [CLASSES.index(name) for name in where.classes])
    if where.min_confidence is not None:
        keep &= _confident(where.min_confidence, rows["confidence"], label)
    if where.keys is not None:
        keep &= _is_in(rows["key"], pa.array(_lines(where.keys), pa.string()))
    if where.removals is not None:
        gone = read_ids(where.removals)
        tweets = pa.array([int(word) for word in gone if "-" not in word], pa.int64())
        keep &= ~_is_in(rows["key"], pa.array([word for word in gone if "-" in word], pa.string()))
        keep &= ~_is_in(rows["tweet_id"], tweets)
    if where.one_per is not None:
        keep = _firsts(rows["tweet_id" if where.one_per == "tweet" else where.one_per], keep)
    if where.fraction is not None:
        keep = _fraction(where, label, keep, positions)
    return keep


def _confident(least: float | Mapping[str, float], confidence: pa.ChunkedArray, label: plan.Ints) -> Mask:
    """Rows of at least this confidence; a row without one has none."""
    limits = [least.get(name, -np.inf) if isinstance(least, Mapping) else least for name in CLASSES]
    # In float32, as the column is: 0.9 must not turn away a stored 0.9.
    found = pc.fill_null(confidence, -1.0).to_numpy().astype(np.float32)
    return np.asarray(found >= np.array(limits, dtype=np.float32)[label])


def _is_in(column: pa.ChunkedArray, values: pa.Array) -> Mask:
    return np.asarray(pc.is_in(column, value_set=values).to_numpy(zero_copy_only=False))


def read_ids(words: Sequence[str] | Path | str) -> list[str]:
    """Keys and tweet ids of a list, or of a file: one a line, `#` begins a comment.

    Raises:
        BadOption: the file cannot be read, or holds something else.
    """
    found = _lines(words)
    if unknown := next((word for word in found if not _KEY_OR_TWEET.fullmatch(word)), None):
        raise BadOption("removals: neither a key nor a tweet id", got=unknown)
    return found


def _lines(words: Sequence[str] | Path | str) -> list[str]:
    """The words themselves, or those of a file: one a line, `#` begins a comment."""
    if isinstance(words, str | Path):
        try:
            text = Path(words).read_text(encoding="utf-8")
        except OSError as error:
            raise BadOption("where: the list cannot be read", got=error.strerror, where=words) from error
        return [word for line in text.splitlines() if (word := line.partition("#")[0].strip())]
    return [str(word) for word in words]


def _firsts(groups: pa.ChunkedArray, keep: Mask) -> Mask:
    """The first kept row of each group."""
    kept = np.flatnonzero(keep)
    codes = groups.take(pa.array(kept)).combine_chunks().dictionary_encode()
    codes = codes.chunk(0) if isinstance(codes, pa.ChunkedArray) else codes
    _, first = np.unique(np.asarray(codes.indices), return_index=True)
    chosen = np.zeros_like(keep)
    chosen[kept[first]] = True
    return chosen


def _fraction(where: Where, label: plan.Ints, keep: Mask, positions: plan.Ints) -> Mask:
    """A part of each class: the rows with the smallest hashes."""
    hashes = plan.sample_hash(positions, seed=where.fraction_seed, epoch=0, purpose=plan.FRACTION)
    chosen = np.zeros_like(keep)
    for one in range(len(CLASSES)):
        rows = np.flatnonzero(keep & (label == one))
        count = round(len(rows) * (where.fraction or 1.0))
        chosen[rows[np.argsort(hashes[rows])[:count]]] = True
    return chosen
