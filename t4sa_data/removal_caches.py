"""Caches that may hold samples which were removed: this package's, the Hub client's, the Arrow copies of `datasets`.

Bytes in caches come again where they are needed, so whatever is not of the current release goes as a whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pyarrow as pa

from t4sa_data import catalog, places
from t4sa_data.errors import T4SAError
from t4sa_data.files import explain_os_errors
from t4sa_data.loading.hub_errors import client_folder
from t4sa_data.manifest import MANIFEST_NAME, Manifest, parse_manifest
from t4sa_data.reading.cache import default_folder

_ARROW_BUILDERS = ("parquet", "sample_table")
"""Folders of `datasets` that hold copies made by `load_dataset("t4sa")`."""


def stale_in_cache(current: Collection[str], folder: Path | None = None) -> list[Path]:
    """Files of remote releases in this package's cache that are not of the current ones.

    Args:
        current: sha256 of the files of the current releases.
        folder: of the cache; None: `$T4SA_CACHE`, else the platform's.
    """
    folder = folder or default_folder()
    stale: dict[Path, None] = {}
    for note in sorted((folder / "releases").glob("*.json")):
        manifest = _noted(note)
        if manifest is None:
            continue
        old = [file for file in manifest.files if file.sha256 not in current]
        if old:
            stale[note] = None
        for file in old:
            for kind in ("shards", "tables"):
                found = sorted((folder / kind).glob(f"{file.sha256}-*"))  # with `.part` and its note
                stale |= dict.fromkeys(found)
    return list(stale)


def _noted(note: Path) -> Manifest | None:
    """The manifest of a note, where it is of one of our repositories."""
    try:
        value: dict[str, Any] = json.loads(note.read_bytes())
        names = [f"/{name}" for name in catalog.HUB_REPOSITORIES.values()]
        is_ours = any(str(value["url"]).split("@")[0].rstrip("/").endswith(name) for name in names)
        return parse_manifest(str(value["manifest"]).encode(), note) if is_ours else None
    except (OSError, ValueError, KeyError, TypeError, T4SAError):
        return None


def stale_at_client(current: Collection[bytes]) -> list[Path]:
    """Folders of revisions in the Hub client's cache whose manifest is not a current one.

    Args:
        current: the bytes of the current manifests.
    """
    stale = []
    for name in ("t4sa", "t4sa-wds"):
        for snapshot in sorted((client_folder(places.repository(name)) / "snapshots").glob("*")):
            manifest = snapshot / MANIFEST_NAME
            holds = [path for path in snapshot.rglob("*") if path.is_file() and path.name != "releases.json"]
            if holds and not (manifest.is_file() and manifest.read_bytes() in current):
                stale.append(snapshot)
    return stale


def remove_revision(snapshot: Path) -> None:
    """Remove a revision from the Hub client's cache, and the bytes that no other revision there uses."""
    repository = snapshot.parent.parent
    with explain_os_errors(repository):
        targets = {path.resolve() for path in snapshot.rglob("*") if path.is_symlink()}
        shutil.rmtree(snapshot)
        others = {path.resolve() for path in (repository / "snapshots").rglob("*") if path.is_symlink()}
        for blob in targets - others:
            if blob.parent == (repository / "blobs").resolve():
                blob.unlink(missing_ok=True)
        for reference in (repository / "refs").rglob("*") if (repository / "refs").is_dir() else ():
            if reference.is_file() and reference.read_text().strip() == snapshot.name:
                reference.unlink()


def arrow_cache() -> Path:
    """Where `datasets` keeps Arrow copies, without importing it."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.environ.get("HF_DATASETS_CACHE") or f"{home}/datasets").expanduser()


def stale_arrow(is_removed: Callable[[str, pa.ChunkedArray | None], bool], folder: Path | None = None) -> list[Path]:
    """Arrow copies of our configs that hold what was removed.

    Args:
        is_removed: whether a column of keys of a config holds a removed one; it is asked with None where there are
            images without keys to know them by, or a file that cannot be read.
        folder: cache of `datasets`; None: `$HF_DATASETS_CACHE`, else `$HF_HOME/datasets`.
    """
    stale = []
    for builder in _ARROW_BUILDERS:
        for copy in sorted(((folder or arrow_cache()) / builder).glob("*")):
            names = [name for name in catalog.CONFIGS if copy.name == name or copy.name.startswith(f"{name}-")]
            if names and copy.is_dir():
                config = max(names, key=len)  # `b-t4sa-256-...` is not of `b-t4sa`
                if any(_holds(path, config, is_removed) for path in copy.rglob("*.arrow")):
                    stale.append(copy)
    return stale


def _holds(path: Path, config: str, is_removed: Callable[[str, pa.ChunkedArray | None], bool]) -> bool:
    try:
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_stream(file).read_all()  # mapped: images are not read
    except (OSError, pa.ArrowInvalid):
        return is_removed(config, None)  # half written: it may hold anything
    if "key" in table.schema.names:
        return is_removed(config, table["key"])
    return "image" in table.schema.names and is_removed(config, None)
