"""How fast is `t4sa prepare`, beside what the machine allows and beside peers on the same samples?

    python benchmarks/build.py [--images 3000] [--rounds 5] [--workers 2] [--photos DIR]

Every contestant is a process of its own with a fresh output folder, all read the same tar from a warm page cache, and
they run in turn (A B C ... A B C ...), because other work on the machine comes and goes. Ratios are taken inside a
round. Four views of each, because a build of 470,586 images does not feel a second of start-up and one of 3,000 does:

- whole process: from `exec` to exit, Python's start and imports included;
- own work: without these (`prepare`: the sum of the stages in `build/times.json`);
- each further image: (images - few) / (seconds for images - seconds for few), few being a tenth;
- processor seconds of the whole process and its children: the view that other people's load disturbs least.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common

RECORDS = "records.jsonl"
"""Beside the input: key -> what peers write beside the image, ready made for them."""
CHUNK = 16
"""Images of one task of the limit."""
SHARDS = 8
"""Shards that everybody cuts the input into (B-T4SA has 80): with one of them, one process would wait for the other."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to do the work, as a command."""

    name: str
    command: Callable[[Path, Path, int], list[str]]
    """(RAW, OUT, workers) -> argument list."""
    processes: str = "all"
    """`all` workers, or `1`."""


@dataclass(kw_only=True)
class Times:
    """Seconds of one contestant, one value a round."""

    whole: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Processor seconds, children included."""
    own: list[float] = field(default_factory=list)
    few: list[float] = field(default_factory=list)
    """Whole process on a tenth of the images."""
    few_cpu: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    output_bytes: int = 0


def differences(many: Sequence[float], few: Sequence[float]) -> list[float]:
    """Seconds that the further images took, per round; empty where start-up drowns them."""
    seconds = [a - b for a, b in zip(many, few, strict=True)]
    return seconds if min(seconds) > 0.1 * min(many) else []


def _prepare(formats: str) -> Callable[[Path, Path, int], list[str]]:
    def command(raw: Path, out: Path, workers: int) -> list[str]:
        start = [sys.executable, "-m", "t4sa_data.cli", "prepare", str(raw), "--out", str(out)]
        size = str(_shard_bytes(raw))
        return [*start, "--workers", str(workers), "--formats", formats, "--configs", "b-t4sa", "--shard-size", size]

    return command


def _self(name: str) -> Callable[[Path, Path, int], list[str]]:
    def command(raw: Path, out: Path, workers: int) -> list[str]:
        return [sys.executable, __file__, "--contestant", name, str(raw), str(out), str(workers)]

    return command


LIMIT = Contestant(name="limit: read, sha256, decode, pHash", command=_self("limit"))
PREPARE = (
    Contestant(name="prepare --formats parquet", command=_prepare("parquet")),
    Contestant(name="prepare --formats wds", command=_prepare("wds")),
    Contestant(name="prepare --formats parquet,wds", command=_prepare("parquet,wds")),
)
PEERS = (
    Contestant(name="webdataset ShardWriter", command=_self("webdataset"), processes="1"),
    Contestant(name="webdataset ShardWriter, one a process", command=_self("webdataset-parallel")),
    Contestant(name="datasets from_generator + to_parquet", command=_self("datasets"), processes="1"),
)


# The contestants that run in this file's own process.


def run_limit(raw: Path, _out: Path, workers: int) -> None:
    """Read, hash, decode and hash perceptually every image of the tar; write nothing."""
    from t4sa_data.pixels import inspect_image  # noqa: F401 - imported before the fork: a limit pays for it once
    from t4sa_data.shards import walk

    spans = [(m.offset, m.length) for m in walk(_archive(raw)) if m.kind == "file"]
    tasks = [(str(_archive(raw)), spans[i : i + CHUNK]) for i in range(0, len(spans), CHUNK)]
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, multiprocessing.get_context(method)) as pool:
        assert sum(pool.map(_inspect_spans, tasks)) == len(spans)


def _inspect_spans(task: tuple[str, list[tuple[int, int]]]) -> int:
    from t4sa_data.pixels import inspect_image

    path, spans = task
    with Path(path).open("rb", buffering=0) as file:
        for offset, length in spans:
            file.seek(offset)
            data = file.read(length)
            hashlib.sha256(data).digest()
            inspect_image(data)
    return len(spans)


def run_webdataset(raw: Path, out: Path, _workers: int) -> None:
    """Write image, JSON and class of every sample with webdataset's ShardWriter, as its manual shows."""
    _write_webdataset((raw, out, 0, 1))


def run_webdataset_parallel(raw: Path, out: Path, workers: int) -> None:
    """The same by several processes, each writing every n-th sample to shards of its own."""
    import webdataset  # noqa: F401 - imported before the fork, as in the limit

    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    with ProcessPoolExecutor(workers, multiprocessing.get_context(method)) as pool:
        list(pool.map(_write_webdataset, [(raw, out, rank, workers) for rank in range(workers)]))


