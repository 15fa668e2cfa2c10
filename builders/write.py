"""Writing: shards are independent tasks over the planned order; a finished one is never written twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from builders.engine import Engine
from builders.layers import SOURCE, LayerRows
from builders.state import State, fingerprint, read_arrow
from t4sa_data import release
from t4sa_data.errors import ShardError, SourceChanged
from t4sa_data.files import write_bytes
from t4sa_data.manifest import FOLDERS, content_digest
from t4sa_data.release import ShardTask, WrittenFile
from t4sa_data.schema import RECORD, TWITTER_TESTING_RECORD
from t4sa_data.shards import RangeReader

WRITE_VERSION = 1
"""Bump when the same rows would be written as other bytes."""
READ_AHEAD = 32
"""Images announced to the operating system before they are read: the order of a release is none of the archive's."""
MOST_OPEN = 256
"""Files that are open at a time: small pictures lie in thousands."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One shard to write."""

    out: Path
    task: ShardTask
    file: Path
    """Arrow file of the layer's rows; see `layers.store`."""
    num_bytes: int
    """Of its rows and images, about."""
    archives: tuple[Path, ...]
    """Files that the rows' column `archive` counts."""
    formats: tuple[str, ...]
    key: str
    """Fingerprint of the rows and of how they are written."""
    marker: Path
    """Appears when the shard's files are all there; holds what `seal` needs to know of them."""
    gives_back: bool = False
    """The archives are cut when it is done: what it took from them is not needed again."""


def plan_jobs(
    layers: Sequence[LayerRows],
    out: Path,
    formats: Sequence[str],
    shard_bytes: int,
    state: State,
) -> list[Job]:
    """The shards of all layers, in release order."""
    jobs = []
    for layer in layers:
        assert layer.file is not None
        wanted = tuple(fmt for fmt in formats if layer.source is not None or fmt == "parquet")
        key = fingerprint(WRITE_VERSION, layer.name, _rows_digest(layer.table), shard_bytes, dict(release.toolchain()))
        row_bytes = layer.table.nbytes // max(1, layer.table.num_rows) if layer.source is not None else 0
        for task in release.plan_shards(layer.name, layer.table, layer.row_bytes, shard_bytes):
            name = f"{task.split}-{task.index:05d}-of-{task.count:05d}.json"
            jobs.append(
                Job(
                    out=out,
                    task=task,
                    file=layer.file,
                    num_bytes=int(layer.row_bytes[task.start : task.stop].sum()) + row_bytes * task.num_rows,
                    archives=layer.archives,
                    formats=wanted,
                    key=key,
                    marker=state.folder / "write" / layer.name / name,
                    gives_back=layer.gives_back,
                )
            )
    return jobs


def _rows_digest(table: pa.Table) -> str:
    """What the records say, pixels' columns and those of `twitter-testing` included."""
    digest = hashlib.sha256(content_digest(table).encode())
    further = [name for name in TWITTER_TESTING_RECORD.names if name not in RECORD.names]
    names = [name for name in ("width", "height", "phash", "duplicate_group", *further) if name in table.column_names]
    for batch in table.select(names).to_batches(max_chunksize=16_384):
        digest.update(json.dumps(batch.to_pydict()).encode())
    return digest.hexdigest()


def _marked(job: Job) -> dict[str, dict[str, Any]]:
    """What a job's marker says of its files, by format; nothing where it is of other rows."""
    try:
        marker = json.loads(job.marker.read_bytes())
    except FileNotFoundError:
        return {}
    return dict(marker["files"]) if marker["key"] == job.key else {}


def is_done(job: Job) -> bool:
    """Whether a job's files are all there, written from these rows, of the size its marker says."""
    made = _marked(job)
    paths = {fmt: job.out / FOLDERS[fmt] / job.task.name(fmt) for fmt in job.formats}
    return all(
        fmt in made and path.is_file() and path.stat().st_size == made[fmt]["bytes"] for fmt, path in paths.items()
    )


