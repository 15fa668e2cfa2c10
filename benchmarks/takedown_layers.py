"""Slices of B-T4SA's layers for `takedown.py`: a few shards as large as the full layer's, of made-up pictures.

What n removals out of a layer do to a shard depends on how many of them hit it. So a slice of a hundredth of the rows
gets a hundredth of the removals, but at least one: one hit among shards of which each has one at most.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import synthetic

from t4sa_data import plan, release
from t4sa_data.catalog import PACKAGES, SPLIT_SIZES
from t4sa_data.manifest import FOLDERS
from t4sa_data.rewriting import drop_rows
from t4sa_data.shards import parquet

NUM_ROWS = sum(SPLIT_SIZES.values())
SMALL_SHARE = 0.196
"""Of an original's bytes, what its small picture has (`small_quality.py`, quality 85)."""
MEAN_BYTES = {"b-t4sa": (PACKAGES["b-t4sa"].num_bytes or 0) / NUM_ROWS}
MEAN_BYTES["b-t4sa-256"] = SMALL_SHARE * MEAN_BYTES["b-t4sa"]
SIGMA = 0.55
"""Deviation of the logarithm of a picture's bytes (526 photos of `shared/data/photos`)."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a layer is written."""

    layer: str
    fmt: str
    """`parquet` or `wds`."""
    shard_bytes: int
    """Image bytes a shard aims at."""
    group_bytes: int = parquet.ROW_GROUP_BYTES
    """Image bytes after which a row group ends (Parquet)."""
    group_rows: int = parquet.ROW_GROUP_ROWS

    def counts(self) -> dict[str, int]:
        """Shards of each split of the full layer."""
        mean = MEAN_BYTES[self.layer]
        return {name: plan.num_shards(n, int(n * mean), self.shard_bytes) for name, n in SPLIT_SIZES.items()}

    @property
    def rows_per_shard(self) -> int:
        """Of train."""
        return SPLIT_SIZES["train"] // self.counts()["train"]

    @property
    def real_bytes(self) -> float:
        """Image bytes of a shard of train."""
        return self.rows_per_shard * MEAN_BYTES[self.layer]

    def touched(self, num: int) -> float:
        """Share of the layer's shards that `num` removals hit, expected."""
        weights = {name: SPLIT_SIZES[name] / count / NUM_ROWS for name, count in self.counts().items()}
        return sum(count * weights[n] * (1 - (1 - weights[n]) ** num) for n, count in self.counts().items())

    def num_shards(self, most_bytes: float) -> int:
        """Shards of a slice: a power of two that fits, at least one."""
        return min(64, 1 << max(0, int(np.log2(max(1.0, most_bytes / self.real_bytes)))))


@cache
def sizes(layer: str) -> npt.NDArray[np.int64]:
    """Bytes of pictures, in turn: log-normal, with the layer's mean."""
    drawn = np.random.default_rng(7).lognormal(0, SIGMA, 65_536).clip(0.1, 8)
    return (drawn / drawn.mean() * MEAN_BYTES[layer]).astype(np.int64)


def picture(layer: str, number: int) -> bytes:
    """Random bytes behind a JPEG's mark: nothing here decodes, and JPEG does not compress."""
    size = sizes(layer)[number % 65_536]
    return b"\xff\xd8\xff" + np.random.default_rng((number, len(layer))).bytes(int(size) - 3)


@cache
def _words() -> npt.NDArray[np.str_]:
    rng = np.random.default_rng(1)
    letters = rng.integers(97, 123, (20_000, 9), dtype=np.uint8)
    return np.array([bytes(row[: 2 + i % 8]).decode() for i, row in enumerate(letters)])


def records(num: int, sha256: list[str]) -> pa.Table:
    """`num` records of train in release order, their texts and numbers as hard to compress as real ones'."""
    table, rng = synthetic.record_table(num, 0, sha256), np.random.default_rng(2)
    which = (20_000 * rng.random((num, 16)) ** 4).astype(np.int64)  # few words are most of a text
    texts = [" ".join(row) for row in _words()[which]]
    confidence = rng.uniform(0.86, 1, num).astype(np.float32)
    rest = ((1 - confidence) * rng.random(num)).astype(np.float32)
    ids = np.asarray(table["tweet_id"]) + rng.integers(0, synthetic._STEP, num)  # the number of a row stays readable
    keys = [f"{one}-1" for one in ids.tolist()]
    columns = {"tweet_id": ids, "key": keys, "duplicate_group": keys, "text": texts}
    columns |= {"positive": confidence, "confidence": confidence, "neutral": rest}
    columns |= {"negative": 1 - confidence - rest, "width": rng.integers(340, 1200, num)}
    columns |= {"height": rng.integers(340, 1200, num)}
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
    return table


