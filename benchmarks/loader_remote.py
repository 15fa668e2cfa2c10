"""How much of a network link does `stream` use, beside other readers of the same tar files?

    python benchmarks/loader_remote.py [--megabytes 400] [--rate 25] [--latency 0.05] [--rounds 5]

A server of its own process on loopback sends a release's tar shards with ranges: `--rate` MB/s for all connections
together (25: 200 Mbit/s), `--latency` seconds before each answer, and once more for each new connection. Contestants
run in turn, each a process of its own, and take the bytes of every picture once, shuffled; nothing is decoded, so that
the network is what limits them. Ours begins with an empty cache, and goes through a second epoch.

- of the link: bytes of pictures through the rate, from the call that opens the release to the last sample; Python's
  start and imports are not counted. Ours also checks each picture's sha256.
- sent: bytes that the server sent, beside those of the pictures.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import common
import synthetic

SLICE_BYTES = 32 << 10
BATCH, BUFFER = 256, 1000
GOAL = 0.9
NUM_SHARDS = 8
STATS = "/stats"
Seen = dict[str, Any]


# The server.


class Link:
    """What all connections share: each slice waits for its turn."""

    def __init__(self, rate: float) -> None:
        self._rate, self._lock, self._free = rate, threading.Lock(), 0.0
        self.num_bytes = self.num_requests = 0

    def take(self, num: int) -> None:
        """Wait until `num` bytes have gone over the link."""
        with self._lock:
            self._free = max(self._free, time.perf_counter()) + num / self._rate
            until = self._free
            self.num_bytes += num
        time.sleep(max(0.0, until - time.perf_counter()))


class Handler(BaseHTTPRequestHandler):
    """Sends files below the server's folder, whole or by range."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # headers leave in one packet
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.is_new = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        link = self.server.link
        if self.path == STATS:
            self._answer(200, {}, json.dumps([link.num_bytes, link.num_requests]).encode())
            link.num_bytes = link.num_requests = 0
            return
        link.num_requests += 1
        time.sleep(self.server.latency * (2 if self.is_new else 1))
        self.is_new = False
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self._answer(404, {}, b"")
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, size) if asked and asked[2] else size
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if asked else {}
        headers |= {"ETag": f'"{path.name}-{size}"', "Accept-Ranges": "bytes"}
        self._answer(206 if asked else 200, headers, b"", stop - start)
        if self.command == "GET":
            self._send(path, start, stop)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _send(self, path: Path, start: int, stop: int) -> None:
        try:
            with path.open("rb") as file:
                file.seek(start)
                while start < stop and (data := file.read(min(SLICE_BYTES, stop - start))):
                    self.server.link.take(len(data))
                    self.wfile.write(data)
                    start += len(data)
            self.wfile.flush()
        except ConnectionError:
            self.close_connection = True


