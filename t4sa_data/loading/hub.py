"""Read a release from its Hub repository: the manifest first, then the files of the wanted splits, nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t4sa_data import places
from t4sa_data.errors import (
    ChecksumMismatch,
    ConfigUnavailable,
    HubAccessError,
    HubUnreachable,
    NotPublished,
    ReleaseNotFound,
    T4SAError,
    UnknownRevision,
)
from t4sa_data.files import sha256_file
from t4sa_data.loading.disk import check_disk
from t4sa_data.loading.failures import causes
from t4sa_data.loading.local import check_file, literal, load_parquet
from t4sa_data.loading.request import Request, shards_of
from t4sa_data.manifest import MANIFEST_NAME, FileEntry, Manifest, load_manifest

_LOCAL_WAYS = (
    "With the official site's user name and password, `t4sa get` downloads the files and builds a release of them (of "
    "files that are here: `t4sa prepare RAW`). Or set T4SA_HOME to the folder that holds a release (`t4sa where` shows "
    "what was looked at)"
)


def load(request: Request, path: str, revision: str) -> Any:
    """Load a config from the Hub.

    Args:
        request: what was asked for.
        path: `t4sa` or `t4sa-wds`.
        revision: branch, tag or commit.

    Raises:
        NotPublished, HubAccessError, UnknownRevision, HubUnreachable: the Hub gives no release.
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
    with explain_hub_errors(repo_id, revision):
        manifest, commit = fetch_manifest(repo_id, revision, request.token)
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


@contextmanager
def explain_hub_errors(repo_id: str, revision: str) -> Iterator[None]:
    """Turn what the Hub's client raises, or `datasets` wraps around it, into named errors; no token is ever printed.

    Raises:
        HubAccessError, NotPublished, UnknownRevision, HubUnreachable, ReleaseNotFound: see there.
    """
    try:
        yield
    except T4SAError:
        raise
    except Exception as error:
        for cause in causes(error):
            if (named := _named(cause, repo_id, revision)) is not None:
                raise named from error
        raise


def _named(error: BaseException, repo_id: str, revision: str) -> T4SAError | None:
    """The named error for one of the client's, or None."""
    from huggingface_hub import errors as hub

    where = f"hf://datasets/{repo_id}@{revision}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    # From the most special class to the least: a gated repository is a missing one to the client's class tree.
    if isinstance(error, hub.GatedRepoError) and status == 403:
        return HubAccessError(
            "your account has no access to this repository (yet)",
            got="HTTP 403",
            where=where,
            hint="Ask for access on the dataset's page; if you did, wait for the maintainers' answer.",
        )
    if isinstance(error, hub.GatedRepoError):
        return HubAccessError(
            "this repository is gated, and you are not logged in",
            got=f"HTTP {status}",
            where=where,
            hint="Ask for access on the dataset's page, then log in with `hf auth login` (or set HF_TOKEN).",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return UnknownRevision(
            "the repository has no such revision",
            got=revision,
            where=where,
            hint="Leave revision= (and T4SA_REVISION) out for the release line of this package, or upgrade t4sa-data.",
        )
    if isinstance(error, hub.RepositoryNotFoundError):
        return NotPublished(
            "no release on this machine, and no repository on the Hub (not published, or private)",
            where=where,
            hint=f"{_LOCAL_WAYS}, or T4SA_NAMESPACE to the account that publishes it; if it is private, log in with "
            "`hf auth login`.",
        )
    if isinstance(error, hub.LocalTokenNotFoundError):
        return HubAccessError(
            "a token was asked for, and there is none",
            where=where,
            hint="Log in with `hf auth login`, or set HF_TOKEN.",
        )
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled | ConnectionError):
        return HubUnreachable(
            "no release on this machine, and the Hub cannot be reached (or offline mode is on)",
            got=type(error).__name__,
            where=where,
            hint=f"{_LOCAL_WAYS}, or connect and try again.",
        )
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return ReleaseNotFound(
            "the repository holds no release", expected=MANIFEST_NAME, where=where, hint=f"{_LOCAL_WAYS}."
        )
    if isinstance(error, hub.HfHubHTTPError) and status in (401, 403):
        return HubAccessError(
            "the Hub does not take your token",
            got=f"HTTP {status}",
            where=where,
            hint="Log in again with `hf auth login`, or mend HF_TOKEN.",
        )
    if _is_cut(error) or (isinstance(error, hub.HfHubHTTPError) and status is not None and status >= 429):
        return HubUnreachable(
            "the transfer from the Hub broke off, the client's own retries included",
            got=f"HTTP {status}" if status else type(error).__name__,
            where=where,
            hint="Try again later: files that came whole are kept.",
        )
    return None


def _is_cut(error: BaseException) -> bool:
    """A connection that was cut, or a body of another size than announced, as the client's HTTP library says it."""
    kinds = [(kind.__name__, kind.__module__.partition(".")[0]) for kind in type(error).__mro__]
    by_library = any(name == "TransportError" and module in ("httpx", "httpx2") for name, module in kinds)
    return by_library or (isinstance(error, OSError) and "Consistency check failed" in str(error))
