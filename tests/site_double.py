"""A double of the official site on loopback: HTTP Basic, ranges, validators, and a script of faults.

`OfficialSite(files)` serves `files` at `url` to one user; a second origin, `other_url`, is where some faults redirect
to. Each `Fault` of `faults` is used up by one GET (or HEAD) that has the right credentials; with none left, the site is
perfect. `log` keeps every request of both origins, with the `Authorization` that came. Standard library only.
"""

from __future__ import annotations

import base64
import gzip
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote

LOGIN_PAGE = b"<!DOCTYPE html>\n<html><title>Log in</title><form>" + b"<p>Your session has expired.</p>" * 40
PIECE_BYTES = 16 << 10
_FIRST_CHANGE = 1_506_938_400  # seconds; Last-Modified of the first version


@dataclass(frozen=True)
class Fault:
    """What happens to one request. Kinds:

    - `none`: nothing but what the fields below say.
    - `status`: answers `status`, with `retry_after` if given. `reset`: closes the connection without an answer.
    - `drip`: sends one byte every `seconds`. `stall`: sends `at` bytes, then nothing for `seconds`. `mute`: no answer.
    - `length_long`, `length_short`: `Content-Length` is 1000 more, or less, than the file has (also in HEAD).
    - `chunked`: no length. `torn`: the same, and the cut is inside a chunk. `until_close`: no length, and not chunked.
    - `empty`: `Content-Length: 0`.
    - `gzip`: compressed, though identity was asked for.
    - `login`: a page with status 200. `login_lying`: the same, as `application/x-tar`.
    - `redirect_same`, `redirect_other`, `redirect_gated` (wants credentials), `redirect_login` (a page there).
    - `new_validator`: the file is the same. `changed`: the next version of the file. `changed_quietly`: validator kept.
    - `weak`: a weak ETag. `no_validator`: neither ETag nor Last-Modified. `date_only`: no ETag.
    - `wrong_range`: 206 from 7 bytes before. `lying_range`: bytes from 7 before, `Content-Range` as asked.
    - `unasked_206`: a part though none was asked for. `multipart`: `multipart/byteranges`.
    - `range_ignored`: 200 (so does `gzip`). `no_range_total`: `Content-Range: bytes a-b/*`.
    - `unsatisfiable`: 416 with the file's size.
    """

    kind: str = "none"
    at: int | None = None
    """The connection is cut after so many bytes of the body."""
    status: int = 503
    retry_after: str | None = None
    seconds: float = 0.0
    method: str = "GET"
    name: str | None = None
    """Of the file that it waits for; None: the next request, whatever it asks for."""


@dataclass
class Request:
    """One request that came."""

    origin: str
    """`site` or `other`."""
    method: str
    path: str
    authorization: str | None
    range: str | None
    if_range: str | None
    status: int = 0
    num_bytes: int = 0
    """Of the body, as far as they were sent."""


@dataclass
class OfficialSite:
    """Use as a context manager.

    Args:
        files: by name.
        user: who may read them.
        password: of that user.
        faults: the script.
        piece_seconds: pause between pieces of `PIECE_BYTES`, for those who want to be there in the middle.
        is_open: nobody is asked for credentials.
        next_files: by name, the version that `changed` and `changed_quietly` put in place (they swap the two).
    """

    files: dict[str, bytes]
    user: str = "user"
    password: str = "password"
    faults: list[Fault] = field(default_factory=list)
    next_files: dict[str, bytes] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    is_open: bool = False
    piece_seconds: float = 0.0
    realm: str = 'Basic realm="T4SA, the \\"data\\""'

    def __post_init__(self) -> None:
        self._versions = dict.fromkeys(self.files, 1)
        self._lock = threading.Lock()
        self.closing = threading.Event()

    def __enter__(self) -> OfficialSite:
        self._servers = [_Server(("127.0.0.1", 0), _handler(self, origin)) for origin in ("site", "other")]
        self.url, self.other_url = (f"http://127.0.0.1:{server.server_address[1]}/" for server in self._servers)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    @property
    def authorization(self) -> str:
        """What a client has to send."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def requests(self, method: str = "GET", origin: str = "site") -> list[Request]:
        """Those of one method, without the ones that were asked for credentials."""
        return [r for r in self.log if (r.method, r.origin) == (method, origin) and r.status != 401]

    def num_bytes_sent(self) -> int:
        """All bytes of bodies."""
        return sum(request.num_bytes for request in self.log if request.status in (200, 206))

    def leaked(self) -> list[Request]:
        """Requests that took credentials to the other origin. There must be none."""
        return [request for request in self.log if request.origin == "other" and request.authorization]

    def take_fault(self, method: str, name: str) -> Fault:
        """The next fault of the script, if it is for this method and file."""
        with self._lock:
            is_next = self.faults and self.faults[0].method == method and self.faults[0].name in (None, name)
            return self.faults.pop(0) if is_next else Fault()

    def change(self, name: str, *, quietly: bool = False, same_bytes: bool = False) -> None:
        """Put the next version of a file in place."""
        with self._lock:
            if not same_bytes:
                self.files[name], self.next_files[name] = self.next_files[name], self.files[name]
            if not quietly:
                self._versions[name] += 1

    def validators(self, name: str) -> dict[str, str]:
        """ETag and Last-Modified of a file."""
        version = self._versions[name]
        return {
            "ETag": f'"{name}-v{version}"',
            "Last-Modified": formatdate(_FIRST_CHANGE + 3600 * version, usegmt=True),
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away, or was killed, is no news."""


