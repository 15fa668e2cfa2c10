"""Bytes of a remote file, in order, whatever happens on the way: ask, receive, wait and ask again, or a named error."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import requests
import urllib3

from t4sa_data.downloading.replies import TRANSIENT, jitter
from t4sa_data.errors import HubUnreachable, ServerFault
from t4sa_data.reading.transport import Body, Fault, RemoteFile, Transport, ignores_ranges, replaced

T = TypeVar("T")

PIECE_BYTES = 1 << 18
SKIP_BYTES = 16 << 20
"""A server that ignores `Range` is read past so many bytes that nobody asked for, and no more."""
_NETWORK = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class Stopped(Exception):
    """The source was closed."""


class Pump:
    """Reads files of one transport, and sees to it that one file stays one file.

    Args:
        transport: asks.
        stop: set when everything shall end.
    """

    def __init__(self, transport: Transport, stop: threading.Event) -> None:
        self.transport, self.stop = transport, stop
        self._validators: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def pieces(self, file: RemoteFile, start: int, stop: int, *, validator: str | None = None) -> Iterator[bytes]:
        """Bytes `start` to `stop` of a file, each once and in order.

        After a cut the request goes on where it was, if the server can say that the file is still the same one; else
        `Restarted` is raised for the caller to begin anew.

        Args:
            file: as the manifest has it.
            start: first byte.
            stop: behind the last one.
            validator: of bytes from an earlier run that these shall fit.

        Raises:
            Restarted: what came so far must be given up.
            ServerFault: too many faults in a row, without progress.
            ShardError: the file was replaced.
            Stopped: `stop` was set.
            T4SAError: access, or the file, is refused.
        """
        limits, at, faults, rng = self.transport.limits, start, 0, random.Random()
        while at < stop:
            before = at
            wait: float | None = None
            known = validator or self._validators.get(file.path)
            if at > start and known is None:
                raise Restarted
            try:
                for data in self._once(file, at, stop, known):
                    at += len(data)
                    yield data
                if at == stop:
                    return
                why = f"the connection ended at byte {at:,} of {stop:,}"
            except Fault as error:
                why, wait = str(error), error.wait_seconds
            except HubUnreachable as error:
                why = error.what
            except (*_NETWORK, ValueError) as error:  # ValueError: a read of a connection that `close` has shut
                if isinstance(error, ValueError) and not self.stop.is_set():
                    raise
                why = type(error).__name__
            if self.stop.is_set():
                raise Stopped
            faults = 1 if at - before >= min(limits.progress_bytes, stop - start) else faults + 1
            self._wait(file, faults, why, wait, rng)

    def validator(self, file: RemoteFile) -> str | None:
        """The version of a file that its bytes so far belong to, as the server names it."""
        return self._validators.get(file.path)

    def small(self, path: str, most_bytes: int) -> bytes:
        """A small file of unknown size, whole.

        Raises:
            ServerFault, Stopped, T4SAError: as `pieces`; the file has more than `most_bytes`.
        """
        file = RemoteFile(path, -1, "")

        def once() -> bytes:
            with self.transport.open(file, 0, None, None) as body:
                return _whole(body, most_bytes)

        return self.again(file, once)

    def again(self, file: RemoteFile, once: Callable[[], T]) -> T:
        """What `once` gives, which is called again after each fault.

        Raises:
            ServerFault: too many faults in a row.
            Stopped: `stop` was set.
            T4SAError: access, or the file, is refused.
        """
        rng = random.Random()
        for faults in itertools.count(1):
            wait: float | None = None
            try:
                return once()
            except Fault as error:
                why, wait = str(error), error.wait_seconds
            except HubUnreachable as error:
                why = error.what
            except _NETWORK as error:
                why = type(error).__name__
            self._wait(file, faults, why, wait, rng)
        raise AssertionError("not reached")

    def _wait(self, file: RemoteFile, faults: int, why: str, asked: float | None, rng: random.Random) -> None:
        """Wait before the next try, or give up."""
        limits = self.transport.limits
        seconds = jitter(faults, limits.backoff_seconds, limits.max_backoff_seconds, rng) if asked is None else asked
        if faults >= limits.attempts or seconds > limits.max_wait_seconds:
            what = f"gave up after {faults} fault(s) in a row"
            if faults < limits.attempts:
                what = f"the server asks to come back in {seconds / 60:.0f} minutes"
            raise ServerFault(what, got=why, where=self.transport.url(file.path), hint="Try again later.")
        if self.stop.wait(seconds):
            raise Stopped

    def _once(self, file: RemoteFile, start: int, stop: int, known: str | None) -> Iterator[bytes]:
        """The bytes that one request brings; a whole file is asked for without a range."""
        is_whole = start == 0 and stop == file.num_bytes
        with self.transport.open(file, start, None if is_whole else stop, known if start else None) as body:
            self._require_usable(file, body, start, stop, known)
            if body.reply.start < start:
                _skip(file, body, start - body.reply.start, self.transport.where)
            watch, at = _Watch(self.transport), start
            while at < stop:
                if self.stop.is_set():
                    raise Stopped
                data = body.read(min(PIECE_BYTES, stop - at))
                if not data:
                    return
                watch.saw(len(data))
                at += len(data)
                yield data
            if stop == file.num_bytes or body.reply.status == 206:
                body.read(1)  # the end is seen, and the connection can be used again

    def _require_usable(self, file: RemoteFile, body: Body, start: int, stop: int, known: str | None) -> None:
        """Refuse an answer whose bytes are not those that were asked for."""
        reply = body.reply
        if reply.status in TRANSIENT:
            raise Fault(f"HTTP {reply.status}", reply.retry_after)
        if reply.total is not None and reply.total != file.num_bytes and reply.status in (200, 206, 416):
            if reply.status == 200 and reply.content_type == "text/html":
                raise Fault("a web page in place of the file")
            raise replaced(file, self.transport.where, f"{file.num_bytes} bytes", reply.total)
        if reply.status not in (200, 206):
            raise Fault(f"HTTP {reply.status}")
        if reply.encoding != "identity" or reply.content_type.startswith("multipart/"):
            raise Fault("an answer in a form that was not asked for")
        if reply.status == 206:
            if reply.start != start or (start == 0 and stop == file.num_bytes):
                raise Fault(f"asked from byte {start:,}, the server sent from {reply.start:,}")
            if reply.length is not None and reply.length > stop - start:
                raise Fault(f"asked for {stop - start:,} bytes, the server sent {reply.length:,}")
        elif reply.total is None:
            raise Fault("the server does not say how long the file is")
        if known is not None and reply.validator not in (None, known):
            raise replaced(file, self.transport.where, known, reply.validator)
        with self._lock:
            first = self._validators.setdefault(file.path, reply.validator)
        if first != reply.validator and None not in (first, reply.validator):
            raise replaced(file, self.transport.where, first, reply.validator)


class Restarted(Exception):
    """The server names no version of the file: bytes from two requests must not be joined."""


class _Watch:
    """Sees a body that trickles."""

    def __init__(self, transport: Transport) -> None:
        self._limits, self._since, self._num_bytes = transport.limits, time.monotonic(), 0

    def saw(self, num: int) -> None:
        self._num_bytes += num
        if (elapsed := time.monotonic() - self._since) >= self._limits.stall_seconds:
            if self._num_bytes < self._limits.stall_bytes:
                raise Fault(f"only {self._num_bytes} bytes in {elapsed:.0f} s")
            self._since, self._num_bytes = time.monotonic(), 0


def _whole(body: Body, most_bytes: int) -> bytes:
    """The whole body of an answer, once."""
    reply, data = body.reply, b""
    if reply.status != 200 or reply.encoding != "identity" or reply.content_type == "text/html":
        raise Fault(f"HTTP {reply.status}, {reply.content_type}", reply.retry_after)
    while len(data) <= most_bytes and (more := body.read(PIECE_BYTES)):
        data += more
    if len(data) != reply.total and reply.total is not None:
        raise Fault(f"{len(data):,} bytes of {reply.total:,}")
    return data


def _skip(file: RemoteFile, body: Body, num: int, where: str) -> None:
    """Read past bytes that a server sent though they were not asked for."""
    if num > SKIP_BYTES:
        raise ignores_ranges(file, where)
    while num and (data := body.read(min(PIECE_BYTES, num))):
        num -= len(data)
    if num:
        raise Fault("the connection ended before the part that was asked for")


def read_part(pump: Pump, file: RemoteFile, start: int, stop: int) -> bytes:
    """A part of a file in memory; see `Pump.pieces`."""
    for _ in range(pump.transport.limits.attempts):
        try:
            return b"".join(pump.pieces(file, start, stop))
        except Restarted:
            continue
    raise ServerFault(
        "the connection is cut again and again, and the server names no version of the file",
        got="neither a strong ETag nor a Last-Modified",
        where=pump.transport.url(file.path),
    )
