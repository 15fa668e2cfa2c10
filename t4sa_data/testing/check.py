"""The check of a release: every file, row and number of it against every other that should say the same."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t4sa_data.catalog import CLASSES, IMAGE_LAYERS
from t4sa_data.errors import ReleaseNotFound
from t4sa_data.files import TEMPORARY
from t4sa_data.manifest import (
    FOLDERS,
    MANIFEST_NAME,
    SUFFIXES,
    FileEntry,
    LayerEntry,
    Manifest,
    content_digest,
    count_classes,
    load_manifest,
)
from t4sa_data.release import in_release_order
from t4sa_data.schema import layer_schema, make_key
from t4sa_data.shards import TABLE_NAME, layer_sidecars, read_table
from t4sa_data.testing.check_documents import check_documents
from t4sa_data.testing.check_shards import FileJob, check_file
from t4sa_data.testing.faults import Fault, Faults, Report

_NOT_OURS = (".git", ".gitattributes", ".cache")
"""What git and the Hub's client put beside the files of a release they fetched."""

_BUILD = ("build", "quarantine")
"""Folders of a build that is not sealed into the release; in place they lie in its folder."""


def check_release(
    path: Path | str, deep: bool = False, *, is_part: bool = False, progress: Callable[[int], object] | None = None
) -> Report:
    """Check every byte, row and number of a release; a fault in one file does not stop the others from being checked.

    Reads each file once under sha256 and its structure once more (from the page cache, as a rule). Memory: the sample
    table of one layer, and per thread one row group.

    Args:
        path: DIR that holds `t4sa/`, `t4sa-wds/` or `t4sa-inplace/` (all that are there are checked), or one of them.
        deep: also decode every image and compare width, height and perceptual hash.
        is_part: shards may be missing (they lie elsewhere): their rows in the tables are checked all the same.
        progress: called with the number of bytes checked since the last call.

    Raises:
        ReleaseNotFound: there is no release at `path`.

    Example:
        >>> import tempfile
        >>> from t4sa_data.testing import make_release
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = make_release(folder, 3)
        ...     report = check_release(folder)
        >>> report.ok, report.samples, len(report.folders)
        (True, 6, 2)
    """
    folders, faults = find_folders(Path(path))
    manifests: dict[Path, Manifest] = {}
    files = samples = num_bytes = 0
    for folder in folders:
        found = Faults(folder.resolve().name)
        with found.guard(MANIFEST_NAME):
            manifests[folder] = load_manifest(folder)
            # Pillow's warnings are silenced per decode, which threads would leave behind for the whole process.
            with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                _Folder(folder, manifests[folder], found, deep, pool, progress or (lambda _: None), is_part).check()
        faults += found.all()
        files, samples, num_bytes = files + found.files, samples + found.samples, num_bytes + found.bytes
    faults += _compare_formats(manifests)
    return Report(faults=tuple(faults), folders=tuple(folders), files=files, samples=samples, bytes=num_bytes)


def find_folders(path: Path) -> tuple[list[Path], list[Fault]]:
    """The release folders at `path` (itself, or those it holds); folders named so that lack a manifest are faults.

    Raises:
        ReleaseNotFound: there is none.
    """
    if (path / MANIFEST_NAME).is_file():
        return [path], []
    named = [path / name for name in FOLDERS.values() if (path / name).is_dir()]
    folders = [folder for folder in named if (folder / MANIFEST_NAME).is_file()]
    if not folders:
        raise ReleaseNotFound(
            "no release here",
            expected=f"{MANIFEST_NAME}, or a folder {' or '.join(FOLDERS.values())} that holds one",
            where=path,
            hint="Build one with `t4sa prepare RAW --out DIR`; `t4sa where` lists the places that are looked at.",
        )
    half = [Fault(f"{f.name}/{MANIFEST_NAME}", "missing: not a finished release") for f in named if f not in folders]
    return folders, half


def _compare_formats(manifests: dict[Path, Manifest]) -> list[Fault]:
    """Layers that stand in Parquet and in tar must hold the same rows."""
    by_format = {manifest.format: (folder, manifest) for folder, manifest in manifests.items()}
    if not {"parquet", "wds"} <= by_format.keys():
        return []
    (_, one), (folder, other) = by_format["parquet"], by_format["wds"]
    faults = []
    for name in one.layers.keys() & other.layers.keys():
        a, b = one.layers[name], other.layers[name]
        for what, x, y in (
            ("content_digest", a.content_digest, b.content_digest),
            ("splits", {s: e.rows for s, e in a.splits.items()}, {s: e.rows for s, e in b.splits.items()}),
        ):
            if x != y:
                text = f"{name}: {what} is {y}, in {FOLDERS['parquet']} it is {x}"
                faults.append(Fault(f"{folder.name}/{MANIFEST_NAME}", text))
    return sorted(faults, key=str)


