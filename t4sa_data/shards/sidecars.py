"""Small files that let other readers use the tar shards: derived from the sample table, never a second truth.

Formats: Megatron Energon (`X.tar.idx`, `.nv-meta/`), timm (`_info.json`), open_clip and datacomp (`sizes.json`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

ENERGON_VERSION = "7.4.1"
"""The Energon release these files were checked against; it is written into `.info.json`, as Energon does."""

_ENERGON_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def tar_index(sample_offsets: Sequence[int]) -> bytes:
    """`X.tar.idx`: N + 1 little-endian uint64, where each sample's first header is, then where the last one ends.

    >>> tar_index([0, 1536]).hex()
    '00000000000000000006000000000000'
    """
    return np.asarray(sample_offsets, dtype="<u8").tobytes()


def layer_sidecars(shards: Mapping[str, Mapping[str, int]]) -> dict[str, bytes]:
    """The sidecars of one layer: file name below the layer's folder -> bytes.

    Args:
        shards: split -> {tar's file name -> rows}, in release order.
    """
    counts = {name: rows for split in shards.values() for name, rows in split.items()}
    info = {
        "splits": {
            split: {
                "name": split,
                "num_samples": sum(files.values()),
                "filenames": list(files),
                "shard_lengths": list(files.values()),
            }
            for split, files in shards.items()
        }
    }
    return {
        "_info.json": _json(info),
        "sizes.json": _json(counts),
        ".nv-meta/.info.json": _json({"energon_version": ENERGON_VERSION, "shard_counts": counts}),
        ".nv-meta/split.yaml": _split_yaml(shards).encode(),
        ".nv-meta/dataset.yaml": b"__module__: megatron.energon\n__class__: CrudeWebdataset\nsubflavors: {}\n",
    }


def _split_yaml(shards: Mapping[str, Mapping[str, int]]) -> str:
    lines = ["exclude: []", "split_parts:"]
    for split, files in shards.items():
        lines.append(f"  {_ENERGON_SPLITS.get(split, split)}:")
        lines += [f"  - {name}" for name in files]
    return "\n".join(lines) + "\n"


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
