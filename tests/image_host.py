"""A host of images on loopback, over real sockets, that fails in every way: deterministic by path, and it counts.

`with ImageHost({"/a.jpg": image(data)}) as host:` serves in a thread of its own until the block ends. A route is one
answer, a list of answers (the n-th request gets the n-th, the last one stays), or a function of the request.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

HTML = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Please log in.</body></html>"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, and how it goes wrong."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    """Values of `X-Robots-Tag`, a header line each."""
    wait_seconds: float = 0.0
    """Before the first byte."""
    drip_seconds: float = 0.0
    """Between two pieces of the body, of `drip_bytes` each."""
    drip_bytes: int = 256
    cut_at: int | None = None
    """Bytes of the body after which the connection is cut."""
    length: int | None = None
    """`Content-Length` as it is told; None: the true one; -1: none is told, the end of the connection ends the body."""
    chunked: bool = False
    hang_up: bool = False
    """No answer: the connection is closed."""


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    path: str
    """With its query."""
    headers: dict[str, str]
    """Names in lower case."""
    number: int
    """Of the requests for this path, from 1."""
    address: str
    """That it came to."""
    at: float
    """Seconds of `time.monotonic`."""


Route = Answer | Sequence[Answer] | Callable[[Request], Answer]


def image(data: bytes, mime: str = "image/jpeg", **more: Any) -> Answer:
    """An image, or what says that it is one."""
    return Answer(body=data, headers={"Content-Type": mime}, **more)


def status(number: int, **headers: str) -> Answer:
    """An answer without an image; underscores in names of headers are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=number, body=b"no image here", headers={"Content-Type": "text/plain", **named})


def redirect(location: str, number: int = 302) -> Answer:
    return Answer(status=number, headers={"Location": location})


def then(*answers: Answer) -> Route:
    """One after the other; the last one stays."""
    return answers


def in_future(seconds: float) -> str:
    """A moment as HTTP writes it."""
    return formatdate(time.time() + seconds, usegmt=True)


