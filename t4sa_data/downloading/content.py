"""Is it the file it should be? Looked at before a byte is kept, and again when all are here."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from t4sa_data.catalog import CSV_HEADER, TSV_HEADER
from t4sa_data.downloading.replies import Reply
from t4sa_data.errors import WrongContent
from t4sa_data.files import CHUNK_BYTES
from t4sa_data.shards import GrowingWalk

MAGIC_BYTES = 512
"""Bytes of the beginning that are looked at: a tar header."""
_BOM = b"\xef\xbb\xbf"
_PAGES = ("text/html", "application/xhtml+xml")
_GZIP = b"\x1f\x8b"


def suffix_of(filename: str) -> str:
    """What kind of file a name promises.

    >>> suffix_of("vgg19_finetuned_fc6+.tar.gz"), suffix_of("b-t4sa_imgs.tar")
    ('.tar.gz', '.tar')
    """
    return ".tar.gz" if filename.endswith(".tar.gz") else Path(filename).suffix


def refuse_page(reply: Reply, url: str) -> None:
    """Refuse a web page in place of a file.

    Raises:
        WrongContent: the content type is one of a page.
    """
    if reply.content_type in _PAGES:
        raise _page(reply.content_type, url)


def _page(got: str, url: str) -> WrongContent:
    return WrongContent(
        "the site sent a web page, not the file",
        got=got,
        where=url,
        hint="Is a login or a form in between? Open the page in a browser; nothing of it was kept.",
    )


def refuse_encoding(reply: Reply, suffix: str, url: str) -> None:
    """Refuse bytes that were compressed on the way: they are not the file's.

    Raises:
        WrongContent: they are. (A server that calls a .gz file `Content-Encoding: x-gzip` sends it as it is.)
    """
    if reply.encoding == "identity" or (suffix.endswith(".gz") and reply.encoding in ("gzip", "x-gzip")):
        return
    raise WrongContent(
        "the site compressed the file, which was not asked for",
        expected="Content-Encoding: identity",
        got=reply.encoding,
        where=url,
        hint="A proxy in between may do so; nothing of it was kept.",
    )


def require_magic(data: bytes, suffix: str, url: str) -> None:
    """Hold the first bytes against what the file's name promises.

    Args:
        data: the first `MAGIC_BYTES` bytes, or fewer where the file is shorter.
        suffix: of the file's name.
        url: for the message.

    Raises:
        WrongContent: they are of something else.
    """
    if data[:MAGIC_BYTES].lstrip(_BOM).lstrip()[:1] == b"<":
        raise _page(repr(data[:32]), url)
    if not _looks_like(data, suffix):
        raise WrongContent(
            "not the file that was asked for", expected=f"a {suffix} file", got=repr(data[:32]), where=url
        )


def _looks_like(data: bytes, suffix: str) -> bool:
    if suffix == ".tar":
        # A header, or the end mark of an empty archive, which `Structure` refuses.
        return data[257:262] == b"ustar" or data[:MAGIC_BYTES] == bytes(MAGIC_BYTES)
    if suffix == ".tar.gz":
        return data.startswith(_GZIP)
    if suffix in (".tsv", ".csv"):
        names, delimiter = (TSV_HEADER, "\t") if suffix == ".tsv" else (CSV_HEADER, ",")
        head = data.removeprefix(_BOM).replace(b'"', b"").splitlines()[:1]
        return head == [delimiter.join(names).encode()]
    if suffix == ".pth":
        return data.startswith((b"PK\x03\x04", b"\x80"))
    return bool(data)


class Structure:
    """The structure of an archive, followed while its bytes come, and held to its end.

    Args:
        path: where the bytes are.
        suffix: of the file's name; a table has no structure to follow.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        self._path, self._suffix = path, suffix
        self.reset()

    def reset(self) -> None:
        """The bytes come from the beginning again."""
        self._walk = GrowingWalk(self._path) if self._suffix == ".tar" else None

    def advance(self) -> None:
        """Look at what has come since.

        Raises:
            BadHeader: a tar that is damaged: no need to bring the rest.
        """
        if self._walk is not None:
            self._walk.advance()

    def finish(self) -> int | None:
        """Follow it to its end; the number of an archive's members, None where that is not told.

        Raises:
            TruncatedArchive, BadHeader: a tar that is damaged.
            WrongContent: an archive without members; a gzip file that does not decompress, or to no tar.
        """
        if self._walk is not None:
            num_members = self._walk.finish()
            if num_members == 0:
                raise WrongContent("an archive without members", where=self._path)
            return num_members
        if self._suffix == ".tar.gz":
            _decompress(self._path)
        return None


def _decompress(path: Path) -> None:
    """Read a gzip file to its end; there must be a tar in it."""
    try:
        with gzip.open(path) as file:
            first = file.read(MAGIC_BYTES)
            while file.read(CHUNK_BYTES):
                pass
    except (EOFError, OSError, zlib.error) as error:
        raise WrongContent("a gzip file that does not decompress", got=error, where=path) from error
    if not _looks_like(first, ".tar"):  # compressed once more on the way, say
        raise WrongContent("no tar in the gzip file", got=repr(first[:32]), where=path)
