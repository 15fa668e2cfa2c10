"""The config `miniature`: drawn on the spot, offline."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from t4sa_data import release
from t4sa_data.loading.local import literal, load_parquet
from t4sa_data.loading.request import Request, wanted_splits
from t4sa_data.manifest import content_digest
from t4sa_data.miniature import make_samples
from t4sa_data.testing.releases import record_table

MINIATURE_SAMPLES = 90
"""Images of the config `miniature` over its three splits."""
_MINIATURE_SHARD_BYTES = 100_000  # several shards, so that workers have something to share


def load(request: Request) -> Any:
    """Draw the miniature, write it beside the Arrow cache under a name that follows its content, and load that."""
    samples = make_samples(MINIATURE_SAMPLES)
    images = {sample.key: sample.image for sample in samples}
    table = release.in_release_order(record_table(samples))
    keys = table["key"].to_pylist()
    digest = hashlib.sha256(f"{content_digest(table)} {dict(release.toolchain())}".encode()).hexdigest()[:16]
    out = request.cache_folder().absolute() / "t4sa-miniature" / digest
    image_bytes = np.array([len(images[key]) for key in keys], dtype=np.int64)
    files: dict[str, list[str]] = {}
    for task in release.plan_shards("miniature", table, image_bytes, _MINIATURE_SHARD_BYTES):
        shard = out / "t4sa" / task.name("parquet")
        if not shard.exists():
            rows = table.slice(task.start, task.stop - task.start)
            release.write_shard(out, task, rows, (images[k] for k in keys[task.start : task.stop]), ("parquet",))
        files.setdefault(task.split, []).append(literal(shard))
    wanted = wanted_splits(request.split, list(files), streaming=request.streaming)
    return load_parquet(request, None, {}, {split: files[split] for split in wanted})
