"""`dedup`: near-duplicate groups by perceptual hash, and who stands for each. The work is `builders.dedup`'s."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from builders import dedup
from builders.build_config import settings_of
from builders.building import Build
from builders.stages import inspection, selection
from builders.state import write_arrow

NAME = "dedup"
VERSION = 1
GROUPS = pa.schema([("representative", pa.int64())])
"""Row of the image that stands for each image's group; -1: an image that is not there or does not decode."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    return [settings_of(build.config.dedup)]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `groups.arrow` (`GROUPS`)."""
    images, inspected = build.table(selection.NAME, "images"), build.table(inspection.NAME, "inspected")
    rows = np.flatnonzero(inspected["phash"].is_valid())
    some = images.take(rows)
    hashes = inspected["phash"].take(rows).to_numpy().astype(np.uint64)
    ids, index, confidence = (some[name].to_numpy() for name in ("tweet_id", "image_index", "confidence"))
    chosen = build.config.dedup
    if chosen.linkage == "direct":
        groups = dedup.group_direct(hashes, confidence, ids, index, chosen.distance)
    else:
        groups = dedup.group(hashes, chosen.distance)
    mine = dedup.representatives(groups, confidence, ids, index)
    representative = np.full(images.num_rows, -1, dtype=np.int64)
    representative[rows] = rows[mine]
    write_arrow(build.path(NAME, "groups.arrow"), GROUPS, [pa.table([representative], schema=GROUPS)])
    num_first = int((mine == np.arange(len(mine))).sum())
    sizes = np.bincount(mine) if len(mine) else np.zeros(1, np.int64)
    more = {"duplicates": len(rows) - num_first, "largest_group": int(sizes.max())}
    return {"in": len(rows), "kept": len(rows), "dropped": {}, **more}
