"""A release from its gated Hub repository to a folder, sha256 of every file held against the manifest.

The Hub's client does the transfer; it compares sizes, not checksums. `manifest.json`, which makes a folder a release,
is written last and only beside all files it names: a part of a release (the shards of one config or split) has none.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from t4sa_data import catalog, places
from t4sa_data.downloading import locked
from t4sa_data.downloading.listing import free_bytes
from t4sa_data.errors import ChecksumMismatch, DiskSpaceError, ForeignFiles, HubUnreachable
from t4sa_data.files import explain_os_errors, sha256_file, write_bytes
from t4sa_data.loading.hub import cached_file, fetch_manifest
from t4sa_data.loading.hub_errors import explain_hub_errors
from t4sa_data.loading.published import look_up
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, FileEntry, Manifest
from t4sa_data.summary import size

SPARE_BYTES = 64 << 20
"""Disk that is left free."""
_CLIENT = ".cache"
"""Folder of the Hub client's notes on what it fetched; not needed once everything was hashed."""


@dataclass(frozen=True, kw_only=True)
class DownloadedRelease:
    """What stands in the folder now."""

    folder: Path
    """The release's: `t4sa` below the folder that was given."""
    commit: str
    """Of the Hub repository; with `dry_run` too."""
    files: tuple[FileEntry, ...]
    """All of them verified (with `dry_run`: looked for only)."""
    whole: bool
    """A release with its manifest; False: a part of one, without."""


def download_release(
    to: str | Path | None = None,
    *,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    say: Callable[[str], object] = lambda _line: None,
) -> DownloadedRelease:
    """Bring a release from the Hub, or the shards of a config or split of it. Run again, it goes on file by file.

    Files that are here are hashed, not fetched again. The token is the client's: `hf auth login`, or `HF_TOKEN`.

    Args:
        to: folder that gets `t4sa/`; None: `$T4SA_HOME`, where `load_dataset` looks.
        config: shards of this config only.
        split: shards of this split only (of the default config, unless one is given).
        revision: branch, tag or commit; None: `$T4SA_REVISION`, else the release line.
        dry_run: say sizes and free disk, fetch nothing but the manifest.
        say: gets a line now and then.

    Raises:
        NotPublished, HubAccessError, UnknownRevision, HubUnreachable: the Hub gives no release.
        ReleaseWithdrawn: it was withdrawn; names the successor.
        ReleaseNotFound: the repository is there, without a manifest.
        UnknownConfig, ConfigUnavailable: no such config or split, or not in this release.
        ForeignFiles: the folder holds another release, or files that are of none.
        ChecksumMismatch: bytes that came are not the manifest's; they were removed.
        DiskSpaceError, OutputError, OutputLocked: the disk does not take it.
    """
    home = Path(to) if to is not None else places.home()
    folder, repo_id = home / FOLDERS["parquet"], places.repository()
    published = look_up(repo_id, revision or places.revision())
    with published.explaining(), explain_hub_errors(repo_id, published.revision):
        manifest, commit = fetch_manifest(repo_id, published.revision)
        written = Path(str(cached_file(repo_id, commit, MANIFEST_NAME))).read_bytes()
        published.check(manifest, written)
        wanted = _wanted(manifest, config, split)
        with locked(home):
            has_manifest = _guard(folder, manifest, written)
            say(f"{repo_id}, commit {commit}: {len(wanted)} file(s), {size(sum(file.bytes for file in wanted))}")
            missing = [file for file in wanted if not _is_whole_length(folder, file)]
            if dry_run:
                say(f"{size(_sum(missing))} to fetch into {folder}; {size(free_bytes(folder))} free")
                return DownloadedRelease(folder=folder, commit=commit, files=wanted, whole=has_manifest)
            missing += _damaged(folder, [file for file in wanted if file not in missing], say)
            if missing:
                if has_manifest:  # it would name files that are not there
                    (folder / MANIFEST_NAME).unlink()
                _fetch(repo_id, commit, folder, missing)
            is_whole = has_manifest or (config is None and split is None)
            if is_whole:
                write_bytes(folder / MANIFEST_NAME, written)
            shutil.rmtree(folder / _CLIENT, ignore_errors=True)
    what = "a release" if is_whole else f"a part of a release, without {MANIFEST_NAME}: read its Parquet files directly"
    say(f"sha256 of {len(wanted)} file(s) verified against the manifest; {folder} is {what}")
    return DownloadedRelease(folder=folder, commit=commit, files=wanted, whole=is_whole)


