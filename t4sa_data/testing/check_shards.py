"""The check of one file: its bytes once under sha256, its rows against the sample table, its structure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from t4sa_data.errors import ArchiveError, BadImage
from t4sa_data.files import CHUNK_BYTES
from t4sa_data.manifest import FileEntry
from t4sa_data.pixels import inspect_image
from t4sa_data.schema import from_json, layer_schema, record_schema, to_json
from t4sa_data.shards import Member, image_spans, samples, tar_index, walk
from t4sa_data.testing.faults import Faults


@dataclass(frozen=True, kw_only=True)
class FileJob:
    """One file to check."""

    folder: str
    """Name of the release folder."""
    root: Path
    """Where the file's name starts."""
    entry: FileEntry
    format: str
    """`parquet`, `wds` or `in-place`."""
    rows: pa.Table | None = None
    """Rows of the sample table that lie in this file, in its order; None for other files, or where it is unreadable."""
    deep: bool = False
    """Decode every image."""


def check_file(job: FileJob) -> Faults:
    """Check one file of a release; never raises."""
    faults, entry = Faults(job.folder), job.entry
    path = job.root / entry.name
    with faults.guard(entry.name):
        if not path.is_file():
            faults.add(entry.name, "missing")
            return faults
        _check_bytes(job, path, faults)
    if entry.layer is not None:
        with faults.guard(entry.name):
            structure = {"parquet": _check_parquet, "wds": _check_tar, "in-place": _check_archive}[job.format]
            structure(job, path, faults)
    return faults


def _check_bytes(job: FileJob, path: Path, faults: Faults) -> None:
    """One pass over the file: its sha256, and that of each image in it (`--deep`: each decoded, too)."""
    name, spans = job.entry.name, _spans(job, path.stat().st_size, faults)

    def look(row: int, image: bytes) -> None:
        key, record = spans[row]["key"], spans[row]
        at = None if job.format == "in-place" else row
        faults.samples += 1
        if hashlib.sha256(image).hexdigest() != record["sha256"]:
            faults.add(name, "the image's sha256 is not the table's", row=at, key=key, kind="image sha256")
        elif job.deep:
            _look_inside(image, record, lambda what: faults.add(name, what, row=at, key=key, kind="decoded image"))

    num_bytes, sha256 = _read_once(path, {r: (s["offset"], s["length"]) for r, s in spans.items()}, look)
    faults.files += 1
    faults.bytes += num_bytes
    if num_bytes != job.entry.bytes:
        faults.add(name, f"{num_bytes} bytes, the manifest says {job.entry.bytes}")
    elif sha256 != job.entry.sha256:
        faults.add(name, f"sha256 is {sha256}, the manifest says {job.entry.sha256}")


def _spans(job: FileJob, size: int, faults: Faults) -> dict[int, dict[str, Any]]:
    """Row of the file -> where its image is; rows that point out of the file are faults."""
    columns = ["key", "sha256", "offset", "length", *(("width", "height", "phash") if job.deep else ())]
    spans = dict(enumerate(job.rows.select(columns).to_pylist())) if job.rows is not None else {}
    for row, span in list(spans.items()):
        if span["offset"] < 0 or span["length"] < 0 or span["offset"] + span["length"] > size:
            what = f"bytes {span['offset']} + {span['length']} are not inside the file's {size}"
            faults.add(job.entry.name, what, row=row, key=span["key"], kind="range outside the file")
            del spans[row]
    return spans


def _read_once(path: Path, spans: Mapping[int, tuple[int, int]], look: Callable[[int, bytes], None]) -> tuple[int, str]:
    """Size and sha256 of a file, read from start to end; `look` gets row and bytes of each span (offset, length)."""
    whole, position, overlapping = hashlib.sha256(), 0, []
    with FileIO(path) as file:
        for row in sorted(spans, key=lambda r: spans[r]):
            offset, length = spans[row]
            if offset < position:  # only a damaged table has such
                overlapping.append(row)
                continue
            while position < offset and (gap := file.read(min(CHUNK_BYTES, offset - position))):
                whole.update(gap)
                position += len(gap)
            image = _read(file, length)
            whole.update(image)
            position += len(image)
            look(row, image)
        while gap := file.read(CHUNK_BYTES):
            whole.update(gap)
            position += len(gap)
        for row in overlapping:
            file.seek(spans[row][0])
            look(row, _read(file, spans[row][1]))
    return position, whole.hexdigest()


