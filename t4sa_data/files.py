"""Files that are whole or absent: write to a temporary name, fsync, rename; hash on the way.

A file under its final name is complete, whatever was killed. Temporary names end in `TEMPORARY`, so that a later run
can sweep what a killed one left.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t4sa_data.errors import DiskSpaceError, OutputError

TEMPORARY = ".t4sa-tmp"
CHUNK_BYTES = 4 << 20
GATHER_BYTES = 1 << 20
_PENDING = 8  # pieces of `GATHER_BYTES` that may wait for the hashing thread


class HashingFile:
    """A binary sink that hashes what it writes, in a thread of its own (sha256 releases the GIL).

    Small writes are gathered: file and thread are given `GATHER_BYTES` at a time.

    Attributes: `num_bytes` written so far; `hexdigest()` after the last write.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: deque[Future[None]] = deque()
        self._gathered: list[bytes] = []
        self._num_gathered = 0
        self.num_bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Write bytes; returns their count, as a file does."""
        data = bytes(data)
        self._gathered.append(data)
        self._num_gathered += len(data)
        self.num_bytes += len(data)
        if self._num_gathered >= GATHER_BYTES:
            self._pass_on()
        return len(data)

    def _pass_on(self) -> None:
        data = b"".join(self._gathered)
        self._gathered, self._num_gathered = [], 0
        self._raw.write(data)
        if len(data) < GATHER_BYTES and self._thread is None:  # a small file: no thread for it
            self._sha256.update(data)
            return
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._pending.append(self._thread.submit(self._sha256.update, data))
        if len(self._pending) >= _PENDING:
            self._pending.popleft().result()

    def tell(self) -> int:
        """Bytes written so far."""
        return self.num_bytes

    def flush(self) -> None:
        """Hand on what was gathered, and flush the file beneath."""
        self._pass_on()
        self._raw.flush()

    def close(self) -> None:
        """Hand on what was gathered and wait for the hash; the file beneath stays open for fsync."""
        if not self.closed:
            self._pass_on()
        self.abandon()

    def abandon(self) -> None:
        """Write nothing more, not even what was gathered."""
        self.closed = True
        self._gathered = []
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def readable(self) -> bool:
        """Always False: a sink."""
        return False

    def writable(self) -> bool:
        """Always True: a sink."""
        return True

    def seekable(self) -> bool:
        """Always False: bytes are hashed in order."""
        return False

    def hexdigest(self) -> str:
        """The sha256 of everything written."""
        self.close()
        return self._sha256.hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[HashingFile]:
    """Open `path` for writing so that it appears whole or not at all.

    Raises:
        DiskSpaceError: the disk is full.
        OutputError: the folder cannot be written.
    """
    path = Path(path)
    # pid + random: two attempts at the same task may overlap.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = temporary.open("wb")
        sink = HashingFile(raw)
        try:
            yield sink
            sink.close()
            raw.flush()
            os.fsync(raw.fileno())
            raw.close()
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            sink.abandon()
            _close_quietly(raw)
            temporary.unlink(missing_ok=True)
            raise


def _close_quietly(raw: Any) -> None:
    try:
        raw.close()
    except OSError:  # flushing to a full disk fails again; the first error is the one that is raised
        pass


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals about `path` into named errors.

    Raises:
        DiskSpaceError: no space left, or over a quota.
        OutputError: read-only or forbidden.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskSpaceError(
                "the disk is full", where=path, hint="Free some space and run the same command again: it goes on."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise OutputError(
                f"cannot write ({error.strerror})", where=path, hint="Choose another --out or mend its permissions."
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut (a no-op where folders cannot be opened)."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some file systems refuse fsync on folders
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> str:
    """Write a small file atomically; returns its sha256."""
    with atomic_file(path) as sink:
        sink.write(data)
    return sink.hexdigest()


def write_private(path: Path, data: bytes) -> None:
    """Write a small file that only its owner may read (mode 0600 from the first byte on), atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: object) -> str:
    """Write JSON atomically, indented, in the order given; returns the file's sha256."""
    return write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def sha256_file(path: Path) -> str:
    """The sha256 of a file, read in chunks of 4 MiB."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep_temporary(folder: Path) -> int:
    """Remove what killed writers left below `folder`; returns how many files."""
    left = [path for path in folder.rglob(f"*{TEMPORARY}") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)
