"""Take samples out of a release in place: rows leave the sample table, bytes in the archive become zeros."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from t4sa_data import regrouping, release
from t4sa_data.errors import NoRows
from t4sa_data.files import explain_os_errors, sha256_file
from t4sa_data.manifest import Manifest
from t4sa_data.regrouping import Mask
from t4sa_data.schema import record_schema
from t4sa_data.shards import TABLE_NAME, read_table


def blank_rows(folder: Path, manifest: Manifest, layer: str, drop: Mask, note: Mapping[str, Any]) -> Manifest:
    """Take rows out of a release in place, and their bytes out of its archives. Killed, the same call goes on.

    The archives are read once, for their new sha256. Members keep their places: the archive stays a tar.

    Args:
        folder: `RAW/t4sa-inplace`.
        manifest: of it.
        layer: its one layer.
        drop: True for each row that goes, shape (rows,).
        note: joins the layer's provenance, under `removals`.

    Raises:
        NoRows: no row would be left.
        OutputError: an archive cannot be written.
    """
    if drop.all():
        raise NoRows("a layer would lose its last row", got=layer, where=folder, hint="Delete the folder.")
    names = regrouping.new_names(manifest, lambda name: folder / name / TABLE_NAME, {layer: drop})
    table = regrouping.renamed(read_table(folder / layer / TABLE_NAME, layer=layer), names)
    gone, kept = table.filter(pa.array(drop)), table.filter(pa.array(~drop))
    archives = []
    for file in manifest.files:
        if file.layer is None:
            continue
        rows = gone.filter(pc.equal(gone["file"], file.name))
        path = manifest.path(folder, file)
        if rows.num_rows:
            with explain_os_errors(path):
                _blank(path, list(zip(rows["offset"].to_pylist(), rows["length"].to_pylist(), strict=True)))
            file = replace(file, sha256=sha256_file(path))
        archives.append(replace(file, layer=None))
    entry = manifest.layers[layer]
    before = int(entry.provenance.get("removals", {}).get("rows", 0))
    made = release.Layer(
        name=layer,
        table=kept.select(record_schema(layer).names),
        tasks=(),
        written=(),
        image_bytes=np.asarray(kept["length"], dtype=np.int64),
        listed={name: split.listed for name, split in entry.splits.items() if split.listed is not None},
        quarantined={name: split.quarantined for name, split in entry.splits.items()},
        provenance={**entry.provenance, "removals": {**note, "rows": before + gone.num_rows}},
    )
    offsets = np.asarray(kept["offset"], dtype=np.int64)
    root = folder / manifest.data_root
    return release.seal_in_place(root.resolve(), made, kept["file"].to_pylist(), offsets, archives)


def _blank(path: Path, ranges: Sequence[tuple[int, int]]) -> None:
    """Write zeros over ranges (offset, length) of a file."""
    with path.open("r+b") as file:
        for offset, length in ranges:
            file.seek(offset)
            file.write(bytes(length))
        file.flush()
        os.fsync(file.fileno())
