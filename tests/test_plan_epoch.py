"""The order of an epoch, its batches and its ranks: arithmetic, checked for every size that is quick to check."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t4sa_data.plan import (
    AUGMENT,
    DRAWS,
    ORDER,
    batch_slice,
    draw_rows,
    epoch_order,
    num_batches,
    plan_digest,
    sample_hash,
    uniforms,
)
from t4sa_data.schema import make_key

TAILS = ("drop", "wrap", "ragged")
SHUFFLES = ("full", "block")
GOLDEN = Path(__file__).parent / "golden_order.json"
seeds = st.integers(-(2**70), 2**70)


def spread(num_rows: int, gap: int) -> np.ndarray:
    """Positions of a selection: every `gap`-th or so of a split."""
    return np.arange(num_rows, dtype=np.int64) * gap + np.arange(num_rows) % max(1, gap)


# The order.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_rows=st.integers(0, 3000),
    gap=st.integers(1, 40),
    seed=seeds,
    epoch=st.integers(0, 10**6),
    shuffle=st.sampled_from((*SHUFFLES, None)),
    block_samples=st.integers(1, 200),
    window_blocks=st.integers(1, 40),
)
def test_every_order_is_a_permutation(
    num_rows: int, gap: int, seed: int, epoch: int, shuffle: str | None, block_samples: int, window_blocks: int
) -> None:
    made = {"seed": seed, "epoch": epoch, "shuffle": shuffle}
    blocks = {"block_samples": block_samples, "window_blocks": window_blocks}
    positions = spread(num_rows, gap)
    order = epoch_order(positions, **made, **blocks)
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(num_rows))
    assert np.array_equal(order, epoch_order(positions.copy(), **made, **blocks))
    if shuffle is None:
        assert np.array_equal(order, np.arange(num_rows))


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_every_size_from_nothing_on(shuffle: str) -> None:
    seen = set()
    for num_rows in range(260):
        order = epoch_order(np.arange(num_rows), seed=5, epoch=1, shuffle=shuffle, block_samples=4, window_blocks=3)
        assert sorted(order.tolist()) == list(range(num_rows))
        seen.add(order.tobytes())
    assert len(seen) == 260


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_every_epoch_and_every_seed_differ(shuffle: str) -> None:
    """Also for seeds and epochs that a naive sum, xor or cut to 32 bits would confuse."""
    numbers = [0, 1, 2, 3, 7, 2**31, 2**32, 2**32 + 1, 2**63, -1, -2]
    positions = np.arange(2000)
    made = {
        epoch_order(positions, seed=seed, epoch=epoch, shuffle=shuffle).tobytes(): (seed, epoch)
        for seed in numbers
        for epoch in numbers
    }
    assert len(made) == len(numbers) ** 2


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_order_scatters(shuffle: str) -> None:
    """Rank correlation with the order of the release, and of one epoch with the next: none."""
    positions = np.arange(40_000)
    one, two = (epoch_order(positions, seed=0, epoch=epoch, shuffle=shuffle) for epoch in (0, 1))
    bound = 0.03 if shuffle == "full" else 0.12  # 625 blocks in 40 windows: blocks are the draws
    assert abs(np.corrcoef(positions, one)[0, 1]) < bound
    assert abs(np.corrcoef(np.argsort(one), np.argsort(two))[0, 1]) < bound


def test_full_order_of_a_selection_is_that_of_the_whole() -> None:
    """Two samples stand in the same order whatever else is selected: a filter moves nobody."""
    positions = np.arange(1000)
    whole = positions[epoch_order(positions, seed=3, epoch=4, shuffle="full")]
    some = positions[::7]
    assert np.array_equal(some[epoch_order(some, seed=3, epoch=4, shuffle="full")], whole[np.isin(whole, some)])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(num_rows=st.integers(1, 2000), block=st.integers(1, 100), window=st.integers(1, 20), seed=seeds)
def test_block_shuffle_reads_whole_blocks(num_rows: int, block: int, window: int, seed: int) -> None:
    """A block is in one window, and no more than `window_blocks` of them are read at a time."""
    order = epoch_order(
        np.arange(num_rows), seed=seed, epoch=0, shuffle="block", block_samples=block, window_blocks=window
    )
    of_block = order // block
    first = {one: int(np.flatnonzero(of_block == one)[0]) for one in np.unique(of_block)}
    last = {one: int(np.flatnonzero(of_block == one)[-1]) for one in first}
    for place in range(0, num_rows, max(1, num_rows // 50)):
        assert sum(first[one] <= place <= last[one] for one in first) <= window


def test_hashes_are_distinct_over_positions_draws_and_purposes() -> None:
    positions = np.repeat(np.arange(1000), 5)
    draw = np.tile(np.arange(5), 1000)
    made = [
        sample_hash(positions, seed=0, epoch=epoch, purpose=purpose, draw=draw)
        for epoch in range(3)
        for purpose in (ORDER, AUGMENT, DRAWS)
    ]
    for hashes in made:
        assert len(np.unique(hashes)) == len(hashes)  # promised: a bijection
    assert len(np.unique(np.concatenate(made))) == 9 * 5000  # by chance, 1e-10 that it fails
    far = np.array([0, 2**40 - 1], dtype=np.int64)
    assert len(np.unique(sample_hash(np.repeat(far, 2), seed=0, epoch=0, purpose=0, draw=np.array([0, 1, 0, 1])))) == 4


def test_uniforms_are_uniform_and_independent() -> None:
    values = uniforms(sample_hash(np.arange(20_000), seed=1, epoch=0, purpose=AUGMENT), 6)
    assert values.shape == (20_000, 6) and values.min() >= 0 and values.max() < 1
    assert np.abs(values.mean(0) - 0.5).max() < 0.01 and np.abs(values.var(0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(values.T) - np.eye(6)).max() < 0.03
    assert np.array_equal(values[:, :2], uniforms(sample_hash(np.arange(20_000), seed=1, epoch=0, purpose=AUGMENT), 2))


# Batches and ranks.
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    num_rows=st.integers(0, 200),
    batch_size=st.integers(1, 70),
    world_size=st.integers(1, 9),
    tail=st.sampled_from(TAILS),
)
def test_ranks_together_have_the_global_batch(num_rows: int, batch_size: int, world_size: int, tail: str) -> None:
    count = num_batches(num_rows, batch_size, tail)
    everything = []
    for number in range(count):
        whole = batch_slice(number, num_rows, batch_size, tail)
        parts = [
            batch_slice(number, num_rows, batch_size, tail, rank=r, world_size=world_size) for r in range(world_size)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert [len(part) for part in parts] == [
            (r + 1) * len(whole) // world_size - r * len(whole) // world_size for r in range(world_size)
        ]
        assert tail == "ragged" or len(whole) == batch_size
        everything += whole.tolist()
    once = list(range(num_rows))
    if tail == "ragged":
        assert everything == once
    elif tail == "drop":
        assert everything == once[: num_rows // batch_size * batch_size]
    else:
        assert everything[:num_rows] == once
        assert everything[num_rows:] == list(itertools.islice(itertools.cycle(once), len(everything) - num_rows))


@pytest.mark.parametrize("tail", TAILS)
def test_fewer_rows_than_ranks(tail: str) -> None:
    """webdataset #188, #65: a rank that gets no shard waits for ever. Here it gets an empty part of each batch."""
    parts = [batch_slice(0, 1, 16, tail, rank=rank, world_size=16) for rank in range(16)]
    count = num_batches(1, 16, tail)
    assert count == (0 if tail == "drop" else 1)
    if tail == "ragged":
        assert sorted(map(len, parts)) == [0] * 15 + [1]
    if tail == "wrap":
        assert [part.tolist() for part in parts] == [[0]] * 16
    assert num_batches(0, 16, tail) == 0


