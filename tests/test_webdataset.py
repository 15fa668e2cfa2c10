"""The recipe for `webdataset`: every sample once over nodes and workers, and damage that is not skipped."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("torch")
wds = pytest.importorskip("webdataset")

from torch.utils.data import DataLoader  # noqa: E402

import t4sa_data  # noqa: E402
from t4sa_data.errors import BadOption, ConfigUnavailable, ShardError  # noqa: E402
from t4sa_data.pixels import decode_rgb  # noqa: E402
from t4sa_data.streaming.wds import shard_paths  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves the closing to the collector


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What webdataset left open is closed here, not in another test."""
    yield
    gc.collect()


def test_rows_are_those_of_the_release(releases: Path, truth: pa.Table) -> None:
    rows = [row for row in truth.to_pylist() if row["split"] == "test"]
    found = list(t4sa_data.webdataset(releases, split="test", shuffle=0, decode="rgb"))
    assert [sample["__key__"] for sample in found] == [row["key"] for row in rows]
    for sample, row in zip(found, rows, strict=True):
        assert sample["label"] == row["label"]
        assert sample["json"]["sha256"] == row["sha256"]
        assert np.array_equal(sample["image"], np.asarray(decode_rgb(row["bytes"])))
    raw = next(iter(t4sa_data.webdataset(releases, split="test", shuffle=0, decode=None)))
    assert raw["image"] == rows[0]["bytes"]


def test_a_shuffle_is_seeded_and_each_epoch_is_another(releases: Path) -> None:
    def keys(seed: int, epoch: int) -> list[str]:
        pipeline = t4sa_data.webdataset(releases, shuffle=100, seed=seed, decode=None)
        orders = [[sample["__key__"] for sample in pipeline] for _ in range(epoch + 1)]
        return orders[epoch]

    assert keys(1, 0) == keys(1, 0) != keys(2, 0)
    assert sorted(keys(1, 0)) == sorted(keys(1, 1))
    assert keys(1, 0) != keys(1, 1)


def test_workers_and_nodes_share_the_shards(releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_shards = len(shard_paths(releases, "b-t4sa", "train"))
    seen: list[str] = []
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        pipeline = t4sa_data.webdataset(releases, decode=None).map(lambda sample: sample["__key__"])
        seen += list(pipeline)
    monkeypatch.delenv("RANK"), monkeypatch.delenv("WORLD_SIZE")
    every = [sample["__key__"] for sample in t4sa_data.webdataset(releases, decode=None)]
    assert sorted(seen) == sorted(every)
    loader = DataLoader(t4sa_data.webdataset(releases, decode=None).to_tuple("__key__"), batch_size=None, num_workers=2)
    assert sorted(key for (key,) in loader) == sorted(every)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(num_shards + 1))
    with pytest.raises(BadOption, match="fewer shards than processes"):
        list(t4sa_data.webdataset(releases, decode=None))


def test_a_cut_shard_is_an_error_not_fewer_rows(releases: Path, tmp_path: Path) -> None:
    shutil.copytree(releases / "t4sa-wds", tmp_path / "t4sa-wds")
    shard = Path(shard_paths(tmp_path, "b-t4sa", "test")[0])
    data = shard.read_bytes()
    pipeline = t4sa_data.webdataset(tmp_path, split="test", shuffle=0, decode=None)
    shard.write_bytes(data[: len(data) // 2])  # after it was looked at: the tar reader meets it
    with pytest.raises(Exception, match=r"(?i)unexpected end|truncated|read"):
        list(pipeline)
    with pytest.raises(ShardError, match="size"):
        t4sa_data.webdataset(tmp_path, split="test")


def test_what_has_no_tars_is_refused(releases: Path, tmp_path: Path) -> None:
    shutil.copytree(releases / "t4sa", tmp_path / "t4sa")
    for path in (tmp_path / "t4sa", "https://example.org/t4sa-wds"):
        with pytest.raises(ConfigUnavailable, match=r"t4sa_data\.stream"):
            t4sa_data.webdataset(path)
    with pytest.raises(BadOption):
        t4sa_data.webdataset(releases, decode="jpg")
