"""The end of a takedown on the Hub: older versions are withdrawn, then nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable

from hub_scripts.client import Hub, explain
from hub_scripts.takedown_note import Note
from hub_scripts.view import BESIDE
from t4sa_data.errors import TakedownRefused, UnknownRevision
from t4sa_data.releases_file import RELEASES_NAME, Removals, is_tag, order_of

Say = Callable[[str], object]


def withdraw(hub: Hub, repo_id: str, tag: str, note: Note, say: Say) -> None:
    """Say in `releases.json` that all older versions are withdrawn, and what was removed in all."""
    head = hub.need_state(repo_id).branches["main"]
    known = made = hub.releases(repo_id)
    for name, entry in known.releases.items():
        if name != tag and (entry.state != "withdrawn" or entry.successor is None):
            made = made.with_withdrawn(name, successor=tag, reason=entry.reason or note.reason)
    every = tuple(sorted({*known.removals.hmac, *note.hmac}))
    if every != known.removals.hmac:
        made = made.with_removals(Removals(count=len(every), hmac=every, updated=note.date))
    if made != known:
        hub.commit(repo_id, f"{RELEASES_NAME}: removals", files={RELEASES_NAME: made.to_json()}, parent=head)
        say(f"{repo_id}: {RELEASES_NAME} withdraws all versions before {tag}; {len(every)} sample(s) removed in all")


def breaks(tag: str, note: Note) -> str:
    """What the deletion breaks, to be confirmed."""
    old = sorted({name for refs in note.old.values() for name in refs if is_tag(name)}, key=order_of)
    return (
        f"Delete {', '.join(old) or 'the old files'} of {', '.join(note.old)} for good: tags, history, and every large "
        f"file that {tag} does not hold. Whoever pinned a tag or commit before {tag}, or works in a clone, must "
        "go over to it. This cannot be undone."
    )


def purge(hub: Hub, repo_id: str, tag: str, say: Say) -> tuple[int, int]:
    """Leave one commit on main, the tag on it, and no large file beside theirs; objects deleted now, and bytes."""
    api, kind = hub.api, "dataset"
    with explain(repo_id):
        if len(list(api.list_repo_commits(repo_id, repo_type=kind))) > 1:
            api.super_squash_history(repo_id, branch="main", commit_message=f"Release {tag}", repo_type=kind)
            say(f"{repo_id}: history of main squashed")
    _free(hub, repo_id, tag, say)
    state = hub.need_state(repo_id)
    with explain(repo_id):  # after the new one: while a tag is there, no run takes the repository for a new one
        for name in (name for name in state.tags if is_tag(name) and name != tag):
            api.delete_tag(repo_id, tag=name, repo_type=kind)
            say(f"{repo_id}: tag {name} deleted")
        for name in (name for name in state.branches if name.startswith("release-")):
            api.delete_branch(repo_id, branch=name, repo_type=kind)
    kept = {file.sha256 for revision in ("main", tag) for file in hub.tree(repo_id, revision).values()}
    with explain(repo_id):
        gone = [one for one in api.list_lfs_files(repo_id, repo_type=kind) if one.oid not in kept]
        if gone:
            api.permanently_delete_lfs_files(repo_id, gone, rewrite_history=True, repo_type=kind)
            say(f"{repo_id}: {len(gone)} large files deleted for good")
    return len(gone), sum(one.size for one in gone)


def _free(hub: Hub, repo_id: str, tag: str, say: Say) -> None:
    """Put the tag on the squashed history: the same files, without the commits behind. Where main has other files by
    now (another form), it stays: the old large files go out of the commits behind it all the same."""
    if tag in hub.need_state(repo_id).tags:
        with explain(repo_id):
            is_free = len(list(hub.api.list_repo_commits(repo_id, revision=tag, repo_type="dataset"))) == 1
        at_tag, at_main = (
            {path: file for path, file in hub.tree(repo_id, revision).items() if path not in BESIDE}
            for revision in (tag, "main")
        )
        if is_free or at_tag != at_main:
            return
        with explain(repo_id):
            hub.api.delete_tag(repo_id, tag=tag, repo_type="dataset")
    with explain(repo_id):
        hub.api.create_tag(repo_id, tag=tag, tag_message=f"Release {tag}", revision="main", repo_type="dataset")
    say(f"{repo_id}: {tag} stands on the squashed history")


def see_gone(hub: Hub, repo_id: str, note: Note) -> None:
    """Raises TakedownRefused where a file that held what goes is still to be had by an old tag or commit."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    names = {name for name in note.old[repo_id] if is_tag(name)}
    for revision in sorted(names | set(note.old[repo_id].values())):
        for path in note.paths.get(repo_id, ()):
            try:
                with explain(repo_id, revision):
                    try:
                        url = hf_hub_url(
                            repo_id, path, repo_type="dataset", revision=revision, endpoint=hub.api.endpoint
                        )
                        get_hf_file_metadata(url, token=hub.token, endpoint=hub.api.endpoint)
                    except RemoteEntryNotFoundError:
                        continue
            except UnknownRevision:
                break
            raise TakedownRefused(
                "the Hub still gives a file that was deleted",
                got=path,
                where=f"{repo_id}@{revision}",
                hint="Run the same command again in an hour; if it stays, write to the Hub's support.",
            )