def _write_webdataset(task: tuple[Path, Path, int, int]) -> None:
    import webdataset

    raw, out, rank, size = task
    out.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(out / f"train-{rank}-%05d.tar"), maxsize=_shard_bytes(raw), verbose=0) as writer:
        for key, image, record in _read_samples(raw, rank, size):
            writer.write({"__key__": key, "jpg": image, "json": record, "cls": record["label"]})


def run_datasets(raw: Path, out: Path, _workers: int) -> None:
    """`Dataset.from_generator` with an Image feature, then `to_parquet`: the usual way, through its Arrow cache."""
    import datasets

    datasets.disable_progress_bars()
    names = datasets.ClassLabel(names=["negative", "neutral", "positive"])
    probabilities = {name: datasets.Value("float32") for name in names.names}
    strings = {name: datasets.Value("string") for name in ("key", "split", "text", "sha256")}
    features = datasets.Features({"image": datasets.Image(), "label": names, **strings, **probabilities})

    def rows() -> Iterator[dict[str, Any]]:
        for key, image, record in _read_samples(raw, 0, 1):
            yield {"image": {"bytes": image, "path": f"{key}.jpg"}, **{n: record[n] for n in features if n != "image"}}

    made = datasets.Dataset.from_generator(rows, features=features, cache_dir=str(out / "cache"))
    made.to_parquet(str(out / "train.parquet"))


def _archive(raw: Path) -> Path:
    from t4sa_data.testing.archive import IMAGES_NAME

    return raw / IMAGES_NAME


def _shard_bytes(raw: Path) -> int:
    return _archive(raw).stat().st_size // SHARDS


def _read_samples(raw: Path, rank: int, size: int) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Every `size`-th sample of the tar from number `rank` on: key, image, record."""
    with tarfile.open(_archive(raw)) as tar, (raw.parent / f"{raw.name}-{RECORDS}").open() as lines:
        for number, (member, line) in enumerate(zip(tar, lines, strict=True)):
            if number % size == rank:
                record = json.loads(line)
                file = tar.extractfile(member)
                assert file is not None and member.name.endswith(f"{record['key']}.jpg")
                yield record["key"], file.read(), record


CHILDREN = {
    "limit": run_limit,
    "webdataset": run_webdataset,
    "webdataset-parallel": run_webdataset_parallel,
    "datasets": run_datasets,
}
IMPORTS = {"limit": "t4sa_data.pixels", "webdataset-parallel": "webdataset"}


def run_child(name: str, raw: Path, out: Path, workers: int) -> None:
    """Be one contestant; prints the seconds of the work itself."""
    module = IMPORTS.get(name, name)
    __import__(module)
    start = time.perf_counter()
    CHILDREN[name](raw, out, workers)
    print(json.dumps({"own": time.perf_counter() - start}))


# Running them.


def make_input(raw: Path, num: int, photos: Path) -> tuple[str, int]:
    """Write RAW and the peers' records; what the images are, and their bytes."""
    images, what = common.photo_images(num, photos)
    common.write_official(raw, images, num, num, num)
    num_bytes = 0
    with (raw.parent / f"{raw.name}-{RECORDS}").open("w") as file:
        for sample in common.make_samples(common.photo_images(num, photos)[0], num, num, num):
            num_bytes += len(sample.image)
            record = {
                "label": sample.label,
                "key": sample.key,
                "split": sample.split,
                **dict(zip(("negative", "neutral", "positive"), sample.probabilities, strict=True)),
                "text": sample.text,
                "sha256": hashlib.sha256(sample.image).hexdigest(),
            }
            file.write(json.dumps(record) + "\n")
    return what, num_bytes


