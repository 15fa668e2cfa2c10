"""Near-duplicate groups of 64-bit hashes: how fast, how much memory, beside other ways to find them?

    python benchmarks/dedup.py                         # 1.47 and 15 million hashes, peers on 50,000
    python benchmarks/dedup.py --peers-python PYTHON   # an interpreter that has faiss-cpu and pybktree
    python benchmarks/dedup.py --quick                 # to see that it runs

Hashes: four fifths random, a fifth in clusters (up to five bits from their centres), one in a thousand the same.
Each contestant is a process of its own. All give groups; they are compared with those of the brute force.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

sys.path.insert(0, str(common.ROOT))

BITS = 8
LIBRARIES = ("t4sa-data", "numpy", "numba")
PEERS = ("brute force, numpy", "faiss BinaryFlat", "faiss MultiHash 3 x 21", "pybktree")


# In the child.


def make_hashes(num: int) -> Any:
    """See above."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, num, dtype=np.uint64)
    members = num // 5
    centres = hashes[rng.integers(members, num, max(1, members // 4))]
    flips = np.zeros(members, dtype=np.uint64)
    for _ in range(5):
        flips ^= np.uint64(1) << rng.integers(0, 64, members, dtype=np.uint64)
    hashes[:members] = centres[rng.integers(0, len(centres), members)] ^ flips
    hashes[: num // 1000] = hashes[-1]
    rng.shuffle(hashes)
    return hashes


def make_ball(num: int, bits: int) -> Any:
    """Near-blank pictures: hashes with a few bits set, all in one bucket of most bands."""
    rng = np.random.default_rng(0)
    hashes = np.zeros(num, dtype=np.uint64)
    for _ in range(bits):
        hashes |= np.uint64(1) << rng.integers(0, 64, num, dtype=np.uint64)
    return hashes


def keys_of(num: int) -> tuple[Any, Any, Any, Any]:
    """Confidence, tweet ids, image indices (a tweet in five has two images) and labels as lopsided as T4SA's."""
    rng = np.random.default_rng(1)
    confidence = rng.random(num, dtype=np.float32)
    tweet = np.cumsum(rng.random(num) < 0.8) << 22
    index = np.ones(num, np.int8)
    index[1:][tweet[1:] == tweet[:-1]] = 2
    label = ((tweet >> 22) * 7919 % 100 >= 16).astype(np.int64) + ((tweet >> 22) * 7919 % 100 >= 62)
    return confidence, tweet, index, label


def ours(hashes: Any) -> Any:
    from builders import dedup

    return dedup.group(hashes, BITS)


def direct(hashes: Any) -> Any:
    from builders import dedup

    return dedup.group_direct(hashes, *keys_of(len(hashes))[:3], BITS)


def joined(num: int, pairs: Any) -> Any:
    """Groups of pairs, by union-find in Python."""
    parents = list(range(num))

    def find(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    for i, j in pairs:
        a, b = find(i), find(j)
        parents[max(a, b)] = min(a, b)
    return np.array([find(i) for i in range(num)], dtype=np.int64)


def brute(hashes: Any) -> Any:
    def pairs() -> Any:
        for i in range(len(hashes) - 1):
            yield from (
                (i, i + 1 + int(j)) for j in np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= BITS)
            )

    return joined(len(hashes), pairs())


def faiss_pairs(hashes: Any, index: Any) -> Any:
    """Radius: faiss takes what is nearer than it."""
    data = np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
    index.add(data)
    for start in range(0, len(data), 5000):
        limits, _, found = index.range_search(data[start : start + 5000], BITS + 1)
        queries = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64))) + start
        yield from zip(queries.tolist(), found.tolist(), strict=True)


def faiss_flat(hashes: Any) -> Any:
    import faiss

    return joined(len(hashes), faiss_pairs(hashes, faiss.IndexBinaryFlat(64)))


def faiss_multihash(hashes: Any) -> Any:
    """Exact for 8 bits: of three parts one differs in two bits at most (64 bits: the last one is not looked at)."""
    import faiss

    index = faiss.IndexBinaryMultiHash(64, 3, 21)
    index.nflip = 2
    return joined(len(hashes), faiss_pairs(hashes, index))


def bktree(hashes: Any) -> Any:
    """As imagededup does it, and who searches lists of imagehash hashes: a BK-tree in Python."""
    import pybktree

    rows: dict[int, int] = {}
    for row, value in enumerate(hashes.tolist()):
        rows.setdefault(value, row)
    tree = pybktree.BKTree(pybktree.hamming_distance, rows)
    pairs = [(rows[value], rows[other]) for value in rows for _, other in tree.find(value, BITS)]
    return joined(len(hashes), [*pairs, *((rows[value], row) for row, value in enumerate(hashes.tolist()))])


def columns(num: int) -> None:
    """Balance and split, each after the other; prints seconds and the peak after each."""
    from builders import balance, split

    _, tweet, index, label = keys_of(num)
    group = np.arange(num)
    rng = np.random.default_rng(2)
    group[rng.integers(0, num, num // 5)] = rng.integers(0, num // 20, num // 5)
    found = {}
    for name, work in (
        ("balance", lambda: balance.balance(label, tweet, index)),
        ("split by image", lambda: split.assign(label, tweet, index)),
        ("split by time", lambda: split.assign_by_time(label, tweet, index)),
        ("split by tweet and group", lambda: split.assign(label, tweet, index, together=(tweet, group))),
    ):
        start, used = time.perf_counter(), time.process_time()
        made = work()
        found[name] = {
            "seconds": time.perf_counter() - start, "cpu": time.process_time() - used, "peak": peak_mb(),
            "missed": getattr(made, "missed", 0),
        }  # fmt: skip
    print(json.dumps(found))


WAYS = {
    "ours": ours, "direct": direct, PEERS[0]: brute, PEERS[1]: faiss_flat, PEERS[2]: faiss_multihash, PEERS[3]: bktree
}  # fmt: skip


def run_one(way: str, num: int, ball: int) -> None:
    """One contestant; prints JSON."""
    if way == "columns":
        columns(num)
        return
    hashes = make_ball(num, ball) if ball else make_hashes(num)
    warm = time.perf_counter()
    if way in ("ours", "direct"):
        WAYS[way](make_hashes(6000))  # compiles
    warm = time.perf_counter() - warm
    start, used = time.perf_counter(), time.process_time()
    groups = WAYS[way](hashes)
    found = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used, "warm": warm}
    digest = hashlib.sha256(np.ascontiguousarray(groups).tobytes()).hexdigest()
    print(json.dumps({**found, "peak": peak_mb(), "groups": len(np.unique(groups)), "digest": digest}))


def peak_mb() -> float:
    """Largest resident size of this process."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        return 0.0


# In the parent.


def measure(way: str, num: int, *, ball: int = 0, python: str = sys.executable) -> dict[str, Any] | None:
    """One run in a process of its own; None where it cannot run."""
    command = [python, __file__, "--one", way, str(num), str(ball)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(common.num_cores())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{way}: left out ({done.stderr.strip().splitlines()[-1]})", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(name: str, num: int, one: dict[str, Any], *more: object) -> list[object]:
    numbers = f"{num:,}", f"{one['seconds']:.1f}", f"{one['cpu']:.1f}", f"{one['peak']:.0f}", f"{one['groups']:,}"
    return [name, *numbers, *more]


def print_sizes(sizes: list[int], rounds: int) -> None:
    """Ours by size, and on near-blank pictures."""
    lines = []
    for num in sizes:
        for way, name in (("ours", "groups"), ("direct", "groups of direct neighbours")):
            runs = [measure(way, num) for _ in range(rounds if num < 5e6 else 1)]
            found = sorted((one for one in runs if one), key=lambda one: one["seconds"])
            lines.append(row_of(name, num, found[len(found) // 2], f"{found[0]['warm']:.1f}"))
    for bits in (4, 6, 8, 12):
        for way, name in (("ours", "groups"), ("direct", "direct neighbours")):
            one = measure(way, min(sizes[0], 200_000), ball=bits)
            if one:
                what = f"{name}; up to {bits} bits set"
                lines.append(row_of(what, min(sizes[0], 200_000), one, f"{one['warm']:.1f}"))
    header = ("what", "hashes", "s", "processor s", "peak, MB", "groups", "s to import and compile, before")
    print(common.markdown_table(header, lines) + "\n")


def print_peers(num: int, whole: int, python: str) -> None:
    """Every way on one size (the tree on a tenth of it), with what it would take for all."""
    lines = []
    for size, ways in ((num, ("ours", *PEERS[:3])), (num // 10, ("ours", PEERS[0], PEERS[3]))):
        found = {way: measure(way, size, python=python if way != "ours" else sys.executable) for way in ways}
        truth = found[PEERS[0]]
        for way, one in found.items():
            if one and truth:
                is_equal = "equal" if one["digest"] == truth["digest"] else f"NOT equal ({one['groups']:,} groups)"
                hours = one["seconds"] * (whole / size) ** 2 / 3600
                lines.append(row_of(way, size, one, is_equal, "measured below" if way == "ours" else f"{hours:.1f} h"))
    last = f"{whole:,} hashes: extrapolated, as the square"
    header = ("way", "hashes", "s", "processor s", "peak, MB", "groups", "beside brute force", last)
    print(common.markdown_table(header, lines) + "\n")


def print_columns(sizes: list[int]) -> None:
    """Balance and split."""
    lines = []
    for num in sizes:
        for name, one in (measure("columns", num) or {}).items():
            lines.append(
                [name, f"{num:,}", f"{one['seconds']:.1f}", f"{one['cpu']:.1f}", f"{one['peak']:.0f}", one["missed"]]
            )
    print(common.markdown_table(("stage", "rows", "s", "processor s", "peak so far, MB", "rows off"), lines))


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        run_one(given.one[0], int(given.one[1]), int(given.one[2]))
        return
    sizes, peers = ([20_000, 100_000], 5000) if given.quick else ([1_473_394, 15_000_000], 50_000)
    print("Command: `python benchmarks/dedup.py" + (" --quick" if given.quick else " --peers-python PYTHON") + "`\n")
    print(common.describe_machine(LIBRARIES) + "\n", flush=True)
    print_peers(peers, sizes[0], given.peers_python)
    sys.stdout.flush()
    print_columns(sizes)
    print()
    sys.stdout.flush()
    print_sizes(sizes, 1 if given.quick else given.rounds)


if __name__ == "__main__":
    main()