def make_slice(out: Path, layout: Layout, num_shards: int) -> npt.NDArray[np.int64]:
    """Write a slice by the package's own code; bytes of each picture in release order, shape (rows,)."""
    rows = num_shards * layout.rows_per_shard
    table = records(rows, [hashlib.sha256(picture(layout.layer, n)).hexdigest() for n in range(rows)])
    order = synthetic._numbers(table)
    image_bytes = sizes(layout.layer)[np.array(order) % 65_536]
    tasks = release.plan_shards(layout.layer, table, image_bytes, int(image_bytes.sum()) // num_shards + 1)
    assert len(tasks) == num_shards
    with grouped(layout):
        written = [
            release.write_shard(out, task, table.slice(task.start, task.num_rows), _pictures(layout, order, task),
                                [layout.fmt])
            for task in tasks
        ]  # fmt: skip
    layer = release.Layer(name=layout.layer, table=table, tasks=tasks, written=written, image_bytes=image_bytes)
    release.seal(out, layout.fmt, [layer])
    return image_bytes


def _pictures(layout: Layout, order: list[int], task: release.ShardTask) -> Iterator[bytes]:
    return (picture(layout.layer, number) for number in order[task.start : task.stop])


def grouped(layout: Layout) -> mock._patch_dict:
    """The row groups of a layout, for as long as the context lasts."""
    return mock.patch.multiple(parquet, ROW_GROUP_BYTES=layout.group_bytes, ROW_GROUP_ROWS=layout.group_rows)


def take_down(base: Path, out: Path, layout: Layout, rows: npt.NDArray[np.int64], num_rows: int) -> list[str]:
    """A copy of a slice without some rows; names of the shards that were written anew."""
    folder = out / FOLDERS[layout.fmt]
    shutil.copytree(base / FOLDERS[layout.fmt], folder, copy_function=os.link)  # files are replaced, never written to
    mask = np.zeros(num_rows, dtype=np.bool_)
    mask[rows] = True
    with grouped(layout):
        return list(drop_rows(folder, {layout.layer: mask}).shards)


def whole_layer(layout: Layout, drop: npt.NDArray[np.int64]) -> release.Layer:
    """The full layer without some rows, as `release.seal` wants it: records and places; no shard is written.

    Args:
        layout: its shards.
        drop: rows that have gone, of their shards; shards keep their names.
    """
    table, image_bytes = _whole_table(layout.layer)
    keep = np.ones(NUM_ROWS, dtype=np.bool_)
    keep[drop] = False
    tasks, written, start, at = [], [], 0, 0
    for split, count in layout.counts().items():
        for index, (low, high) in enumerate(plan.even_bounds(SPLIT_SIZES[split], count)):
            lengths = image_bytes[at + low : at + high][keep[at + low : at + high]]
            task = release.ShardTask(
                layer=layout.layer, split=split, index=index, count=count, start=start, stop=start + len(lengths)
            )
            tasks.append(task)
            written.append({layout.fmt: _places(task, lengths)})
            start = task.stop
        at += SPLIT_SIZES[split]
    kept = table.filter(pa.array(keep)).combine_chunks()
    return release.Layer(name=layout.layer, table=kept, tasks=tasks, written=written, image_bytes=image_bytes[keep])


def _places(task: release.ShardTask, lengths: npt.NDArray[np.int64]) -> release.WrittenFile:
    """Places in a shard that holds some 2 KB beside each picture, as a tar does."""
    ends = np.cumsum([0, *(-(-lengths // 512) * 512 + 2560)])
    name = hashlib.sha256(f"{task}".encode()).hexdigest()
    return release.WrittenFile(
        bytes=int(ends[-1]), sha256=name, offsets=ends[:-1] + 512, lengths=lengths, sample_offsets=ends
    )


@cache
def _whole_table(layer: str) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Records of the full layer in the order of its splits, and bytes of its pictures."""
    table = records(NUM_ROWS, [hashlib.sha256(b"%d" % number).hexdigest() for number in range(NUM_ROWS)])
    splits = pa.array(np.repeat(list(SPLIT_SIZES), list(SPLIT_SIZES.values())).tolist(), pa.string())
    at = table.schema.get_field_index("split")
    return table.set_column(at, "split", splits), np.resize(sizes(layer), NUM_ROWS)
