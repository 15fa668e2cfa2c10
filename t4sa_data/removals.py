"""What must go of copies of the dataset: samples that a newer release does not hold any more, wherever they lie.

What was removed is not published: the list on the Hub is of HMACs, so that nobody learns from it who asked. Whoever
holds a release compares its keys with the sample tables of the current one: what is not there any more was removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t4sa_data import blanking, catalog, places, regrouping, removal_caches, rewriting
from t4sa_data.errors import ReleaseNotFound, RemovalsUnclear
from t4sa_data.files import explain_os_errors
from t4sa_data.loading.published import Published, look_up
from t4sa_data.manifest import content_digest, load_manifest
from t4sa_data.reading.local import LocalRelease
from t4sa_data.reading.release import OpenRelease
from t4sa_data.regrouping import Mask
from t4sa_data.shards import TABLE_NAME, read_table
from t4sa_data.streaming.where import read_ids

IMAGES_PER_TWEET = 4
"""The list on the Hub may count tweets: a tweet has at most so many images."""


@dataclass(frozen=True, kw_only=True)
class Current:
    """The current release, to compare with."""

    tag: str
    updated: str
    """Date of its removal list; empty where it is not known."""
    count: int | None
    """Samples removed in all; None: not known."""
    keys: pa.Array
    """Of all its image layers."""
    layers: tuple[str, ...]
    """Image layers that it holds: of others nothing can be said."""
    texts: Mapping[str, pa.Array]
    """Text layer -> its tweet ids."""
    digests: Mapping[str, str]
    """Layer -> content digest."""
    files: frozenset[str]
    """sha256 of its files, in both formats as far as known."""
    manifests: frozenset[bytes] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Held:
    """One place that holds what must go."""

    kind: str
    """`release`, `in place`, `cache`, `Hub client's cache` or `Arrow copy`."""
    path: Path
    rows: int | None
    """Samples (and tweets of text layers) that must go; None: it goes as a whole."""
    drop: Mapping[str, Mask] = field(default_factory=dict, repr=False)
    """Layer -> True for each row that goes."""


def current_of_hub(namespace: str | None = None, *, token: bool | str | None = None) -> Current:
    """The current release of the Hub's repositories; their sample tables come into the cache.

    Raises:
        ReleaseNotFound: the Hub names no current release.
        HubError: no access, no connection.
    """
    from t4sa_data.reading.cache import Cache, default_folder
    from t4sa_data.reading.remote import open_remote

    found: Published | None = None
    opened: list[OpenRelease] = []
    for name in ("t4sa", "t4sa-wds"):
        repo_id = f"{namespace or places.namespace()}/{places.repository(name).partition('/')[2]}"
        published = look_up(repo_id, "main", token)
        if published.releases is None or published.releases.current is None:
            raise ReleaseNotFound("the repository names no current release", where=repo_id)
        found = found or published
        url = f"hf://datasets/{repo_id}@{published.releases.current}"
        opened.append(open_remote(url, Cache(default_folder()), token=token))
    assert found is not None and found.releases is not None
    removed = found.releases.removals
    return _current(opened, str(found.releases.current), removed.updated or "", removed.count, token)


def current_of_folder(directory: Path) -> Current:
    """The same of a release in a folder.

    Raises:
        ReleaseNotFound, ManifestError: there is none.
    """
    from t4sa_data.testing.check import find_folders

    opened = [LocalRelease(folder, load_manifest(folder)) for folder in find_folders(directory)[0]]
    return _current(opened, f"v{opened[0].manifest.data_version}", "", None, None)


def _current(
    opened: Sequence[OpenRelease], tag: str, updated: str, count: int | None, token: bool | str | None
) -> Current:
    keys: list[pa.Array] = []
    layers: dict[str, None] = {}
    texts: dict[str, pa.Array] = {}
    digests: dict[str, str] = {}
    for one in opened:
        for name, layer in one.manifest.layers.items():
            if name in digests:
                continue
            digests[name] = layer.content_digest
            if layer.kind == "image":
                layers[name] = None
                keys.append(read_table(one.table(name), ["key"])["key"].combine_chunks())
            else:
                texts[name] = tweet_ids(one, name, token)
    return Current(
        tag=tag,
        updated=updated,
        count=count,
        keys=pa.concat_arrays(keys),
        layers=tuple(layers),
        texts=texts,
        digests=digests,
        files=frozenset(file.sha256 for one in opened for file in one.manifest.files),
        manifests=frozenset(one.manifest.to_json() for one in opened),
    )


def tweet_ids(one: OpenRelease, layer: str, token: bool | str | None = None) -> pa.Array:
    """The tweet ids of a text layer: of a release on the Hub, that column only is fetched."""
    filesystem: Any = None
    if one.is_remote:
        from huggingface_hub import HfFileSystem

        filesystem = HfFileSystem(token=token)
    names = [file.name for file in one.manifest.files if file.layer == layer]
    root = one.where.removeprefix("hf://") if one.is_remote else one.where
    parts = [
        pq.read_table(f"{root}/{name}", columns=["tweet_id"], filesystem=filesystem, partitioning=None)
        for name in names
    ]
    return pa.concat_tables(parts)["tweet_id"].combine_chunks()


def find(
    directory: Path,
    current: Current | None,
    *,
    ids: Sequence[str] | Path | None = None,
    caches: bool = True,
) -> list[Held]:
    """What is held of what was removed. Nothing is changed (but for a removal that was killed: it is finished).

    Args:
        directory: DIR with `t4sa/`, `t4sa-wds/` or `t4sa-inplace/`, or one of them.
        current: the release to compare with; None: `ids` only.
        ids: keys and tweet ids that must go besides, or a file with one a line.
        caches: look at this user's caches, too.

    Raises:
        ReleaseNotFound, ManifestError: no readable release in `directory`.
        RemovalsUnclear: far more samples differ than were removed: this is another selection.
    """
    from t4sa_data.testing.check import find_folders

    words = read_ids(ids) if ids is not None else []
    held = []
    for folder in find_folders(Path(directory))[0]:
        rewriting.finish_rewriting(folder)
        manifest = load_manifest(folder)
        drop = rows_to_drop(LocalRelease(folder, manifest), current, words)
        if drop:
            kind = "in place" if manifest.format == "in-place" else "release"
            held.append(Held(kind=kind, path=folder, rows=sum(int(mask.sum()) for mask in drop.values()), drop=drop))
    return held + (_in_caches(current, words) if caches else [])


def rows_to_drop(
    one: OpenRelease, current: Current | None, words: Sequence[str], *, token: bool | str | None = None
) -> dict[str, Mask]:
    """Rows of a release that must go, by layer: True for each, shape (rows,); layers that lose none are left out.

    Args:
        one: the release.
        current: the release to compare with; None: `words` only.
        words: keys and tweet ids.
        token: for the Hub.

    Raises:
        RemovalsUnclear: see `find`.
    """
    made: dict[str, Mask] = {}
    differ = total = 0
    for name, layer in one.manifest.layers.items():
        if layer.kind == "image":
            rows = read_table(one.table(name), ["key", "tweet_id"])
            mask = _named(rows["tweet_id"], rows["key"], words)
            known, column = (current.keys if current and name in current.layers else None), rows["key"]
        elif current is None and all("-" in word for word in words):
            continue  # keys are of images: a text shard need not even be here
        else:
            column = pa.chunked_array([tweet_ids(one, name, token)])
            mask = _named(column, None, words)
            known = current.texts.get(name) if current else None
        if known is not None:
            is_gone = ~np.asarray(pc.is_in(column, value_set=known).to_numpy(zero_copy_only=False))
            differ, total = max(differ, int(is_gone.sum())), max(total, len(column))
            mask |= is_gone
        if mask.any():
            made[name] = mask
    most = IMAGES_PER_TWEET * current.count if current is not None and current.count is not None else total // 10
    if differ > most:
        raise RemovalsUnclear(
            f"samples that are not in {current.tag if current else ''}, more than were removed: this is another "
            "selection of the data",
            expected=f"at most {most:,}",
            got=f"{differ:,}",
            where=one.where,
            hint="Ask the maintainers for the ids, and give them with --ids FILE --only-ids.",
        )
    return made


def _named(tweets: pa.ChunkedArray, keys: pa.ChunkedArray | None, words: Sequence[str]) -> Mask:
    """Rows that a list of keys and tweet ids names."""
    ids = pa.array([int(word) for word in words if "-" not in word], pa.int64())
    mask = np.asarray(pc.is_in(tweets, value_set=ids).to_numpy(zero_copy_only=False)).copy()
    if keys is not None:
        named = pa.array([word for word in words if "-" in word], pa.string())
        mask |= np.asarray(pc.is_in(keys, value_set=named).to_numpy(zero_copy_only=False))
    return mask


def _in_caches(current: Current | None, words: Sequence[str]) -> list[Held]:
    def is_removed(config: str, keys: pa.ChunkedArray | None) -> bool:
        can_be_told = current is not None and set(catalog.CONFIGS[config].layers) <= set(current.layers)
        if keys is None:
            return can_be_told
        tweets = pc.cast(pc.list_element(pc.split_pattern(keys, "-"), 0), pa.int64())
        if _named(tweets, keys, words).any():
            return True
        return can_be_told and not pc.all(pc.is_in(keys, value_set=current.keys)).as_py()  # type: ignore[union-attr]

    held = [Held(kind="Arrow copy", path=path, rows=None) for path in removal_caches.stale_arrow(is_removed)]
    if current is not None and current.count != 0:
        stale = removal_caches.stale_in_cache(current.files)
        held += [Held(kind="cache", path=path, rows=None) for path in stale]
        stale = removal_caches.stale_at_client(current.manifests)
        held += [Held(kind="Hub client's cache", path=path, rows=None) for path in stale]
    return held


def apply(held: Sequence[Held], current: Current | None, *, say: Callable[[str], object] = lambda _line: None) -> None:
    """Remove what `find` found. Releases pass `t4sa check` afterwards. Killed, the same command goes on.

    Args:
        held: of `find`.
        current: as for `find`.
        say: gets a line for each place.

    Raises:
        NoRows, ChecksumMismatch, OutputError, DiskSpaceError: the places before were done, this one was not changed.
    """
    note = {"updated": current.updated} if current is not None and current.updated else {}
    for one in held:
        if one.kind == "release":
            version = current.tag.removeprefix("v") if current and _will_be(one, current) else None
            done = rewriting.drop_rows(one.path, one.drop, note=note, data_version=version)
            say(f"{one.path}: {one.rows} row(s) out of {len(done.shards)} shard(s), now {done.manifest.data_version}")
        elif one.kind == "in place":
            ((layer, mask),) = one.drop.items()
            blanking.blank_rows(one.path, load_manifest(one.path), layer, mask, note)
            say(f"{one.path}: {one.rows} row(s), and their bytes in the archive")
        elif one.kind == "Hub client's cache":
            removal_caches.remove_revision(one.path)
            say(f"{one.path}: removed")
        else:
            with explain_os_errors(one.path):
                if one.path.is_dir():
                    shutil.rmtree(one.path)
                else:
                    one.path.unlink(missing_ok=True)
            say(f"{one.path}: removed")


def _will_be(one: Held, current: Current) -> bool:
    """Whether a release holds exactly the current rows of its layers, once these have gone."""
    manifest = load_manifest(one.path)
    names = regrouping.new_names(manifest, lambda name: one.path / name / TABLE_NAME, one.drop)
    for name, layer in manifest.layers.items():
        if name in current.layers:
            table = regrouping.renamed(read_table(one.path / name / TABLE_NAME, layer=name), names)
            mask = one.drop.get(name)
            kept = table if mask is None else table.filter(pa.array(~mask))
            if content_digest(kept) != current.digests[name]:
                return False
        elif layer.kind == "image" or name in one.drop:
            return False
    return True
