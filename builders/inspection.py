"""Inspection: every image read, hashed and decoded once, in the archive's order."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from builders.engine import Local
from builders.keys import Ints
from builders.state import State, fingerprint, read_arrow, stamp, write_arrow
from t4sa_data.errors import BadImage, ShardError, SourceChanged
from t4sa_data.files import CHUNK_BYTES
from t4sa_data.pixels import DECODE_SECONDS, MAX_PIXELS, inspect_image
from t4sa_data.release import toolchain
from t4sa_data.shards import RangeReader

INSPECTION_VERSION = 1
"""Bump when the same image would be inspected differently."""
CHUNK_IMAGES = 128
"""Images of one task: some seconds of work, and what a killed build has to do again."""

_SCHEMA = pa.schema(
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


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Images of one task."""

    archive: Path
    offset: Ints
    length: Ints
    max_pixels: int
    max_seconds: float
    out: Path


def inspect_archive(
    archive: Path,
    offset: Ints,
    length: Ints,
    *,
    state: State,
    engine: Local,
    max_pixels: int = MAX_PIXELS,
    max_seconds: float = DECODE_SECONDS,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[pa.Table, str]:
    """Inspect images of an archive, and hash the archive itself in the same pass.

    Args:
        archive: the tar.
        offset: byte of each image, ascending, shape (n,).
        length: bytes, shape (n,).
        state: where finished chunks are kept.
        engine: where the work runs.
        max_pixels: a larger picture is refused unseen.
        max_seconds: processor time one decode may take.
        progress: called with the number of images done since.

    Returns:
        Table of n rows, columns as `_SCHEMA`; sha256 of the archive.
    """
    key = fingerprint(
        INSPECTION_VERSION,
        CHUNK_IMAGES,
        stamp(archive),
        max_pixels,
        max_seconds,
        dict(toolchain()),
        hashlib.sha256(offset.tobytes() + length.tobytes()).hexdigest(),
    )
    chunks = [
        Chunk(
            archive=archive,
            offset=offset[i : i + CHUNK_IMAGES],
            length=length[i : i + CHUNK_IMAGES],
            max_pixels=max_pixels,
            max_seconds=max_seconds,
            out=state.path("inspection", key, f"{i // CHUNK_IMAGES:05d}.arrow"),
        )
        for i in range(0, len(offset), CHUNK_IMAGES)
    ]
    todo = [chunk for chunk in chunks if not chunk.out.exists()]
    progress(len(offset) - sum(len(chunk.offset) for chunk in todo))
    with ArchiveHash(archive, state) as hashing:
        for chunk, _ in zip(todo, engine.run(inspect_chunk, todo), strict=True):
            hashing.allow(int(chunk.offset[-1] + chunk.length[-1]))
            progress(len(chunk.offset))
    tables = [read_arrow(chunk.out) for chunk in chunks]
    return pa.concat_tables(tables) if tables else _SCHEMA.empty_table(), hashing.hexdigest


def inspect_chunk(chunk: Chunk) -> None:
    """Inspect the images of one task and write `chunk.out`.

    Raises:
        SourceChanged: the archive became shorter since it was walked.
    """
    rows = []
    with RangeReader(chunk.archive.parent) as reader, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of EXIF quirks and large pictures; the row says what matters
        for offset, length in zip(chunk.offset.tolist(), chunk.length.tolist(), strict=True):
            try:
                data = reader.read(chunk.archive.name, offset, length)
            except ShardError as error:
                raise SourceChanged(
                    "an archive changed while it was read", where=f"{chunk.archive}, byte {offset}"
                ) from error
            rows.append(try_inspect(data, chunk.max_pixels, chunk.max_seconds))
    write_arrow(chunk.out, _SCHEMA, [pa.Table.from_pylist(rows, schema=_SCHEMA)])


def try_inspect(data: bytes, max_pixels: int, max_seconds: float = DECODE_SECONDS) -> dict[str, object]:
    """Inspection's row for one image, good or bad."""
    row: dict[str, object] = {"sha256": hashlib.sha256(data).digest()}
    try:
        seen = inspect_image(data, max_pixels=max_pixels, max_seconds=max_seconds)
    except BadImage as error:
        return row | {"reason": error.reason, "detail": error.what}
    return row | {
        "width": seen.width,
        "height": seen.height,
        "phash": int(seen.phash, 16),
        "mode": seen.mode,
        "format": seen.format,
    }


class ArchiveHash:
    """The sha256 of a whole archive, computed in a thread that stays behind the readers: their pages are still warm.

    Use as a context manager; `hexdigest` is there after it. A digest once computed is taken from `state`.
    """

    def __init__(self, archive: Path, state: State) -> None:
        self._archive, self._state = archive, state
        self._key = fingerprint(stamp(archive))
        self._allowed = 0
        self._stop = False
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="archive-sha256")
        self.hexdigest: str = (state.load("sha256", self._key) or {}).get("sha256", "")

    def allow(self, end: int) -> None:
        """Let the hash go on up to byte `end`."""
        with self._changed:
            self._allowed = max(self._allowed, end)
            self._changed.notify()

    def _run(self) -> None:
        digest, position = hashlib.sha256(), 0
        try:
            with self._archive.open("rb", buffering=0) as file:
                for data in iter(partial(file.read, CHUNK_BYTES), b""):
                    digest.update(data)
                    position += len(data)
                    with self._changed:
                        self._changed.wait_for(lambda reached=position: self._stop or reached <= self._allowed)  # type: ignore[misc]
                        if self._stop:
                            return
            self.hexdigest = digest.hexdigest()
        except OSError as error:
            self._error = error

    def __enter__(self) -> ArchiveHash:
        if not self.hexdigest:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._stop, self._allowed = kind is not None, 1 << 62
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        if kind is None:
            if self._error:
                raise self._error
            self._state.save("sha256", self._key, {"sha256": self.hexdigest})


def good(inspected: pa.Table) -> npt.NDArray[np.bool_]:
    """Which images decoded, shape (n,)."""
    return np.asarray(inspected["reason"].is_null(), dtype=bool)
