"""How fast are raw tweets collected, beside parsing the same JSON with orjson alone? One process, one thread.

`python benchmarks/collect.py [--tweets FILE] [--num N] [--rounds N]` prints Markdown for RESULTS.md. Tweets are those
of FILE, repeated under ids of their own; made up where it is absent. `--quick` shows that it runs.
"""

from __future__ import annotations

import argparse
import bz2
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT))

TWEETS = common.ROOT.parent / "shared" / "data" / "tweets" / "tweets_v11.jsonl"
"""Where raw tweets are looked for: a file beside the checkout."""
LIBRARIES = ("t4sa-data", "orjson", "pyarrow", "numpy")
GOAL = 0.7
"""Of the speed of orjson alone."""
FIRST_ID = 10**18


# In the child: each returns the number of tweets.


def parse(path: Path) -> int:
    """The limit: every line through orjson, and nothing else."""
    import orjson

    num = 0
    with opened(path) as file:
        for line in file:
            orjson.loads(line)
            num += 1
    return num


def rules(path: Path) -> int:
    """Reading and the rules, nothing kept."""
    from builders.collect import keep
    from builders.sources.tweets import read_tweets

    return sum(1 for _, tweet in read_tweets([path]) if keep(tweet) or True)


def collect(path: Path) -> int:
    """The stage as it is."""
    from builders.collecting import CollectConfig, run

    with tempfile.TemporaryDirectory(dir=path.parent) as out:
        return run(CollectConfig(files=(path,), out=Path(out))).seen.num_tweets


CONTESTANTS: dict[str, Callable[[Path], int]] = {"parse": parse, "rules": rules, "collect": collect}
NAMES = {"parse": "limit: orjson alone", "rules": "reading and rules", "collect": "t4sa collect"}


def opened(path: Path) -> io.BufferedReader:
    """The file's bytes, as one would open it."""
    raw: Any = bz2.BZ2File(path) if path.suffix == ".bz2" else io.FileIO(path)
    return io.BufferedReader(raw, 1 << 18)


def child(name: str, path: Path) -> None:
    """Print wall seconds, processor seconds, tweets; imports are done before, those of pyarrow's first array too."""
    import pyarrow as pa

    import builders.collecting  # noqa: F401

    pa.array([[""]])
    wall, processor = time.perf_counter(), time.process_time()
    num = CONTESTANTS[name](path)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - processor, num]))


# In the parent.


def templates(path: Path) -> tuple[list[dict[str, object]], str]:
    """Tweets to repeat, and what they are."""
    if path.is_file():
        with path.open("rb") as file:
            return [json.loads(line) for line in file], "real tweets"
    user = {f"field_{i}": f"value of field {i} of a user" for i in range(38)}
    made: list[dict[str, object]] = []
    for i in range(500):
        photo = {"type": "photo", "media_url_https": f"https://pbs.example/{i}.jpg", "indices": [1, 20], "sizes": user}
        entities = {"hashtags": [], "urls": [], "media": [photo] if i % 5 == 0 else []}
        made.append({"text": f"the words of tweet number {i}", "user": user, "lang": "en", "entities": entities})
    return made, "made-up tweets"


def write(path: Path, num: int, tweets: list[dict[str, object]]) -> None:
    """Write `num` tweets, each with an id of its own."""
    with path.open("w") as file:
        for i in range(num):
            ids = {"id": FIRST_ID + i, "id_str": str(FIRST_ID + i)}
            file.write(json.dumps(tweets[i % len(tweets)] | ids, separators=(",", ":")) + "\n")


def measure(path: Path, rounds: int) -> None:
    """Contestants in turn; print a table."""
    found: dict[str, list[list[float]]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name in CONTESTANTS:
            line = [sys.executable, __file__, "--child", name, "--tweets", str(path)]
            done = subprocess.run(line, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout))
    rows = []
    for name, times in found.items():
        ratios = [[base[k] / own[k] for base, own in zip(found["parse"], times, strict=True)] for k in (0, 1)]
        speed = times[0][2] / statistics.median(own[0] for own in times)
        row = [NAMES[name], common.spread([own[0] for own in times]), common.spread([own[1] for own in times])]
        rows.append([*row, f"{speed:,.0f}", *map(common.spread, ratios)])
    header = [f"`{path.name}`", "wall s", "processor s", "tweets/s", "of the limit, wall", "of the limit, processor"]
    print(common.markdown_table(header, rows), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tweets", type=Path, default=TWEETS)
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, default=None, help="folder for the input")
    parser.add_argument("--child", choices=CONTESTANTS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.tweets)
        return
    num, rounds = (2000, 1) if args.quick else (args.num, args.rounds)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        tweets, what = templates(args.tweets)
        plain = Path(folder) / "tweets.jsonl"
        write(plain, num, tweets)
        size = plain.stat().st_size
        print(f"Goal: {GOAL} of the speed of orjson alone on the same file.\n")
        print(common.describe_machine(LIBRARIES))
        print(f"Input: {num:,} {what}, {size / 1e6:,.0f} MB, {size / num:,.0f} bytes each; {rounds} rounds.\n")
        measure(plain, rounds)
        packed = Path(folder) / "tweets.jsonl.bz2"
        packed.write_bytes(bz2.compress(plain.read_bytes()[: size // 10].rsplit(b"\n", 1)[0]))
        measure(packed, rounds)


if __name__ == "__main__":
    main()
