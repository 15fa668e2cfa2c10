"""The Hub as its maintainers use it: `huggingface_hub`'s own API for the two repositories of a namespace, its errors
turned into ours. Nothing here prints, logs or keeps a token.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from t4sa_data import catalog
from t4sa_data.errors import (
    HubAccessError,
    HubConflict,
    HubError,
    HubRefused,
    HubUnreachable,
    NotPublished,
    T4SAError,
    UnknownRevision,
)
from t4sa_data.loading.failures import causes
from t4sa_data.releases_file import RELEASES_NAME, Releases, parse_releases

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ATTEMPTS = 4
"""Times that work is done again from the start after a fault that may pass."""
BACKOFF_SECONDS = 1.0
"""Wait before the second attempt; doubled each time."""
_LOGIN = "Log in with `hf auth login` (a token with write access), or set HF_TOKEN."
_AGAIN = "Run the same command again: it goes on where it was."
Result = TypeVar("Result")
_NAMES: ContextVar[Mapping[str, str]] = ContextVar("names", default=catalog.HUB_REPOSITORIES)


@contextmanager
def repositories_named(names: Mapping[str, str]) -> Iterator[None]:
    """Let every `Hub` work on repositories of other names, by format: for a rehearsal."""
    before = _NAMES.set(names)
    try:
        yield
    finally:
        _NAMES.reset(before)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a repository at one revision."""

    bytes: int
    sha256: str | None
    """Of a file in LFS or Xet; None for a small one that git keeps itself."""
    blob: str
    """Git's sha1 of it (of its pointer, in LFS)."""


