"""How much memory does `t4sa prepare` take, and does it grow with the input?

    python benchmarks/memory.py            # 1x and 10x images of about 110 KB
    python benchmarks/memory.py --full     # B-T4SA's numbers of rows with tiny images: minutes, some GB of disk
    python benchmarks/memory.py --dedup    # near-duplicate groups of 470,586 and 1,473,394 hashes

Each build is a process of its own, in both formats and all configs that its input allows. Peaks are the kernel's own
(`VmHWM` of each process, read while it lives; `ru_maxrss` of the largest at its end); "all together" is the sum of PSS
(shared pages counted once) of the process and its workers, sampled. The goal of the full shape is below 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common

STAGE = "stage: "
"""Starts the lines by which a build tells that it enters a stage."""
SAMPLE_SECONDS = 0.25
GOAL_MB = 1500


@dataclass(kw_only=True)
class Stage:
    """What was seen while a build was in one stage."""

    name: str
    seconds: float = 0.0
    main: float = 0.0
    """Largest resident size of the main process, MB."""
    worker: float = 0.0
    """Largest resident size of a worker, MB."""
    together: float = 0.0
    """Largest sum of PSS over all processes, MB."""


@dataclass(kw_only=True)
class Peaks:
    """What one build took."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Processor seconds, workers included: what other people's load disturbs least."""
    main: float = 0.0
    """MB, `VmHWM`."""
    worker: float = 0.0
    """MB, `VmHWM` of the largest worker."""
    together: float = 0.0
    """MB, PSS."""
    largest: float = 0.0
    """MB, `ru_maxrss`: the largest process, by the kernel's last word."""
    stages: list[Stage] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    """`build/times.json`."""


# In the child.


def run_prepare(raw: Path, out: Path, workers: int, configs: str, shard_bytes: int) -> None:
    """Build, and tell the stages on standard error."""
    from builders.prepare import prepare
    from builders.run import PrepareConfig

    def tell(stage: str) -> None:
        print(STAGE + stage, file=sys.stderr, flush=True)

    class Bar:
        def __init__(self, title: str) -> None:
            self._title = title
            tell(title)

        def update(self, _num: int) -> None:
            pass

        def close(self) -> None:
            tell({"inspect": "quarantine, groups, layers, plan", "write": "seal, ledger"}[self._title])

    tell("tables")
    config = PrepareConfig(
        raw=raw, out=out, workers=workers, configs=tuple(filter(None, configs.split(","))), shard_bytes=shard_bytes
    )
    prepare(
        config,
        say=lambda line: tell("index") if line.startswith("Walking") else None,
        bar=lambda title, _total: Bar(title),
    )


def run_dedup(num: int) -> None:
    """Group `num` hashes, four fifths random, one fifth in clusters with a hot spot; prints seconds."""
    import numpy as np

    from builders import dedup

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, num, dtype=np.uint64)
    members = num // 5
    centres = hashes[rng.integers(members, num, members // 4)]
    flips = np.zeros(members, dtype=np.uint64)
    for _ in range(5):  # up to five bits from the centre, so at most ten from each other
        flips ^= np.uint64(1) << rng.integers(0, 64, members, dtype=np.uint64)
    hashes[:members] = centres[rng.integers(0, len(centres), members)] ^ flips
    hashes[: num // 1000] = hashes[-1]  # one picture that everybody posts
    rng.shuffle(hashes)
    dedup.group(hashes[:5000])  # compiles
    start, cpu = time.perf_counter(), time.process_time()
    groups = dedup.group(hashes)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "groups": len(np.unique(groups))}))


# In the parent.


