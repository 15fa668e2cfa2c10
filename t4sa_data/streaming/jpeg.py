"""What the head of a JPEG says: whether the fast decoder gives the rule's pixels, and their size."""

from __future__ import annotations

import re
import struct

from t4sa_data.pixels import MAX_PIXELS


def is_plain_jpeg(data: bytes) -> bool:
    """Whether bytes are a plain JPEG; see `plain_jpeg_size`."""
    return plain_jpeg_size(data) is not None


def plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a baseline or progressive JPEG, grey or YCbCr, 8 bits, not rotated, of a usual size; None for
    everything else.

    Reads the markers up to the first scan (ITU-T T.81, annex B), as PIL does. Any bytes may come; a doubt is a no.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at, adobe, frame = 2, None, b""
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xDA:
            return _size_of_plain_frame(frame, adobe)
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2 or marker in _WITHOUT_LENGTH:
            return None
        if marker in _TELLS_NOTHING:
            at += 2 + length
            continue
        segment = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker > 0xC2:  # lossless, hierarchical or arithmetic
                return None
            frame = segment
        elif (marker == 0xE1 and _is_rotated(segment)) or (marker == 0xE2 and segment[:4] == b"MPF\0"):
            return None
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) > 11:
            adobe = segment[11]
        at += 2 + length
    return None


_TELLS_NOTHING = frozenset((0xC4, 0xDB, 0xDD, 0xE0, 0xFE))
"""Most segments: Huffman and quantisation tables, restart interval, JFIF's own, comments."""
_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xDA)))
"""Markers that have no length, and none of which belongs before a scan: TEM, RST, SOI, EOI."""


def _size_of_plain_frame(frame: bytes, adobe: int | None) -> tuple[int, int] | None:
    """Height and width in a frame header (T.81, B.2.2) of 8 bits, a usual size, and grey or, beyond doubt, YCbCr:
    Adobe's marker says so, or the components' ids are 1, 2, 3."""
    if len(frame) < 6:
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", frame)
    if precision != 8 or not 0 < height * width <= MAX_PIXELS or len(frame) != 6 + 3 * components:
        return None
    if components == 3:
        is_plain = adobe == 1 if adobe is not None else frame[6::3] == b"\1\2\3"
    else:
        is_plain = components == 1
    return (height, width) if is_plain else None


_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def _is_rotated(segment: bytes) -> bool:
    """Whether an APP1 segment says an orientation other than 1, or cannot be read: EXIF (TIFF 6.0, section 2), or XMP,
    which counts for PIL where EXIF is silent."""
    if segment.startswith(_XMP):
        return any(found != b"1" for found in re.findall(rb"tiff:Orientation(?:=\"|>)([0-9])", segment))
    if not segment.startswith(b"Exif\0\0"):
        return False
    exif = segment[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return True
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == 0x0112 and (kind != 3 or struct.unpack_from(f"{order}H", exif, entry + 8)[0] != 1):
                return True
    except struct.error:
        return True
    return False
