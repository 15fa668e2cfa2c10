"""`split`: train, validation and test of the balanced set. The work is `builders.split`'s."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from builders.build_config import BuildConfig, settings_of
from builders.building import Build, counted
from builders.dedup import group
from builders.split import (
    ACROSS_THE_CUT,
    NONE,
    SPLIT_VERSION,
    alone_where_null,
    assign,
    assign_by_time,
    assign_official,
)
from builders.stages import balance, inspection, selection
from builders.state import write_arrow

NAME = "split"
VERSION = 1
WIDER = 2
"""Bits that groups which stay together are wider by than those of `dedup`, unless the configuration says."""
SPLIT = pa.schema([("split", pa.int8())])
"""Position in `catalog.SPLITS`; -1: not in B-T4SA."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    return [SPLIT_VERSION, settings_of(build.config.split)]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `split.arrow` (`SPLIT`)."""
    images, drawn = build.table(selection.NAME, "images"), build.table(balance.NAME, "drawn")
    rows = np.flatnonzero(drawn["is_drawn"])
    ids, index = (images[name].take(rows).to_numpy() for name in ("tweet_id", "image_index"))
    label, chosen = drawn["label"].take(rows).to_numpy(), build.config.split
    together = _together(build, images, rows)
    if chosen.lists is not None:
        made = assign_official(label, ids, index, balance.read_lists(build))
    elif "time" in chosen.by:
        made = assign_by_time(label, ids, index, shares=chosen.shares, together=together)
    else:
        made = assign(label, ids, index, shares=chosen.shares, seed=chosen.seed, together=together)
    split = np.full(images.num_rows, NONE, dtype=np.int8)
    split[rows] = made.split
    write_arrow(build.path(NAME, "split.arrow"), SPLIT, [pa.table([split], schema=SPLIT)])
    return counted(len(rows), {ACROSS_THE_CUT: int((made.split == NONE).sum())}, told=made.to_json())


def _together(build: Build, images: pa.Table, rows: np.ndarray) -> list[np.ndarray]:
    """Columns of what must not stand in two splits, shape (rows,) each."""
    chosen, made = build.config.split, []
    if "tweet" in chosen.by:
        made.append(images["tweet_id"].take(rows).to_numpy())
    if "duplicates" in chosen.by:
        made.append(_groups(build)[rows])
    if "author" in chosen.by:
        author = images["author"].take(rows)
        made.append(alone_where_null(author.fill_null(0).to_numpy(), np.asarray(author.is_null())))
    return made


def distance_of(config: BuildConfig) -> int:
    """Bits within which near-duplicates stay together."""
    chosen = config.split.duplicate_distance
    return config.dedup.distance + WIDER if chosen is None else chosen


def _groups(build: Build) -> np.ndarray:
    """Near-duplicate groups that are wider than those of `dedup`: whoever stands for one of these has no near-duplicate
    left. Those of images that were not drawn count too: they are what holds two drawn ones together."""
    phash = build.table(inspection.NAME, "inspected")["phash"]
    rows = np.flatnonzero(phash.is_valid())
    made = np.full(len(phash), -1, dtype=np.int64)
    made[rows] = group(phash.take(rows).to_numpy().astype(np.uint64), distance_of(build.config))
    return made
