"""A cluster of Ray on this machine, started as one is: a head and further nodes, each a group of processes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

PATIENCE_SECONDS = 60.0


class Cluster:
    """Nodes of one processor each. Use as a context manager; all of their processes end with it.

    Args:
        num_nodes: the head among them.
    """

    def __init__(self, num_nodes: int = 2) -> None:
        self.token = secrets.token_hex(32)
        # Sockets lie below, and their paths must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._num_nodes = num_nodes
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start_node(self) -> None:
        which = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        which = which if not self.nodes else [f"--address={self.address}"]
        log = (self.folder / f"node-{len(self.nodes)}.log").open("wb")
        with log:
            node = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("ray")), "start", "--block", *which,
                    # Each an address of its own, so that the command is on the head, whose address is this machine's.
                    f"--node-ip-address=127.0.0.{1 + len(self.nodes)}", "--num-cpus=1",
                    "--object-store-memory=80000000",
                    f"--temp-dir={self.folder / 'ray'}",
                ],
                env={**os.environ, **self.environment}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.nodes.append(node)

    def __enter__(self) -> Self:
        try:
            for _ in range(self._num_nodes):
                self.start_node()
                self.wait_for_nodes(len(self.nodes))
        except BaseException:
            self.__exit__()
            raise
        return self

    def num_alive(self) -> int:
        """Nodes that the head says are alive."""
        script = (
            "import ray\n"
            f"ray.init(address={self.address!r}, log_to_driver=False, logging_level='error')\n"
            "print(sum(node['Alive'] for node in ray.nodes()))\n"
        )
        told = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        return int(told.stdout.split()[-1]) if told.returncode == 0 else 0

    def wait_for_nodes(self, num: int) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while (found := self.num_alive()) != num:
            if time.monotonic() > end or any(node.poll() is not None for node in self.nodes):
                raise TimeoutError(f"{found} of {num} nodes: {self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(path.read_text()[-600:] for path in self.folder.glob("node-*.log"))

    def workers(self) -> list[int]:
        """Ids of processes that a task of a build runs in."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                name, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            except OSError:
                continue
            # Not the agents of a node, which bear such names too, and with which the whole node dies.
            is_task = name.startswith((b"ray::run_partition", b"ray::_inspect_and_say", b"ray::write_job"))
            if is_task and self.token.encode() in environment:
                found.append(int(folder.name))
        return found

    def kill_node(self, number: int) -> None:
        """SIGKILL every process of a node, its workers too."""
        os.killpg(self.nodes[number].pid, signal.SIGKILL)
        self.nodes[number].wait()

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            try:
                os.killpg(node.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            node.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
