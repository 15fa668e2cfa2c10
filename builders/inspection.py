"""Inspection: every image read, hashed and decoded once, in the archive's order; and made small where that is asked.

Small pictures wait in files of the state, one a task, until their shards are written: see `Inspection.files`.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from builders import small
from builders.archive_hash import ArchiveHash
from builders.engine import ATTEMPTS, Engine, Local
from builders.keys import Ints
from builders.state import State, fingerprint, read_arrow, stamp, write_arrow
from t4sa_data.errors import BadImage, ShardError, SourceChanged
from t4sa_data.files import write_bytes
from t4sa_data.pixels import DECODE_SECONDS, MAX_PIXELS, inspect_image, inspect_pixels
from t4sa_data.release import toolchain
from t4sa_data.shards import RangeReader

INSPECTION_VERSION = 1
"""Bump when the same image would be inspected differently."""
SMALL = "small"
"""Folder of the state that holds small pictures."""
KILLED = "killed-its-process"
"""Reason of an image of which the process that decodes it dies: a fault of a decoder, or no memory."""
CHUNK_IMAGES = 128
"""Images of one task: some seconds of work, and what a killed build has to do again."""

SCHEMA = pa.schema(
    [
        ("sha256", pa.binary(32)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("mode", pa.string()),
        ("format", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""One row an image; `reason` and `detail` are null where it decodes, width to format where it does not."""
SMALL_SCHEMA = pa.schema(
    [
        ("small_sha256", pa.binary(32)),
        ("small_width", pa.int32()),
        ("small_height", pa.int32()),
        ("small_phash", pa.uint64()),
        ("small_offset", pa.int64()),
        ("small_length", pa.int64()),
    ]
)
"""Where small pictures were made, columns of each, and its place in its task's file. Null where it does not decode."""
WITH_SMALL = pa.schema([*SCHEMA, *SMALL_SCHEMA])


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Images of one task."""

    archive: Path
    offset: Ints
    length: Ints
    max_pixels: int
    max_seconds: float
    out: Path
    small: Path | None = None
    """File that gets the small pictures; None: none are made."""

    @property
    def is_done(self) -> bool:
        """Whether it need not be done (again)."""
        return self.out.exists() and (self.small is None or self.small.exists())


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was seen of an archive's images."""

    rows: pa.Table
    """Columns as `SCHEMA`; with small pictures `WITH_SMALL`, and `small_file`, an index into `files`."""
    sha256: str | None
    """Of the archive; None: not known."""
    files: tuple[Path, ...] = ()
    """Files of small pictures."""


