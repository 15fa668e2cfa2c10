"""A release behind a URL: found, its manifest and tables kept in the cache, its samples read by range."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from urllib.parse import quote

from t4sa_data.errors import NotOnServer, OutputError, ReleaseNotFound, ShardError
from t4sa_data.loading.published import Published, look_up
from t4sa_data.loading.published import known as known_releases
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, FileEntry, Manifest, parse_manifest
from t4sa_data.reading.bringing import Bringing
from t4sa_data.reading.cache import Cache
from t4sa_data.reading.fetching import RemoteSource
from t4sa_data.reading.hub import HubTransport, parse_url
from t4sa_data.reading.kept import KeptRanges
from t4sa_data.reading.pumping import Pump
from t4sa_data.reading.transport import FsspecTransport, HttpTransport, RemoteFile, Transport, require_plain_path
from t4sa_data.shards import TABLE_NAME

MAX_MANIFEST_BYTES = 64 << 20
"""A manifest names some hundred files in 200 bytes each."""
_TABLE_SECONDS = 1800.0
"""Another process may take so long to bring a table of 300 MB."""


class RemoteRelease:
    """A release behind a URL; see `OpenRelease`.

    Args:
        root: URL of its folder; on the Hub at one commit.
        manifest: of it.
        cache: what was fetched, and will be.
        token: for the Hub.
        offline: never open a socket.
    """

    is_remote = True

    def __init__(self, root: str, manifest: Manifest, cache: Cache, *, token: bool | str | None, offline: bool) -> None:
        self.manifest, self.where = manifest, root
        self._cache, self._token, self._offline = cache, token, offline
        # Not counted by other processes: where a limit is given, it holds without them.
        self._kept = KeptRanges(cache.folder / "shards" if cache.limit_bytes is None and not offline else None)

    def __repr__(self) -> str:
        return f"RemoteRelease({self.where!r})"

    def table(self, layer: str) -> Path:
        """A layer's sample table, from the cache.

        Raises:
            ShardError: the layer has none, or it is not in the cache (offline).
            ChecksumMismatch, ServerFault, T4SAError: it did not come.
            OutputError, DiskSpaceError: the cache cannot be written.
        """
        name = f"{layer}/{TABLE_NAME}"
        entry = self.manifest.file(name)
        if entry is None:
            raise ShardError("the layer has no sample table", expected=name, where=self.where)
        if (here := self._cache.find("tables", entry.sha256, entry.bytes)) is not None:
            return here
        if self._offline:
            raise ShardError(
                "a sample table is not in the cache, and offline=True",
                where=f"{self.where}: {name}",
                hint="Open the release once with a connection, or give the cache= where it is.",
            )
        with self._cache.lock(f"table-{entry.sha256}", _TABLE_SECONDS) as is_ours:
            if not is_ours:
                raise OutputError("another process does not let go of a sample table", where=self._cache.folder)
            if (here := self._cache.find("tables", entry.sha256, entry.bytes)) is not None:
                return here
            target = self._cache.path("tables", entry.sha256, entry.bytes)
            target.parent.mkdir(parents=True, exist_ok=True)
            transport = open_transport(self.where, self._token)
            try:
                Bringing(Pump(transport, threading.Event()), _remote_file(name, entry), target).run()
            finally:
                transport.close()
            return target

    def source(self) -> RemoteSource:
        """A new reader of ranges."""
        return RemoteSource(
            open_transport(self.where, self._token),
            self._files(),
            self._cache,
            kept_whole=self._kept_whole(),
            kept=self._kept,
            offline=self._offline,
        )

    def _files(self) -> dict[str, RemoteFile]:
        """Shards by their name in the sample table; those of an in-place release lie beside its folder."""
        made = {}
        for entry in self.manifest.files:
            if entry.layer is not None:
                path = require_plain_path(f"{self.manifest.data_root}/{entry.name}", self.where)
                made[entry.name] = _remote_file(path, entry)
        return made

    def _kept_whole(self) -> frozenset[str]:
        """Shards that are worth a file in the cache: an archive of 63 GB only where the user gave room for it."""
        limit = self._cache.limit_bytes
        if self.manifest.format == "in-place" and limit is None:
            return frozenset()
        return frozenset(
            e.name for e in self.manifest.files if e.layer is not None and (limit is None or e.bytes <= limit)
        )


def _remote_file(path: str, entry: FileEntry) -> RemoteFile:
    return RemoteFile(path, entry.bytes, entry.sha256)


def open_transport(url: str, token: bool | str | None) -> Transport:
    """What asks for files below a URL.

    Raises:
        CredentialsInURL, InsecureTransport, ReleaseNotFound, MissingDependency: a URL that nobody can read.
    """
    if url.startswith(("http://", "https://")):
        return HttpTransport(url)
    if url.startswith("hf://"):
        return HubTransport(url, token)
    return FsspecTransport(url)


def open_remote(url: str, cache: Cache, *, token: bool | str | None = None, offline: bool = False) -> RemoteRelease:
    """Find a release behind a URL.

    Args:
        url: of its folder, or of the folder above.
        cache: of what was fetched.
        token: for the Hub.
        offline: read what is in the cache; then the release is the one that the URL stood for last.

    Raises:
        ReleaseNotFound, ManifestError: no readable release there.
        ReleaseWithdrawn: on the Hub: it was withdrawn; names the successor.
        T4SAError: the server, the network or the cache refuses.
    """
    if url.startswith("hf://") and not offline:
        return _open_published(url, cache, token)
    if offline:
        known = cache.recall(url)
        if known is None:
            raise ReleaseNotFound(
                "this release is not in the cache, and offline=True",
                where=url,
                hint="Open it once with a connection, or give the cache= where it is.",
            )
        root, data = known
        manifest = parse_manifest(data, root)
        if url.startswith("hf://"):
            _last_known(url).check(manifest, data)
        return RemoteRelease(root, manifest, cache, token=token, offline=True)
    root, data = _find(url, token)
    manifest = parse_manifest(data, f"{root}/{MANIFEST_NAME}")
    cache.remember(url, root, data)
    return RemoteRelease(root, manifest, cache, token=token, offline=False)


def _open_published(url: str, cache: Cache, token: bool | str | None) -> RemoteRelease:
    """A release on the Hub, where `releases.json` lets it be read; its line is read as the tag it stands for."""
    repo_id, revision, folder = parse_url(url)
    published = look_up(repo_id, revision, token)
    pinned = f"hf://datasets/{repo_id}@{quote(published.revision, safe='')}{f'/{folder}' if folder else ''}"
    with published.explaining():
        root, data = _find(pinned, token)
    manifest = parse_manifest(data, f"{root}/{MANIFEST_NAME}")
    published.check(manifest, data)
    cache.remember(url, root, data)
    return RemoteRelease(root, manifest, cache, token=token, offline=False)


def _last_known(url: str) -> Published:
    """What the last visit to the Hub brought of a repository's releases."""
    repo_id, revision, _ = parse_url(url)
    return Published(repo_id=repo_id, revision=revision, releases=known_releases(repo_id), was_asked=False)


def _find(url: str, token: bool | str | None) -> tuple[str, bytes]:
    """The folder that holds a manifest of ours: the one named, else one of a release's names below it."""
    missing: Exception | None = None
    for folder in ("", *FOLDERS.values()):
        transport = open_transport(f"{url.rstrip('/')}/{folder}".rstrip("/"), token)
        try:
            data = Pump(transport, threading.Event()).small(MANIFEST_NAME, MAX_MANIFEST_BYTES)
            if _is_ours(data):
                return transport.where.rstrip("/"), data
        except (NotOnServer, ReleaseNotFound) as error:
            missing = error
        finally:
            transport.close()
    raise ReleaseNotFound(
        "no release here",
        expected=f"{MANIFEST_NAME}, or one in {' | '.join(f'{name}/' for name in FOLDERS.values())} below",
        where=url,
        hint="Give the URL of a release's folder, or of the one above.",
    ) from missing


def _is_ours(data: bytes) -> bool:
    """Whether a manifest is one of this package (a damaged one is: it will be said)."""
    try:
        value = json.loads(data)
    except ValueError:
        return True
    return isinstance(value, dict) and value.get("name") in FOLDERS.values()
