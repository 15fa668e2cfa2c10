"""Two origins on loopback in front of one state: what comes in is answered one at a time and written down."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from tests.hub_double import routes_read, routes_repo, routes_write, xet
from tests.hub_double.calls import Answer, Call, Fault, Refused, Request
from tests.hub_double.state import AccessRequest, Moment, Repo, State

Route = Callable[..., Answer]
KIND, NAME = r"(?P<kind>model|dataset|space)s", r"(?P<name>[^/]+/[^/]+)"
REVISION = r"(?P<revision>refs/[^/]+/[^/]+|[^/]+)"
API = f"/api/{KIND}/{NAME}"
PAGE = rf"/(?:(?P<kind>model|dataset|space)s/)?{NAME}"

HUB_ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("GET", "/api/whoami-v2", routes_repo.whoami),
    ("POST", "/api/repos/create", routes_repo.create),
    ("DELETE", "/api/repos/delete", routes_repo.delete),
    ("POST", "/api/validate-yaml", routes_repo.validate_yaml),
    ("PUT", f"{API}/settings", routes_repo.settings),
    ("POST", f"{PAGE}/ask-access", routes_repo.ask),
    ("POST", f"{API}/user-access-request/handle", routes_repo.handle),
    ("POST", f"{API}/user-access-request/grant", routes_repo.grant),
    ("GET", rf"{API}/user-access-request/(?P<status>\w+)", routes_repo.requests),
    ("GET", rf"{API}/auth-check(?:/(?P<write>write))?", routes_repo.auth_check),
    ("POST", f"{API}/preupload/{REVISION}", routes_write.preupload),
    ("POST", rf"{PAGE}\.git/info/lfs/objects/batch", routes_write.lfs_batch),
    ("POST", rf"{PAGE}\.git/info/lfs/verify", routes_write.lfs_verify),
    ("POST", f"{API}/commit/{REVISION}", routes_write.commit),
    ("POST DELETE", f"{API}/tag/{REVISION}", routes_write.tag),
    ("POST DELETE", f"{API}/branch/{REVISION}", routes_write.branch),
    ("POST", f"{API}/super-squash/{REVISION}", routes_write.super_squash),
    ("GET", f"{API}/lfs-files", routes_read.lfs_files),
    ("POST", f"{API}/lfs-files/batch", routes_write.lfs_delete),
    ("GET", f"{API}/tree/{REVISION}(?P<path>/.*)?", routes_read.tree),
    ("POST", f"{API}/paths-info/{REVISION}", routes_read.paths_info),
    ("GET", f"{API}/refs", routes_read.refs),
    ("GET", f"{API}/commits/{REVISION}", routes_read.commits),
    ("GET", rf"{API}/xet-(?P<right>read|write)-token(?:/{REVISION})?", xet.token),
    ("GET HEAD", f"/api/resolve-cache/{KIND}/{NAME}/{REVISION}/(?P<path>.+)", routes_read.resolve_cache),
    ("GET", f"{API}/revision/{REVISION}", routes_repo.info),
    ("GET", API, routes_repo.info),
    ("GET", f"/api/{KIND}", routes_repo.listed),
    ("GET HEAD", f"{PAGE}/resolve/{REVISION}/(?P<path>.+)", routes_read.resolve),
)
CDN_ROUTES: tuple[tuple[str, str, Route], ...] = (
    ("PUT", r"/_storage/(?P<oid>[0-9a-f]{64})", routes_write.storage_put),
    ("GET HEAD", r"/_cdn/(?P<oid>[0-9a-f]{64})", routes_read.cdn),
)


class WritableHub:
    """A Hub that is written to. Use as a context manager; `url` goes into HF_ENDPOINT of a process that has not
    imported the client yet.

    Large files lie in `folder`. `xet`: they go up by Xet into a store there (`xet.works()` says whether they can).
    After each request `log` has a line and `history` how every repository then stood.
    """

    def __init__(self, folder: Path, *, users: Mapping[str, str] = {}, xet: bool = False) -> None:
        cas = folder / "cas" if xet else None
        if cas:
            cas.mkdir(parents=True, exist_ok=True)
        self.state = State(folder, dict(users), cas=cas)
        self.log: list[Request] = []
        self.history: list[Moment] = []
        self.faults: list[Fault] = []
        self._broken: list[Exception] = []
        self._lock = threading.RLock()
        self._arrived = self._answered = 0
        self._kill_at: int | None = None
        self._kill: Callable[[], object] = lambda: None
        self._unanswered = self._struck = False
        self._killed = threading.Event()

    def __enter__(self) -> WritableHub:
        self._servers = [_Server(self, "hub"), _Server(self, "cdn")]
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        self.state.url, self.state.cdn = self.url, self.cdn
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        if self._broken:
            raise AssertionError("the double itself broke") from self._broken[0]

    @property
    def repos(self) -> dict[str, Repo]:
        """By id; a model's begins with "models/"."""
        return self.state.repos

    def add_user(self, name: str, token: str, role: Literal["read", "write"] = "write") -> None:
        """An account, or one more token of it."""
        self.state.users[token] = name
        self.state.roles[token] = role

    def add_organisation(self, name: str, members: set[str]) -> None:
        """A namespace that several accounts write to."""
        self.state.organisations[name] = members

    def revoke_token(self, token: str) -> None:
        """From now on it is refused."""
        self.state.users.pop(token)

    def ask_access(self, repo: str, user: str, fields: Mapping[str, object] | None = None) -> AccessRequest:
        """Fill in a gate's form in the browser. ValueError: no gate, or the user was rejected before."""
        with self._lock:
            return self.repos[repo].ask(user, fields)

    def kill_after(self, n: int, action: Callable[[], object], *, answered: bool = True) -> None:
        """Call `action` (which kills a client) when the n-th request from now was carried out and answered, or with
        `answered=False` carried out only. Every later one is closed unheard, as if it had never been sent, once
        `action` has returned: a client that is dead by then sees nothing of it. Until `open_again`."""
        with self._lock:
            self._kill_at, self._kill, self._unanswered = self._arrived + n, action, not answered
            self._killed.clear()
            xet.keep_index(self.state)

    def open_again(self) -> None:
        """Hear requests again; a kill that is still to come is forgotten."""
        with self._lock:
            if self._struck:
                xet.restore_index(self.state)
            self._struck = False
            self._kill_at = None
            self._killed.set()

    @property
    def uploaded(self) -> int:
        """Bytes of large files that clients sent: as they are by LFS, as new compressed chunks by Xet."""
        by_lfs = sum(request.sent for request in self.log if request.path.startswith("/_storage/"))
        return by_lfs + xet.stored_bytes(self.state)

    def leaked(self) -> list[Request]:
        """Requests to the second origin that carried a token; none, if all is well."""
        return [request for request in self.log if request.origin == "cdn" and request.authorised]

    def reset(self) -> None:
        """As it began, at the same address: for a process that has imported the client and tries many things."""
        with self._lock:
            self.open_again()
            self.repos.clear()
            for kept in (self.log, self.history, self.faults):
                kept.clear()
            self._arrived = self._answered = 0

    def opened(self) -> list[str]:
        """Each moment at which anybody could read a file without a gate; none, if all is well."""
        return [
            f"{moment.number} {moment.request}: {name} {sorted(door.open)[:3]}"
            for moment in self.history
            for name, door in moment.repos.items()
            if door.open
        ]

    def arrive(self) -> int | None:
        """The number of a request that comes in; None: the client is taken for dead."""
        with self._lock:
            if self._kill_at is None or self._arrived < self._kill_at:
                self._arrived += 1
                return self._arrived
        self._killed.wait(timeout=60)
        return None

    def dies_at(self, number: int) -> bool:
        """Whether this request's answer is not sent, for the client is dead before."""
        return self._unanswered and number == self._kill_at

    def carry_out(self, number: int, call: Call) -> tuple[Answer, Fault | None]:
        """What a request is answered, and what is to go wrong; how all stands afterwards is written down."""
        with self._lock:
            struck = [fault for fault in self.faults if fault.strikes(call)]
            fault = struck[0] if struck else None
            answer = self._route(call) if fault is None or fault.carried_out else Answer(0)
            self.history.append(Moment(number=number, request=str(call).split("?")[0], repos=self.state.doors()))
            return (fault.answer() if fault else None) or answer, fault

    def _route(self, call: Call) -> Answer:
        if call.origin == "hub" and call.token is not None and call.user is None:
            return Refused(401, None, "Invalid credentials in Authorization header").answer
        for methods, pattern, route in HUB_ROUTES if call.origin == "hub" else CDN_ROUTES:
            match = re.fullmatch(pattern, call.path) if call.method in methods.split() else None
            if match is None:
                continue
            found = {name: unquote(value) for name, value in match.groupdict().items() if value is not None}
            if "(?P<kind>" in pattern:
                found.setdefault("kind", "model")
            try:
                return route(self.state, call, **found)
            except Refused as refused:
                return refused.answer
            except Exception as error:
                self._broken.append(error)
                return Refused(500, None, f"The double broke: {error!r}").answer
        return Refused(404, None, "Not Found").answer

    def write_down(self, request: Request) -> None:
        """Put a request into the log."""
        with self._lock:
            self.log.append(request)

    def answered(self) -> None:
        """One more has its answer; kill the client if all have that it was to make."""
        with self._lock:
            self._answered += 1
            if self._answered != self._kill_at:
                return
            self._struck = True
        self._kill()
        self._killed.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: WritableHub, origin: Literal["hub", "cdn"]) -> None:
        self.hub, self.origin = hub, origin
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement of its headers
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self) -> None:
        body, hub = self._read(), self.server.hub
        number = hub.arrive()
        if number is None:
            self.close_connection = True
            return
        call = self._call(body)
        answer, fault = hub.carry_out(number, call)
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        if (fault and fault.kind == "drop") or hub.dies_at(number):
            answer, self.close_connection = Answer(0), True
        out = b"" if self.command == "HEAD" else answer.body
        if fault and fault.kind == "cut":
            out, self.close_connection = out[: fault.after], True
        request = Request(
            number=number,
            origin=self.server.origin,
            method=self.command,
            path=unquote(call.path),
            query=call.query,
            status=answer.status,
            authorised="Authorization" in self.headers,
            user=call.user,
            sent=len(body),
            received=len(out),
        )
        hub.write_down(request)  # before the client knows: whoever has an answer finds it in the log
        try:
            if answer.status:
                self._send(number, answer, out)
        finally:
            hub.answered()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def _call(self, body: bytes) -> Call:
        split, state = urlsplit(self.path), self.server.hub.state
        header = self.headers.get("Authorization")
        token = header.removeprefix("Bearer ") if header else None
        return Call(
            origin=self.server.origin,
            method=self.command,
            path=split.path,
            query=split.query,
            headers={name.title(): value for name, value in self.headers.items()},
            body=body,
            token=token,
            user=state.users.get(token) if token else None,
            role=state.roles.get(token, "write") if token else "write",
        )

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                raise ConnectionResetError("the client was killed while it sent")
            return body
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, number: int, answer: Answer, body: bytes) -> None:
        """The answer, with as much of its body as is to go out."""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("X-Request-Id", f"Root=1-{number:024x}")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(body)
