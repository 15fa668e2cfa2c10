"""Balancing, as the paper did it: all of the smallest class, and that many of each other class, without replacement.

Who is drawn is decided by the rank of a row's hash of (seed, key) in its class (`keys.key_hash`), ties by key: the
same rows whatever order they come in, on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from builders.keys import BALANCE, Ints, key_hash
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, NoRows

BALANCE_VERSION = 1
"""Bump when the same rows would be drawn differently."""
BALANCE_SEED = 2017
"""Another seed, other rows (the year of the paper; the paper's own seed is not known)."""
NOT_DRAWN = "balance/not-drawn"
"""More of the row's class than of the smallest one."""
SAME_TWEET = "balance/another-of-its-tweet"
"""Balanced by tweet: another image of the tweet is the one that may be drawn."""


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """What was drawn."""

    drawn: npt.NDArray[np.bool_]
    """Shape (n,)."""
    is_candidate: npt.NDArray[np.bool_]
    """Shape (n,): could be drawn; by tweet, one image of each."""
    per_class: int
    """Rows drawn of each class."""
    candidates: tuple[int, ...]
    """Rows that could be drawn, by class."""


def balance(
    label: Ints,
    tweet_id: Ints,
    image_index: npt.NDArray[np.int8],
    *,
    seed: int = BALANCE_SEED,
    by: Literal["image", "tweet"] = "image",
    per_class: int | None = None,
) -> Balanced:
    """Draw as many rows of each class.

    Args:
        label: 0, 1 or 2, shape (n,).
        tweet_id: shape (n,).
        image_index: shape (n,).
        seed: any integer.
        by: `image` (the paper): an image is drawn for itself. `tweet`: at most one image of a tweet, the one with the
            smallest hash.
        per_class: rows of each class; None: as many as the smallest has.

    Raises:
        NoRows: a class has no row.
        BadOption: `per_class` is more than a class has, or less than 1.

    >>> label, ids, ks = np.array([0, 1, 1, 1, 2, 2]), np.array([3, 5, 5, 6, 8, 9]), np.array([1, 1, 2, 1, 1, 1])
    >>> made = balance(label, ids, ks.astype(np.int8))
    >>> int(made.drawn.sum()), made.per_class, made.candidates
    (3, 1, (1, 3, 2))
    """
    order = np.lexsort((image_index, tweet_id, key_hash(tweet_id, image_index, seed=seed, purpose=BALANCE)))
    is_candidate = np.ones(len(label), dtype=bool)
    if by == "tweet":
        is_candidate[:] = False
        is_candidate[order[np.unique(tweet_id[order], return_index=True)[1]]] = True
    counts = np.bincount(label[is_candidate], minlength=len(CLASSES))
    least = int(counts.argmin())
    if counts[least] == 0:
        raise NoRows("a class has no row to balance with", got=_told(counts), hint="Select with a lower cut.")
    wanted = int(counts[least]) if per_class is None else per_class
    if not 1 <= wanted <= counts[least]:
        raise BadOption("cannot draw so many of each class", expected=f"1 to {counts[least]}", got=wanted)
    drawn = np.zeros(len(label), dtype=bool)
    order = order[is_candidate[order]]
    for one in range(len(CLASSES)):
        drawn[order[label[order] == one][:wanted]] = True
    return Balanced(
        drawn=drawn, is_candidate=is_candidate, per_class=wanted, candidates=tuple(int(num) for num in counts)
    )


def _told(counts: Ints) -> str:
    return ", ".join(f"{name} {num}" for name, num in zip(CLASSES, counts.tolist(), strict=True))
