"""Ways to damage a miniature of the official packages, and what has to hold of a folder after a build."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from builders.prepare import Outcome, prepare
from builders.run import PrepareConfig
from t4sa_data.catalog import OFFICIAL_LISTS
from t4sa_data.files import TEMPORARY
from t4sa_data.shards import read_table, walk
from t4sa_data.shards.tar import END_MARK
from t4sa_data.testing import OfficialArchive
from t4sa_data.testing.archive import IMAGES_NAME, SENTIMENT_NAME, TEXT_NAME, member_name, write_tar

TAR, TSV, CSV = IMAGES_NAME, SENTIMENT_NAME, TEXT_NAME
TRAIN, VALIDATION, TEST = OFFICIAL_LISTS["train"], OFFICIAL_LISTS["validation"], OFFICIAL_LISTS["test"]
SHARD_BYTES = 60_000


def build(raw: Path, out: Path, **options: Any) -> Outcome:
    """B-T4SA as tar, in this process, unless the options say otherwise."""
    chosen = {"workers": 1, "shard_bytes": SHARD_BYTES, "configs": ("b-t4sa",), "formats": ("wds",)} | options
    return prepare(PrepareConfig(raw=raw, out=out, **chosen))


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def assert_nothing_written(out: Path) -> None:
    """No release file under its final name, and no half of one."""
    assert list(out.rglob(f"*{TEMPORARY}")) == []
    assert [p for name in ("t4sa", "t4sa-wds") for p in (out / name).rglob("*") if p.is_file()] == []


@dataclass(frozen=True)
class Raw:
    """A copy of the miniature, to be damaged; methods return the words that an error's message must hold."""

    folder: Path
    archive: OfficialArchive

    @classmethod
    def copy(cls, archive: OfficialArchive, folder: Path) -> Raw:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(archive.folder, folder)
        return cls(folder, archive)

    @property
    def keys(self) -> list[str]:
        """Keys in the archive's order."""
        return sorted(self.archive.images)

    def key_of(self, split: str) -> str:
        """The first key of a split."""
        return next(key for key in self.keys if self.archive.splits[key] == split)

    def tweet(self, n: int) -> int:
        """The n-th tweet of the TSV."""
        return sorted(self.archive.probabilities)[n]

    def line(self, n: int, split: str = "train") -> str:
        """Line n (from 1) of a split list, without its line break."""
        return (self.folder / OFFICIAL_LISTS[split]).read_text().splitlines()[n - 1]

    @property
    def names(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()]

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    # Any file.
    def make(self, name: str, data: bytes, *said: str) -> tuple[str, ...]:
        (self.folder / name).write_bytes(data)
        return said

    def edit(self, name: str, change: Callable[[bytes], bytes], *said: str) -> tuple[str, ...]:
        path = self.folder / name
        path.write_bytes(change(path.read_bytes()))
        return said

    def replace(self, name: str, old: str, new: str, *said: str) -> tuple[str, ...]:
        """The first `old` becomes `new`."""
        data = (self.folder / name).read_bytes()
        assert old.encode() in data
        return self.edit(name, lambda _: data.replace(old.encode(), new.encode(), 1), *said)

    def append(self, name: str, text: str, *said: str) -> tuple[str, ...]:
        """Text at the end of a file; the message names the line it starts on."""
        line = (self.folder / name).read_bytes().count(b"\n") + 1
        return self.edit(
            name, lambda data: data + text.encode("utf-8", "surrogateescape"), *(said or (f"line {line}",))
        )

    def field(self, n: int, column: int, text: str) -> tuple[str, ...]:
        """Another value in row n (from 1) of the TSV."""
        lines = (self.folder / TSV).read_text().split("\n")
        cells = lines[n].split("\t")
        cells[column] = text
        lines[n] = "\t".join(cells)
        return self.edit(TSV, lambda _: "\n".join(lines).encode(), f"line {n + 1}", text)

    # The archive.
    def member(self, n: int) -> Any:
        return list(walk(self.folder / TAR))[n]

    def cut(self, end: int, n: int) -> tuple[str, ...]:
        """The archive ends at a byte; member n is the last good one."""
        return self.edit(TAR, lambda data: data[:end], f"last good member: {self.member(n).name} at byte")

    def add(self, name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[str, ...]:
        """One more member at the archive's end."""
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
        header = info.tobuf(tarfile.GNU_FORMAT)
        body = data + bytes(-len(data) % 512) if info.size else b""
        at = (self.folder / TAR).stat().st_size - len(END_MARK)
        return self.edit(TAR, lambda old: old[:at] + header + body + END_MARK, f"byte {at}", name)

    def rebuild(self, change: Callable[[dict[str, bytes]], object]) -> None:
        """The archive again, with other members (name -> bytes)."""
        members = {member_name(key): self.archive.images[key] for key in self.keys}
        change(members)
        write_tar(self.folder / TAR, members)


@dataclass(frozen=True)
class Built:
    """A finished build, seen from outside: its files and the notes beside them."""

    out: Path
    outcome: Outcome

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.out / "build/report.json").read_bytes())

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return pq.read_table(self.out / "build/ledger.parquet").to_pylist()

    @property
    def table(self) -> pa.Table:
        return read_table(self.out / "t4sa-wds/b-t4sa/index.parquet")

    def row(self, key: str) -> dict[str, Any]:
        return next(row for row in self.table.to_pylist() if row["key"] == key)

    def dropped(self) -> dict[str, set[str]]:
        """Reason -> keys."""
        made: dict[str, set[str]] = {}
        for row in self.ledger:
            if row["reason"]:
                made.setdefault(row["reason"], set()).add(row["key"])
        return made

    def assert_adds_up(self) -> None:
        """Every candidate once in the ledger, kept ones in the table, counts in the report."""
        images = [row for row in self.ledger if row["kind"] == "image"]
        assert len({row["key"] for row in images}) == len(images)
        assert {row["key"] for row in images if row["layer"]} == set(self.table["key"].to_pylist())
        funnel = self.report["funnel"]["image"]
        assert funnel["candidates"] == len(images)
        assert sum(funnel["kept"].values()) + sum(funnel["dropped"].values()) == len(images)
        assert sum(funnel["kept"].values()) == self.table.num_rows
        assert funnel["dropped"] == {reason: len(keys) for reason, keys in sorted(self.dropped().items())}


def encoded(image: Any, kind: str = "PNG") -> bytes:
    """A Pillow picture as bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
