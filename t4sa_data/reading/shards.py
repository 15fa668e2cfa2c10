"""Shards of a remote release that are on this machine or come to it: whole, in the background, read from the disk."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from t4sa_data.errors import DiskSpaceError, OutputError, ShardError, T4SAError
from t4sa_data.reading.bringing import Bringing, Progress
from t4sa_data.reading.cache import Cache
from t4sa_data.reading.kept import KeptRanges
from t4sa_data.reading.local import LocalSource
from t4sa_data.reading.pumping import Pump, Stopped
from t4sa_data.reading.release import Range
from t4sa_data.reading.transport import RemoteFile

NUM_SLOTS = 2
"""Shards that all processes of a machine fetch at a time: the link is for what somebody waits for."""
WORTH = 1 / 16
"""A shard is fetched whole once this share of it was announced: a filter that keeps little fetches no shard."""
SOON_BYTES = 32 << 20
"""A range that lies so little ahead in a shard on its way is waited for, not asked for by itself."""
YIELD_SECONDS = 15.0
"""A shard on its way gives way to ranges for so long at a time: its server must not take us for gone."""
_LOOK_SECONDS = 0.5
"""Between two looks whether another process has brought a shard, and between two tries for its lock."""


class Shards:
    """The shards of one source.

    Args:
        cache: where they are kept.
        pump: brings them; None: nothing is fetched.
        files: by name in the sample table.
        kept_whole: names of those that may be fetched whole.
        changed: notified when bytes have come; its lock is never held here for long.
        kept: ranges that came before.
        is_busy: whether ranges are being asked for; called with `changed` held.
    """

    def __init__(
        self,
        cache: Cache,
        pump: Pump | None,
        files: Mapping[str, RemoteFile],
        kept_whole: frozenset[str],
        changed: threading.Condition,
        *,
        kept: KeptRanges,
        is_busy: Callable[[], bool],
    ) -> None:
        self._kept, self._is_busy = kept, is_busy
        self._cache, self._pump, self._files, self._changed = cache, pump, files, changed
        self._local = LocalSource(cache.folder / "shards", {})
        self._names: dict[str, str] = {}
        self._looked: dict[str, float] = {}
        self._looking = threading.Lock()
        self._announced: Counter[str] = Counter()
        self._may_keep = kept_whole if pump is not None else frozenset()
        self._todo: deque[str] = deque()
        self._seen: set[str] = set()
        self._thread: threading.Thread | None = None
        self._coming: tuple[str, Progress] | None = None

    def need(self, wanted: Range) -> None:
        """A range was announced. Called with `changed` held."""
        file = self._files[wanted.file]
        self._announced[wanted.file] += wanted.length
        is_worth = self._announced[wanted.file] >= file.num_bytes * WORTH
        if not is_worth or wanted.file in self._seen or wanted.file not in self._may_keep:
            return
        self._seen.add(wanted.file)
        self._todo.append(wanted.file)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="t4sa-shards", daemon=True)
            self._thread.start()

    def read(self, wanted: Range) -> bytes | None:
        """Bytes that are on this machine; None: they are not.

        Raises:
            ShardError: the range runs past the end.
        """
        if self.is_here(wanted.file):
            return self._local.read(Range(self._names[wanted.file], wanted.offset, wanted.length))
        if (found := self._kept.read(wanted.file, wanted.offset, wanted.offset + wanted.length)) is not None:
            return found
        coming = self._coming
        if coming is None or coming[0] != wanted.file or os.name == "nt":  # there an open file cannot be renamed
            return None
        progress, attempt = coming[1], coming[1].attempt
        if wanted.offset < progress.start or wanted.offset + wanted.length > progress.have:
            return None
        try:
            data = self._local.read(Range(f"{progress.path.name}", wanted.offset, wanted.length))
        except ShardError:  # it was whole a moment ago, or begun anew
            return None
        return data if progress.attempt == attempt else None

    def is_here(self, name: str) -> bool:
        """Whether a shard is whole on this machine; then it stays readable until `close`."""
        if name in self._names:
            return True
        with self._looking:  # who comes second must hear what the first one found
            return self._look(name)

    def _look(self, name: str) -> bool:
        if name in self._names:
            return True
        now = time.monotonic()
        if now - self._looked.get(name, -_LOOK_SECONDS) < _LOOK_SECONDS:
            return False
        self._looked[name] = now
        file = self._files[name]
        path = self._cache.find("shards", file.sha256, file.num_bytes)
        if path is None:
            return False
        try:
            self._local.read(Range(path.name, 0, 0))  # open now: then it may be removed
        except ShardError:
            return False
        self._names[name] = path.name
        self._kept.drop(name)
        return True

    def has(self, wanted: Range) -> bool:
        """Whether a range is on this machine: in a whole shard, or kept from before."""
        stop = wanted.offset + wanted.length
        return self.is_here(wanted.file) or self._kept.covers(wanted.file, wanted.offset, stop)

    def may_keep(self, name: str) -> bool:
        """Whether a shard will be kept on this machine."""
        return name in self._may_keep

    def brings_soon(self, wanted: Range) -> bool:
        """Whether the shard that is on its way will hold a range before long."""
        coming = self._coming
        if coming is None or coming[0] != wanted.file or os.name == "nt":
            return False
        return coming[1].start <= wanted.offset < coming[1].have + SOON_BYTES

    def _run(self) -> None:
        assert self._pump is not None
        while not self._pump.stop.is_set():
            with self._changed:
                if not self._todo or self._is_busy():
                    self._changed.wait(_LOOK_SECONDS)
                    continue
                name = self._todo.popleft()
            try:
                if not self._try(name):
                    self._todo.append(name)
                    self._pump.stop.wait(_LOOK_SECONDS / max(1, len(self._todo)))
            except Stopped:
                return
            except (DiskSpaceError, OutputError) as error:
                self._say(f"shards are not kept on this machine, and are read over the network: {error}")
                return
            except T4SAError as error:
                self._say(f"a shard is not kept on this machine, and is read over the network: {error}")

    def _try(self, name: str) -> bool:
        """Bring one shard; False: another process does, or the machine fetches enough, so later."""
        assert self._pump is not None
        file = self._files[name]
        if self._cache.find("shards", file.sha256, file.num_bytes) is not None:
            return True
        with ExitStack() as held:
            if not any(held.enter_context(self._cache.lock(f"slot-{n}")) for n in range(NUM_SLOTS)):
                return False
            if not held.enter_context(self._cache.lock(file.sha256)):
                return False
            if self._cache.find("shards", file.sha256, file.num_bytes) is not None:
                return True
            with self._changed:
                keep = {self._files[other].sha256 for other in self._announced}
            if not self._cache.admit(file.sha256, file.num_bytes, keep):
                return True
            target = self._cache.path("shards", file.sha256, file.num_bytes)
            bringing = Bringing(self._pump, file, target, kept=self._kept, name=name)
            with self._as_coming(name, bringing.progress):
                bringing.run(self._after_piece)
        self._kept.drop(name)
        self._looked.pop(name, None)
        return True

    @contextmanager
    def _as_coming(self, name: str, progress: Progress) -> Iterator[None]:
        self._coming = name, progress
        try:
            yield
        finally:
            self._looked.pop(name, None)
            self._coming = None
            self._notify()

    def _after_piece(self) -> None:
        """Give way to what somebody waits for: whole shards come while no ranges are asked for."""
        assert self._pump is not None
        self._notify()
        until = time.monotonic() + YIELD_SECONDS
        with self._changed:
            while self._is_busy() and time.monotonic() < until and not self._pump.stop.is_set():
                self._changed.wait(0.1)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _say(self, words: str) -> None:
        try:
            warnings.warn(words, RuntimeWarning, stacklevel=2)
        except RuntimeWarning:  # warnings as errors: of no use in this thread
            pass

    def join(self, seconds: float) -> None:
        """Wait for the thread, which ends when the pump's `stop` is set."""
        if self._thread is not None:
            self._thread.join(seconds)

    def close(self) -> None:
        """Close the files."""
        self._local.close()
