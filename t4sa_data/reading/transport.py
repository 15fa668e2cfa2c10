"""One request for bytes of one remote file: over http(s), or from what fsspec knows. The Hub's is in `hub`.

A transport asks once and says what went wrong; `pumping` asks again.
"""

from __future__ import annotations

import posixpath
import time
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlsplit

from t4sa_data.downloading.replies import Reply
from t4sa_data.downloading.site import Answer, Limits, Site
from t4sa_data.errors import (
    CredentialsRefused,
    MissingDependency,
    NotOnServer,
    ReleaseNotFound,
    ServerFault,
    ShardError,
)

READING = Limits(
    connect_seconds=10.0,
    stall_seconds=30.0,
    stall_bytes=64 << 10,
    backoff_seconds=0.25,
    max_backoff_seconds=15.0,
    max_wait_seconds=120.0,
)
"""A training run waits for less than a download does: after about two minutes of faults it ends with an error."""
STEP_BYTES = 8 << 20
"""Of an object store, one call brings at most so much: calls there cannot be watched or ended."""


class Fault(Exception):
    """One request failed; another may not. The message holds no URL and no word of a server."""

    def __init__(self, why: str, wait_seconds: float | None = None) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


class RemoteFile(NamedTuple):
    """One file of a remote release."""

    path: str
    """Below the transport's root, normalised; may begin with `../` (the archive of an in-place release)."""
    num_bytes: int
    sha256: str


class Body(Protocol):
    """An answer with bytes; a context manager."""

    reply: Reply

    def read(self, num: int) -> bytes:
        """Up to `num` bytes; empty at the end."""

    def __enter__(self) -> Body: ...
    def __exit__(self, *error: Any) -> None: ...


class Transport(Protocol):
    """Requests below one root. Several threads may use one."""

    limits: Limits

    @property
    def where(self) -> str:
        """The root, without anything secret."""

    def url(self, path: str) -> str:
        """Where a file is: nothing secret, and the same at every time."""

    def open(self, file: RemoteFile, start: int, stop: int | None, validator: str | None) -> Body:
        """Ask once for bytes `start` to `stop` (None: to the end) of a file.

        Args:
            file: which.
            start: first byte.
            stop: behind the last byte; None with 0: the whole file, asked for without a range.
            validator: for `If-Range`; None: none.

        Raises:
            Fault, OSError: another try may end otherwise.
            T4SAError: it would not.
        """

    def close(self) -> None:
        """End every request."""


def range_headers(start: int, stop: int | None, validator: str | None) -> dict[str, str]:
    """The headers that ask for a part.

    >>> range_headers(5, 8, '"v1"')
    {'Range': 'bytes=5-7', 'If-Range': '"v1"'}
    """
    if start == 0 and stop is None:
        return {}
    headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
    return headers | ({"If-Range": validator} if validator else {})


class HttpTransport:
    """A site; credentials are looked for after a 401, as `t4sa download` does, but nobody is asked for them.

    Args:
        url: of the release's folder.
        limits: patience; None: `READING`.
    """

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        if urlsplit(url).query or urlsplit(url).fragment:
            raise ReleaseNotFound(
                "a release's URL with a query in it", hint="Give the URL of the folder; keys belong into no URL."
            )
        self.limits = limits or READING
        self._site = Site(url, limits=self.limits, interactive=False, keep_alive=True)
        self.where = self._site.base_url

    def url(self, path: str) -> str:
        """See `Transport`."""
        base = urlsplit(self._site.base_url)
        joined = posixpath.normpath(posixpath.join("/", base.path, quote(path, safe="+/")))
        return base._replace(path=joined).geturl()

    def open(self, file: RemoteFile, start: int, stop: int | None, validator: str | None) -> Answer:
        """See `Transport`."""
        return self._site.open(self.url(file.path), headers=range_headers(start, stop, validator), now=time.time())

    def close(self) -> None:
        """See `Transport`."""
        self._site.close()


