"""One file of a site, read by those who keep none of it: from any byte on, each byte once, whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from t4sa_data.downloading import content
from t4sa_data.downloading.replies import TRANSIENT
from t4sa_data.downloading.site import Answer, Site
from t4sa_data.errors import ServerFault, ShardError, SourceChanged, WrongContent
from t4sa_data.reading.pumping import Pump, Restarted
from t4sa_data.reading.transport import Fault, RemoteFile, range_headers


class PassingFile:
    """A file that passes by. Use as a context manager; asks the site for the file's head when it is made.

    Credentials, redirects and patience are the site's, as for `t4sa download`.

    Args:
        site: where it is.
        url: of the file.

    Attributes:
        num_bytes: of the file.
        validator: strong ETag, else date; None: the site names no version, and a pass that was cut cannot go on.

    Raises:
        CredentialsError, NotOnServer: the site does not give it.
        WrongContent: it is a web page, or the site does not say how long it is.
        ServerFault: too many faults in a row.
    """

    def __init__(self, site: Site, url: str) -> None:
        self._site, self._url = site, url
        self.limits, self.where = site.limits, url
        self._stop = threading.Event()
        self._pump = Pump(self, self._stop)
        self.num_bytes, self.validator = self._pump.again(RemoteFile("", -1, ""), self._head)
        self._file = RemoteFile("", self.num_bytes, "")

    def _head(self) -> tuple[int, str | None]:
        with self._site.open(self._url, method="HEAD", now=time.time()) as answer:
            reply = answer.reply
            if reply.status in TRANSIENT:
                raise Fault(f"HTTP {reply.status}", reply.retry_after)
            content.refuse_page(reply, self._url)
            if reply.status != 200 or reply.total is None:
                raise WrongContent(
                    "the site does not say how long the file is", got=f"HTTP {reply.status}", where=self._url
                )
            return reply.total, reply.validator

    def pieces(self, start: int, stop: int | None = None) -> Iterator[bytes]:
        """Bytes `start` to `stop` (None: the end), in pieces, in order.

        Raises:
            ServerFault: too many faults in a row; or one cut, of a file whose version the site does not name.
            SourceChanged: the file was replaced since its head was seen.
            CredentialsError: access was withdrawn.
        """
        stop = self.num_bytes if stop is None else stop
        try:
            yield from self._pump.pieces(self._file, start, stop, validator=self.validator)
        except ShardError as error:
            raise SourceChanged(
                "the file was replaced on the site while it passed",
                expected=error.expected,
                got=error.got,
                where=self._url,
                hint="The same command begins again.",
            ) from None
        except Restarted:
            raise ServerFault(
                "cut, and the site names no version of the file: what follows might be of another one",
                got="neither a strong ETag nor a Last-Modified",
                where=self._url,
                hint="`t4sa download` can begin again by itself.",
            ) from None

    def part(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop` in memory; raises as `pieces`."""
        return b"".join(self.pieces(start, stop))

    def url(self, _path: str) -> str:
        """See `Transport`."""
        return self._url

    def open(self, _file: RemoteFile, start: int, stop: int | None, validator: str | None) -> Answer:
        """See `Transport`."""
        return self._site.open(self._url, headers=range_headers(start, stop, validator), now=time.time())

    def close(self) -> None:
        """End what is under way."""
        self._stop.set()
        self._site.close()

    def __enter__(self) -> PassingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