def _read(file: FileIO, length: int) -> bytes:
    data = file.read(length) or b""
    while len(data) < length and (more := file.read(length - len(data))):
        data += more
    return data


def _look_inside(image: bytes, record: Mapping[str, Any], add: Callable[[str], None]) -> None:
    try:
        seen = inspect_image(image)
    except BadImage as error:
        add(f"does not decode ({error.reason}): {error}")
        return
    for column in ("width", "height", "phash"):
        if getattr(seen, column) != record[column]:
            add(f"{column} is {getattr(seen, column)} when decoded, the table says {record[column]}")


def _check_parquet(job: FileJob, path: Path, faults: Faults) -> None:
    """Schema, number of rows, every column against the table, every image where the table says."""
    name, rows, schema = job.entry.name, job.rows, layer_schema(str(job.entry.layer))
    with pq.ParquetFile(path) as parquet:
        if not parquet.schema_arrow.equals(schema):
            faults.add(name, f"columns are {_columns(parquet.schema_arrow)}, expected {_columns(schema)}")
            return
        if parquet.metadata.num_rows != job.entry.rows:
            faults.add(name, f"{parquet.metadata.num_rows} rows, the manifest says {job.entry.rows}")
        if rows is None:
            return
        start = 0
        for group in range(parquet.metadata.num_row_groups):
            with faults.guard(name):
                columns = [column for column in schema.names if column != "image"]
                got = parquet.read_row_group(group, columns=["image.path", *columns])
                _compare_rows(name, got, rows.slice(start, got.num_rows), start, faults)
            start += parquet.metadata.row_group(group).num_rows
    offsets, lengths = image_spans(path)
    _compare_places(name, rows, offsets.tolist(), lengths.tolist(), faults)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


def _compare_rows(name: str, got: pa.Table, rows: pa.Table, start: int, faults: Faults) -> None:
    """Rows of a Parquet shard against those of the sample table; `start` is the shard's row of the first."""
    got = got.slice(0, rows.num_rows)
    keys = rows["key"].to_pylist()
    differing: dict[int, list[str]] = {}
    for column in (name for name in got.column_names if name != "image"):
        if not got[column].equals(rows[column]):
            for row, (one, other) in enumerate(zip(got[column].to_pylist(), rows[column].to_pylist(), strict=True)):
                if one != other:
                    differing.setdefault(row, []).append(_differs(column, one, other))
    for row, (image, key) in enumerate(zip(got["image"].to_pylist(), keys, strict=True)):
        if image is None or image["path"] != f"{key}.jpg":
            differing.setdefault(row, []).append(f"image.path is {image and image['path']}, expected {key}.jpg")
    for row in sorted(differing):
        faults.add(name, "; ".join(differing[row]), row=start + row, key=keys[row], kind="row differs from the table")


def _differs(column: str, got: object, table: object, *, where: str = "") -> str:
    if column == "text":  # a tweet's text stays out of logs
        return f"{where}text differs from the table's"
    return f"{where}{column} is {got}, the table says {table}"


def _compare_places(name: str, rows: pa.Table, offsets: Sequence[int], lengths: Sequence[int], faults: Faults) -> None:
    """Where the images are against where the sample table says."""
    told = zip(rows["key"].to_pylist(), rows["offset"].to_pylist(), rows["length"].to_pylist(), strict=True)
    for row, ((key, *place), *found) in enumerate(zip(told, offsets, lengths, strict=False)):
        if place != found:
            what = f"the image is at byte {found[0]}, {found[1]} long; the table says {place[0]}, {place[1]}"
            faults.add(name, what, row=row, key=key, kind="image not where the table says")


