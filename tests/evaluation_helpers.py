"""What the tests of the evaluation share: releases with both layers, tables of made-up predictions, small models."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from t4sa_data import release
from t4sa_data.miniature import draw, make_samples
from t4sa_data.pixels import inspect_image
from t4sa_data.schema import TWITTER_TESTING_RECORD
from t4sa_data.testing.releases import record_table


def make_both(folder: Path, num: int = 60, num_twitter: int = 30) -> None:
    """A release with `b-t4sa` and `twitter-testing`, drawn pictures, Parquet."""
    samples = make_samples(num)
    layers = [_layer(folder, "b-t4sa", record_table(samples), {one.key: one.image for one in samples})]
    table, images = twitter_rows(num_twitter)
    layers.append(_layer(folder, "twitter-testing", table, images))
    release.seal(folder, "parquet", layers)


def twitter_rows(num: int) -> tuple[pa.Table, dict[str, bytes]]:
    """Records of a Twitter Testing Dataset, and its pictures by key."""
    rng, rows, images = random.Random(5), [], {}
    for i in range(num):
        label, key = 2 * (i % 3 != 0), f"{463572714947481600 + 97 * i}-1"
        images[key] = draw(label, rng)
        seen = inspect_image(images[key])
        row: dict[str, Any] = dict.fromkeys(TWITTER_TESTING_RECORD.names)
        row |= {"label": label, "key": key, "split": "test", "tweet_id": int(key[:-2]), "image_index": 1}
        row |= {"width": seen.width, "height": seen.height, "phash": seen.phash, "duplicate_group": key}
        row |= {"media_key": f"B{i:014d}", "agreement": (5, 5, 4, 3)[i % 4], "sha256": "0" * 64}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=TWITTER_TESTING_RECORD), images


def _layer(folder: Path, name: str, table: pa.Table, images: dict[str, bytes]) -> release.Layer:
    table = release.in_release_order(table)
    keys = table["key"].to_pylist()
    sizes = np.array([len(images[key]) for key in keys], dtype=np.int64)
    tasks = release.plan_shards(name, table, sizes, 60_000)
    written = [
        release.write_shard(
            folder,
            task,
            table.slice(task.start, task.stop - task.start),
            (images[key] for key in keys[task.start : task.stop]),
            ("parquet",),
        )
        for task in tasks
    ]
    splits = table["split"].to_pylist()
    return release.Layer(
        name=name,
        table=table,
        tasks=tasks,
        written=written,
        image_bytes=sizes,
        listed={split: splits.count(split) for split in set(splits)},
        provenance={"inputs": [], "settings": {}},
    )


def made_up(truth: pa.Table, *, seed: int = 0, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and logits [n, 3] of a guesser that knows the labels a little."""
    rng = np.random.default_rng(seed)
    label = truth["label"].to_numpy()
    logits = rng.normal(size=(len(label), 3))
    logits[np.arange(len(label)), label] += skill
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), logits


def truth_of(n: int, *, twitter: bool = False, seed: int = 1) -> pa.Table:
    """What a release would know about n samples."""
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {"key": [f"{10**15 + k}-1" for k in range(n)]}
    if twitter:
        values["label"] = 2 * (rng.random(n) < 0.6).astype(np.int64)
        values["agreement"] = pa.array([(5, 5, 4, 3)[k % 4] for k in range(n)], pa.int8())
    else:
        values["label"] = rng.integers(0, 3, n)
        values["confidence"] = pa.array(1 - 0.3 * rng.random(n) ** 2, pa.float32())
    return pa.table(values)


def save_smoke(folder: Path, *, classes: tuple[str, ...] = ("negative", "neutral", "positive"), seed: int = 0) -> Path:
    """A model folder with a small, untrained network; columns follow `classes`, the function stays the same."""
    import torch

    from examples.models import build, default_input, head_of
    from examples.models.folder import Model, save_model
    from t4sa_data.catalog import CLASSES

    torch.manual_seed(seed)
    network = build("smoke", width=0.5)
    head = network.state_dict()
    order = [CLASSES.index(name) for name in classes]
    for name in (f"{head_of(network)}.weight", f"{head_of(network)}.bias"):
        head[name].copy_(head[name][order].clone())
    save_model(
        folder, Model(network=network, architecture="smoke", input=default_input("smoke"), classes=classes, width=0.5)
    )
    return folder
