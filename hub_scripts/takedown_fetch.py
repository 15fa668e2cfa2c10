"""A takedown where the release is not at hand: the touched shards are brought from the Hub, and nothing else of size.

What comes is a part of a release: its manifest, tables and sidecars, and those shards. `manifest.json` is written last,
so a folder without it is fetched on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub_scripts.client import Hub, explain
from hub_scripts.gate import README
from hub_scripts.takedown_rows import going, has_tweets
from t4sa_data.downloading.listing import free_bytes
from t4sa_data.errors import ChecksumMismatch, DiskSpaceError, NotPublished
from t4sa_data.files import explain_os_errors, sha256_file, write_bytes
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, FileEntry, Manifest, parse_manifest
from t4sa_data.reading.local import LocalRelease
from t4sa_data.summary import size

Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a published release, in a folder."""

    repo_id: str
    commit: str
    folder: Path
    manifest: Manifest
    data: bytes
    """The manifest's own."""

    @property
    def release(self) -> LocalRelease:
        """To read its tables."""
        return LocalRelease(self.folder, self.manifest)


def published_readme(directory: Path, fmt: str) -> Path:
    """Where the card that is published is kept, while the folder's own is written anew."""
    return directory / f"{FOLDERS[fmt]}.README.md"


def fetch_tables(hub: Hub, repo_id: str, directory: Path, words: Sequence[str], say: Say) -> Part:
    """Bring all of the current release that is no shard (and the text shards, where a tweet's id is among the words:
    a text layer's digest needs all its rows).

    Raises:
        NotPublished: main holds no release.
        ChecksumMismatch: what came is not what the manifest says.
        HubAccessError, HubUnreachable, DiskSpaceError, OutputError.
    """
    commit = hub.need_state(repo_id).branches["main"]
    data = hub.read(repo_id, MANIFEST_NAME, commit)
    if data is None:
        raise NotPublished("main holds no release", where=repo_id)
    manifest = parse_manifest(data, f"{repo_id}: {MANIFEST_NAME}")
    part = Part(
        repo_id=repo_id, commit=commit, folder=directory / FOLDERS[manifest.format], manifest=manifest, data=data
    )
    with_texts = has_tweets(words)
    wanted = [
        file
        for file in manifest.files
        if file.layer is None or (with_texts and manifest.layers[file.layer].kind == "text")
    ]
    say(f"{repo_id}: {len(wanted)} tables and sidecars, {size(sum(file.bytes for file in wanted))}")
    _fetch(hub, part, wanted)
    return part


def fetch_shards(hub: Hub, part: Part, words: Sequence[str], say: Say) -> None:
    """Bring the shards that hold what goes, then write the manifest.

    Raises:
        ChecksumMismatch, HubAccessError, HubUnreachable, DiskSpaceError, OutputError: the same call goes on.
    """
    for one in going([part.release], words):
        wanted = [file for name in one.touched() if (file := part.manifest.file(name)) and file.layer is not None]
        say(f"{part.repo_id}: {len(wanted)} shard(s), {size(sum(file.bytes for file in wanted))}")
        _fetch(hub, part, wanted)
    readme = published_readme(part.folder.parent, part.manifest.format)
    write_bytes(readme, (part.folder / README).read_bytes())
    write_bytes(part.folder / MANIFEST_NAME, part.data)


def is_fetched(directory: Path, fmt: str) -> bool:
    """Whether a format's part is whole."""
    return (directory / FOLDERS[fmt] / MANIFEST_NAME).is_file()


def forget(directory: Path, formats: Sequence[str]) -> None:
    """Remove the parts, once the Hub holds what was made of them."""
    with explain_os_errors(directory):
        for fmt in formats:
            folder = directory / FOLDERS[fmt]
            (folder / MANIFEST_NAME).unlink(missing_ok=True)
            if folder.is_dir():
                shutil.rmtree(folder)
            published_readme(directory, fmt).unlink(missing_ok=True)


def _fetch(hub: Hub, part: Part, files: Sequence[FileEntry]) -> None:
    from huggingface_hub import hf_hub_download

    needed = [file for file in files if not _is_here(part.folder, file)]
    num_bytes, free = sum(file.bytes for file in needed), free_bytes(part.folder)
    if free < 2 * num_bytes:
        raise DiskSpaceError(
            "not enough disk for the shards and what is made of them",
            expected=f"{size(2 * num_bytes)} free",
            got=size(free),
            where=part.folder,
            hint="Free some, or give another --work.",
        )
    for file in needed:
        with explain(part.repo_id, part.commit), explain_os_errors(part.folder):
            path = Path(
                hf_hub_download(
                    part.repo_id,
                    file.name,
                    repo_type="dataset",
                    revision=part.commit,
                    local_dir=part.folder,
                    token=hub.token,
                    endpoint=hub.endpoint,
                )
            )
        if (found := sha256_file(path)) != file.sha256:
            path.unlink()
            raise ChecksumMismatch(
                "what came is not what the manifest says",
                expected=file.sha256,
                got=found,
                where=f"{part.repo_id}: {file.name}",
                hint="Run the same command again; if it stays so, run `t4sa hub verify`.",
            )
    shutil.rmtree(part.folder / ".cache", ignore_errors=True)  # the client's notes


def _is_here(folder: Path, file: FileEntry) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.bytes and sha256_file(path) == file.sha256
