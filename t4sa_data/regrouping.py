"""Groups of near-duplicates whose name goes: `duplicate_group` is the key of a group's first image, and a key that was
removed must not be read anywhere. Those that stay get the name that a build without it would give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t4sa_data.manifest import Manifest
from t4sa_data.shards import read_table

Mask = npt.NDArray[np.bool_]
FIRST_LAYERS = ("b-t4sa", "b-t4sa-256")
"""B-T4SA's images name a group before all others do."""
_COLUMNS = ["key", "tweet_id", "image_index", "duplicate_group"]


def new_names(manifest: Manifest, table_of: Callable[[str], Path], drop: Mapping[str, Mask]) -> dict[str, str]:
    """Groups named by a key that goes, and what they are called without it: the smallest key that stays, of B-T4SA
    before others. Groups of which nothing stays are left out.

    Args:
        manifest: of the release.
        table_of: path of an image layer's sample table.
        drop: layer -> True for each row that goes, shape (rows,).

    Raises:
        ShardError: a table cannot be read.
    """
    gone = [read_table(table_of(name), ["key"])["key"].filter(pa.array(mask)) for name, mask in drop.items()
            if manifest.layers[name].kind == "image"]  # fmt: skip
    names = pa.chunked_array([chunk for keys in gone for chunk in keys.chunks], pa.string()).unique()
    found: dict[str, tuple[bool, int, int, str]] = {}
    for name, layer in manifest.layers.items() if len(names) else ():
        if layer.kind != "image":
            continue
        rows = read_table(table_of(name), _COLUMNS)
        rows = rows.filter(pa.array(~drop[name])) if name in drop else rows
        for row in rows.filter(pc.is_in(rows["duplicate_group"], value_set=names)).to_pylist():
            rank = (name not in FIRST_LAYERS, row["tweet_id"], row["image_index"], row["key"])
            found[row["duplicate_group"]] = min(found.get(row["duplicate_group"], rank), rank)
    return {group: rank[-1] for group, rank in found.items()}


def rows_to_rename(groups: pa.ChunkedArray, names: Mapping[str, str]) -> Mask:
    """True for each row whose group has a new name, shape (rows,)."""
    old = pa.array(sorted(names), pa.string())
    return np.asarray(pc.is_in(groups, value_set=old).to_numpy(zero_copy_only=False), dtype=bool)


def renamed(table: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """A table of samples with the new names of its groups."""
    mask = rows_to_rename(table["duplicate_group"], names)
    if not mask.any():
        return table
    column = table["duplicate_group"].combine_chunks()
    made = pa.array([names[group] for group in column.filter(pa.array(mask)).to_pylist()], pa.string())
    at = table.schema.get_field_index("duplicate_group")
    return table.set_column(at, table.schema.field(at), pc.replace_with_mask(column, pa.array(mask), made))
