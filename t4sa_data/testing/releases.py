"""A miniature release, written by the same code as a real one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from t4sa_data import release
from t4sa_data.manifest import Manifest
from t4sa_data.miniature import Drawn, make_samples
from t4sa_data.pixels import inspect_image
from t4sa_data.schema import RECORD


def record_table(samples: Sequence[Drawn]) -> pa.Table:
    """The records of drawn samples, columns as `schema.RECORD`."""
    rows = []
    for sample in samples:
        seen = inspect_image(sample.image)
        rows.append(
            {
                "label": sample.label,
                "key": sample.key,
                "split": sample.split,
                "tweet_id": sample.tweet_id,
                "image_index": sample.image_index,
                "negative": sample.probabilities[0],
                "neutral": sample.probabilities[1],
                "positive": sample.probabilities[2],
                "confidence": max(sample.probabilities),
                "text": sample.text,
                "width": seen.width,
                "height": seen.height,
                "phash": seen.phash,
                "duplicate_group": sample.key,
                "sha256": hashlib.sha256(sample.image).hexdigest(),
            }
        )
    return pa.Table.from_pylist(rows, schema=RECORD)


def make_release(
    folder: Path | str,
    num_samples: int = 60,
    *,
    seed: int = 0,
    formats: Sequence[str] = release.FORMATS,
    shard_bytes: int = 60_000,
) -> dict[str, Manifest]:
    """Make a miniature release of config `b-t4sa` in `folder/t4sa` and `folder/t4sa-wds`: drawn pictures, no archive.

    Deterministic: equal arguments and toolchain give equal bytes. Needs no extra and no network.

    Args:
        folder: is made; what a release of the same name held there is replaced.
        num_samples: images over all splits, at least 27 for every class in every split.
        seed: another seed, other pictures.
        formats: of `parquet`, `wds`.
        shard_bytes: image bytes a shard aims at (small, so that there are several).

    Returns:
        The manifests as written, by format.
    """
    samples = make_samples(num_samples, seed=seed)
    images = {sample.key: sample.image for sample in samples}
    table = release.in_release_order(record_table(samples))
    keys = table["key"].to_pylist()
    image_bytes = np.array([len(images[key]) for key in keys], dtype=np.int64)
    tasks = release.plan_shards("b-t4sa", table, image_bytes, shard_bytes)
    written = [
        release.write_shard(
            Path(folder),
            task,
            table.slice(task.start, task.stop - task.start),
            (images[key] for key in keys[task.start : task.stop]),
            formats,
        )
        for task in tasks
    ]
    listed = {split: table["split"].to_pylist().count(split) for split in set(table["split"].to_pylist())}
    provenance = {"inputs": [], "settings": {"drawn": num_samples, "seed": seed}}
    layer = release.Layer(
        name="b-t4sa",
        table=table,
        tasks=tasks,
        written=written,
        image_bytes=image_bytes,
        listed=listed,
        provenance=provenance,
    )
    return {fmt: release.seal(Path(folder), fmt, [layer]) for fmt in formats}
