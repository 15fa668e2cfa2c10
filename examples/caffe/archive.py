"""Files out of a tar, zip or folder by their base names, in memory: nothing is extracted, sizes are limited.

Every way an archive can be wrong is a named error: links, absolute names and `..`, bombs, damage, a web page in its
place.
"""

from __future__ import annotations

import bz2
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from examples.caffe.wire import Buffer, map_file
from examples.errors import ModelFileError
from t4sa_data.errors import ArchiveError, DuplicateMember, InputMissing, TruncatedArchive, UnsafeMember

MAX_MEMBERS = 1000
MAX_WEIGHTS_BYTES = (1 << 31) - 1
"""Of one caffemodel: protobuf's own limit; VGG-19 has 0.56 GB."""
MAX_OTHER_BYTES = 64 << 20
"""Of any other file that is read; a mean image of 256 x 256 has 0.8 MB."""
MAX_TOTAL_BYTES = 6 << 30
"""Of all that an archive holds, unpacked."""
_HEADERS_BYTES = 1 << 20
"""What tar may say about a member before its bytes begin."""
SUFFIXES = (".prototxt", ".caffemodel", ".binaryproto", ".txt", ".json", ".h5", ".solverstate")
"""Of files that are looked at."""

HTML = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")


def refuse_page(start: Buffer, where: Path) -> None:
    """Refuse a web page that was saved under a model's name.

    Raises:
        ModelFileError: it is one.
    """
    if bytes(start).lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(HTML):
        raise ModelFileError(
            "a web page, no model", where=where, hint="Perhaps a login or an error page was saved: download it again."
        )


def is_archive(path: Path) -> bool:
    """Whether a file is a tar (plain, gz, bz2) or a zip of Caffe's files; torch's own zips are not."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as zipped:
                return not any(name.endswith("data.pkl") for name in zipped.namelist())
        except (zipfile.BadZipFile, OSError, ValueError):
            return True
    return start[:2] == b"\x1f\x8b" or start[:3] == b"BZh" or start[257:262] == b"ustar"


def read_files(source: Path | Sequence[Path]) -> dict[str, Buffer]:
    """Files of `SUFFIXES` by base name.

    Args:
        source: an archive, a folder, or loose files.

    Raises:
        InputMissing: not there.
        ArchiveError and its kinds: damaged, dangerous, two files of one name.
        ModelFileError: no archive at all, or larger than a model can be.
    """
    if not isinstance(source, Path):
        return _loose(source)
    if source.is_dir():
        return _loose(sorted(path for path in source.iterdir() if path.suffix in SUFFIXES and path.is_file()))
    if not source.is_file():
        raise InputMissing("no such archive", where=source)
    data = map_file(source)
    refuse_page(data[:64], source)
    if not is_archive(source):
        raise ModelFileError(
            "no archive", expected="tar, tar.gz, tar.bz2, zip or a folder", got=f"{bytes(data[:8])!r}", where=source
        )
    with _explained(source):
        return _from_zip(source) if data[:2] == b"PK" else _from_tar(source, bytes(data[:3]))


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Damage as named errors."""
    try:
        yield
    except EOFError as error:
        raise TruncatedArchive("the archive ends too early", where=source, hint="Download it again.") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, OSError, ValueError) as error:
        text = str(error)
        kind = TruncatedArchive if "unexpected end" in text or "not a zip" in text.lower() else ArchiveError
        raise kind("a damaged archive", got=text, where=source, hint="Download it again.") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile's way to say encrypted, or packed in another way
        raise ArchiveError("an archive that cannot be read", got=str(error), where=source) from error


def _loose(paths: Sequence[Path]) -> dict[str, Buffer]:
    """Files as they are, mapped."""
    made: dict[str, Buffer] = {}
    for path in paths:
        _put(made, path.name, map_file(path), path)
        refuse_page(made[path.name][:64], path)
    return made