class _Folder:
    """The check of one release folder."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        faults: Faults,
        deep: bool,
        pool: ThreadPoolExecutor,
        progress: Callable[[int], object],
        is_part: bool,
    ) -> None:
        self.folder, self.manifest, self.faults = folder, manifest, faults
        self.deep, self.pool, self.progress, self.is_part = deep, pool, progress, is_part
        self.root = folder / manifest.data_root
        self.keys: dict[str, pa.ChunkedArray] = {}

    def check(self) -> None:
        """Everything, in the order in which faults are told."""
        if (self.folder / MANIFEST_NAME).read_bytes() != self.manifest.to_json():
            self.faults.add(MANIFEST_NAME, "not what its own fields give: edited by hand")
        if not self._names_are_safe():
            return
        self._check_presence()
        others = [file for file in self.manifest.files if file.layer is None]
        self._run([self._job(file) for file in others])
        for name, layer in self.manifest.layers.items():
            with self.faults.guard(f"{name}/{TABLE_NAME}" if layer.kind == "image" else name):
                (self._check_images if layer.kind == "image" else self._check_texts)(name, layer)
        self._check_unique_keys()
        check_documents(self.folder, self.manifest, self.faults)

    def _names_are_safe(self) -> bool:
        """No file is read that is not below the release."""
        bad = [f.name for f in self.manifest.files if f.name.startswith("/") or {"..", ""} & set(f.name.split("/"))]
        if self.manifest.data_root != (".." if self.manifest.format == "in-place" else "."):
            bad.append(f"data_root {self.manifest.data_root}")
        for name in bad:
            self.faults.add(MANIFEST_NAME, f"names a place outside the release: {name}")
        return not bad

    def _check_presence(self) -> None:
        """Files that the manifest should name, and files that it does not name."""
        named = {file.name for file in self.manifest.files}
        twice = len(self.manifest.files) - len(named)
        if twice:
            self.faults.add(MANIFEST_NAME, f"names {twice} files twice")
        expected = {"README.md", "croissant.json", *self._sidecars()}
        expected |= {f"{name}/{TABLE_NAME}" for name, layer in self.manifest.layers.items() if layer.kind == "image"}
        for name in sorted(expected - named):
            self.faults.add(MANIFEST_NAME, f"does not name {name}")
        beside = _BUILD if self.manifest.format == "in-place" else ()
        for name in sorted(set(_files_below(self.folder, beside)) - named - {MANIFEST_NAME}):
            left = name.endswith(TEMPORARY)
            what = "left by a writer that was killed: remove it" if left else "the manifest does not name it"
            self.faults.add(name, what)

    def _sidecars(self) -> dict[str, bytes | None]:
        """Sidecars that follow from the manifest's shards: name -> content (None: checked with its shard)."""
        made: dict[str, bytes | None] = {}
        if self.manifest.format == "wds":
            for name in self.manifest.layers:
                shards: dict[str, dict[str, int]] = {}
                for file in self._shards(name):
                    shards.setdefault(str(file.split), {})[file.name.split("/")[-1]] = file.rows or 0
                    made[f"{file.name}.idx"] = None
                made |= {f"{name}/{sidecar}": data for sidecar, data in layer_sidecars(shards).items()}
        return made

    def _shards(self, layer: str) -> list[FileEntry]:
        return [file for file in self.manifest.files if file.layer == layer]

    def _job(self, file: FileEntry, rows: pa.Table | None = None) -> FileJob:
        return FileJob(
            folder=self.faults.folder,
            root=self.folder if file.layer is None else self.root,
            entry=file,
            format=self.manifest.format,
            rows=rows,
            deep=self.deep,
        )

    def _is_elsewhere(self, file: FileEntry) -> bool:
        return self.is_part and file.layer is not None and not (self.root / file.name).is_file()

    def _run(self, jobs: list[FileJob]) -> None:
        jobs = [job for job in jobs if not self._is_elsewhere(job.entry)]
        for job, found in zip(jobs, self.pool.map(check_file, jobs), strict=True):
            self.faults.extend(found)
            self.progress(job.entry.bytes)

    def _check_images(self, name: str, layer: LayerEntry) -> None:
        """An image layer: its sample table, then each of its shards against it."""
        file, table = f"{name}/{TABLE_NAME}", None
        with self.faults.guard(file):
            table = read_table(self.folder / file, layer=name)
        shards = self._shards(name)
        runs = self._runs(file, table, shards) if table is not None else {}
        self._run([self._job(shard, runs.get(shard.name)) for shard in shards])
        if table is None:
            return
        self.keys[name] = table["key"]
        with self.faults.guard(file):
            self._check_rows(file, table, layer)
        with self.faults.guard(file):
            self._check_content(file, name, table, layer, bytes_of=np.asarray(table["length"]))
        for sidecar, data in self._sidecars().items():
            path = self.folder / sidecar
            if sidecar.startswith(f"{name}/") and data is not None and path.is_file() and path.read_bytes() != data:
                self.faults.add(sidecar, "not what follows from the manifest's shards")

    def _runs(self, file: str, table: pa.Table, shards: list[FileEntry]) -> dict[str, pa.Table]:
        """The rows of each shard: runs of the table, in the order of the shards, as many as the manifest says."""
        if self.manifest.format == "in-place":
            names = {shard.name for shard in shards}
            for name in set(table["file"].unique().to_pylist()) - names:
                self.faults.add(file, f"points into {name}, which the manifest does not name")
            return {name: table.filter(pc.equal(table["file"], name)) for name in names}
        self._check_numbering(file.split("/")[0], shards)
        runs: dict[str, pa.Table] = {}
        start = 0
        # A shard whose rows do not stand in one run shows as two runs of one name, or as a run in the wrong place.
        encoded = pc.run_end_encode(table["file"].combine_chunks()) if table.num_rows else None
        found = zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True) if encoded else ()
        for number, (name, stop) in enumerate(found):
            expected = shards[number] if number < len(shards) else None
            if expected is None or expected.name != name:
                what = f"points into {name}, expected {expected.name if expected else 'no more rows'}"
                self.faults.add(file, what, row=start, kind="file out of order")
            runs.setdefault(name, table.slice(start, stop - start))
            start = stop
        for shard in shards:
            self._compare_entry(file, shard, runs.get(shard.name))
        return runs

    def _compare_entry(self, file: str, shard: FileEntry, rows: pa.Table | None) -> None:
        """The manifest's numbers of a shard against the rows of the table (or of the shard itself)."""
        if rows is None:
            self.faults.add(file, f"has no row of {shard.name}")
            return
        if rows.num_rows != shard.rows:
            self.faults.add(shard.name, f"{rows.num_rows} rows, the manifest says {shard.rows}")
        if shard.classes is not None and (classes := count_classes(rows["label"])) != tuple(shard.classes):
            self.faults.add(shard.name, f"{classes} rows per class, the manifest says {tuple(shard.classes)}")
        if rows["split"].unique().to_pylist() not in ([], [shard.split]):
            self.faults.add(shard.name, f"rows of split {rows['split'].unique().to_pylist()}, expected {shard.split}")

    def _check_numbering(self, layer: str, shards: list[FileEntry]) -> None:
        """Shards are named `<layer>/<split>-NNNNN-of-NNNNN` without a gap."""
        for split in dict.fromkeys(shard.split for shard in shards):
            names = [shard.name for shard in shards if shard.split == split]
            suffix = SUFFIXES[self.manifest.format]
            expected = [f"{layer}/{split}-{i:05d}-of-{len(names):05d}{suffix}" for i in range(len(names))]
            for name, wanted in zip(names, expected, strict=True):
                if name != wanted:
                    self.faults.add(MANIFEST_NAME, f"a shard is named {name}, expected {wanted}", kind="shard's name")

    def _check_rows(self, file: str, table: pa.Table, layer: LayerEntry) -> None:
        """What the columns of a sample table say of one another."""
        keys = table["key"].to_pylist()
        made = [
            make_key(i, k) for i, k in zip(*(table[c].to_pylist() for c in ("tweet_id", "image_index")), strict=True)
        ]
        label = np.asarray(table["label"])
        probabilities = np.stack([np.asarray(table[c], dtype=np.float32) for c in CLASSES])
        confidence = np.asarray(table["confidence"], dtype=np.float32)
        checks = {
            "the key is not <tweet_id>-<image_index>": [a != b for a, b in zip(keys, made, strict=True)],
            f"the label is not 0 to {len(CLASSES) - 1}": ~((label >= 0) & (label < len(CLASSES))),
            "confidence is not the largest probability": ~(
                (confidence == probabilities.max(axis=0)) | (np.isnan(confidence) & np.isnan(probabilities).all(axis=0))
            ),
        }
        for what, bad in checks.items():
            for row in np.flatnonzero(bad).tolist():
                self.faults.add(file, what, row=row, key=keys[row], kind=what)
        released = {key for split in layer.splits.values() for key in split.quarantined}.intersection(keys)
        for key in sorted(released):
            self.faults.add(file, "quarantined, yet released", row=keys.index(key), key=key, kind="quarantined")

    def _check_content(
        self, file: str, name: str, table: pa.Table, layer: LayerEntry, bytes_of: np.ndarray | None = None
    ) -> None:
        """Order, counts and digest of a layer."""
        keys = "key" if "key" in table.schema.names else "tweet_id"
        got, ordered = table[keys], in_release_order(table)[keys]
        if not pc.all(pc.equal(got, ordered)).as_py() and table.num_rows:
            row = next(i for i, (a, b) in enumerate(zip(got.to_pylist(), ordered.to_pylist(), strict=True)) if a != b)
            what = f"not in release order, first here: expected {ordered[row]}"
            self.faults.add(file, what, row=row, key=str(got[row]))
        digest = content_digest(table)
        if digest != layer.content_digest:
            self.faults.add(file, f"content_digest is {digest}, the manifest says {layer.content_digest}")
        splits = np.array(table["split"].to_pylist(), dtype=object)
        for split in sorted({*layer.splits, *splits.tolist()}):
            mask, entry = splits == split, layer.splits.get(split)
            told = {"rows": int(mask.sum())}
            if "label" in table.schema.names:
                told["rows per class"] = count_classes(table["label"].filter(pa.array(mask)))  # type: ignore[assignment]
            if bytes_of is not None:
                told["image bytes"] = int(bytes_of[mask].sum())
            said = {"rows": entry.rows, "rows per class": entry.classes, "image bytes": entry.bytes} if entry else {}
            for what, value in told.items():
                if said.get(what) != value:
                    text = f"{name}/{split}: {what} is {said.get(what)} here and {value} in {file}"
                    self.faults.add(MANIFEST_NAME, text)

    def _check_texts(self, name: str, layer: LayerEntry) -> None:
        """A text layer: its shards are its table."""
        shards, parts = self._shards(name), []
        self._check_numbering(name, shards)
        self._run([self._job(shard) for shard in shards])
        for shard in (shard for shard in shards if not self._is_elsewhere(shard)):
            with self.faults.guard(shard.name):
                rows = pq.read_table(self.folder / shard.name, partitioning=None)
                if rows.schema.equals(layer_schema(name)):  # if not, check_file has said so
                    parts.append(rows)
                    self._compare_entry(shard.name, shard, rows)
                    self.faults.samples += rows.num_rows
        if len(parts) == len(shards) and parts:
            self._check_content(name, name, pa.concat_tables(parts), layer)

    def _check_unique_keys(self) -> None:
        """A key is in one layer of the nested configs only, and there once."""
        layers = [name for name in IMAGE_LAYERS if name in self.keys]
        groups = [layers, *([name] for name in self.keys if name not in layers)]
        for group in groups:
            chunks = [chunk for name in group for chunk in self.keys[name].chunks]
            if not chunks:
                continue
            counts = pc.value_counts(pa.chunked_array(chunks, pa.string()))
            many = counts.filter(pc.greater(counts.field("counts"), 1))
            for key in many.field("values").to_pylist():
                rows = {name: pc.index(self.keys[name], key).as_py() for name in group}
                where = next(name for name in reversed(group) if rows[name] >= 0)
                text = f"the key occurs more than once (in {', '.join(n for n in group if rows[n] >= 0)})"
                self.faults.add(f"{where}/{TABLE_NAME}", text, row=rows[where], key=key, kind="key twice")


def _files_below(folder: Path, beside: Sequence[str]) -> Iterator[str]:
    """Paths of the files below `folder`, but for what others put there and the folders `beside` at its top."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(set(folders) - set(_NOT_OURS) - set(beside if Path(parent) == folder else ()))
        for name in files:
            if name not in _NOT_OURS:
                yield (Path(parent) / name).relative_to(folder).as_posix()
