"""Tar: walk any archive strictly, write shards whose equal input gives equal bytes.

A WebDataset shard holds, per sample, `key.jpg`, `key.json`, `key.cls`, in this order and contiguous, as USTAR members
with fixed header fields. `walk` reads every archive that reaches us, official or ours, and never takes a damaged one
for a short one (Python's `tarfile` does: it ends quietly at a bad header).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from t4sa_data.errors import ArchiveError, BadHeader, TruncatedArchive
from t4sa_data.files import HashingFile

BLOCK = 512  # POSIX.1-1988 ustar
END_MARK = bytes(2 * BLOCK)
MEMBERS = (".jpg", ".json", ".cls")
"""The members of a sample, in their order."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a tar archive, where it stands."""

    name: str
    kind: str
    """`file`, `folder`, or what else it is (`symlink`, `hardlink`, `device`, ...)."""
    header_offset: int
    """Byte where its first header starts."""
    offset: int
    """Byte where its data starts."""
    length: int
    """Bytes of data, without padding."""

    @property
    def end(self) -> int:
        """Byte after its padded data."""
        return self.offset + padded(self.length)


def padded(length: int) -> int:
    """Bytes that `length` bytes of data take in a tar.

    >>> padded(0), padded(1), padded(512), padded(513)
    (0, 512, 512, 1024)
    """
    return -(-length // BLOCK) * BLOCK


_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "fifo",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
_MAX_NAME_BYTES = 1 << 16


def walk(path: Path) -> Iterator[Member]:
    """Every member of an archive in its order; GNU long names and pax records are understood, data is skipped over.

    Memory does not grow with the archive. What stands behind the end mark is not read.

    Raises:
        TruncatedArchive: it ends inside a header, inside data, or without its end mark; names the last good member.
        BadHeader: a header's checksum does not fit, or it is no tar at all.
    """
    path = Path(path)
    with path.open("rb", buffering=0) as file:
        yield from walk_on(file, path, os.fstat(file.fileno()).st_size)


class Seekable(Protocol):
    """What a walk reads from; it seeks forward only."""

    def seek(self, offset: int, /) -> object:
        """Go on at a byte of the archive."""

    def read(self, num: int, /) -> bytes | None:
        """Up to `num` bytes, fewer only at the end."""


def walk_on(file: Seekable, where: object, size: int, last: Member | None = None) -> Iterator[Member]:
    """The members of an archive behind a known one; nothing is asked for twice, so the bytes may come from anywhere.

    Args:
        file: the archive.
        where: what to call it in messages.
        size: bytes of it.
        last: the member behind which to go on; None: from the beginning.

    Raises:
        TruncatedArchive, BadHeader: see `walk`.
    """
    while (member := _next_member(file, where, size, last)) is not None:
        yield member
        last = member


class Forward:
    """Bytes that come in order, as a file that seeks forward: what is passed over is dropped.

    Args:
        pieces: of the archive, in order.
        start: byte of the archive where the first one begins.

    >>> file = Forward(iter([b"abc", b"defg"]), 10)
    >>> file.read(1), file.seek(12), file.read(3), file.read(9)
    (b'a', None, b'cde', b'fg')
    """

    def __init__(self, pieces: Iterator[bytes], start: int) -> None:
        self._pieces, self._piece = pieces, b""
        self._start, self._at = start, start  # of the piece; of what comes next

    def seek(self, offset: int, /) -> None:
        """Go on at a byte of the archive.

        Raises:
            ValueError: it has passed.
        """
        if offset < self._at:
            raise ValueError(f"byte {offset} has passed, the next one is {self._at}")
        self._at = offset

    def read(self, num: int, /) -> bytes:
        """Up to `num` bytes, fewer only at the end."""
        parts = []
        while num > 0:
            low = self._at - self._start
            if low >= len(self._piece):
                self._start += len(self._piece)
                self._piece = next(self._pieces, b"")
                if not self._piece:
                    break
                continue
            parts.append(self._piece[low : low + num])
            self._at += len(parts[-1])
            num -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)


