"""Near-duplicate search: exact by either way, groups named by their first member, true to known pairs of photos."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders import dedup
from t4sa_data.catalog import NEAR_DUPLICATE_BITS
from t4sa_data.pixels import decode_rgb, phash_of

Hashes = npt.NDArray[np.uint64]
BITS = int(NEAR_DUPLICATE_BITS.value)


def by_definition(phash: Hashes, max_distance: int) -> list[int]:
    """Connected components by repeated spreading of the smallest position."""
    close = np.bitwise_count(phash[:, None] ^ phash[None, :]) <= max_distance
    group = np.arange(len(phash))
    while True:
        spread = np.where(close, group[None, :], len(phash)).min(axis=1, initial=len(phash))
        if np.array_equal(spread, group):
            return group.tolist()
        group = spread


def by_bands(phash: Hashes, max_distance: int) -> list[int]:
    small, dedup.SMALL = dedup.SMALL, 0
    try:
        return dedup.group(phash, max_distance=max_distance).tolist()
    finally:
        dedup.SMALL = small


@st.composite
def clustered(draw: st.DrawFn) -> Hashes:
    """Hashes scattered around a few centres, some equal, some a few bits beyond any limit."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num, num_centres = draw(st.integers(0, 600)), draw(st.integers(1, 40))
    centres = rng.integers(0, 2**64, num_centres, dtype=np.uint64)
    if draw(st.booleans()):  # centres that share most fields with each other: buckets full of near misses
        mask = np.uint64(draw(st.sampled_from([0xFF, 0xFFFF, 0xFF << 56, 0x0101010101010101])))
        centres = (centres[0] & ~mask) | (centres & mask)
    made = centres[rng.integers(0, num_centres, num)]
    for _ in range(draw(st.integers(0, 9))):
        made = made ^ (np.uint64(1) << rng.integers(0, 64, num, dtype=np.uint64))
    return np.asarray(made, dtype=np.uint64)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(clustered(), st.integers(0, 12))
@example(np.zeros(0, np.uint64), 8)
@example(np.zeros(1, np.uint64), 0)
@example(np.array([2**64 - 1, 0, 2**63, 2**64 - 1], np.uint64), 0)
def test_both_ways_find_every_pair(phash: Hashes, max_distance: int) -> None:
    expected = by_definition(phash, max_distance)
    assert dedup.group(phash, max_distance=max_distance).tolist() == expected
    assert by_bands(phash, max_distance) == expected


@pytest.mark.parametrize("max_distance", [0, 1, 5, 6, 8, 12, 16])
def test_the_limit_is_met_and_not_passed(max_distance: int) -> None:
    """Bits spread over all fields, as unkindly as they can be: d of them are found, d + 1 are not."""
    rng = np.random.default_rng(max_distance)
    for _ in range(20):
        bits = rng.permutation(64)[: max_distance + 1]
        one = int(rng.integers(0, 2**63))
        near = one ^ sum(1 << int(b) for b in bits[:-1])
        pair = np.array([one, near], np.uint64)
        assert by_bands(pair, max_distance) == dedup.group(pair, max_distance=max_distance).tolist() == [0, 0]
        pair[1] ^= np.uint64(1 << int(bits[-1]))
        assert by_bands(pair, max_distance) == dedup.group(pair, max_distance=max_distance).tolist() == [0, 1]


def test_a_group_bears_the_position_of_its_first_member() -> None:
    """The first in the order given, whatever the values: reversing the input reverses who names the group."""
    chain = np.array([0b1111 << (4 * i) for i in range(4)] + [2**63 | 2**62 | 2**50], np.uint64)
    for search in (lambda p: dedup.group(p, max_distance=8).tolist(), lambda p: by_bands(p, 8)):
        assert search(chain) == [0, 0, 0, 0, 0]
        assert search(np.concatenate([[2**64 - 1], chain[::-1]]).astype(np.uint64)) == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("num_bits", [9, 13])
def test_hot_spots(num_bits: int) -> None:
    """Hundreds and thousands of hashes in one bucket of some bands, most pairs near misses: two chains, kept apart."""
    numbers = np.random.default_rng(3).permutation(2**num_bits)
    # Each bit stands three times: hashes are close where their numbers differ in one or two bits.
    low = sum(((numbers >> i) & 1).astype(np.uint64) * np.uint64(7 << (3 * i)) for i in range(num_bits))
    side = np.arange(len(numbers)) % 2
    phash = low | np.where(side, np.uint64((2**20 - 1) << 40), np.uint64(0))
    assert (len(phash) > dedup.SMALL) == (num_bits == 13)
    assert dedup.group(phash).tolist() == by_bands(phash, BITS) == side.tolist()


def test_many_hashes_take_the_bands() -> None:
    """Above `SMALL` different hashes the answer is that of the small way, piece by piece."""
    rng = np.random.default_rng(4)
    phash = rng.integers(0, 2**64, dedup.SMALL + 500, dtype=np.uint64)
    copies = rng.permutation(len(phash))[:300]
    near = phash[copies] ^ (np.uint64(0b1011) << rng.integers(0, 60, 300, dtype=np.uint64))
    groups = dedup.group(np.concatenate([phash, near]))
    assert groups[len(phash) :].tolist() == groups[copies].tolist()
    for one in range(0, len(phash), 97):
        distance = np.bitwise_count(phash ^ phash[one])
        assert groups[one] == np.flatnonzero(distance <= BITS)[0]


def test_known_pairs_of_photos() -> None:
    """Blurred, sharpened, resized, recoded copies fall into one group; mirrored and turned ones do not."""
    folder = Path(__file__).parents[2] / "shared/data/photos"
    if not (folder / "neardup_pairs.csv").is_file():
        pytest.skip("no photos beside the checkout")
    with (folder / "neardup_pairs.csv").open() as file:
        pairs = list(csv.DictReader(file))
    names = sorted({pair[side] for pair in pairs for side in "ab"})
    hashes = np.array([int(phash_of(decode_rgb((folder / name).read_bytes())), 16) for name in names], np.uint64)
    groups = dict(zip(names, dedup.group(hashes).tolist(), strict=True))
    kinds = {"dup": True, "mode/format": True, "geometric": False}
    assert {pair["kind"] for pair in pairs} == kinds.keys()
    for pair in pairs:
        assert (groups[pair["a"]] == groups[pair["b"]]) == kinds[pair["kind"]], pair
