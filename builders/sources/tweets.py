"""Raw tweets: JSON lines as the API gave them, in whatever they are kept in, one after the other, with flat memory.

A file is what its first bytes say, not its name: plain lines, gzip, bzip2, zstd, tar, zip, and those in each other, as
archive.org's stream grabs are (a tar or zip of one bzip2 file a minute). Members of archives and files of folders are
read where their names end like tweets' (`.json.bz2`); a file that is named by itself is read whatever its name.

Nothing stops the reading: a line that is no JSON object and a file that is cut are counted with their places.
`Seen.require` then says whether it was too much.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from builders.collect import tweet_id
from builders.label.files import MAX_LINE_BYTES
from t4sa_data.errors import ArchiveError, BadOption, InputMissing, TooManyBadLines
from t4sa_data.shards.tar import BLOCK, Forward, Member, walk_on

MAX_BAD_SHARE = 0.01
"""Of lines, and of files, that may be bad."""
NUM_SHOWN = 10
"""Places that are told; all are counted."""
NOTICES = frozenset(
    {"delete", "scrub_geo", "limit", "status_withheld", "user_withheld", "disconnect", "warning", "event", "friends"}
)
"""What the stream says between tweets, by the one field of the object."""
OTHER = "other"
"""Objects that are neither: no id, or no text."""
_NAMES = re.compile(r"[^.].*\.(json|jsonl|ndjson|gz|tgz|bz2|tbz2?|zst|tar|zip)", re.IGNORECASE)
_BUFFER_BYTES = 1 << 18
_PIECE_BYTES = 1 << 20
_MAX_DEPTH = 6
"""Containers in each other; a tar of gzip files in a zip is three."""
_NO_SIZE = 1 << 62
"""Bytes of a tar whose size is not known before its end."""
_FAULTS = (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError, ArchiveError)


@dataclass(kw_only=True)
class Seen:
    """What was read."""

    num_files: int = 0
    """Files of lines; a member of an archive is one."""
    num_lines: int = 0
    """Without blank ones, which the stream sends to stay open."""
    num_tweets: int = 0
    num_bad: int = 0
    """Lines that are no JSON object."""
    first_bad: list[str] = field(default_factory=list)
    """The first of them: what is wrong, and where."""
    num_damaged: int = 0
    """Files that are cut or damaged: what stands before the fault is read."""
    first_damaged: list[str] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)
    """Objects that are no tweets, by kind: of `NOTICES`, or `OTHER`."""
    num_skipped: int = 0
    """Members and files of folders that are not named like tweets."""
    first_skipped: list[str] = field(default_factory=list)
    deleted: array[int] = field(default_factory=lambda: array("q"))
    """Tweets that were deleted by their authors since, by the stream's notices; 8 bytes each."""

    def bad(self, what: str, where: str) -> None:
        """A line that is no JSON object."""
        self.num_bad += 1
        if len(self.first_bad) < NUM_SHOWN:
            self.first_bad.append(f"{what} [{where}]")

    def damaged(self, where: str, error: Exception) -> None:
        """A file that is cut or damaged."""
        self.num_damaged += 1
        if len(self.first_damaged) < NUM_SHOWN:
            self.first_damaged.append(f"{' '.join(str(error).split())[:120]} [{where}]")

    def skipped(self, where: str) -> None:
        """A member or file that is not read."""
        self.num_skipped += 1
        if len(self.first_skipped) < NUM_SHOWN:
            self.first_skipped.append(where)

    def require(self, max_bad_share: float = MAX_BAD_SHARE) -> None:
        """See that not too much was bad.

        Raises:
            BadOption: the share is none.
            TooManyBadLines: more bad lines, or damaged files, than their share.
        """
        if not 0 <= max_bad_share <= 1:
            raise BadOption("a share of bad lines that is none", expected="0 to 1", got=max_bad_share)
        for what, bad, total, places in (
            ("lines that are no JSON objects", self.num_bad, self.num_lines, self.first_bad),
            ("files that are cut or damaged", self.num_damaged, self.num_files, self.first_damaged),
        ):
            if bad > max_bad_share * total:
                raise TooManyBadLines(
                    f"too many {what}",
                    expected=f"at most {max_bad_share:.6g} of {total:,}",
                    got=f"{bad:,}",
                    where=places[0],
                    hint="Fetch the input again, or raise --max-bad.",
                )


