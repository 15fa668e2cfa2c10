"""Publish a release: never an open door, never a tag that moves, and the same end whatever was killed on the way.

Nothing is remembered here between runs. A run looks at what the Hub holds and does the next step, so a second run after
a kill goes on, and one after the last step does nothing. One repository after the other: each is opened before the next
is filled, as two private copies do not fit a free account.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hub_scripts.client import Hub, RepositoryState, again, explain
from hub_scripts.gate import FORM_NAME, Form, Mode, load_form, open_door
from hub_scripts.plan import branch_of, describe, plan_of, refuse_version, stale_branches
from hub_scripts.rights import load_rights
from hub_scripts.screen import Matcher, screen_release
from hub_scripts.view import Difference, View, differ, views_like, views_of
from t4sa_data import catalog
from t4sa_data.errors import (
    BadOption,
    CheckFailed,
    ChecksumMismatch,
    ForeignFiles,
    HubUnreachable,
    OpenDoor,
    T4SAError,
    VersionTaken,
)
from t4sa_data.manifest import MANIFEST_NAME
from t4sa_data.releases_file import RELEASES_NAME, is_tag

Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Published:
    """One repository as it stands after the run."""

    repo_id: str
    tag: str
    commit: str
    """That the tag stands for."""
    private: bool
    """True only where somebody had closed a repository with releases: it is not opened."""
    gated: str | None


def publish(
    directory: Path | str,
    *,
    namespace: str,
    version: str,
    gate: Mode | None = None,
    form: Form | None = None,
    screen: Matcher | None = None,
    dry_run: bool = False,
    keep_private: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    say: Say = lambda _line: None,
    progress: Callable[[int], object] | None = None,
) -> list[Published]:
    """Publish the releases in a folder to their two repositories, gated.

    Args:
        directory: DIR with `t4sa/`, `t4sa-wds/` (or one of them) and `rights.toml`.
        namespace: account or organisation on the Hub.
        version: X.Y.Z of the data; its tag is never moved.
        gate: how requests are answered; None: by hand (`manual`), or as the repository has it already.
        form: of the gate; None: `gate.toml` beside the release, else the card's own.
        screen: called with (key, bytes) of every image; True is a hit, and stops the publication.
        dry_run: say what would be done and send nothing.
        keep_private: a rehearsal: the gate is set, and nobody can read it all the same.
        endpoint: None: `$HF_ENDPOINT`, else the public Hub.
        token: None: the client's own way (`HF_TOKEN`, `hf auth login`).
        say: gets a line now and then.
        progress: called with the number of bytes checked since the last call.

    Returns:
        What stands now, by repository; nothing with `dry_run`.

    Raises:
        RightsError: no `rights.toml` (a template is written), or it does not cover what is here.
        CheckFailed, ReleaseNotFound, ScreenHit: the release cannot be published.
        VersionTaken: the version is published with other bytes, withdrawn, or lower than another.
        OpenDoor: a repository is public without a gate.
        ForeignFiles: a repository holds somebody else's files.
        ChecksumMismatch: what arrived is not what the manifest says.
        HubAccessError, HubConflict, HubRefused, HubUnreachable: the Hub does not do it.
    """
    directory = Path(directory)
    rights = load_rights(directory)
    if form is None and (directory / FORM_NAME).is_file():
        form = load_form(directory / FORM_NAME)
    _check(directory, say, progress)
    views = views_of(directory, version, rights, form, namespace=namespace)
    if screen is not None:
        screen_release(directory, views[0], screen, say)
    hub = Hub(namespace=namespace, endpoint=endpoint, token=token)
    if dry_run:
        say(describe(hub, [plan_of(hub, view) for view in views]))
        return []
    for view in views:
        if view.left_out:
            say(f"{view.folder.name}: {', '.join(view.left_out)} stays here, it is not ours to give")
    return [again(lambda view=view: _publish_one(hub, view, gate, keep_private, say), say) for view in views]  # type: ignore[misc]


def publish_part(
    directory: Path,
    *,
    namespace: str,
    version: str,
    readme_of: Callable[[str], str],
    endpoint: str | None = None,
    token: str | None = None,
    say: Say = lambda _line: None,
) -> list[Published]:
    """Publish a new version of what is published, from those of its files that are new.

    Args:
        directory: DIR with `t4sa/`, `t4sa-wds/`, each a release but for shards that the Hub holds.
        namespace, version, endpoint, token, say: as for `publish`.
        readme_of: the published card of a format: what it says of the publisher, and the form, stay.

    Raises:
        As `publish`; ReleaseNotFound: a file is neither here nor on the Hub.
    """
    _check(directory, say, None, is_part=True)
    views = views_like(directory, version, readme_of, namespace=namespace)
    hub = Hub(namespace=namespace, endpoint=endpoint, token=token)
    return [again(lambda view=view: _publish_one(hub, view, None, False, say), say) for view in views]  # type: ignore[misc]


def _check(directory: Path, say: Say, progress: Callable[[int], object] | None, *, is_part: bool = False) -> None:
    from t4sa_data.testing import check_release

    report = check_release(directory, is_part=is_part, progress=progress)
    if not report.ok:
        raise CheckFailed(
            f"the release has {len(report.faults)} fault(s)",
            got=report.faults[0],
            where=directory,
            hint=f"See all of them: `t4sa check {directory}`; nothing was sent.",
        )
    say(f"checked: {report.files:,} files, {report.samples:,} samples, no fault")


def _publish_one(hub: Hub, view: View, gate: Mode | None, keep_private: bool, say: Say) -> Published:
    """Bring one repository to its end, from wherever it is."""
    repo_id = hub.repository(view.fmt)
    state = _created(hub, repo_id, say)
    refuse_version(hub, repo_id, view, state)
    commit = state.tags.get(view.tag)
    if commit is None:
        commit = _bring(hub, repo_id, view, state, say)
    _open(hub, repo_id, state, gate, "private" if keep_private else "public", say)
    if view.tag not in state.tags:
        with explain(repo_id):
            hub.api.create_tag(
                repo_id, tag=view.tag, tag_message=f"Release {view.tag}", revision=commit, repo_type="dataset"
            )
        say(f"{repo_id}: tag {view.tag}")
    _record(hub, repo_id, view, say)
    end = hub.need_state(repo_id)
    for branch in stale_branches(end.branches, view.tag):
        with explain(repo_id):
            hub.api.delete_branch(repo_id, branch=branch, repo_type="dataset")
    return Published(
        repo_id=repo_id, tag=view.tag, commit=end.tags.get(view.tag, commit), private=end.private, gated=end.gated
    )


def _created(hub: Hub, repo_id: str, say: Say) -> RepositoryState:
    """The repository, made private where it was not there.

    Raises:
        OpenDoor: it is public without a gate.
    """
    state = hub.state(repo_id)
    if state is None:
        with explain(repo_id):  # where it is there after all (an answer was lost): a conflict, and another look
            hub.api.create_repo(repo_id, private=True, repo_type="dataset")
        say(f"{repo_id}: created, private")
        state = hub.need_state(repo_id)
    if state.is_open:
        raise open_door(repo_id)
    return state


def _bring(hub: Hub, repo_id: str, view: View, state: RepositoryState, say: Say) -> str:
    """Make main the release; the commit. Straight to main while nobody reads it, else by a branch and one commit."""
    head = state.branches["main"]
    difference = differ(view, hub.tree(repo_id, head))
    if difference.is_none:
        return head
    say(f"{repo_id}: {len(view.files)} files; against main, {difference}")
    if state.private and not any(map(is_tag, state.tags)):
        _refuse_foreign(repo_id, view, difference)
        _upload(hub, repo_id, view, "main", difference.to_send, say)
        beyond = differ(view, hub.tree(repo_id, "main")).beyond
        if beyond:  # of an earlier try with another release
            hub.commit(repo_id, f"Release {view.tag}: files that are not of it", delete=beyond)
    else:
        _by_branch(hub, repo_id, view, head, difference, say)
    commit = hub.need_state(repo_id).branches["main"]
    _verify(repo_id, "main", differ(view, hub.tree(repo_id, commit)), view)
    say(f"{repo_id}: sha256 of {len(view.files)} files verified")
    return commit


def _by_branch(hub: Hub, repo_id: str, view: View, head: str, difference: Difference, say: Say) -> None:
    """Fill a branch, verify it, then write what differs into main in one commit without sending it again."""
    branch = branch_of(view.tag)
    with explain(repo_id, branch):
        hub.api.create_branch(repo_id, branch=branch, revision=head, repo_type="dataset", exist_ok=True)
    if (there := differ(view, hub.tree(repo_id, branch))).to_send:
        _upload(hub, repo_id, view, branch, there.to_send, say)
        there = differ(view, hub.tree(repo_id, branch))
    _verify(repo_id, branch, Difference(missing=there.missing, changed=there.changed), view)
    tree = hub.tree(repo_id, branch)
    large = tuple(path for path in difference.to_send if tree[path].sha256 is not None)
    small = {path: view.read(path) for path in difference.to_send if path not in large}
    hub.commit(
        repo_id,
        f"Release {view.tag}",
        files=small,
        copy=large,
        source=branch,
        delete=difference.beyond,
        parent=head,
    )


def _upload(hub: Hub, repo_id: str, view: View, branch: str, names: Sequence[str], say: Say) -> None:
    """Send what is not there yet; the client resumes by what the Hub holds."""
    from huggingface_hub.errors import HfHubHTTPError

    say(f"{repo_id}@{branch}: uploading")
    with view.staged(names) as folder, explain(repo_id, branch):
        try:
            hub.api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                repo_type="dataset",
                revision=branch,
                commit_message=f"Release {view.tag}",
            )
        except (T4SAError, HfHubHTTPError):
            raise
        except (RuntimeError, OSError) as error:  # the transfer's own, around whatever ended it
            with explain(repo_id, branch):
                if error.__cause__ is not None:
                    raise error.__cause__ from error
            raise HubUnreachable(
                "the upload broke off",
                got=type(error).__name__,
                where=f"{repo_id}@{branch}",
                hint="Run the same command again: it goes on where it was.",
            ) from error


def _refuse_foreign(repo_id: str, view: View, difference: Difference) -> None:
    """Raises ForeignFiles where the repository holds what no release of ours could."""
    layers = {layer for config in catalog.CONFIGS.values() for layer in config.layers}
    ours = {MANIFEST_NAME, RELEASES_NAME, *view.documents}
    foreign = [path for path in difference.beyond if path.split("/")[0] not in layers and path not in ours]
    if foreign:
        raise ForeignFiles(
            "the repository holds files that are of no release",
            got=foreign[0],
            where=repo_id,
            hint="Give another --namespace, or delete them there.",
        )


def _verify(repo_id: str, revision: str, difference: Difference, view: View) -> None:
    """Raises ChecksumMismatch where what arrived is not what the manifest says."""
    if not difference.is_none:
        raise ChecksumMismatch(
            "what the Hub holds is not what the manifest says",
            expected=f"{len(view.files)} files of {view.tag}",
            got=difference,
            where=f"{repo_id}@{revision}",
            hint="Nothing was opened or tagged. Run the same command again: it sends those files anew.",
        )


def _open(
    hub: Hub, repo_id: str, state: RepositoryState, gate: Mode | None, door: Literal["public", "private"], say: Say
) -> None:
    """Gate and visibility in one call, the first time; later a gate only where another one is asked for."""
    if state.private and not any(map(is_tag, state.tags)):
        with explain(repo_id):
            hub.api.update_repo_settings(repo_id, gated=gate or "manual", visibility=door, repo_type="dataset")
    elif gate is not None and gate != state.gated:
        with explain(repo_id):
            hub.api.update_repo_settings(repo_id, gated=gate, repo_type="dataset")
    elif state.private:
        say(f"{repo_id}: somebody made it private; it stays so (`t4sa hub gate --open` opens it, gated)")
        return
    else:
        return
    now = hub.need_state(repo_id)
    if now.is_open:
        with explain(repo_id):
            hub.api.update_repo_settings(repo_id, visibility="private", repo_type="dataset")
        raise OpenDoor("the Hub opened the repository without its gate; it is private again", where=repo_id)
    say(f"{repo_id}: {'private' if now.private else 'public'}, gate {now.gated}")


def _record(hub: Hub, repo_id: str, view: View, say: Say) -> None:
    """Write the version into `releases.json` on main, unless it stands there."""
    head = hub.need_state(repo_id).branches["main"]
    known = hub.releases(repo_id)
    digest = view.files[MANIFEST_NAME].sha256
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    try:
        made = known.with_release(view.tag, content_digest=view.content_digest, date=today, manifest_sha256=digest)
    except BadOption as error:
        raise VersionTaken(error.what, got=error.got, where=f"{repo_id}: {RELEASES_NAME}", hint=error.hint) from error
    if made != known:
        hub.commit(repo_id, f"{RELEASES_NAME}: {view.tag}", files={RELEASES_NAME: made.to_json()}, parent=head)
        say(f"{repo_id}: {RELEASES_NAME} says {view.tag}")
