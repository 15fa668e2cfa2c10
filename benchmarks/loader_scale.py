"""Does `stream` stay quick and small at the published numbers of rows?

    python benchmarks/loader_scale.py               # everything
    python benchmarks/loader_scale.py --rows 20000  # a small trial

- First batch, and resuming in the middle of an epoch: 470,586 samples in real tar shards (tiny JPEGs, each with bytes
  of its own), all of them in one split. Each measurement is a fresh process in which everything is imported already.
- Memory: 1,473,394 rows in the three layers of config `t4sa`, one process with threads and one with four spawned
  workers, a whole epoch. "Above torch" is above as many processes that have done nothing but `import torch`.
- Time per sample: whole epochs, their start included, of 1,000 to 1,473,394 rows.

Memory and time per sample are those of tables: the rows are as many and as wide as the real ones, but all point into
one file of 4,096 tiny pictures. The manifest says the same, so nothing of the reader is bypassed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import memory

ROWS, ALL_ROWS = 470_586, 1_473_394
LAYER_SHARES = {"b-t4sa": 470_586, "unique": 503_467, "duplicates": 499_341}
"""Rows of the layers of config `t4sa`."""
BATCH = 256
GOAL_SECONDS = 0.3
GOAL_MB = 300
GOAL_GROWTH = 1.1
"""Time per sample at the most rows beside that at 10,000; more is growth, less is noise."""

MEMORY_CASES = (
    {"decode": None, "batches": 0},
    {"decode": None, "shuffle": "block"},
    {"decode": "cpu"},
)
"""Each in one process and with workers; `batches`: 0 is a whole epoch, else 400."""


# In the child.


def _stream(task: dict[str, Any]) -> Any:
    import t4sa_data

    return t4sa_data.stream(
        task["path"],
        config=task["config"],
        batch_size=BATCH,
        decode=task["decode"],
        shuffle=task.get("shuffle", "full"),
        workers=task.get("workers"),
    )


def _import_all() -> None:
    """What `stream` and its first batch import."""
    import pandas  # noqa: F401 - pyarrow imports it as soon as it is given an array
    import torch  # noqa: F401

    import t4sa_data.streaming.loader  # noqa: F401
    from t4sa_data.streaming.images import FastDecoder

    FastDecoder()


def child_first(task: dict[str, Any]) -> dict[str, float]:
    """Seconds to the first batch, or to the first one after a state was loaded."""
    start = time.perf_counter()
    _import_all()
    imported, cpu = time.perf_counter(), time.process_time()
    made = _stream(task)
    opened = time.perf_counter()
    if task["resume"]:
        _load_middle(made)
    loaded = time.perf_counter()
    next(iter(made))
    end = time.perf_counter()
    return {
        "imports": imported - start,
        "open": opened - imported,
        "load": loaded - opened,
        "batch": end - loaded,
        "total": end - imported,
        "resume": end - opened,
        "cpu": time.process_time() - cpu,
    }


def _load_middle(made: Any) -> None:
    """Load the state of the middle of an epoch. The file of a run has this; here it is made of the loader's own, for
    which the plan's digest is computed: as it is for any state that is loaded into a fresh loader."""
    from t4sa_data.streaming.state import make_state

    digest = made.plan_digest
    made._digest = None  # a fresh loader has not computed it
    state = make_state(
        content_digest=made.selection.content_digest,
        plan_digest=digest,
        seed=0,
        epoch=0,
        batch_size=BATCH,
        batches=len(made) // 2,
    )
    made.load_state_dict(state)


def child_epoch(task: dict[str, Any]) -> dict[str, float]:
    """Wall and processor seconds of whole epochs, their starts included."""
    _import_all()
    made, count = _stream(task), 0
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(task["epochs"]):
        for batch in made:
            count += len(batch["label"])
    return {"wall": (time.perf_counter() - wall) / count, "cpu": (time.process_time() - cpu) / count}


