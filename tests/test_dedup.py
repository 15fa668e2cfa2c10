"""Near-duplicate search: exact by either way, groups named by their first member, true to known pairs of photos."""

from __future__ import annotations

import csv
import time
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


def by_definition(phash: Hashes, distance: int) -> list[int]:
    """Connected components by repeated spreading of the smallest position."""
    close = np.bitwise_count(phash[:, None] ^ phash[None, :]) <= distance
    group = np.arange(len(phash))
    while True:
        spread = np.where(close, group[None, :], len(phash)).min(axis=1, initial=len(phash))
        if np.array_equal(spread, group):
            return group.tolist()
        group = spread


def by_bands(phash: Hashes, distance: int) -> list[int]:
    small, dedup.SMALL = dedup.SMALL, 0
    try:
        return dedup.group(phash, distance).tolist()
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


@settings(max_examples=12, deadline=None, derandomize=True)
@given(clustered(), st.integers(0, 12))
@example(np.zeros(0, np.uint64), 8)
@example(np.zeros(1, np.uint64), 0)
@example(np.array([2**64 - 1, 0, 2**63, 2**64 - 1], np.uint64), 0)
def test_both_ways_find_every_pair(phash: Hashes, distance: int) -> None:
    expected = by_definition(phash, distance)
    assert dedup.group(phash, distance=distance).tolist() == expected
    assert by_bands(phash, distance) == expected


@pytest.mark.parametrize("distance", [0, 1, 5, 6, 8, 12, 16])
def test_the_limit_is_met_and_not_passed(distance: int) -> None:
    """Bits spread over all fields, as unkindly as they can be: d of them are found, d + 1 are not."""
    rng = np.random.default_rng(distance)
    for _ in range(20):
        bits = rng.permutation(64)[: distance + 1]
        one = int(rng.integers(0, 2**63))
        near = one ^ sum(1 << int(b) for b in bits[:-1])
        pair = np.array([one, near], np.uint64)
        assert by_bands(pair, distance) == dedup.group(pair, distance=distance).tolist() == [0, 0]
        pair[1] ^= np.uint64(1 << int(bits[-1]))
        assert by_bands(pair, distance) == dedup.group(pair, distance=distance).tolist() == [0, 1]


def test_a_group_bears_the_position_of_its_first_member() -> None:
    """The first in the order given, whatever the values: reversing the input reverses who names the group."""
    chain = np.array([0b1111 << (4 * i) for i in range(4)] + [2**63 | 2**62 | 2**50], np.uint64)
    for search in (lambda p: dedup.group(p, distance=8).tolist(), lambda p: by_bands(p, 8)):
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


def greedy_by_definition(phash: Hashes, order: list[int], distance: int) -> list[int]:
    """The definition of `group_direct`, row by row; groups named by their first member."""
    taker = [-1] * len(phash)
    for row in order:
        if taker[row] < 0:
            for other in range(len(phash)):
                if taker[other] < 0 and int(phash[row] ^ phash[other]).bit_count() <= distance:
                    taker[other] = row
    return [taker.index(by) for by in taker]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(clustered(), st.integers(0, 12), st.integers(0, 2**32), st.booleans())
@example(np.array([0, 2**64 - 1, 0, 2**64 - 1, 2**63], np.uint64), 8, 0, True)
def test_direct_groups_are_what_their_definition_says(
    phash: Hashes, distance: int, seed: int, is_compiled: bool
) -> None:
    phash = phash[:150]
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 4, len(phash)) / 4  # many ties, which keys decide
    keys = rng.permutation(len(phash)) // 3, rng.integers(1, 5, len(phash)).astype(np.int8)
    order = sorted(range(len(phash)), key=lambda i: (-confidence[i], keys[0][i], keys[1][i]))
    small, dedup.SMALL = dedup.SMALL, 0 if is_compiled else dedup.SMALL
    try:
        found = dedup.group_direct(phash, confidence, *keys, distance)
    finally:
        dedup.SMALL = small
    assert found.tolist() == greedy_by_definition(phash, order, distance)
    best = dedup.representatives(found, confidence, *keys)
    assert (np.bitwise_count(phash ^ phash[best]) <= distance).all()
    whole = dedup.group(phash, distance)
    assert (whole[found] == whole).all()  # a refinement of the connected components


