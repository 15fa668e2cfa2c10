"""Whether a load fits on the disk: `datasets` copies every row that is not streamed into its Arrow cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t4sa_data import catalog
from t4sa_data.errors import DiskSpaceError
from t4sa_data.manifest import FileEntry, Manifest

if TYPE_CHECKING:
    from t4sa_data.loading.request import Request


def check_disk(
    request: Request,
    manifest: Manifest,
    shards: Mapping[str, Sequence[FileEntry]],
    prepared: Callable[[], bool],
    *,
    download: int = 0,
) -> None:
    """Refuse a load that would fill the disk: `datasets` copies every wanted row into its Arrow cache.

    Args:
        request: what was asked for.
        manifest: of the release.
        shards: split -> its shards.
        prepared: whether the Arrow copy stands already; asked only when space is short.
        download: bytes that have to be fetched first.

    Raises:
        DiskSpaceError: names what is needed, what is free, and the ways out.
    """
    if os.environ.get("T4SA_SKIP_DISK_CHECK") == "1":
        return
    entries = [file for files in shards.values() for file in files]
    copy = sum(file.bytes for file in entries)
    if request.columns is not None and "image" not in request.columns:
        totals = manifest.splits(request.config)
        is_image = catalog.CONFIGS[request.config].kind == "image"
        copy -= sum(totals[split].bytes for split in shards) if is_image else 0
    copy = 0 if request.filters is not None else max(0, copy)  # how many rows pass is not known beforehand
    needs = [(_existing(request.cache_folder()), copy)]
    if download:
        from huggingface_hub.constants import HF_HUB_CACHE

        needs.append((_existing(Path(HF_HUB_CACHE)), download))
    for folder in dict.fromkeys(folder for folder, _ in needs):
        disk = folder.stat().st_dev
        needed = sum(num_bytes for other, num_bytes in needs if other.stat().st_dev == disk)
        free = shutil.disk_usage(folder).free
        if needed > free and not prepared():
            raise _no_space(request, list(shards), folder, free, copy, download)


def _no_space(request: Request, splits: list[str], folder: Path, free: int, copy: int, download: int) -> DiskSpaceError:
    parts = [f"{_size(n)} {what}" for n, what in ((download, "download"), (copy, "Arrow copy of the cache")) if n]
    ways = ["streaming=True (no copy)"]
    ways += ['split="test" (only what you need)'] if len(splits) > 1 or splits == ["train"] else []
    ways += ['the smaller config "b-t4sa-256"'] if request.config in ("b-t4sa", "t4sa", "t4sa-unique") else []
    ways += ["cache_dir=... on a larger disk", "T4SA_SKIP_DISK_CHECK=1 to try all the same"]
    return DiskSpaceError(
        f"not enough free disk to load {request.config} ({', '.join(splits)})",
        expected=" + ".join(parts),
        got=f"{_size(free)} free",
        where=folder,
        hint=f"Ways out: {'; '.join(ways)}.",
    )


def _existing(folder: Path) -> Path:
    """The nearest folder above (or at) `folder` that exists."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _size(num_bytes: int) -> str:
    """Bytes as people read them: `63.0 GB`."""
    power = next(p for p in (9, 6, 3, 0) if num_bytes >= 10**p or p == 0)
    unit = {9: "GB", 6: "MB", 3: "kB", 0: "bytes"}[power]
    return f"{num_bytes / 10**power:.1f} {unit}" if power else f"{num_bytes} bytes"
