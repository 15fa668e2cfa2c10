"""Take samples out of everything that was published: a new version without them, then nothing of the old ones is left.

A run looks at what is there and does the next step, so one after a kill goes on. What it could not see any more after
its first step stands in a note beside the release (`hub_scripts.takedown_note`).
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hub_scripts import takedown_note
from hub_scripts.client import Hub, RepositoryState, again, explain
from hub_scripts.publish import publish
from hub_scripts.rights import load_rights
from hub_scripts.takedown_cli import takedown_command
from hub_scripts.takedown_note import Note
from hub_scripts.view import BESIDE, FORMATS
from t4sa_data import removals, rewriting
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption, NotPublished, TakedownRefused, UnknownRevision, VersionTaken
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, load_manifest
from t4sa_data.releases_file import RELEASES_NAME, Removals, is_tag, order_of, tag_of
from t4sa_data.removals import Held
from t4sa_data.shards import TABLE_NAME, read_table
from t4sa_data.streaming.where import read_ids
from t4sa_data.summary import size, table

__all__ = ["TakenDown", "takedown", "takedown_command"]

GROUP = "group:"
"""Before a key in the list: its whole group of near-duplicates."""
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
    release: Path | str | None,
    confirm: Callable[[str], bool],
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
        release: DIR with `t4sa/`, `t4sa-wds/` and `rights.toml`, as published; it is rewritten.
        confirm: asked before the old versions are deleted; False: they stay, and the same call goes on later.
        reason: told to readers of the old versions. No word about who asked.
        dry_run: say what would go and change nothing.
        endpoint: None: `$HF_ENDPOINT`, else the public Hub.
        token: None: the client's own way.
        say: gets a line now and then.

    Returns:
        By repository; nothing with `dry_run`.

    Raises:
        TakedownRefused: a DOI, no DIR, a format that is published and not here, another list under this version.
        BadOption: an id is none, or none of them is in the release.
        VersionTaken, RightsError, CheckFailed and the others of `publish`.
        NotPublished, HubAccessError, HubConflict, HubRefused, HubUnreachable: the Hub does not do it.
    """
    tag = tag_of(version)
    if release is None:
        raise TakedownRefused(
            "a takedown without the local release is not possible yet",
            expected="--release DIR",
            hint="Fetch it: `t4sa download --revision TAG`, or build it; DIR holds t4sa/, t4sa-wds/ and rights.toml.",
        )
    directory = Path(release)
    words = _words(ids)
    load_rights(directory)
    hub = Hub(namespace=namespace, endpoint=endpoint, token=token)
    states = again(lambda: _look(hub, directory), say)
    note = _noted(hub, directory, tag, words, reason, states, dry_run)
    for line in note.lines:
        say(line)
    if dry_run:
        return []
    _rewrite(directory, tag, words, note, say)
    publish(directory, namespace=namespace, version=version, endpoint=endpoint, token=token, say=say)
    for repo_id in states:
        again(lambda repo_id=repo_id: _withdraw(hub, repo_id, tag, note, say), say)  # type: ignore[misc]
    if not confirm(_breaks(tag, note)):
        return [_done(repo_id, tag, note, is_done=False) for repo_id in states]
    done = [again(lambda repo_id=repo_id: _purge(hub, repo_id, tag, note, say), say) for repo_id in states]  # type: ignore[misc]
    for repo_id in states:
        again(lambda repo_id=repo_id: _see_gone(hub, repo_id, note), say)  # type: ignore[misc]
        say(f"{repo_id}: the old addresses answer 404")
    return done


def _words(ids: Sequence[str] | Path) -> list[str]:
    """The list, each word once, sorted. Raises BadOption where one is neither."""
    if isinstance(ids, Path):
        try:
            lines = ids.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise BadOption("the list of ids cannot be read", got=error.strerror, where=ids) from error
        ids = [word for line in lines if (word := line.partition("#")[0].strip())]
    read_ids([word.removeprefix(GROUP) for word in ids])
    if bad := [word for word in ids if word.startswith(GROUP) and "-" not in word]:
        raise BadOption("a group is named by one of its keys", expected=f"{GROUP}TWEET-IMAGE", got=bad[0])
    if not ids:
        raise BadOption("the list of ids is empty")
    return sorted(set(ids))


