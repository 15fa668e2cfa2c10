"""What `t4sa info` and `t4sa where` show: a screen of text from the manifests and a few rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from t4sa_data.catalog import CLASSES
from t4sa_data.manifest import SUFFIXES, Manifest, SplitEntry, load_manifest
from t4sa_data.shards import TABLE_NAME

_SHOWN = ("key", "split", "label", "confidence", "width", "height", "file")
NUM_ROWS = 3
"""Sample rows shown of each layer."""


def size(num_bytes: float) -> str:
    """Bytes for people, decimal as disks are sold.

    >>> size(999), size(63_000_000_000), size(5_400_000)
    ('999 B', '63.0 GB', '5.4 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.2f} TB"


def braces(layer: str, split: str, count: int, suffix: str) -> str:
    """The shards of a split as one brace string, as WebDataset, open_clip and shells expand it.

    >>> braces("b-t4sa", "train", 64, ".tar")
    'b-t4sa/train-{00000..00063}-of-00064.tar'
    >>> braces("b-t4sa", "test", 1, ".tar")
    'b-t4sa/test-00000-of-00001.tar'
    """
    numbers = f"{{00000..{count - 1:05d}}}" if count > 1 else "00000"
    return f"{layer}/{split}-{numbers}-of-{count:05d}{suffix}"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a plain table; numbers to the right, with thousands separators.

    >>> print("\\n".join(table(("split", "rows"), [("train", 1234), ("test", 5)])))
    split   rows
    train  1,234
    test       5
    """
    cells = [list(header)] + [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in rows]
    raw = [list(header), *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    right = [any(isinstance(row[i], int) for row in raw[1:]) for i in range(len(header))]
    lines = []
    for row in cells:
        line = "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        lines.append(line.rstrip())
    return lines


def describe(path: Path) -> str:
    """A screen about the release at `path`: configs, splits, classes, bytes, brace strings, rows without their text.

    Args:
        path: DIR or one of its release folders.

    Raises:
        ReleaseNotFound: there is none.
        ManifestError: a manifest that cannot be read.
    """
    from t4sa_data.testing.check import find_folders

    folders, _ = find_folders(Path(path))
    manifests = {folder: load_manifest(folder) for folder in folders}
    lines: list[str] = []
    for folder, manifest in manifests.items():
        num_bytes = sum(file.bytes for file in manifest.files)
        lines += [f"{folder}  ({manifest.format}, {len(manifest.files)} files, {size(num_bytes)})"]
        lines += [f"  data version    {manifest.data_version}", f"  content digest  {manifest.content_digest}", ""]
        lines += [f"  {line}" for line in table(_HEADER, _split_rows(manifest))] + [""]
        if manifest.format in SUFFIXES:
            lines += [f"  {folder.name}/{line}" for line in _brace_strings(manifest)] + [""]
    folder, manifest = next(iter(manifests.items()))
    for name, layer in manifest.layers.items():
        if layer.kind == "image":
            lines += [f"  first rows of {folder.name}/{name}/{TABLE_NAME}:"]
            lines += [f"    {line}" for line in _first_rows(folder / name / TABLE_NAME)] + [""]
    return "\n".join(lines).rstrip()


def list_places() -> str:
    """Every place where `load_dataset("t4sa")` looks, in order: what is there, and how many bytes."""
    from t4sa_data.places import candidates

    marks = {True: "found", False: "-", None: "not asked"}
    rows = [
        (
            place.kind,
            str(place.path or place.url),
            marks[place.found],
            "-" if place.bytes is None else size(place.bytes),
            f"{place.what}: {', '.join(place.configs)}" if place.configs else place.what,
        )
        for place in candidates()
    ]
    return "\n".join(table(("place", "where", "", "bytes", "what"), rows))


_HEADER = ("config", "split", "rows", "listed", "quarantined", *CLASSES, "bytes")


def _split_rows(manifest: Manifest) -> list[tuple[object, ...]]:
    return [
        (config, split, *_numbers(entry))
        for config in manifest.configs
        for split, entry in manifest.splits(config).items()
    ]


def _numbers(entry: SplitEntry) -> tuple[object, ...]:
    listed = "-" if entry.listed is None else entry.listed
    return entry.rows, listed, len(entry.quarantined), *(entry.classes or ("-",) * len(CLASSES)), size(entry.bytes)


def _brace_strings(manifest: Manifest) -> list[str]:
    runs = [(file.layer, file.split) for file in manifest.files if file.layer is not None]
    suffix = SUFFIXES[manifest.format]
    return [braces(str(layer), str(split), runs.count((layer, split)), suffix) for layer, split in dict.fromkeys(runs)]


def _first_rows(path: Path) -> list[str]:
    with pq.ParquetFile(path) as parquet:
        batch = next(parquet.iter_batches(NUM_ROWS, columns=list(_SHOWN)), None)
    rows = batch.to_pylist() if batch is not None else []
    for row in rows:
        row["label"] = f"{row['label']} {CLASSES[row['label']]}"
        row["confidence"] = "-" if row["confidence"] is None else f"{row['confidence']:.3f}"
    return table(_SHOWN, [[row[column] for column in _SHOWN] for row in rows])
