"""One site and its credentials: requests that never take them anywhere else."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from urllib.parse import quote, urljoin, urlsplit

import requests

from t4sa_data import credentials
from t4sa_data.credentials import Credentials
from t4sa_data.downloading.replies import Reply, read_reply
from t4sa_data.downloading.sessions import LastingSession, plain_session
from t4sa_data.errors import CredentialsRefused, InsecureTransport, NotOnServer, ServerFault
from t4sa_data.origins import Origin, origin_of

MAX_REDIRECTS = 5


@cache
def user_agent() -> str:
    """What we call ourselves: a site's maintainers should see who comes."""
    from importlib.metadata import version

    return f"t4sa-data/{version('t4sa-data')}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How patient and how careful a download is."""

    connect_seconds: float = 15.0
    stall_seconds: float = 60.0
    """Without a byte for so long, or with fewer than `stall_bytes` in that time, a connection is given up."""
    stall_bytes: int = 1024
    attempts: int = 8
    """Faults in a row, without progress between them, after which a file is given up."""
    progress_bytes: int = 64 << 10
    """So many new bytes are progress."""
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0
    max_wait_seconds: float = 900.0
    """A longer `Retry-After` ends the run: it is for tomorrow."""
    checkpoint_bytes: int = 64 << 20
    """Bytes between two checkpoints, each an fsync: what a power cut costs."""
    overlap_bytes: int = 64 << 10
    """Bytes that are asked for again on a resume, and compared: servers have been seen to keep a validator."""
    spare_bytes: int = 64 << 20
    """Disk that is left free."""


class Answer:
    """An open response; use as a context manager.

    Args:
        response: its body not yet read.
        now: seconds since the epoch.
        among: the site's open answers; it is one of them until it is closed.
    """

    def __init__(self, response: requests.Response, now: float, among: set[Answer]) -> None:
        self.response, self._among = response, among
        self.reply: Reply = read_reply(response.status_code, response.headers, now)
        among.add(self)

    def read(self, num: int) -> bytes:
        """Up to `num` bytes as they come over the wire (no content coding is undone); empty at the end."""
        data: bytes = self.response.raw.read1(num, decode_content=False)
        return data

    def abort(self) -> None:
        """Let a `read` in another thread end at once."""
        try:
            self.response.raw.shutdown()
        except (OSError, ValueError, RuntimeError):  # it has ended already
            pass

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._among.discard(self)
        self.response.close()


