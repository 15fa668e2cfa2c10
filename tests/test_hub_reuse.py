"""What a takedown leaves of a shard's bytes, and what the real client of the Hub then sends."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t4sa_data import release, rewriting
from t4sa_data.manifest import FOLDERS
from t4sa_data.schema import RECORD
from t4sa_data.shards import parquet, read_table
from t4sa_data.testing import check_release
from tests.hub_double import xet

NUM_ROWS = 128
SEND = """
import sys, hf_xet
for folder in sys.argv[2:]:
    commit = hf_xet.XetSession().new_upload_commit(endpoint=sys.argv[1])
    commit.start_upload_file(folder, sha256=hf_xet.COMPUTE_SHA256)
    print(commit.wait_to_finish().dedup_metrics.total_bytes_uploaded)
"""


def make(out: Path, fmt: str, largest: int = 60_000) -> list[int]:
    """A release of one shard of pictures of 20 KB and more (nothing decodes them); their sizes in its order."""
    rng = np.random.default_rng(3)
    images = [rng.bytes(int(size)) for size in rng.integers(20_000, largest, NUM_ROWS)]
    rows = [
        {"label": i % 3, "key": f"{i + 1}-1", "split": "train", "tweet_id": i + 1, "image_index": 1, "width": 8,
         "height": 8, "phash": rng.bytes(8).hex(), "duplicate_group": f"{i + 1}-1",
         "sha256": hashlib.sha256(image).hexdigest(), "text": rng.bytes(50).hex()}
        for i, image in enumerate(images)
    ]  # fmt: skip
    table = release.in_release_order(pa.Table.from_pylist(rows, schema=RECORD))
    order = [one - 1 for one in table["tweet_id"].to_pylist()]
    image_bytes = np.array([len(images[i]) for i in order])
    tasks = release.plan_shards("b-t4sa", table, image_bytes, 1 << 40)
    written = [release.write_shard(out, tasks[0], table, (images[i] for i in order), [fmt])]
    layer = release.Layer(name="b-t4sa", table=table, tasks=tasks, written=written, image_bytes=image_bytes)
    release.seal(out, fmt, [layer])
    return image_bytes.tolist()


def take_down(out: Path, fmt: str, rows: list[int]) -> tuple[Path, Path]:
    """The shard before and after."""
    folder = out / FOLDERS[fmt]
    shard = folder / read_table(folder / "b-t4sa" / "index.parquet")["file"][0].as_py()
    before = out / f"before{shard.suffix}"
    before.write_bytes(shard.read_bytes())
    mask = np.zeros(NUM_ROWS, dtype=bool)
    mask[rows] = True
    rewriting.drop_rows(folder, {"b-t4sa": mask})
    return before, shard


def groups(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


@pytest.mark.parametrize(
    ("rows", "left"),
    [([40], [30, 29, 30, 30, 8]), ([0, 119, 120], [29, 30, 30, 29, 7]), ([*range(30, 60)], [30, 30, 30, 8])],
)
def test_row_groups_keep_their_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int], left: list[int]
) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 30)
    make(tmp_path, "parquet")
    before, after = take_down(tmp_path, "parquet", rows)
    assert groups(before) == [30, 30, 30, 30, 8] and groups(after) == left
    old, new = pq.read_table(before, partitioning=None), pq.read_table(after, partitioning=None)
    assert new.equals(old.take(pa.array(sorted(set(range(NUM_ROWS)) - set(rows)))))
    faults = check_release(after.parents[1], deep=False).faults
    assert not faults, [str(fault) for fault in faults]


def test_all_pages_but_that_of_the_image_are_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", 30)
    make(tmp_path, "parquet")
    before, after = take_down(tmp_path, "parquet", [40])
    old, new = before.read_bytes(), after.read_bytes()
    (offsets, lengths), (kept, _) = parquet.image_spans(before), parquet.image_spans(after)
    ends = offsets + lengths
    start, stop = int(offsets[30]), int(ends[59])
    assert 0 < ends[40] - ends[39] - lengths[40] < 100  # and the head of its page
    assert new[start : stop - int(ends[40] - ends[39])] == old[start : ends[39]] + old[ends[40] : stop]
    assert old[offsets[60] : offsets[119]] == new[kept[59] : kept[118]]  # records included


@pytest.mark.parametrize("fmt", release.FORMATS)
def test_a_takedown_sends_at_most_five_times_what_it_removes(tmp_path: Path, fmt: str) -> None:
    if not xet.works():
        pytest.skip("hf_xet has no store in a folder")
    sizes = make(tmp_path, fmt, 240_000)
    before, after = take_down(tmp_path, fmt, [20, 70, 110])
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", SEND, f"local://{tmp_path}/cas", str(before), str(after)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    first, second = map(int, done.stdout.split())
    removed = sum(sizes[row] for row in (20, 70, 110))
    assert first >= sum(sizes) > 20 * removed
    assert 0 < second <= 5 * removed
