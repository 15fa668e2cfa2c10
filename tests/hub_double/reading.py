"""A read-only double of the Hub's HTTP API on loopback, for the real clients: what loading a dataset asks, no more.

Data files are answered with a redirect to a second origin (as the Hub's CDN is one), small files directly. Every
request is kept in `log`. Gated repositories show their metadata to all and their content to `allowed` tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

DATA_SUFFIXES = (".parquet", ".tar")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    authorized: bool
    status: int


@dataclass
class Repository:
    folder: Path
    revisions: tuple[str, ...] = ("main", "v1")
    allowed: frozenset[str] | None = None
    """Tokens that may read a gated repository's content; None: it is not gated."""

    @cached_property
    def files(self) -> dict[str, Path]:
        return {p.relative_to(self.folder).as_posix(): p for p in sorted(self.folder.rglob("*")) if p.is_file()}

    @cached_property
    def commit(self) -> str:
        return hashlib.sha1("".join(self.files).encode()).hexdigest()


@dataclass
class Hub:
    """Use as a context manager; `url` goes into HF_ENDPOINT of a process that has not imported the client yet."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: frozenset[str] = frozenset()
    log: list[Request] = field(default_factory=list)
    uses: int | None = None
    """Requests that a signed URL of the CDN is good for; then it has expired. None: for ever."""

    def __enter__(self) -> Hub:
        self._lock, self._signed = threading.Lock(), list[int]()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) for _ in range(2)]
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def sign(self) -> str:
        """A signature for a URL of the CDN."""
        with self._lock:
            self._signed.append(0)
            return f"s{len(self._signed)}"

    def takes(self, signature: str) -> bool:
        """Whether a signature is good for one more request."""
        with self._lock:
            number = int(signature.removeprefix("s") or 0) - 1
            if number < 0:
                return self.uses is None
            self._signed[number] += 1
            return self.uses is None or self._signed[number] <= self.uses

    def fetched(self) -> list[str]:
        """Data files whose bytes were sent, as often as they were."""
        return [r.path.removeprefix("/_cdn/") for r in self.log if r.method == "GET" and r.path.startswith("/_cdn/")]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement of its headers
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if (token := self._token()) is not None and token not in self.hub.tokens and not path.startswith("/_cdn/"):
            return self._refuse(401, None, "Invalid credentials in Authorization header")
        for pattern, answer in (
            (r"/_cdn/(?P<name>[^/]+/[^/]+)/(?P<path>.+)", self._cdn),
            (r"/api/datasets/(?P<name>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", self._info),
            (r"/api/datasets/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?P<path>/.*)?", self._tree),
            (r"/api/datasets/(?P<name>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", self._paths_info),
            (r"/datasets/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self._resolve),
        ):
            if match := re.fullmatch(pattern, path):
                return answer(**match.groupdict())
        return self._refuse(404, None, "Not Found")

    do_HEAD = do_POST = do_GET

    def _token(self) -> str | None:
        header = self.headers.get("Authorization", "")
        return header.removeprefix("Bearer ") if header else None

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(Request(self.command, path, self._token() is not None, status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.pop("length", None) or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), Content_Type="application/json")

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), **headers)

    def _repository(self, name: str, revision: str, *, content: bool = False) -> Repository | None:
        """The repository, or None after the refusal was sent."""
        found, token = self.hub.repositories.get(name), self._token()
        if found is None:
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif content and found.allowed is not None and token not in found.allowed:
            self._refuse(403 if token else 401, "GatedRepo", f"Access to dataset {name} is restricted.")
        elif revision not in (*found.revisions, found.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return found
        return None

    def _info(self, name: str, revision: str) -> None:
        if found := self._repository(name, revision):
            siblings = [{"rfilename": path} for path in found.files]
            self._json({"_id": "0" * 24, "id": name, "sha": found.commit, "private": False, "siblings": siblings})

    def _entry(self, path: str, file: Path) -> dict[str, object]:
        made: dict[str, object] = {"type": "file", "path": path, "size": file.stat().st_size, "oid": _etag(file)}
        if path.endswith(DATA_SUFFIXES):
            made["lfs"] = {"oid": hashlib.sha256(file.read_bytes()).hexdigest(), "size": made["size"], "pointerSize": 1}
        return made

    def _folder(self, path: str) -> dict[str, object]:
        return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}

    def _tree(self, name: str, revision: str, path: str | None) -> None:
        if not (found := self._repository(name, revision)):
            return None
        below = f"{path.strip('/')}/" if path and path.strip("/") else ""
        inside = {p[len(below) :]: f for p, f in found.files.items() if p.startswith(below)}
        if parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true":
            return self._json([self._entry(below + p, f) for p, f in inside.items()])
        folders = dict.fromkeys(p.split("/")[0] for p in inside if "/" in p)
        entries = [self._folder(below + folder) for folder in folders]
        return self._json(entries + [self._entry(below + p, f) for p, f in inside.items() if "/" not in p])

    def _paths_info(self, name: str, revision: str) -> None:
        if not (found := self._repository(name, revision)):
            return
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(self._body)["paths"] if is_json else parse_qs(self._body.decode()).get("paths", [])
        files = [self._entry(p, found.files[p]) for p in paths if p in found.files]
        folders = [p for p in paths if any(file.startswith(f"{p.rstrip('/')}/") for file in found.files)]
        self._json(files + [self._folder(p) for p in folders])

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if not (found := self._repository(name, revision, content=True)):
            return None
        file = found.files.get(path)
        if file is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        common = {"X_Repo_Commit": found.commit, "Accept_Ranges": "bytes"}
        if not path.endswith(DATA_SUFFIXES):
            return self._send(200, file.read_bytes(), ETag=f'"{_etag(file)}"', **common)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        linked = {"X_Linked_Size": str(file.stat().st_size), "X_Linked_ETag": f'"{digest}"'}
        signature = self.hub.sign()
        return self._send(302, Location=f"{self.hub.cdn}/_cdn/{name}/{path}?signature={signature}", **linked, **common)

    def _cdn(self, name: str, path: str) -> None:
        if not self.hub.takes(parse_qs(urlsplit(self.path).query).get("signature", [""])[0]):
            return self._refuse(403, None, "Request has expired")
        data = self.hub.repositories[name].files[path].read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept_Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            low, high = match.groups()
            start = int(low) if low else max(0, len(data) - int(high))
            stop = min(len(data), int(high) + 1 if high and low else len(data))
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return self._send(206, data[start:stop], **headers)
        return self._send(200, data, **headers)


def _etag(file: Path) -> str:
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # as git names blobs
