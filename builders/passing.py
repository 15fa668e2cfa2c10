"""The pass: an image archive read once from its site, and never stored. What is wanted of it stays, small or as it is.

A piece of it, some MB of whole members, is one file; a worker inspects it while the next one comes. Cut or killed, the
pass goes on behind the last whole member of the last piece: where the connection is given up, or Ctrl-C comes, that is
the last member that came; after SIGKILL the piece that was being gathered comes again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from builders import small
from builders.engine import Engine
from builders.inspection import CHUNK_IMAGES, INSPECTION_VERSION, Chunk, inspect_chunk
from builders.keys import pack
from builders.sources.archive import ImageName, base_name, classify, second_list
from builders.sources.passed import MEMBERS, PassedArchive, Piece, Wanted
from builders.sources.tables import read_split_list
from builders.state import read_arrow, write_arrow
from t4sa_data.catalog import OFFICIAL_LISTS, SPLITS
from t4sa_data.errors import ConflictingRows, DiskSpaceError, InputMissing, OutputError
from t4sa_data.files import sweep_temporary, write_bytes
from t4sa_data.pixels import DECODE_SECONDS, MAX_PIXELS
from t4sa_data.plan import release_order
from t4sa_data.reading.passing import PassingFile
from t4sa_data.release import toolchain
from t4sa_data.shards import Forward, Member, walk_on
from t4sa_data.shards.tar import BLOCK, plain_file

PASS_VERSION = 1
"""Bump when the same archive would leave something else."""
PIECE_BYTES = 32 << 20
"""A piece is cut at `CHUNK_IMAGES` images (about 17 MB of B-T4SA), or at so many bytes."""
LOOK_BYTES = 64 << 20
"""How far from either end of an archive its split lists are looked for; together they have about 21 MB."""


def run_pass(
    file: PassingFile,
    passed: PassedArchive,
    wanted: Wanted,
    *,
    lists: dict[str, bytes],
    engine: Engine,
    say: Callable[[str], object] = lambda _: None,
    progress: Callable[[int, int], object] = lambda _have, _total: None,
) -> None:
    """Let an archive pass by; afterwards `passed` stands for it. Cut or killed at any moment, the same call goes on.

    Args:
        file: the archive on its site.
        passed: where what is wanted stays.
        wanted: that.
        lists: split lists that are at hand, by file name; others are looked for at both ends of the archive where only
            some splits are wanted.
        engine: where inspection runs.
        say: gets a line now and then.
        progress: called with the bytes that have passed and those of the archive.

    Raises:
        ArchiveError: the archive is damaged; the message says where.
        InputMissing: the split lists are nowhere to be seen, and only some splits are wanted.
        DownloadError, ShardError, CredentialsError: the site does not give it, or replaced it meanwhile.
        DiskSpaceError, OutputError: the disk does not take it. What has passed is kept.
    """
    head = _head(file, wanted)
    if passed.head != head or (file.validator is None and not passed.is_done) or passed.is_cleared:
        if passed.head:
            say(f"{passed.name}: starting over, {_difference(passed, head)}")
        passed.begin(head)
    if passed.is_done:
        return
    sweep_temporary(passed.folder)
    keys = _wanted_keys(file, passed, wanted, lists)
    gatherer = _Gatherer(file, passed, wanted, keys, progress)
    for _ in engine.run(inspect_piece, gatherer.tasks()):
        pass
    passed.finish()


def _head(file: PassingFile, wanted: Wanted) -> dict[str, Any]:
    settings = {
        "version": [PASS_VERSION, INSPECTION_VERSION],
        "toolchain": dict(toolchain()),
        "small": small.settings() if wanted.small else None,
    }
    head = {"url": file.where, "num_bytes": file.num_bytes, "validator": file.validator}
    return dict(json.loads(json.dumps(head | {"wanted": asdict(wanted), "settings": settings})))


def _difference(passed: PassedArchive, head: dict[str, Any]) -> str:
    before = passed.head
    if passed.is_cleared:
        return "what was kept of it was given back"
    for name, words in (("num_bytes", "its size"), ("validator", "its version"), ("url", "its URL")):
        if before.get(name) != head[name]:
            return f"{words} is another: it was {before.get(name)}, it is {head[name]}"
    if before == head:
        return "the site names no version of it"
    return "other splits or pictures are wanted, or Pillow or its JPEG library is another"


def _wanted_keys(
    file: PassingFile, passed: PassedArchive, wanted: Wanted, lists: dict[str, bytes]
) -> frozenset[int] | None:
    """Packed keys of the wanted splits; None: all of them."""
    if set(wanted.splits) == set(SPLITS):
        return None
    names = [OFFICIAL_LISTS[split] for split in wanted.splits]
    if missing := [name for name in names if name not in lists and name not in passed.lists]:
        for name, data in find_lists(file).items():
            passed.keep_list(name, data)
        if missing := [name for name in missing if name not in passed.lists]:
            raise InputMissing(
                "a split list is missing: what belongs to which split?",
                expected=", ".join(missing),
                where=f"near either end of {file.where}, or beside {passed.folder}",
                hint="Put it into RAW, or leave out --split.",
            )
    both = passed.lists | lists
    read = [read_split_list(both[name], name) for name in names]
    return frozenset(key for one in read for key in pack(one.tweet_id, one.image_index).tolist())


def find_lists(file: PassingFile) -> dict[str, bytes]:
    """The split lists that stand near the beginning or the end of an archive on its site, by file name.

    Raises:
        BadHeader, DownloadError, CredentialsError: see `run_pass`.
    """
    found: dict[str, bytes] = {}
    stream = Forward(file.pieces(0, min(LOOK_BYTES, file.num_bytes)), 0)
    for member in walk_on(stream, file.where, file.num_bytes):
        if isinstance(what := classify(member, file.where), ImageName) or member.end > LOOK_BYTES:
            break
        if what == "list":
            stream.seek(member.offset)
            found[base_name(member)] = stream.read(member.length)
    if len(found) == len(OFFICIAL_LISTS):
        return found
    # Behind the images: nobody knows where their headers are, but a header is known by its checksum.
    start = max(0, file.num_bytes - LOOK_BYTES) // BLOCK * BLOCK
    tail = file.part(start, file.num_bytes)
    for at in range(0, len(tail) - BLOCK + 1, BLOCK):
        plain = plain_file(tail[at : at + BLOCK]) if b"b-t4sa_" in tail[at : at + 100] else None
        name = plain[0].rsplit("/", 1)[-1] if plain else ""
        if plain and name in OFFICIAL_LISTS.values() and at + BLOCK + plain[1] <= len(tail):
            found[name] = tail[at + BLOCK : at + BLOCK + plain[1]]
    return found


class _Entry(NamedTuple):
    """One file of the archive, as it passed. A piece grows by whole entries, whenever Ctrl-C comes."""

    member: Member
    what: ImageName | Literal["list", "other"]
    sha256: bytes
    data: bytes | None
    """Of an image that is wanted."""


def _is_full(entries: list[_Entry]) -> bool:
    """Whether the next file begins another piece."""
    sizes = [len(entry.data) for entry in entries if entry.data is not None]
    return len(sizes) >= CHUNK_IMAGES or sum(sizes) >= PIECE_BYTES or len(entries) >= 8 * CHUNK_IMAGES


@dataclass(frozen=True, kw_only=True)
class Task:
    """A piece to inspect."""

    chunk: Chunk
    keep: bool
    """Its bytes stay; else they go once they were seen, if all of them decode."""


class _Gatherer:
    """Cuts an archive into pieces as it comes."""

    def __init__(
        self,
        file: PassingFile,
        passed: PassedArchive,
        wanted: Wanted,
        keys: frozenset[int] | None,
        progress: Callable[[int, int], object],
    ) -> None:
        self._file, self._passed, self._wanted, self._keys = file, passed, wanted, keys
        self._progress = progress
        self._seen_lists: set[str] = set()

    def tasks(self) -> Iterator[Task]:
        """The pieces to inspect: first those that an earlier run left, then the others as they come."""
        pieces = self._passed.pieces()
        self._seen_lists.update(name for piece in pieces for name, *_ in piece.note["lists"])
        for piece in pieces:
            if piece.path("piece").exists():
                yield self._task(piece)
        last = pieces[-1].last if pieces else None
        for number, entries in enumerate(self._gather(last), len(pieces)):
            piece = Piece(self._passed.folder, number)
            _write_piece(piece, entries)
            if piece.note["num_kept"]:
                yield self._task(piece)
            self._progress(entries[-1].member.end, self._file.num_bytes)

    def _task(self, piece: Piece) -> Task:
        members = piece.members
        kept = members.filter(members["place"].is_valid())
        chunk = Chunk(
            archive=piece.path("piece"),
            offset=kept["place"].to_numpy().astype(np.int64),
            length=kept["length"].to_numpy(),
            max_pixels=MAX_PIXELS,
            max_seconds=DECODE_SECONDS,
            out=piece.path("seen.arrow"),
            small=piece.path("jpgs") if self._wanted.small else None,
        )
        return Task(chunk=chunk, keep=self._wanted.originals)

    def _gather(self, last: Member | None) -> Iterator[list[_Entry]]:
        """Pieces behind a member. Where the rest does not come, what came of the last one is kept for the next run."""
        start = last.end if last else 0
        stream = Forward(self._file.pieces(start), start)
        entries: list[_Entry] = []
        try:
            for member in walk_on(stream, self._file.where, self._file.num_bytes, last):
                if (entry := self._entry(member, stream)) is not None:
                    entries.append(entry)
                if _is_full(entries):
                    full, entries = entries, []
                    yield full
        except BaseException:  # Ctrl-C too
            if entries:
                with suppress(DiskSpaceError, OutputError):
                    _write_piece(Piece(self._passed.folder, len(self._passed.pieces())), entries)
            raise
        if entries:
            yield entries

    def _entry(self, member: Member, stream: Forward) -> _Entry | None:
        what = classify(member, self._file.where)
        if what == "folder":
            return None
        stream.seek(member.offset)
        data = stream.read(member.length)
        if what == "list":
            self._take_list(member, data)
        is_wanted = isinstance(what, ImageName) and (self._keys is None or _packed(what) in self._keys)
        return _Entry(member, what, hashlib.sha256(data).digest(), data if is_wanted else None)

    def _take_list(self, member: Member, data: bytes) -> None:
        name = base_name(member)
        if name in self._seen_lists:
            raise second_list(member, self._file.where)
        if self._passed.lists.get(name, data) != data:
            raise ConflictingRows(
                "a split list was found twice, and they differ",
                got=name,
                where=f"{self._file.where}, byte {member.header_offset}",
            )
        self._passed.keep_list(name, data)
        self._seen_lists.add(name)


def _packed(name: ImageName) -> int:
    """As `keys.pack`, of one."""
    return name.tweet_id << 2 | name.image_index - 1


def _write_piece(piece: Piece, entries: list[_Entry]) -> None:
    """Write a piece; its note comes last and vouches for the others. Images stand in descending release order: what
    is written into shards first stands last, and can be cut off (`givingback`)."""
    rows, data, num_bytes = [], [], 0
    told: dict[str, list[tuple[str, int, int, str]]] = {"list": [], "other": []}
    for member, what, sha256, _ in entries:
        if not isinstance(what, ImageName):
            name = base_name(member) if what == "list" else member.name
            told[what].append((name, member.offset, member.length, sha256.hex()))
    for what, member, sha256, image in _descending(entries):
        rows.append((*what, member.offset, member.length, sha256, None if image is None else num_bytes))
        if image is not None:
            data.append(image)
            num_bytes += len(image)
    for old in ("seen.arrow", "jpgs", "piece"):  # of a piece of this number that ended elsewhere
        piece.path(old).unlink(missing_ok=True)
    if data:
        write_bytes(piece.path("piece"), b"".join(data))
    columns = list(zip(*rows, strict=True)) or [()] * len(MEMBERS)
    arrays = [pa.array(column, kind.type) for column, kind in zip(columns, MEMBERS, strict=True)]
    write_arrow(piece.path("members.arrow"), MEMBERS, [pa.table(arrays, schema=MEMBERS)])
    note = {"last": asdict(entries[-1].member), "num_kept": len(data), "lists": told["list"], "others": told["other"]}
    write_bytes(piece.path("json"), json.dumps(note).encode())


def _descending(entries: list[_Entry]) -> list[tuple[ImageName, Member, bytes, bytes | None]]:
    """The images, the last in release order first."""
    images = [(e.what, e.member, e.sha256, e.data) for e in entries if isinstance(e.what, ImageName)]
    names = [name for name, *_ in images]
    tweet_id = np.array([name.tweet_id for name in names], np.int64)
    order = release_order(tweet_id, np.array([name.image_index for name in names], np.int8))
    return [images[i] for i in order[::-1]]


def inspect_piece(task: Task) -> None:
    """Inspect the images of one piece, then drop its bytes unless they are still needed."""
    if not task.chunk.is_done:  # else by a worker that was killed behind it
        inspect_chunk(task.chunk)
    if not task.keep and read_arrow(task.chunk.out)["reason"].null_count == len(task.chunk.offset):
        task.chunk.archive.unlink(missing_ok=True)
