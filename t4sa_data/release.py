"""Write a release: plan the shards of a layer, write one shard in every format, seal the folder.

The builders run `write_shard` in many processes; `testing.make_release` and a takedown run it in one. A folder is a
release once `seal` has written its manifest, the last file of all.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t4sa_data import card, plan
from t4sa_data.catalog import CONFIGS, DATA_VERSION, SPLITS
from t4sa_data.errors import ChecksumMismatch
from t4sa_data.files import atomic_file, write_bytes
from t4sa_data.manifest import (
    FOLDERS,
    SUFFIXES,
    FileEntry,
    LayerEntry,
    Manifest,
    SplitEntry,
    content_digest,
    count_classes,
)
from t4sa_data.schema import layer_schema, table_schema, to_json
from t4sa_data.shards import (
    TABLE_NAME,
    ParquetShardWriter,
    TarShardWriter,
    image_spans,
    layer_sidecars,
    tar_index,
    write_table,
)

FORMATS = ("parquet", "wds")
SHARD_BYTES = 1_000_000_000
"""Image bytes a shard aims at; B-T4SA's train split makes 64 shards of 0.77 GB."""


@cache
def toolchain() -> Mapping[str, str]:
    """Versions that can change a release's bytes: Parquet's writer, the decoder behind width, height and hash."""
    from PIL import features

    return {
        "libjpeg-turbo": str(features.version("libjpeg_turbo")),
        "numpy": version("numpy"),
        "pillow": version("pillow"),
        "pyarrow": version("pyarrow"),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def layer_kind(layer: str) -> str:
    """`image` or `text`."""
    return next(config.kind for config in CONFIGS.values() if layer in config.layers)


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Rows [start, stop) of a layer's table become shard `index` of `count` of a split."""

    layer: str
    split: str
    index: int
    count: int
    start: int
    stop: int

    @property
    def num_rows(self) -> int:
        """Rows of the shard."""
        return self.stop - self.start

    def name(self, fmt: str) -> str:
        """The shard's path below the release's folder."""
        return f"{self.layer}/{self.split}-{self.index:05d}-of-{self.count:05d}{SUFFIXES[fmt]}"


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """One shard in one format."""

    bytes: int
    sha256: str
    offsets: npt.NDArray[np.int64]
    """Byte of each image, shape (rows,); empty for text layers."""
    lengths: npt.NDArray[np.int64]
    sample_offsets: npt.NDArray[np.int64]
    """Tar only: byte of each sample's first header, then the end of the last, shape (rows + 1,)."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Everything `seal` needs to know of a layer that was just written."""

    name: str
    table: pa.Table
    """All rows in release order, columns as the layer's record."""
    tasks: Sequence[ShardTask]
    written: Sequence[Mapping[str, WrittenFile]]
    """One mapping of format -> file per task."""
    image_bytes: npt.NDArray[np.int64]
    """Bytes of each image, shape (rows,)."""
    listed: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, Sequence[str]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def content_digest(self) -> str:
        """See `manifest.content_digest`."""
        return content_digest(self.table)


def row_order(table: pa.Table) -> npt.NDArray[np.int64]:
    """The order of a layer's rows: by split (train, validation, test), inside a split by `plan.release_order`.

    Args:
        table: columns `split`, `tweet_id` and, for image layers, `image_index`.

    Returns:
        shape (rows,): positions in `table`.
    """
    tweet_id = np.asarray(table["tweet_id"], dtype=np.int64)
    has_images = "image_index" in table.schema.names
    image_index = np.asarray(table["image_index"] if has_images else np.zeros_like(tweet_id), dtype=np.int8)
    order = plan.release_order(tweet_id, image_index)
    splits = np.asarray(pc.index_in(table["split"], pa.array(SPLITS)), dtype=np.int8)
    return order[np.argsort(splits[order], kind="stable")]


def in_release_order(table: pa.Table) -> pa.Table:
    """Rows in the order of `row_order`."""
    return table.take(pa.array(row_order(table))).combine_chunks()


def plan_shards(
    layer: str, table: pa.Table, image_bytes: npt.NDArray[np.int64], shard_bytes: int = SHARD_BYTES
) -> list[ShardTask]:
    """Deal a layer's rows, in release order, to shards.

    Args:
        layer: its name.
        table: in release order.
        image_bytes: bytes of each row, shape (rows,).
        shard_bytes: size a shard aims at.
    """
    tasks, start = [], 0
    runs = table["split"].combine_chunks().value_counts() if table.num_rows else []
    for split, rows in ((run["values"].as_py(), run["counts"].as_py()) for run in runs):
        count = plan.num_shards(rows, int(image_bytes[start : start + rows].sum()), shard_bytes)
        for index, (low, high) in enumerate(plan.even_bounds(rows, count)):
            tasks.append(
                ShardTask(layer=layer, split=split, index=index, count=count, start=start + low, stop=start + high)
            )
        start += rows
    return tasks


def write_shard(
    out: Path,
    task: ShardTask,
    rows: pa.Table,
    images: Iterable[bytes],
    formats: Sequence[str],
    *,
    groups: Sequence[int] | None = None,
) -> dict[str, WrittenFile]:
    """Write one shard of an image layer in every format, from one pass over its images.

    Args:
        out: DIR, the folder of `t4sa/` and `t4sa-wds/`.
        task: which shard.
        rows: its records, columns as `schema.record_schema` of the layer.
        images: their bytes, in the same order.
        formats: of `FORMATS`.
        groups: rows of each row group of the Parquet file; None: by size.

    Raises:
        ChecksumMismatch: an image's place in the written Parquet file is not where it should be.
        DiskSpaceError, OutputError: see `files.atomic_file`.
    """
    paths = {fmt: Path(out) / FOLDERS[fmt] / task.name(fmt) for fmt in formats}
    made: dict[str, WrittenFile] = {}
    lengths: list[int] = []
    records = rows.to_pylist() if "wds" in formats else [{}] * rows.num_rows
    with ExitStack() as stack:
        sinks = {fmt: stack.enter_context(atomic_file(path)) for fmt, path in paths.items()}
        tar = TarShardWriter(sinks["wds"]) if "wds" in sinks else None
        schema = layer_schema(task.layer)
        parquet = ParquetShardWriter(sinks["parquet"], rows, schema, groups) if "parquet" in sinks else None
        try:
            for record, image in zip(records, images, strict=True):
                lengths.append(len(image))
                if parquet:
                    parquet.write(image)
                if tar:
                    tar.write(record["key"], image, to_json(record, task.layer), record["label"])
            for writer in (parquet, tar):
                if writer:
                    writer.close()
        except BaseException:
            if parquet:
                parquet.abandon()
            raise
    length_array = np.array(lengths, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    if parquet:
        offsets, found = image_spans(paths["parquet"])
        if not np.array_equal(found, length_array):
            raise ChecksumMismatch("images are not where the Parquet pages say", where=paths["parquet"])
        made["parquet"] = _written(sinks["parquet"], offsets, length_array, nothing)
    if tar:
        made["wds"] = _written(sinks["wds"], np.array(tar.offsets), length_array, np.array(tar.sample_offsets))
    return made


def _written(sink: Any, offsets: Any, lengths: Any, sample_offsets: Any) -> WrittenFile:
    return WrittenFile(
        bytes=sink.num_bytes, sha256=sink.hexdigest(), offsets=offsets, lengths=lengths, sample_offsets=sample_offsets
    )


def write_text_shard(out: Path, task: ShardTask, rows: pa.Table) -> dict[str, WrittenFile]:
    """Write one shard of a text layer: Parquet only, there is no image to put into a tar."""
    path = Path(out) / FOLDERS["parquet"] / task.name("parquet")
    with atomic_file(path) as sink:
        write_table(sink, rows.cast(layer_schema(task.layer)))
    nothing = np.zeros(0, dtype=np.int64)
    return {"parquet": _written(sink, nothing, nothing, nothing)}


def sample_table(layer: Layer, fmt: str) -> pa.Table:
    """The layer's sample table for one format: its records, and where each image is in that format's shards."""
    names = pa.chunked_array([pa.repeat(task.name(fmt), task.num_rows) for task in layer.tasks], pa.string())
    offsets = [written[fmt].offsets for written in layer.written] or [np.zeros(0, np.int64)]
    return _with_places(layer, names, np.concatenate(offsets))


def _with_places(layer: Layer, files: pa.Array | pa.ChunkedArray, offsets: Any) -> pa.Table:
    table, schema = layer.table, table_schema(layer.name)
    for name, column in (("file", files), ("offset", pa.array(offsets)), ("length", pa.array(layer.image_bytes))):
        table = table.append_column(schema.field(name), column.cast(schema.field(name).type))
    return table.select(schema.names)


def seal(
    out: Path, fmt: str, layers: Sequence[Layer], *, keep: Manifest | None = None, data_version: str | None = None
) -> Manifest:
    """Finish a release: sample tables, sidecars, card, Croissant, and last of all the manifest.

    Args:
        out: DIR, the folder of `t4sa/` and `t4sa-wds/`.
        fmt: `parquet` or `wds`.
        layers: those just written; they replace layers of the same name.
        keep: the manifest of the release that stands there; its other layers stay as they are.
        data_version: of the release; None: `catalog.DATA_VERSION`.

    Returns:
        The manifest as written.
    """
    folder = Path(out) / FOLDERS[fmt]
    new = {layer.name: layer for layer in layers if fmt == "parquet" or layer_kind(layer.name) == "image"}
    kept = {name: entry for name, entry in (keep.layers if keep else {}).items() if name not in new}
    files = [f for f in (keep.files if keep else ()) if f.name.split("/")[0] in kept and "/" in f.name]
    for layer in new.values():
        files += _seal_layer(folder, layer, fmt)
    entries = {name: kept.get(name) or _layer_entry(new[name]) for name in _in_catalog_order({*kept, *new})}
    rank = {name: i for i, name in enumerate(entries)}
    files.sort(key=lambda file: rank[file.name.split("/")[0]])
    manifest = Manifest(
        format=fmt,
        layers=entries,
        files=tuple(files),
        toolchain=toolchain(),
        data_version=data_version or DATA_VERSION,
    )
    return _publish(folder, manifest)


def seal_in_place(
    raw: Path, layer: Layer, files: Sequence[str], offsets: Any, archives: Sequence[FileEntry]
) -> Manifest:
    """Write `RAW/t4sa-inplace/`: a sample table over the official archives where they lie; nothing is copied.

    Args:
        raw: the folder of the archives, which becomes the manifest's `data_root`.
        layer: with neither tasks nor written files.
        files: archive of each row, relative to `raw`.
        offsets: byte of each image, shape (rows,).
        archives: the archives, names relative to `raw`.
    """
    folder = Path(raw) / FOLDERS["in-place"]
    table = _with_places(layer, pa.array(files, pa.string()), offsets)
    files_made = [_write_table_file(folder, layer.name, table)]
    manifest = Manifest(
        format="in-place",
        layers={layer.name: _layer_entry(layer)},
        toolchain=toolchain(),
        data_root="..",
        files=(*(replace(a, layer=layer.name) for a in archives), *files_made),
    )
    return _publish(folder, manifest)


def _in_catalog_order(names: Iterable[str]) -> list[str]:
    order = list(dict.fromkeys(layer for config in CONFIGS.values() for layer in config.layers))
    return sorted(names, key=order.index)


def _layer_entry(layer: Layer) -> LayerEntry:
    splits, start = {}, 0
    has_label = "label" in layer.table.schema.names
    for run in layer.table["split"].combine_chunks().value_counts():
        split, rows = run["values"].as_py(), run["counts"].as_py()
        part = layer.table.slice(start, rows)
        splits[split] = SplitEntry(
            rows=rows,
            bytes=int(layer.image_bytes[start : start + rows].sum()),
            classes=count_classes(part["label"]) if has_label else None,
            listed=layer.listed.get(split),
            quarantined=tuple(sorted(layer.quarantined.get(split, ()))),
        )
        start += rows
    return LayerEntry(
        kind=layer_kind(layer.name),
        splits=splits,
        content_digest=layer.content_digest,
        provenance=layer.provenance,
    )


def _seal_layer(folder: Path, layer: Layer, fmt: str) -> list[FileEntry]:
    """Write the sample table and the sidecars of a layer; the entries of all its files."""
    has_label = "label" in layer.table.schema.names
    files = []
    for task, written in zip(layer.tasks, layer.written, strict=True):
        rows = layer.table.slice(task.start, task.num_rows)
        files.append(
            FileEntry(
                name=task.name(fmt),
                bytes=written[fmt].bytes,
                sha256=written[fmt].sha256,
                layer=layer.name,
                split=task.split,
                rows=rows.num_rows,
                classes=count_classes(rows["label"]) if has_label else None,
            )
        )
    if layer_kind(layer.name) != "image":
        return files
    files.append(_write_table_file(folder, layer.name, sample_table(layer, fmt)))
    if fmt == "wds":
        shards: dict[str, dict[str, int]] = {}
        for task, written in zip(layer.tasks, layer.written, strict=True):
            name = task.name(fmt)
            shards.setdefault(task.split, {})[name.split("/")[1]] = task.num_rows
            files.append(_write_file(folder, f"{name}.idx", tar_index(written[fmt].sample_offsets.tolist())))
        files += [_write_file(folder, f"{layer.name}/{k}", v) for k, v in layer_sidecars(shards).items()]
    return files


def _write_table_file(folder: Path, layer: str, table: pa.Table) -> FileEntry:
    name = f"{layer}/{TABLE_NAME}"
    with atomic_file(folder / name) as sink:
        write_table(sink, table)
    return FileEntry(name=name, bytes=sink.num_bytes, sha256=sink.hexdigest())


def _write_file(folder: Path, name: str, data: bytes) -> FileEntry:
    return FileEntry(name=name, bytes=len(data), sha256=write_bytes(folder / name, data))


def _publish(folder: Path, manifest: Manifest) -> Manifest:
    """Write card and Croissant from the manifest, then the manifest itself."""
    documents = {"README.md": card.readme(manifest), "croissant.json": card.croissant(manifest)}
    made = [_write_file(folder, name, text.encode()) for name, text in documents.items()]
    manifest = manifest.with_files([*manifest.files, *made])
    manifest.save(folder)
    return manifest
