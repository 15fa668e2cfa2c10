"""What is left of an image archive that passed by: where every member was, what was seen of the images, and the bytes
that are still to be written. `builders.passing` fills the folder; to a build it is the archive.

In `RAW/<archive>.passed/`: `head.json` says what passed and what is kept of it; of each piece of the archive, in its
order, `NNNNN.members.arrow` and `NNNNN.json` say what was in it, `NNNNN.seen.arrow` what inspection saw, `NNNNN.jpgs`
holds the small pictures and `NNNNN.piece` the originals, where they are kept or one of them does not decode; `lists/`
the split lists; `done.json` ends it. `cleared` says that the bytes went when their shards were there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from builders.inspection import Inspection, join_tables
from builders.keys import Ints, find
from builders.sources.archive import ArchiveIndex, Kept, refuse_duplicates
from builders.state import read_arrow
from t4sa_data.catalog import SPLITS
from t4sa_data.files import write_bytes
from t4sa_data.shards import Member

SUFFIX = ".passed"
LISTS = "lists"
MEMBERS = pa.schema(
    [
        ("tweet_id", pa.int64()),
        ("image_index", pa.int8()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("sha256", pa.binary(32)),
        ("place", pa.int64()),
    ]
)
"""One row an image: its key, where it was in the archive, and where it is in its piece (null: not kept). A piece's rows
stand in descending release order."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What of an archive is kept."""

    small: bool
    """Its small pictures."""
    originals: bool
    """Its images as they are."""
    splits: tuple[str, ...] = SPLITS
    """Of these splits only."""


@dataclass(frozen=True)
class Piece:
    """One piece of an archive, and its files in `folder`."""

    folder: Path
    number: int

    def path(self, kind: str) -> Path:
        """One of its files: `members.arrow`, `json`, `seen.arrow`, `jpgs`, `piece`."""
        return self.folder / f"{self.number:05d}.{kind}"

    @cached_property
    def note(self) -> dict[str, Any]:
        """What stands in its JSON: `last` member, `num_kept` images, `others` and `lists` (name, byte, length,
        sha256 of each)."""
        return dict(json.loads(self.path("json").read_bytes()))

    @property
    def last(self) -> Member:
        """Its last member: the next piece begins behind it."""
        return Member(**self.note["last"])

    @property
    def members(self) -> pa.Table:
        """Its images, columns as `MEMBERS`."""
        return read_arrow(self.path("members.arrow"))

    def is_whole(self, wanted: Wanted) -> bool:
        """Whether all is there that is wanted of it, or can be made of what is there."""
        if not self.path("json").exists():
            return False
        is_seen = self.path("seen.arrow").exists() and (not wanted.small or self.path("jpgs").exists())
        return self.path("piece").exists() or not self.note["num_kept"] or (is_seen and not wanted.originals)


