"""Near-duplicates: images whose 64-bit perceptual hashes differ in at most `NEAR_DUPLICATE_BITS` bits, exactly.

`group` gives the connected components of that relation, `group_direct` groups in which every image is that near to its
representative. Both are exact, whatever the hashes; how pairs are found without looking at all: `builders.bands`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from builders.keys import Ints
from t4sa_data import catalog

NEAR_DUPLICATE_BITS: int = catalog.NEAR_DUPLICATE_BITS.value
"""Largest Hamming distance of near-duplicates; the catalog says where it comes from."""

SMALL = 4096
"""Up to this many different hashes numpy compares them: no compiler is waked for a miniature."""

Hashes = npt.NDArray[np.uint64]


def group(hashes: Hashes, distance: int = NEAR_DUPLICATE_BITS) -> Ints:
    """The group of each image, named by the position of its first member; a near-duplicate's near-duplicate is one.

    Args:
        hashes: shape (n,), in the order in which a group's first member is wanted.
        distance: bits, 0 to 16.

    Returns:
        shape (n,): position of the group's first member; its own for an image that is alone.

    >>> group(np.array([0, 2**40, 255, 1, 2**40 - 2**20], dtype=np.uint64)).tolist()
    [0, 0, 0, 0, 4]
    """
    order, starts = _equal_runs(hashes)
    roots = _components(hashes[order[starts]], distance)
    # A group's name is its earliest member, not the one with the smallest hash.
    earliest = np.full(len(starts), len(hashes), dtype=np.int64)
    if len(hashes):
        np.minimum.at(earliest, roots, np.minimum.reduceat(order, starts))
    return _to_rows(earliest[roots], order, starts)


def group_direct(
    hashes: Hashes,
    confidence: npt.NDArray[np.floating],
    tweet_id: Ints,
    image_index: npt.NDArray[np.int8],
    distance: int = NEAR_DUPLICATE_BITS,
) -> Ints:
    """Groups of direct neighbours: nobody is further from its group's representative than `distance`.

    Rows are visited in the order of `representatives` (most confident first). A row that is not in a group yet becomes
    a representative and takes every row within the distance that is in none. This definition is the result, whoever
    computes it; it is a refinement of `group`. Time: as `group`, and (representatives x size) of each of its groups.

    Args:
        hashes: shape (n,).
        confidence: shape (n,); NaN comes last.
        tweet_id: shape (n,).
        image_index: shape (n,).
        distance: bits, 0 to 16.

    Returns:
        shape (n,): position of the group's first member, as of `group`; `representatives` of it are those who took.

    >>> chain, same = np.array([0, 0xFF, 0xFFFF], dtype=np.uint64), np.ones(3)
    >>> keys = np.arange(3), np.ones(3, dtype=np.int8)
    >>> group(chain).tolist(), group_direct(chain, same, *keys).tolist()
    ([0, 0, 0], [0, 0, 2])
    """
    num = len(hashes)
    if num == 0:
        return np.zeros(0, np.int64)
    rank = np.empty(num, dtype=np.int64)
    rank[_priority(confidence, tweet_id, image_index)] = np.arange(num)
    order, starts = _equal_runs(hashes)
    # Equal hashes share one fate, that of the first of them.
    distinct, best = hashes[order[starts]], np.minimum.reduceat(rank[order], starts)
    by = np.lexsort((best, roots := _components(distinct, distance)))
    bounds = np.flatnonzero(np.concatenate([[True], np.diff(roots[by]) != 0, [True]]))
    taker = np.empty(len(by), dtype=np.int64)
    _take(distinct[by], bounds, distance, taker)
    representative = np.empty(len(by), dtype=np.int64)
    representative[by] = by[taker]
    earliest = np.full(len(by), num, dtype=np.int64)
    np.minimum.at(earliest, representative, np.minimum.reduceat(order, starts))
    return _to_rows(earliest[representative], order, starts)


def representatives(
    groups: Ints, confidence: npt.NDArray[np.floating], tweet_id: Ints, image_index: npt.NDArray[np.int8]
) -> Ints:
    """Who stands for each row's group: the most confident member, of these the one with the smallest key.

    Args:
        groups: from `group` or `group_direct`, shape (n,).
        confidence: shape (n,); NaN comes last.
        tweet_id: shape (n,).
        image_index: shape (n,).

    Returns:
        shape (n,): position of the representative; its own where a row is one.

    >>> groups, keys = np.array([0, 0, 2]), (np.array([7, 7, 8]), np.array([1, 2, 1], dtype=np.int8))
    >>> representatives(groups, np.array([0.8, 0.9, 0.9]), *keys).tolist()
    [1, 1, 2]
    """
    order = _priority(confidence, tweet_id, image_index)
    first = np.full(len(groups), -1, dtype=np.int64)
    first[groups[order][::-1]] = order[::-1]  # of several writes to one place the last stands: the first in the order
    return first[groups]


def _priority(confidence: npt.NDArray[np.floating], tweet_id: Ints, image_index: npt.NDArray[np.int8]) -> Ints:
    """Rows in the order in which they may become representatives, shape (n,)."""
    return np.lexsort((image_index, tweet_id, -np.asarray(confidence, dtype=np.float64))).astype(np.int64, copy=False)


def _equal_runs(hashes: Hashes) -> tuple[Ints, Ints]:
    """Positions sorted by hash, shape (n,), and where in them each different hash starts."""
    order = np.argsort(hashes)
    ordered = hashes[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(hashes) else order
    return order, starts


def _to_rows(values: Ints, order: Ints, starts: Ints) -> Ints:
    """Values of different hashes as values of all rows."""
    made = np.empty(len(order), dtype=np.int64)
    made[order] = np.repeat(values, np.diff(starts, append=len(order)))
    return made


def _components(distinct: Hashes, distance: int) -> Ints:
    """A number for each hash, shape (n,), equal for those that are linked."""
    if distance == 0:
        return np.arange(len(distinct), dtype=np.int64)
    if len(distinct) > SMALL:
        from builders.bands import link

        return link(distinct, distance)
    made = np.arange(len(distinct), dtype=np.int64)
    hashes, ids, known = distinct.copy(), made.copy(), 0
    # As `bands._settle`: found hashes stand before `known`, and are looked for no more.
    for i in range(len(hashes)):
        if i >= known:
            known = i + 1
        near = np.bitwise_count(hashes[known:] ^ hashes[i]) <= distance
        if near.any():
            made[ids[known:][near]] = made[ids[i]]
            stay = np.argsort(~near, kind="stable")
            hashes[known:], ids[known:] = hashes[known:][stay], ids[known:][stay]
            known += int(near.sum())
    return made


def _take(hashes: Hashes, bounds: Ints, distance: int, taker: Ints) -> None:
    """See `bands.take`; fills `taker`, without a compiler where there are few hashes."""
    if len(hashes) > SMALL:
        from builders.bands import take

        take(hashes, bounds, np.uint64(distance), np.arange(len(hashes), dtype=np.int64), taker)
        return
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        left = np.arange(low, high)
        while len(left):
            near = np.bitwise_count(hashes[left] ^ hashes[left[0]]) <= distance
            taker[left[near]] = left[0]
            left = left[~near]