def _put(made: dict[str, Buffer], name: str, data: Buffer, where: Path) -> None:
    """One more file; names are base names."""
    if name in made:
        raise DuplicateMember("two files of the same name", got=name, where=where)
    made[name] = data


def _safe_name(name: str, where: Path) -> str | None:
    """Base name of a member that is looked at, None for others.

    Raises:
        UnsafeMember: it points out of the archive.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise UnsafeMember("a member whose name leads out of the archive", got=repr(name), where=where)
    hidden = path.name.startswith("._") or "__MACOSX" in path.parts
    return None if hidden or path.suffix not in SUFFIXES else path.name


def _check_size(name: str, size: int) -> None:
    """Refuse what no model has."""
    limit = MAX_WEIGHTS_BYTES if name.endswith(".caffemodel") else MAX_OTHER_BYTES
    if size > limit:
        raise ModelFileError("a file larger than any of its kind", expected=f"<= {limit} bytes", got=size, where=name)


class _Limited:
    """A stream that refuses to give more than it was told to expect: a bomb stops here."""

    def __init__(self, raw: IO[bytes] | Any, where: Path) -> None:
        self.raw, self.where, self.given, self.allowed = raw, where, 0, _HEADERS_BYTES

    def allow(self, num_bytes: int) -> None:
        """Expect that much more, and the next header."""
        self.allowed = min(self.given + num_bytes + _HEADERS_BYTES, MAX_TOTAL_BYTES)

    def read(self, size: int) -> bytes:
        """As a file does.

        Raises:
            ArchiveError: more than expected.
        """
        data: bytes = self.raw.read(size)
        self.given += len(data)
        if self.given > self.allowed:
            raise ArchiveError("an archive that unpacks to more than a model has", got=self.given, where=self.where)
        return data


def _from_tar(source: Path, start: bytes) -> dict[str, Buffer]:
    """Files of a tar, in one pass, to its very end: damage anywhere is noticed."""
    openers: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
    made: dict[str, Buffer] = {}
    with openers.get(start[:2], lambda path: path.open("rb"))(source) as raw:
        stream = _Limited(raw, source)
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            for number, member in enumerate(tar):
                if number >= MAX_MEMBERS:
                    raise ArchiveError("more members than any model has", expected=MAX_MEMBERS, where=source)
                if not (member.isreg() or member.isdir()):
                    raise UnsafeMember("a link or a device in an archive", got=repr(member.name), where=source)
                name = _safe_name(member.name, source)
                stream.allow(member.size + 1024)
                file = tar.extractfile(member) if name and member.isreg() else None
                if name and file:
                    _check_size(name, member.size)
                    _put(made, name, _all_of(file, member.size), source)
        stream.allow(_HEADERS_BYTES)
        while stream.read(1 << 16):
            pass
    return made


def _all_of(file: IO[bytes], size: int) -> bytes:
    """Exactly `size` bytes."""
    data = file.read(size)
    if len(data) != size:
        raise EOFError
    return data


def _from_zip(source: Path) -> dict[str, Buffer]:
    """Files of a zip."""
    made: dict[str, Buffer] = {}
    with zipfile.ZipFile(source) as zipped:
        members = zipped.infolist()
        if len(members) > MAX_MEMBERS:
            raise ArchiveError("more members than any model has", expected=MAX_MEMBERS, got=len(members), where=source)
        if sum(member.file_size for member in members) > MAX_TOTAL_BYTES:
            raise ArchiveError("an archive that unpacks to more than a model has", where=source)
        for member in members:
            name = _safe_name(member.filename, source)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise UnsafeMember("a link in an archive", got=repr(member.filename), where=source)
            if not name or member.is_dir():
                continue
            _check_size(name, member.file_size)
            with zipped.open(member) as file:  # gives no more than `file_size`, and checks the sum at the end
                data = file.read(member.file_size + 1)
            if len(data) != member.file_size:
                raise EOFError
            _put(made, name, data, source)
    return made
