"""What the tests of remote reading share: a served release, short patience, and a source over a transport."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t4sa_data.downloading import Limits
from t4sa_data.manifest import Manifest, load_manifest
from t4sa_data.reading import Range
from t4sa_data.reading.cache import Cache
from t4sa_data.reading.fetching import RemoteSource
from t4sa_data.reading.transport import HttpTransport, RemoteFile
from t4sa_data.shards import read_table

# What waits is short; what a slow machine must not hit is long.
QUICK = Limits(
    connect_seconds=20,
    stall_seconds=20,
    stall_bytes=1,
    attempts=6,
    progress_bytes=2000,
    backoff_seconds=0.001,
    max_backoff_seconds=0.01,
    max_wait_seconds=5,
    checkpoint_bytes=40_000,
)
FORMATS = {"t4sa": "parquet", "t4sa-wds": "wds"}


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path there."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def shards_of(manifest: Manifest) -> dict[str, RemoteFile]:
    """The shards of a release, by name."""
    return {f.name: RemoteFile(f.name, f.bytes, f.sha256) for f in manifest.files if f.layer is not None}


def ranges_of(folder: Path) -> list[tuple[Range, str]]:
    """Each sample's range and sha256, in release order."""
    table = read_table(folder / "b-t4sa" / "index.parquet", ["file", "offset", "length", "sha256"])
    rows = zip(*(table[name].to_pylist() for name in ("file", "offset", "length", "sha256")), strict=True)
    return [(Range(file, offset, length), sha256) for file, offset, length, sha256 in rows]


def open_source(url: str, folder: Path, cache: Path, *, keeps: bool = False, limit: int | None = None) -> RemoteSource:
    """A source over `url`, which serves the release in `folder`.

    Args:
        url: of the release.
        folder: where it is from.
        cache: folder of the cache.
        keeps: whether shards may be fetched whole.
        limit: bytes of the cache.
    """
    files = shards_of(load_manifest(folder))
    kept = frozenset(files) if keeps else frozenset()
    return RemoteSource(HttpTransport(url, QUICK), files, Cache(cache, limit), kept_whole=kept)


def in_pieces(items: list[tuple[Range, str]], count: int) -> Iterator[list[tuple[Range, str]]]:
    """The items, some at a time."""
    for low in range(0, len(items), count):
        yield items[low : low + count]
