"""A request, its answer, and what may go wrong between the two."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

Kind = Literal["500", "502", "503", "504", "429", "412", "409", "expired", "stale", "drop", "cut", "slow"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A line of the log."""

    number: int
    """From 1, in order of arrival."""
    origin: Literal["hub", "cdn"]
    method: str
    path: str
    """Decoded, without the query."""
    query: str
    status: int
    """0: the connection was closed without an answer."""
    authorised: bool
    """Whether a token was sent along, a wrong one too."""
    user: str | None
    sent: int
    """Bytes of the request's body."""
    received: int
    """Bytes of the answer's body that were sent out."""

    def __str__(self) -> str:
        return f"{self.method} {self.path} -> {self.status}"


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request as the routes see it."""

    origin: Literal["hub", "cdn"]
    method: str
    path: str
    """As it was sent, without the query."""
    query: str
    headers: Mapping[str, str]
    """Names as in Content-Type, however they were sent."""
    body: bytes
    token: str | None
    user: str | None
    """Whose token it is; None without one."""
    role: str = "write"

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    def asked(self, name: str, default: str = "") -> str:
        """A value of the query."""
        return parse_qs(self.query, keep_blank_values=True).get(name, [default])[0]

    def __str__(self) -> str:
        return f"{self.method} {unquote(self.path)}" + (f"?{self.query}" if self.query else "")


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """A route's way out: the answer is an error."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        super().__init__(message)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = Answer(status, _dump({"error": message}), error_headers(code, message) | named)


def error_headers(code: str | None, message: str) -> dict[str, str]:
    """What the client tells errors apart by; over http it knows no repository without the code."""
    codes = {"X-Error-Code": code} if code else {}
    return codes | {"X-Error-Message": message, "Content-Type": "application/json; charset=utf-8"}


def as_json(value: object, status: int = 200, **headers: str) -> Answer:
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Answer(status, _dump(value), kind | {name.replace("_", "-"): text for name, text in headers.items()})


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def as_xml(status: int, code: str) -> Answer:
    """An error of the object store."""
    return Answer(status, f"<Error><Code>{code}</Code></Error>".encode(), {"Content-Type": "application/xml"})


def as_bytes(call: Call, data: bytes, headers: dict[str, str]) -> Answer:
    """A file, or the range asked for: If-Range is honoured, several ranges are not."""
    headers = {"Accept-Ranges": "bytes"} | headers
    unchanged = call.headers.get("If-Range", headers["ETag"]) == headers["ETag"]
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("Range", "").strip())
    if not match or not unchanged or not any(match.groups()):
        return Answer(200, data, headers)
    low, high = match.groups()
    start = int(low) if low else max(0, len(data) - int(high))
    stop = min(len(data), int(high) + 1 if low and high else len(data))
    if start >= len(data):
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})


@dataclass
class Fault:
    """Something that goes wrong with the `nth` request (from 1) that `match` is found in, and with the next ones too
    when `times` says so.

    `match` is a regular expression over "METHOD /path?query", decoded path. Kinds: a status of the Hub ("429" with
    RateLimit and Retry-After of `seconds`), "expired" (403 of the object store), "stale" (401: the token is no longer
    good), "drop" (the connection closes without an answer), "cut" (it closes after `after` bytes of the answer's
    body), "slow" (answered after `seconds`). The request is not carried out, except under "cut", "slow", and where
    `done` says that only the answer was lost.
    """

    match: str
    nth: int = 1
    kind: Kind = "503"
    times: int = 1
    done: bool = False
    after: int = 0
    seconds: float = 0
    seen: int = field(default=0, init=False)
    """Requests that matched so far."""

    def strikes(self, call: Call) -> bool:
        """Count this request; whether it is one to go wrong."""
        if not re.search(self.match, str(call)):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times

    @property
    def carried_out(self) -> bool:
        return self.done or self.kind in ("cut", "slow")

    def answer(self) -> Answer | None:
        """What is said instead of the true answer; None: nothing is, or the true one."""
        if self.kind in ("drop", "cut", "slow"):
            return None
        if self.kind == "expired":
            return as_xml(403, "AccessDenied")
        messages = {
            "429": "We had to rate limit you.",
            "412": "A commit has happened since. Please refresh and try again.",
            "409": "Another commit is in progress.",
            "stale": "Invalid credentials in Authorization header",
        }
        message = messages.get(self.kind, "Internal Error - We're working hard to fix this as soon as possible!")
        answer = Refused(401 if self.kind == "stale" else int(self.kind), None, message).answer
        if self.kind == "429":
            wait = round(self.seconds)
            limits = {"RateLimit": f'"api";r=0;t={wait}', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
            answer.headers.update(limits | {"Retry-After": str(wait)})
        return answer