# Sampling by weight.
@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    weights=st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=300).filter(any),
    seed=seeds,
    epoch=st.integers(0, 1000),
)
def test_draws_are_floor_or_ceil_of_what_is_due(weights: list[float], seed: int, epoch: int) -> None:
    exact = np.array(weights)
    positions = spread(len(exact), 3)
    rows, draw = draw_rows(exact, positions, seed=seed, epoch=epoch)
    due = exact / exact.sum() * len(exact)
    counts = np.bincount(rows, minlength=len(exact))
    assert len(rows) == len(draw) == len(exact) and (np.diff(rows) >= 0).all()
    assert (counts >= np.floor(due - 1e-6)).all() and (counts <= np.ceil(due + 1e-6)).all()
    assert (counts[exact == 0] == 0).all()
    assert all(np.array_equal(draw[rows == row], np.arange(count)) for row, count in enumerate(counts) if count)
    again = draw_rows(exact, positions, seed=seed, epoch=epoch)
    assert np.array_equal(rows, again[0]) and np.array_equal(draw, again[1])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(1, 150), min_size=1, max_size=4), seed=seeds, epoch=st.integers(0, 50))
def test_balanced_classes_differ_by_one_draw(sizes: list[int], seed: int, epoch: int) -> None:
    label = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    weights = 1 / np.array(sizes, dtype=np.float64)[label]
    rows, _ = draw_rows(weights, np.arange(len(label)), seed=seed, epoch=epoch, groups=label)
    counts = np.bincount(label[rows], minlength=len(sizes))
    assert counts.max() - counts.min() <= 1