class _Object:
    """Bytes of an object, asked for in steps."""

    def __init__(self, transport: FsspecTransport, path: str, start: int, stop: int, reply: Reply) -> None:
        self._transport, self._path, self._at, self._stop = transport, path, start, stop
        self._data = b""
        self.reply = reply

    def read(self, num: int) -> bytes:
        if not self._data and self._at < self._stop:
            end = min(self._stop, self._at + STEP_BYTES)
            self._data = self._transport.call("cat_file", self._path, start=self._at, end=end)
            if len(self._data) > end - self._at:
                raise Fault(f"{len(self._data)} bytes for {end - self._at}")
            self._at += len(self._data)
        data, self._data = self._data[:num], self._data[num:]
        return data

    def __enter__(self) -> _Object:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FsspecTransport:
    """An object store, or anything else that fsspec knows. Credentials are those that its driver finds.

    A call that does not return cannot be ended: its thread is left to the driver's own timeout.

    Args:
        url: of the release's folder, such as `s3://bucket/t4sa`.
        limits: patience between calls; None: `READING`.

    Raises:
        MissingDependency: the driver is not installed.
        ReleaseNotFound: nobody knows this kind of URL.
    """

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        import fsspec

        self.where, self.limits = url.rstrip("/"), limits or READING
        scheme = url.partition("://")[0]
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.where)
        except ImportError:
            raise MissingDependency(
                f"{scheme}:// needs a driver", where=self.where, hint=f"pip install fsspec[{scheme}]"
            ) from None
        except ValueError:
            raise ReleaseNotFound(
                "no such kind of URL", expected="a folder, https://, hf://datasets/, or what fsspec knows", got=scheme
            ) from None

    def url(self, path: str) -> str:
        """See `Transport`."""
        scheme, _, rest = self.where.partition("://")
        return f"{scheme}://{posixpath.normpath(posixpath.join(rest, path))}"

    def open(self, file: RemoteFile, start: int, stop: int | None, validator: str | None) -> _Object:  # noqa: ARG002
        """See `Transport`. The object's size and tag are asked for each time: so a replaced one is seen."""
        path = posixpath.normpath(posixpath.join(self._root, file.path))
        self._fs.invalidate_cache()
        info = self.call("info", path)
        tag = next((str(info[k]) for k in ("ETag", "etag", "md5Hash", "mtime", "created") if info.get(k)), None)
        total = info["size"]
        status, stop = (200, total) if stop is None else (206, min(stop, total))
        reply = Reply(status=status, length=stop - start, total=total, start=start, validator=tag, encoding="identity")
        return _Object(self, path, start, stop, reply)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Call the driver; its errors become ours."""
        try:
            return getattr(self._fs, method)(path, **arguments)
        except FileNotFoundError:
            raise NotOnServer("the store has no such file", where=f"{self.where}: {path}") from None
        except PermissionError as error:
            raise CredentialsRefused("the store does not let you read", got=error.errno, where=self.where) from None
        except Exception as error:  # drivers raise what they please, and their words may hold signed URLs
            raise Fault(f"the driver of the store raised {type(error).__name__}") from None

    def close(self) -> None:
        """See `Transport`; the driver keeps its connections for others."""


def require_plain_path(path: str, where: object) -> str:
    """A path of a manifest, which may be anybody's: relative, normalised, `..` only in front.

    >>> require_plain_path("../b-t4sa_imgs.tar", "x"), require_plain_path("./b-t4sa/index.parquet", "x")
    ('../b-t4sa_imgs.tar', 'b-t4sa/index.parquet')
    """
    made = posixpath.normpath(path)
    if path.startswith("/") or "\\" in path or ":" in path or not path.isprintable() or made.startswith("../.."):
        raise ShardError("a path that leads out of the release", got=repr(path), where=where)
    return made


def replaced(file: RemoteFile, where: str, expected: object, got: object) -> ShardError:
    """The error for a file that is another one now."""
    return ShardError(
        "a file of the release was replaced on the server while it was in use",
        expected=expected,
        got=got,
        where=f"{where}: {file.path}",
        hint="Open the release anew, so that manifest, tables and files belong together.",
    )


def ignores_ranges(file: RemoteFile, where: str) -> ServerFault:
    """The error for a server that sends whole files only."""
    return ServerFault(
        "the server sends whole files where parts are asked for",
        where=f"{where}: {file.path}",
        hint="Serve the release with something that knows Range requests (nginx, Apache, an object store), or fetch "
        "it to a disk.",
    )
