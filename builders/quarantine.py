"""Quarantine: images that do not decode. Bytes, row and reason are kept here, never published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from t4sa_data.errors import ShardError, SourceChanged
from t4sa_data.files import sha256_file, write_bytes

FOLDER = "quarantine"
ROWS = "quarantine.jsonl"
ALONE = "twitter-testing/"
"""Begins the `archive` of what the builds of `twitter-testing` set aside. They and the builds of the official packages
leave each other's rows and pictures as they are."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """One image that does not decode."""

    key: str
    split: str | None
    """`train` for an image of a further archive, as for all of those."""
    label: int | None
    reason: str
    """A constant of `t4sa_data.pixels`."""
    detail: str
    sha256: str
    archive: str
    """File name of the archive it came from; `ALONE` and the file name of a picture that came in none."""
    offset: int
    length: int


class Archive(Protocol):
    """Where bytes of quarantined images are."""

    @property
    def path(self) -> Path:
        """For messages."""

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of an image."""


def write_quarantine(
    out: Path, rows: Iterable[Quarantined], archives: Mapping[str, Archive], *, alone: bool = False
) -> None:
    """Write `out/quarantine/`: `quarantine.jsonl`, and `<key>.jpg` for each. What an earlier build from the same source
    wrote there goes.

    At every moment the rows name all images that are there, so that a later run knows its own files.

    Args:
        out: DIR.
        rows: the quarantined images.
        archives: by file name.
        alone: the rows are those of `twitter-testing`, else those of the official packages.

    Raises:
        SourceChanged: an image is not what inspection saw.
    """
    folder = Path(out) / FOLDER
    ordered = sorted(rows, key=lambda row: row.key)
    told = [asdict(row) for row in ordered] + [row for row in _own_rows(out) if _is_alone(row) != alone]
    told.sort(key=lambda row: str(row["key"]))
    stale = own_files(out) - {ROWS, *(_name(row["key"]) for row in told)}
    for old in [path for path in folder.iterdir() if path.name in stale] if stale else []:
        old.unlink()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in told)
    write_bytes(folder / ROWS, lines.encode())
    for row in ordered:
        try:
            data = archives[row.archive].read(row.offset, row.length)
        except ShardError:  # of an archive that passed by, whose bytes were given back since they were kept here
            if _is_kept(folder / _name(row.key), row):
                continue
            raise
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise SourceChanged(
                "an image changed between two passes",
                got=row.key,
                where=f"{archives[row.archive].path}, byte {row.offset}",
                hint="Leave the archive alone while it is read, or check its disk; then run again.",
            )
        write_bytes(folder / _name(row.key), data)


def _is_kept(path: Path, row: Quarantined) -> bool:
    """Whether an image is here already."""
    return path.is_file() and path.stat().st_size == row.length and sha256_file(path) == row.sha256


def own_files(out: Path) -> set[str]:
    """Names of the files in `out/quarantine/` that a build of ours wrote or was about to write."""
    if not (Path(out) / FOLDER / ROWS).is_file():
        return set()
    try:
        return {ROWS, *(_name(row["key"]) for row in _own_rows(out))}
    except (ValueError, KeyError, TypeError):  # a file of somebody else
        return set()


def _own_rows(out: Path) -> list[dict[str, Any]]:
    """The rows that stand in `out/quarantine/`."""
    path = Path(out) / FOLDER / ROWS
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    return [json.loads(line) for line in lines if line]


def _is_alone(row: Mapping[str, Any]) -> bool:
    return str(row["archive"]).startswith(ALONE)


def _name(key: str) -> str:
    return f"{key}.jpg"
