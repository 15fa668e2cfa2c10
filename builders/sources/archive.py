"""The official image archive: walked once, never unpacked."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from builders.keys import Ints, Packed, first_of_each, pack
from builders.sources.tables import parse_image_key
from builders.state import State, fingerprint, read_arrow, stamp, write_arrow
from t4sa_data.catalog import OFFICIAL_LISTS
from t4sa_data.errors import BadKey, DuplicateMember, UnsafeMember
from t4sa_data.shards import Member, RangeReader, walk

INDEX_VERSION = 1
"""Bump when the same archive would be indexed differently."""

_IMAGE = re.compile(r"(?:\./)?data/(?P<folder>[^/]+)/(?P<stem>[^/]+)\.jpg")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Where the bytes of an archive's images were put, of those that were kept."""

    files: tuple[Path, ...]
    offset: Ints
    """Byte of the archive where each image was, ascending, shape (n,)."""
    file: Ints
    """Which of `files` it is in, shape (n,)."""
    place: Ints
    """Byte of that file, shape (n,)."""

    def locate(self, offset: Ints) -> tuple[Ints, Ints]:
        """File and byte of images, each of shape (m,).

        Args:
            offset: bytes of the archive, of kept images, shape (m,).
        """
        row = np.searchsorted(self.offset, offset)
        return self.file[row], self.place[row]


@dataclass(frozen=True, kw_only=True)
class ArchiveIndex:
    """Where every image of an archive is, in the archive's order."""

    path: Path
    """Of the archive; of the folder that it left, where it only passed by (`sources.passed`)."""
    name: str
    """Of the archive's file."""
    tweet_id: Ints
    """Shape (n,)."""
    image_index: np.ndarray
    """Shape (n,), int8."""
    offset: Ints
    """Bytes, shape (n,)."""
    length: Ints
    """Bytes, shape (n,)."""
    lists: dict[str, bytes] = field(default_factory=dict)
    """Split lists that stand inside, by file name."""
    others: tuple[str, ...] = ()
    """Files that are neither images nor lists: named in the report, used for nothing."""
    kept: Kept | None = None
    """Where bytes are, of an archive that only passed by; None: in the archive itself."""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of one image."""
        path = self.path
        if self.kept is not None:
            (number,), (offset,) = self.kept.locate(np.array([offset]))
            path = self.kept.files[number]
        with RangeReader(path.parent) as reader:
            return reader.read(path.name, offset, length)

    @property
    def packed(self) -> Packed:
        """Keys as numbers, shape (n,)."""
        return pack(self.tweet_id, self.image_index)


def index_archive(path: Path, state: State) -> ArchiveIndex:
    """Walk an archive, or take up the index of an earlier walk.

    Raises:
        TruncatedArchive, BadHeader: see `shards.walk`.
        UnsafeMember: an absolute path, a `..`, a link, a device.
        BadKey: an image whose name is no key.
        DuplicateMember: two images of one key, or two split lists of one name.
    """
    key = fingerprint(INDEX_VERSION, stamp(path))
    kept = state.path("index", key, "members.arrow")
    head = state.load("index", key)
    if head is None:
        head = _walk_archive(path, kept)
        state.save("index", key, head)
    table = read_arrow(kept)
    columns = {name: table[name].to_numpy() for name in table.column_names}
    with RangeReader(path.parent) as reader:
        lists = {name: reader.read(path.name, *span) for name, span in head["lists"].items()}
    return ArchiveIndex(path=path, name=path.name, lists=lists, others=tuple(head["others"]), **columns)


def _walk_archive(path: Path, kept: Path) -> dict[str, object]:
    tweet_ids, indices, offsets, lengths = array("q"), array("b"), array("q"), array("q")
    lists: dict[str, tuple[int, int]] = {}
    others: list[str] = []
    for member in walk(path):
        what = classify(member, path)
        if isinstance(what, ImageName):
            tweet_ids.append(what.tweet_id)
            indices.append(what.image_index)
            offsets.append(member.offset)
            lengths.append(member.length)
        elif what == "list":
            name = base_name(member)
            if name in lists:
                raise second_list(member, path)
            lists[name] = (member.offset, member.length)
        elif what == "other":
            others.append(member.name)
    table = pa.table(
        {
            "tweet_id": np.frombuffer(tweet_ids, np.int64),
            "image_index": np.frombuffer(indices, np.int8),
            "offset": np.frombuffer(offsets, np.int64),
            "length": np.frombuffer(lengths, np.int64),
        }
    )
    refuse_duplicates(table, path)
    write_arrow(kept, table.schema, [table])
    return {"lists": lists, "others": others}


class ImageName(NamedTuple):
    """What an image's name says."""

    tweet_id: int
    image_index: int


def classify(member: Member, where: object) -> ImageName | Literal["list", "folder", "other"]:
    """What a member of the image archive is.

    Args:
        member: of the archive.
        where: the archive, for messages.

    Raises:
        UnsafeMember: an absolute path, a `..`, a link, a device.
        BadKey: an image whose name is no key.
    """
    if member.kind == "folder":
        return "folder"
    _refuse_unsafe(member, where)
    match = _IMAGE.fullmatch(member.name)
    if match:
        return ImageName(*parse_image_key(match["stem"], f"{where}, {member.name}"))
    if base_name(member) in OFFICIAL_LISTS.values():
        return "list"
    if "data/" in member.name:
        raise BadKey(
            "an image with an unexpected name",
            expected="data/<5 digits>/<tweet id>-<1..4>.jpg",
            got=member.name,
            where=f"{where}, byte {member.header_offset}",
            hint="Is this the official archive?",
        )
    return "other"


def base_name(member: Member) -> str:
    """A member's name without its folders."""
    return member.name.rsplit("/", 1)[-1]


def second_list(member: Member, where: object) -> DuplicateMember:
    """The error for a split list that comes again."""
    return DuplicateMember(
        "a split list stands in the archive twice",
        got=member.name,
        where=f"{where}, byte {member.header_offset}",
        hint="Is this the official archive?",
    )


def _refuse_unsafe(member: Member, where: object) -> None:
    bad = "an absolute path" if member.name.startswith("/") or re.match(r"[A-Za-z]:", member.name) else ""
    bad = bad or ("a path that climbs" if ".." in member.name.split("/") else "")
    bad = bad or (f"a {member.kind}" if member.kind != "file" else "")
    if bad:
        raise UnsafeMember(
            f"the archive holds {bad}",
            got=member.name,
            where=f"{where}, byte {member.header_offset}",
            hint="Nothing was read from it. Is this the official archive?",
        )


def refuse_duplicates(table: pa.Table, where: object) -> None:
    """Raise `DuplicateMember` where two images have one key; columns `tweet_id`, `image_index`, `offset`."""
    packed = pack(table["tweet_id"].to_numpy(), table["image_index"].to_numpy())
    first = first_of_each(packed)
    if len(first) < len(packed):
        again = int(np.setdiff1d(np.arange(len(packed)), first)[0])
        before = int(np.flatnonzero(packed == packed[again])[0])
        offset = table["offset"].to_numpy()
        raise DuplicateMember(
            "two images of one key",
            got=f"{table['tweet_id'][again]}-{table['image_index'][again]}",
            where=f"{where}, bytes {offset[before]} and {offset[again]}",
            hint="Is this the official archive?",
        )
