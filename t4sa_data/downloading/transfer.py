"""Bring one file: ask, receive, wait and ask again, until every byte is here and nothing contradicts it."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import requests
import urllib3

from t4sa_data.downloading import content
from t4sa_data.downloading.part import NO_VALIDATOR, Part
from t4sa_data.downloading.replies import TRANSIENT, Append, Complete, Fault, Reply, Restart, decide, jitter
from t4sa_data.downloading.site import Answer, Limits, Site
from t4sa_data.errors import DiskSpaceError, ServerFault, WrongContent

READ_BYTES = 1 << 18
NETWORK_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError, ConnectionError)
_CONTRADICTION = "what it sends is longer than it says"


class Stopped(Exception):
    """The run was asked to end; what is here is kept."""


class _Cut(Exception):
    """A fault of site or network that is worth another try; the message says which."""

    def __init__(self, why: str, wait_seconds: float | None = None) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


class _Body:
    """The body of an answer, watched: it must not trickle, and it ends when the run does."""

    def __init__(self, answer: Answer, limits: Limits, stop: threading.Event) -> None:
        self._answer, self._limits, self._stop = answer, limits, stop
        self._since, self._num_bytes = time.monotonic(), 0

    def read(self, num: int) -> bytes:
        """Up to `num` bytes; empty at the end.

        Raises:
            Stopped: the run ends.
            _Cut: too few bytes for too long.
        """
        if self._stop.is_set():
            raise Stopped
        data = self._answer.read(num)
        self._num_bytes += len(data)
        if (elapsed := time.monotonic() - self._since) >= self._limits.stall_seconds:
            if data and self._num_bytes < self._limits.stall_bytes:
                raise _Cut(f"only {self._num_bytes} bytes in {elapsed:.0f} s")
            self._since, self._num_bytes = time.monotonic(), 0
        return data

    def read_exactly(self, num: int) -> bytes:
        """`num` bytes, fewer only where the body ends before."""
        data = b""
        while len(data) < num and (more := self.read(num - len(data))):
            data += more
        return data


@dataclass(kw_only=True)
class Transfer:
    """One file on its way.

    After `run` the part holds the whole file; nothing has its final name yet.
    """

    site: Site
    url: str
    part: Part
    structure: content.Structure
    """Of the file, followed as its bytes come."""
    suffix: str
    """Of the file's name: what its first bytes must look like."""
    progress: Callable[[int, int | None], object] = lambda _have, _total: None
    """Called with the bytes that are here and those of the whole file."""
    say: Callable[[str], object] = lambda _line: None
    stop: threading.Event = field(default_factory=threading.Event)
    total: int | None = None
    """Bytes of the whole file, as the site says."""
    reply: Reply | None = None
    """The head of the last answer that brought bytes."""
    _afresh: str | None = None
    """Why the next request asks for the whole file though bytes are here; None: it goes on behind them."""
    _num_dropped: int = 0
    """How many times bytes that were here were given up for a fresh start."""

    def run(self) -> None:
        """Bring what is missing. Ends: faults without progress are counted, and so are fresh starts.

        Raises:
            CredentialsError, NotOnServer, WrongContent: another try would end alike.
            ServerFault: too many faults in a row, or too many fresh starts.
            BadHeader: an archive that is damaged where its bytes have come.
            DiskSpaceError, OutputError: the disk does not take it.
            Stopped: `stop` was set.
        """
        limits, faults, rng = self.site.limits, 0, random.Random()
        if why := self.part.take_up(self.url):
            self._say(f"starting over, {why}")
        elif self.part.have:
            self._say(f"{self.part.have:,} bytes are here, going on")
        while True:
            before = self.part.have
            try:
                if self._once():
                    return
                continue
            except _Cut as error:
                why, asked_wait = str(error), error.wait_seconds
            except NETWORK_FAULTS as error:
                if self.stop.is_set():  # its connection was shut from here
                    raise Stopped from None
                why, asked_wait = f"{type(error).__name__} at byte {self.part.have:,}", None
            faults = 1 if self.part.have - before >= limits.progress_bytes else faults + 1
            if faults >= limits.attempts:
                raise ServerFault(
                    f"gave up after {faults} faults in a row",
                    got=why,
                    where=self.url,
                    hint="What has come is kept: the same command goes on. `t4sa download --probe` shows what the "
                    "site says.",
                )
            wait = jitter(faults, limits.backoff_seconds, limits.max_backoff_seconds, rng)
            wait = wait if asked_wait is None else asked_wait
            if wait > limits.max_wait_seconds:
                raise ServerFault(
                    f"the site asks to come back in {wait / 60:.0f} minutes", got=why, where=self.url,
                    hint="What has come is kept: run the same command then.",
                )  # fmt: skip
            self.part.checkpoint()
            self._say(f"{why}; again in {wait:.1f} s")
            if self.stop.wait(wait):
                raise Stopped

    def _say(self, words: str) -> None:
        self.say(f"{self.part.path.name}: {words}")

    def _once(self) -> bool:
        """One request; True when the file is whole, False to ask for it from its beginning."""
        part, identity = self.part, self.part.identity
        if part.have and identity is not None and identity.validator is None:
            self._start_afresh(NO_VALIDATOR)
        asked = 0 if self._afresh else max(0, part.have - self.site.limits.overlap_bytes)
        if asked == 0 and self.total is None:
            self._ask_head()
        headers = {"Range": f"bytes={asked}-", "If-Range": str(identity and identity.validator)} if asked else {}
        with self.site.open(self.url, headers=headers, now=time.time()) as answer:
            reply, body = answer.reply, _Body(answer, self.site.limits, self.stop)
            if reply.status in TRANSIENT:
                raise _Cut(f"HTTP {reply.status}", reply.retry_after)
            if reply.status not in (200, 206, 416):
                raise ServerFault("an answer that was not expected", got=f"HTTP {reply.status}", where=self.url)
            validator, total = (identity.validator, identity.total) if identity else (None, None)
            decision = decide(reply, asked, part.have, validator, total)
            if isinstance(decision, Complete):
                return True
            if isinstance(decision, Fault):
                raise _Cut(decision.why)
            if isinstance(decision, Restart) and not decision.body:
                self._start_afresh(decision.why)
                return False
            # Before anything that is here is given up for it.
            content.refuse_page(reply, self.url)
            content.refuse_encoding(reply, self.suffix, self.url)
            if isinstance(decision, Append) and asked:
                overlap = part.have - asked
                if body.read_exactly(overlap) != part.tail(overlap):
                    self._start_afresh("the file changed on the site, and its validator did not")
                    return False
                if reply.total is not None:
                    part.learn_total(reply.total)
                self._receive(body, reply)
            else:
                if isinstance(decision, Restart) and asked:
                    self._start_afresh(decision.why)
                self._begin(body, reply)
        return True

    def _start_afresh(self, why: str) -> None:
        """Let the next bytes come from the file's beginning. Those that are here stay until then."""
        if self._afresh is None:
            self._say(f"starting over, {why}")
        self._afresh, self.total = why, None

    def _ask_head(self) -> None:
        """Learn the file's size before its bytes come: an answer that contradicts it is seen."""
        with self.site.open(self.url, method="HEAD", now=time.time()) as answer:
            if answer.reply.status == 200:
                self.total = answer.reply.total
                content.refuse_page(answer.reply, self.url)
            elif answer.reply.status in TRANSIENT:
                raise _Cut(f"HTTP {answer.reply.status}", answer.reply.retry_after)

    def _begin(self, body: _Body, reply: Reply) -> None:
        """Take the whole file: look at its first bytes, then drop what is here."""
        said, total = self.total, reply.total if reply.total is not None else self.total
        if said != total and said is not None:
            self.total = None  # ask again
            raise _Cut(f"the site says {said} bytes, then {total}")
        if total is None and not reply.is_chunked:
            raise WrongContent("the site does not say how long the file is", where=self.url)
        first = body.read_exactly(content.MAGIC_BYTES)
        content.require_magic(first, self.suffix, self.url)
        if self.part.have:
            self._num_dropped += 1
            if self._num_dropped > self.site.limits.attempts:
                raise ServerFault(
                    f"started over {self._num_dropped - 1} times", got=self._afresh, where=self.url,
                    hint="The site does not keep still: run the same command later.",
                )  # fmt: skip
        self.part.begin(self.url, replace(reply, total=total))
        self.structure.reset()
        self._afresh = None
        self._receive(body, reply, first)

    def _receive(self, body: _Body, reply: Reply, data: bytes = b"") -> None:
        """Take the rest of a body behind `data` and what is here; raises `_Cut` where it ends early."""
        part, checked = self.part, self.part.have
        assert part.identity is not None
        self.reply, self.total = reply, part.identity.total
        self._require_space()
        while data := data or body.read(READ_BYTES):
            if self.total is not None and part.have + len(data) > self.total:
                self._start_afresh(_CONTRADICTION)
                raise _Cut(_CONTRADICTION)
            part.write(data)
            data = b""
            self.progress(part.have, self.total)
            if part.have - checked >= self.site.limits.checkpoint_bytes:
                checked = part.have
                self._require_space()
                self.structure.advance()
        if self.total is not None and part.have != self.total:
            raise _Cut(f"the connection was cut at byte {part.have:,} of {self.total:,}")

    def _require_space(self) -> None:
        missing = (self.total or 0) - self.part.have + self.site.limits.spare_bytes
        free = shutil.disk_usage(self.part.path.parent).free
        if free < missing:
            raise DiskSpaceError(
                "not enough disk for the download",
                expected=f"{missing / 1e9:.2f} GB free",
                got=f"{free / 1e9:.2f} GB",
                where=self.part.path.parent,
                hint="Free some, or give another --to. What has come is kept: the same command goes on.",
            )
