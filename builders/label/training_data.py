"""Labelled tweets for training and evaluation: `id <tab> label <tab> text`, checked before anything is trained.

Fields stand between tabs as they are: quotes are part of a text, escapes (`\\u2019`, doubled quotes) are decoded with
the rest of a text by `text.clean`. Labels are 0, 1, 2 or negative, neutral, positive.
Rows are left out, and counted, by these rules:

- `empty_text`: nothing is left of the text once it is clean; `too_long`: it has more than `text.MAX_CHARS` characters.
- `conflicting_id`: its id stands with two labels. None of them is kept: which is right cannot be known.
- `repeated_id`: its id stands further up with the same label; the first one is kept, whatever the text.

Counted and kept: texts that are equal once they are clean and stand with different labels under different ids.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from builders.label.files import lines, opened
from builders.label.systems import CLASSES
from builders.label.text import MAX_CHARS, clean
from t4sa_data.errors import MalformedRow, MissingColumn, NoRows, UnknownLabel

Ints = npt.NDArray[np.int64]
COLUMNS = ("id", "label", "text")
MAX_ID_DIGITS = 19
_LABELS = {str(number): number for number in range(3)} | {name: number for number, name in enumerate(CLASSES)}
DEVELOPMENT_SHARE = 10
"""One id in so many is development."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Tweets with their labels, in the file's order."""

    ids: Ints
    """Shape (n,)."""
    labels: Ints
    """0, 1, 2, shape (n,)."""
    texts: tuple[str, ...]
    """As they stand in the file, n of them."""
    num_rows: int
    """Of the file, its header aside."""
    dropped: Mapping[str, int]
    """Rows left out, by reason."""
    conflicting_ids: tuple[int, ...] = ()
    """Ids that stand with two labels, ascending."""
    num_conflicting_texts: int = 0
    """Different texts that stand with different labels under different ids; kept."""
    sha256: str = ""
    """Of the file, decompressed."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Rows of each class."""
        return tuple(np.bincount(self.labels, minlength=3).tolist())

    def take(self, wanted: npt.NDArray[np.bool_]) -> tuple[list[str], Ints]:
        """Texts and labels of some rows, shape of `wanted`: (n,)."""
        return [text for text, is_wanted in zip(self.texts, wanted, strict=True) if is_wanted], self.labels[wanted]

    def provenance(self) -> dict[str, Any]:
        """Counts and hashes for a model's description: no id, no text."""
        return {
            "sha256": self.sha256,
            "rows": self.num_rows,
            "kept": len(self.ids),
            "classes": dict(zip(CLASSES, self.class_counts, strict=True)),
            "dropped": dict(sorted(self.dropped.items())),
            "conflicting_ids": len(self.conflicting_ids),
            "conflicting_texts": self.num_conflicting_texts,
        }


def read_labelled(path: str | Path) -> Labelled:
    """Read a file of labelled tweets; see the module for the rules.

    Args:
        path: TSV, plain or `.gz`, `.bz2`, `.zst`. A first line that names the columns `id`, `label`, `text` (in any
            order) is a header; without one they stand in this order.

    Raises:
        InputMissing: no such file.
        MissingColumn: a header of other names.
        MalformedRow: another number of fields, an id that is none, not UTF-8.
        UnknownLabel: a label that is none.
        NoRows: no row, or none that is kept.
        TableError: compressed data that is damaged.
    """
    path = Path(path)
    with opened(path) as file:
        rows, digest = _read(file, path)
    if not rows:
        raise NoRows("an empty file", expected="rows of id, label, text", where=path)
    kept, dropped, conflicting = _kept(rows)
    if not kept:
        raise NoRows("no row can be used", got=_counted(dropped), where=path)
    said: defaultdict[str, set[int]] = defaultdict(set)
    for _, label, text in kept:
        said[clean(text)].add(label)
    return Labelled(
        ids=np.array([row[0] for row in kept], dtype=np.int64),
        labels=np.array([row[1] for row in kept], dtype=np.int64),
        texts=tuple(row[2] for row in kept),
        num_rows=len(rows),
        dropped=dropped,
        conflicting_ids=conflicting,
        num_conflicting_texts=sum(len(labels) > 1 for labels in said.values()),
        sha256=digest,
    )