def read_tweets(paths: Iterable[str | Path], seen: Seen | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Tweets with their ids, file by file in the order of `expand`, repeated ones too.

    Args:
        paths: files and folders.
        seen: gets the counts.

    Raises:
        InputMissing: no such file or folder, or one that the system does not let us read.
    """
    seen = Seen() if seen is None else seen
    for path in expand(paths, seen):
        with _opened(path) as file, _noted(seen, str(path)):
            for where, text in _files(str(path), file, seen, 0):
                yield from _tweets(where, text, seen)


def _opened(path: Path) -> Any:
    try:
        return path.open("rb", buffering=_BUFFER_BYTES)
    except OSError as error:
        raise _unreadable(error, path) from error


def expand(paths: Iterable[str | Path], seen: Seen | None = None) -> Sequence[Path]:
    """The files: those given and those in folders given that are named like tweets, each once, sorted by path.

    Raises:
        InputMissing: no such file or folder.
    """
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            for inner in path.rglob("*"):
                if inner.is_file() and is_named_like_tweets(inner.name):
                    found.add(inner)
                elif inner.is_file() and seen is not None:
                    seen.skipped(str(inner))
        elif path.is_file():
            found.add(path)
        else:
            raise InputMissing("no such file or folder", where=path)
    return sorted(found, key=str)


def is_named_like_tweets(name: str) -> bool:
    """Whether a member of an archive, or a file of a folder, is read.

    >>> [is_named_like_tweets(n) for n in ("2016/07/01/00/00.json.bz2", "a/._00.json", "a/README.txt")]
    [True, False, False]
    """
    return _NAMES.fullmatch(name.rsplit("/", 1)[-1]) is not None


def _tweets(where: str, text: io.BufferedReader, seen: Seen) -> Iterator[tuple[int, dict[str, Any]]]:
    """The tweets of a file of lines, as far as it can be read."""
    seen.num_files += 1
    number = num_lines = num_tweets = 0
    readline, loads = text.readline, orjson.loads
    try:
        while line := readline(MAX_LINE_BYTES):
            number += 1
            try:
                found = loads(line)
            except ValueError:
                found = _second_look(line, text, f"{where}, line {number}", seen)
                if found is None:
                    continue
            num_lines += 1
            if not isinstance(found, dict):
                seen.bad("JSON, but no object", f"{where}, line {number}")
                continue
            key = tweet_id(found)
            if key is None or not ("text" in found or "full_text" in found or "extended_tweet" in found):
                _note(found, seen)
                continue
            num_tweets += 1
            yield key, found
    except (*_FAULTS, OSError) as error:
        _require_no_fault_of_the_system(error, where)
        seen.damaged(f"{where}, after line {number}", error)
    finally:
        seen.num_lines += num_lines
        seen.num_tweets += num_tweets


def _second_look(line: bytes, text: Any, where: str, seen: Seen) -> Any:
    """What `orjson` does not take: half a surrogate pair, where Twitter cut an emoji in two. None: no JSON at all."""
    if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
        while (rest := text.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        what = f"a line beyond {MAX_LINE_BYTES:,} bytes"
    elif line.isspace():
        return None
    else:
        try:
            return json.loads(line.decode("utf-8-sig"), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            what = f"no JSON: {str(error)[:60]}"
    seen.num_lines += 1
    seen.bad(what, where)
    return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _note(found: dict[str, Any], seen: Seen) -> None:
    kind = next(iter(found), "") if len(found) == 1 else ""
    if kind not in NOTICES:
        kind = OTHER
    seen.notices[kind] += 1
    if kind == "delete":
        inside = found["delete"]
        status = inside.get("status") if isinstance(inside, dict) else None
        key = tweet_id(status) if isinstance(status, dict) else None
        if key is not None:
            seen.deleted.append(key)


def _files(where: str, file: Any, seen: Seen, depth: int) -> Iterator[tuple[str, io.BufferedReader]]:
    """The files of lines that a file is, or holds."""
    head = file.peek(BLOCK)
    unpack = next((made for magic, made in _COMPRESSED if head.startswith(magic)), None)
    members: Callable[..., Iterator[tuple[str, Any]]] | None = None
    if head[257:262] == b"ustar":
        members = _tar_members
    elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        members = _zip_members
    if depth == _MAX_DEPTH and (unpack or members):
        raise ArchiveError("containers in containers without an end", expected=f"at most {_MAX_DEPTH}", where=where)
    if unpack is not None:
        with io.BufferedReader(unpack(file), _BUFFER_BYTES) as inner:
            yield from _files(where, inner, seen, depth + 1)
    elif members is not None:
        for name, raw in members(where, file, seen):
            place = f"{where}!{name}"
            with _noted(seen, place), io.BufferedReader(raw, _BUFFER_BYTES) as inner:
                yield from _files(place, inner, seen, depth + 1)
    else:
        yield where, file


def _zstd(file: io.BufferedReader) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


class _Steps(io.RawIOBase):
    """Decompressed bytes as they come: to fill a buffer whole would lose what stands before a fault."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        """Always True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As files do."""
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


_COMPRESSED: tuple[tuple[bytes, Callable[[Any], Any]], ...] = (
    (b"\x1f\x8b", lambda file: _Steps(gzip.GzipFile(fileobj=file, mode="rb"))),
    (b"BZh", lambda file: _Steps(bz2.BZ2File(file))),
    (b"\x28\xb5\x2f\xfd", _zstd),
)


class _Part(io.RawIOBase):
    """A member of a tar that goes by."""

    def __init__(self, tar: Forward, member: Member) -> None:
        self._tar, self._left = tar, member.length
        tar.seek(member.offset)

    def readable(self) -> bool:
        """Always True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As files do."""
        data = self._tar.read(min(len(buffer), self._left))
        if not data and self._left and len(buffer):
            raise EOFError(f"the archive ends {self._left:,} bytes before this member does")
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


def _tar_members(where: str, file: io.BufferedReader, seen: Seen) -> Iterator[tuple[str, Any]]:
    # `read1`, as in `_Steps`.
    tar = Forward(iter(partial(file.read1, _PIECE_BYTES), b""), 0)
    for member in walk_on(tar, where, _NO_SIZE):
        if member.kind == "file" and is_named_like_tweets(member.name):
            yield member.name, _Part(tar, member)
        elif member.kind != "folder":
            seen.skipped(f"{where}!{member.name}")


def _zip_members(where: str, file: io.BufferedReader, seen: Seen) -> Iterator[tuple[str, Any]]:
    """A zip's list stands at its end: one inside another archive goes to a temporary file first."""
    with tempfile.TemporaryFile() as copy:
        whole: Any = file
        if not file.seekable():
            shutil.copyfileobj(file, copy, _PIECE_BYTES)
            whole = copy
        with zipfile.ZipFile(whole) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                if not is_named_like_tweets(info.filename):
                    seen.skipped(f"{where}!{info.filename}")
                    continue
                try:
                    raw = archive.open(info)
                except RuntimeError as error:  # it has a password, or was packed by another method
                    seen.num_files += 1
                    seen.damaged(f"{where}!{info.filename}", error)
                    continue
                with raw:
                    yield info.filename, raw


@contextmanager
def _noted(seen: Seen, where: str) -> Iterator[None]:
    """Note a file that cannot be read, and go on behind it."""
    try:
        yield
    except (*_FAULTS, OSError) as error:
        _require_no_fault_of_the_system(error, where)
        seen.num_files += 1
        seen.damaged(where, error)


def _require_no_fault_of_the_system(error: Exception, where: str) -> None:
    if isinstance(error, OSError) and error.errno is not None:  # the disk's, not a decompressor's
        raise _unreadable(error, where) from error


def _unreadable(error: OSError, where: object) -> InputMissing:
    return InputMissing("the input cannot be read", got=error.strerror, where=where)
