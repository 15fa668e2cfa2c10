"""What a release holds: every file with its size, sha256 and rows; what it was made from; nothing that equal builds
would say differently (no times, hosts or paths)."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from t4sa_data import catalog
from t4sa_data.errors import ConfigUnavailable, ManifestError, ReleaseNotFound, UnknownConfig
from t4sa_data.files import write_bytes

FORMAT_VERSION = 1
"""Version of the layout of a release. A reader takes its own version and refuses newer ones."""

MANIFEST_NAME = "manifest.json"
FOLDERS = {"parquet": "t4sa", "wds": "t4sa-wds", "in-place": "t4sa-inplace"}
"""Format -> name of its folder in DIR."""
SUFFIXES = {"parquet": ".parquet", "wds": ".tar"}


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of a release."""

    name: str
    """Path below the release's folder (below `data_root` for the archives of an in-place release), with slashes."""
    bytes: int
    sha256: str
    layer: str | None = None
    split: str | None = None
    """Layer and split of a shard; None for other files."""
    rows: int | None = None
    classes: tuple[int, ...] | None = None
    """Rows per class (negative, neutral, positive); None where rows have no label."""


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """One split of a layer."""

    rows: int
    """Released: what the files hold."""
    bytes: int
    """Of the images (of the files, for text layers)."""
    classes: tuple[int, ...] | None = None
    listed: int | None = None
    """Rows that the official list names, before decoding; None where there is no list."""
    quarantined: tuple[str, ...] = ()
    """Keys that the list names and that do not decode, sorted."""


@dataclass(frozen=True, kw_only=True)
class LayerEntry:
    """One layer: its splits in release order, and what it was made from."""

    kind: str
    """`image` or `text`."""
    splits: Mapping[str, SplitEntry]
    content_digest: str
    """sha256 over the canonical rows in release order: equal under any toolchain and format."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """`inputs`: [{name, bytes, sha256}] (of an archive that only passed by, sha256 null and `members_sha256`),
    `settings`: what was chosen, `fingerprint`: sha256 of both; `collection`: what a build from raw tweets counted."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `manifest.json`."""

    format: str
    """`parquet`, `wds` or `in-place`."""
    layers: Mapping[str, LayerEntry]
    files: tuple[FileEntry, ...]
    toolchain: Mapping[str, str]
    """Versions that can change bytes."""
    data_version: str = catalog.DATA_VERSION
    data_root: str = "."
    """Where the `file`s of the sample tables are, relative to the manifest's folder."""
    format_version: int = FORMAT_VERSION

    @property
    def content_digest(self) -> str:
        """One digest over all layers: equal for equal content in any format."""
        lines = "".join(f"{name} {self.layers[name].content_digest}\n" for name in sorted(self.layers))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def configs(self) -> list[str]:
        """Names of the catalog's configs whose layers are all here, in the catalog's order."""
        return [
            name
            for name, config in catalog.CONFIGS.items()
            if config.layers and all(layer in self.layers for layer in config.layers)
        ]

    def parts(self, config: str, split: str) -> list[tuple[str, str]]:
        """The (layer, split) runs that make up a split of a config, in release order; empty ones left out.

        Raises:
            UnknownConfig: no such config or split.
            ConfigUnavailable: the config exists, but not in this release.
        """
        known = catalog.CONFIGS.get(config)
        if known is None:
            raise UnknownConfig("no such config", expected=" | ".join(catalog.CONFIGS), got=config)
        if config not in self.configs:
            raise ConfigUnavailable(
                "this release does not hold the config", expected=" | ".join(self.configs), got=config, hint=known.needs
            )
        if split not in known.splits:
            raise UnknownConfig("no such split", expected=" | ".join(known.splits), got=f"{config}/{split}")
        return [(layer, part) for layer, part in known.splits[split] if part in self.layers[layer].splits]

    def splits(self, config: str) -> dict[str, SplitEntry]:
        """The splits of a config that hold rows, each summed over its layers."""
        made = {}
        for split in catalog.CONFIGS[config].splits if config in self.configs else ():
            entries = [self.layers[layer].splits[part] for layer, part in self.parts(config, split)]
            if entries:
                made[split] = _sum_splits(entries)
        return made

    def shards(self, config: str, split: str) -> list[FileEntry]:
        """The shards of a config's split in release order (the archives, in place)."""
        wanted = self.parts(config, split)
        if self.format == "in-place":
            return [file for file in self.files if file.layer is not None]
        return [file for part in wanted for file in self.files if (file.layer, file.split) == part]

    def file(self, name: str) -> FileEntry | None:
        """The entry of a file, or None."""
        return next((file for file in self.files if file.name == name), None)

    def path(self, folder: Path, file: FileEntry) -> Path:
        """Where a file of the release in `folder` is: samples below `data_root`, everything else in the folder."""
        return Path(folder) / (self.data_root if file.layer is not None else ".") / file.name

    def to_json(self) -> bytes:
        """Canonical bytes: equal manifests give equal files."""
        value = {
            "format_version": self.format_version,
            "name": FOLDERS[self.format],
            "format": self.format,
            "data_version": self.data_version,
            "data_root": self.data_root,
            "content_digest": self.content_digest,
            "configs": {name: {s: e.rows for s, e in self.splits(name).items()} for name in self.configs},
            "layers": {name: asdict(layer) for name, layer in self.layers.items()},
            "toolchain": dict(sorted(self.toolchain.items())),
            "files": [{k: v for k, v in asdict(file).items() if v is not None} for file in self.files],
        }
        return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()

    def save(self, folder: Path) -> None:
        """Write `manifest.json` into `folder`, atomically: the act that makes a release."""
        write_bytes(Path(folder) / MANIFEST_NAME, self.to_json())

    def with_files(self, files: Iterable[FileEntry]) -> Manifest:
        """The same release with these files."""
        return replace(self, files=tuple(files))


