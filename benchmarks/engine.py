"""What does it cost where tasks run: Ray beside local processes, and many small tasks beside few large ones?

`python benchmarks/engine.py [--seconds S] [--rounds N]` prints Markdown for RESULTS.md. The work of a task is hashing,
pure processor time, and one small file by rename; there is as much of it in all, cut into 10, 100 or 1,000 tasks. Two
processes each: `Local(2)`, and a cluster of two nodes of one processor on this machine, started as one is. The limit is
one process that does all of it, halved. `--quick` shows that it runs.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import common

sys.path.insert(0, str(common.ROOT))

from builders.cluster import Ray
from builders.engine import Engine, Local
from t4sa_data.files import write_bytes

BLOCK = bytes(1 << 20)
LIBRARIES = ("t4sa-data", "ray")
Task = tuple[str, int]


def work(task: Task) -> None:
    """Hash so many MB, and write what came out."""
    path, num_blocks = task
    digest = hashlib.sha256()
    for _ in range(num_blocks):
        digest.update(BLOCK)
    write_bytes(Path(path), digest.digest())


def blocks_for(seconds: float) -> int:
    """MB that one process hashes in so many seconds, a multiple of 1,000."""
    started, num = time.perf_counter(), 0
    digest = hashlib.sha256()
    while time.perf_counter() - started < 1:
        digest.update(BLOCK)
        num += 1
    return max(1000, round(num * seconds / 1000) * 1000)


def run(engine: Engine, num_tasks: int, num_blocks: int) -> float:
    """Seconds of the work cut into so many tasks."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = [(f"{folder}/{i}", num_blocks // num_tasks) for i in range(num_tasks)]
        started = time.perf_counter()
        for _ in engine.run(work, tasks):
            pass
        return time.perf_counter() - started


@contextmanager
def cluster() -> Iterator[Ray]:
    """Two nodes of one processor each."""
    from tests.cluster_double import Cluster

    with Cluster(2) as nodes:
        os.environ.update(nodes.environment)
        with Ray(nodes.address) as engine:
            yield engine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one processor, in each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    sizes, rounds = ((10, 100), 1) if args.quick else ((10, 100, 1000), args.rounds)
    num_blocks = blocks_for(1.0 if args.quick else args.seconds)
    found: dict[tuple[str, int], list[float]] = {}
    with Local(2, apart=True) as local, cluster() as ray:
        engines: dict[str, Engine] = {"one process": Local(1), "local, 2": local, "Ray, 2 nodes": ray}
        for engine in engines.values():
            run(engine, 4, 1000)  # processes start, modules are imported
        for _ in range(rounds):
            for num_tasks in sizes:
                for name, engine in engines.items():
                    found.setdefault((name, num_tasks), []).append(run(engine, num_tasks, num_blocks))
    rows = []
    for num_tasks in sizes:
        one, local_s, ray_s = (statistics.median(found[name, num_tasks]) for name in engines)
        ratio = f"{ray_s / local_s:.2f}"
        rows.append([f"{num_tasks:,}", f"{one / 2:.2f}", f"{local_s:.2f}", f"{ray_s:.2f}", ratio])
    print(f"{common.describe_machine(LIBRARIES)}\n\n{num_blocks:,} MB hashed in all, medians of {rounds}.\n")
    print(common.markdown_table(["tasks", "one process / 2, s", "local, 2, s", "Ray, 2 nodes, s", "Ray / local"], rows))


if __name__ == "__main__":
    main()
