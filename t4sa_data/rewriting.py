"""Take rows out of a release that stands in a folder: only the shards that hold them are written anew, and those that
hold a near-duplicate whose group was named by one of them (`regrouping`).

Everything new is made in `.t4sa-rewriting` beside the release's folder, its manifest last; then the files change
places, the manifest last again. Killed before that, the release is as it was; killed in between, `finish_rewriting`
goes on.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t4sa_data import plan, regrouping, release
from t4sa_data.errors import ChecksumMismatch, NoRows
from t4sa_data.files import explain_os_errors, sync_folder
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, FileEntry, LayerEntry, Manifest, load_manifest
from t4sa_data.regrouping import Mask
from t4sa_data.release import Layer, ShardTask, WrittenFile
from t4sa_data.schema import record_schema
from t4sa_data.shards import TABLE_NAME, RangeReader, read_table

STAGING = ".t4sa-rewriting"


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What became of a release."""

    manifest: Manifest
    shards: tuple[str, ...]
    """Those written anew."""
    bytes: int
    """Of them."""


def staging_of(folder: Path) -> Path:
    """Where new files of a release's folder are made."""
    return folder.absolute().parent / STAGING


def drop_rows(
    folder: Path,
    drop: Mapping[str, Mask],
    *,
    note: Mapping[str, Any] | None = None,
    data_version: str | None = None,
) -> Rewritten:
    """Take rows out of layers of a Parquet or tar release.

    Args:
        folder: the release's.
        drop: layer -> True for each row that goes, in release order, shape (rows,).
        note: joins the provenance of these layers, under `removals`.
        data_version: of what results; None: as it is.

    Raises:
        NoRows: a layer would lose its last row.
        ChecksumMismatch: an image here is not what the sample table says; nothing was changed.
        ReleaseError, DiskSpaceError, OutputError: nothing was changed, or the same call goes on.
    """
    finish_rewriting(folder)
    manifest = load_manifest(folder)
    out = staging_of(folder)
    with explain_os_errors(out):
        shutil.rmtree(out, ignore_errors=True)
        (out / FOLDERS[manifest.format]).mkdir(parents=True)
    names = regrouping.new_names(manifest, lambda name: folder / name / TABLE_NAME, drop)
    layers = []
    for name, (mask, changed) in changed_rows(manifest, lambda name: folder / name / TABLE_NAME, drop, names).items():
        if mask.all():
            raise NoRows("a layer would lose its last row", got=name, where=folder, hint="Delete the release's folder.")
        if manifest.layers[name].kind == "image":
            layer = _image_layer(folder, manifest, name, ~mask, changed, names, out)
        else:
            layer = _text_layer(folder, manifest, name, ~mask, out)
        layers.append(_described(layer, manifest.layers[name], note))
    made = release.seal(out, manifest.format, layers, keep=manifest, data_version=data_version or manifest.data_version)
    old = {file.sha256 for file in manifest.files}
    shards = [file for file in made.files if file.layer is not None and file.sha256 not in old]
    finish_rewriting(folder)
    return Rewritten(manifest=made, shards=tuple(f.name for f in shards), bytes=sum(f.bytes for f in shards))


def changed_rows(
    manifest: Manifest, table_of: Callable[[str], Path], drop: Mapping[str, Mask], names: Mapping[str, str]
) -> dict[str, tuple[Mask, Mask]]:
    """Layer -> rows that go, and rows that go or change; layers without either are left out.

    Args:
        manifest: of the release.
        table_of: path of an image layer's sample table.
        drop: layer -> True for each row that goes, shape (rows,).
        names: new names of groups (`regrouping.new_names`).
    """
    made: dict[str, tuple[Mask, Mask]] = {name: (mask, mask) for name, mask in drop.items()}
    for name, layer in manifest.layers.items() if names else ():
        if layer.kind == "image":
            rows = read_table(table_of(name), ["duplicate_group"])
            changed = regrouping.rows_to_rename(rows["duplicate_group"], names)
            mask = drop.get(name, np.zeros(rows.num_rows, dtype=bool))
            if mask.any() or changed.any():
                made[name] = mask, mask | changed
    return made