def _sum_splits(entries: list[SplitEntry]) -> SplitEntry:
    classes = [entry.classes for entry in entries if entry.classes is not None]
    return SplitEntry(
        rows=sum(entry.rows for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        classes=tuple(map(sum, zip(*classes, strict=True))) if classes else None,
        listed=sum(e.listed or 0 for e in entries) if all(e.listed is not None for e in entries) else None,
        quarantined=tuple(sorted(key for entry in entries for key in entry.quarantined)),
    )


def load_manifest(folder: Path) -> Manifest:
    """Read and verify `folder/manifest.json`.

    Raises:
        ReleaseNotFound: there is none.
        ManifestError: it is no JSON, lacks fields, is of a newer format, or its digest does not fit its layers.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ReleaseNotFound("no release here", expected=MANIFEST_NAME, where=folder) from error
    return parse_manifest(data, path)


def parse_manifest(data: bytes, path: object) -> Manifest:
    """Verify the content of a `manifest.json`.

    Args:
        data: its bytes.
        path: where it came from, for messages.

    Raises:
        ManifestError: see `load_manifest`.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ManifestError(
            "the manifest is no JSON", got=error, where=path, hint="Fetch or build it again."
        ) from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise ManifestError(
            "a release format this package does not read",
            expected=FORMAT_VERSION,
            got=version,
            where=path,
            hint="Upgrade t4sa-data (pip install -U t4sa-data), or ask for an older release.",
        )
    try:
        manifest, digest = _from_dict(value), value["content_digest"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError("the manifest lacks a field", got=repr(error), where=path) from error
    if manifest.content_digest != digest:
        raise ManifestError(
            "the manifest's digest does not fit its layers",
            expected=manifest.content_digest,
            got=digest,
            where=path,
        )
    return manifest


def _from_dict(value: dict[str, Any]) -> Manifest:
    layers = {
        name: LayerEntry(**{**layer, "splits": {s: SplitEntry(**_tuples(e)) for s, e in layer["splits"].items()}})
        for name, layer in value["layers"].items()
    }
    return Manifest(
        format=value["format"],
        layers=layers,
        files=tuple(FileEntry(**_tuples(file)) for file in value["files"]),
        toolchain=value["toolchain"],
        data_version=value["data_version"],
        data_root=value["data_root"],
        format_version=value["format_version"],
    )


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}


def content_digest(table: pa.Table) -> str:
    """sha256 over a layer's canonical rows, in the order of `table`.

    A row is: key, split, label, the bits of the three probabilities, tweet id, image index, text, sha256 of the image;
    nothing computed from pixels, so that another decoder gives the same digest. Columns a text layer lacks count as
    null. Each value is written behind its own length (-1 for null), little-endian.
    """
    digest = hashlib.sha256()
    names = ("key", "split", "label", "negative", "neutral", "positive", "tweet_id", "image_index", "text", "sha256")
    for batch in table.to_batches(max_chunksize=16_384):
        columns = [
            _canonical(batch.column(name)) if name in batch.schema.names else repeat(_NULL, batch.num_rows)
            for name in names
        ]
        digest.update(b"".join(chain.from_iterable(zip(*columns, strict=True))))
    return digest.hexdigest()


_NULL = b"\xff\xff\xff\xff"


def _canonical(column: pa.Array) -> Iterable[bytes]:
    """Each value of a column, behind its length."""
    if column.type == pa.string():
        values = column.cast(pa.binary()).to_pylist()
        return [_NULL if value is None else struct.pack("<i", len(value)) + value for value in values]
    kind = "<f4" if pa.types.is_floating(column.type) else "<i8"
    records = np.empty(len(column), dtype=[("length", "<i4"), ("value", kind)])
    records["length"] = records.dtype["value"].itemsize
    records["value"] = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    data, width = records.tobytes(), records.itemsize
    values = [data[i : i + width] for i in range(0, len(data), width)]
    for i in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
        values[i] = _NULL
    return values


def count_classes(label: pa.ChunkedArray) -> tuple[int, ...]:
    """Rows per class, (negative, neutral, positive)."""
    return tuple(np.bincount(np.asarray(label, dtype=np.int64), minlength=len(catalog.CLASSES)).tolist())
