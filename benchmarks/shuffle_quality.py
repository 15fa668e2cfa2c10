"""How well does the block shuffle mix, beside webdataset's shuffle buffer and a full permutation?

    python benchmarks/shuffle_quality.py [--samples 368586] [--shards 64] [--seeds 5]

Nothing is read: ours is arithmetic (`plan.epoch_order`), webdataset's is its own pipeline over sample numbers in place
of samples: shards in random order, then `shuffle(1000)`, as its documentation has it. Both over two layouts: a
release's (rows in a seeded random order), and one that is sorted by class, in each class by time: how rows would stand
in shards that were written as a sorted list has them.

- run: neighbours of one class in a row. Random order of three equal classes: 1.5 on average.
- moved: how far a sample stands from its place in storage, and step: how far two neighbours of the order are apart in
  storage; both as a share of n / 3, which is what a random permutation gives on average.
- class excess: by how much two samples k apart in the order are of one class more often than by chance (0: never more,
  1: always); the largest of k = 1 to 100, beside what chance alone leaves (three standard deviations).
- batches: the largest share of one class, and of one shard, in a batch of 64, on average.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import common
import numpy as np
import numpy.typing as npt

from t4sa_data import plan

BATCH, LAGS, CLASSES = 64, 100, 3
BUFFER = 1000
Ints = npt.NDArray[np.int64]
MEASURES = (
    "mean run",
    "longest run",
    "moved",
    "step",
    "steps within 64",
    "class excess, largest",
    "one class in a batch",
    "one shard in a batch",
)


def webdataset_order(num: int, num_shards: int, buffer: int, seed: int) -> Ints:
    """Sample numbers as webdataset's own pipeline gives them."""
    import random

    import webdataset as wds

    bounds = plan.even_bounds(num, num_shards)

    def shards() -> Iterator[tuple[int, int]]:
        yield from bounds

    def samples(source: Iterator[tuple[int, int]]) -> Iterator[int]:
        for low, high in source:
            yield from range(low, high)

    stages: list[Any] = [shards, wds.shuffle(num_shards, initial=num_shards, rng=random.Random(seed)), samples]
    if buffer:
        stages.append(wds.shuffle(buffer, rng=random.Random(seed + 1)))  # initial: its default, 100
    return np.fromiter(wds.DataPipeline(*stages), dtype=np.int64, count=num)


def orders(num: int, num_shards: int, seed: int) -> dict[str, Ints]:
    """The order of an epoch by each contestant."""
    positions = np.arange(num, dtype=np.int64)
    return {
        "full permutation": plan.epoch_order(positions, seed=seed, epoch=0, shuffle="full"),
        "ours, block": plan.epoch_order(positions, seed=seed, epoch=0, shuffle="block"),
        f"webdataset, shards + shuffle({BUFFER})": webdataset_order(num, num_shards, BUFFER, seed),
        "webdataset, shards + shuffle(10000)": webdataset_order(num, num_shards, 10 * BUFFER, seed),
        "shards in random order only": webdataset_order(num, num_shards, 0, seed),
    }


def layouts(num: int) -> dict[str, Ints]:
    """Label of each row in storage."""
    label = np.arange(num, dtype=np.int64) * CLASSES // num
    return {"a release (random order)": np.random.default_rng(2017).permutation(label), "sorted by class": label}


def measure(order: Ints, label: Ints, num_shards: int) -> list[float]:
    """What `MEASURES` names."""
    num = len(order)
    seen = label[order]
    ends = np.flatnonzero(np.diff(seen)) + 1
    runs = np.diff(np.concatenate([[0], ends, [num]]))
    steps = np.abs(np.diff(order))
    shares = np.bincount(seen) / num
    chance = float(np.sum(shares**2))
    excess = [(np.mean(seen[:-lag] == seen[lag:]) - chance) / (1 - chance) for lag in range(1, LAGS + 1)]
    starts = np.array([low for low, _ in plan.even_bounds(num, num_shards)])
    shard = np.searchsorted(starts, order, side="right") - 1
    return [
        float(runs.mean()),
        float(runs.max()),
        float(np.abs(order - np.arange(num)).mean() / (num / 3)),
        float(steps.mean() / (num / 3)),
        float(np.mean(steps <= plan.BLOCK_SAMPLES)),
        float(max(excess)),
        _largest_share(seen, CLASSES),
        _largest_share(shard, num_shards),
    ]


