"""The order of things: pure arithmetic on integers and arrays, no I/O, no torch.

Orders are the argsort of a 64-bit hash defined here, because the random streams of libraries promise nothing across
versions. Ties are broken by the identity of the row, so that an order is total.
"""

from __future__ import annotations

import hashlib
from typing import Literal

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


# The order of an epoch. A position is a row of a config's split in release order, from 0; nothing here depends on
# formats, shards, ranks, workers or threads.

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Tail = Literal["drop", "wrap", "ragged"]
Shuffle = Literal["full", "block"]

# What a hash is for: no two uses share their bits.
ORDER, BLOCKS, AUGMENT, FRACTION, DRAWS, START, DROPOUT = range(7)

BLOCK_SAMPLES = 64
"""Contiguous samples that a block shuffle keeps together: about 8 MB of B-T4SA, one range request."""
WINDOW_BLOCKS = 16
"""Blocks whose samples a block shuffle mixes: 1,024 samples, about 135 MB, are being read at a time."""


def sample_hash(positions: Ints, *, seed: int, epoch: int, purpose: int, draw: Ints | int = 0) -> Hashes:
    """One 64-bit hash for each sample; a bijection of the position, so that no two are equal.

    Args:
        positions: shape (n,), each below 2^40.
        seed: any integer.
        epoch: any integer.
        purpose: one of this module's, `ORDER` to `DROPOUT`.
        draw: which draw of the same sample in one epoch (from 0); below 2^20.

    >>> [hex(int(x)) for x in sample_hash(np.arange(2), seed=0, epoch=0, purpose=ORDER)]
    ['0xf58a68dc87e5942', '0x8a93f5475f03d438']
    """
    stream = np.zeros(1, dtype=np.uint64)
    for value in (seed, epoch, purpose):
        stream = mix64(stream ^ np.array([value & (2**64 - 1)], dtype=np.uint64))
    identity = positions.astype(np.uint64) | (np.asarray(draw, dtype=np.uint64) << np.uint64(40))
    return mix64(mix64(identity) ^ stream)