def read_process(pid: int) -> tuple[float, float, float]:
    """Peak resident size, resident size and PSS of a process in MB; zeros where it is gone or this is not Linux."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        pss = next(line for line in rollup if line.startswith("Pss:"))
        values = (status["VmHWM"], status["VmRSS"], pss.split(":")[1])
    except (OSError, KeyError, StopIteration):
        return 0.0, 0.0, 0.0
    peak, now, share = (int(value.split()[0]) * 1024 / 1e6 for value in values)
    return peak, now, share


def children_of(pid: int) -> list[int]:
    """Processes started by a process (Linux; empty elsewhere)."""
    try:
        return [int(c) for p in Path(f"/proc/{pid}/task").glob("*/children") for c in p.read_text().split()]
    except OSError:
        return []


def watch(process: subprocess.Popen[str], peaks: Peaks) -> None:
    """Sample a running build until it ends, and listen to the stages it tells."""
    peaks.stages.append(Stage(name="start"))
    entered = time.perf_counter()

    def listen() -> None:
        nonlocal entered
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(STAGE):
                now = time.perf_counter()
                peaks.stages[-1].seconds, entered = now - entered, now
                peaks.stages.append(Stage(name=line.removeprefix(STAGE).strip()))
            else:
                sys.stderr.write(line)

    listener = threading.Thread(target=listen)
    listener.start()
    while process.poll() is None:
        stage = peaks.stages[-1]
        main, main_now, together = read_process(process.pid)
        workers = [read_process(pid) for pid in children_of(process.pid)]
        stage.main, stage.worker = max(stage.main, main_now), max([stage.worker, *(w[1] for w in workers)])
        together += sum(w[2] for w in workers)
        stage.together = max(stage.together, together)
        peaks.main, peaks.worker = max(peaks.main, main), max([peaks.worker, *(w[0] for w in workers)])
        peaks.together = max(peaks.together, together)
        time.sleep(SAMPLE_SECONDS)
    listener.join()
    peaks.stages[-1].seconds = time.perf_counter() - entered


def measure(arguments: list[str], out: Path | None = None) -> tuple[Peaks, dict[str, Any]]:
    """Run this file as a child; its peaks and what it printed."""
    peaks, start, before = Peaks(), time.perf_counter(), os.times()
    command = [sys.executable, __file__, "--child", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watch(process, peaks)
    peaks.seconds, after = time.perf_counter() - start, os.times()
    peaks.cpu = after.children_user + after.children_system - before.children_user - before.children_system
    said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}")
    if out is not None:
        peaks.times = json.loads((out / "build" / "times.json").read_text())["seconds"]
    if sys.platform != "win32":
        import resource

        peaks.largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6  # of all children so far
    return peaks, json.loads(said) if said else {}


def report(rows: list[tuple[str, Peaks]]) -> str:
    """The tables, in Markdown."""
    header = ["input", "seconds", "processor s", "main process, MB", "largest worker, MB", "all together (PSS), MB"]
    table = [
        [name, f"{p.seconds:.0f}", f"{p.cpu:.0f}", f"{p.main or p.largest:.0f}", f"{p.worker:.0f}", f"{p.together:.0f}"]
        for name, p in rows
    ]
    parts = [common.markdown_table(header, table)]
    for name, p in rows:
        stages = [
            [s.name, f"{s.seconds:.1f}", f"{s.main:.0f}", f"{s.worker:.0f}", f"{s.together:.0f}"] for s in p.stages
        ]
        parts += [f"\n{name}, by stage (largest sample, MB):\n"]
        parts += [common.markdown_table(["stage", "s", "main", "worker", "together"], stages)]
        parts += ["\nseconds by `build/times.json`: " + ", ".join(f"{k} {v:.1f}" for k, v in p.times.items())]
    return "\n".join(parts)


def run_sizes(work: Path, num: int, workers: int, photos: Path) -> str:
    """Memory at `num` images and at ten times as many."""
    rows = []
    for factor in (1, 10):
        raw, out = work / f"raw-{factor}x", work / f"out-{factor}x"
        images, what = common.photo_images(num * factor, photos)
        common.write_official(raw, images, num * factor, 3 * num * factor, 7 * num * factor)
        arguments = ["prepare", str(raw), str(out), str(workers), "", str(10**9)]
        rows.append((f"{factor}x: {num * factor:,} images", measure(arguments, out)[0]))
    return f"Input: {what}; three times as many TSV rows, seven times as many CSV rows.\n\n{report(rows)}"


def run_full(work: Path, workers: int) -> str:
    """Memory at the published numbers of rows, all configs, in as many image shards as 63 GB make."""
    from t4sa_data.catalog import PUBLISHED

    num, num_tweets, num_texts = 470_586, PUBLISHED["tweets"].total, 3_400_000
    raw = work / "raw"
    start = time.perf_counter()
    common.write_official(raw, common.tiny_images(num), num, num_tweets, num_texts)
    made = f"made in {time.perf_counter() - start:.0f} s"
    size = sum(path.stat().st_size for path in raw.iterdir())
    shard_bytes = next(raw.glob("*.tar")).stat().st_size // 64
    out = work / "out"
    peaks, _ = measure(["prepare", str(raw), str(out), str(workers), "", str(shard_bytes)], out)
    verdict = "met" if max(peaks.main, peaks.worker) < GOAL_MB else "missed"
    return (
        f"Input: {num:,} drawn images, {num_tweets:,} TSV rows, {num_texts:,} CSV rows, {size / 1e9:.2f} GB, {made}. "
        f"Goal of {GOAL_MB} MB for any process: {verdict}.\n\n{report([(f'{num:,} images, all configs', peaks)])}"
    )


def run_dedups() -> str:
    """Seconds and memory of the near-duplicate search alone."""
    rows = []
    for num in (470_586, 1_473_394):
        peaks, said = measure(["dedup", str(num)])
        peak = f"{peaks.main or peaks.largest:.0f}"
        rows.append([f"{num:,}", f"{said['seconds']:.1f}", f"{said['cpu']:.1f}", f"{said['groups']:,}", peak])
    return common.markdown_table(["hashes", "s", "processor s", "groups", "peak, MB"], rows)


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    if sys.argv[1:2] == ["--child"]:
        kind, *rest = sys.argv[2:]
        if kind == "dedup":
            run_dedup(int(rest[0]))
        else:
            run_prepare(Path(rest[0]), Path(rest[1]), int(rest[2]), rest[3], int(rest[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500, help="images of the 1x input")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--photos", type=Path, default=common.PHOTOS, help="folder of JPEGs; drawn pictures without")
    parser.add_argument("--work", type=Path, help="where inputs and outputs go (default: a temporary folder)")
    parser.add_argument("--full", action="store_true", help="the published numbers of rows")
    parser.add_argument("--dedup", action="store_true", help="the near-duplicate search alone")
    chosen = parser.parse_args()
    machine = common.describe_machine()
    if chosen.dedup:
        body = run_dedups()
    else:
        with tempfile.TemporaryDirectory(prefix="t4sa-memory-", dir=chosen.work) as name:
            work = Path(name)
            full = chosen.full
            body = (
                run_full(work, chosen.workers)
                if full
                else run_sizes(work, chosen.images, chosen.workers, chosen.photos)
            )
    command = " ".join(["python benchmarks/memory.py", *sys.argv[1:]])
    print(f"Command: `{command}`\n\n{machine}\n\n{body}")


if __name__ == "__main__":
    main()
