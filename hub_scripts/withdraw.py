"""Leave nothing of the versions before one: what a takedown does at its end, without samples to take out. For a file
that should never have been published, once a version without it is there.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hub_scripts.client import Hub, RepositoryState, again, explain
from hub_scripts.gate import CROISSANT, README
from hub_scripts.takedown_note import Note
from hub_scripts.takedown_purge import breaks, purge, see_gone
from hub_scripts.takedown_purge import withdraw as write_withdrawn
from hub_scripts.view import BESIDE, FORMATS
from hub_scripts.withdraw_cli import REASON, withdraw_command
from t4sa_data.errors import NotPublished, TakedownRefused
from t4sa_data.manifest import MANIFEST_NAME
from t4sa_data.releases_file import is_tag, tag_of

__all__ = ["Withdrawn", "withdraw", "withdraw_command"]

Say = Callable[[str], object]
DOCUMENTS = (README, CROISSANT, MANIFEST_NAME)


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """One repository after the run."""

    repo_id: str
    tag: str
    """Of the version that stays."""
    objects: int
    """Large files deleted for good in this run."""
    bytes: int
    """Of these."""
    is_done: bool
    """Whether nothing of the older versions is left; False: it was not confirmed."""


def withdraw(
    *,
    namespace: str,
    version: str,
    confirm: Callable[[str], bool],
    reason: str = REASON,
    dry_run: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    say: Say = lambda _line: None,
) -> list[Withdrawn]:
    """Withdraw all versions before one, and delete them for good: tags, history, large files.

    Killed, the same call goes on; it cannot look any more whether commits that it does not find are gone. A small file,
    which git keeps itself, can stay readable at an old commit: that is told, and only the Hub's people can end it.

    Args:
        namespace: account or organisation on the Hub.
        version: X.Y.Z of the one that stays; it must be the current one.
        confirm: asked before anything is deleted; False: the older versions are withdrawn, and still there.
        reason: told to readers of the older versions.
        dry_run: say what would go and change nothing.
        endpoint, token, say: as for `publish`.

    Raises:
        TakedownRefused: the version is not the current one, or there is a DOI; the Hub still gives what was deleted.
        NotPublished, HubAccessError, HubConflict, HubRefused, HubUnreachable: the Hub does not do it.
    """
    tag, hub = tag_of(version), Hub(namespace=namespace, endpoint=endpoint, token=token)
    states = again(lambda: _look(hub, tag), say)
    old = {repo_id: again(lambda repo_id=repo_id: _before(hub, repo_id, tag), say) for repo_id in states}  # type: ignore[misc]
    note = Note(
        asked="",
        reason=reason,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        hmac=(),
        lines=(),
        old=old,
        paths={repo_id: again(lambda repo_id=repo_id: _paths(hub, repo_id, tag, old[repo_id]), say) for repo_id in old},  # type: ignore[misc]
    )
    for repo_id, paths in note.paths.items():
        names = f": {', '.join(paths[:3])}" if paths else ""
        tags = ", ".join(filter(is_tag, old[repo_id])) or "no older tag"
        say(f"{repo_id}: before {tag}: {tags}; {len(paths)} file(s) that it does not hold{names}")
    if dry_run:
        return []
    for repo_id in states:
        again(lambda repo_id=repo_id: write_withdrawn(hub, repo_id, tag, note, say), say)  # type: ignore[misc]
    done, is_done = dict.fromkeys(states, (0, 0)), confirm(breaks(tag, note))
    for repo_id in states if is_done else ():
        done[repo_id] = again(lambda repo_id=repo_id: purge(hub, repo_id, tag, say), say)  # type: ignore[misc]
    for repo_id in states if is_done else ():
        again(lambda repo_id=repo_id: _see_gone(hub, repo_id, note), say)  # type: ignore[misc]
        say(f"{repo_id}: the old addresses answer 404")
    return [
        Withdrawn(repo_id=name, tag=tag, objects=number, bytes=size, is_done=is_done)
        for name, (number, size) in done.items()
    ]


def _look(hub: Hub, tag: str) -> dict[str, RepositoryState]:
    """The repositories that are there. Raises TakedownRefused where one has another current version, or a DOI."""
    states = {}
    for repo_id in map(hub.repository, FORMATS):
        if (state := hub.state(repo_id)) is None:
            continue
        current = hub.releases(repo_id).current
        if tag not in state.tags or current != tag:
            raise TakedownRefused(
                "only versions before the current one can be withdrawn",
                expected=current,
                got=tag,
                where=repo_id,
                hint="Publish a version without what must go, then give it here.",
            )
        with explain(repo_id):
            info = hub.api.dataset_info(repo_id)
        if doi := next((name for name in info.tags or () if name.startswith("doi:")), None):
            raise TakedownRefused("a DOI of the Hub forbids deletion", got=doi, where=repo_id)
        states[repo_id] = state
    if not states:
        raise NotPublished("nothing is published there", where=hub.namespace, hint="See --namespace.")
    return states


def _before(hub: Hub, repo_id: str, tag: str) -> dict[str, str]:
    """Tag or commit of main -> commit, of all that was there before a version and after it."""
    state = hub.need_state(repo_id)
    with explain(repo_id):
        commits = [one.commit_id for one in hub.api.list_repo_commits(repo_id, repo_type="dataset")]
    kept = (state.tags[tag], state.branches["main"])
    tags = {name: at for name, at in state.tags.items() if name != tag}
    return tags | {commit: commit for commit in commits if commit not in kept}


def _paths(hub: Hub, repo_id: str, tag: str, old: Mapping[str, str]) -> tuple[str, ...]:
    """Files of older commits whose bytes the version that stays does not hold; its documents, which differ in each, and
    `releases.json` are passed over."""
    kept = hub.tree(repo_id, tag)
    blobs, passed = {file.blob for file in kept.values()}, {*BESIDE, *DOCUMENTS}
    trees = [hub.tree(repo_id, commit) for commit in sorted(set(old.values()))]
    return tuple(sorted({p for tree in trees for p, file in tree.items() if file.blob not in blobs} - passed))


def _see_gone(hub: Hub, repo_id: str, note: Note) -> None:
    try:
        see_gone(hub, repo_id, note)
    except TakedownRefused as error:
        raise TakedownRefused(
            error.what,
            got=error.got,
            where=error.where,
            hint="Keep the repository closed, look there again in an hour; if it stays, write to the Hub's support.",
        ) from error
