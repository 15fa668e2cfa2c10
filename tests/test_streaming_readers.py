"""The same epoch by other readers: our loader, webdataset, datasets and tarfile see the same samples, each once."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")
from t4sa_data import stream
from t4sa_data.testing import make_release

Seen = Counter[tuple[str, int, str]]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    make_release(folder, 60, shard_bytes=30_000)
    return folder


@pytest.fixture(scope="module")
def by_tarfile(path: Path) -> Seen:
    made: Seen = Counter()
    for shard in sorted((path / "t4sa-wds" / "b-t4sa").glob("train-*.tar")):
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, data in members.items():
            if name.endswith(".jpg"):
                key = name.removesuffix(".jpg")
                made[key, int(members[f"{key}.cls"]), hashlib.sha256(data).hexdigest()] += 1
    assert len(made) > 40
    return made


@pytest.mark.parametrize("folder", ["t4sa", "t4sa-wds"])
@pytest.mark.parametrize("workers", [1, 3])
def test_our_loader(path: Path, by_tarfile: Seen, folder: str, workers: int) -> None:
    made: Seen = Counter()
    for rank in range(2):
        loader = stream(
            path / folder, batch_size=7, tail="ragged", decode=None, workers=workers, rank=rank, world_size=2
        )
        for batch in loader:
            for key, label, data in zip(batch["key"], batch["label"].tolist(), batch["image"], strict=True):
                made[key, label, hashlib.sha256(data).hexdigest()] += 1
    assert made == by_tarfile


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # its files
def test_webdataset(path: Path, by_tarfile: Seen) -> None:
    wds = pytest.importorskip("webdataset")
    shards = [str(shard) for shard in sorted((path / "t4sa-wds" / "b-t4sa").glob("train-*.tar"))]
    made: Seen = Counter()
    for sample in wds.WebDataset(shards, shardshuffle=False, empty_check=False):
        assert json.loads(sample["json"])["key"] == sample["__key__"]
        made[sample["__key__"], int(sample["cls"]), hashlib.sha256(sample["jpg"]).hexdigest()] += 1
    assert made == by_tarfile


def test_datasets(path: Path, by_tarfile: Seen, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    shards = [str(shard) for shard in sorted((path / "t4sa" / "b-t4sa").glob("train-*.parquet"))]
    rows = datasets.load_dataset("parquet", data_files={"train": shards}, split="train", streaming=True)
    made: Seen = Counter()
    for row in rows.cast_column("image", datasets.Image(decode=False)):
        made[row["key"], row["label"], hashlib.sha256(row["image"]["bytes"]).hexdigest()] += 1
    assert made == by_tarfile
