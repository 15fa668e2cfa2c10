"""What a repository's `releases.json` says of the release that somebody reads: current, superseded or withdrawn.

The Hub is asked each time, because its client does not say when it falls back to its cache: neither that access was
taken back nor that a release was withdrawn would be seen.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from t4sa_data import places
from t4sa_data.errors import ReleaseWithdrawn, T4SAError, UnknownRevision
from t4sa_data.loading.hub_errors import client_folder, explain_hub_errors, has_copy
from t4sa_data.manifest import Manifest
from t4sa_data.releases_file import RELEASES_NAME, Releases, parse_releases

_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_WAITS_SECONDS = (0.5, 1.5)
"""Before the second and the third try, where the Hub is overloaded."""
_told: set[tuple[str, str]] = set()
"""(what it is about, which list): said once a process."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """A repository, and what is known of its releases."""

    repo_id: str
    revision: str
    """What is to be read: the tag that a release line stands for, else what was asked for."""
    releases: Releases | None
    """None: the repository has no `releases.json`, or it never came to this machine."""
    was_asked: bool
    """Whether the Hub answered now; False: what the cache knows."""
    told: set[tuple[str, str]] = field(default_factory=lambda: _told, repr=False)

    def check(self, manifest: Manifest, data: bytes) -> None:
        """Refuse a release that was withdrawn; say once when images were removed since it was published.

        Args:
            manifest: of what is read.
            data: the bytes of its file.

        Raises:
            ReleaseWithdrawn: names the successor.
        """
        if self.releases is None:
            return
        tag = _tag_of(self.releases, manifest, hashlib.sha256(data).hexdigest())
        if tag is not None:
            self.refuse_withdrawn(tag)
            removed = self.releases.removals
            if tag != self.releases.current and removed.count and removed.updated:
                self._tell(tag, removed.updated, removed.count)

    def refuse_withdrawn(self, tag: str) -> None:
        """Raise `ReleaseWithdrawn` for a tag that was."""
        entry = self.releases.releases.get(tag) if self.releases else None
        if self.releases is None or entry is None or entry.state != "withdrawn":
            return
        successor = self.releases.successor(tag)
        ways = f'Read {successor} in its place (revision="{successor}", or T4SA_REVISION); ' if successor else ""
        raise ReleaseWithdrawn(
            f"release {tag} was withdrawn{'' if successor else ', and none takes its place yet'}",
            got=entry.reason,
            where=f"hf://datasets/{self.repo_id}@{tag}",
            hint=f"{ways}`t4sa removals DIR` shows what must go of copies that are here.",
            successor=successor,
        )

    def _tell(self, tag: str, updated: str, count: int) -> None:
        if (self.repo_id, updated) in self.told:
            return
        self.told.add((self.repo_id, updated))
        current = self.releases.current if self.releases else None
        warnings.warn(
            f"{self.repo_id}: {count} sample(s) were removed from the dataset by {updated}, and {tag} may still hold "
            f"some of them. Read {current}, and run `t4sa removals DIR` where you keep copies.",
            UserWarning,
            stacklevel=2,
        )

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Say of a revision that is gone what is there: tags of withdrawn releases are deleted, old commits too."""
        try:
            yield
        except UnknownRevision as error:
            tags = [] if self.releases is None else self.releases.releases
            listed = [tag for tag in tags if self.releases and self.releases.releases[tag].state != "withdrawn"]
            if not listed:
                raise
            raise UnknownRevision(
                error.what,
                expected=" | ".join(listed),
                got=error.got,
                where=error.where,
                hint="Commits of withdrawn releases are deleted. Leave revision= (and T4SA_REVISION) out for the "
                "release line of this package.",
            ) from error


def _tag_of(releases: Releases, manifest: Manifest, sha256: str) -> str | None:
    """The release that a manifest is of: by its bytes, else by its content."""
    for tag, entry in releases.releases.items():
        if sha256 and entry.manifest_sha256 == sha256:
            return tag
    digests = {name: layer.content_digest for name, layer in manifest.layers.items()}
    same = [tag for tag, entry in releases.releases.items() if _is_part(digests, entry.content_digest)]
    # Equal content under another name (a wrong tag, a rebuilt card): the state that lets it be read wins.
    return min(same, key=lambda tag: releases.releases[tag].state == "withdrawn", default=None)


def _is_part(digests: Mapping[str, str], published: Mapping[str, str]) -> bool:
    """Whether the layers that both hold are equal, and there is one."""
    both = digests.keys() & published.keys()
    return bool(both) and all(digests[name] == published[name] for name in both)


