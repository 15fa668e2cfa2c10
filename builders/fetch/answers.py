"""What an answer says: of its status, its headers, its first and its last bytes. Pure functions."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from builders.fetch import reasons
from builders.fetch.config import PRODUCT
from builders.fetch.reasons import Refused

SNIFF_BYTES = 512
"""Of the beginning, in which a web page shows itself."""
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title", b"<meta")


def reason_of(status: int) -> str:
    """Why an answer with this status brings no image; 200 and redirects are none of them.

    >>> reason_of(404), reason_of(503), reason_of(204)
    ('fetch/not-found', 'fetch/server-error', 'fetch/bad-status')
    """
    known = {404: reasons.NOT_FOUND, 410: reasons.GONE, 429: reasons.RATE_LIMITED}
    if status in known:
        return known[status]
    if status in (401, 402, 403, 451):
        return reasons.FORBIDDEN
    if status >= 500 or status in (408, 425):
        return reasons.SERVER_ERROR
    return reasons.REFUSED if 400 <= status < 500 else reasons.BAD_STATUS


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds that `Retry-After` asks for; None where it says nothing that can be read.

    Args:
        value: of the header.
        now: seconds since 1970.

    >>> retry_after("7", 0), retry_after("Thu, 01 Jan 1970 00:01:00 GMT", 50.0), retry_after("soon", 0)
    (7.0, 10.0, None)
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def is_opt_out(tags: Iterable[str], reservation: str | None, directives: tuple[str, ...]) -> bool:
    """Whether headers reserve an answer from uses like ours.

    Args:
        tags: values of `X-Robots-Tag`. `name: directive` speaks to the robot of that name only.
        reservation: of `tdm-reservation` (W3C's TDM Reservation Protocol).
        directives: which count.

    >>> is_opt_out(["otherbot: noai", "noarchive, NoImageAI"], None, ("noimageai",))
    True
    >>> is_opt_out(["otherbot: noai"], None, ("noai",)), is_opt_out([], "1", ("noai",)), is_opt_out([], "1", ())
    (False, True, False)
    """
    if directives and (reservation or "").strip() == "1":
        return True
    for tag in tags:
        is_ours = True
        for part in tag.lower().split(","):
            name, colon, rest = part.partition(":")
            if colon and name.strip() not in _VALUED:
                is_ours, part = name.strip() in (PRODUCT, "*"), rest
            if is_ours and part.strip() in directives:
                return True
    return False


def sniff(start: bytes) -> str | None:
    """The reason for which bytes that begin so are no image; None: they begin like one that can be decoded.

    >>> sniff(b"\\xff\\xd8\\xff\\xe0"), sniff(b"\\n<!DOCTYPE html>"), sniff(b"%PDF-1.7")
    (None, 'fetch/html', 'fetch/not-an-image')
    """
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*")):
        return None
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return None
    text = start[:SNIFF_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return reasons.HTML if text.startswith(_HTML) or b"<html" in text else reasons.NOT_AN_IMAGE


def is_ended(data: bytes) -> bool:
    """Whether an image's last bytes are there, as far as its format marks them: asked where no length was told.

    >>> is_ended(b"\\xff\\xd8\\xff...\\xff\\xd9"), is_ended(b"\\xff\\xd8\\xff...")
    (True, False)
    """
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in data[-4096:]  # some cameras and editors leave bytes behind it
    if data.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" in data[-4096:]
    if data.startswith(b"GIF8"):
        return data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"RIFF"):
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return True


def unpack(data: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body of an answer that was packed though nobody asked for it.

    Raises:
        Refused: an unknown encoding, bytes that are none, or too many of them. What is cut is transient.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise Refused(reasons.ENCODING)
    # deflate is zlib's format by the standard, and without its frame from some servers.
    bits = 47 if encoding != "deflate" or data[:1] == b"\x78" else -15
    machine = zlib.decompressobj(bits)
    try:
        made = machine.decompress(data, max_bytes + 1)
    except zlib.error:
        raise Refused(reasons.ENCODING) from None
    if len(made) > max_bytes:
        raise Refused(reasons.TOO_LARGE)
    if not machine.eof:
        raise Refused(reasons.CUT)
    return made


def has_phash(data: bytes, phashes: set[int]) -> bool:
    """Whether an image decodes, and to a picture with one of these perceptual hashes."""
    from t4sa_data.errors import BadImage
    from t4sa_data.pixels import inspect_image

    try:
        return int(inspect_image(data).phash, 16) in phashes
    except BadImage:
        return False
