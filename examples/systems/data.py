"""What a system learns from and is tested on: pictures with two-way labels, opened once, read one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from t4sa_data.errors import NoRows
from t4sa_data.pixels import decode_rgb
from t4sa_data.reading import open_release
from t4sa_data.streaming.selection import Selection, select
from t4sa_data.streaming.where import Where

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
TWITTER = "twitter-testing"
LEVELS = (5, 4, 3)
"""Of agreement, as the paper's columns: so many of five workers, or more."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """n pictures, in release order."""

    keys: list[str]
    label: Ints
    """0 negative, 1 positive; shape (n,)."""
    agreement: Ints
    """5, 4, 3: how many of five workers agreed; 0 where nobody was asked. The subset of a level is >= it."""
    group: Ints
    """shape (n,): pictures with one number are twins, or of one tweet; they must not be torn apart by folds."""
    folds: Mapping[int, Ints] = field(default_factory=dict)
    """Level -> fold of each picture, 1 to 5, as the release says; 0 where it is in none. shape (n,)."""
    digest: str
    """sha256 of what is in it: another one, other pictures, labels or folds."""
    read: Callable[[int], bytes] = field(repr=False)
    """Row -> the picture's file."""

    def __len__(self) -> int:
        return len(self.keys)

    def rgb(self, row: int) -> Image.Image:
        """A picture by the one rule for pixels: first frame, EXIF rotation applied, RGB.

        Raises:
            BadImage: it does not decode.
        """
        return decode_rgb(self.read(int(row)))

    def rows(self, level: int) -> Ints:
        """Rows on which so many workers agreed, or more."""
        return np.flatnonzero(self.agreement >= level)


def open_pictures(data: str | Path, config: str = TWITTER, split: str = "test") -> Pictures:
    """The negative and positive pictures of a release's split; neutral ones are left out.

    Args:
        data: a release, as for `t4sa_data.stream`.
        config: `twitter-testing`, or any image config (agreement 0, no folds).
        split: of the config.

    Raises:
        ReleaseNotFound, ConfigUnavailable, NoRows: nothing like that there.
    """
    release = open_release(data)
    is_twitter = config == TWITTER
    columns = ("media_key", "agreement", "fold_5", "fold_4", "fold_3") if is_twitter else ("duplicate_group",)
    found = select(release, config, split, where=Where(), columns=("tweet_id", *columns), with_sha256=True)
    keep = np.flatnonzero(found.label != 1)
    if not len(keep):
        raise NoRows("no negative and no positive picture", where=f"{release.where}, {config}/{split}")
    extra = {name: _filled(found.extra[name])[keep] for name in found.extra}
    same = extra["media_key" if is_twitter else "duplicate_group"]
    folds = {level: extra[f"fold_{level}"].astype(np.int64) for level in LEVELS} if is_twitter else {}
    source = release.source()
    return make_pictures(
        keys=[found.keys[int(row)].as_py() for row in keep],
        label=found.label[keep] // 2,
        agreement=extra["agreement"].astype(np.int64) if is_twitter else np.zeros(len(keep), dtype=np.int64),
        group=groups_of(same.tolist(), extra["tweet_id"].tolist()),
        folds={level: fold for level, fold in folds.items() if fold.any()},
        content=found.content_digest,
        read=lambda row: bytes(source.read(_range(found, keep, row))),
    )


def make_pictures(
    *,
    keys: Sequence[str],
    label: Ints,
    read: Callable[[int], bytes],
    content: str,
    agreement: Ints | None = None,
    group: Ints | None = None,
    folds: Mapping[int, Ints] | None = None,
) -> Pictures:
    """Pictures from anywhere.

    Args:
        keys: n names, each once.
        label: 0 negative, 1 positive, shape (n,).
        read: row -> the picture's file.
        content: what stands for the pictures' bytes in the digest.
        agreement: shape (n,); default: 5 for all.
        group: shape (n,); default: no twins.
        folds: see `Pictures`; default: none.
    """
    agreement = np.full(len(keys), 5, dtype=np.int64) if agreement is None else agreement
    group = np.arange(len(keys), dtype=np.int64) if group is None else group
    folds = folds or {}
    digest = hashlib.sha256(content.encode())
    digest.update("\n".join(keys).encode())
    for values in (label, agreement, group, *(folds[level] for level in sorted(folds))):
        digest.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
    return Pictures(
        keys=list(keys),
        label=np.asarray(label, dtype=np.int64),
        agreement=agreement,
        group=group,
        folds=folds,
        digest=digest.hexdigest(),
        read=read,
    )


def joined(first: Pictures, second: Pictures) -> Pictures:
    """Both as one, the second's rows after the first's: to train on one and to test on the other."""
    num = len(first)
    return make_pictures(
        keys=[f"0/{key}" for key in first.keys] + [f"1/{key}" for key in second.keys],
        label=np.concatenate([first.label, second.label]),
        agreement=np.concatenate([first.agreement, second.agreement]),
        group=np.concatenate([first.group, second.group + num]),
        content=first.digest + second.digest,
        read=lambda row: first.read(row) if row < num else second.read(row - num),
    )


def groups_of(*names: Sequence[Any]) -> Ints:
    """Number of each picture's group: pictures that share a name, in any of the columns, are one group, and so on.

    >>> groups_of(["a", "b", "a", "c"], [1, 2, 3, 2]).tolist()
    [0, 1, 0, 1]
    """
    first = list(range(len(names[0])))

    def root(row: int) -> int:
        while first[row] != row:
            row = first[row]
        return row

    for column in names:
        seen: dict[Any, int] = {}
        for row, name in enumerate(column):
            one, other = root(seen.setdefault(name, row)), root(row)
            first[max(one, other)] = min(one, other)
    return np.array([root(row) for row in range(len(first))], dtype=np.int64)


def _range(found: Selection, keep: Ints, row: int) -> Any:
    return found.ranges(keep[row : row + 1])[0]


def _filled(column: Any) -> npt.NDArray[Any]:
    """A column as an array, 0 for null."""
    values = column.to_pylist()
    return np.array([0 if value is None else value for value in values])
