"""Ranges that came over a network, kept on the disk while a release is open: a shard that comes whole takes them from
there, and a later epoch reads them again. So no byte comes twice, though the first epoch did not wait for whole shards.

Each shard has a file with holes, which has no name any more: nothing is left behind, however the process ends.
"""

from __future__ import annotations

import bisect
import os
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

from t4sa_data.reading.cache import SPARE_BYTES


class KeptRanges:
    """Ranges of one release. Several threads may use it.

    Args:
        folder: on whose disk they are kept; None: nowhere. Where it cannot be written, or is full, nothing is kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder if hasattr(os, "pread") else None  # Windows keeps the names of open files
        self._shards: dict[str, _Holes] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._shards)

    def keep(self, name: str, start: int, data: bytes, validator: str | None) -> None:
        """Keep bytes of a shard, which the server calls of this version."""
        with self._lock:
            if self._folder is None:
                return
            try:
                if name not in self._shards:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._shards[name] = _Holes(self._folder, validator)
                if shutil.disk_usage(self._folder).free > SPARE_BYTES:
                    self._shards[name].write(start, data, validator)
            except OSError:  # they are read over the network again
                self._folder = None

    def covers(self, name: str, start: int, stop: int) -> bool:
        """Whether all bytes from `start` to `stop` of a shard are here."""
        with self._lock:
            return name in self._shards and self._shards[name].run(start)[1] >= stop > start

    def read(self, name: str, start: int, stop: int) -> bytes | None:
        """Bytes of a shard; None where they are not here."""
        with self._lock:
            if name not in self._shards or self._shards[name].run(start)[1] < stop:
                return None
            return self._shards[name].read(start, stop)

    def run(self, name: str, at: int, num_bytes: int) -> tuple[bool, int]:
        """Whether byte `at` of a shard is here, and behind which byte that changes.

        Args:
            name: of the shard.
            at: a byte of it.
            num_bytes: of the whole shard.
        """
        with self._lock:
            if name not in self._shards:
                return False, num_bytes
            start, stop = self._shards[name].run(at)
            return (True, stop) if start <= at < stop else (False, min(start, num_bytes))

    def validator(self, name: str) -> str | None:
        """The version that a shard's bytes are of, as the server names it."""
        with self._lock:
            return self._shards[name].validator if name in self._shards else None

    def drop(self, name: str) -> None:
        """Forget a shard: it is whole elsewhere, or these bytes are not what they should be."""
        with self._lock:
            if name in self._shards:
                self._shards.pop(name).close()


def _close_all(shards: dict[str, _Holes]) -> None:
    for holes in shards.values():
        holes.close()
    shards.clear()


_NOWHERE = 1 << 62


class _Holes:
    """A file with holes, which has no name any more."""

    def __init__(self, folder: Path, validator: str | None) -> None:
        self._file, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        self.validator = validator
        self._starts: list[int] = []
        self._stops: list[int] = []

    def write(self, start: int, data: bytes, validator: str | None) -> None:
        """Put bytes where they belong; those of another version take the place of all that is here."""
        if validator != self.validator:
            self._starts, self._stops, self.validator = [], [], validator
        stop, rest, at = start + len(data), memoryview(data), start
        while rest:
            written = os.pwrite(self._file, rest, at)
            rest, at = rest[written:], at + written
        # Joined with those that it touches.
        low, high = bisect.bisect_left(self._stops, start), bisect.bisect_right(self._starts, stop)
        if low < high:
            start, stop = min(start, self._starts[low]), max(stop, self._stops[high - 1])
        self._starts[low:high], self._stops[low:high] = [start], [stop]

    def run(self, at: int) -> tuple[int, int]:
        """The run of bytes that `at` is in, else the next one behind it; `(_NOWHERE, -1)`: there is none."""
        number = bisect.bisect_right(self._stops, at)
        if number == len(self._starts):
            return _NOWHERE, -1
        start, stop = self._starts[number], self._stops[number]
        return (start, stop) if start <= at else (start, -1)

    def read(self, start: int, stop: int) -> bytes:
        """Bytes that are here."""
        return os.pread(self._file, stop - start, start)

    def close(self) -> None:
        """Give it back."""
        os.close(self._file)