def write_jobs(
    jobs: Sequence[Job],
    *,
    engine: Engine,
    progress: Callable[[int], object] = lambda _: None,
    on_done: Callable[[], object] = lambda: None,
) -> None:
    """Write shards.

    Args:
        jobs: from `plan_jobs`, those that are not done.
        engine: where the work runs.
        progress: called with the number of rows done since.
        on_done: called after each job, in their order.

    Raises:
        SourceChanged: an image is not what inspection saw.
        DiskSpaceError, OutputError: see `files.atomic_file`.
    """
    for job, _ in zip(jobs, engine.run(write_job, jobs), strict=True):
        progress(job.task.num_rows)
        on_done()


def write_job(job: Job) -> None:
    """Write one shard in all its formats, then its marker."""
    kept = {fmt: file for fmt, file in _marked(job).items() if fmt not in job.formats}
    job.marker.unlink(missing_ok=True)  # while files of this name change, no marker may vouch for them
    rows = read_arrow(job.file).slice(job.task.start, job.task.num_rows)
    if release.layer_kind(job.task.layer) == "text":
        made = release.write_text_shard(job.out, job.task, rows)
    else:
        records = rows.drop_columns(list(SOURCE))
        made = release.write_shard(job.out, job.task, records, _images(rows, job.archives), job.formats)
    files = {
        fmt: {
            "bytes": file.bytes,
            "sha256": file.sha256,
            "offsets": file.offsets.tolist(),
            "lengths": file.lengths.tolist(),
            "sample_offsets": file.sample_offsets.tolist(),
        }
        for fmt, file in made.items()
    }
    write_bytes(job.marker, json.dumps({"key": job.key, "files": kept | files}).encode())


def written_by(job: Job) -> dict[str, WrittenFile]:
    """What a job wrote that is done, by format."""
    return {
        fmt: WrittenFile(
            bytes=file["bytes"],
            sha256=file["sha256"],
            offsets=np.array(file["offsets"], np.int64),
            lengths=np.array(file["lengths"], np.int64),
            sample_offsets=np.array(file["sample_offsets"], np.int64),
        )
        for fmt, file in _marked(job).items()
        if fmt in job.formats
    }


def _images(rows: pa.Table, archives: Sequence[Path]) -> Iterator[bytes]:
    """The bytes of the rows' images in their order, each checked against the sha256 that inspection saw."""
    archive, offset, length = (rows[name].to_pylist() for name in SOURCE)
    names = [str(archives[i].absolute()) for i in archive]
    spans = list(zip(names, offset, length, strict=True))
    with RangeReader(Path(), most_open=MOST_OPEN) as reader:
        for span in spans[:READ_AHEAD]:
            reader.will_need(*span)
        for i, (span, sha256) in enumerate(zip(spans, rows["sha256"].to_pylist(), strict=True)):
            if i + READ_AHEAD < len(spans):
                reader.will_need(*spans[i + READ_AHEAD])
            try:
                data = reader.read(*span)
            except ShardError as error:  # shorter than it was
                raise SourceChanged("an archive changed between two passes", where=error.where) from error
            if hashlib.sha256(data).hexdigest() != sha256:
                raise SourceChanged(
                    "an image changed between two passes",
                    got=rows["key"][i],
                    where=f"{span[0]}, byte {span[1]}",
                    hint="Leave the archive alone while it is read, or check its disk; then run again.",
                )
            yield data


def as_layers(layers: Sequence[LayerRows], jobs: Sequence[Job]) -> list[release.Layer]:
    """Layers as `release.seal` takes them; all jobs are done."""
    made = []
    for layer in layers:
        mine = [(job, written_by(job)) for job in jobs if job.task.layer == layer.name]
        made.append(
            release.Layer(
                name=layer.name,
                table=layer.table,
                tasks=[job.task for job, _ in mine],
                written=[files for _, files in mine],
                image_bytes=layer.row_bytes,
                listed=layer.listed,
                quarantined=layer.quarantined,
                provenance=layer.provenance,
            )
        )
    return made