def _largest_share(values: Ints, num_values: int) -> float:
    """Of one value in a batch, on average over the batches."""
    batches = values[: len(values) // BATCH * BATCH].reshape(-1, BATCH)
    rows = np.arange(len(batches))[:, None] * num_values
    counts = np.bincount((batches + rows).ravel(), minlength=len(batches) * num_values)
    return float(counts.reshape(-1, num_values).max(axis=1).mean() / BATCH)


def report(num: int, num_shards: int, seeds: int) -> tuple[str, dict[str, list[list[float]]]]:
    """The tables; and what was measured of the release's layout."""
    digits = (2, 0, 2, 2, 3, 4, 3, 3)
    of_release: dict[str, list[list[float]]] = {}
    parts = []
    made = [orders(num, num_shards, seed) for seed in range(seeds)]
    for layout, label in layouts(num).items():
        rows = []
        for name in made[0]:
            seen = [measure(one[name], label, num_shards) for one in made]
            of_release.setdefault(name, seen)
            columns = zip(*seen, strict=True)
            rows.append([name, *(common.spread(column, d) for column, d in zip(columns, digits, strict=True))])
        parts.append(f"Storage: {layout}.\n\n{common.markdown_table(['order', *MEASURES], rows)}")
    noise = 3 * ((1 / CLASSES) * (1 - 1 / CLASSES) / num) ** 0.5 / (1 - 1 / CLASSES)
    parts.append(f"Chance alone leaves a class excess of up to {noise:.4f} (three standard deviations of one lag).")
    return "\n\n".join(parts), of_release


def verdict(of_release: dict[str, list[list[float]]]) -> str:
    """Whether, on a release, classes come out of the block shuffle as out of a full permutation."""
    chosen = [MEASURES.index(name) for name in ("mean run", "longest run", "one class in a batch")]
    median = {name: np.median(np.array(seen), axis=0)[chosen] for name, seen in of_release.items()}
    full, block = median["full permutation"], median["ours, block"]
    off = float(np.abs(block / full - 1)[[0, 2]].max())
    longest = f"longest run {block[1]:.0f} and {full[1]:.0f}"
    word = "met" if off < 0.01 else "missed"
    what = "Classes of the block shuffle on a release as of a full permutation (within 1 %)"
    return f"{what}: {word} ({off:.2%}; {longest})."


READING = """\
Which to use: the rows of a release stand in random order, so classes and times come out alike whatever the shuffle;
what differs is what a batch shares. `full` for local disks. `block` for remote ones: a batch comes from 16 places of
the whole split, where a buffer of 1,000 draws nearly all of it from one shard (several workers give batches of several
shards in turn, but each batch is one worker's). Storage that is sorted is another's, not a release; there `full` mixes
as ever, `block` leaves batches a little uneven, and a buffer leaves most of them of a single class."""


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=368_586, help="B-T4SA's train split by default")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    body, of_release = report(chosen.samples, chosen.shards, chosen.seeds)
    command = " ".join(["python benchmarks/shuffle_quality.py", *sys.argv[1:]])
    print(f"Command: `{command}`\n\n{common.describe_machine(('t4sa-data', 'webdataset', 'numpy'))}")
    print(
        f"Input: {chosen.samples:,} samples of three equal classes in {chosen.shards} shards; {chosen.seeds} seeds: "
        f"median, least and largest.\n\n{body}\n\n{verdict(of_release)}\n\n{READING}"
    )


if __name__ == "__main__":
    main()