def _handler(site: OfficialSite, origin: str) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.site, Handler.origin = site, origin
    return Handler


class _Handler(BaseHTTPRequestHandler):
    site: OfficialSite
    origin: str
    range_end: int | None = None
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        """Keep the request in the log, and answer it."""
        get = self.headers.get
        came = get("Authorization"), get("Range"), get("If-Range")
        self.request_seen = Request(self.origin, self.command, self.path, *came)
        self.site.log.append(self.request_seen)
        try:
            self._site() if self.origin == "site" else self._other()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    do_HEAD = do_GET

    def _other(self) -> None:
        """Paths say what it does: /open/NAME serves, /gated/NAME wants credentials, /login/NAME has a page."""
        _, mode, name = self.path.split("/", 2)
        if mode == "gated":
            self._plain(401, b"", {"WWW-Authenticate": "Basic realm=elsewhere"})
        elif mode == "login":
            self._plain(200, LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"})
        else:
            self._serve(unquote(name), Fault())

    def _site(self) -> None:
        if not self.site.is_open and self.headers.get("Authorization") != self.site.authorization:
            self._plain(401, b"<html>no</html>", {"WWW-Authenticate": self.site.realm, "Content-Type": "text/html"})
            return
        name = unquote(self.path.removeprefix("/").removeprefix("moved/"))
        name = name if name in self.site.files else name.rpartition("/")[2]  # any folder will do
        fault = self.site.take_fault(self.command, name)
        if name not in self.site.files:
            self._plain(404, b"<html>no</html>")
        elif fault.kind == "status":
            retry = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            self._plain(fault.status, b"busy", retry)
        elif fault.kind == "reset":
            self.close_connection = True
        elif fault.kind == "mute":
            self.close_connection = True
            self.site.closing.wait(fault.seconds)
        elif fault.kind in ("login", "login_lying"):
            kind = "text/html; charset=utf-8" if fault.kind == "login" else "application/x-tar"
            self._plain(200, LOGIN_PAGE, {"Content-Type": kind, **self.site.validators(name)})
        elif fault.kind.startswith("redirect_"):
            mode = fault.kind.removeprefix("redirect_")
            to = f"/moved/{name}" if mode == "same" else f"{self.site.other_url}{_MODES[mode]}/{name}"
            self._plain(302, b"", {"Location": to})
        else:
            if fault.kind in ("new_validator", "changed", "changed_quietly"):
                same, quietly = fault.kind == "new_validator", fault.kind == "changed_quietly"
                self.site.change(name, quietly=quietly, same_bytes=same)
            self._serve(name, fault)

    def _plain(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, {"Content-Length": str(len(body)), **(headers or {})})
        self._send(body, Fault())

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.request_seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _serve(self, name: str, fault: Fault) -> None:
        """A file, or the range of it that was asked for."""
        data, kind = self.site.files[name], fault.kind
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **self.site.validators(name)}
        if kind == "weak":
            headers["ETag"] = f"W/{headers['ETag']}"
        if kind in ("no_validator", "date_only"):
            del headers["ETag"]
        if kind == "no_validator":
            del headers["Last-Modified"]
        start = self._asked(headers)
        if kind in ("range_ignored", "gzip"):
            start = None
        if kind == "unsatisfiable" or (start is not None and start >= len(data)):
            self._plain(416, b"", {"Content-Range": f"bytes */{len(data)}", **self.site.validators(name)})
            return
        if kind == "unasked_206":
            start = 100
        if start is None:
            self._whole(data, headers, fault)
        else:
            self._range(data, start, headers, fault)

    def _asked(self, headers: dict[str, str]) -> int | None:
        """First byte of the range that the request is for (its end is `range_end`); None: the whole file."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        condition = self.headers.get("If-Range")
        holds = condition is None or condition in (headers.get("ETag"), headers.get("Last-Modified"))
        self.range_end = int(match[2]) + 1 if match and match[2] else None
        if not match or not holds or self.command != "GET":
            return None
        return int(match[1])

    def _whole(self, data: bytes, headers: dict[str, str], fault: Fault) -> None:
        if fault.kind == "gzip":
            data = gzip.compress(data, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        length = len(data) + {"length_long": 1000, "length_short": -1000, "empty": -len(data)}.get(fault.kind, 0)
        if fault.kind in _CHUNKED:
            headers["Transfer-Encoding"] = "chunked"
        elif fault.kind == "until_close":
            self.close_connection = True
        else:
            headers["Content-Length"] = str(length)
        self._head(200, headers)
        self._send(data[:length], fault)

    def _range(self, data: bytes, start: int, headers: dict[str, str], fault: Fault) -> None:
        moved, size, data = max(0, start - 7), len(data), data[: self.range_end]
        body = data[moved if fault.kind in ("wrong_range", "lying_range") else start :]
        if fault.kind == "lying_range":
            body = body[: len(data) - start]
        told = moved if fault.kind == "wrong_range" else start
        total = "*" if fault.kind == "no_range_total" else str(size)
        headers["Content-Range"] = f"bytes {told}-{told + len(body) - 1}/{total}"
        if fault.kind == "multipart":
            boundary = "\r\n".join(["--gap", f"Content-Range: {headers.pop('Content-Range')}", "", ""])
            body = boundary.encode() + body + b"\r\n--gap--\r\n"
            headers["Content-Type"] = "multipart/byteranges; boundary=gap"
        if fault.kind in _CHUNKED:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(len(body) + {"length_long": 1000}.get(fault.kind, 0))
        self._head(206, headers)
        self._send(body, fault)

    def _send(self, body: bytes, fault: Fault) -> None:
        if self.command == "HEAD":
            return
        write: Callable[[bytes], object] = self._write_chunk if fault.kind in _CHUNKED else self._write
        is_cut = fault.at is not None or fault.kind == "length_long"
        end = len(body) if fault.at is None else min(fault.at, len(body))
        for piece in _pieces(body[:end], 1 if fault.kind == "drip" else PIECE_BYTES):
            write(piece)
            pause = fault.seconds if fault.kind == "drip" else self.site.piece_seconds
            if pause and self.site.closing.wait(pause):
                break
        if fault.kind == "stall":
            self.site.closing.wait(fault.seconds)
            is_cut = True
        if fault.kind == "torn":
            self.wfile.write(b"ff\r\n")
        if is_cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.kind in _CHUNKED:
            self.wfile.write(b"0\r\n\r\n")

    def _write(self, piece: bytes) -> None:
        self.request_seen.num_bytes += len(piece)
        self.wfile.write(piece)

    def _write_chunk(self, piece: bytes) -> None:
        self.request_seen.num_bytes += len(piece)
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))


_CHUNKED = ("chunked", "torn")
_MODES = {"other": "open", "gated": "gated", "login": "login"}


def _pieces(data: bytes, num_bytes: int) -> Iterator[bytes]:
    for start in range(0, len(data), num_bytes):
        yield data[start : start + num_bytes]


def http_date(seconds_from_now: float) -> str:
    """A date as `Retry-After` may hold it, in whole seconds."""
    return formatdate(time.time() + seconds_from_now, usegmt=True)
