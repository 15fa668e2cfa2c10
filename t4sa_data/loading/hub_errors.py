"""What the Hub's client raises, as named errors that say what state access is in and where to go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t4sa_data.errors import (
    HubAccessError,
    HubUnreachable,
    NotPublished,
    ReleaseNotFound,
    T4SAError,
    UnknownRevision,
)
from t4sa_data.loading.failures import causes
from t4sa_data.manifest import MANIFEST_NAME

LOCAL_WAYS = (
    "With the official site's user name and password, `t4sa get` downloads the files and builds a release of them (of "
    "files that are here: `t4sa prepare RAW`). Or set T4SA_HOME to the folder that holds a release (`t4sa where` shows "
    "what was looked at)"
)


def client_cache() -> Path:
    """The Hub client's cache of repositories, without importing it: `$HF_HUB_CACHE`, else `$HF_HOME/hub`."""
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def client_folder(repo_id: str) -> Path:
    """Where the client keeps what it fetched of a dataset repository."""
    return client_cache() / f"datasets--{repo_id.replace('/', '--')}"


def has_copy(repo_id: str) -> bool:
    """Whether files of a repository came to this machine before, through the client."""
    try:
        return any((client_folder(repo_id) / "snapshots").iterdir())
    except OSError:
        return False


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


def page(repo_id: str) -> str:
    """The repository's page, where access is asked for."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{repo_id}"


def _gated(error: BaseException, status: int | None, repo_id: str, where: str) -> HubAccessError:
    """Not logged in, never asked, waiting, rejected, or no longer let in; the Hub's own words tell the last four."""
    response: Any = getattr(error, "response", None)
    words = str((response.headers.get("X-Error-Message") if response is not None else None) or error).lower()
    kept = (
        " Files of it are in this machine's cache from an earlier load: they are not read, and where access was taken "
        f"back they must be deleted (`hf cache rm dataset/{repo_id}`)."
        if has_copy(repo_id)
        else ""
    )
    if status != 403:
        what = "this repository is gated, and you are not logged in"
        hint = f"Ask for access on {page(repo_id)}, then log in with `hf auth login` (or set HF_TOKEN)."
    elif "awaiting" in words or "pending" in words:
        what = "your request for access waits for the maintainers' answer"
        hint = f"Nothing to do until then; its state stands on {page(repo_id)}."
    elif "rejected" in words:
        what = "your request for access was rejected"
        hint = "It cannot be made again: write to the maintainers (the dataset's card names a contact)."
    elif kept:
        what = "your account has no access to this repository any more (or this token is another account's)"
        hint = f"`hf auth whoami` shows the account; the state of your access stands on {page(repo_id)}."
    else:
        what = "your account has no access to this repository (yet)"
        hint = f"Ask for access on {page(repo_id)}; if you did, wait for the maintainers' answer."
    return HubAccessError(what, got=f"HTTP {status}", where=where, hint=hint + kept)


def _named(error: BaseException, repo_id: str, revision: str) -> T4SAError | None:
    """The named error for one of the client's, or None."""
    from huggingface_hub import errors as hub

    where = f"hf://datasets/{repo_id}@{revision}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    # From the most special class to the least: a gated repository is a missing one to the client's class tree.
    if isinstance(error, hub.GatedRepoError):
        return _gated(error, status, repo_id, where)
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
            hint=f"{LOCAL_WAYS}, or T4SA_NAMESPACE to the account that publishes it; if it is private, log in with "
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
            hint=f"{LOCAL_WAYS}, or connect and try again.",
        )
    if isinstance(error, hub.RemoteEntryNotFoundError):
        return ReleaseNotFound(
            "the repository holds no release", expected=MANIFEST_NAME, where=where, hint=f"{LOCAL_WAYS}."
        )
    if status == 403 and _is_of_store(error):
        return HubUnreachable(
            "a signed address of the Hub's store has expired",
            got="HTTP 403",
            where=where,
            hint="Try again: files that came whole are kept.",
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


def _is_of_store(error: BaseException) -> bool:
    """Whether the object store behind the Hub refused, which knows signatures and no tokens; it answers in XML."""
    response: Any = getattr(error, "response", None)
    return response is not None and "xml" in response.headers.get("Content-Type", "")


def _is_cut(error: BaseException) -> bool:
    """A connection that was cut, or a body of another size than announced, as the client's HTTP library says it."""
    kinds = [(kind.__name__, kind.__module__.partition(".")[0]) for kind in type(error).__mro__]
    by_library = any(name == "TransportError" and module in ("httpx", "httpx2") for name, module in kinds)
    return by_library or (isinstance(error, OSError) and "Consistency check failed" in str(error))
