"""What becomes of an epoch that is interrupted in its middle, gone on with on as many ranks and on another number?

    python benchmarks/resume.py [--samples 600]

Each loader goes through half of an epoch on 2 ranks, saves its state as its documentation says, and a new one goes on
with it: on 2 ranks, on 3, on 1. Samples of both halves are counted: each should be there once. Drawn pictures; the
loaders are those that are installed beside this package (the peers with formats of their own are told of in docs).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT))
from t4sa_data.testing import make_release

BATCH = 12
"""Of all ranks together."""
BUFFER = 100
Keys = list[str]
Half = Callable[[int, int, Any, int | None], tuple[Keys, Any]]
"""(rank, world size, state or None, samples of this rank to take or None for the rest) -> keys taken, state."""


def ours(folder: Path) -> Half:
    """`stream`: one state for all ranks."""
    import t4sa_data

    def half(rank: int, world_size: int, state: Any, take: int | None) -> tuple[Keys, Any]:
        loader = t4sa_data.stream(
            folder, batch_size=BATCH, decode=None, tail="ragged", seed=1, rank=rank, world_size=world_size
        )
        if state is not None:
            loader.load_state_dict(state)
        keys: Keys = []
        for batch in loader:
            keys += batch["key"]
            if take is not None and len(keys) >= take:
                break
        return keys, loader.state_dict()

    return half


def hugging_face(folder: Path, *, buffer: int) -> Half:
    """`datasets`: streaming Parquet, `split_dataset_by_node`, `shuffle`, a state for each rank."""
    import datasets
    from datasets.distributed import split_dataset_by_node

    files = sorted(str(path) for path in (folder / "t4sa").rglob("train-*.parquet"))

    def half(rank: int, world_size: int, state: Any, take: int | None) -> tuple[Keys, Any]:
        data = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True, columns=["key"])
        data = data.shuffle(seed=1, buffer_size=buffer)
        data = split_dataset_by_node(data, rank=rank, world_size=world_size)
        if state is not None:
            data.load_state_dict(state)
        keys: Keys = []
        for row in data:
            keys.append(row["key"])
            if take is not None and len(keys) >= take:
                break
        return keys, data.state_dict()

    return half


def webdataset(folder: Path) -> Half:
    """webdataset: it has no state; what users do is to begin anew."""
    import webdataset as wds

    files = sorted(str(path) for path in (folder / "t4sa-wds").rglob("train-*.tar"))

    def half(rank: int, world_size: int, state: Any, take: int | None) -> tuple[Keys, Any]:  # noqa: ARG001
        made = wds.WebDataset(
            files, shardshuffle=len(files), seed=1, nodesplitter=lambda urls: list(urls)[rank::world_size]
        ).shuffle(BUFFER)
        keys: Keys = []
        for sample in made:
            keys.append(sample["__key__"])
            if take is not None and len(keys) >= take:
                break
        return keys, {}

    return half


def outcome(half: Half, every: set[str], world_size: int) -> str:
    """What becomes of the epoch, in words."""
    take = len(every) // 4
    first = [half(rank, 2, None, take) for rank in range(2)]
    seen = Counter(key for keys, _ in first for key in keys)
    try:
        for rank in range(world_size):
            keys, _ = half(rank, world_size, first[min(rank, 1)][1], None)
            seen.update(keys)
    except Exception as error:  # whatever a library says to a state that it does not take
        return f"refused ({type(error).__name__})"
    lost, again = len(every - seen.keys()), sum(count - 1 for count in seen.values())
    return "exact" if not lost and not again else f"{lost} lost, {again} seen twice"


def main() -> None:
    """Interrupt each loader and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=600)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-") as name:
        folder = Path(name)
        make_release(folder, chosen.samples, shard_bytes=chosen.samples * 90)
        contestants = {
            "t4sa-data": ours(folder),
            "datasets, shuffled": hugging_face(folder, buffer=BUFFER),
            "datasets, only shards shuffled": hugging_face(folder, buffer=1),
            "webdataset": webdataset(folder),
        }
        every = set(ours(folder)(0, 1, None, None)[0])
        rows = [
            [name, *(outcome(half, every, world_size) for world_size in (2, 3, 1))]
            for name, half in contestants.items()
        ]
    machine = common.describe_machine(("t4sa-data", "datasets", "webdataset"))
    print(f"Command: `{' '.join(['python benchmarks/resume.py', *sys.argv[1:]])}`\n\n{machine}")
    print(f"Input: {len(every)} samples, half of them seen on 2 ranks.\n")
    print(common.markdown_table(["loader", "gone on with on 2 ranks", "on 3", "on 1"], rows))


if __name__ == "__main__":
    main()
