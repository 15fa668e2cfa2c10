"""The output folder: only ours is touched, what the work needs is said before a byte is written."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from builders.quarantine import FOLDER as QUARANTINE
from builders.quarantine import own_files
from builders.state import State
from builders.write import Job, is_done
from t4sa_data.errors import DiskSpaceError, ForeignFiles, OutputError, ReleaseNotFound
from t4sa_data.files import TEMPORARY, sweep_temporary
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, Manifest, load_manifest

BUILD = "build"
CLAIM = "claim"
"""Name of the note that says which files an unfinished build is about to write."""
OVERHEAD = 1.02
"""Bytes of a shard for each byte of its rows: tar headers and records; a picture has 130 KB."""


def standing_release(out: Path, fmt: str, state: State) -> Manifest | None:
    """The manifest of the release of one format in `out`, or of the one that an unfinished build took back, or None."""
    for folder in (out / FOLDERS[fmt], _withdrawn(fmt, state)):
        try:
            return load_manifest(folder)
        except ReleaseNotFound:
            continue
    return None


def _withdrawn(fmt: str, state: State) -> Path:
    """Where the manifest waits whose files are being replaced."""
    return state.folder / f"withdrawn-{fmt}"


def guard(out: Path, state: State) -> None:
    """Refuse to build where files of others lie; sweep what a killed build of ours left.

    Raises:
        ForeignFiles: a file in `t4sa/`, `t4sa-wds/` or `quarantine/` that no manifest or unfinished build names.
        OutputError: `out` is a file.
    """
    if out.exists() and not out.is_dir():
        raise OutputError("the output is no folder", where=out, hint="Choose another --out.")
    sweep(out)
    claimed = state.load(CLAIM, "files") or {}
    for fmt in ("parquet", "wds"):
        folder = out / FOLDERS[fmt]
        if not folder.exists():
            continue
        manifest = standing_release(out, fmt, state)
        named = {file.name for file in manifest.files} | {MANIFEST_NAME} if manifest else set()
        _refuse(folder, named | set(claimed.get(fmt, ())))
    quarantine = out / QUARANTINE
    if quarantine.exists():
        _refuse(quarantine, own_files(out))


def require_source(out: Path, state: State, source: str | None) -> None:
    """Refuse to mix layers of two datasets: those of the official packages and those of raw tweets are never one.

    Args:
        out: DIR.
        state: of its builds.
        source: `provenance["settings"]["source"]` of the layers to come; None: the official packages.

    Raises:
        OutputError: a layer there is of another source. `twitter-testing` goes with either.
    """
    for fmt in ("parquet", "wds"):
        manifest = standing_release(out, fmt, state)
        for name, layer in manifest.layers.items() if manifest else ():
            found = layer.provenance.get("settings", {}).get("source")
            if name != "twitter-testing" and found != source:
                raise OutputError(
                    "the output holds a release of another source",
                    expected=source or "official packages",
                    got=f"{name}: {found or 'official packages'}",
                    where=out / FOLDERS[fmt],
                    hint="Choose another --out.",
                )


def sweep(out: Path) -> None:
    """Remove temporary files of killed writers from the folders that are ours."""
    for name in (FOLDERS["parquet"], FOLDERS["wds"], QUARANTINE, BUILD):
        sweep_temporary(out / name)


def guard_in_place(folder: Path) -> None:
    """The same for `RAW/t4sa-inplace/`.

    Raises:
        ForeignFiles: a file there that is not of an in-place release.
    """
    if folder.exists():
        sweep_temporary(folder)
        ours = {"README.md", "croissant.json", MANIFEST_NAME, "b-t4sa/index.parquet"}
        ours |= {path.relative_to(folder).as_posix() for path in (folder / BUILD).rglob("*")}
        _refuse(folder, ours)


def _refuse(folder: Path, ours: set[str]) -> None:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in ours and not name.endswith(TEMPORARY):
            raise ForeignFiles(
                "the output holds a file that is not ours",
                got=name,
                where=folder,
                hint="Choose another --out, or move the file away.",
            )


def claim(out: Path, jobs: Sequence[Job], layers: Mapping[str, bool], state: State) -> None:
    """Note which files this build writes, and take back a manifest whose files it is about to replace.

    Args:
        out: DIR.
        jobs: the shards.
        layers: name -> whether it holds images.
        state: where the note is kept.
    """
    notes = dict(state.load(CLAIM, "files") or {})
    for fmt in ("parquet", "wds"):
        shards = [job.task.name(fmt) for job in jobs if fmt in job.formats]
        if not shards:
            continue
        before = standing_release(out, fmt, state)
        named = {"README.md", "croissant.json", MANIFEST_NAME, *shards, *notes.get(fmt, ())}
        named |= {file.name for file in before.files} if before else set()
        for layer, has_images in layers.items():
            sidecars = (
                "_info.json",
                "sizes.json",
                ".nv-meta/.info.json",
                ".nv-meta/split.yaml",
                ".nv-meta/dataset.yaml",
            )
            named |= {f"{layer}/{name}" for name in ("index.parquet", *sidecars)} if has_images else set()
        notes[fmt] = sorted(named | ({f"{name}.idx" for name in shards} if fmt == "wds" else set()))
    state.save(CLAIM, "files", notes)
    for fmt in notes:
        manifest = standing_release(out, fmt, state)
        replaced = {job.task.layer for job in jobs if fmt in job.formats and not is_done(job)}
        if manifest and replaced & set(manifest.layers):
            withdraw(out, fmt, state)


def withdraw(out: Path, fmt: str, state: State) -> None:
    """Take back a manifest before files that it names are replaced; its other layers are taken up again by `seal`."""
    there = out / FOLDERS[fmt] / MANIFEST_NAME
    if there.exists():
        _withdrawn(fmt, state).mkdir(parents=True, exist_ok=True)
        there.replace(_withdrawn(fmt, state) / MANIFEST_NAME)


def settle(out: Path, manifests: Mapping[str, Manifest], state: State) -> int:
    """After the new manifests are written: remove what earlier builds wrote and none names; returns files removed.

    Only files that a manifest or a note of ours named are touched.
    """
    num_removed = 0
    notes = state.load(CLAIM, "files") or {}
    for fmt, manifest in manifests.items():
        folder = out / FOLDERS[fmt]
        stale = set(notes.get(fmt, ())) - {file.name for file in manifest.files} - {MANIFEST_NAME}
        for name in sorted(stale):
            if (folder / name).is_file():
                (folder / name).unlink()
                num_removed += 1
        (_withdrawn(fmt, state) / MANIFEST_NAME).unlink(missing_ok=True)
    state.path(CLAIM, "files").unlink(missing_ok=True)
    return num_removed


def bytes_needed(jobs: Sequence[Job]) -> int:
    """Disk that the shards still to be written take, in bytes."""
    return sum(int(job.num_bytes * OVERHEAD * len(job.formats)) for job in jobs if not is_done(job))


def image_bytes_needed(out: Path, num_bytes: int, layers: Iterable[str], formats: Sequence[str]) -> int:
    """Disk that `num_bytes` of images take in these formats, in bytes, less what already stands there of the layers."""
    standing = [path for fmt in formats for layer in layers for path in (out / FOLDERS[fmt] / layer).glob("*-of-*")]
    return max(0, int(num_bytes * OVERHEAD * len(formats)) - sum(path.stat().st_size for path in standing))


def require_space(out: Path, needed: int, num_formats: int) -> int:
    """Free bytes where `out` is or will be.

    Raises:
        DiskSpaceError: fewer than needed.
    """
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        one = " --formats parquet halves it." if num_formats > 1 else ""
        raise DiskSpaceError(
            "not enough disk",
            expected=f"{needed / 1e9:.1f} GB free",
            got=f"{free / 1e9:.1f} GB",
            where=out,
            hint=f"Ways out:{one} --in-place copies nothing; --limit N for a first try; --out on another disk.",
        )
    return free
