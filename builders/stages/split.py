"""`split`: train, validation and test of the balanced set. The work is `builders.split`'s."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from builders.build_config import settings_of
from builders.building import Build
from builders.keys import find, pack
from builders.stages import balance, selection
from builders.state import write_arrow

NAME = "split"
VERSION = 1
SPLIT = pa.schema([("split", pa.int8())])
"""Position in `catalog.SPLITS`; -1: not in B-T4SA."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    return [settings_of(build.config.split)]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `split.arrow` (`SPLIT`)."""
    images = build.table(selection.NAME, "images")
    drawn = build.table(balance.NAME, "drawn")
    rows = np.flatnonzero(drawn["is_drawn"])
    split = np.full(images.num_rows, -1, dtype=np.int8)
    if build.config.split.lists is not None:
        mine = images.take(rows)
        packed = pack(mine["tweet_id"].to_numpy(), mine["image_index"].to_numpy())
        for number, one in enumerate(balance.read_lists(build).values()):
            split[rows[find(packed, pack(one.tweet_id, one.image_index)) >= 0]] = number
    else:
        split[rows] = _split(build, rows)
    write_arrow(build.path(NAME, "split.arrow"), SPLIT, [pa.table([split], schema=SPLIT)])
    return {"in": len(rows), "kept": len(rows), "dropped": {}, "rows": np.bincount(split[rows], minlength=3).tolist()}


def _split(build: Build, rows: np.ndarray) -> np.ndarray:
    return (np.arange(len(rows)) % 10 == 8) + 2 * (np.arange(len(rows)) % 10 == 9)
