"""The compiled part of `builders.dedup`: which hashes are linked by others within a distance, without all pairs.

Cut 64 bits into m fields. Hashes that differ in d bits agree in at least k = m - d fields, so it is enough to compare
hashes that agree in some k of them. Hashes are dealt out by a first field, each bucket by a second one, and so on,
depth first, so that the work below a bucket stays in the processor's cache. No pair is missed, and none is stored.

Hot spots: a bucket whose hashes are linked already is left at once, and inside a bucket a hash that was found is
looked for no more, so that hashes which all lie near each other cost one pass, not all pairs.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.extending import intrinsic

from builders.keys import Ints

MIN_FIELDS, MAX_EQUAL = 6, 5
"""Fields have 11 bits at most; beyond five equal fields nothing is gained at sizes that fit a machine."""
TINY = 96
"""A bucket of so few is compared, not dealt out further."""
MOVE = 8.0
"""What dealing one hash out costs, in comparisons of two hashes (measured)."""
THREAD_ROWS = 200_000
"""Below that many hashes a second thread is not worth its start."""


def num_equal_fields(num: int, distance: int) -> int:
    """The k that costs least: more equal fields make smaller buckets, but more of them.

    >>> num_equal_fields(1_500_000, 8), num_equal_fields(15_000_000, 8), num_equal_fields(1_500_000, 1)
    (3, 4, 5)
    """

    def cost(k: int) -> float:
        bits = 64 * k / (distance + k)
        return comb(distance + k, k) * (MOVE + num / 2**bits / 2)

    return min(range(max(1, MIN_FIELDS - distance), MAX_EQUAL + 1), key=cost)


def link(
    hashes: npt.NDArray[np.uint64], distance: int, *, threads: int | None = None, equal: int | None = None
) -> Ints:
    """The smallest position that each hash is linked to.

    Args:
        hashes: distinct, shape (n,).
        distance: bits, 1 to 16.
        threads: None: as many as cores, up to 4.
        equal: fields that have to agree; None: `num_equal_fields`.

    Returns:
        shape (n,), the same for any number of threads and fields.
    """
    num, equal = len(hashes), equal or num_equal_fields(len(hashes), distance)
    bounds = np.array([64 * i // (distance + equal) for i in range(distance + equal + 1)])
    if threads is None:
        threads = min(4, _num_cores()) if num >= THREAD_ROWS else 1
    kind = np.int32 if num < 2**31 else np.int64
    forests = [np.arange(num, dtype=kind) for _ in range(threads)]

    def search(part: int) -> None:
        _search(hashes, forests[part], np.uint64(distance), bounds[:-1], np.diff(bounds), equal, part, threads)

    if threads == 1:
        search(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(search, range(threads)))
    parents = reduce(_join, forests)
    while not np.array_equal(parents, above := parents[parents]):
        parents = above
    return np.asarray(parents, dtype=np.int64)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@intrinsic  # type: ignore[untyped-decorator]
def _popcount(_context: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _find(parents: Any, i: Any) -> Any:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _union(parents: Any, i: Any, j: Any) -> None:
    a, b = _find(parents, i), _find(parents, j)
    parents[max(a, b)] = min(a, b)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _join(parents: Any, others: Any) -> Any:
    """The links of two forests in the first one."""
    for i in range(len(others)):
        _union(parents, i, others[i])
    return parents


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _is_linked(ids: Any, low: int, high: int, parents: Any) -> bool:
    root = _find(parents, ids[low])
    for i in range(low + 1, high):  # noqa: SIM110 (a compiled loop)
        if _find(parents, ids[i]) != root:
            return False
    return True


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _settle(hashes: Any, ids: Any, low: int, high: int, parents: Any, distance: Any) -> None:
    """Link what is within the distance in one bucket. Reorders it: found hashes first, the rest behind `known`."""
    known = low
    for i in range(low, high):
        known = max(known, i + 1)
        one = hashes[i]
        for block in range(known, high, 128):
            end = min(block + 128, high)
            # Nearly every block is empty: one pass without a branch, which the compiler turns into vectors.
            count = 0
            for j in range(block, end):
                count += _popcount(one ^ hashes[j]) <= distance
            if count == 0:
                continue
            for j in range(block, end):
                # What stood at `known` has been looked at for this `i`, or is `j` itself.
                if _popcount(one ^ hashes[j]) <= distance:
                    _union(parents, ids[i], ids[j])
                    hashes[j], hashes[known] = hashes[known], hashes[j]
                    ids[j], ids[known] = ids[known], ids[j]
                    known += 1


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _compare(hashes: Any, ids: Any, low: int, high: int, parents: Any, distance: Any) -> None:
    """`_settle` for a handful."""
    for i in range(low, high - 1):
        one = hashes[i]
        for j in range(i + 1, high):
            if _popcount(one ^ hashes[j]) <= distance:
                _union(parents, ids[i], ids[j])


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _bucket(
    hashes: Any, ids: Any, low: int, high: int, parents: Any, distance: Any, shifts: Any, widths: Any, first: int,
    left: int,
) -> None:  # fmt: skip
    """Look through one bucket, whose hashes have still to agree in `left` fields from the `first` one on."""
    num = high - low
    if num >= 64 and _is_linked(ids, low, high, parents):
        return
    if num <= 24:
        _compare(hashes, ids, low, high, parents, distance)
    elif left == 0 or num <= TINY:
        _settle(hashes, ids, low, high, parents, distance)
    else:
        _deal(hashes, ids, low, high, parents, distance, shifts, widths, first, left)


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _deal(
    hashes: Any, ids: Any, low: int, high: int, parents: Any, distance: Any, shifts: Any, widths: Any, first: int,
    left: int,
) -> None:  # fmt: skip
    """Deal the hashes of a bucket out by each field that can be the next one in which they agree."""
    dealt_hashes, dealt_ids = np.empty(high - low, np.uint64), np.empty(high - low, ids.dtype)
    starts = np.empty((1 << widths.max()) + 1, np.int64)
    for field in range(first, len(shifts) - left + 1):
        size = 1 << widths[field]
        mask, shift = np.uint64(size - 1), np.uint64(shifts[field])
        starts[: size + 1] = 0
        for i in range(low, high):
            starts[np.int64((hashes[i] >> shift) & mask) + 1] += 1
        for value in range(size):
            starts[value + 1] += starts[value]
        for i in range(low, high):
            at = np.int64((hashes[i] >> shift) & mask)
            place = starts[at]
            starts[at] = place + 1
            dealt_hashes[place], dealt_ids[place] = hashes[i], ids[i]
        start = np.int64(0)  # a bare 0 would have everything below compiled twice
        for value in range(size):
            end = starts[value]  # dealing moved each start to its end
            if end - start > 1:
                _bucket(
                    dealt_hashes, dealt_ids, start, end, parents, distance, shifts, widths, field + 1, left - 1
                )  # fmt: skip
            start = end


@njit(nogil=True)  # type: ignore[untyped-decorator]
def _search(
    hashes: Any, parents: Any, distance: Any, shifts: Any, widths: Any, equal: int, part: int, parts: int
) -> None:
    """One thread's part of `link`: the buckets of the first field whose number leaves `part` when divided by `parts`.

    Dealt out as in `_deal`, but for what is left to others.
    """
    for field in range(len(shifts) - equal + 1):
        size = 1 << widths[field]
        mask, shift = np.uint64(size - 1), np.uint64(shifts[field])
        starts = np.zeros(size + 1, np.int64)
        for i in range(len(hashes)):
            at = np.int64((hashes[i] >> shift) & mask)
            if at % parts == part:
                starts[at + 1] += 1
        for value in range(size):
            starts[value + 1] += starts[value]
        mine, ids = np.empty(starts[size], np.uint64), np.empty(starts[size], parents.dtype)
        for i in range(len(hashes)):
            at = np.int64((hashes[i] >> shift) & mask)
            if at % parts == part:
                mine[starts[at]], ids[starts[at]] = hashes[i], i
                starts[at] += 1
        start = np.int64(0)  # a bare 0 would have everything below compiled twice
        for value in range(size):
            if starts[value] - start > 1:
                _bucket(
                    mine, ids, start, starts[value], parents, distance, shifts, widths, field + 1, equal - 1
                )  # fmt: skip
            start = starts[value]


@njit(nogil=True)  # type: ignore[untyped-decorator]
def take(hashes: Any, bounds: Any, distance: Any, places: Any, taker: Any) -> None:
    """Greedy groups inside each component: the first hash that is left takes every one within the distance.

    Args:
        hashes: by component, then by priority; used up, shape (n,).
        bounds: where components start, and n.
        distance: bits, uint64.
        places: 0 to n - 1; used up, shape (n,).
        taker: gets the place of the hash that takes each, shape (n,).
    """
    for component in range(len(bounds) - 1):
        low, high = bounds[component], bounds[component + 1]
        while low < high:
            one, by, kept = hashes[low], places[low], low + 1
            taker[by] = by
            for i in range(low + 1, high):
                if _popcount(one ^ hashes[i]) <= distance:
                    taker[places[i]] = by
                else:
                    hashes[kept], places[kept] = hashes[i], places[i]
                    kept += 1
            low, high = low + 1, kept