def _check_tar(job: FileJob, path: Path, faults: Faults) -> None:
    """Member order and keys, `.json` and `.cls` against the table, places, and the `.tar.idx` beside."""
    name = job.entry.name
    records = _records(job)
    offsets: list[int] = []
    lengths: list[int] = []
    starts: list[int] = []
    end = 0
    try:
        with path.open("rb") as file:
            for row, (key, members) in enumerate(samples(path)):
                starts.append(members[".jpg"].header_offset)
                offsets.append(members[".jpg"].offset)
                lengths.append(members[".jpg"].length)
                end = members[".cls"].end
                if job.rows is not None:
                    _compare_sample(job, row, key, members, file, next(records, None), faults)
    except ArchiveError as error:
        faults.add(name, str(error), row=len(starts))
        return
    if len(starts) != job.entry.rows:
        faults.add(name, f"{len(starts)} samples, the manifest says {job.entry.rows}")
    if job.rows is not None:
        _compare_places(name, job.rows, offsets, lengths, faults)
    index = path.with_name(f"{path.name}.idx")
    if index.is_file():  # a missing one is a fault of its own
        _compare_index(f"{name}.idx", index.read_bytes(), tar_index([*starts, end]), faults)


def _records(job: FileJob) -> Iterator[dict[str, Any]]:
    if job.rows is not None:
        names = record_schema(str(job.entry.layer)).names
        for batch in job.rows.select(names).to_batches(max_chunksize=1024):
            yield from batch.to_pylist()


def _compare_sample(
    job: FileJob,
    row: int,
    key: str,
    members: Mapping[str, Member],
    file: Any,
    record: dict[str, Any] | None,
    faults: Faults,
) -> None:
    """One sample of a tar against its row of the table."""
    name, layer = job.entry.name, str(job.entry.layer)
    if record is None:
        faults.add(name, "a sample the table does not have", row=row, key=key, kind="extra sample")
        return
    wrong = []
    if key != record["key"]:
        wrong.append(f"the key is {key}, the table says {record['key']}")
    file.seek(members[".json"].offset)
    data = file.read(members[".json"].length)
    if data != to_json(record, layer):
        wrong.append(_json_fault(data, record, layer))
    file.seek(members[".cls"].offset)
    label = file.read(members[".cls"].length)
    if label != b"%d" % record["label"]:
        wrong.append(f"the .cls member is {label[:20]!r}, the table says {record['label']}")
    if wrong:
        faults.add(name, "; ".join(wrong), row=row, key=key, kind="sample differs from the table")


def _json_fault(data: bytes, record: Mapping[str, Any], layer: str) -> str:
    try:
        got = from_json(data, layer)
    except ValueError as error:
        return f"the .json member does not parse ({error})"
    differing = [
        _differs(column, got[column], record[column], where=".json ")
        for column in got
        if got[column] != record[column] and not _same_float32(got[column], record[column])
    ]
    return "; ".join(differing) or "the .json member says the same in other bytes"


def _same_float32(one: object, other: object) -> bool:
    return isinstance(one, float) and isinstance(other, float) and bool(np.float32(one) == np.float32(other))


def _compare_index(name: str, got: bytes, expected: bytes, faults: Faults) -> None:
    if got == expected:
        return
    if len(got) != len(expected):
        faults.add(name, f"{len(got)} bytes, {len(expected)} follow from the tar's samples")
        return
    for entry, (one, other) in enumerate(zip(np.frombuffer(got, "<u8"), np.frombuffer(expected, "<u8"), strict=True)):
        if one != other:
            faults.add(name, f"says byte {one}, the tar says {other}", row=entry, kind="index entry")


def _check_archive(job: FileJob, path: Path, faults: Faults) -> None:
    """In place: every row's range is exactly one member of the archive, named by its key."""
    rows = job.rows
    if rows is None:
        return
    told = zip(rows["key"].to_pylist(), rows["offset"].to_pylist(), rows["length"].to_pylist(), strict=True)
    places = {offset: (key, length) for key, offset, length in told}
    for member in walk(path):
        key, length = places.pop(member.offset, ("", -1)) if member.kind == "file" else ("", -1)
        stem = PurePosixPath(member.name).stem
        if key and (stem, member.length) != (key, length):
            what = f"byte {member.offset} is {member.name}, {member.length} long; the table says {length} of this key"
            faults.add(job.entry.name, what, key=key, kind="range is not the member")
    for offset, (key, _) in places.items():
        faults.add(job.entry.name, f"no member's data starts at byte {offset}", key=key, kind="range is no member")