def test_equal_weights_draw_every_row_once_and_epochs_draw_others() -> None:
    rows, draw = draw_rows(np.full(1000, 0.1), np.arange(1000), seed=0, epoch=0)
    assert np.array_equal(rows, np.arange(1000)) and not draw.any()
    weights = np.linspace(0.1, 3, 1000)
    one, two = (set(draw_rows(weights, np.arange(1000), seed=0, epoch=epoch)[0].tolist()) for epoch in (0, 1))
    assert len(one ^ two) > 100
    many = [np.bincount(draw_rows(weights, np.arange(1000), seed=0, epoch=e)[0], minlength=1000) for e in range(200)]
    assert np.abs(np.mean(many, axis=0) - weights / weights.mean()).max() < 0.2  # each row what is due to it


# The digest.
def test_digest_changes_with_whatever_decides_an_epoch() -> None:
    base = {
        "positions": np.arange(4),
        "labels": np.array([0, 1, 2, 0]),
        "probabilities": None,
        "weights": None,
        "shuffle": "full",
        "tail": "drop",
    }
    chances = np.full((4, 3), 1 / 3, dtype=np.float32)
    others = [
        {"positions": np.array([0, 1, 2, 4])},
        {"positions": np.arange(3), "labels": np.array([0, 1, 2])},
        {"labels": np.array([0, 1, 2, 1])},
        {"probabilities": chances},
        {"probabilities": np.nextafter(chances, np.float32(1))},
        {"weights": np.ones(4)},
        {"weights": np.nextafter(np.ones(4), 2)},
        *({"shuffle": shuffle} for shuffle in ("block", None)),
        *({"tail": tail} for tail in ("wrap", "ragged")),
    ]
    made = [plan_digest(**{**base, **other}) for other in ({}, *others)]
    assert len(set(made)) == len(made)
    assert plan_digest(**base) == plan_digest(**{**base, "labels": base["labels"].astype(np.int32)})


# The golden order.
def synthetic() -> tuple[np.ndarray, list[str]]:
    """1,000 positions of a split of 3,000, and a made-up key for each."""
    positions = np.arange(3000)[np.arange(3000) % 3 == 1]
    return positions, [make_key(757_000_000_000_000_000 + 1_234_567 * int(p), 1 + int(p) % 4) for p in positions]


def golden(shuffle: str, seed: int, world_size: int) -> dict[str, list[str]]:
    """The first 64 keys of epoch 0, by rank: two global batches of 32."""
    positions, keys = synthetic()
    order = epoch_order(positions, seed=seed, epoch=0, shuffle=shuffle)
    made = {}
    for rank in range(world_size):
        places = [batch_slice(number, len(order), 32, "drop", rank=rank, world_size=world_size) for number in (0, 1)]
        made[f"rank {rank}"] = [keys[row] for row in order[np.concatenate(places)]]
    return made


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("seed", [0, 1, 2017])
@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_golden_order(shuffle: str, seed: int, world_size: int) -> None:
    """Changing the golden file is a BREAKING change: states of running trainings would go on with another order.

    It needs a row in CHANGELOG under ORDER, and another "order 1" in `plan.plan_digest`, so that old states are
    refused. For that case only: `python -m tests.test_plan_epoch` writes the file.
    """
    assert golden(shuffle, seed, world_size) == json.loads(GOLDEN.read_text())[f"{shuffle} {seed} {world_size}"]


if __name__ == "__main__":
    everything = {
        f"{shuffle} {seed} {world_size}": golden(shuffle, seed, world_size)
        for shuffle in SHUFFLES
        for seed in (0, 1, 2017)
        for world_size in (1, 2, 8)
    }
    # One line a rank.
    text = json.dumps(everything, indent=1).replace('",\n   "', '", "').replace("[\n   ", "[").replace("\n  ]", "]")
    GOLDEN.write_text(text + "\n")
