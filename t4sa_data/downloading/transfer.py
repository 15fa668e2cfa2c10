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
from t4sa_data.downloading.part import Part
from t4sa_data.downloading.replies import TRANSIENT, Append, Complete, Fault, Reply, Restart, decide, jitter
from t4sa_data.downloading.site import Answer, Site
from t4sa_data.errors import DiskSpaceError, ServerFault, SourceChanged, WrongContent

READ_BYTES = 1 << 20
NETWORK_FAULTS = (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError, ConnectionError)


class Stopped(Exception):
    """The run was asked to end; what is here is kept."""


class _Cut(Exception):
    """A fault of site or network that is worth another try; the message says which."""

    def __init__(self, why: str, wait_seconds: float | None = None) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


@dataclass(kw_only=True)
class Transfer:
    """One file on its way.

    After `run` the part holds the whole file; nothing has its final name yet.
    """

    site: Site
    url: str
    part: Part
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

    def run(self) -> None:
        """Bring what is missing.

        Raises:
            CredentialsError, NotOnServer, WrongContent: another try would end alike.
            ServerFault: too many faults in a row.
            SourceChanged: the file on the site keeps changing.
            DiskSpaceError, OutputError: the disk does not take it.
            Stopped: `stop` was set.
        """
        limits, faults, rng = self.site.limits, 0, random.Random()
        if why := self.part.take_up(self.url):
            self.say(f"{self.part.path.name}: starting over, {why}")
        elif self.part.have:
            self.say(f"{self.part.path.name}: {self.part.have:,} bytes are here, going on")
        restarts = 0
        while True:
            before = self.part.have
            try:
                if self._once():
                    return
                restarts += 1
                why, wait = "the file on the site changed again and again", 0.0
                if restarts > limits.attempts:
                    raise SourceChanged(why, where=self.url, hint="Run the command again later.")
                continue
            except _Cut as error:
                why, asked_wait = str(error), error.wait_seconds
            except NETWORK_FAULTS as error:
                why, asked_wait = type(error).__name__, None
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
            self.say(f"{self.part.path.name}: {why}; again in {wait:.0f} s")
            if self.stop.wait(wait):
                raise Stopped

    def _once(self) -> bool:
        """One request; True when the file is whole, False to begin again."""
        part, overlap = self.part, self.site.limits.overlap_bytes
        if self.total is None and part.have == 0:
            self._ask_head()
        identity = part.identity
        resumes = identity is not None and identity.validator is not None and part.have > 0
        if part.have and not resumes:
            part.restart()
        asked = max(0, part.have - overlap) if resumes else 0
        if part.have and asked == 0:
            part.restart()
        headers = {"Range": f"bytes={asked}-", "If-Range": str(identity and identity.validator)} if asked else {}
        with self.site.open(self.url, headers=headers, now=time.time()) as answer:
            reply = answer.reply
            if reply.status in TRANSIENT:
                raise _Cut(f"HTTP {reply.status}", reply.retry_after)
            if reply.status not in (200, 206, 416):
                raise ServerFault("an answer that was not expected", got=f"HTTP {reply.status}", where=self.url)
            validator, total = (identity.validator, identity.total) if identity else (None, self.total)
            decision = decide(reply, asked, part.have, validator, total)
            if isinstance(decision, Complete):
                return True
            if isinstance(decision, Fault):
                raise _Cut(decision.why)
            if isinstance(decision, Restart):
                self.say(f"{part.path.name}: starting over, {decision.why}")
                part.restart()
                self.total = None
                if not decision.body:
                    return False
                asked = 0
            assert isinstance(decision, Append | Restart)
            if asked and not self._overlap_agrees(answer, part.have - asked):
                self.say(f"{part.path.name}: starting over, the file changed and its validator did not")
                part.restart()
                self.total = None
                return False
            self._receive(answer, reply)
        return True

    def _ask_head(self) -> None:
        """Learn the file's size before its bytes come: an answer that contradicts it is seen."""
        with self.site.open(self.url, method="HEAD", now=time.time()) as answer:
            if answer.reply.status == 200:
                self.total = answer.reply.total
                content.refuse_page(answer.reply, self.url)
            elif answer.reply.status in TRANSIENT:
                raise _Cut(f"HTTP {answer.reply.status}", answer.reply.retry_after)

    def _overlap_agrees(self, answer: Answer, num: int) -> bool:
        here, there = self.part.tail(num), b""
        while len(there) < num:
            data = answer.read(num - len(there))
            if not data:
                raise _Cut("the connection was cut")
            there += data
        return here == there

    def _receive(self, answer: Answer, reply: Reply) -> None:
        """Take the body; raises `_Cut` where it ends early."""
        part, limits = self.part, self.site.limits
        content.refuse_page(reply, self.url)
        content.refuse_encoding(reply, self.suffix, self.url)
        if part.have == 0:
            if self.total is not None and reply.total is not None and reply.total != self.total:
                said, self.total = self.total, None
                raise _Cut(f"the site says {said} bytes, then {reply.total}")
            part.begin(self.url, replace(reply, total=reply.total if reply.total is not None else self.total))
        assert part.identity is not None
        self.reply, self.total = reply, part.identity.total
        self._require_space()
        first, window_start, window_bytes, checked = part.have == 0, time.monotonic(), 0, part.have
        while True:
            if self.stop.is_set():
                raise Stopped
            data = answer.read(READ_BYTES)
            if not data:
                break
            if first:
                while len(data) < content.MAGIC_BYTES and (more := answer.read(content.MAGIC_BYTES)):
                    data += more
                content.require_magic(data, self.suffix, self.url)
                first = False
            if self.total is not None and part.have + len(data) > self.total:
                raise WrongContent("more bytes than the site said", expected=self.total, where=self.url)
            part.write(data)
            self.progress(part.have, self.total)
            window_bytes += len(data)
            if (elapsed := time.monotonic() - window_start) >= limits.stall_seconds:
                if window_bytes < limits.stall_bytes:
                    raise _Cut(f"only {window_bytes} bytes in {elapsed:.0f} s")
                window_start, window_bytes = time.monotonic(), 0
            if part.have - checked >= limits.checkpoint_bytes:
                checked = part.have
                self._require_space()
        if self.total is None:
            if answer.response.headers.get("Transfer-Encoding", "").lower() != "chunked":
                raise WrongContent("the site does not say how long the file is", where=self.url)
            return
        if part.have != self.total:
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
