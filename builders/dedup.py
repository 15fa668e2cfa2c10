"""Near-duplicates: images whose 64-bit perceptual hashes differ in at most `NEAR_DUPLICATE_BITS` bits, exactly.

Groups are the connected components of that relation. Search by k-of-m bands: cut 64 bits into m fields; hashes that
differ in d bits agree in at least m - d of them, so it is enough to compare hashes that agree in some pair of fields
(m = d + 2). No pair is missed, and none is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from builders.keys import Ints
from t4sa_data import catalog

NEAR_DUPLICATE_BITS: int = catalog.NEAR_DUPLICATE_BITS.value
"""Largest Hamming distance of near-duplicates; the catalog says where it comes from."""

SMALL = 4096
"""Up to this many different hashes all pairs are compared with numpy: no compiler is waked for a miniature."""


def group(phash: npt.NDArray[np.uint64], *, max_distance: int = NEAR_DUPLICATE_BITS) -> Ints:
    """The group of each image, named by the position of its first member.

    Args:
        phash: shape (n,), in the order in which a group's first member is wanted.
        max_distance: bits, 0 to 16.

    Returns:
        shape (n,): position of the group's first member; its own for an image that is alone.

    >>> group(np.array([0, 2**40, 255, 1, 2**40 - 2**20], dtype=np.uint64)).tolist()
    [0, 0, 0, 0, 4]
    """
    hashes, first, inverse = np.unique(phash, return_index=True, return_inverse=True)
    parents = np.arange(len(hashes), dtype=np.int64)
    if len(hashes) <= SMALL:
        for i, other in _close_pairs(hashes, max_distance):
            _union(parents, i, other)
    else:
        _union_by_bands(hashes, parents, max_distance)
    roots = parents
    while not np.array_equal(roots, roots[roots]):
        roots = roots[roots]
    # A group's name is its earliest member, not the one with the smallest hash.
    earliest = np.full(len(hashes), np.iinfo(np.int64).max)
    np.minimum.at(earliest, roots, first)
    return np.asarray(earliest[roots][inverse], dtype=np.int64)


def _close_pairs(hashes: npt.NDArray[np.uint64], max_distance: int) -> Iterator[tuple[int, int]]:
    for i in range(len(hashes) - 1):
        close = np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= max_distance)
        yield from ((i, i + 1 + j) for j in close.tolist())


def _find(parents: Any, i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


def _union(parents: Any, i: int, j: int) -> None:
    a, b = _find(parents, i), _find(parents, j)
    parents[max(a, b)] = min(a, b)


def _union_by_bands(hashes: npt.NDArray[np.uint64], parents: Ints, max_distance: int) -> None:
    scan = _compiled()
    num_fields = max_distance + 2
    bounds = [64 * i // num_fields for i in range(num_fields + 1)]
    fields = [(hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1) for low, high in pairwise(bounds)]
    for a, b in combinations(range(num_fields), 2):
        key = (fields[a] << np.uint64(bounds[b + 1] - bounds[b])) | fields[b]
        # numpy sorts 16 bits by radix, and two fields fit them for 6 bits of distance and more.
        order = np.argsort(key.astype(np.uint16 if max_distance >= 6 else np.uint64), kind="stable")
        scan(hashes[order], key[order], order, parents, np.uint64(max_distance))


@cache
def _compiled() -> Any:
    """The scan of one band's buckets, compiled on first use (one to two seconds)."""
    from numba import njit, types
    from numba.extending import intrinsic

    @intrinsic  # type: ignore[untyped-decorator]
    def popcount(_context: Any, _value: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.ctpop(arguments[0])

        return types.uint64(types.uint64), generate

    find = njit(_find)

    @njit  # type: ignore[untyped-decorator]
    def scan(hashes: Any, keys: Any, order: Any, parents: Any, max_distance: Any) -> None:
        start = 0
        for stop in range(1, len(keys) + 1):
            if stop < len(keys) and keys[stop] == keys[start]:
                continue
            for i in range(start, stop):
                one = hashes[i]
                for block in range(i + 1, stop, 128):
                    end = min(block + 128, stop)
                    # Nearly every block is empty: one pass without a branch, which the compiler turns into vectors.
                    count = 0
                    for j in range(block, end):
                        count += popcount(one ^ hashes[j]) <= max_distance
                    if count == 0:
                        continue
                    for j in range(block, end):
                        if popcount(one ^ hashes[j]) <= max_distance:
                            a, b = find(parents, order[i]), find(parents, order[j])
                            parents[max(a, b)] = min(a, b)
            start = stop

    return scan