class GrowingWalk:
    """Walk an archive while it comes: what was just written is still in memory, later every header is a disk access.

    Attributes:
        num_members: so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        self._last: Member | None = None
        self._is_done = False
        self.num_members = 0

    def advance(self) -> None:
        """Walk on over the members that are there whole.

        Raises:
            BadHeader: see `walk`.
        """
        try:
            self.finish()
        except TruncatedArchive:  # so far
            pass

    def finish(self) -> int:
        """Walk on to the end mark; the number of members.

        Raises:
            TruncatedArchive, BadHeader: see `walk`.
        """
        with self._path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while not self._is_done:
                member = _next_member(file, self._path, size, self._last)
                self._is_done = member is None
                if member is not None:
                    self._last = member
                    self.num_members += 1
        return self.num_members


def _next_member(file: Seekable, path: object, size: int, last: Member | None) -> Member | None:
    """The member whose headers follow the last one; None at the end mark."""
    start = last.end if last else 0
    long_name: str | None = None
    long_size: int | None = None
    position = start
    while True:
        header = _read(file, position, BLOCK)
        if header == bytes(BLOCK):
            if _read(file, position + BLOCK, BLOCK) != bytes(BLOCK):
                raise _truncated(path, position, "half an end mark", last)
            return None
        if len(header) < BLOCK:
            raise _truncated(path, position, f"{len(header)} bytes of a header", last)
        if long_name is None and long_size is None and (plain := plain_file(header)) is not None:
            member = Member(plain[0], "file", start, position + BLOCK, plain[1])
            if member.end > size:
                raise _truncated(path, size, f"{member.name}: {max(0, size - member.offset)} of {plain[1]} bytes", last)
            return member
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BadHeader(
                "not a tar header",
                got=f"{header[:16]!r} ({error})",
                where=f"{path}, byte {position}; last good: {_told(last)}",
                hint="The file is damaged or no plain tar (a compressed one? a web page?): fetch it again.",
            ) from error
        if info.size < 0:
            raise BadHeader("a tar header with a negative size", got=info.size, where=f"{path}, byte {position}")
        data = position + BLOCK
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
            body = _extension(file, path, data, info.size, size, last)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                long_name = body.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type == tarfile.XHDTYPE:
                records = _pax_records(body, path, position)
                long_name = records.get("path", long_name)
                long_size = int(records["size"]) if records.get("size", "").isdecimal() else long_size
            position = data + padded(info.size)
            continue
        # Only files carry data, whatever a link's or a folder's size field says.
        kind = _KINDS.get(info.type, f"type {info.type!r}")
        length = (info.size if long_size is None else long_size) if kind in ("file", "sparse file") else 0
        member = Member(long_name or info.name, kind, start, data, length)
        if member.end > size:
            raise _truncated(path, size, f"{member.name}: {max(0, size - data)} of {length} bytes", last)
        return member


def plain_file(header: bytes) -> tuple[str, int] | None:
    """Name and size where a header is the plainest kind of a regular file's; None leaves it to `tarfile`.

    Nearly every header is, and this takes a quarter of the time: of half a million, seconds and not half a minute.
    """
    if header[156:157] != tarfile.REGTYPE or header[345]:  # a prefix of the name, or GNU's own fields
        return None
    try:
        size, checksum = (int(header[a:b].split(b"\0", 1)[0].strip() or b"0", 8) for a, b in ((124, 136), (148, 156)))
    except ValueError:
        return None
    if size < 0 or sum(header) - sum(header[148:156]) + 8 * ord(" ") != checksum:
        return None
    return header[:100].split(b"\0", 1)[0].decode("utf-8", "surrogateescape"), size


def _read(file: Seekable, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length) or b""


def _told(last: Member | None) -> str:
    return f"{last.name} at byte {last.header_offset}" if last else "none"


def _truncated(path: object, position: int, got: str, last: Member | None) -> TruncatedArchive:
    return TruncatedArchive(
        "the archive ends early",
        expected="members up to two zero blocks",
        got=got,
        where=f"{path}, byte {position}; last good member: {_told(last)}",
        hint="Fetch the file again (or resume it).",
    )


def _extension(file: Seekable, path: object, offset: int, length: int, size: int, last: Member | None) -> bytes:
    if length > _MAX_NAME_BYTES:
        raise BadHeader(
            "an extended header of an impossible size", got=f"{length} bytes", where=f"{path}, byte {offset}"
        )
    if offset + padded(length) > size:
        raise _truncated(path, size, "part of an extended header", last)
    return _read(file, offset, length)


def _pax_records(body: bytes, path: object, offset: int) -> dict[str, str]:
    """Records of a pax header, `<length> <key>=<value>\\n` each (POSIX.1-2001)."""
    records, position = {}, 0
    while position < len(body):
        number = body[position : position + 20].split(b" ", 1)[0]
        length = int(number) if number.isdigit() else 0
        record = body[position + len(number) + 1 : position + length - 1]
        ends = body[position + length - 1 : position + length] == b"\n"  # also: not behind the end of the body
        if length <= len(number) + 1 or b"=" not in record or not ends:
            raise BadHeader("a pax record that does not parse", where=f"{path}, byte {offset + BLOCK + position}")
        key, value = record.split(b"=", 1)
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position += length
    return records


# Every field but name, size and checksum is fixed: mode 0644, uid 0, gid 0, mtime 0, a plain file.
_TAIL = b"0000644\0" + b"0000000\0" + b"0000000\0"
_AFTER_SIZE = b"00000000000\0"
_AFTER_CHECKSUM = b"0" + bytes(100) + b"ustar\x0000" + bytes(32) + bytes(32) + bytes(16) + bytes(167)
_FIXED_SUM = sum(_TAIL) + sum(_AFTER_SIZE) + 8 * ord(" ") + sum(_AFTER_CHECKSUM)


def ustar_header(name: str, length: int) -> bytes:
    """The 512 bytes before a member's data: what `tarfile` writes with mtime 0 and uid 0, at a tenth of its time.

    Raises:
        ArchiveError: a name over 100 bytes, or 8 GiB and more.
    """
    name_bytes = name.encode()
    if len(name_bytes) > 100 or not 0 <= length < 8 << 30:
        raise ArchiveError("does not fit a ustar header", got=f"{len(name_bytes)} bytes of name, {length} of data")
    size = b"%011o\0" % length
    checksum = b"%06o\0 " % (_FIXED_SUM + sum(name_bytes) + sum(size))
    return name_bytes.ljust(100, b"\0") + _TAIL + size + _AFTER_SIZE + checksum + _AFTER_CHECKSUM


class TarShardWriter:
    """Write the samples of one shard to `sink`.

    Attributes:
        offsets: byte where each image starts.
        sample_offsets: byte where each sample's first header starts, and after `close` the end of the last sample.
    """

    def __init__(self, sink: HashingFile) -> None:
        self._sink = sink
        self.offsets: list[int] = []
        self.sample_offsets: list[int] = []

    def write(self, key: str, image: bytes, record: bytes, label: int) -> None:
        """Append one sample: image bytes, JSON record, label."""
        start = self._sink.tell()
        self.sample_offsets.append(start)
        self.offsets.append(start + BLOCK)
        parts = []
        for suffix, data in zip(MEMBERS, (image, record, b"%d" % label), strict=True):
            parts += [ustar_header(key + suffix, len(data)), data, bytes(padded(len(data)) - len(data))]
        self._sink.write(b"".join(parts))

    def close(self) -> None:
        """Write the end mark."""
        self.sample_offsets.append(self._sink.tell())
        self._sink.write(END_MARK)


def samples(path: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """The samples of one of our shards: key, and its members by suffix.

    Raises:
        ArchiveError: a member out of order, missing, or of another key; names the shard, the member and the byte.
        TruncatedArchive, BadHeader: as `walk`.
    """
    key, found = "", dict[str, Member]()
    for member in walk(path):
        stem, dot, suffix = member.name.partition(".")
        expected = (key if found else stem) + MEMBERS[len(found)]
        if member.name != expected or member.kind != "file":
            raise ArchiveError(
                "a member out of order",
                expected=expected,
                got=f"{member.name} ({member.kind})",
                where=f"{path}, byte {member.header_offset}",
                hint="Samples are key.jpg, key.json, key.cls, contiguous.",
            )
        key = stem
        found[dot + suffix] = member
        if len(found) == len(MEMBERS):
            yield key, found
            found = {}
    if found:
        raise ArchiveError("the last sample lacks members", expected=MEMBERS, got=tuple(found), where=f"{path}, {key}")