def shards_to_rewrite(manifest: Manifest, name: str, drop: Mask, changed: Mask) -> list[str]:
    """Shards of a layer that are written anew, by name.

    Args:
        manifest: of the release.
        name: of the layer.
        drop: True for each row that goes, shape (rows,).
        changed: True for each row that goes or changes, shape (rows,).
    """
    old = [file for file in manifest.files if file.layer == name]
    ends = np.cumsum([file.rows or 0 for file in old])
    spans = [(int(end) - (file.rows or 0), int(end)) for file, end in zip(old, ends, strict=True)]
    emptied = {file.split for file, (low, high) in zip(old, spans, strict=True) if drop[low:high].all()}
    return [
        file.name
        for file, (low, high) in zip(old, spans, strict=True)
        if file.split in emptied or changed[low:high].any()
    ]


def finish_rewriting(folder: Path) -> bool:
    """Put files in their places that a killed `drop_rows` had made; whether there were any. What is half made goes."""
    staging = staging_of(folder)
    for name in FOLDERS.values():
        made = staging / name
        if not (made / MANIFEST_NAME).is_file() or not _is_of(folder, made):
            continue
        with explain_os_errors(folder):
            manifest = load_manifest(made)
            for path in sorted(made.rglob("*")):
                target = folder / path.relative_to(made)
                if path.is_file() and path != made / MANIFEST_NAME:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
            wanted = {file.name for file in manifest.files}
            for file in _named_by(folder):
                if file not in wanted:
                    (folder / file).unlink(missing_ok=True)
            for parent in {(folder / file).parent for file in wanted}:
                sync_folder(parent)
            (made / MANIFEST_NAME).replace(folder / MANIFEST_NAME)
            sync_folder(folder)
            shutil.rmtree(staging, ignore_errors=True)
        return True
    return False


def _is_of(folder: Path, made: Path) -> bool:
    """Whether staged files are of this folder: of its format (one is rewritten at a time)."""
    return load_manifest(folder).format == load_manifest(made).format


def _named_by(folder: Path) -> list[str]:
    return [file.name for file in load_manifest(folder).files]


def _described(layer: Layer, entry: LayerEntry, note: Mapping[str, Any] | None) -> Layer:
    """The layer with what its manifest said of it, and the note."""
    before = int(entry.provenance.get("removals", {}).get("rows", 0))
    rows = before + sum(split.rows for split in entry.splits.values()) - layer.table.num_rows
    return replace(
        layer,
        listed={name: split.listed for name, split in entry.splits.items() if split.listed is not None},
        quarantined={name: split.quarantined for name, split in entry.splits.items()},
        provenance={**entry.provenance, "removals": {**(note or {}), "rows": rows}},
    )


def _image_layer(
    folder: Path, manifest: Manifest, name: str, keep: Mask, changed: Mask, names: Mapping[str, str], out: Path
) -> Layer:
    table = regrouping.renamed(read_table(folder / name / TABLE_NAME, layer=name), names)
    old = [file for file in manifest.files if file.layer == name]
    kept = table.filter(pa.array(keep))
    records, places = kept.select(record_schema(name).names), kept.select(["file", "offset", "length", "sha256"])
    tasks, sources = _plan(name, old, keep, changed)
    written = []
    with RangeReader(folder / manifest.data_root, most_open=64) as reader:
        for task, source in zip(tasks, sources, strict=True):
            if source is not None:
                written.append({manifest.format: _as_it_is(folder, manifest.format, source, table)})
                continue
            rows = slice(task.start, task.stop)
            images = _images(reader, places.slice(rows.start, task.num_rows))
            part = records.slice(rows.start, task.num_rows)
            groups = _groups(folder, manifest, old, keep, task) if manifest.format == "parquet" else None
            written.append(release.write_shard(out, task, part, images, [manifest.format], groups=groups))
    image_bytes = np.asarray(kept["length"], dtype=np.int64)
    return Layer(name=name, table=records, tasks=tasks, written=written, image_bytes=image_bytes)


def _groups(
    folder: Path, manifest: Manifest, old: Sequence[FileEntry], keep: Mask, task: ShardTask
) -> list[int] | None:
    """Rows that stay of each row group of a Parquet shard; None where the rows of its split were dealt anew."""
    start = 0
    for file in old:
        if file.name == task.name(manifest.format):
            with pq.ParquetFile(folder / file.name) as parquet:
                rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
            ends = start + np.cumsum(rows)
            counts = [int(keep[end - num : end].sum()) for num, end in zip(rows, ends, strict=True)]
            return [count for count in counts if count] if sum(counts) == task.num_rows else None
        start += file.rows or 0
    return None