class Server(ThreadingHTTPServer):
    """What handlers share."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, rate: float, latency: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.link, self.latency = folder, Link(rate), latency

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


def serve(folder: Path, rate: float, latency: float) -> None:
    """Be the server: print the port, then answer."""
    server = Server(folder, rate, latency)
    print(server.server_address[1], flush=True)
    server.serve_forever()


# The contestants, each in a child. They yield the bytes of pictures.


def ours(url: str, cache: str, *, shuffle: str = "block") -> list[Callable[[], Iterator[bytes]]]:
    """`stream`: the first epoch, and a second one."""
    import torch  # noqa: F401

    import t4sa_data
    import t4sa_data.reading.remote
    import t4sa_data.streaming.loader

    opened: list[Any] = []

    def epoch() -> Iterator[bytes]:
        if not opened:
            opened.append(
                t4sa_data.stream(
                    url,
                    batch_size=BATCH,
                    shuffle=shuffle,
                    decode=None,
                    tail="ragged",
                    cache=cache,
                )
            )
        for batch in opened[0]:
            yield from batch["image"]

    return [epoch, epoch]


def webdataset(url: str, cache: str, *, workers: int) -> list[Callable[[], Iterator[bytes]]]:
    """Its documented pipeline over http (curl), shards and samples shuffled, in worker processes."""
    import webdataset as wds

    def epoch() -> Iterator[bytes]:
        made = wds.WebDataset(shard_urls(url), shardshuffle=NUM_SHARDS, cache_dir=cache or None).shuffle(BUFFER)
        for sample in wds.WebLoader(made.to_tuple("jpg"), batch_size=None, num_workers=workers):
            yield sample[0]

    return [epoch, epoch] if cache else [epoch]


def hugging_face(url: str, _cache: str, *, workers: int) -> list[Callable[[], Iterator[bytes]]]:
    """`datasets` streaming the tar files, shards and samples shuffled, in worker processes."""
    import datasets
    import torch

    def epoch() -> Iterator[bytes]:
        made = datasets.load_dataset("webdataset", data_files=shard_urls(url), split="train", streaming=True)
        made = made.cast_column("jpg", datasets.Image(decode=False)).shuffle(seed=0, buffer_size=BUFFER)
        for sample in torch.utils.data.DataLoader(made, batch_size=None, num_workers=workers):
            yield sample["jpg"]["bytes"]

    return [epoch]


def shard_urls(url: str) -> list[str]:
    """URLs of the tar shards."""
    return [f"{url}b-t4sa/train-{i:05d}-of-{NUM_SHARDS:05d}.tar" for i in range(NUM_SHARDS)]


CONTESTANTS: dict[str, Callable[[str, str], list[Callable[[], Iterator[bytes]]]]] = {
    "t4sa-data, shuffle=block": ours,
    "t4sa-data, shuffle=full": functools.partial(ours, shuffle="full"),
    "webdataset, 2 workers": lambda url, _: webdataset(url, "", workers=2),
    "webdataset, 4 workers": lambda url, _: webdataset(url, "", workers=4),
    "webdataset, 4 workers, cache_dir": functools.partial(webdataset, workers=4),
    "datasets streaming, 4 workers": functools.partial(hugging_face, workers=4),
}


def child(name: str, url: str, cache: str) -> list[Seen]:
    """Go through all epochs of a contestant."""
    made = []
    for epoch in CONTESTANTS[name](url, cache):
        start, cpu = time.perf_counter(), time.process_time()
        first, num, count = 0.0, 0, 0
        for data in epoch():
            first = first or time.perf_counter() - start
            num, count = num + len(data), count + 1
        seconds = time.perf_counter() - start
        sent, requests = json.load(urllib.request.urlopen(stats_url(url)))
        made.append(
            {"seconds": seconds, "first": first, "bytes": num, "count": count, "sent": sent, "requests": requests}
            | {"cpu": time.process_time() - cpu}
        )
    return made


def stats_url(url: str) -> str:
    """Where the server tells, and forgets, what it has sent."""
    return url.split("/t4sa-wds")[0] + STATS


# In the parent.


def run(name: str, url: str, work: Path) -> list[Seen]:
    """Run a contestant with an empty cache."""
    cache = work / "cache"
    cache.mkdir()
    urllib.request.urlopen(stats_url(url)).close()  # forget what others were sent
    command = [sys.executable, "-W", "ignore", __file__, "--child", name, url, str(cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    shutil.rmtree(cache)
    if done.returncode:
        sys.exit(f"{name} failed")
    return json.loads(done.stdout.splitlines()[-1])


def race(url: str, work: Path, names: list[str], rounds: int, wanted: tuple[int, int]) -> dict[str, list[list[Seen]]]:
    """All contestants in turn; stops where one does not bring every picture."""
    seen: dict[str, list[list[Seen]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            found = run(name, url, work)
            for epoch in found:
                if (epoch["count"], epoch["bytes"]) != wanted:
                    sys.exit(f"{name} brought {epoch['count']} pictures of {epoch['bytes']} bytes, not {wanted}")
            seen[name].append(found)
            said = ", ".join(f"{e['seconds']:.1f} s" for e in found)
            print(f"round {number + 1}/{rounds}: {name}: {said}", file=sys.stderr, flush=True)
    return seen


def report(seen: dict[str, list[list[Seen]]], rate: float) -> str:
    """The table and the verdict."""
    rows, shares = [], {}
    for name, runs in seen.items():
        for number, epochs in enumerate(zip(*runs, strict=True)):
            title = name if number == 0 else f"{name}: second epoch"
            share = shares[title] = [e["bytes"] / e["seconds"] / rate for e in epochs]
            rows.append(
                [
                    title,
                    common.spread([e["seconds"] for e in epochs], 1),
                    common.spread(share, 3),
                    common.spread([e["first"] for e in epochs]),
                    common.spread([e["sent"] / e["bytes"] for e in epochs], 3),
                    f"{statistics.median(e['requests'] for e in epochs):.0f}",
                    common.spread([e["cpu"] for e in epochs], 1),
                ]
            )
    ours = shares["t4sa-data, shuffle=block"]
    word = "met" if statistics.median(ours) >= GOAL else "missed"
    header = ["reader", "s", "of the link", "first sample, s", "sent", "requests", "main process's processor s"]
    goal = f"Goal of {GOAL} of the link, shuffle=block, first epoch, empty cache: {word} ({common.spread(ours, 3)})."
    return f"{common.markdown_table(header, rows)}\n\n{goal}"


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
        return
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=400, help="of pictures")
    parser.add_argument("--rate", type=float, default=25.0, help="MB/s of the link")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before an answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="contestants whose names contain this")
    parser.add_argument("--photos", type=Path, default=common.PHOTOS, help="folder of JPEGs; drawn pictures without")
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder)")
    chosen = parser.parse_args()
    machine = common.describe_machine(("t4sa-data", "torch", "webdataset", "datasets", "requests", "urllib3"))
    with tempfile.TemporaryDirectory(prefix="t4sa-remote-", dir=chosen.work) as name:
        work = Path(name)
        images, what = common.photo_images(512, chosen.photos)
        templates = list(images)
        num = chosen.megabytes * 1_000_000 // (sum(map(len, templates)) // len(templates))
        num_bytes = synthetic.make_tars(
            work, num, NUM_SHARDS, lambda i: common.with_comment(templates[i % len(templates)], b"%d" % i)
        )
        command = [sys.executable, __file__, "--serve", str(work), str(chosen.rate * 1e6), str(chosen.latency)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/t4sa-wds/"  # type: ignore[union-attr]
            names = [name for name in CONTESTANTS if chosen.only in name]
            body = report(race(url, work, names, chosen.rounds, (num, num_bytes)), chosen.rate * 1e6)
        finally:
            server.terminate()
            server.wait()
    said = " ".join(["python benchmarks/loader_remote.py", *sys.argv[1:]])
    print(
        f"Command: `{said}`\n\n{machine}\nInput: {num:,} pictures, {num_bytes / 1e6:.0f} MB, in {NUM_SHARDS} tar shards"
    )
    print(f"({what}); {chosen.rate * 8:.0f} Mbit/s, {chosen.latency * 1e3:.0f} ms; {chosen.rounds} rounds.\n")
    print(body)


if __name__ == "__main__":
    main()
