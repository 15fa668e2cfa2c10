"""Byte ranges of a remote release: neighbours in one request, several requests at a time, memory within a bound."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

from t4sa_data.errors import ServerFault, ShardError, T4SAError
from t4sa_data.reading.cache import Cache
from t4sa_data.reading.kept import KeptRanges
from t4sa_data.reading.pumping import Pump, Stopped, read_part
from t4sa_data.reading.release import Range
from t4sa_data.reading.shards import Shards
from t4sa_data.reading.transport import RemoteFile, Transport
from t4sa_data.reading.waiting import Waiting

REQUEST_BYTES = 8 << 20
"""At 200 Mbit/s a third of a second: long beside a round trip, short enough that the first sample comes soon."""
HELD_BYTES = 256 << 20
"""Fetched, or on their way, and not yet read."""
NUM_THREADS = 8
PATIENCE_SECONDS = 900.0
"""After so long a `read` ends with an error, whatever the threads do. They give up before (see `Pump`)."""
_JOIN_SECONDS = 2.0


class RemoteSource:
    """Byte ranges of a remote release; see `Source`.

    Args:
        transport: asks; it is closed with this.
        files: by name in the sample table.
        cache: of whole shards.
        kept_whole: names of files that may be fetched whole.
        kept: ranges that came and may be needed again; None: none are kept.
        offline: read from the cache only.
        held_bytes: bound on bytes that nobody has read yet (one request that somebody waits for comes on top).
    """

    def __init__(
        self,
        transport: Transport,
        files: Mapping[str, RemoteFile],
        cache: Cache,
        *,
        kept_whole: frozenset[str],
        kept: KeptRanges | None = None,
        offline: bool = False,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        self._transport, self._files, self._offline, self._most_bytes = transport, files, offline, held_bytes
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._pump = Pump(transport, self._stop)
        self._kept = kept or KeptRanges(None)
        pump = None if offline else self._pump
        self._shards = Shards(cache, pump, files, kept_whole, self._changed, kept=self._kept, is_busy=self._is_busy)
        self._waiting = Waiting()
        self._urgent: deque[Range] = deque()
        self._uses: Counter[Range] = Counter()
        """How often an announced range will still be read."""
        self._on_the_way: set[Range] = set()
        self._fetched: dict[Range, bytes | T4SAError] = {}
        self._held = 0
        """Bytes of `_on_the_way` and `_fetched`."""
        self._threads: list[threading.Thread] = []

    def announce(self, ranges: Sequence[Range]) -> None:
        """See `Source`."""
        with self._changed:
            self._require_open()
            for wanted in ranges:
                self._require_file(wanted)
                self._shards.need(wanted)
                self._uses[wanted] += 1
                if not self._offline and wanted not in self._fetched and wanted not in self._on_the_way:
                    self._waiting.add(wanted)
            if not self._offline:
                self._start_threads()
            self._changed.notify_all()

    def read(self, wanted: Range) -> bytes:
        """See `Source`. Reading a range once more fetches it once more.

        Raises:
            ShardError: no such file; it was replaced; it is not in the cache (offline).
            ServerFault: the server failed again and again, or nothing came for too long.
            T4SAError: the server refuses.
        """
        self._require_file(wanted)
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            with self._changed:
                self._require_open()
                if (found := self._take(wanted)) is not None:
                    return found
            if (data := self._shards.read(wanted)) is not None:
                with self._changed:
                    self._used(wanted)
                return data
            with self._changed:
                if wanted in self._fetched:
                    continue
                if self._offline:
                    raise self._not_here(wanted)
                if wanted not in self._on_the_way and not self._shards.brings_soon(wanted):
                    self._hurry(wanted)
                self._changed.wait(0.5)
        raise ServerFault(
            f"nothing came for {PATIENCE_SECONDS:.0f} s", where=f"{self._transport.where}: {wanted.file}, {wanted[1:]}"
        )

    def _take(self, wanted: Range) -> bytes | None:
        """What has come of a range, if it has."""
        found = self._fetched.get(wanted)
        if found is None:
            return None
        self._used(wanted)
        if isinstance(found, T4SAError):
            self._forget(wanted)
            raise found
        return found

    def _used(self, wanted: Range) -> None:
        self._uses[wanted] -= 1
        if self._uses[wanted] <= 0:
            del self._uses[wanted]
            self._waiting.discard(wanted)
            self._forget(wanted)

    def _forget(self, wanted: Range) -> None:
        if self._fetched.pop(wanted, None) is not None:
            self._held -= wanted.length
            self._changed.notify_all()

    def _hurry(self, wanted: Range) -> None:
        """Somebody waits for a range that nobody fetches."""
        self._waiting.add(wanted)
        if wanted not in self._urgent:
            self._urgent.append(wanted)
        self._start_threads()
        self._changed.notify_all()

    def _start_threads(self) -> None:
        while len(self._threads) < min(NUM_THREADS, len(self._waiting)):
            name = f"t4sa-ranges-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._run, name=name, daemon=True))
            self._threads[-1].start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (ranges := self._next()):
                    if self._stop.is_set():
                        return
                    self._changed.wait(1.0)
            try:
                outcome: dict[Range, bytes | T4SAError] = dict(zip(ranges, self._fetch(ranges), strict=True))
            except Stopped:
                return
            except T4SAError as error:
                outcome = dict.fromkeys(ranges, error)
            except Exception as error:  # a fault of ours must not leave a reader waiting
                outcome = dict.fromkeys(ranges, ServerFault(f"{type(error).__name__} while bytes were fetched"))
            with self._changed:
                self._on_the_way.difference_update(ranges)
                self._fetched.update(outcome)
                self._changed.notify_all()

    def _next(self) -> list[Range]:
        """The ranges of the next request; none: there is nothing to do, or no room."""
        if self._stop.is_set():
            return []
        while self._urgent:
            first = self._urgent.popleft()
            if first in self._waiting:
                return self._begin(self._waiting.take(max(0, min(REQUEST_BYTES, self._room())), first))
        while (following := self._waiting.first()) is not None:
            if self._shards.has(following) or self._shards.brings_soon(following):
                self._waiting.discard(following)
            elif following.length > self._room() and self._held:
                return []
            else:
                return self._begin(self._waiting.take(min(REQUEST_BYTES, self._room())))
        return []

    def _is_busy(self) -> bool:
        """Whether somebody waits for ranges, or will."""
        return bool(self._waiting) or bool(self._on_the_way)

    def _room(self) -> int:
        return self._most_bytes - self._held

    def _begin(self, ranges: list[Range]) -> list[Range]:
        self._on_the_way.update(ranges)
        self._held += sum(wanted.length for wanted in ranges)
        return ranges

    def _fetch(self, ranges: list[Range]) -> list[bytes]:
        """One request."""
        start = ranges[0].offset
        file = self._files[ranges[0].file]
        data = read_part(self._pump, file, start, max(r.offset + r.length for r in ranges))
        if self._shards.may_keep(ranges[0].file):
            self._kept.keep(ranges[0].file, start, data, self._pump.validator(file))
        return [data[r.offset - start : r.offset - start + r.length] for r in ranges]

    def _require_file(self, wanted: Range) -> None:
        file = self._files.get(wanted.file)
        if file is None or not 0 <= wanted.offset <= wanted.offset + wanted.length <= file.num_bytes:
            raise ShardError(
                "a range that the release does not have",
                expected="a file of the manifest" if file is None else f"at most byte {file.num_bytes}",
                got=f"{wanted.file}, {wanted.length} bytes from {wanted.offset}",
                where=self._transport.where,
                hint="Manifest and sample table do not belong together: open the release anew.",
            )

    def _require_open(self) -> None:
        if self._stop.is_set():
            raise ShardError("the source was closed", where=self._transport.where)

    def _not_here(self, wanted: Range) -> ShardError:
        return ShardError(
            "a shard is not in the cache, and offline=True",
            where=f"{self._transport.where}: {wanted.file}",
            hint="Read it once with a connection, or give the cache= where it is.",
        )

    def forget(self, wanted: Range) -> None:
        """See `Source`."""
        self._kept.drop(wanted.file)

    def abort(self) -> None:
        """See `Source`."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        self._transport.close()

    def close(self) -> None:
        """See `Source`. What a shard on its way has got is kept for the next time."""
        self.abort()
        until = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._shards.join(max(0.1, until - time.monotonic()))
        self._shards.close()
        with self._changed:
            self._fetched.clear()
            self._held = 0
