"""The journal of a partition: outcomes as they arrive, appended; what a kill left of the last one is cut off.

A record is a header (mark, CRC-32 of all that follows it, number of the URL, lengths, status, sha256), the reason, the
image's bytes. Reading stops at the first record that is not whole: what stands before it counts.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType

from t4sa_data.files import explain_os_errors

_HEADER = struct.Struct("<4sIIIHh32s")
_MARK = b"T4J1"
_CHECKED_FROM = 8  # behind mark and CRC
NO_STATUS = -1
POLICY = 0xFFFFFFFF
"""In place of a URL's number: a record whose reason is the policy of all that follow."""
SYNC_BYTES = 32 << 20
"""After so many an fsync is due: a power cut costs no more. A kill costs nothing that was appended."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the fetch of one URL ended."""

    reason: str | None
    """None: fetched."""
    status: int | None = None
    """Of HTTP; None: there was no answer."""
    sha256: bytes | None = None
    """Of the image."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A final outcome and where its bytes are."""

    outcome: Outcome
    file: Path
    offset: int
    """Bytes."""
    length: int
    """Bytes; 0 where nothing was fetched."""
    policy: str
    """Of the settings under which it was fetched."""


class Journal:
    """A journal, open for appending. Use as a context manager.

    Args:
        path: is made where it is not there. Only one process at a time has it.
        policy: of today's settings.
    """

    def __init__(self, path: Path, policy: str) -> None:
        self.path, self.policy = path, policy
        self.entries: dict[int, Entry] = {}
        """By number of the URL; those of an earlier run that were whole are there at once."""
        self._end = self._unsynced = 0

    def __enter__(self) -> Journal:
        with explain_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_alone(self.path)
            try:
                policy = ""
                for number, entry, stop in read_journal(self.path):
                    self.entries[number], policy, self._end = entry, entry.policy, stop
                self.entries.pop(POLICY, None)
                self._file.truncate(self._end)
                if policy != self.policy:
                    self.add(POLICY, Outcome(reason=self.policy))
                    del self.entries[POLICY]
            except BaseException:
                self._file.close()
                raise
        return self

    def add(self, number: int, outcome: Outcome, data: bytes = b"") -> None:
        """Append an outcome: once this returns, no kill of this process takes it away."""
        record = encode(number, outcome, data)
        with explain_os_errors(self.path):
            _write_all(self._file, record + data)
        start = self._end + len(record)
        self.entries[number] = Entry(
            outcome=outcome, file=self.path, offset=start, length=len(data), policy=self.policy
        )
        self._end = start + len(data)
        self._unsynced += len(record) + len(data)

    @property
    def is_sync_due(self) -> bool:
        """Whether `sync` should be called (and counts from here)."""
        due = self._unsynced >= SYNC_BYTES
        if due:
            self._unsynced = 0
        return due

    def sync(self) -> None:
        """Make what was appended survive a power cut. May be called in another thread."""
        with explain_os_errors(self.path):
            os.fdatasync(self._file.fileno()) if hasattr(os, "fdatasync") else os.fsync(self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def encode(number: int, outcome: Outcome, data: bytes) -> bytes:
    """A record without the image's bytes, which follow it."""
    reason = (outcome.reason or "").encode()
    status = NO_STATUS if outcome.status is None else outcome.status
    values = (number, len(data), len(reason), status, outcome.sha256 or bytes(32))
    checked = _HEADER.pack(_MARK, 0, *values)[_CHECKED_FROM:] + reason
    return _MARK + struct.pack("<I", zlib.crc32(data, zlib.crc32(checked))) + checked


def read_journal(path: Path) -> Iterator[tuple[int, Entry, int]]:
    """Whole records from the beginning: number of the URL, entry, byte behind it."""
    if path.stat().st_size == 0:
        return
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as all_,
    ):
        start, policy = 0, ""
        while start + _HEADER.size <= len(all_):
            mark, crc, number, length, reason_length, status, sha256 = _HEADER.unpack_from(all_, start)
            body = start + _HEADER.size + reason_length
            stop = body + length
            if mark != _MARK or stop > len(all_) or zlib.crc32(all_[start + _CHECKED_FROM : stop]) != crc:
                return
            outcome = Outcome(
                reason=bytes(all_[body - reason_length : body]).decode() or None,
                status=None if status == NO_STATUS else status,
                sha256=None if sha256 == bytes(32) else sha256,
            )
            if number == POLICY:
                policy = outcome.reason or ""
            yield number, Entry(outcome=outcome, file=path, offset=body, length=length, policy=policy), stop
            start = stop


def _open_alone(path: Path) -> FileIO:
    """A file that one process has for itself, a second one waits: a task whose worker was lost may still run somewhere.

    Unbuffered: what is written is the system's at once.
    """
    while True:
        file = FileIO(path, "a+")
        try:
            _lock(file)
            # Whoever had it may have finished the partition, and the file is gone.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: FileIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: the lock of the build is all there is
        return
    fcntl.flock(file, fcntl.LOCK_EX)


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
