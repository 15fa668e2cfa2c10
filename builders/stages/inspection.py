"""`inspection`: every fetched image decoded once, within limits. The work is `builders.inspection`'s."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from builders.build_config import settings_of
from builders.building import Build, counted
from builders.inspection import CHUNK_IMAGES, INSPECTION_VERSION, SCHEMA, Chunk, inspect_chunks
from builders.ledger import QUARANTINED
from builders.stages import fetch
from builders.state import read_arrow, write_arrow
from t4sa_data.pixels import DECODE_SECONDS
from t4sa_data.release import toolchain

NAME = "inspection"
VERSION = 1


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    return [settings_of(build.config.inspection), INSPECTION_VERSION, dict(toolchain())]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `inspected.arrow`, columns as `builders.inspection.SCHEMA`; nulls where none was fetched."""
    fetched = build.table(fetch.NAME, "fetched")
    rows = np.flatnonzero(fetched["reason"].is_null())
    chunks, order = chunks_of(build, fetched.take(rows), fetch.files_of(build), NAME)
    table = inspect(build, chunks, "inspect").take(np.argsort(order, kind="stable"))
    place = np.full(fetched.num_rows, -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    table = table.take(pa.array(place, mask=place < 0))
    write_arrow(build.path(NAME, "inspected.arrow"), SCHEMA, [table])
    reasons = table["reason"].drop_null().value_counts().to_pylist()
    return counted(len(rows), {QUARANTINED + one["values"]: one["counts"] for one in reasons})


def chunks_of(
    build: Build, places: pa.Table, files: Sequence[Path], stage: str, *, with_small: bool = False
) -> tuple[list[Chunk], np.ndarray]:
    """Tasks over images that lie in files, and the order of their rows: file by file, in each by offset.

    Args:
        build: the run.
        places: columns `file`, `offset`, `length`.
        files: that `file` counts.
        stage: in whose folder the tasks' files lie.
        with_small: make the small pictures too.
    """
    file, offset, length = (places[name].to_numpy() for name in ("file", "offset", "length"))
    order = np.lexsort((offset, file))
    # A task for no more than CHUNK_IMAGES of one file.
    bounds = [0]
    for stop in [*(np.flatnonzero(np.diff(file[order])) + 1).tolist(), len(order)]:
        bounds += [*range(bounds[-1] + CHUNK_IMAGES, stop, CHUNK_IMAGES), stop]
    made = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        mine = order[start:stop]
        if len(mine):
            made.append(
                Chunk(
                    archive=files[file[mine[0]]],
                    offset=offset[mine].astype(np.int64),
                    length=length[mine].astype(np.int64),
                    max_pixels=build.config.inspection.max_pixels,
                    max_seconds=DECODE_SECONDS,
                    out=build.path(stage, f"{number:06d}.arrow"),
                    small=build.path(stage, f"{number:06d}.jpgs") if with_small else None,
                )
            )
    return made, order


def inspect(build: Build, chunks: Sequence[Chunk], title: str) -> pa.Table:
    """What inspection saw, task by task."""
    todo = [chunk for chunk in chunks if not chunk.is_done]
    total = sum(len(chunk.offset) for chunk in chunks)
    progress = build.progress(title, total)
    progress(total - sum(len(chunk.offset) for chunk in todo))
    for chunk in inspect_chunks(todo, build.engine):
        progress(len(chunk.offset))
    return pa.concat_tables([SCHEMA.empty_table(), *(read_arrow(chunk.out).select(SCHEMA.names) for chunk in chunks)])
