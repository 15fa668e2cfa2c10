"""Read a release from its Hub repository: the manifest first, then the files of the wanted splits, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from t4sa_data import places
from t4sa_data.errors import ChecksumMismatch, ConfigUnavailable, HubUnreachable
from t4sa_data.files import sha256_file
from t4sa_data.loading.disk import check_disk
from t4sa_data.loading.hub_errors import explain_hub_errors
from t4sa_data.loading.local import check_file, literal, load_parquet
from t4sa_data.loading.published import look_up
from t4sa_data.loading.request import Request, shards_of
from t4sa_data.manifest import MANIFEST_NAME, FileEntry, Manifest, load_manifest


def load(request: Request, path: str, revision: str) -> Any:
    """Load a config from the Hub.

    Args:
        request: what was asked for.
        path: `t4sa` or `t4sa-wds`.
        revision: branch, tag or commit.

    Raises:
        NotPublished, HubAccessError, UnknownRevision, HubUnreachable: the Hub gives no release.
        ReleaseWithdrawn: it was withdrawn, whatever the cache holds; names the successor.
        ReleaseNotFound: the repository is there, without a manifest.
        UnknownConfig, ConfigUnavailable, DiskSpaceError: as `loading.load_dataset`.
    """
    repo_id = places.repository(path)
    if path != "t4sa":
        raise ConfigUnavailable(
            f"{path} is read from a local release only",
            where="; ".join(f"{place.path}: {place.what}" for place in places.candidates(path) if place.path),
            hint='load_dataset("t4sa") reads the same rows from the Hub; or build the tars: `t4sa prepare RAW`.',
        )
    published = look_up(repo_id, revision, request.token)
    with published.explaining(), explain_hub_errors(repo_id, published.revision):
        manifest, commit = fetch_manifest(repo_id, published.revision, request.token)
        published.check(manifest, Path(str(cached_file(repo_id, commit, MANIFEST_NAME))).read_bytes())
        shards = shards_of(request, manifest)
        entries = list({entry.name: entry for files in shards.values() for entry in files}.values())
        missing = [entry for entry in entries if cached_file(repo_id, commit, entry.name) is None]
        if missing and request.streaming:
            # The builder is named, and every file by its URL at one commit: the README's configs and split sizes,
            # which `datasets` would hold against a load of single splits or with filters, are not asked.
            base = f"hf://datasets/{repo_id}@{commit}"
            urls = {split: [f"{base}/{pattern}" for pattern in patterns(files)] for split, files in shards.items()}
            return load_parquet(request, manifest, shards, urls)
        if missing:
            needed = sum(entry.bytes for entry in missing)
            check_disk(request, manifest, shards, lambda: False, download=needed)
            download(repo_id, commit, missing, request.token)
    # From the client's cache, not by URL: it works offline too, and every byte was checked when it came.
    folder = Path(str(cached_file(repo_id, commit, MANIFEST_NAME))).parent
    for entry in entries:
        check_file(folder / entry.name, entry.bytes)
    paths = {split: [literal(folder / entry.name) for entry in files] for split, files in shards.items()}
    return load_parquet(request, manifest, shards, paths)


def fetch_manifest(repo_id: str, revision: str, token: bool | str | None = None) -> tuple[Manifest, str]:
    """The manifest of a published release, and the commit that the revision stands for.

    Raises:
        ManifestError: it is not readable.
        Exception: whatever `huggingface_hub` raises; see `explain_hub_errors`.
    """
    from huggingface_hub import hf_hub_download

    found = hf_hub_download(repo_id, MANIFEST_NAME, repo_type="dataset", revision=revision, token=token)
    folder = Path(found).parent
    return load_manifest(folder), folder.name


def patterns(entries: list[FileEntry]) -> list[str]:
    """One pattern per run of shards of the same layer and split: one listing on the Hub instead of one per file.

    >>> shard = "b-t4sa/test-{}-of-00002.parquet"
    >>> files = [FileEntry(name=shard.format(f"0000{i}"), bytes=1, sha256="") for i in range(2)]
    >>> patterns(files)
    ['b-t4sa/test-*-of-00002.parquet']
    """
    made = []
    for entry in entries:
        head, _, count = entry.name.rpartition("-of-")
        made.append(f"{head.rpartition('-')[0]}-*-of-{count}")
    return list(dict.fromkeys(made))


def cached_file(repo_id: str, commit: str, name: str) -> Path | None:
    """A file of a repository in the client's cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo_id, name, revision=commit, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def download(repo_id: str, commit: str, entries: Sequence[FileEntry], token: bool | str | None) -> None:
    """Fetch files into the client's cache, which is shared with everything else that uses it, and check their sha256.

    Raises:
        ChecksumMismatch: the bytes are not the manifest's; the file is taken out of the cache again.
        HubUnreachable: some file did not come (offline mode).
        Exception: whatever `huggingface_hub` raises; see `explain_hub_errors`.
    """
    from huggingface_hub import snapshot_download

    names = [entry.name for entry in entries]
    snapshot_download(repo_id, repo_type="dataset", revision=commit, token=token, allow_patterns=names)
    with ThreadPoolExecutor(4) as threads:  # hashing releases the GIL
        list(threads.map(lambda entry: _verify(cached_file(repo_id, commit, entry.name), entry), entries))


def _verify(path: Path | None, entry: FileEntry) -> None:
    if path is None:
        raise HubUnreachable("a file is not in the cache, and the Hub did not give it", where=entry.name)
    found = sha256_file(path)
    if found != entry.sha256:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise ChecksumMismatch(
            "a downloaded file is not what the manifest says",
            expected=entry.sha256,
            got=found,
            where=entry.name,
            hint="It was removed from the cache: load again. If that does not help, tell the maintainers.",
        )
