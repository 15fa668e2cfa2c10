"""What does it take when the archive passes by, beside fetching it first?

    python benchmarks/passing.py [--images 3000] [--rate 25] [--rounds 5]

A server of its own process on loopback sends the image archive at most at `--rate` MB/s, then as fast as it goes. Both
ways end with the same release, `b-t4sa-256` in tar shards: `t4sa get` lets the archive pass by; the other one is
`t4sa download`, then `t4sa prepare`. Whole processes, in turn; disk is what RAW and DIR hold beyond the tables, sampled
while they run, at most.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import common
from clients import PASSWORD, USER
from download import FILENAME

CONFIG = ["--configs", "b-t4sa-256", "--formats", "wds"]
SHARD_BYTES = 4_000_000
"""Of small pictures: as many shards as a release of the real size has."""


@dataclass(kw_only=True)
class Seen:
    """What was seen of one way, a value a round."""

    seconds: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)


def run(commands: list[list[str]], folder: Path, url: str, seen: Seen) -> None:
    """Go one way once."""
    environment = {**os.environ, "HOME": str(folder), "T4SA_HOME": str(folder / "home"), "T4SA_BASE_URL": url}
    environment |= {"T4SA_USER": USER, "T4SA_PASSWORD": PASSWORD, "PYTHONPATH": str(common.ROOT)}
    start, most = time.perf_counter(), 0
    before = used(folder)
    for command in commands:
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
            while process.poll() is None:
                most = max(most, used(folder) - before)
                time.sleep(0.05)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{(folder / 'log').read_text()[-2000:]}")
    seen.seconds.append(time.perf_counter() - start)
    seen.disk.append(most / 1e6)


def used(folder: Path) -> int:
    """Bytes of all files below a folder; those that go while it is counted do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


WAYS = {
    "passes by": [["-c", "import t4sa_data.release as r; r.SHARD_BYTES = int(__import__('sys').argv.pop(1)); "
                   "from builders.get import app; app(__import__('sys').argv[1:])",
                   str(SHARD_BYTES), "--yes", "--workers", "2", *CONFIG]],
    "fetched, then made": [["-m", "t4sa_data.cli", "download", "b-t4sa"],
                           ["-c", "from builders.cli import app; app()", "home/raw", "--workers", "2",
                            "--shard-size", str(SHARD_BYTES), *CONFIG]],
}  # fmt: skip


def race(work: Path, official: Path, rate: float, rounds: int) -> dict[str, Seen]:
    """Both ways in turn, `rounds` times."""
    seen = {name: Seen() for name in WAYS}
    command = [sys.executable, str(Path(__file__).with_name("download.py")), "--serve", str(official / FILENAME)]
    with subprocess.Popen([*command, str(rate)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
            for number in range(rounds):
                for name, commands in WAYS.items():
                    folder = work / "way"
                    raw = folder / "home" / "raw"
                    raw.mkdir(parents=True)
                    for path in official.iterdir():
                        if path.name != FILENAME:
                            shutil.copy(path, raw)
                    here = [[word.replace("home/raw", str(raw)) for word in one] for one in commands]
                    run(here, folder, url, seen[name])
                    if not list(folder.glob("home/t4sa-wds/b-t4sa-256/train-*.tar")):
                        sys.exit(f"{name}: there is no release")
                    shutil.rmtree(folder)
                    print(f"round {number + 1}/{rounds}: {name}: {seen[name].seconds[-1]:.1f} s", file=sys.stderr)
        finally:
            server.terminate()
    return seen


def report(seen: dict[str, Seen], num_bytes: int, num_images: int) -> str:
    """The table."""
    base = seen["fetched, then made"]
    rows = []
    for name, one in seen.items():
        time_ratio = common.spread([a / b for a, b in zip(one.seconds, base.seconds, strict=True)])
        median = statistics.median(one.seconds)
        disk = statistics.median(one.disk)
        rows.append(
            [name, common.spread(one.seconds, 1), f"{num_images / median:.0f}", time_ratio, f"{disk:.0f}",
             f"{disk * 1e6 / num_bytes:.2f}"]
        )  # fmt: skip
    header = ["the archive", "seconds", "images/s", "of the other's time", "disk at most, MB", "of the archive"]
    return common.markdown_table(header, rows)


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=25.0, help="MB/s of the throttled server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=Path, default=common.PHOTOS)
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder)")
    chosen = parser.parse_args()
    machine = common.describe_machine(("t4sa-data", "pillow", "requests"))
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as name:
        official = Path(name) / "official"
        images, what = common.photo_images(chosen.images, chosen.photos)
        common.write_official(official, images, chosen.images, chosen.images, chosen.images)
        num_bytes = (official / FILENAME).stat().st_size
        command = " ".join(["python benchmarks/passing.py", *sys.argv[1:]])
        print(f"Command: `{command}`\n\n{machine}\nInput: {chosen.images:,} images, {num_bytes / 1e6:.0f} MB: {what}; "
              f"{chosen.rounds} rounds.\n")  # fmt: skip
        for rate, words in ((chosen.rate * 1e6, f"at most {chosen.rate:.0f} MB/s"), (0.0, "unthrottled")):
            seen = race(Path(name), official, rate, chosen.rounds)
            print(f"Server: {words}.\n\n{report(seen, num_bytes, chosen.images)}\n", flush=True)


if __name__ == "__main__":
    main()