def _look(hub: Hub, directory: Path) -> dict[str, RepositoryState]:
    """The repositories that are there. Raises TakedownRefused under a DOI, or for a format that is not here."""
    states = {}
    for fmt in FORMATS:
        repo_id, folder = hub.repository(fmt), directory / FOLDERS[fmt]
        if (state := hub.state(repo_id)) is None:
            continue
        with explain(repo_id):
            info = hub.api.dataset_info(repo_id)
        if doi := next((name for name in info.tags or () if name.startswith("doi:")), None):
            raise TakedownRefused(
                "a DOI of the Hub forbids deletion", got=doi, where=repo_id, hint="Ask the Hub to remove the DOI first."
            )
        if not (folder / MANIFEST_NAME).is_file():
            raise TakedownRefused(
                "this format is published and not here: what must go would stay in it", where=repo_id, got=folder
            )
        states[repo_id] = state
    if not states:
        raise NotPublished("nothing is published there", where=hub.namespace, hint="See --namespace.")
    return states


def _noted(
    hub: Hub,
    directory: Path,
    tag: str,
    words: list[str],
    reason: str,
    states: dict[str, RepositoryState],
    dry_run: bool,
) -> Note:
    """The note of an earlier run, or a new one, written before anything is changed."""
    key, path = takedown_note.load_key(make=not dry_run), takedown_note.note_path(directory, tag)
    (asked,) = takedown_note.hmacs(key, [" ".join(words)])
    for repo_id, state in states.items():
        if higher := [name for name in state.tags if is_tag(name) and order_of(name) > order_of(tag)]:
            raise VersionTaken("a higher version is published", got=max(higher, key=order_of), where=repo_id)
    if (note := takedown_note.load_note(path)) is not None:
        if note.asked != asked:
            raise TakedownRefused(
                "another list was begun under this version",
                where=path,
                hint="Finish that one; then a higher --version.",
            )
        return note
    for repo_id, state in states.items():
        known = hub.releases(repo_id).releases
        if tag in state.tags or tag in known:
            raise VersionTaken("this version is published already", got=tag, where=repo_id, hint="Give a higher one.")
    held = _held(directory, words)
    if not held:
        raise BadOption("none of these ids is in the release", got=f"{len(words)} id(s)", where=directory)
    note = Note(
        asked=asked,
        reason=reason,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        hmac=takedown_note.hmacs(key, _samples(held)),
        lines=tuple(_difference(held)),
        old={repo_id: {**state.branches, **state.tags} for repo_id, state in states.items()},
        paths={hub.repository(load_manifest(one.path).format): tuple(_touched(one)) for one in held},
    )
    if not dry_run:
        note.save(path)
    return note


def _held(directory: Path, words: Sequence[str]) -> list[Held]:
    """Where the releases hold what must go; a rewriting that was killed is finished first."""
    named = {word.removeprefix(GROUP) for word in words if word.startswith(GROUP)}
    keys = {word for word in words if not word.startswith(GROUP)}
    folders = [directory / FOLDERS[fmt] for fmt in FORMATS if (directory / FOLDERS[fmt] / MANIFEST_NAME).is_file()]
    for folder in folders if named else ():
        rewriting.finish_rewriting(folder)
        parts = [
            read_table(folder / name / TABLE_NAME, ["key", "duplicate_group"])
            for name, layer in load_manifest(folder).layers.items()
            if layer.kind == "image"
        ]
        rows = pa.concat_tables(parts)
        wanted = pa.array(sorted(named), pa.string())
        groups = rows.filter(pc.is_in(rows["key"], value_set=wanted))["duplicate_group"].unique()
        groups = pa.array({*groups.to_pylist(), *named} - {None}, pa.string())
        keys |= named | set(rows.filter(pc.is_in(rows["duplicate_group"], value_set=groups))["key"].to_pylist())
    held = [one for folder in folders for one in removals.find(folder, None, ids=sorted(keys), caches=False)]
    return [one for one in held if one.kind == "release"]


def _samples(held: Sequence[Held]) -> set[str]:
    """Keys that go, and tweet ids of texts that have no image here."""
    keys: set[str] = set()
    tweets: set[str] = set()
    for one in held:
        manifest = load_manifest(one.path)
        for name, mask in one.drop.items():
            if manifest.layers[name].kind == "image":
                rows = read_table(one.path / name / TABLE_NAME, ["key"])
                keys |= set(rows.filter(pa.array(mask))["key"].to_pylist())
            else:
                files = [one.path / file.name for file in manifest.files if file.layer == name]
                parts = [pq.read_table(file, columns=["tweet_id"], partitioning=None) for file in files]
                tweets |= set(map(str, pa.concat_tables(parts).filter(pa.array(mask))["tweet_id"].to_pylist()))
    return keys | (tweets - {key.partition("-")[0] for key in keys})