def inspect_archive(
    archive: Path,
    offset: Ints,
    length: Ints,
    *,
    state: State,
    engine: Engine,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float = DECODE_SECONDS,
    with_small: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Inspection:
    """Inspect images of an archive, and hash the archive itself in the same pass.

    Args:
        archive: the tar.
        offset: byte of each image, ascending, shape (n,).
        length: bytes, shape (n,).
        state: where finished chunks are kept.
        engine: where the work runs.
        max_pixels: a larger picture is refused unseen.
        max_seconds: processor time one decode may take.
        with_small: make the small pictures too.
        progress: called with the number of images done since.
    """
    key = fingerprint(
        INSPECTION_VERSION,
        CHUNK_IMAGES,
        stamp(archive),
        max_pixels,
        max_seconds,
        dict(toolchain()),
        hashlib.sha256(offset.tobytes() + length.tobytes()).hexdigest(),
        small.settings() if with_small else None,
    )
    chunks = [
        Chunk(
            archive=archive,
            offset=offset[i : i + CHUNK_IMAGES],
            length=length[i : i + CHUNK_IMAGES],
            max_pixels=max_pixels,
            max_seconds=max_seconds,
            out=state.path("inspection", key, f"{i // CHUNK_IMAGES:05d}.arrow"),
            small=state.path(SMALL, key, f"{i // CHUNK_IMAGES:05d}.jpgs") if with_small else None,
        )
        for i in range(0, len(offset), CHUNK_IMAGES)
    ]
    todo = [chunk for chunk in chunks if not chunk.is_done]
    progress(len(offset) - sum(len(chunk.offset) for chunk in todo))
    with ArchiveHash(archive, state) as hashing:
        for chunk in inspect_chunks(todo, engine):
            hashing.allow(int(chunk.offset[-1] + chunk.length[-1]))
            progress(len(chunk.offset))
    tables = [read_arrow(chunk.out) for chunk in chunks]
    files = tuple(chunk.small for chunk in chunks if chunk.small is not None)
    return Inspection(rows=join_tables(tables, with_small), sha256=hashing.hexdigest, files=files)


def inspect_chunks(chunks: Sequence[Chunk], engine: Engine) -> Iterator[Chunk]:
    """Inspect the images of tasks; gives each task once its file is there, in their order.

    An image that kills its process stops nothing: its task's images are looked at one by one, each in a process of its
    own, and the one that kills it `engine.ATTEMPTS` times gets the reason `KILLED`.
    """
    for chunk, is_done in zip(chunks, engine.run(_inspect_and_say, chunks, on_death=lambda _chunk: False), strict=True):
        if not is_done:
            _inspect_one_by_one(chunk, engine)
        yield chunk


def _inspect_and_say(chunk: Chunk) -> bool:
    inspect_chunk(chunk)
    return True


def _inspect_one_by_one(chunk: Chunk, engine: Engine) -> None:
    """Write the file of a task that a process died of."""
    folder = chunk.out.with_suffix(".alone")
    ones = [
        replace(
            chunk,
            offset=chunk.offset[i : i + 1],
            length=chunk.length[i : i + 1],
            out=folder / f"{i:05d}.arrow",
            small=folder / f"{i:05d}.jpgs" if chunk.small else None,
        )
        for i in range(len(chunk.offset))
    ]
    todo = [one for one in ones if not one.is_done]
    with Local(1, apart=True) if isinstance(engine, Local) else nullcontext(engine) as alone:
        for _ in alone.run(_inspect_and_say, todo, on_death=_set_aside):
            pass
    tables, data = [read_arrow(one.out) for one in ones], b""
    for i, one in enumerate(ones):
        if one.small:
            shifted = pc.add(tables[i]["small_offset"], len(data))
            at = tables[i].schema.get_field_index("small_offset")
            tables[i] = tables[i].set_column(at, WITH_SMALL.field("small_offset"), shifted)
            data += one.small.read_bytes()
    if chunk.small:
        write_bytes(chunk.small, data)
    write_arrow(chunk.out, WITH_SMALL if chunk.small else SCHEMA, tables)
    del tables
    shutil.rmtree(folder, ignore_errors=True)


def _set_aside(chunk: Chunk) -> bool:
    """Write the file of a task with the one image that kills its process."""
    with RangeReader(chunk.archive.parent) as reader:
        data = reader.read(chunk.archive.name, int(chunk.offset[0]), int(chunk.length[0]))
    detail = f"its process ended {ATTEMPTS} times while it was decoded"
    row = {"sha256": hashlib.sha256(data).digest(), "reason": KILLED, "detail": detail}
    if chunk.small:
        write_bytes(chunk.small, b"")
    schema = WITH_SMALL if chunk.small else SCHEMA
    write_arrow(chunk.out, schema, [pa.Table.from_pylist([row], schema=schema)])
    return False


def join_tables(tables: Sequence[pa.Table], with_small: bool) -> pa.Table:
    """Tables of all tasks, one behind the other; with small pictures, column `small_file` says which task's."""
    if not with_small:
        return pa.concat_tables([SCHEMA.empty_table(), *tables])
    numbers = [pa.repeat(pa.scalar(i, pa.int32()), table.num_rows) for i, table in enumerate(tables)]
    joined = pa.concat_tables([WITH_SMALL.empty_table(), *tables])
    return joined.append_column("small_file", pa.chunked_array(numbers, pa.int32()))


@dataclass(frozen=True, kw_only=True)
class FilesChunk:
    """Images of one task, each a file of its own."""

    folder: Path
    names: tuple[str, ...]
    max_pixels: int
    out: Path


def inspect_files(
    folder: Path,
    names: Sequence[str],
    *,
    state: State,
    engine: Engine,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[int], object] = lambda _: None,
) -> pa.Table:
    """Inspect images that are files of their own.

    Args:
        folder: of the files.
        names: file names.
        state: where finished chunks are kept.
        engine: where the work runs.
        max_pixels: a larger picture is refused unseen.
        progress: called with the number of images done since.

    Returns:
        Row for row, columns as `SCHEMA`.

    Raises:
        SourceChanged: a file went since it was found.
    """
    chunks = []
    for i in range(0, len(names), CHUNK_IMAGES):
        some = tuple(names[i : i + CHUNK_IMAGES])
        try:
            stamps = [stamp(folder / name) for name in some]
        except FileNotFoundError as error:
            raise SourceChanged("a picture went while it was read", where=error.filename) from error
        key = fingerprint(INSPECTION_VERSION, stamps, max_pixels, DECODE_SECONDS, dict(toolchain()))
        out = state.path("inspection-files", key, f"{i // CHUNK_IMAGES:05d}.arrow")
        chunks.append(FilesChunk(folder=folder, names=some, max_pixels=max_pixels, out=out))
    todo = [chunk for chunk in chunks if not chunk.out.exists()]
    progress(len(names) - sum(len(chunk.names) for chunk in todo))
    for chunk, _ in zip(todo, engine.run(inspect_files_chunk, todo), strict=True):
        progress(len(chunk.names))
    return pa.concat_tables([SCHEMA.empty_table(), *(read_arrow(chunk.out) for chunk in chunks)]).combine_chunks()