def faults(data: bytes, other: bytes = b"") -> dict[str, Route]:
    """Every way to fail, by path; what they give that heal is `data`.

    Args:
        data: an image.
        other: a picture that says that the picture is gone.
    """
    return {
        "/good.jpg": image(data),
        "/404.jpg": status(404),
        "/410.jpg": status(410),
        "/403.jpg": status(403),
        "/418.jpg": status(418),
        "/204.jpg": Answer(status=204),
        "/429.jpg": then(status(429, Retry_After="0"), image(data)),
        "/429-date.jpg": then(status(429, Retry_After=in_future(1)), image(data)),
        "/503-twice.jpg": then(status(503), status(503), image(data)),
        "/500.jpg": status(500),
        "/slow.jpg": image(data, wait_seconds=60),
        "/drip.jpg": image(data, drip_seconds=0.2),
        "/cut.jpg": image(data, cut_at=len(data) // 2),
        "/cut-once.jpg": then(image(data, cut_at=10), image(data)),
        "/hang-up.jpg": Answer(hang_up=True),
        "/long.jpg": image(data, length=len(data) + 1000),
        "/close.jpg": image(data, length=-1),
        "/close-cut.jpg": image(data[: len(data) // 2], length=-1),
        "/chunked.jpg": image(data, chunked=True),
        "/chunked-cut.jpg": image(data, chunked=True, cut_at=len(data) // 2),
        "/gzip.jpg": Answer(body=gzip.compress(data), headers={"Content-Encoding": "gzip"}),
        "/gzip-bomb.jpg": Answer(body=gzip.compress(data + bytes(1 << 24)), headers={"Content-Encoding": "gzip"}),
        "/gzip-not.jpg": Answer(body=data, headers={"Content-Encoding": "gzip"}),
        "/br.jpg": Answer(body=data, headers={"Content-Encoding": "br"}),
        "/film.jpg": image(b"\0\0\0\x18ftypmp42" + bytes(2000), "video/mp4"),
        "/text-type.jpg": image(data, "text/plain"),
        "/redirect.jpg": redirect("good.jpg"),
        "/redirect-twice.jpg": redirect("/redirect.jpg", 308),
        "/loop.jpg": redirect("/loop-back.jpg"),
        "/loop-back.jpg": redirect("/loop.jpg"),
        "/nowhere.jpg": Answer(status=302),
        "/to-private.jpg": redirect("http://10.0.0.1/good.jpg"),
        "/to-metadata.jpg": redirect("http://[::ffff:169.254.169.254]/latest"),
        "/to-file.jpg": redirect("file:///etc/passwd"),
        "/html.jpg": image(HTML),
        "/huge.jpg": image(data, length=1 << 40),
        "/huge-chunked.jpg": image(data + bytes(1 << 20), chunked=True),
        "/empty.jpg": image(b""),
        "/noai.jpg": image(data, tags=("otherbot: noindex", "noarchive, noai")),
        "/other-noai.jpg": image(data, tags=("otherbot: noai",)),
        "/tdm.jpg": Answer(body=data, headers={"tdm-reservation": "1"}),
        "/gone.png": image(other or HTML, "image/png"),
    }


class ImageHost:
    """Serves routes on loopback. Use as a context manager.

    Args:
        routes: answers by path, or by path and query; a function gets what no route names. Elsewhere 404.
        addresses: of this machine, all with the same port.
        port: 0 for any.
        tls: speak https with it.
    """

    def __init__(
        self,
        routes: Mapping[str, Route] | Callable[[Request], Answer],
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.routes: dict[str, Route] = {} if callable(routes) else dict(routes)
        self.fallback = routes if callable(routes) else lambda _request: status(404)
        self.addresses, self.port, self._tls = addresses, port, tls
        self.requests: list[Request] = []
        self.counts: Counter[str] = Counter()
        self.open = self.most_open = 0
        """Requests that are being answered, and the most of them at a time."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, path: str, host: str | None = None) -> str:
        """Of a path, by the first address or by a name."""
        return f"http://{host or self.addresses[0]}:{self.port}{path}"

    def __enter__(self) -> ImageHost:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._servers = []
        for address in self.addresses:
            listener = socket.create_server((address, self.port), backlog=512)
            self.port = listener.getsockname()[1]
            self._servers.append(await asyncio.start_server(self._serve, sock=listener, ssl=self._tls))

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()
            self._tasks.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays."""
        start = await reader.readexactly(1)
        if start == b"\x16":  # TLS where none is spoken
            writer.write(b"HTTP/1.1 400 What?\r\nContent-Length: 0\r\n\r\n")
            return False
        first, *lines = (start + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = first.split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        self.counts[path] += 1
        address = writer.get_extra_info("sockname")[0]
        request = Request(path, headers, self.counts[path], address, time.monotonic())
        self.requests.append(request)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(self._find(request), writer)
        finally:
            self.open -= 1

    def _find(self, request: Request) -> Answer:
        route = self.routes.get(request.path, self.routes.get(request.path.split("?")[0], self.fallback))
        if isinstance(route, Answer):
            return route
        if callable(route):
            return route(request)
        return route[min(request.number, len(route)) - 1]

    async def _answer(self, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        if answer.wait_seconds:
            await asyncio.sleep(answer.wait_seconds)
        if answer.hang_up:
            writer.transport.abort()
            return False
        body = answer.body if answer.cut_at is None else answer.body[: answer.cut_at]
        head = [f"HTTP/1.1 {answer.status} Whatever", *(f"{name}: {value}" for name, value in answer.headers.items())]
        head += [f"X-Robots-Tag: {tag}" for tag in answer.tags]
        if answer.chunked:
            head.append("Transfer-Encoding: chunked")
        elif answer.length != -1 and answer.status != 204:
            head.append(f"Content-Length: {len(answer.body) if answer.length is None else answer.length}")
        writer.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        await self._send(answer, body, writer)
        return answer.cut_at is None and answer.length is None

    async def _send(self, answer: Answer, body: bytes, writer: asyncio.StreamWriter) -> None:
        size = answer.drip_bytes if answer.drip_seconds else 1 << 16 if answer.chunked else max(len(body), 1)
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if answer.chunked else piece)
            await writer.drain()
            if answer.drip_seconds:
                await asyncio.sleep(answer.drip_seconds)
        if answer.chunked and answer.cut_at is None:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