def _text_layer(folder: Path, manifest: Manifest, name: str, keep: Mask, out: Path) -> Layer:
    old = [file for file in manifest.files if file.layer == name]
    rows = pa.concat_tables([pq.read_table(folder / file.name, partitioning=None) for file in old])
    kept = rows.filter(pa.array(keep)).combine_chunks()
    tasks, sources = _plan(name, old, keep, ~keep)
    nothing = np.zeros(0, dtype=np.int64)
    written: list[dict[str, WrittenFile]] = []
    for task, source in zip(tasks, sources, strict=True):
        if source is None:
            written.append(release.write_text_shard(out, task, kept.slice(task.start, task.num_rows)))
        else:
            as_it_is = WrittenFile(
                bytes=source.bytes, sha256=source.sha256, offsets=nothing, lengths=nothing, sample_offsets=nothing
            )
            written.append({"parquet": as_it_is})
    sizes = np.zeros(kept.num_rows, dtype=np.int64)
    for task, one in zip(tasks, written, strict=True):  # of a text layer, a split's bytes are those of its files
        sizes[task.start] = one["parquet"].bytes
    return Layer(name=name, table=kept, tasks=tasks, written=written, image_bytes=sizes)


def _plan(
    name: str, old: Sequence[FileEntry], keep: Mask, changed: Mask
) -> tuple[list[ShardTask], list[FileEntry | None]]:
    """The shards of a layer after the rows have gone, and for each the file that stays as it is, or None.

    Shards keep their names. Where one would be empty (in a miniature), the rows of its split are dealt anew
    (`shards_to_rewrite` says which files that needs).
    """
    ends = np.cumsum([file.rows or 0 for file in old])
    starts = ends - [file.rows or 0 for file in old]
    counts = [int(keep[low:high].sum()) for low, high in zip(starts, ends, strict=True)]
    is_changed = {file.name: bool(changed[low:high].any()) for file, low, high in zip(old, starts, ends, strict=True)}
    tasks: list[ShardTask] = []
    sources: list[FileEntry | None] = []
    at = 0
    for split in dict.fromkeys(str(file.split) for file in old):
        of_split = [(file, count) for file, count in zip(old, counts, strict=True) if file.split == split]
        rows = sum(count for _, count in of_split)
        if rows == 0:
            continue
        is_dealt_anew = any(count == 0 for _, count in of_split)
        number = len(of_split)
        while number > rows or (is_dealt_anew and number == len(of_split) and number > 1):
            number //= 2
        bounds = plan.even_bounds(rows, number) if is_dealt_anew else _runs([count for _, count in of_split])
        for index, (low, high) in enumerate(bounds):
            tasks.append(ShardTask(layer=name, split=split, index=index, count=number, start=at + low, stop=at + high))
            file = of_split[index][0] if not is_dealt_anew else None
            sources.append(file if file is not None and not is_changed[file.name] else None)
        at += rows
    return tasks, sources


def _runs(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Bounds of runs of these lengths.

    >>> _runs([2, 3])
    [(0, 2), (2, 5)]
    """
    ends = np.cumsum(counts).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _as_it_is(folder: Path, fmt: str, file: FileEntry, table: pa.Table) -> WrittenFile:
    """A shard that no row goes out of."""
    rows = table.filter(pc.equal(table["file"], file.name))
    index = folder / f"{file.name}.idx"
    return WrittenFile(
        bytes=file.bytes,
        sha256=file.sha256,
        offsets=np.asarray(rows["offset"], dtype=np.int64),
        lengths=np.asarray(rows["length"], dtype=np.int64),
        sample_offsets=np.fromfile(index, dtype="<u8") if fmt == "wds" else np.zeros(0, dtype=np.int64),
    )


def _images(reader: RangeReader, rows: pa.Table) -> Iterator[bytes]:
    for row in rows.to_pylist():
        image = reader.read(row["file"], row["offset"], row["length"])
        if (found := hashlib.sha256(image).hexdigest()) != row["sha256"]:
            raise ChecksumMismatch(
                "an image is not what the sample table says",
                expected=row["sha256"],
                got=found,
                where=f"{row['file']}, byte {row['offset']}",
                hint="Run `t4sa check`, and fetch or build the release again.",
            )
        yield image
