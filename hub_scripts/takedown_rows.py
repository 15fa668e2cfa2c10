"""What goes in a takedown: the words of its list, and the rows of each format that they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from t4sa_data import regrouping, removals, rewriting
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption
from t4sa_data.manifest import Manifest
from t4sa_data.reading.release import OpenRelease
from t4sa_data.regrouping import Mask
from t4sa_data.shards import TABLE_NAME, read_table
from t4sa_data.streaming.where import read_ids
from t4sa_data.summary import size, table

GROUP = "group:"
"""Before a key in the list: its whole group of near-duplicates."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """What goes from one format."""

    release: OpenRelease
    drop: Mapping[str, Mask]
    """Layer -> True for each row that goes, shape (rows,); never empty."""

    @property
    def manifest(self) -> Manifest:
        """Of the release."""
        return self.release.manifest

    @property
    def rows(self) -> int:
        """That go, of all layers."""
        return sum(int(mask.sum()) for mask in self.drop.values())

    def touched(self) -> list[str]:
        """Files that are written anew, shards and tables: they hold what goes, or a near-duplicate whose group it
        named."""
        names = regrouping.new_names(self.manifest, self.release.table, self.drop)
        made = list[str]()
        changed = rewriting.changed_rows(self.manifest, self.release.table, self.drop, names)
        for layer, (drop, rows) in changed.items():
            if self.manifest.layers[layer].kind == "image":
                made.append(f"{layer}/{TABLE_NAME}")
            made += rewriting.shards_to_rewrite(self.manifest, layer, drop, rows)
        return made


def read_words(ids: Sequence[str] | Path) -> list[str]:
    """The list, each word once, sorted.

    Raises:
        BadOption: a word is neither an id, a key nor a group, or there is none.
    """
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


def has_tweets(words: Sequence[str]) -> bool:
    """Whether one of the words is a tweet's id: such go out of text layers as well."""
    return any("-" not in word for word in words)


def going(releases: Sequence[OpenRelease], words: Sequence[str]) -> list[Going]:
    """What the words name, by format; formats that hold nothing of it are left out."""
    named = {word.removeprefix(GROUP) for word in words if word.startswith(GROUP)}
    keys = {word for word in words if not word.startswith(GROUP)}
    for one in releases if named else ():
        parts = [
            read_table(one.table(name), ["key", "duplicate_group"])
            for name, layer in one.manifest.layers.items()
            if layer.kind == "image"
        ]
        rows = pa.concat_tables(parts)
        wanted = pa.array(sorted(named), pa.string())
        groups = rows.filter(pc.is_in(rows["key"], value_set=wanted))["duplicate_group"].unique()
        groups = pa.array({*groups.to_pylist(), *named} - {None}, pa.string())
        keys |= named | set(rows.filter(pc.is_in(rows["duplicate_group"], value_set=groups))["key"].to_pylist())
    found = [Going(release=one, drop=removals.rows_to_drop(one, None, sorted(keys))) for one in releases]
    return [one for one in found if one.drop]


def samples(parts: Sequence[Going]) -> set[str]:
    """Keys that go, and tweet ids of texts that have no image here."""
    keys: set[str] = set()
    tweets: set[str] = set()
    for one in parts:
        for name, mask in one.drop.items():
            if one.manifest.layers[name].kind == "image":
                rows = read_table(one.release.table(name), ["key"])
                keys |= set(rows.filter(pa.array(mask))["key"].to_pylist())
            else:
                ids = removals.tweet_ids(one.release, name)
                tweets |= set(map(str, ids.filter(pa.array(mask)).to_pylist()))
    return keys | (tweets - {key.partition("-")[0] for key in keys})


def difference(parts: Sequence[Going]) -> list[str]:
    """What goes, by layer, split and class; shards and bytes, by format."""
    counts: Counter[tuple[str, str, str]] = Counter()
    lines = []
    for number, one in enumerate(parts):
        touched = set(one.touched())
        shards = [file for file in one.manifest.files if file.name in touched and file.layer is not None]
        total = sum(1 for file in one.manifest.files if file.layer is not None)
        num_bytes = size(sum(file.bytes for file in shards))
        lines.append(
            f"{one.manifest.format}: {one.rows:,} row(s), {len(shards)} of {total} shards touched ({num_bytes})"
        )
        if number:
            continue
        for name, mask in one.drop.items():
            if one.manifest.layers[name].kind == "image":
                rows = read_table(one.release.table(name), ["split", "label"]).filter(pa.array(mask)).to_pylist()
                counts.update((name, row["split"], CLASSES[row["label"]]) for row in rows)
            else:
                counts[name, "-", "-"] += int(np.count_nonzero(mask))
        if groups := regrouping.new_names(one.manifest, one.release.table, one.drop):
            lines.append(f"{len(groups)} group(s) of near-duplicates get another name: theirs was a key that goes")
    return [*table(("layer", "split", "class", "removed"), [(*what, n) for what, n in sorted(counts.items())]), *lines]
