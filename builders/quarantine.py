"""Quarantine: images that do not decode. Bytes, row and reason are kept here, never published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from t4sa_data.files import write_bytes
from t4sa_data.shards import RangeReader

FOLDER = "quarantine"
ROWS = "quarantine.jsonl"


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """One image that does not decode."""

    key: str
    split: str | None
    """None for an image of a further archive."""
    label: int | None
    reason: str
    """A constant of `t4sa_data.pixels`."""
    detail: str
    sha256: str
    archive: str
    """File name of the archive it came from."""
    offset: int
    length: int


def write_quarantine(out: Path, rows: Iterable[Quarantined], archives: Mapping[str, Path]) -> None:
    """Write `out/quarantine/`: `<key>.jpg` for each, and `quarantine.jsonl`. What stood there goes.

    Args:
        out: DIR.
        rows: the quarantined images.
        archives: path by archive name.
    """
    folder = Path(out) / FOLDER
    ordered = sorted(rows, key=lambda row: row.key)
    names = {f"{row.key}.jpg" for row in ordered}
    for row in ordered:
        with RangeReader(archives[row.archive].parent) as reader:
            write_bytes(folder / f"{row.key}.jpg", reader.read(row.archive, row.offset, row.length))
    lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in ordered)
    write_bytes(folder / ROWS, lines.encode())
    for old in folder.iterdir():
        if old.name not in names and old.name != ROWS:
            old.unlink()