def child_memory(task: dict[str, Any]) -> dict[str, Any]:
    """Peaks of this process and of its workers, and what all of them hold (PSS) on the way through an epoch, MB."""
    made, marks, workers = _stream(task), [], [0.0]
    stop = min(len(made), task["batches"] or len(made))
    every = max(1, stop // 20)
    for number, _ in enumerate(made, 1):
        if number % every == 0 or number == 1:
            marks.append(_together())
            workers += [memory.read_process(pid)[0] for pid in _spawned()]
        if number == stop:
            break
    return {"main": memory.read_process(os.getpid())[0], "worker": max(workers), "marks": marks}


def child_torch(task: dict[str, Any]) -> dict[str, Any]:
    """The same of processes that import torch and wait."""
    import torch  # noqa: F401

    count = task["processes"]
    idle = [subprocess.Popen([sys.executable, "-c", "import torch; input()"], stdin=-1) for _ in range(count)]
    time.sleep(2 + 4 * count)  # torch is imported by then
    made = {"main": memory.read_process(os.getpid())[0], "marks": [_together()]}
    made["worker"] = max([0.0, *(memory.read_process(process.pid)[0] for process in idle)])
    for process in idle:
        process.communicate(b"\n")
    return made


def _spawned() -> list[int]:
    """This process's children, but for Python's tracker of resources."""
    found = memory.children_of(os.getpid())
    return [pid for pid in found if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _together() -> float:
    return sum(memory.read_process(pid)[2] for pid in (os.getpid(), *_spawned()))


CHILDREN = {"first": child_first, "epoch": child_epoch, "memory": child_memory, "torch": child_torch}


# In the parent.


def run(kind: str, **task: Any) -> dict[str, Any]:
    """Run a child in a process of its own; what it printed."""
    print(f"{kind} {task}", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--child", kind, json.dumps(task, default=str)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rounds_of(num: int, tasks: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Run all tasks in turn, `num` times."""
    made: dict[str, list[dict[str, Any]]] = {name: [] for name in tasks}
    for _ in range(num):
        for name, task in tasks.items():
            made[name].append(run(**task))
    return made


def verdict(is_met: bool) -> str:
    """In a word."""
    return "met" if is_met else "missed"


def report_first(work: Path, num: int, rounds: int) -> str:
    """First batch and resuming."""
    import synthetic  # not for children: it imports much

    folder, start = work / "real", time.perf_counter()
    num_bytes = synthetic.make_tiny(folder, num)
    made_in = time.perf_counter() - start
    tasks = {
        f"decode={decode}, {'resumed in the middle' if resume else 'from the beginning'}": {
            "kind": "first",
            "path": folder / "t4sa-wds",
            "config": "b-t4sa",
            "decode": decode,
            "resume": resume,
        }
        for decode in (None, "cpu")
        for resume in (False, True)
    }
    rounds_of(1, tasks)  # warms the page cache
    rows, goals = [], []
    for name, runs in rounds_of(rounds, tasks).items():
        column = {key: [one[key] * 1e3 for one in runs] for key in runs[0]}
        counted = column["resume"] if tasks[name]["resume"] else column["total"]
        rows.append(
            [name, *(common.spread(column[k], 0) for k in ("open", "load", "batch", "cpu")), common.spread(counted, 0)]
        )
        is_met = statistics.median(counted) < GOAL_SECONDS * 1e3
        goals.append(f"Goal of {GOAL_SECONDS} s, {name}: {verdict(is_met)} ({common.spread(counted, 0)} ms).")
    header = ["ms", "stream(...)", "load_state_dict", "first batch", "processor, all of it", "counted"]
    imports = common.spread([one["imports"] for runs in rounds_of(1, tasks).values() for one in runs], 1)
    return (
        f"Input: {num:,} samples of {num_bytes / num / 1e3:.1f} KB in tar shards, made in {made_in:.0f} s; batches of "
        f"{BATCH}, {rounds} rounds, each a fresh process. Counted: without imports ({imports} s); resuming: "
        f"`load_state_dict` (making such a state included) and the first batch.\n\n"
        f"{common.markdown_table(header, rows)}\n\n" + "\n".join(f"- {goal}" for goal in goals)
    )


def report_memory(work: Path, layers: dict[str, int]) -> str:
    """Memory at all rows, beside that at a few and that of torch alone."""
    import synthetic  # not for children: it imports much

    full, few = work / "all", work / "few"
    synthetic.make_shared(full, layers)
    synthetic.make_shared(few, dict.fromkeys(layers, BATCH * 40))
    bare = {count: run("torch", processes=count) for count in (0, 4)}
    rows, goals = [], []
    for count, workers in ((0, 2), (4, "processes:4")):
        for more in MEMORY_CASES:
            task = {"config": "t4sa", "workers": workers, "batches": 400} | more
            part = "whole epoch" if not task["batches"] else f"{task['batches'] * BATCH:,} samples"
            how = ", ".join(f"{key}={more[key]}" for key in ("decode", "shuffle") if key in more)
            name = f"{f'{count} worker processes' if count else 'threads'}, {how}, {part}"
            seen, small = (run("memory", path=folder / "t4sa", **task) for folder in (full, few))
            peak, above = _peak(seen), _peak(seen) - _peak(bare[count])
            marks = seen["marks"][1:] or seen["marks"]
            fifth = max(1, len(marks) // 5)
            early, late = statistics.median(marks[:fifth]), statistics.median(marks[-fifth:])
            values = (seen["main"], seen["worker"], peak, above, peak - _peak(small), early, late)
            rows.append([name, *(f"{value:.0f}" for value in values)])
            goals.append(f"Goal of {GOAL_MB} MB above torch, {name}: {verdict(above < GOAL_MB)} ({above:.0f} MB).")
    header = ["MB", "main's peak", "largest worker's peak", "peak of all", "above torch", "above few rows"]
    said = ", ".join(f"{one} workers: {_peak(seen):.0f}" for one, seen in bare.items())
    return (
        f"Input: a table of {sum(layers.values()):,} rows in three layers (few rows: {BATCH * 40 * len(layers):,}), "
        f"batches of {BATCH}, pictures of 224 px where they are decoded. Peak of all: the process's own (`VmHWM`), or "
        f"the sum of PSS with workers. Torch: processes that import it and wait ({said} MB).\n\n"
        f"{common.markdown_table([*header, 'PSS of all, first fifth', 'last fifth'], rows)}\n\n"
        + "\n".join(f"- {goal}" for goal in goals)
    )


def _peak(seen: dict[str, Any]) -> float:
    """Of one process the kernel's own word; of several the largest sum of PSS."""
    return max(seen["marks"]) if seen["worker"] else max(seen["main"], *seen["marks"])


def report_scale(work: Path, sizes: Sequence[int], rounds: int) -> str:
    """Time per sample by the number of rows."""
    import synthetic  # not for children: it imports much

    tasks = {}
    for num in sizes:
        synthetic.make_shared(work / f"rows-{num}", {"b-t4sa": num})
        epochs = max(1, 100_000 // num)
        tasks[f"{num:,}"] = {
            "kind": "epoch",
            "path": work / f"rows-{num}" / "t4sa",
            "config": "b-t4sa",
            "decode": None,
            "epochs": epochs,
        }
    seen = rounds_of(rounds, tasks)
    base = seen[f"{sizes[1]:,}"]
    rows = []
    for name, runs in seen.items():
        columns = {key: [one[key] * 1e6 for one in runs] for key in ("wall", "cpu")}
        ratio = [one["cpu"] / other["cpu"] for one, other in zip(runs, base, strict=True)]
        rows.append([name, *(common.spread(columns[k], 1) for k in ("wall", "cpu")), common.spread(ratio)])
    is_met = statistics.median(ratio) <= GOAL_GROWTH
    header = ["rows", "wall, µs a sample", "processor, µs a sample", f"processor, beside {sizes[1]:,} rows"]
    return (
        f"Input: tables of so many rows; decode=None, batches of {BATCH}, whole epochs with their starts, at least "
        f"100,000 samples; {rounds} rounds.\n\n{common.markdown_table(header, rows)}\n\n"
        f"- Goal: a sample costs no more at {sizes[-1]:,} rows: {verdict(is_met)} ({common.spread(ratio)}).\n"
        "- With 1,000 rows an epoch's start (threads, files) is shared by as few."
    )


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CHILDREN[sys.argv[2]](json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=0, help="rows of the largest table (default: the published ones)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", default="first,memory,scale", help="which of the three")
    parser.add_argument("--work", type=Path, help="where releases go (default: a temporary folder)")
    chosen = parser.parse_args()
    machine = common.describe_machine(("t4sa-data", "torch", "torchcodec", "torchvision", "pyarrow", "numpy"))
    most = chosen.rows or ALL_ROWS
    share = {name: num * most // ALL_ROWS for name, num in LAYER_SHARES.items()}
    sizes = [num for num in (1_000, 10_000, 100_000, ROWS) if num < most] + [most]
    parts = []
    with tempfile.TemporaryDirectory(prefix="t4sa-scale-", dir=chosen.work) as name:
        work = Path(name)
        if "first" in chosen.parts:
            parts.append(f"First batch and resume.\n\n{report_first(work, min(ROWS, most), chosen.rounds)}")
        if "memory" in chosen.parts:
            parts.append(f"Memory.\n\n{report_memory(work, share)}")
        if "scale" in chosen.parts:
            parts.append(f"Time per sample.\n\n{report_scale(work, sizes, max(1, chosen.rounds - 2))}")
    command = " ".join(["python benchmarks/loader_scale.py", *sys.argv[1:]])
    print(f"Command: `{command}`\n\n{machine}\n\n" + "\n\n".join(parts))


if __name__ == "__main__":
    main()