def look_up(repo_id: str, revision: str, token: bool | str | None = None) -> Published:
    """Ask the Hub what a revision stands for, and whether it may be read.

    A release line (`v1`) is its newest release that is not withdrawn; a tag is itself; branches and commits are left as
    they are, and checked when their manifest is here (`Published.check`). Without a connection the cache answers.

    Args:
        repo_id: `NAMESPACE/NAME`.
        revision: release line, branch, tag or commit.
        token: for the Hub; None: as logged in.

    Raises:
        ReleaseWithdrawn: names the successor.
        HubAccessError: no access, whatever the cache holds.
        NotPublished: no such repository.
        ManifestError: a `releases.json` that cannot be read.
    """
    with explain_hub_errors(repo_id, revision):
        releases, was_asked = _releases(repo_id, token)
    if not was_asked:
        _tell_of_cache(repo_id)
    tag = releases.resolve(revision) if releases is not None else None
    found = Published(repo_id=repo_id, revision=tag or revision, releases=releases, was_asked=was_asked)
    if tag is not None:
        found.refuse_withdrawn(tag)
    return found


def _tell_of_cache(repo_id: str) -> None:
    """Say once that the cache is read because there is no connection; in offline mode that is what was asked for."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or not has_copy(repo_id) or (repo_id, "cache") in _told:
        return
    _told.add((repo_id, "cache"))
    warnings.warn(
        f"{repo_id}: the Hub cannot be reached. What is in the cache is read; whether it was withdrawn, or your access "
        "taken back, is not known.",
        UserWarning,
        stacklevel=2,
    )


def _releases(repo_id: str, token: bool | str | None) -> tuple[Releases | None, bool]:
    """`releases.json` on main, and whether the Hub was asked."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError, RevisionNotFoundError

    url = hf_hub_url(repo_id, RELEASES_NAME, repo_type="dataset", revision="main")
    for wait in (*_WAITS_SECONDS, None):
        try:
            if not constants.HF_HUB_OFFLINE:
                get_hf_file_metadata(url, token=token)
                path = hf_hub_download(repo_id, RELEASES_NAME, repo_type="dataset", revision="main", token=token)
                return parse_releases(Path(path).read_bytes(), f"{repo_id}: {RELEASES_NAME}"), True
        except (RemoteEntryNotFoundError, RevisionNotFoundError):
            return None, True
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in _TRANSIENT:
                raise
            if wait is not None:
                time.sleep(wait)
                continue
        except Exception as error:  # every version of the client has another HTTP library beneath
            if not _is_unreachable(error):
                raise
        break
    return known(repo_id), False


def _is_unreachable(error: Exception) -> bool:
    """No connection, a time-out, or offline mode."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "Timeout", "OfflineModeIsEnabled"})


def known(repo_id: str) -> Releases | None:
    """The `releases.json` that came to this machine last; no network, and the client is not imported."""
    folder = client_folder(repo_id)
    try:
        commit = (folder / "refs" / "main").read_text().strip()
        data = (folder / "snapshots" / commit / RELEASES_NAME).read_bytes()
        return parse_releases(data, folder)
    except (OSError, T4SAError):
        return None


def tell_of_local(manifest: Manifest) -> None:
    """Say once of a release on this machine that it was withdrawn, or that samples were removed since.

    No network: what the last visit to the Hub brought. `t4sa removals --apply` leaves a note in the manifest, by which
    a release that went along is known.
    """
    for name in ("t4sa", "t4sa-wds"):
        repo_id = places.repository(name)
        releases = known(repo_id)
        if releases is None or not releases.removals.count or not releases.removals.updated:
            continue
        removed, tag = releases.removals, _tag_of(releases, manifest, "")
        if tag is None or tag == releases.current or applied(manifest) >= str(removed.updated):
            return
        if ("local", str(removed.updated)) not in _told:
            _told.add(("local", str(removed.updated)))
            warnings.warn(
                f"{removed.count} sample(s) were removed from the dataset by {removed.updated}, and this copy is of "
                f"release {tag} ({releases.releases[tag].state}). Run `t4sa removals DIR` on its folder.",
                UserWarning,
                stacklevel=2,
            )
        return


def applied(manifest: Manifest) -> str:
    """Date of the removal list that a release went along with; empty: none."""
    dates = [str(layer.provenance.get("removals", {}).get("updated", "")) for layer in manifest.layers.values()]
    return min(dates, default="")