@dataclass(frozen=True, kw_only=True)
class RepositoryState:
    """What stands at a repository's address."""

    private: bool
    gated: str | None
    """`manual`, `auto`, or None: not gated."""
    tags: dict[str, str]
    """Tag -> commit."""
    branches: dict[str, str]
    """Branch -> commit."""

    @property
    def is_open(self) -> bool:
        """Whether everybody reads every file: public, and no gate."""
        return not self.private and self.gated is None


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A namespace of the Hub, seen with one token."""

    namespace: str
    endpoint: str | None = None
    """None: `$HF_ENDPOINT`, else the public Hub."""
    token: str | None = field(default=None, repr=False)
    """None: the client's own way (HF_TOKEN, `hf auth login`)."""

    @cached_property
    def api(self) -> HfApi:
        """The client."""
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token)

    def repository(self, fmt: str) -> str:
        """`NAMESPACE/NAME` of a format's repository (`parquet` or `wds`)."""
        return f"{self.namespace}/{_NAMES.get()[fmt]}"

    def state(self, repo_id: str) -> RepositoryState | None:
        """What stands at an address; None: nothing, or nothing that this account may see."""
        with explain(repo_id):
            try:
                info = self.api.dataset_info(repo_id)
                refs = self.api.list_repo_refs(repo_id, repo_type="dataset")
            except Exception as error:
                if _is_missing(error):
                    return None
                raise
        return RepositoryState(
            private=bool(info.private),
            gated=str(info.gated) if info.gated else None,
            tags={ref.name: str(ref.target_commit) for ref in refs.tags},
            branches={ref.name: str(ref.target_commit) for ref in refs.branches},
        )

    def need_state(self, repo_id: str) -> RepositoryState:
        """As `state`.

        Raises:
            NotPublished: there is nothing.
        """
        state = self.state(repo_id)
        if state is None:
            raise NotPublished(
                "no such repository, or not for this account",
                where=repo_id,
                hint="See --namespace; publish with `t4sa hub publish`. " + _LOGIN,
            )
        return state

    def tree(self, repo_id: str, revision: str) -> dict[str, RemoteFile]:
        """Every file at a revision, by path; nothing is downloaded."""
        from huggingface_hub import RepoFile

        with explain(repo_id, revision):
            found = self.api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type="dataset")
            return {
                one.path: RemoteFile(bytes=one.size, sha256=one.lfs.sha256 if one.lfs else None, blob=one.blob_id)
                for one in found
                if isinstance(one, RepoFile)
            }

    def read(self, repo_id: str, path: str, revision: str) -> bytes | None:
        """The bytes of a small file, from the Hub and not from a cache; None: there is none."""
        from huggingface_hub import hf_hub_download

        with TemporaryDirectory(prefix="t4sa-hub-") as folder, explain(repo_id, revision):
            try:
                found = hf_hub_download(
                    repo_id,
                    path,
                    repo_type="dataset",
                    revision=revision,
                    local_dir=folder,
                    token=self.token,
                    endpoint=self.endpoint,
                )
            except Exception as error:
                if _is_missing(error, entry=True):
                    return None
                raise
            return Path(found).read_bytes()

    def releases(self, repo_id: str) -> Releases:
        """`releases.json` on main; empty where there is none."""
        data = self.read(repo_id, RELEASES_NAME, "main")
        return Releases() if data is None else parse_releases(data, f"{repo_id}: {RELEASES_NAME}")

    def commit(
        self,
        repo_id: str,
        message: str,
        *,
        files: dict[str, bytes] | None = None,
        delete: tuple[str, ...] = (),
        copy: tuple[str, ...] = (),
        source: str | None = None,
        parent: str | None = None,
        branch: str = "main",
    ) -> str:
        """One commit; its id.

        Args:
            repo_id: of the dataset repository.
            message: its title.
            files: path -> bytes to write.
            delete: paths to delete.
            copy: paths of files in LFS or Xet that are taken from revision `source`: no bytes are sent.
            source: see there.
            parent: commit that the branch must stand at.
            branch: that gets it.

        Raises:
            HubConflict: the branch stands elsewhere.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        operations: list[Any] = [CommitOperationDelete(path_in_repo=path) for path in delete]
        operations += [CommitOperationCopy(path, path, src_revision=source) for path in copy]
        operations += [CommitOperationAdd(path, data) for path, data in (files or {}).items()]
        with explain(repo_id, branch):
            done = self.api.create_commit(
                repo_id,
                operations,
                commit_message=message,
                repo_type="dataset",
                revision=branch,
                parent_commit=parent,
            )
        return str(done.oid)


def again(work: Callable[[], Result], say: Callable[[str], object], attempts: int = ATTEMPTS) -> Result:
    """Do work that may be done again from its start, until it is done or a fault is none that passes.

    Raises:
        T4SAError: the fault; after `attempts` times one that may pass.
    """
    for attempt in range(1, attempts + 1):
        try:
            return work()
        except (HubUnreachable, HubConflict) as error:
            if attempt == attempts:
                raise
            wait = BACKOFF_SECONDS * 2 ** (attempt - 1)
            say(f"{error.what} ({error.got}); again in {wait:.0f} s")
            time.sleep(wait)
    raise AssertionError("unreachable")


@contextmanager
def explain(repo_id: str, revision: str | None = None, *, kind: str = "dataset") -> Iterator[None]:
    """Turn what the Hub's client raises into named errors, without a token or a signed URL in them.

    `kind` of repository: `dataset` or `model`.

    Raises:
        HubAccessError, HubConflict, HubRefused, HubUnreachable, NotPublished, UnknownRevision: see there.
    """
    where = f"hf://{'datasets/' if kind == 'dataset' else ''}{repo_id}" + (f"@{revision}" if revision else "")
    try:
        yield
    except T4SAError:
        raise
    except Exception as error:
        for cause in causes(error):
            if (named := _named(cause, where)) is not None:
                raise named from error
        raise


def _named(error: BaseException, where: str) -> HubError | None:
    from huggingface_hub import errors as hub

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.LocalTokenNotFoundError):
        return HubAccessError("a token is needed, and there is none", where=where, hint=_LOGIN)
    if isinstance(error, hub.RevisionNotFoundError):
        return UnknownRevision("the repository has no such revision", where=where)
    if isinstance(error, hub.HfHubHTTPError) and status is not None:
        return _by_status(error, int(status), where)
    if isinstance(error, ValueError) and "Invalid metadata" in str(error):
        return HubRefused("the Hub does not take the card", got=str(error).splitlines()[0], where=where)
    if isinstance(error, json.JSONDecodeError | KeyError):
        return HubUnreachable("an answer of the Hub lacks a part", got=type(error).__name__, where=where, hint=_AGAIN)
    kinds = [(kind.__name__, kind.__module__.partition(".")[0]) for kind in type(error).__mro__]
    is_cut = any(name in ("TransportError", "HTTPStatusError") and lib in ("httpx", "httpx2") for name, lib in kinds)
    if is_cut and status is not None and int(status) < 500 and int(status) != 429:
        return _by_status(error, int(status), where)
    if is_cut or isinstance(error, hub.OfflineModeIsEnabled | hub.LocalEntryNotFoundError | ConnectionError):
        return HubUnreachable(
            "no connection to the Hub, or it was cut",
            got=type(error).__name__,
            where=where,
            hint=_AGAIN,
        )
    return None


def _by_status(error: BaseException, status: int, where: str) -> HubError:
    from huggingface_hub import errors as hub

    said = _said(error)
    if isinstance(error, hub.RepositoryNotFoundError) and not isinstance(error, hub.GatedRepoError):
        return NotPublished("no such repository, or not for this account", where=where, hint=_LOGIN)
    kind = error.response.headers.get("Content-Type", "") if isinstance(error, hub.HfHubHTTPError) else ""
    if status == 403 and "xml" in kind:  # the object store's, not the Hub's
        return HubUnreachable("a signed address of the store has expired", got=said, where=where, hint=_AGAIN)
    if status == 402 or (status == 403 and re.search(r"storage|quota|limit", said, re.IGNORECASE)):
        return HubRefused(
            "the namespace's storage is full",
            got=said,
            where=where,
            hint="`--dry-run` says what is needed; free some, or ask for more.",
        )
    if status == 401:
        return HubAccessError("the Hub does not take your token, or there is none", got=said, where=where, hint=_LOGIN)
    if status == 403:
        return HubAccessError(
            "this account may not do that",
            got=said,
            where=where,
            hint="A maintainer's account is needed, with a token that may write.",
        )
    if status in (409, 412):
        return HubConflict(
            "somebody else changed the repository at the same time",
            got=said,
            where=where,
            hint="Run the same command again.",
        )
    if status == 408 or status == 429 or status >= 500:
        return HubUnreachable(
            "the Hub failed",
            got=said,
            where=where,
            hint=_AGAIN,
        )
    return HubRefused("the Hub does not take the request", got=said, where=where)


def _said(error: BaseException) -> str:
    """Status and the Hub's own words, without addresses (they can be signed) and without anything like a token."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    words = re.sub(r"https?://\S+|hf_\w+", "...", str(getattr(error, "server_message", None) or ""))
    return f"HTTP {status}" + (f" ({words[:200]})" if words else "")


def _is_missing(error: Exception, *, entry: bool = False) -> bool:
    from huggingface_hub import errors as hub

    if entry and isinstance(error, hub.RemoteEntryNotFoundError):
        return True
    return not entry and isinstance(error, hub.RepositoryNotFoundError) and not isinstance(error, hub.GatedRepoError)
