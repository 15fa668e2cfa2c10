"""`balance`: as many images of each class, drawn from those that stand for their groups. The work is
`builders.balance`'s."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from builders.balance import BALANCE_VERSION, balance
from builders.build_config import settings_of
from builders.building import Build
from builders.keys import find, pack
from builders.sources.tables import SplitList, read_split_list
from builders.stages import dedup, selection
from builders.state import stamp, write_arrow
from t4sa_data.catalog import OFFICIAL_LISTS, SPLITS
from t4sa_data.errors import InputMissing, NoRows

NAME = "balance"
VERSION = 1
DRAWN = pa.schema([("is_drawn", pa.bool_()), ("label", pa.int64())])
"""Whether an image is in B-T4SA; its label, which the given lists may say another of."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    lists = build.config.split.lists
    return [
        BALANCE_VERSION,
        settings_of(build.config.balance),
        [stamp(path) for path in list_paths(build).values()] if lists else None,
    ]


def list_paths(build: Build) -> dict[str, Any]:
    """Split -> its given list.

    Raises:
        InputMissing: one is not there.
    """
    folder = build.config.split.lists
    assert folder is not None
    paths = {split: folder / OFFICIAL_LISTS[split] for split in SPLITS}
    for path in paths.values():
        if not path.is_file():
            raise InputMissing("a split list is not there", where=path, hint="[split] lists names their folder.")
    return paths


def read_lists(build: Build) -> dict[str, SplitList]:
    """The given lists by split."""
    return {split: read_split_list(path.read_bytes(), str(path)) for split, path in list_paths(build).items()}


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `drawn.arrow` (`DRAWN`)."""
    images = build.table(selection.NAME, "images")
    representative = build.table(dedup.NAME, "groups")["representative"].to_numpy()
    is_good, label = representative >= 0, np.array(images["label"].to_numpy())
    is_drawn = np.zeros(len(label), dtype=bool)
    if build.config.split.lists is not None:
        for one in read_lists(build).values():
            row = find(pack(one.tweet_id, one.image_index), _packed(images))
            label[row[row >= 0]] = one.label[row >= 0]
            is_drawn[row[row >= 0]] = True
        is_drawn &= is_good
    else:
        rows = np.flatnonzero(representative == np.arange(len(label)))
        some = images.take(rows)
        chosen = build.config.balance
        is_drawn[rows] = balance(
            label[rows],
            some["tweet_id"].to_numpy(),
            some["image_index"].to_numpy(),
            seed=chosen.seed,
            per_class=chosen.per_class,
            by=chosen.by,
        ).drawn
    if not is_drawn.any():
        raise NoRows(
            "not one image of the given lists was fetched", where=build.config.split.lists,
            hint="Do they belong to these tweets?",
        )  # fmt: skip
    table = pa.table([pa.array(is_drawn), pa.array(label)], schema=DRAWN)
    write_arrow(build.path(NAME, "drawn.arrow"), DRAWN, [table])
    num = int(is_good.sum())
    return {"in": num, "kept": num, "dropped": {}, "drawn": int(is_drawn.sum())}


def _packed(images: pa.Table) -> Any:
    return pack(images["tweet_id"].to_numpy(), images["image_index"].to_numpy())
