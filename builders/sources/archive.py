"""The official image archive: walked once, never unpacked."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path

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
class ArchiveIndex:
    """Where every image of an archive is, in the archive's order."""

    path: Path
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
    return ArchiveIndex(path=path, lists=lists, others=tuple(head["others"]), **columns)


def _walk_archive(path: Path, kept: Path) -> dict[str, object]:
    tweet_ids, indices, offsets, lengths = array("q"), array("b"), array("q"), array("q")
    lists: dict[str, tuple[int, int]] = {}
    others: list[str] = []
    for member in walk(path):
        if member.kind == "folder":
            continue
        _refuse_unsafe(member, path)
        name = member.name.rsplit("/", 1)[-1]
        match = _IMAGE.fullmatch(member.name)
        if match:
            tweet_id, image_index = parse_image_key(match["stem"], f"{path}, {member.name}")
            tweet_ids.append(tweet_id)
            indices.append(image_index)
            offsets.append(member.offset)
            lengths.append(member.length)
        elif name in OFFICIAL_LISTS.values():
            if name in lists:
                raise DuplicateMember(
                    "a split list stands in the archive twice",
                    got=member.name,
                    where=f"{path}, byte {member.header_offset}",
                    hint="Is this the official archive?",
                )
            lists[name] = (member.offset, member.length)
        elif "data/" in member.name:
            raise BadKey(
                "an image with an unexpected name",
                expected="data/<5 digits>/<tweet id>-<1..4>.jpg",
                got=member.name,
                where=f"{path}, byte {member.header_offset}",
                hint="Is this the official archive?",
            )
        else:
            others.append(member.name)
    table = pa.table(
        {
            "tweet_id": np.frombuffer(tweet_ids, np.int64),
            "image_index": np.frombuffer(indices, np.int8),
            "offset": np.frombuffer(offsets, np.int64),
            "length": np.frombuffer(lengths, np.int64),
        }
    )
    _refuse_duplicates(table, path)
    write_arrow(kept, table.schema, [table])
    return {"lists": lists, "others": others}


def _refuse_unsafe(member: Member, path: Path) -> None:
    bad = "an absolute path" if member.name.startswith("/") or re.match(r"[A-Za-z]:", member.name) else ""
    bad = bad or ("a path that climbs" if ".." in member.name.split("/") else "")
    bad = bad or (f"a {member.kind}" if member.kind != "file" else "")
    if bad:
        raise UnsafeMember(
            f"the archive holds {bad}",
            got=member.name,
            where=f"{path}, byte {member.header_offset}",
            hint="Nothing was read from it. Is this the official archive?",
        )


def _refuse_duplicates(table: pa.Table, path: Path) -> None:
    packed = pack(table["tweet_id"].to_numpy(), table["image_index"].to_numpy())
    first = first_of_each(packed)
    if len(first) < len(packed):
        again = int(np.setdiff1d(np.arange(len(packed)), first)[0])
        before = int(np.flatnonzero(packed == packed[again])[0])
        offset = table["offset"].to_numpy()
        raise DuplicateMember(
            "two images of one key",
            got=f"{table['tweet_id'][again]}-{table['image_index'][again]}",
            where=f"{path}, bytes {offset[before]} and {offset[again]}",
            hint="Is this the official archive?",
        )
