"""Take samples out of everything that was published: a new version without them, then nothing of the old ones is left.

A run looks at what is there and does the next step, so one after a kill goes on. What it could not see any more after
its first step stands in a note beside the release (`hub_scripts.takedown_note`).
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hub_scripts import takedown_fetch, takedown_note
from hub_scripts.client import Hub, RepositoryState, again, explain
from hub_scripts.publish import publish, publish_part
from hub_scripts.rights import load_rights
from hub_scripts.takedown_cli import takedown_command
from hub_scripts.takedown_note import Note
from hub_scripts.takedown_purge import breaks, purge, see_gone, withdraw
from hub_scripts.takedown_rows import Going, difference, going, read_words, samples
from hub_scripts.view import FORMATS
from t4sa_data import rewriting
from t4sa_data.errors import BadOption, NotPublished, TakedownRefused, VersionTaken
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, load_manifest
from t4sa_data.reading.local import LocalRelease
from t4sa_data.releases_file import is_tag, order_of, tag_of

__all__ = ["TakenDown", "takedown", "takedown_command"]

REASON = "Samples were removed from the dataset."
Say = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class TakenDown:
    """One repository after the run."""

    repo_id: str
    tag: str
    """Of the version without the samples."""
    count: int
    """Samples removed now."""
    objects: int
    """Large files deleted for good in this run."""
    bytes: int
    """Of these."""
    is_done: bool
    """Whether nothing of the old versions is left; False: it was not confirmed."""


def takedown(
    ids: Sequence[str] | Path,
    *,
    namespace: str,
    version: str,
    confirm: Callable[[str], bool],
    release: Path | str | None = None,
    work: Path | str | None = None,
    reason: str = REASON,
    dry_run: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    say: Say = lambda _line: None,
) -> list[TakenDown]:
    """Remove samples from a published dataset, in both formats and in every version.

    Args:
        ids: tweet ids, keys, `group:KEY` for all near-duplicates of one; or a file with one a line.
        namespace: account or organisation on the Hub.
        version: X.Y.Z of what results; higher than all that is published.
        confirm: asked before the old versions are deleted; False: they stay, and the same call goes on later.
        release: DIR with `t4sa/`, `t4sa-wds/` and `rights.toml`, as published; it is rewritten. None: tables and the
            shards touched come from the Hub.
        work: folder for these, until the new version is published; None: `takedown-vX.Y.Z` where the command runs.
        reason: told to readers of the old versions. No word about who asked.
        dry_run: say what would go and change nothing.
        endpoint: None: `$HF_ENDPOINT`, else the public Hub.
        token: None: the client's own way.
        say: gets a line now and then.

    Returns:
        By repository; nothing with `dry_run`.

    Raises:
        TakedownRefused: a DOI, a format that is published and not in `release`, another list under this version.
        BadOption: an id is none, or none of them is in the release.
        VersionTaken, RightsError, CheckFailed and the others of `publish`.
        NotPublished, HubAccessError, HubConflict, HubRefused, HubUnreachable: the Hub does not do it.
    """
    tag, words = tag_of(version), read_words(ids)
    directory = Path(release) if release is not None else Path(work or f"takedown-{tag}")
    if release is not None:
        load_rights(directory)
    hub = Hub(namespace=namespace, endpoint=endpoint, token=token)
    run = _Run(hub, directory, tag, words, release is None, say)
    note = run.noted(reason, dry_run)
    for line in note.lines:
        say(line)
    if dry_run:
        return []
    run.publish(note)
    for repo_id in run.states:
        again(lambda repo_id=repo_id: withdraw(hub, repo_id, tag, note, say), say)  # type: ignore[misc]
    done = dict.fromkeys(run.states, (0, 0))
    is_done = confirm(breaks(tag, note))
    if is_done:
        for repo_id in run.states:
            done[repo_id] = again(lambda repo_id=repo_id: purge(hub, repo_id, tag, say), say)  # type: ignore[misc]
        for repo_id in run.states:
            again(lambda repo_id=repo_id: see_gone(hub, repo_id, note), say)  # type: ignore[misc]
            say(f"{repo_id}: the old addresses answer 404")
    return [
        TakenDown(repo_id=name, tag=tag, count=len(note.hmac), objects=number, bytes=num_bytes, is_done=is_done)
        for name, (number, num_bytes) in done.items()
    ]


class _Run:
    """One run: the repositories as they stood at its start, and the folder it works in.

    Args:
        hub: the namespace.
        directory: of the release, or of the parts of it that are fetched.
        tag: of what results.
        words: what goes.
        is_part: whether the release comes from the Hub.
        say: gets a line now and then.
    """

    def __init__(self, hub: Hub, directory: Path, tag: str, words: list[str], is_part: bool, say: Say) -> None:
        self.hub, self.directory, self.tag, self.words, self.is_part, self.say = (
            hub,
            directory,
            tag,
            words,
            is_part,
            say,
        )
        self.states = again(self._look, say)

    def _look(self) -> dict[str, RepositoryState]:
        """The repositories that are there. Raises TakedownRefused under a DOI, or for a format that is not here."""
        states = {}
        for fmt in FORMATS:
            repo_id, folder = self.hub.repository(fmt), self.directory / FOLDERS[fmt]
            if (state := self.hub.state(repo_id)) is None:
                continue
            with explain(repo_id):
                info = self.hub.api.dataset_info(repo_id)
            if doi := next((name for name in info.tags or () if name.startswith("doi:")), None):
                raise TakedownRefused(
                    "a DOI of the Hub forbids deletion",
                    got=doi,
                    where=repo_id,
                    hint="Ask the Hub to remove the DOI first.",
                )
            if not self.is_part and not (folder / MANIFEST_NAME).is_file():
                raise TakedownRefused(
                    "this format is published and not here: what must go would stay in it", where=repo_id, got=folder
                )
            states[repo_id] = state
        if not states:
            raise NotPublished("nothing is published there", where=self.hub.namespace, hint="See --namespace.")
        return states

    def noted(self, reason: str, dry_run: bool) -> Note:
        """The note of an earlier run, or a new one, written before anything is changed."""
        key, path = takedown_note.load_key(make=not dry_run), takedown_note.note_path(self.directory, self.tag)
        (asked,) = takedown_note.hmacs(key, [" ".join(self.words)])
        for repo_id, state in self.states.items():
            if higher := [name for name in state.tags if is_tag(name) and order_of(name) > order_of(self.tag)]:
                raise VersionTaken("a higher version is published", got=max(higher, key=order_of), where=repo_id)
        if (note := takedown_note.load_note(path)) is not None:
            if note.asked != asked:
                raise TakedownRefused(
                    "another list was begun under this version",
                    where=path,
                    hint="Finish that one; then a higher --version.",
                )
            return note
        for repo_id, state in self.states.items():
            if self.tag in state.tags or self.tag in self.hub.releases(repo_id).releases:
                raise VersionTaken(
                    "this version is published already", got=self.tag, where=repo_id, hint="Give a higher one."
                )
        with TemporaryDirectory(prefix="t4sa-takedown-") as folder:
            parts = self._going(Path(folder) if self.is_part and dry_run else self.directory)
            note = self._new_note(parts, takedown_note.hmacs(key, samples(parts)), asked, reason)
        if not dry_run:
            note.save(path)
        return note

    def _new_note(self, parts: list[Going], hmac: tuple[str, ...], asked: str, reason: str) -> Note:
        if not parts:
            where = self.hub.namespace if self.is_part else self.directory
            raise BadOption("none of these ids is in the release", got=f"{len(self.words)} id(s)", where=where)
        return Note(
            asked=asked,
            reason=reason,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            hmac=hmac,
            lines=tuple(difference(parts)),
            old={repo_id: {**state.branches, **state.tags} for repo_id, state in self.states.items()},
            paths={self.hub.repository(one.manifest.format): tuple(one.touched()) for one in parts},
        )

    def _going(self, directory: Path) -> list[Going]:
        """Where the releases hold what must go; a rewriting that was killed is finished first."""
        releases = []
        for fmt in FORMATS:
            folder, repo_id = directory / FOLDERS[fmt], self.hub.repository(fmt)
            if (folder / MANIFEST_NAME).is_file():
                rewriting.finish_rewriting(folder)
                releases.append(LocalRelease(folder, load_manifest(folder)))
            elif self.is_part and repo_id in self.states:
                part = again(lambda repo_id=repo_id: self._tables(repo_id, directory), self.say)  # type: ignore[misc]
                releases.append(part.release)
        return going(releases, self.words)

    def _tables(self, repo_id: str, directory: Path) -> takedown_fetch.Part:
        return takedown_fetch.fetch_tables(self.hub, repo_id, directory, self.words, self.say)

    def publish(self, note: Note) -> None:
        """Rewrite the shards touched, and publish the new version."""
        if self.is_part and not self._fetch():
            return
        for one in self._going(self.directory):
            folder = self.directory / FOLDERS[one.manifest.format]
            done = rewriting.drop_rows(folder, one.drop, note={"updated": note.date}, data_version=self.tag[1:])
            self.say(f"{folder.name}: {one.rows} row(s) out of {len(done.shards)} shard(s), now {self.tag[1:]}")
        hub, version = self.hub, self.tag[1:]
        if not self.is_part:
            publish(self.directory, namespace=hub.namespace, version=version, endpoint=hub.endpoint, token=hub.token,
                    say=self.say)  # fmt: skip
            return
        publish_part(
            self.directory,
            namespace=hub.namespace,
            version=version,
            readme_of=lambda fmt: takedown_fetch.published_readme(self.directory, fmt).read_text(encoding="utf-8"),
            endpoint=hub.endpoint,
            token=hub.token,
            say=self.say,
        )
        takedown_fetch.forget(self.directory, FORMATS)

    def _fetch(self) -> bool:
        """Bring the parts that are not here; False: they were here, and the new version is published whole."""
        formats = [fmt for fmt in FORMATS if self.hub.repository(fmt) in self.states]
        missing = [fmt for fmt in formats if not takedown_fetch.is_fetched(self.directory, fmt)]
        if len(missing) == len(formats) and all(self.tag in state.tags for state in self.states.values()):
            return False
        for fmt in missing:
            repo_id = self.hub.repository(fmt)
            part = again(lambda repo_id=repo_id: self._tables(repo_id, self.directory), self.say)  # type: ignore[misc]
            again(lambda part=part: takedown_fetch.fetch_shards(self.hub, part, self.words, self.say), self.say)  # type: ignore[misc]
        return True