class PassedArchive:
    """An archive that passed by, or is about to.

    Args:
        folder: `RAW/<archive>.passed`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name.removesuffix(SUFFIX)

    @property
    def done_path(self) -> Path:
        """Stands when the archive has passed whole."""
        return self.folder / "done.json"

    @property
    def is_done(self) -> bool:
        """Whether it has passed whole."""
        return self.done_path.exists()

    @property
    def is_cleared(self) -> bool:
        """Whether its bytes went: they were written into shards."""
        return (self.folder / "cleared").exists()

    @property
    def head(self) -> dict[str, Any]:
        """What passes: `url`, `num_bytes`, `validator`; and how: `wanted`, `settings`. Empty: nothing yet."""
        try:
            return dict(json.loads((self.folder / "head.json").read_bytes()))
        except FileNotFoundError:
            return {}

    @property
    def wanted(self) -> Wanted:
        """What is kept."""
        stated = self.head["wanted"]
        return Wanted(**{**stated, "splits": tuple(stated["splits"])})

    @property
    def num_bytes(self) -> int:
        """Of the archive."""
        return int(self.head["num_bytes"])

    def pieces(self) -> list[Piece]:
        """Those that are there, in order, up to the first that is not whole."""
        found: list[Piece] = []
        while (piece := Piece(self.folder, len(found))).is_whole(self.wanted):
            found.append(piece)
        return found

    def begin(self, head: dict[str, Any]) -> None:
        """Keep nothing of what was there, and note what is to come."""
        shutil.rmtree(self.folder, ignore_errors=True)
        write_bytes(self.folder / "head.json", json.dumps(head).encode())

    def keep_list(self, name: str, data: bytes) -> None:
        """Keep a split list."""
        write_bytes(self.folder / LISTS / name, data)

    @property
    def lists(self) -> dict[str, bytes]:
        """The split lists that are here, by file name."""
        folder = self.folder / LISTS
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.exists() else {}

    def finish(self) -> None:
        """Note that it has passed whole."""
        pieces = self.pieces()
        done = {"pieces": len(pieces), "members_sha256": _members_sha256(pieces)}
        write_bytes(self.done_path, json.dumps(done).encode())

    def clear(self) -> None:
        """Give the bytes back: their shards are written. What was seen stays, so that no build asks the site again."""
        write_bytes(self.folder / "cleared", b"")
        for pattern in ("*.jpgs", "*.piece"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def as_input(self) -> dict[str, Any]:
        """What a layer's provenance says of it. Nobody had the whole file at once, so its sha256 is not known; that of
        its members is, however often the pass was cut."""
        members = json.loads(self.done_path.read_bytes())["members_sha256"]
        return {"name": self.name, "bytes": self.num_bytes, "sha256": None, "members_sha256": members}

    def index(self) -> ArchiveIndex:
        """Where every image was, as `archive.index_archive` gives it.

        Raises:
            DuplicateMember: two images of one key.
        """
        pieces = self.pieces()
        tables = [piece.members for piece in pieces]
        numbers = (pa.repeat(pa.scalar(i, pa.int64()), table.num_rows) for i, table in enumerate(tables))
        numbered = [table.append_column("number", number) for table, number in zip(tables, numbers, strict=True)]
        empty = MEMBERS.append(pa.field("number", pa.int64())).empty_table()
        members = pa.concat_tables([empty, *numbered]).sort_by("offset").combine_chunks()
        refuse_duplicates(members, self.name)
        is_kept = np.asarray(members["place"].is_valid(), dtype=bool)
        columns = {name: members[name].to_numpy() for name in ("tweet_id", "image_index", "offset", "length")}
        return ArchiveIndex(
            path=self.folder,
            name=self.name,
            lists={name: data for name, data in self.lists.items() if name in _names(pieces, "lists")},
            others=tuple(_names(pieces, "others")),
            kept=Kept(
                files=tuple(piece.path("piece") for piece in pieces),
                offset=columns["offset"][is_kept],
                file=members["number"].to_numpy()[is_kept],
                place=members["place"].filter(pa.array(is_kept)).to_numpy(),
            ),
            **columns,
        )

    def inspection(self, offset: Ints) -> Inspection:
        """What was seen of some images, as `inspection.inspect_archive` gives it.

        Args:
            offset: bytes of the archive, of kept images, shape (n,).
        """
        pieces = [piece for piece in self.pieces() if piece.path("seen.arrow").exists()]
        tables = [read_arrow(piece.path("seen.arrow")) for piece in pieces]
        rows = join_tables(tables, self.wanted.small).combine_chunks()
        row = find(offset, np.concatenate([_kept_offsets(piece) for piece in pieces]))
        files = tuple(piece.path("jpgs") for piece in pieces) if self.wanted.small else ()
        return Inspection(rows=rows.take(pa.array(row)), sha256=None, files=files)


def _kept_offsets(piece: Piece) -> Ints:
    members = piece.members
    return np.asarray(members["offset"].filter(members["place"].is_valid()).to_numpy())


def _names(pieces: list[Piece], kind: str) -> list[str]:
    return [name for piece in pieces for name, *_ in piece.note[kind]]


def _members_sha256(pieces: list[Piece]) -> str:
    """sha256 over one line a file, in the archive's order: `byte length sha256`."""
    lines: list[tuple[int, int, str]] = []
    for piece in pieces:
        offsets, lengths, digests = (piece.members[name].to_pylist() for name in ("offset", "length", "sha256"))
        lines += zip(offsets, lengths, (digest.hex() for digest in digests), strict=True)
        lines += [tuple(told[1:]) for kind in ("lists", "others") for told in piece.note[kind]]
    digest = hashlib.sha256()
    for offset, length, sha256 in sorted(lines):
        digest.update(f"{offset} {length} {sha256}\n".encode())
    return digest.hexdigest()