def is_development(ids: Iterable[int]) -> npt.NDArray[np.bool_]:
    """Whether tweets are development: by their id alone, so that it is the same in every file.

    >>> is_development([1, 22, 25]).tolist(), is_development(range(10_000)).mean().round(2).item()
    ([False, False, False], 0.1)
    """
    hashes = (hashlib.sha256(str(int(number)).encode()).digest() for number in ids)
    return np.array([int.from_bytes(value, "big") % DEVELOPMENT_SHARE == 0 for value in hashes], dtype=bool)


def parse_id(text: str) -> int | None:
    """A tweet id, exact at any size; None: it is none (no plain decimal integer below 2^63).

    >>> parse_id("783393626990194689"), parse_id("7.8e17"), parse_id("-1"), parse_id("9" * 19)
    (783393626990194689, None, None, None)
    """
    if text.isascii() and text.isdecimal() and len(text) <= MAX_ID_DIGITS:
        number = int(text)
        return number if number < 2**63 else None
    return None


Row = tuple[int, int, str]


def _read(file: IO[bytes], path: Path) -> tuple[list[Row], str]:
    """Rows of (id, label, text), and the sha256 of the lines."""
    rows: list[Row] = []
    order, digest = (0, 1, 2), hashlib.sha256()
    for number, line in lines(file):
        where = f"{path}, line {number}"
        if line is None:
            raise MalformedRow("a line without an end", where=where, hint="Is this a TSV file?")
        digest.update(line + b"\n")
        try:
            fields = line.decode("utf-8").split("\t")
        except UnicodeDecodeError as error:
            raise MalformedRow("not UTF-8", where=where, hint="Convert the file to UTF-8.") from error
        if number == 1 and (found := _header(fields, where)) is not None:
            order = found
        elif line:
            rows.append(_row(fields, order, where))
    return rows, digest.hexdigest()


def _header(fields: list[str], where: str) -> tuple[int, int, int] | None:
    """Places of id, label and text; None: the first line is a row."""
    names = [field.strip().lower() for field in fields]
    if sorted(names) == sorted(COLUMNS):
        return names.index("id"), names.index("label"), names.index("text")
    if names[0].isdecimal() or names == [""]:
        return None
    raise MissingColumn(
        "a header that does not fit",
        expected="id, label, text, with tabs between",
        got=f"{len(names)} field(s)",
        where=where,
    )


def _row(fields: list[str], order: tuple[int, int, int], where: str) -> Row:
    if len(fields) != len(COLUMNS):
        raise MalformedRow(
            "a row with another number of fields", expected=len(COLUMNS), got=len(fields), where=where,
            hint="Fields stand between tabs; a text holds neither a tab nor a line end.",
        )  # fmt: skip
    tweet, label, text = (fields[place] for place in order)
    number = parse_id(tweet.strip())
    if number is None:
        raise MalformedRow(
            "not a tweet id", expected="a decimal integer below 2^63", got=repr(tweet[:40]), where=where,
            hint="A spreadsheet or a float column rounds ids: fetch the original file.",
        )  # fmt: skip
    found = _LABELS.get(label.strip().lower())
    if found is None:
        raise UnknownLabel(
            "unknown label", expected="0, 1, 2 or negative, neutral, positive", got=repr(label[:40]), where=where
        )
    return number, found, text


def _kept(rows: list[Row]) -> tuple[list[Row], dict[str, int], tuple[int, ...]]:
    """Rows to use, how many were left out why, and the ids that stand with two labels."""
    labels: dict[int, int] = {}
    conflicting = {number for number, label, _ in rows if labels.setdefault(number, label) != label}
    dropped: Counter[str] = Counter()
    kept: dict[int, Row] = {}
    for row in rows:
        number, _, text = row
        if number in conflicting:
            dropped["conflicting_id"] += 1
        elif len(text) > MAX_CHARS:
            dropped["too_long"] += 1
        elif not clean(text):
            dropped["empty_text"] += 1
        elif number in kept:
            dropped["repeated_id"] += 1
        else:
            kept[number] = row
    return list(kept.values()), dict(dropped), tuple(sorted(conflicting))


def _counted(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