def _sum(files: Sequence[FileEntry]) -> int:
    return sum(file.bytes for file in files)


def _wanted(manifest: Manifest, config: str | None, split: str | None) -> tuple[FileEntry, ...]:
    """Every file of the release, or the shards of a config or split."""
    if config is None and split is None:
        return manifest.files
    config = config or catalog.DEFAULT_CONFIG
    splits = [split] if split is not None else [*manifest.splits(config)] or [*catalog.SPLITS]
    return tuple(dict.fromkeys(file for name in splits for file in manifest.shards(config, name)))


def _guard(folder: Path, manifest: Manifest, written: bytes) -> bool:
    """Whether this very release's manifest stands here; refuse what belongs to no file of it.

    Raises:
        ForeignFiles: another release, or a file that this one does not have.
    """
    path, named = folder / MANIFEST_NAME, {file.name for file in manifest.files}
    if path.is_file() and path.read_bytes() != written:
        raise ForeignFiles(
            "another release stands here", where=folder, hint="Give another --to, or move that folder away."
        )
    for found in sorted(folder.rglob("*")) if folder.exists() else ():
        name = found.relative_to(folder).as_posix()
        if found.is_file() and name not in named | {MANIFEST_NAME} and name.partition("/")[0] != _CLIENT:
            raise ForeignFiles(
                "the folder holds a file that is not of this release",
                got=name,
                where=folder,
                hint="Give another --to, or move the file away.",
            )
    return path.is_file()


def _is_whole_length(folder: Path, file: FileEntry) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.bytes


def _damaged(folder: Path, files: Sequence[FileEntry], say: Callable[[str], object]) -> list[FileEntry]:
    """Those of the files here whose bytes are not the manifest's."""
    if files:
        say(f"{len(files)} file(s) are here, hashing them")
    with ThreadPoolExecutor(4) as threads:  # hashing releases the GIL
        digests = list(threads.map(lambda file: sha256_file(folder / file.name), files))
    return [file for file, digest in zip(files, digests, strict=True) if digest != file.sha256]


def _fetch(repo_id: str, commit: str, folder: Path, files: Sequence[FileEntry]) -> None:
    """Let the client bring files, then hash them.

    Raises:
        ChecksumMismatch: the bytes are not the manifest's; such files are removed.
        Exception: whatever `huggingface_hub` raises; see `explain_hub_errors`.
    """
    from huggingface_hub import snapshot_download

    needed, free = _sum(files) + SPARE_BYTES, free_bytes(folder)
    if free < needed:
        raise DiskSpaceError(
            "not enough disk for the download",
            expected=f"{size(needed)} free",
            got=size(free),
            where=folder,
            hint="Free some, give another --to, or take a part only (--config, --split).",
        )
    with explain_os_errors(folder):
        for file in files:  # the client trusts its own notes on files that are here
            (folder / file.name).unlink(missing_ok=True)
        names = [file.name for file in files]
        snapshot_download(repo_id, repo_type="dataset", revision=commit, local_dir=folder, allow_patterns=names)
    if absent := [file.name for file in files if not (folder / file.name).is_file()]:
        raise HubUnreachable("the Hub did not give a file that the manifest names", got=absent[0], where=repo_id)
    if damaged := _damaged(folder, files, lambda _line: None):
        for file in damaged:
            (folder / file.name).unlink()
            if (cached := cached_file(repo_id, commit, file.name)) is not None:  # the client copies from there
                cached.resolve().unlink()
                cached.unlink(missing_ok=True)
        raise ChecksumMismatch(
            "a downloaded file is not what the manifest says",
            expected=damaged[0].sha256,
            where=f"{repo_id}: {damaged[0].name}",
            hint="It was removed: run the same command again. If that does not help, tell the maintainers.",
        )
