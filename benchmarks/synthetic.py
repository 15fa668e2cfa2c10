"""Releases of any size for the loader's benchmarks: made-up records, as wide as real ones, written by the package."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import common
import numpy as np
import pyarrow as pa

from t4sa_data import release
from t4sa_data.schema import RECORD

NUM_TEMPLATES = 512
NUM_SHARED = 4096
_FIRST_ID, _STEP = 757_000_000_000_000_000, 11_000_000_000


def record_table(num: int, first: int, sha256: Sequence[str]) -> pa.Table:
    """`num` made-up records of train in release order; the tweet id tells a row's number.

    Args:
        num: rows.
        first: number of the first one.
        sha256: of the pictures; row i has the i-th, modulo their number.
    """
    rng, numbers = np.random.default_rng(first), np.arange(first, first + num)
    tweet_id = _FIRST_ID + numbers * _STEP
    label = rng.integers(0, 3, num)
    p_N3 = np.full((num, 3), 0.05, dtype=np.float32)
    p_N3[np.arange(num), label] = rng.uniform(0.85, 0.9, num)
    keys = pa.array([f"{one}-1" for one in tweet_id.tolist()])
    columns = {
        "label": label,
        "key": keys,
        "split": pa.repeat("train", num),
        "tweet_id": tweet_id,
        "image_index": np.ones(num, np.int8),
        **{name: p_N3[:, i] for i, name in enumerate(("negative", "neutral", "positive"))},
        "confidence": p_N3.max(axis=1),
        "text": pa.array([common._text(number) for number in numbers.tolist()]),
        "width": np.full(num, 48, np.int32),
        "height": np.full(num, 48, np.int32),
        "phash": pa.array([f"{one:016x}" for one in rng.integers(0, 2**63, num).tolist()]),
        "duplicate_group": keys,
        "sha256": pa.array([sha256[number % len(sha256)] for number in numbers.tolist()]),
    }
    return release.in_release_order(pa.table(columns, schema=RECORD))


def _numbers(table: pa.Table) -> list[int]:
    """The row numbers of a table's rows."""
    return ((table["tweet_id"].to_numpy() - _FIRST_ID) // _STEP).tolist()


def make_tiny(folder: Path, num: int) -> int:
    """A release of `num` samples of about 1.2 KB in up to 64 tar shards; bytes of its pictures."""
    templates = _templates()
    return make_tars(folder, num, 64, lambda i: common.with_comment(templates[i % NUM_TEMPLATES], b"%d" % i))


def _templates() -> list[bytes]:
    return [common.draw_jpeg(seed, 48, 48, quality=75) for seed in range(NUM_TEMPLATES)]


def make_tars(folder: Path, num: int, num_shards: int, image: Callable[[int], bytes]) -> int:
    """A release of `num` samples in tar shards, all in one split, written by the package's own code.

    Args:
        folder: of `t4sa-wds/`.
        num: samples.
        num_shards: at most so many; a power of two.
        image: a sample's picture by its number.

    Returns:
        Bytes of all pictures.
    """
    table = record_table(num, 0, [hashlib.sha256(image(number)).hexdigest() for number in range(num)])
    order = _numbers(table)
    image_bytes = np.array([len(image(number)) for number in order], dtype=np.int64)
    tasks = release.plan_shards("b-t4sa", table, image_bytes, int(image_bytes.sum()) // num_shards + 1)
    written = [
        release.write_shard(
            folder,
            task,
            table.slice(task.start, task.num_rows),
            (image(number) for number in order[task.start : task.stop]),
            ["wds"],
        )
        for task in tasks
    ]
    layer = release.Layer(name="b-t4sa", table=table, tasks=tasks, written=written, image_bytes=image_bytes)
    release.seal(folder, "wds", [layer])
    return int(image_bytes.sum())


def make_shared(folder: Path, layers: dict[str, int], images: dict[str, Sequence[bytes]] | None = None) -> None:
    """A release whose rows all point into one file a layer; `parquet`: it has no sidecars.

    Args:
        folder: of `t4sa/`.
        layers: rows of each layer.
        images: pictures of each layer; None: 4,096 tiny ones, the same in all.
    """
    if images is None:
        templates = _templates()
        tiny = [common.with_comment(templates[i % NUM_TEMPLATES], b"%d" % i) for i in range(NUM_SHARED)]
        images = dict.fromkeys(layers, tiny)
    made, first = [], 0
    for name, num in layers.items():
        lengths = np.array([len(image) for image in images[name]], dtype=np.int64)
        starts, data = np.cumsum(lengths) - lengths, b"".join(images[name])
        table = record_table(num, first, [hashlib.sha256(image).hexdigest() for image in images[name]])
        which = np.array(_numbers(table)) % len(images[name])
        task = release.ShardTask(layer=name, split="train", index=0, count=1, start=0, stop=num)
        path = folder / "t4sa" / task.name("parquet")
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        file = release.WrittenFile(
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            offsets=starts[which],
            lengths=lengths[which],
            sample_offsets=np.zeros(0, np.int64),
        )
        written = [{"parquet": file}]
        made.append(release.Layer(name=name, table=table, tasks=[task], written=written, image_bytes=lengths[which]))
        first += num
    release.seal(folder, "parquet", made)
