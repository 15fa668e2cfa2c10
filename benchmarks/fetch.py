"""How fast are images fetched from loopback, beside img2dataset and beside other HTTP clients? One server, in turn.

`python benchmarks/fetch.py [--num N] [--rounds N]` prints Markdown for RESULTS.md. The server is
`tests/image_host.py` in a process of its own on the same cores. `--peers PYTHON` is the Python of an environment with
img2dataset and httpx (`python -m venv peers && peers/bin/pip install img2dataset httpx`); without it they are left out.
`--quick` shows that it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT))

IMAGE_BYTES = 128_000
CONNECTIONS = 32
"""To the one host, for every contestant."""
GOAL = 500
"""Images a second, on two cores with the server."""
LIBRARIES = ("t4sa-data", "aiohttp", "urllib3", "protego", "pyarrow")
FIRST_ID = 757_000_000_000_000_000


# The server.


def make_body(number: int, base: bytes) -> bytes:
    """A JPEG of `IMAGE_BYTES`, another one for each number."""
    return common.with_comment(base, f"{number:08d}".encode())


def make_base() -> bytes:
    """A drawn JPEG, brought to its length by bytes behind its end."""
    drawn = common.draw_jpeg(0, 400, 300, cells=100, quality=85)
    return drawn + bytes(IMAGE_BYTES - 12 - len(drawn))


def serve(pipe: Any) -> None:
    from tests.image_host import Answer, ImageHost, image, status

    base = make_base()

    def answer(request: Any) -> Answer:
        name = request.path.rsplit("/", 1)[-1].removesuffix(".jpg")
        return image(make_body(int(name), base)) if name.isdigit() else status(404)

    with ImageHost(answer) as host:
        pipe.send(host.port)
        pipe.recv()
        pipe.send(time.process_time())


# In the child: each fetches all and keeps it on disk, and returns the number of images.


def ours(urls: list[str], folder: Path, workers: int) -> int:
    """The stage as `t4sa build` runs it: journal, pack, sha256, checks, robots.txt."""
    import pyarrow as pa

    from builders.engine import Local
    from builders.fetch import FetchConfig, fetch
    from builders.state import State

    ids = pa.array([FIRST_ID + i for i in range(len(urls))], pa.int64())
    table = pa.table({"tweet_id": ids, "image_index": pa.array([1] * len(urls), pa.int8()), "url": urls})
    config = FetchConfig(
        unsafe_allow_loopback=True, host_connections=CONNECTIONS, host_requests_per_second=1e6, contact="benchmark"
    )
    with Local(workers) as engine:
        fetched = fetch(table, config=config, state=State(folder), engine=engine)
    return len(urls) - fetched.rows["sha256"].null_count


def img2dataset(urls: list[str], folder: Path, workers: int) -> int:
    """img2dataset with no resize, no re-encoding, sha256 of each image, tar shards."""
    from img2dataset import download

    listed = folder / "urls.txt"
    listed.write_text("\n".join(urls))
    download(
        url_list=str(listed),
        output_folder=str(folder / "out"),
        output_format="webdataset",
        processes_count=workers,
        thread_count=CONNECTIONS // workers,
        resize_mode="no",
        skip_reencode=True,
        disable_all_reencoding=True,
        compute_hash="sha256",
        extract_exif=False,
        number_sample_per_shard=512,
        retries=3,
        enable_wandb=False,
    )
    stats = [json.loads(path.read_text()) for path in (folder / "out").glob("*_stats.json")]
    return sum(stat["successes"] for stat in stats)


def client_aiohttp(urls: list[str], _folder: Path, _workers: int) -> int:
    """aiohttp alone: the bodies, in memory, one process."""
    import aiohttp

    async def work() -> int:
        gate = asyncio.Semaphore(CONNECTIONS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), read_bufsize=1 << 18) as session:

            async def one(url: str) -> int:
                async with gate, session.get(url) as response:
                    return len(await response.read()) > 0

            return sum(await asyncio.gather(*map(one, urls)))

    return asyncio.run(work())


def client_httpx(urls: list[str], _folder: Path, _workers: int) -> int:
    """httpx alone."""
    import httpx

    async def work() -> int:
        gate = asyncio.Semaphore(CONNECTIONS)
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=60) as client:

            async def one(url: str) -> int:
                async with gate:
                    return len((await client.get(url)).content) > 0

            return sum(await asyncio.gather(*map(one, urls)))

    return asyncio.run(work())


def client_urllib3(urls: list[str], _folder: Path, _workers: int) -> int:
    """urllib3 in threads, alone."""
    from concurrent.futures import ThreadPoolExecutor

    import urllib3

    pool = urllib3.PoolManager(maxsize=CONNECTIONS)
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return sum(len(response.data) > 0 for response in threads.map(lambda url: pool.request("GET", url), urls))


CONTESTANTS: dict[str, tuple[Callable[[list[str], Path, int], int], int, bool, str]] = {
    "ours": (ours, 2, False, "fetch, 2 workers"),
    "ours-1": (ours, 1, False, "fetch, 1 worker"),
    "img2dataset": (img2dataset, 2, True, "img2dataset, 2 processes"),
    "aiohttp": (client_aiohttp, 1, False, "aiohttp alone, nothing kept"),
    "urllib3": (client_urllib3, 1, False, "urllib3 in threads alone, nothing kept"),
    "httpx": (client_httpx, 1, True, "httpx alone, nothing kept"),
}
"""Function, processes, whether it is a peer's, name."""