def run_once(contestant: Contestant, raw: Path, out: Path, workers: int) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole process, and what is to be said of it; `out` is empty before and gone after."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start, cpu = time.perf_counter(), _children_cpu()
    ended = subprocess.run(contestant.command(raw, out, workers), capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    if ended.returncode:
        sys.exit(f"{contestant.name} failed:\n{ended.stderr}")
    if contestant in PREPARE:
        stages = json.loads((out / "build" / "times.json").read_text())["seconds"]
        said = {"own": sum(stages.values()), "stages": stages}
    else:
        said = json.loads(ended.stdout.splitlines()[-1])
    said["cpu"] = _children_cpu() - cpu
    kept = [p for p in out.rglob("*") if p.is_file() and not {"build", "cache"} & set(p.relative_to(out).parts)]
    said["output_bytes"] = sum(path.stat().st_size for path in kept)
    shutil.rmtree(out, ignore_errors=True)
    return seconds, said


def _children_cpu() -> float:
    times = os.times()
    return times.children_user + times.children_system


def race(work: Path, contestants: Sequence[Contestant], rounds: int, workers: int) -> dict[str, Times]:
    """Run all contestants in turn, `rounds` times, on `work/many` and `work/few`."""
    times = {contestant.name: Times() for contestant in contestants}
    for path in work.rglob("*.tar"):
        path.read_bytes()  # into the page cache
    for number in range(rounds):
        for contestant in contestants:
            mine = times[contestant.name]
            seconds, said = run_once(contestant, work / "many", work / "out", workers)
            mine.whole.append(seconds)
            mine.own.append(said["own"])
            mine.cpu.append(said["cpu"])
            mine.stages.append(said.get("stages", {}))
            mine.output_bytes = said["output_bytes"]
            seconds_few, said = run_once(contestant, work / "few", work / "out", workers)
            mine.few.append(seconds_few)
            mine.few_cpu.append(said["cpu"])
            print(f"round {number + 1}/{rounds}: {contestant.name}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return times


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median and range of ours / theirs, round by round."""
    return common.spread([a / b for a, b in zip(ours, theirs, strict=True)]) if ours and theirs else "-"


def report(
    times: dict[str, Times], contestants: Sequence[Contestant], num: int, few: int, num_bytes: int, workers: int
) -> str:
    """The tables."""
    limit = times[LIMIT.name]
    wall, processor = [], []
    for contestant in contestants:
        t = times[contestant.name]
        rate, further = num / statistics.median(t.whole), differences(t.whole, t.few)
        wall.append(
            [
                contestant.name,
                workers if contestant.processes == "all" else contestant.processes,
                common.spread(t.whole),
                f"{rate:.0f}",
                f"{rate * num_bytes / num / 1e6:.0f}",
                ratios(limit.whole, t.whole),
                common.spread(t.own),
                ratios(limit.own, t.own),
                f"{(num - few) / statistics.median(further):.0f}" if further else "-",
                ratios(differences(limit.whole, limit.few), further),
            ]
        )
        more = differences(t.cpu, t.few_cpu)
        each = f"{1e3 * statistics.median(more) / (num - few):.2f}" if more else "-"
        ratio = ratios(differences(limit.cpu, limit.few_cpu), more)
        processor.append([contestant.name, common.spread(t.cpu), ratios(limit.cpu, t.cpu), each, ratio])
    header = ["wall time", "processes", "whole process, s", "images/s", "MB/s of images", "of the limit"]
    header += ["own work, s", "of the limit", "each further image: images/s", "of the limit"]
    parts = [common.markdown_table(header, wall), ""]
    header = ["processor time", "whole process, s", "of the limit", "each further image, ms", "of the limit"]
    parts += [common.markdown_table(header, processor), "", stage_table(times), "", write_table(times, num)]
    return "\n".join(parts)


def stage_table(times: dict[str, Times]) -> str:
    """Where `prepare` spends its own seconds."""
    stages = list(times[PREPARE[0].name].stages[0])
    rows = [
        [c.name, *(f"{statistics.median([s[stage] for s in times[c.name].stages]):.2f}" for stage in stages)]
        for c in PREPARE
    ]
    return common.markdown_table(["stage seconds (median)", *stages], rows)


def write_table(times: dict[str, Times], num: int) -> str:
    """Writing alone: `prepare`'s last pass beside peers, which do nothing else."""
    peer = times[PEERS[1].name]
    rows = []
    for contestant in (*PREPARE, *PEERS):
        t = times[contestant.name]
        seconds = [s["write"] for s in t.stages] if contestant in PREPARE else t.own
        middle = statistics.median(seconds)
        speed = [f"{num / middle:.0f}", f"{t.output_bytes / middle / 1e6:.0f}"]
        rows.append([contestant.name, common.spread(seconds), *speed, ratios(peer.own, seconds)])
    header = ["writing alone", "s", "images/s", "MB/s written", "speed beside webdataset, parallel"]
    return common.markdown_table(header, rows)


NOTES = """\
All read from a warm page cache, on one disk. Peers neither decode nor verify, nor do they fsync or hash what they
write; `prepare` decodes every image once, hashes archive, images (twice) and shards, writes in release order, and
fsyncs. Fixed costs (Python's start, imports, worker processes) weigh on so few images; "each further image" is without.
"""


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000, help="images of the large input; a tenth in the small one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="processes of each contestant")
    parser.add_argument("--photos", type=Path, default=common.PHOTOS, help="folder of JPEGs; drawn pictures without")
    parser.add_argument("--work", type=Path, help="where inputs and outputs go (default: a temporary folder)")
    parser.add_argument("--contestant", nargs=4, metavar=("NAME", "RAW", "OUT", "WORKERS"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contestant:
        name, raw, out, workers = chosen.contestant
        run_child(name, Path(raw), Path(out), int(workers))
        return
    contestants = (LIMIT, *PREPARE, *PEERS)
    few = max(10, chosen.images // 10)
    machine = common.describe_machine()
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as name:
        work = Path(name)
        what, num_bytes = make_input(work / "many", chosen.images, chosen.photos)
        make_input(work / "few", few, chosen.photos)
        times = race(work, contestants, chosen.rounds, chosen.workers)
    command = " ".join(["python benchmarks/build.py", *sys.argv[1:]])
    size = f"{chosen.images:,} images, {num_bytes / 1e6:.0f} MB"
    print(f"Command: `{command}`\n\n{machine}\nInput: {size}: {what}; {chosen.rounds} rounds.\n")
    print(report(times, contestants, chosen.images, few, num_bytes, chosen.workers))
    print(f"\n{NOTES}")


if __name__ == "__main__":
    main()
