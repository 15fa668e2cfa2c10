"""What a build remembers between runs, in `DIR/build/state/`: results of stages, each under a fingerprint.

A fingerprint is the sha256 of the stage's version, its settings and its inputs, so a result is taken up again only
where it would be made again byte for byte. Inputs are told by name, size and time of change (63 GB are not read to
learn that there is nothing to do); their sha256 goes into the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from t4sa_data.errors import OutputLocked
from t4sa_data.files import atomic_file, explain_os_errors, write_bytes

BATCH_ROWS = 65_536
"""Rows of a large table that are handled at a time."""


def fingerprint(*parts: object) -> str:
    """16 hex digits of the sha256 of the parts' JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamp(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change of an input: cheap, and enough to see that it is another one."""
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns


class State:
    """Stage results below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def path(self, stage: str, key: str, name: str = "") -> Path:
        """Where a result of `stage` with fingerprint `key` is kept."""
        return self.folder / f"{stage}-{key}" / name if name else self.folder / f"{stage}-{key}.json"

    def load(self, stage: str, key: str) -> Any:
        """The JSON kept for a stage, or None."""
        try:
            return json.loads(self.path(stage, key).read_bytes())
        except FileNotFoundError:
            return None

    def save(self, stage: str, key: str, value: object) -> None:
        """Keep a stage's JSON."""
        write_bytes(self.path(stage, key), json.dumps(value).encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the output folder against other builds.

        Raises:
            OutputLocked: another process has it.
            OutputError: the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            with explain_os_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                lock.acquire()
        except Timeout as error:
            raise OutputLocked(
                "another process is building into this folder",
                where=self.folder.parent.parent,
                hint="Wait for it to end.",
            ) from error
        try:
            yield
        finally:
            lock.release()


def write_arrow(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables of one schema as an Arrow IPC file, atomically."""
    with atomic_file(path) as sink, pa.ipc.new_file(pa.PythonFile(sink, mode="w"), schema) as writer:
        for table in tables:
            writer.write_table(table)


def read_arrow(path: Path) -> pa.Table:
    """Read what `write_arrow` wrote (memory-mapped)."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()
