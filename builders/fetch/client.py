"""One URL to an image or a reason: attempts, redirects, robots.txt, limits, all checks. On aiohttp."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import aiohttp
from yarl import URL

from builders.fetch import answers, reasons
from builders.fetch.addresses import CheckedResolver, PrivateAddress, check_url, checked_socket
from builders.fetch.config import FetchConfig
from builders.fetch.journal import Outcome
from builders.fetch.limits import Hosts
from builders.fetch.reasons import Refused
from builders.fetch.robots import MAX_BYTES, MOST_REDIRECTS, Robots

T = TypeVar("T")


@dataclass(frozen=True)
class Redirect:
    """An answer that names another place."""

    location: str
    status: int


class Client:
    """Fetches images within one event loop. Use as an async context manager.

    Args:
        config: limits of the whole build.
        share: tasks among which they are divided.
        folder: of the build: answers about robots.txt are kept there.
    """

    def __init__(self, config: FetchConfig, share: int, folder: Path) -> None:
        self.config = config
        self._hosts = Hosts(config, share, str(folder))
        self._robots = Robots(folder / "robots", self._get_robots)
        self._phashes = {int(value, 16) for value in config.placeholder_phashes}

    async def __aenter__(self) -> Client:
        connector = aiohttp.TCPConnector(
            limit=0,  # turns are given by `Hosts`
            resolver=CheckedResolver(self.config),
            socket_factory=checked_socket(self.config),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # neither proxies nor netrc
            auto_decompress=False,
            headers={"User-Agent": self.config.user_agent, "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.config.connect_seconds),
            read_bufsize=1 << 18,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._robots.close()
        await self._session.close()

    async def fetch(self, url: str) -> tuple[Outcome, bytes]:
        """Fetch one image; never raises for what a host does."""
        try:
            return await self._tried(lambda: self._follow(url))
        except Refused as refused:
            return Outcome(reason=refused.reason, status=refused.status), b""

    async def _tried(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of the first attempt that does not fail in passing."""
        for attempt in range(1, self.config.attempts + 1):
            try:
                return await work()
            except Refused as refused:
                is_last = attempt == self.config.attempts or refused.is_final
                if is_last or refused.reason not in reasons.TRANSIENT:
                    raise
            seconds = self.config.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1)
            await asyncio.sleep(min(seconds, self.config.max_wait_seconds))
        raise AssertionError("no attempt")

    async def _follow(self, text: str) -> tuple[Outcome, bytes]:
        """One attempt: the URL, and where it leads."""
        url, seen, status = check_url(text, self.config), set[URL](), None
        while url not in seen and len(seen) <= self.config.max_redirects:
            seen.add(url)
            if self.config.respect_robots:
                delay = await self._robots.check(url)
                self._hosts.of(url.raw_host or "").slow_down(delay)
            answer = await self._ask(url, self._read_image)
            if not isinstance(answer, Redirect):
                return answer
            url, status = self._next(url, answer), answer.status
        raise Refused(reasons.REDIRECTS, status)

    def _next(self, url: URL, answer: Redirect) -> URL:
        try:
            return check_url(url.join(URL(answer.location)), self.config)
        except Refused as refused:
            raise Refused(refused.reason, answer.status) from None
        except (ValueError, UnicodeError):
            raise Refused(reasons.BAD_URL, answer.status) from None

    async def _ask(self, url: URL, read: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
        """One request, when it is its turn.

        Raises:
            Refused: whatever went wrong.
        """
        host = self._hosts.of(url.raw_host or "")
        async with host.turn():
            try:
                async with (
                    asyncio.timeout(self.config.request_seconds),
                    self._session.get(url, allow_redirects=False) as response,
                ):
                    if response.status in (429, 503):
                        self._pause(host.pause, response)
                    result = await read(response)
            except (Refused, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                refused = as_refused(error)
                host.tell(refused.reason in reasons.TRANSIENT)
                raise refused from None
            host.tell(False)
            return result

    def _pause(self, pause: Callable[[float], None], response: aiohttp.ClientResponse) -> None:
        seconds = answers.retry_after(response.headers.get("Retry-After"), time.time())
        if seconds is None and response.status == 429:
            seconds = self.config.backoff_seconds
        if seconds:
            pause(seconds)

    async def _read_image(self, response: aiohttp.ClientResponse) -> tuple[Outcome, bytes] | Redirect:
        status, headers = response.status, response.headers
        if status in answers.REDIRECT_STATUSES and "Location" in headers:
            return Redirect(headers["Location"], status)
        if status != 200:
            raise Refused(answers.reason_of(status), status)
        try:
            tags, reservation = headers.getall("X-Robots-Tag", []), headers.get("tdm-reservation")
            if answers.is_opt_out(tags, reservation, self.config.opt_out):
                raise Refused(reasons.OPT_OUT)
            data = await self._read_body(response)
            sha256 = hashlib.sha256(data).digest()
            if sha256.hex() in self.config.placeholders or await self._looks_like_placeholder(data):
                return Outcome(reason=reasons.PLACEHOLDER, status=status, sha256=sha256), b""
        except Refused as refused:
            raise Refused(refused.reason, status) from None
        return Outcome(reason=None, status=status, sha256=sha256), data

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        """The image's bytes, of any transfer and content encoding that is known, and not too many."""
        max_bytes = self.config.max_bytes
        length, encoding = response.content_length, response.headers.get("Content-Encoding", "")
        if length is not None and length > max_bytes:
            raise Refused(reasons.TOO_LARGE)
        pieces, num_bytes, is_begun = list[bytes](), 0, bool(encoding)
        while piece := await response.content.readany():
            pieces.append(piece)
            num_bytes += len(piece)
            if num_bytes > max_bytes:
                raise Refused(reasons.TOO_LARGE)
            if not is_begun and num_bytes >= answers.SNIFF_BYTES:  # a film is not read to its end
                is_begun = True
                _check_start(b"".join(pieces))
        data = answers.unpack(b"".join(pieces), encoding, max_bytes)
        _check_start(data)
        if length is None and not _is_chunked(response) and not encoding and not answers.is_ended(data):
            raise Refused(reasons.CUT)
        return data

    async def _looks_like_placeholder(self, data: bytes) -> bool:
        return bool(self._phashes) and await asyncio.to_thread(answers.has_phash, data, self._phashes)

    async def _get_robots(self, url: URL) -> tuple[int, bytes]:
        """See `builders.fetch.robots.Get`."""

        async def follow() -> tuple[int, bytes]:
            here, status = check_url(url, self.config), None
            for _ in range(MOST_REDIRECTS + 1):
                try:
                    answer = await self._ask(here, _read_robots)
                    if not isinstance(answer, Redirect):
                        return answer
                    here, status = self._next(here, answer), answer.status
                except Refused as refused:  # of where a redirect leads, it says nothing about this host
                    raise Refused(refused.reason, refused.status or status, is_final=refused.is_final) from None
            raise Refused(reasons.REDIRECTS, status)

        return await self._tried(follow)


async def _read_robots(response: aiohttp.ClientResponse) -> tuple[int, bytes] | Redirect:
    if response.status in answers.REDIRECT_STATUSES and "Location" in response.headers:
        return Redirect(response.headers["Location"], response.status)
    reason = answers.reason_of(response.status)
    if reason in reasons.TRANSIENT:
        raise Refused(reason, response.status)
    pieces, num_bytes = list[bytes](), 0
    while num_bytes < MAX_BYTES and (piece := await response.content.readany()):
        pieces.append(piece)
        num_bytes += len(piece)
    body = b"".join(pieces)
    return response.status, answers.unpack(body, response.headers.get("Content-Encoding", ""), MAX_BYTES)


def _check_start(data: bytes) -> None:
    if not data:
        raise Refused(reasons.EMPTY)
    reason = answers.sniff(data)
    if reason:
        raise Refused(reason)


def _is_chunked(response: aiohttp.ClientResponse) -> bool:
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def as_refused(error: Exception) -> Refused:
    """The reason that an exception of the client stands for."""
    match error:
        case Refused():
            return error
        case TimeoutError():  # aiohttp's own are this, too
            return Refused(reasons.TIMEOUT)
        case aiohttp.ClientConnectorDNSError():
            return Refused(reasons.DNS)
        case aiohttp.ClientSSLError() | aiohttp.ClientConnectorCertificateError():
            return Refused(reasons.TLS)
        case aiohttp.ClientPayloadError():
            return Refused(reasons.CUT)
        case aiohttp.ClientOSError() if isinstance(getattr(error, "os_error", None), PrivateAddress):
            return Refused(reasons.PRIVATE_ADDRESS)
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return Refused(reasons.BAD_URL)
        case _:
            return Refused(reasons.CONNECTION)
