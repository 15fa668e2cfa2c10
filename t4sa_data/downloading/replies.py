"""What a server's answer to a request for (the rest of) a file means. Pure: headers in, decision out (RFC 9110)."""

from __future__ import annotations

import email.utils
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC

TRANSIENT = frozenset({408, 425, 429, *range(500, 600)} - {501, 505})
"""Statuses after which the same request may succeed."""
_NUMBER = r"([0-9]{1,18})"  # more digits are no size, and Python refuses to convert thousands of them
_CONTENT_RANGE = re.compile(rf"bytes (?:{_NUMBER}-{_NUMBER}|\*)/(?:{_NUMBER}|\*)")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The part of an answer's head that matters."""

    status: int
    length: int | None
    """Bytes of the body; None: not said."""
    total: int | None
    """Bytes of the whole file; None: not said."""
    start: int = 0
    """Byte of the file where the body starts; -1: not said, though it is a part."""
    validator: str | None = None
    """Strong ETag, else Last-Modified: what `If-Range` may hold."""
    etag: str | None = None
    last_modified: str | None = None
    content_type: str = ""
    encoding: str = ""
    is_chunked: bool = False
    """The body says itself where it ends."""
    retry_after: float | None = None
    """Seconds."""


def read_reply(status: int, headers: Mapping[str, str], now: float) -> Reply:
    """Read the head of an answer.

    Args:
        status: HTTP status.
        headers: by name; case does not matter where the mapping says so.
        now: seconds since the epoch, for a `Retry-After` that is a date.
    """
    get = {name.lower(): value.strip() for name, value in headers.items()}.get
    length = _number(get("content-length"))
    start, total = -1 if status == 206 else 0, length if status == 200 and get("transfer-encoding") is None else None
    if status in (206, 416) and (match := _CONTENT_RANGE.fullmatch(get("content-range") or "")):
        start = int(match[1]) if match[1] else -1
        total = int(match[3]) if match[3] else None
        length = int(match[2]) - start + 1 if match[2] and length is None else length
    etag, modified = _clean(get("etag")), _clean(get("last-modified"))
    strong = etag if etag and not etag.startswith("W/") else None
    return Reply(
        status=status,
        length=length,
        total=total,
        start=start,
        validator=strong or (modified if not etag else None),
        etag=etag,
        last_modified=modified,
        content_type=(get("content-type") or "").split(";")[0].strip().lower(),
        encoding=(get("content-encoding") or "identity").lower(),
        is_chunked=(get("transfer-encoding") or "").lower() == "chunked",
        retry_after=_retry_after(get("retry-after"), now),
    )


def _clean(text: str | None) -> str | None:
    """A value that can be sent back: none that is empty or, from a folded line, has a line break in it."""
    return text if text and text.isprintable() else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(_NUMBER, text) else None


def _retry_after(text: str | None, now: float) -> float | None:
    """Seconds of a `Retry-After`, which is a number of seconds or an HTTP date.

    >>> _retry_after("120", 0.0), _retry_after("Thu, 01 Jan 1970 00:02:00 GMT", 90.0), _retry_after("soon", 0.0)
    (120.0, 30.0, None)
    """
    if text is None:
        return None
    if (seconds := _number(text)) is not None:
        return float(seconds)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):  # the parser's ways to say that it is no date
        return None


def jitter(faults: int, base_seconds: float, most_seconds: float, rng: random.Random) -> float:
    """Seconds to wait after the n-th fault in a row: full jitter (M. Brooker, "Exponential Backoff And Jitter", 2015).

    >>> 0 <= jitter(3, 1.0, 60.0, random.Random(0)) <= 8
    True
    """
    return rng.uniform(0, min(most_seconds, base_seconds * 2**faults))


@dataclass(frozen=True)
class Append:
    """The body goes on where asked."""


@dataclass(frozen=True)
class Restart:
    """What is here cannot be gone on with: begin at byte 0, with this very body where `body` is true."""

    why: str
    body: bool


@dataclass(frozen=True)
class Complete:
    """Nothing is missing."""


@dataclass(frozen=True)
class Fault:
    """An answer that makes no sense; worth another try."""

    why: str


Decision = Append | Restart | Complete | Fault


def decide(reply: Reply, asked: int, have: int, validator: str | None, total: int | None) -> Decision:
    """What to do with an answer of status 200, 206 or 416.

    Args:
        reply: the answer.
        asked: first byte asked for; 0: no range was asked for.
        have: bytes of the file that are here.
        validator: of the file they belong to.
        total: bytes of that file; None: not known.
    """
    changed = _changed(reply, validator, total)
    if reply.status == 200:
        if asked == 0:
            return Append() if have == 0 else Restart("it begins at byte 0", body=True)
        return Restart(changed or "the site does not send parts of this file", body=True)
    if asked == 0:
        return Fault(f"HTTP {reply.status}, and no part of the file was asked for")
    if reply.status == 416:
        if reply.total is not None and reply.total == have and changed is None:
            return Complete()
        return Restart(changed or "the site has no such part of the file", body=False)
    if reply.content_type.startswith("multipart/"):
        return Restart("the site sent several parts for one", body=False)
    if changed is not None:
        return Restart(changed, body=False)
    if reply.start != asked:
        sent = f"from byte {reply.start}" if reply.start >= 0 else "and did not say from where"
        return Restart(f"asked from byte {asked}, the site sent {sent}", body=False)
    if reply.total is None and total is None:
        return Restart("the site does not say how long the file is", body=False)  # when would it be whole?
    return Append()


def _changed(reply: Reply, validator: str | None, total: int | None) -> str | None:
    if None not in (validator, reply.validator) and validator not in (reply.etag, reply.last_modified):
        return f"the file changed on the site (it was {validator}, it is {reply.validator})"
    if total is not None and reply.total is not None and reply.total != total:
        return f"the file changed on the site (it had {total} bytes, it has {reply.total})"
    return None