def inspect_files_chunk(chunk: FilesChunk) -> None:
    """Inspect the images of one task and write `chunk.out`.

    Raises:
        SourceChanged: a file went since it was found.
    """
    rows = []
    for name in chunk.names:
        try:
            data = (chunk.folder / name).read_bytes()
        except FileNotFoundError as error:
            raise SourceChanged("a picture went while it was read", where=chunk.folder / name) from error
        rows.append(try_inspect(data, chunk.max_pixels)[0])
    write_arrow(chunk.out, SCHEMA, [pa.Table.from_pylist(rows, schema=SCHEMA)])


def inspect_chunk(chunk: Chunk) -> None:
    """Inspect the images of one task and write `chunk.out`.

    Raises:
        SourceChanged: the archive became shorter since it was walked.
    """
    rows, smalls = [], SmallFile()
    with RangeReader(chunk.archive.parent) as reader:
        for offset, length in zip(chunk.offset.tolist(), chunk.length.tolist(), strict=True):
            try:
                data = reader.read(chunk.archive.name, offset, length)
            except ShardError as error:
                raise SourceChanged(
                    "an archive changed while it was read", where=f"{chunk.archive}, byte {offset}"
                ) from error
            row, picture = try_inspect(data, chunk.max_pixels, chunk.max_seconds)
            rows.append(row | smalls.add(picture) if chunk.small else row)
    if chunk.small:
        write_bytes(chunk.small, smalls.data)  # first: a table's rows point into it
    schema = WITH_SMALL if chunk.small else SCHEMA
    write_arrow(chunk.out, schema, [pa.Table.from_pylist(rows, schema=schema)])


def try_inspect(
    data: bytes, max_pixels: int, max_seconds: float = DECODE_SECONDS
) -> tuple[dict[str, object], Image.Image | None]:
    """Inspection's row for one image, good or bad; and its pixels by the rule, None where it is bad."""
    row: dict[str, object] = {"sha256": hashlib.sha256(data).digest()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of EXIF quirks and large pictures; the row says what matters
            seen, picture = inspect_pixels(data, max_pixels=max_pixels, max_seconds=max_seconds)
    except BadImage as error:
        return row | {"reason": error.reason, "detail": error.what}, None
    more = {"width": seen.width, "height": seen.height, "phash": int(seen.phash, 16)}
    return row | more | {"mode": seen.mode, "format": seen.format}, picture


class SmallFile:
    """Small pictures, one behind the other, as they become the file of a task."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, picture: Image.Image | None) -> dict[str, object]:
        """Make a picture small; the columns of `SMALL_SCHEMA`, none for None."""
        if picture is None:
            return {}
        data = small.encode(small.resize(picture))
        seen = inspect_image(data)
        offset, self.data = len(self.data), self.data + data
        return {
            "small_sha256": hashlib.sha256(data).digest(),
            "small_width": seen.width,
            "small_height": seen.height,
            "small_phash": int(seen.phash, 16),
            "small_offset": offset,
            "small_length": len(data),
        }


def clear_small(state: State) -> None:
    """Remove the small pictures of the state: their shards are written. What is needed again is made again."""
    for folder in state.folder.glob(f"{SMALL}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def good(inspected: pa.Table) -> npt.NDArray[np.bool_]:
    """Which images decoded, shape (n,)."""
    return np.asarray(inspected["reason"].is_null(), dtype=bool)