def child(name: str, port: int, num: int, folder: Path) -> None:
    """Print wall seconds, processor seconds (of its processes), images; imports of our own are done before."""
    function, workers, is_peer, _ = CONTESTANTS[name]
    if not is_peer:
        import builders.fetch.client  # noqa: F401
    urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(num)]
    wall = time.perf_counter()
    found = function(urls, folder, workers)
    wall = time.perf_counter() - wall
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print("\n" + json.dumps([wall, sum(u.ru_utime + u.ru_stime for u in used), found]))


# In the parent.


def measure(names: list[str], python: dict[bool, str | None], port: int, num: int, rounds: int, work: Path) -> None:
    """Contestants in turn; print a table."""
    names = [name for name in names if python[CONTESTANTS[name][2]]]
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            folder = work / name
            folder.mkdir()
            runner = str(python[CONTESTANTS[name][2]])
            line = [runner, __file__, "--child", name, "--port", str(port), "--num", str(num), "--work", str(folder)]
            environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
            done = subprocess.run(line, capture_output=True, text=True, env=environment)
            if done.returncode:
                sys.exit(f"{name} failed\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
            found[name].append(json.loads(done.stdout.strip().split("\n")[-1]))
            shutil.rmtree(folder)
    rows = []
    for name, times in found.items():
        base = found["img2dataset"] if "img2dataset" in found else found["ours"]
        speeds = [own[2] / own[0] for own in times]
        ratios = [(own[2] / own[0]) / (other[2] / other[0]) for own, other in zip(times, base, strict=True)]
        kept = f"{min(int(own[2]) for own in times):,}"
        row = [CONTESTANTS[name][3], common.spread([own[0] for own in times]), common.spread(speeds, 0)]
        rows.append([*row, common.spread([own[1] / own[2] * 1e3 for own in times]), common.spread(ratios), kept])
    beside = "img2dataset" if "img2dataset" in found else "fetch, 2 workers"
    header = ["", "wall s", "images/s", "processor ms an image", f"speed beside {beside}", "images fetched"]
    print(common.markdown_table(header, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=None, help="Python of an environment with img2dataset and httpx")
    parser.add_argument("--only", default=",".join(CONTESTANTS), help="contestants, with commas")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--work", type=Path, default=None, help="folder for what is fetched")
    parser.add_argument("--child", choices=CONTESTANTS)
    parser.add_argument("--port", type=int)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.port, args.num, args.work)
        return
    num, rounds = (600, 1) if args.quick else (args.num, args.rounds)
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    server = context.Process(target=serve, args=(other,))
    server.start()
    port = pipe.recv()
    print(f"Goal: {GOAL} images/s and the speed of img2dataset on the same server.\n")
    print(common.describe_machine(LIBRARIES))
    if args.peers:
        code = "from importlib.metadata import version as v; "
        code += "print('Peers: img2dataset', v('img2dataset') + ', httpx', v('httpx'))"
        print(subprocess.run([args.peers, "-c", code], capture_output=True, text=True).stdout.strip(), end=".\n")
    print(f"Input: {num:,} JPEGs of {IMAGE_BYTES:,} bytes, {CONNECTIONS} connections; {rounds} rounds.\n")
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        measure(args.only.split(","), {False: sys.executable, True: args.peers}, port, num, rounds, Path(folder))
    pipe.send(None)
    print(f"\nThe server used {pipe.recv():.0f} s of processor time.")
    server.join()


if __name__ == "__main__":
    main()
