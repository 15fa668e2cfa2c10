"""The order of things: pure arithmetic on integers and arrays, no I/O, no torch.

Orders are the argsort of a 64-bit hash defined here, because the random streams of libraries promise nothing across
versions. Ties are broken by the identity of the row, so that an order is total.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# The multipliers and shifts of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

RELEASE_SEED = 2017
"""Seed of the order of rows in a release (the year of the paper); part of the data format."""


def mix64(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser: a bijection of 64-bit integers that scatters them.

    >>> [hex(int(x)) for x in mix64(np.array([0, 1, 2], dtype=np.uint64))]
    ['0xe220a8397b1dcdaf', '0x910a2dec89025cc1', '0x975835de1c9756ce']
    """
    with np.errstate(over="ignore"):
        z = values.astype(np.uint64) + _GAMMA
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return np.asarray(z ^ (z >> np.uint64(31)), dtype=np.uint64)


def release_order(
    tweet_id: npt.NDArray[np.int64], image_index: npt.NDArray[np.int8], *, seed: int = RELEASE_SEED
) -> npt.NDArray[np.int64]:
    """Positions of the rows in release order: a seeded permutation of keys.

    The place of a row depends on its own key only, so equal sets of keys give equal orders, whatever the order they
    came in, and removing a key moves no other row past another.

    Args:
        tweet_id: shape (n,).
        image_index: shape (n,), 1 to 4 (0 for rows without an image).
        seed: any integer.

    Returns:
        shape (n,): `rows[release_order(...)]` is the release.

    >>> ids, ks = np.array([11, 12, 12, 13]), np.array([1, 1, 2, 1], dtype=np.int8)
    >>> order = release_order(ids, ks)
    >>> [f"{ids[i]}-{ks[i]}" for i in order]
    ['11-1', '13-1', '12-2', '12-1']
    >>> keep = np.array([True, False, True, True])
    >>> [f"{ids[keep][i]}-{ks[keep][i]}" for i in release_order(ids[keep], ks[keep])]
    ['11-1', '13-1', '12-2']
    """
    with np.errstate(over="ignore"):
        stream = mix64(np.array([seed], dtype=np.int64).astype(np.uint64))
        of_tweet = mix64(tweet_id.astype(np.uint64) ^ stream)
        hashes = mix64(of_tweet ^ image_index.astype(np.uint64))
    return np.lexsort((image_index, tweet_id, hashes)).astype(np.int64)


def even_bounds(num_rows: int, num_parts: int) -> list[tuple[int, int]]:
    """Cut `num_rows` rows into `num_parts` runs whose lengths differ by at most one.

    >>> even_bounds(11, 4)
    [(0, 2), (2, 5), (5, 8), (8, 11)]
    """
    return [(num_rows * i // num_parts, num_rows * (i + 1) // num_parts) for i in range(num_parts)]


def num_shards(num_rows: int, num_bytes: int, shard_bytes: int) -> int:
    """How many shards hold `num_bytes` of `num_rows` rows at about `shard_bytes` each.

    A power of two up to 64, then a multiple of 64, so that 2^k ranks and workers share them evenly; never more shards
    than rows.

    >>> num_shards(360_000, 49_400_000_000, 1_000_000_000)
    64
    >>> num_shards(50_000, 6_800_000_000, 1_000_000_000), num_shards(10, 10_000, 1_000_000_000)
    (8, 1)
    >>> num_shards(1_000_000, 140_000_000_000, 1_000_000_000), num_shards(3, 9_000, 1_000)
    (192, 2)
    """
    wanted = max(1, -(-num_bytes // max(1, shard_bytes)))
    count = 1 << (wanted - 1).bit_length() if wanted <= 64 else -(-wanted // 64) * 64
    while count > max(1, num_rows):
        count //= 2
    return count