def test_representatives_are_the_most_confident_then_the_first_key() -> None:
    groups = np.array([0, 0, 0, 3, 3, 5])
    confidence = np.array([0.9, np.nan, 0.9, np.nan, 0.1, np.nan], np.float32)
    keys = np.array([8, 1, 7, 1, 9, 4]), np.array([1, 1, 2, 1, 1, 1], np.int8)
    assert dedup.representatives(groups, confidence, *keys).tolist() == [2, 2, 2, 4, 4, 5]
    for order in (np.arange(5, -1, -1), np.array([3, 0, 5, 1, 4, 2])):
        renamed = np.array([np.flatnonzero(groups[order] == groups[i])[0] for i in order])
        found = dedup.representatives(renamed, confidence[order], keys[0][order], keys[1][order])
        assert order[found].tolist() == np.array([2, 2, 2, 4, 4, 5])[order].tolist()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(4, 12), st.integers(2, 5), st.integers(0, 3))
def test_any_number_of_fields_finds_every_pair(seed: int, distance: int, equal: int, mask: int) -> None:
    """Buckets large enough to be dealt out again and again, of hashes that vary in a part of their bits only."""
    from builders import bands

    rng = np.random.default_rng(seed)
    free = np.uint64([2**64 - 1, 0x00FF00FF00FF00FF, 0xFFFF_FFFF_F000_0000, 0x3F03_F000_0FC0_FC3F][mask])
    hashes = np.unique(rng.integers(0, 2**64, 1500, dtype=np.uint64) & free)
    flips = np.uint64(0)
    for _ in range(distance):
        flips = flips ^ (np.uint64(1) << rng.integers(0, 64, 300, dtype=np.uint64))
    hashes = np.unique(np.concatenate([hashes, rng.choice(hashes, 300) ^ flips]))
    expected = by_definition(hashes, distance)
    for threads in (1, 3):
        found = bands.link(hashes, distance, threads=threads, equal=equal)
        assert np.unique(found, return_index=True)[1][np.unique(found, return_inverse=True)[1]].tolist() == expected


@pytest.mark.parametrize(("distance", "equal"), [(8, 2), (8, 3), (8, 4), (1, 5), (16, 3)])
def test_pairs_that_agree_in_no_field_too_many_are_found(distance: int, equal: int) -> None:
    """Each differing bit lies in a field of its own: one choice of fields alone finds the pair, none may be skipped."""
    from builders import bands

    rng, num, fields = np.random.default_rng(8), 3000, distance + equal
    bounds = np.array([64 * i // fields for i in range(fields + 1)], np.uint64)
    hashes = rng.integers(0, 2**64, num, dtype=np.uint64)
    near = hashes.copy()
    for field in rng.permuted(np.tile(np.arange(fields), (num, 1)), axis=1)[:, :distance].T:
        near ^= np.uint64(1) << (bounds[field] + rng.integers(0, 2**32, num, dtype=np.uint64) % np.diff(bounds)[field])
    for threads in (1, 2):
        found = bands.link(np.concatenate([hashes, near]), distance, threads=threads, equal=equal)
        assert np.array_equal(found[:num], found[num:])


def test_any_number_of_threads_gives_the_same() -> None:
    from builders import bands

    rng = np.random.default_rng(6)
    hashes = np.unique(rng.integers(0, 2**64, 3000, dtype=np.uint64) & np.uint64(0x00FF00FF00FF00FF))
    hashes = np.unique(np.concatenate([hashes, hashes ^ np.uint64(0b111)]))
    one = bands.link(hashes, 6, threads=1)
    assert len(np.unique(one)) < len(hashes)
    for threads in (2, 3):
        assert np.array_equal(bands.link(hashes, 6, threads=threads), one)


@pytest.mark.parametrize("num_bits", [4, 8])
def test_near_blank_pictures_cost_no_more_than_others(num_bits: int) -> None:
    """60,000 hashes within a few bits of zero, and a million equal ones: 2e9 pairs, all of them near."""
    rng = np.random.default_rng(5)
    blank = np.zeros(60_000, np.uint64)
    for _ in range(num_bits):
        blank |= np.uint64(1) << rng.integers(0, 64, len(blank), dtype=np.uint64)
    phash = np.concatenate([blank, np.full(1_000_000, 2**64 - 1, np.uint64)])
    dedup.group(phash[: dedup.SMALL * 2])  # compiles
    start = time.process_time()
    groups = dedup.group(phash)
    direct = dedup.group_direct(phash, np.zeros(len(phash)), np.arange(len(phash)), np.ones(len(phash), np.int8))
    assert time.process_time() - start < 10  # all pairs would take minutes
    assert (groups[: len(blank)] == 0).all()
    assert (groups[len(blank) :] == len(blank)).all()
    assert (direct[len(blank) :] == len(blank)).all()
