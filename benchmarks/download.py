"""How fast is `t4sa download`, beside other clients on the same server?

    python benchmarks/download.py [--megabytes 1000] [--rate 100] [--rounds 3]

A server of its own process on loopback, with HTTP Basic, sends one tar at most at `--rate` MB/s, then as fast as it
goes. Clients run in turn; each brings the whole file to a fresh folder. Ours also hashes (sha256), fsyncs, and walks
the archive to its end; the others do what they do (pooch and aria2 are given the sha256). Ratios are taken inside a
round, against curl. Seconds are those of the work: for Python clients without Python's start and imports.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import common
from clients import CLIENTS, PASSWORD, USER, Client

SLICE_BYTES = 256 << 10
FILENAME = "b-t4sa_imgs.tar"
IMAGE_BYTES = 134_000
GOAL = 0.98


@dataclass(kw_only=True)
class Times:
    """What was seen of one client."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


def serve(path: Path, rate: float) -> None:
    """Be the server: print the port, then send `path` to who has the password, at `rate` bytes a second (0: any)."""
    import base64

    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    size = path.stat().st_size

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            allowed, there = self.headers.get("Authorization") == wanted, unquote(self.path) == f"/{FILENAME}"
            status = 401 if not allowed else 200 if there else 404
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic realm=benchmark")
            self.send_header("Content-Length", str(size if status == 200 else 0))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if status == 200 and self.command == "GET":
                self._send()

        do_HEAD = do_GET  # noqa: N815 - the base class's name

        def _send(self) -> None:
            start, sent = time.perf_counter(), 0
            with path.open("rb", buffering=0) as file:
                while num := os.sendfile(self.connection.fileno(), file.fileno(), sent, SLICE_BYTES):
                    sent += num
                    if rate and (ahead := sent / rate - (time.perf_counter() - start)) > 0:
                        time.sleep(ahead)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


def make_tar(path: Path, num_bytes: int) -> str:
    """A tar in the official layout with random members; its sha256."""
    from t4sa_data.shards.tar import END_MARK, padded, ustar_header

    rng, digest, written = random.Random(0), hashlib.sha256(), 0
    with path.open("wb") as file:

        def put(data: bytes) -> None:
            file.write(data)
            digest.update(data)

        while written < num_bytes:
            name = f"data/75700/{757_000_000_000_000_000 + written}-1.jpg"
            put(ustar_header(name, IMAGE_BYTES))
            put(rng.randbytes(IMAGE_BYTES) + bytes(padded(IMAGE_BYTES) - IMAGE_BYTES))
            written += IMAGE_BYTES
        put(END_MARK)
    return digest.hexdigest()


def run(client: Client, url: str, folder: Path, sha256: str, times: Times) -> None:
    """Bring the file once; stops where it is not the file."""
    folder.mkdir(parents=True)
    start = time.perf_counter()
    process = subprocess.Popen(
        client.command(url, folder, sha256),
        env=client.environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    before = os.times()
    while process.poll() is None:
        times.peak_mb = max(times.peak_mb, peak_mb(process.pid))
        time.sleep(0.01)
    seconds, after = time.perf_counter() - start, os.times()
    told, words = process.communicate()
    if process.returncode:
        sys.exit(f"{client.name} failed: {words[-500:]}")
    with (folder / FILENAME).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            sys.exit(f"{client.name} brought another file")
    times.seconds.append(float(told.split()[-1]) if client.program is None else seconds)
    used = after.children_user + after.children_system - before.children_user - before.children_system
    times.cpu.append(used)
    shutil.rmtree(folder)


def peak_mb(pid: int) -> float:
    """The largest resident size of a process so far, MB (Linux; 0 where it is gone)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0.0


def race(work: Path, source: Path, sha256: str, rate: float, rounds: int) -> dict[str, Times]:
    """All clients in turn, `rounds` times."""
    clients = [client for client in CLIENTS if client.is_here]
    times = {client.name: Times() for client in clients}
    command = [sys.executable, __file__, "--serve", str(source), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/{FILENAME}"
            for number in range(rounds):
                for client in clients:
                    run(client, url, work / "home" / "out", sha256, times[client.name])
                    seconds = times[client.name].seconds[-1]
                    print(f"round {number + 1}/{rounds}: {client.name}: {seconds:.2f} s", file=sys.stderr, flush=True)
        finally:
            server.terminate()
    return times


def report(times: dict[str, Times], num_bytes: int) -> str:
    """The table."""
    curl = times["curl"].seconds
    rows = []
    for name, t in times.items():
        rate = num_bytes / statistics.median(t.seconds) / 1e6
        ratio = common.spread([a / b for a, b in zip(curl, t.seconds, strict=True)])
        rows.append([name, common.spread(t.seconds), f"{rate:.0f}", ratio, common.spread(t.cpu), f"{t.peak_mb:.0f}"])
    header = ["client", "seconds", "MB/s", "speed beside curl", "processor s", "peak memory, MB"]
    return common.markdown_table(header, rows)


def main() -> None:
    """Run the benchmark and print it in Markdown."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), float(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the file")
    parser.add_argument("--rate", type=float, default=100.0, help="MB/s of the throttled server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where files go (default: a temporary folder)")
    chosen = parser.parse_args()
    machine = common.describe_machine(("t4sa-data", "requests", "urllib3", "pooch", "huggingface-hub"))
    parts = []
    with tempfile.TemporaryDirectory(prefix="t4sa-bench-", dir=chosen.work) as name:
        work = Path(name)
        (work / "home").mkdir()
        source = work / FILENAME
        sha256 = make_tar(source, chosen.megabytes * 1_000_000)
        size = source.stat().st_size
        for rate, words in ((chosen.rate * 1e6, f"at most {chosen.rate:.0f} MB/s"), (0.0, "unthrottled")):
            times = race(work, source, sha256, rate, chosen.rounds)
            parts.append(f"Server: {words}.\n\n{report(times, size)}")
            if rate:
                ours = [a / b for a, b in zip(times["curl"].seconds, times["t4sa-data"].seconds, strict=True)]
                met = "met" if statistics.median(ours) >= GOAL else "missed"
                parts.append(f"Goal of {GOAL} of curl's speed, throttled: {met} ({common.spread(ours, 3)}).")
    command = " ".join(["python benchmarks/download.py", *sys.argv[1:]])
    print(f"Command: `{command}`\n\n{machine}\nInput: a tar of {size / 1e6:,.0f} MB; {chosen.rounds} rounds.\n")
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