def uniforms(hashes: Hashes, count: int, *, first: int = 0) -> npt.NDArray[np.float64]:
    """`count` numbers in [0, 1) for each hash, shape (n, count), each with 53 random bits; from the `first` one on.

    >>> uniforms(np.array([1, 2], dtype=np.uint64), 2).round(3).tolist()
    [[0.164, 0.367], [0.01, 0.983]]
    """
    with np.errstate(over="ignore"):
        steps = np.arange(first + 1, first + count + 1, dtype=np.uint64) * _GAMMA
        bits = mix64(mix64(hashes)[:, None] ^ steps[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def epoch_order(
    positions: Ints,
    *,
    seed: int,
    epoch: int,
    shuffle: Shuffle | None,
    draw: Ints | int = 0,
    block_samples: int = BLOCK_SAMPLES,
    window_blocks: int = WINDOW_BLOCKS,
) -> Ints:
    """The order in which an epoch visits rows of a selection.

    `full` sorts all rows by their hash. `block` puts the blocks of contiguous positions in the order of their hashes,
    takes `window_blocks` of them at a time, and sorts the rows of each such window by their hash: what is read at a
    time are whole blocks, which are large ranges of a few shards.

    Args:
        positions: shape (n,), of the selected samples.
        seed: any integer.
        epoch: any integer.
        shuffle: None keeps the order of the selection.
        draw: as for `sample_hash`.
        block_samples: positions in a block.
        window_blocks: blocks in a window.

    Returns:
        shape (n,), a permutation of 0..n-1: `positions[epoch_order(...)]` are the positions as visited.

    >>> epoch_order(np.arange(11), seed=0, epoch=0, shuffle="full")
    array([ 2,  0,  4,  9,  3,  8,  1,  7,  5,  6, 10])
    >>> epoch_order(np.arange(11), seed=0, epoch=0, shuffle="block", block_samples=3, window_blocks=2)
    array([ 2,  0,  8,  1,  7,  6,  4,  9,  3,  5, 10])
    """
    if shuffle is None:
        return np.arange(len(positions), dtype=np.int64)
    hashes = sample_hash(positions, seed=seed, epoch=epoch, purpose=ORDER, draw=draw)
    if shuffle == "full":
        return np.argsort(hashes).astype(np.int64, copy=False)
    blocks, block = np.unique(positions // block_samples, return_inverse=True)
    # rank[i]: place of the i-th block in the shuffled order of blocks.
    rank = np.empty(len(blocks), dtype=np.int64)
    rank[np.argsort(sample_hash(blocks, seed=seed, epoch=epoch, purpose=BLOCKS))] = np.arange(len(blocks))
    return np.lexsort((hashes, rank[block] // window_blocks)).astype(np.int64, copy=False)


def draw_rows(
    weights: npt.NDArray[np.float64], positions: Ints, *, seed: int, epoch: int, groups: Ints | None = None
) -> tuple[Ints, Ints]:
    """Sample as many rows as there are, in proportion to their weights, with as little chance as possible.

    Systematic sampling (W. G. Madow, "On the theory of systematic sampling, II", 1949): a row with weight w is drawn
    floor or ceil of n w / sum(w) times. Rows of one weight and group stand together, in the order of their hashes, so
    that their draws in sum are as exact: classes that should be balanced differ by one draw.

    Args:
        weights: shape (n,), not negative, not all 0.
        positions: shape (n,).
        seed: any integer.
        epoch: any integer; another epoch draws other rows.
        groups: shape (n,), for instance classes.

    Returns:
        Rows, ascending, shape (n,); and which draw of its row each is, from 0, shape (n,).

    >>> rows, draw = draw_rows(np.array([3.0, 0.0, 1.0, 0.0]), np.arange(4), seed=0, epoch=0)
    >>> rows.tolist(), draw.tolist()
    ([0, 0, 0, 2], [0, 1, 2, 0])
    """
    hashes = sample_hash(positions, seed=seed, epoch=epoch, purpose=DRAWS)
    order = np.lexsort((hashes, weights) if groups is None else (hashes, groups, weights))
    start = uniforms(sample_hash(np.zeros(1, np.int64), seed=seed, epoch=epoch, purpose=START), 1)[0, 0]
    total = np.cumsum(weights[order])
    ends = np.floor(total * (len(weights) / total[-1]) + start).astype(np.int64)
    ends[-1] = len(weights) if len(weights) else 0  # the last sum is exact but for rounding
    counts = np.empty(len(weights), dtype=np.int64)
    counts[order] = np.diff(ends, prepend=0)
    rows = np.repeat(np.arange(len(weights)), counts)
    firsts = np.cumsum(counts) - counts
    return rows, np.arange(len(rows)) - firsts[rows]


def num_batches(num_rows: int, batch_size: int, tail: Tail) -> int:
    """Global batches of an epoch.

    >>> [num_batches(11, 4, tail) for tail in ("drop", "wrap", "ragged")]
    [2, 3, 3]
    """
    return num_rows // batch_size if tail == "drop" else -(-num_rows // batch_size)


def batch_slice(batch: int, num_rows: int, batch_size: int, tail: Tail, *, rank: int = 0, world_size: int = 1) -> Ints:
    """Where in the epoch's order a rank finds its rows of a global batch: rows `[r*b//W, (r+1)*b//W)` of it.

    `wrap` fills the last batch from the epoch's beginning; `ragged` leaves it short: all ranks together have each row
    once, and a rank may have none.

    Args:
        batch: number of the global batch, from 0.
        num_rows: of the epoch.
        batch_size: of the global batch.
        tail: what happens to the last, incomplete batch.
        rank: from 0.
        world_size: ranks in all.

    >>> [batch_slice(2, 11, 4, "wrap", rank=rank, world_size=2).tolist() for rank in (0, 1)]
    [[8, 9], [10, 0]]
    >>> [batch_slice(2, 11, 4, "ragged", rank=rank, world_size=2).tolist() for rank in (0, 1)]
    [[8], [9, 10]]
    """
    start, stop = batch * batch_size, (batch + 1) * batch_size
    if tail == "ragged":
        stop = min(stop, num_rows)
    low, high = even_bounds(stop - start, world_size)[rank]
    return np.arange(start + low, start + high, dtype=np.int64) % max(1, num_rows)


def plan_digest(
    positions: Ints,
    *,
    labels: Ints,
    probabilities: npt.NDArray[np.float32] | None,
    weights: npt.NDArray[np.float64] | None,
    shuffle: Shuffle | None,
    tail: Tail,
) -> str:
    """sha256 of everything that decides which samples an epoch has, with which labels, and in which order.

    Args:
        positions: shape (n,), as selected.
        labels: shape (n,), as the loader gives them.
        probabilities: shape (n, 3), where they are not the release's own.
        weights: shape (n,), where rows are sampled by weight.
        shuffle: see `epoch_order`.
        tail: see `batch_slice`.
    """
    words = [f"order 1, shuffle {shuffle}, tail {tail}"]
    if shuffle == "block":
        words.append(f"blocks of {BLOCK_SAMPLES}, windows of {WINDOW_BLOCKS}")
    digest = hashlib.sha256("; ".join(words).encode())
    for name, values, kind in (
        ("positions", positions, "<i8"),
        ("labels", labels, "i1"),
        ("probabilities", probabilities, "<f4"),
        ("weights", weights, "<f8"),
    ):
        if values is not None:
            digest.update(f"\n{name} {len(values)}\n".encode())
            digest.update(np.ascontiguousarray(values, dtype=kind).data)
    return digest.hexdigest()