class Site:
    """Where packages come from.

    Args:
        base_url: folder of the files.
        auth: user name and password; None: looked for when the site asks (see `credentials.find`).
        user: only credentials of this user.
        allow_insecure_http: send them over plain http too.
        interactive: whether somebody may be asked; None: where there is a terminal or a notebook.
        limits: patience.
        takes_credentials: whether any are sent here at all: not to a third site where other packages lie.
        keep_alive: use connections again: for many small requests. Then `close` it.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: tuple[str, str] | None = None,
        user: str | None = None,
        allow_insecure_http: bool = False,
        interactive: bool | None = None,
        limits: Limits | None = None,
        takes_credentials: bool = True,
        keep_alive: bool = False,
    ) -> None:
        self.base_url = base_url if base_url.endswith("/") else f"{base_url}/"
        self.origin: Origin = origin_of(self.base_url)
        self.limits = limits or Limits()
        self._given, self._user = auth, user
        self._allow_insecure_http, self._interactive = allow_insecure_http, interactive
        self._takes_credentials = takes_credentials
        self._credentials: Credentials | None = None
        self._is_refused = False
        """The site did not take `_credentials`: no file sends them again, since sites lock accounts."""
        self._asking = threading.Lock()
        self._answers: set[Answer] = set()
        self._over_https: bool | None = None if self._may_have_https() else False
        """Whether requests for `origin` go over https; None: not tried yet."""
        self._trying = threading.Lock()
        self._lasting = LastingSession() if keep_alive else None

    def __repr__(self) -> str:
        return f"Site({self.base_url!r})"

    def url(self, filename: str) -> str:
        """Where a file is."""
        return urljoin(self.base_url, quote(filename, safe="+"))

    def open(self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, now: float) -> Answer:
        """Ask for a URL; credentials are looked for after a 401, and go to this site's origin only.

        Args:
            url: absolute.
            method: GET or HEAD.
            headers: more request headers.
            now: seconds since the epoch.

        Returns:
            The answer, whatever its status but 401, 403, 404 and redirects.

        Raises:
            CredentialsMissing, CredentialsRefused, InsecureTransport, CredentialsInURL, NetrcError: see there.
            NotOnServer: 404 or 410.
            ServerFault: too many redirects.
            OSError: the network (`requests.RequestException` is one).
        """
        url = self._secured(url)
        for _ in range(MAX_REDIRECTS + 1):
            origin, sent = origin_of(url), self._credentials
            if self._is_refused and origin == self.home:
                raise self._refused(401, origin, sent)
            response = self._send(method, url, origin, sent, headers or {})
            status = response.status_code
            if status == 401 and origin == self.home:
                self._after_refusal(response, sent)
            elif status in (401, 403):
                response.close()
                raise self._refused(status, origin, sent)
            elif status in (404, 410):
                response.close()
                raise NotOnServer(
                    "the site has no such file", got=f"HTTP {status}", where=url, hint="Is --base-url right?"
                )
            elif status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                url = self._follow(url, response)
            else:
                return Answer(response, now, self._answers)
        raise ServerFault("redirected again and again", where=url, hint="Is --base-url right?")

    def abort(self) -> None:
        """End all reads that wait for the site."""
        for answer in list(self._answers):
            answer.abort()

    def close(self) -> None:
        """End everything that is under way, and give back the connections that are kept."""
        self.abort()
        if self._lasting is not None:
            self._lasting.close()

    @property
    def home(self) -> Origin:
        """Where the credentials go, and nowhere else: `origin`, over https where the site offers it."""
        return Origin("https", self.origin.host, 443) if self._over_https else self.origin

    def _may_have_https(self) -> bool:
        return self.origin.scheme == "http" and self.origin.port == 80 and not self.origin.is_loopback

    def _secured(self, url: str) -> str:
        """A URL of this site over https, where the site offers that: tried once, before anything else is sent.

        What is kept on disk names the URL that the user gave. There is no way back in a run; in a later one, plain
        http sends credentials only where the user allows it, as ever.
        """
        if self._over_https is False or origin_of(url) != self.origin:
            return url
        with self._trying:
            secured = urlsplit(url)._replace(scheme="https", netloc=self.origin.host).geturl()
            if self._over_https is None:
                self._over_https = self._answers_to(secured)
        return secured if self._over_https else url

    def _answers_to(self, secured: str) -> bool:
        """Whether this file is there over https, with a valid certificate: it is sent, or a password is asked for."""
        try:
            with self.ask("HEAD", secured, {}) as response:
                return response.status_code in (200, 401)
        except OSError:  # no connection, no certificate
            return False

    def ask(self, method: str, url: str, headers: Mapping[str, str]) -> requests.Response:
        """One request without credentials but those in `headers`, no redirect followed."""
        return self._send(method, url, origin_of(url), None, headers)

    def answer(self, response: requests.Response, now: float) -> Answer:
        """What `ask` brought, as one of the answers that `abort` ends."""
        return Answer(response, now, self._answers)

    def _send(
        self, method: str, url: str, origin: Origin, sent: Credentials | None, headers: Mapping[str, str]
    ) -> requests.Response:
        all_headers = {"Accept-Encoding": "identity", "User-Agent": user_agent(), **headers}
        if sent is not None and origin == self.home:
            all_headers["Authorization"] = sent.header()
        with ExitStack() as stack:
            session = self._lasting.session if self._lasting else stack.enter_context(plain_session())
            bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
            timeout = (self.limits.connect_seconds, self.limits.stall_seconds)
            return session.request(
                method,
                url,
                headers=all_headers,
                stream=True,
                allow_redirects=False,
                timeout=timeout,
                # None for this machine: a proxy is another one, and plain http is for this one only.
                proxies={} if origin.is_loopback else dict(requests.utils.get_environ_proxies(url)),
                verify=bundle or True,
            )

    def _after_refusal(self, response: requests.Response, sent: Credentials | None) -> None:
        """After a 401 of our own site: look for credentials, once for all files."""
        response.close()
        if not self._takes_credentials:
            raise CredentialsRefused(
                "another site than the official one asks for a password, and gets none from us", where=self.home
            )
        parts = response.headers.get("WWW-Authenticate", "").split(",")
        schemes = {part.split()[0].lower() for part in parts if part.strip()}
        if "basic" not in schemes:
            raise CredentialsRefused(
                "the site asks for a login that is not HTTP Basic",
                got=", ".join(sorted(schemes)) or "no scheme",
                where=self.home,
                hint="Please report it with the output of `t4sa download --probe`.",
            )
        with self._asking:
            if sent is not None and sent == self._credentials:
                self._is_refused = True
                raise self._refused(401, self.home, sent)
            if self._credentials is None:
                credentials.require_safe(self.home, allow_insecure_http=self._allow_insecure_http)
                # Of the site as the user named it; over https they are safer than where they were entered for.
                self._credentials = credentials.find(
                    self.origin, self._given, user=self._user, interactive=self._interactive
                )

    def _refused(self, status: int, origin: Origin, sent: Credentials | None) -> CredentialsRefused:
        got = f"HTTP {status}"
        if origin != self.home:
            return CredentialsRefused(
                "the site sent us on to another one, which wants credentials of its own",
                got=got,
                where=origin,
                hint=f"Those of {self.origin} are not sent there. If the site has moved, give its --base-url.",
            )
        if sent is None:
            return CredentialsRefused("the site forbids this file", got=got, where=origin, hint=credentials.HOW_TO_GET)
        return CredentialsRefused(
            "the site does not take this user name and password",
            got=f"{got} for {sent}",
            where=origin,
            hint=f"Mend them, or get new ones. {credentials.HOW_TO_GET}",
        )

    def _follow(self, url: str, response: requests.Response) -> str:
        """The URL that a redirect leads to."""
        response.close()
        try:
            target = urljoin(url, response.headers["Location"])
        except ValueError:
            raise ServerFault("redirected to what is no URL", where=url) from None
        if urlsplit(url).scheme == "https" and origin_of(target).scheme != "https":
            raise InsecureTransport(
                "the site sends us from https to plain http", got=origin_of(target), where=origin_of(url)
            )
        return target
