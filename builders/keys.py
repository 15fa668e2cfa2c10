"""Keys as numbers, and exact joins on them: ids are 64-bit integers from the text on, never floats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from t4sa_data.plan import mix64

Ints = npt.NDArray[np.int64]
Packed = npt.NDArray[np.uint64]


def pack(tweet_id: Ints, image_index: npt.NDArray[np.int8]) -> Packed:
    """One number for each key: the id, and the image's index in two bits (ids end below 2^62, in about 2065).

    >>> pack(np.array([5, 5]), np.array([1, 4], dtype=np.int8)).tolist()
    [20, 23]
    """
    return (tweet_id.astype(np.uint64) << np.uint64(2)) | (image_index - 1).astype(np.uint64)


BALANCE, SPLIT, SHEETS = 0x62616C, 0x73706C, 0x736865
"""What a key's hash is for: uses with one seed share no bits, so that a draw says nothing of a split."""


def key_hash(tweet_id: Ints, image_index: npt.NDArray[np.int8], *, seed: int, purpose: int) -> Packed:
    """A 64-bit hash of (seed, purpose, key) for each row, by SplitMix64's finaliser (`plan.mix64`).

    It is mix64(mix64(tweet id ^ stream) ^ image index), stream = mix64(mix64(seed) ^ purpose): the hash of
    `plan.release_order` under another stream. Rows ranked by it, ties by key, are a seeded permutation that does not
    depend on the order in which they came, nor on a library's random stream.

    Args:
        tweet_id: shape (n,).
        image_index: shape (n,).
        seed: any integer.
        purpose: `BALANCE`, `SPLIT` or `SHEETS`.

    >>> [hex(int(x)) for x in key_hash(np.array([5, 5]), np.array([1, 2], np.int8), seed=0, purpose=BALANCE)]
    ['0x4c48725c24123039', '0x5f402726affed6f5']
    """
    stream = mix64(mix64(np.array([seed & (2**64 - 1)], dtype=np.uint64)) ^ np.uint64(purpose))
    return mix64(mix64(tweet_id.astype(np.uint64) ^ stream) ^ image_index.astype(np.uint64))


def find(wanted: npt.NDArray[np.int64] | Packed, among: npt.NDArray[np.int64] | Packed) -> Ints:
    """Position in `among` of each of `wanted`, -1 where it is not there.

    Args:
        wanted: shape (n,).
        among: shape (m,), distinct, in any order.

    >>> find(np.array([7, 3, 9]), np.array([9, 7])).tolist()
    [1, -1, 0]
    """
    if len(among) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    order = np.argsort(among, kind="stable")
    place = np.minimum(np.searchsorted(among[order], wanted), len(among) - 1)
    found = order[place].astype(np.int64)
    found[among[found] != wanted] = -1
    return found


def first_of_each(values: npt.NDArray[np.int64] | Packed) -> Ints:
    """Positions of the first appearance of each value, in order of appearance.

    >>> first_of_each(np.array([4, 2, 4, 7, 2])).tolist()
    [0, 1, 3]
    """
    return np.sort(np.unique(values, return_index=True)[1]).astype(np.int64)