def _touched(one: Held) -> list[str]:
    """Files of a release that hold what goes: shards and tables."""
    manifest, names = load_manifest(one.path), list[str]()
    for name, mask in one.drop.items():
        if manifest.layers[name].kind == "image":
            rows = read_table(one.path / name / TABLE_NAME, ["file"])
            names += [*rows.filter(pa.array(mask))["file"].unique().to_pylist(), f"{name}/{TABLE_NAME}"]
            continue
        at = 0
        for file in (file for file in manifest.files if file.layer == name):
            names += [file.name] if mask[at : at + (file.rows or 0)].any() else []
            at += file.rows or 0
    return names


def _difference(held: Sequence[Held]) -> list[str]:
    """What goes, by layer, split and class; shards and bytes, by format."""
    counts: Counter[tuple[str, str, str]] = Counter()
    lines = []
    for number, one in enumerate(held):
        manifest = load_manifest(one.path)
        shards = [file for file in manifest.files if file.name in set(_touched(one)) and file.layer is not None]
        total = sum(1 for file in manifest.files if file.layer is not None)
        num_bytes = size(sum(file.bytes for file in shards))
        lines.append(f"{one.path.name}: {one.rows:,} row(s), {len(shards)} of {total} shards touched ({num_bytes})")
        for name, mask in one.drop.items() if number == 0 else ():
            if manifest.layers[name].kind == "image":
                rows = read_table(one.path / name / TABLE_NAME, ["split", "label", "key", "duplicate_group"])
                gone = rows.filter(pa.array(mask)).to_pylist()
                counts.update((name, row["split"], CLASSES[row["label"]]) for row in gone)
                if twins := _twins(rows, mask):
                    lines.append(
                        f"{name}: {twins} near-duplicate(s) stay, in groups named by a key that goes; see group:"
                    )
            else:
                counts[name, "-", "-"] += int(np.count_nonzero(mask))
    return [*table(("layer", "split", "class", "removed"), [(*what, n) for what, n in sorted(counts.items())]), *lines]


def _twins(rows: pa.Table, mask: rewriting.Mask) -> int:
    """Rows that stay and whose group is named by a key that goes."""
    gone = rows.filter(pa.array(mask))["key"].combine_chunks()
    kept = rows.filter(pa.array(~mask))
    return int(pc.sum(pc.is_in(kept["duplicate_group"], value_set=gone)).as_py() or 0)


def _rewrite(directory: Path, tag: str, words: Sequence[str], note: Note, say: Say) -> None:
    for one in _held(directory, words):
        done = rewriting.drop_rows(one.path, one.drop, note={"updated": note.date}, data_version=tag[1:])
        say(f"{one.path.name}: {one.rows} row(s) out of {len(done.shards)} shard(s), now {tag[1:]}")


def _withdraw(hub: Hub, repo_id: str, tag: str, note: Note, say: Say) -> None:
    """Say in `releases.json` that all older versions are withdrawn, and what was removed in all."""
    head = hub.need_state(repo_id).branches["main"]
    known = made = hub.releases(repo_id)
    for name, entry in known.releases.items():
        if name != tag and (entry.state != "withdrawn" or entry.successor is None):
            made = made.with_withdrawn(name, successor=tag, reason=entry.reason or note.reason)
    every = tuple(sorted({*known.removals.hmac, *note.hmac}))
    made = made.with_removals(Removals(count=len(every), hmac=every, updated=note.date))
    if made != known:
        hub.commit(repo_id, f"{RELEASES_NAME}: removals", files={RELEASES_NAME: made.to_json()}, parent=head)
        say(f"{repo_id}: {RELEASES_NAME} withdraws all versions before {tag}; {len(every)} sample(s) removed in all")


def _breaks(tag: str, note: Note) -> str:
    """What the deletion breaks, to be confirmed."""
    old = sorted({name for refs in note.old.values() for name in refs if is_tag(name)}, key=order_of)
    return (
        f"Delete {', '.join(old) or 'the old files'} of {', '.join(note.old)} for good: tags, history, and every large "
        f"file that {tag} does not hold. Whoever pinned a tag or commit before {tag}, or works in a clone, must "
        "go over to it. This cannot be undone."
    )


def _purge(hub: Hub, repo_id: str, tag: str, note: Note, say: Say) -> TakenDown:
    """Leave one commit on main, the tag on it, and no large file beside theirs."""
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
    done = _done(repo_id, tag, note, is_done=True)
    return replace(done, objects=len(gone), bytes=sum(one.size for one in gone))


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


def _done(repo_id: str, tag: str, note: Note, *, is_done: bool) -> TakenDown:
    return TakenDown(repo_id=repo_id, tag=tag, count=len(note.hmac), objects=0, bytes=0, is_done=is_done)


def _see_gone(hub: Hub, repo_id: str, note: Note) -> None:
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
