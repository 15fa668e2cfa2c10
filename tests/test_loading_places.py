"""`load_dataset` on releases of this machine: where it is looked for, what is refused, what is left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import t4sa_data
from t4sa_data import places
from t4sa_data.errors import (
    DiskSpaceError,
    ManifestError,
    ReleaseNotFound,
    ShardError,
)
from t4sa_data.testing import make_release

pytestmark = pytest.mark.usefixtures("alone")

SURE = [("confidence", ">=", 0.95)]


def of_split(truth: pa.Table, *splits: str) -> pa.Table:
    return pa.concat_tables([truth.filter(pc.field("split") == split) for split in splits])


def test_order_of_places(releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[str, str]:
        place = places.find()
        return place.kind, str(place.path or place.url)

    assert found() == ("Hub", "hf://datasets/t4sa/t4sa@v1")
    shutil.copytree(releases / "t4sa", tmp_path / "platform" / "t4sa" / "t4sa")
    assert found() == ("data folder", str(tmp_path / "platform" / "t4sa" / "t4sa"))
    Path("t4sa").mkdir()
    Path("t4sa/manifest.json").write_text('{"somebody": "else"}')
    assert found()[0] == "data folder", "./t4sa counts with our manifest only"
    shutil.rmtree("t4sa")
    shutil.copytree(releases / "t4sa", "t4sa")
    assert found() == ("working folder", str(Path("t4sa").absolute()))
    monkeypatch.setenv("T4SA_HOME", str(releases))
    assert found() == ("T4SA_HOME", str(releases / "t4sa"))
    assert places.find(data_dir=Path("t4sa")).path == Path("t4sa").absolute()
    assert places.find(revision="v1.0").kind == "T4SA_HOME"
    assert places.find(revision="v2").kind == "Hub"
    monkeypatch.setenv("T4SA_NAMESPACE", "me")
    monkeypatch.setenv("T4SA_REVISION", "main")
    first, *_, last = places.candidates()
    assert last.url == "hf://datasets/me/t4sa@main" and last.found is None
    assert first.found and first.configs == ("b-t4sa",) and first.bytes is not None
    assert first.bytes == sum(
        f.stat().st_size for f in first.path.rglob("*") if f.name != "manifest.json" and f.is_file()
    )


@pytest.mark.parametrize("named", [".", "t4sa", "t4sa-wds"])
def test_a_folder_that_is_named(releases: Path, truth: pa.Table, named: str) -> None:
    expected = of_split(truth, "validation")["key"].to_pylist()
    for asked in ({"path": str(releases / named)}, {"path": "t4sa", "data_dir": releases / named}):
        assert t4sa_data.load_dataset(**asked, split="validation")["key"] == expected


def test_tars_alone_answer_to_the_name(releases: Path, tmp_path: Path, truth: pa.Table) -> None:
    shutil.copytree(releases / "t4sa-wds", "t4sa-wds")
    assert t4sa_data.load_dataset("t4sa", split="test")["key"] == of_split(truth, "test")["key"].to_pylist()


def test_folders_that_are_not_what_they_should_be(releases: Path, tmp_path: Path) -> None:
    with pytest.raises(ReleaseNotFound, match=r"no release here.*t4sa prepare"):
        t4sa_data.load_dataset("t4sa", data_dir=tmp_path)
    shutil.copytree(releases / "t4sa", "t4sa")
    value = json.loads(Path("t4sa/manifest.json").read_bytes())
    Path("t4sa/manifest.json").write_text(json.dumps(value | {"format_version": 99}))
    with pytest.raises(ManifestError, match="99"):
        t4sa_data.load_dataset("t4sa")
    Path("t4sa/manifest.json").write_text("{")
    with pytest.raises(ManifestError, match="no JSON"):
        t4sa_data.load_dataset("t4sa")


def test_a_rebuilt_release_is_not_served_from_the_cache(tmp_path: Path) -> None:
    for name in ("t4sa", "t4sa-wds"):
        made = []
        for num_samples in (40, 50):
            make_release(tmp_path / "again", num_samples)
            made.append(t4sa_data.load_dataset(name, split="train", data_dir=tmp_path / "again").num_rows)
        assert made[0] < made[1]


def test_cut_tar_is_named(releases: Path, tmp_path: Path) -> None:
    shutil.copytree(releases / "t4sa-wds", tmp_path / "t4sa-wds")
    stream = t4sa_data.load_dataset(tmp_path / "t4sa-wds", split="test", streaming=True)
    (shard,) = (tmp_path / "t4sa-wds" / "b-t4sa").glob("test-*.tar")
    os.truncate(shard, 3000)
    with pytest.raises(ShardError, match="runs past the end"):
        list(stream)


def test_paths_with_signs_that_mean_something_elsewhere(releases: Path, tmp_path: Path, truth: pa.Table) -> None:
    odd = tmp_path / "a[b]c *d" / ".hidden"
    shutil.copytree(releases, odd)
    for name in ("t4sa", "t4sa-wds"):
        loaded = t4sa_data.load_dataset(odd / name, split="test")
        assert loaded["key"] == of_split(truth, "test")["key"].to_pylist()


Usage = namedtuple("Usage", "total used free")


def test_disk_space_is_asked_for_before_it_is_needed(
    home: Path, tmp_path: Path, truth: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
    for name in ("t4sa", "t4sa-wds"):
        with pytest.raises(DiskSpaceError) as caught:
            t4sa_data.load_dataset(name, cache_dir=tmp_path / "new" / "cache")
        message = str(caught.value)
        for part in ("b-t4sa (train, validation, test)", "kB Arrow copy", "1.0 kB free", str(tmp_path)):
            assert part in message
        for way_out in ("streaming=True", 'split="test"', "b-t4sa-256", "cache_dir=", "T4SA_SKIP_DISK_CHECK=1"):
            assert way_out in message
    assert next(iter(t4sa_data.load_dataset("t4sa", split="test", streaming=True)))["label"] in (0, 1, 2)
    monkeypatch.setenv("T4SA_SKIP_DISK_CHECK", "1")
    for name in ("t4sa", "t4sa-wds"):
        assert t4sa_data.load_dataset(name, split="test", cache_dir=tmp_path / "new").num_rows > 0
    monkeypatch.delenv("T4SA_SKIP_DISK_CHECK")
    for name in ("t4sa", "t4sa-wds"):  # the copy stands already: nothing is needed
        assert t4sa_data.load_dataset(name, split="test", cache_dir=tmp_path / "new").num_rows > 0


def test_disk_space_follows_split_and_columns(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = places.find().manifest.shards("b-t4sa", "test")
    free = sum(file.bytes for file in shards) + 10
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - free, free))
    assert t4sa_data.load_dataset("t4sa", split="test", cache_dir=tmp_path / "a").num_rows == 3
    with pytest.raises(DiskSpaceError):
        t4sa_data.load_dataset("t4sa", split="test+train", cache_dir=tmp_path / "b")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 100_000))
    assert t4sa_data.load_dataset("t4sa", columns=["label"], cache_dir=tmp_path / "c")["train"].num_rows > 40


def test_what_is_not_ours_passes_through(tmp_path: Path) -> None:
    Path("x.csv").write_text("a,b\n1,2\n3,4\n")
    assert t4sa_data.load_dataset("csv", data_files="x.csv", split="train")["b"] == [2, 4]
    Path("folder").mkdir()
    shutil.copy("x.csv", "folder")
    assert t4sa_data.load_dataset("csv", data_dir="folder", split="train[:1]")["a"] == [1]
    Path("folder/manifest.json").write_text('{"name": "t4sa"}')
    assert not places.is_ours("folder") and not places.is_ours("csv") and places.is_ours("t4sa")
    streamed = t4sa_data.load_dataset("csv", None, "train", data_files={"train": "x.csv"}, streaming=True)
    assert [row["a"] for row in streamed] == [1, 3]
    table = pa.table({"a": [1, 2, 3], "b": ["x", "y", "z"]})
    pa.parquet.write_table(table, "x.parquet")
    some = t4sa_data.load_dataset(
        "parquet", data_files="x.parquet", split="train", columns=["a"], filters=[("a", ">", 1)]
    )
    assert some.to_dict() == {"a": [2, 3]}
    with pytest.raises(FileNotFoundError):
        t4sa_data.load_dataset(str(tmp_path / "nothing" / "t4sa"))


def test_register_is_explicit_and_undone(home: Path, truth: pa.Table) -> None:
    expected = of_split(truth, "test")["key"].to_pylist()
    before = datasets.load_dataset
    assert before is datasets.load.load_dataset
    try:
        t4sa_data.register()
        t4sa_data.register()
        assert datasets.load_dataset("t4sa", split="test")["key"] == expected
        assert datasets.load_dataset("t4sa", "b-t4sa", None, None, "test")["key"] == expected
        assert datasets.load.load_dataset(path="t4sa", split="test", filters=SURE).num_rows < 4
        assert datasets.load_dataset("t4sa", "miniature", split="test").num_rows > 3
        Path("x.csv").write_text("a\n1\n")
        assert datasets.load_dataset("csv", None, None, "x.csv", "train")["a"] == [1]
        assert t4sa_data.load_dataset("t4sa", split="test")["key"] == expected
    finally:
        t4sa_data.unregister()
    t4sa_data.unregister()
    assert datasets.load_dataset is datasets.load.load_dataset is before


def test_plain_datasets_beside_the_release(releases: Path, truth: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    if "configs:" not in (releases / "t4sa" / "README.md").read_text():
        pytest.skip("the card of this checkout has no configs")
    monkeypatch.chdir(releases)
    assert datasets.load_dataset("t4sa", split="test")["key"] == of_split(truth, "test")["key"].to_pylist()


def test_import_is_light() -> None:
    script = """
import sys, time
start = time.perf_counter()
import t4sa_data
seconds = time.perf_counter() - start
heavy = {"torch", "torchvision", "sklearn", "datasets", "pandas", "pyarrow", "huggingface_hub"} & set(sys.modules)
assert not heavy, heavy
assert seconds < 0.5, seconds
assert set(t4sa_data.__all__) <= set(dir(t4sa_data))
assert t4sa_data.__version__[0].isdigit() and t4sa_data.catalog.DEFAULT_CONFIG == "b-t4sa"
assert callable(t4sa_data.load_dataset) and callable(t4sa_data.register)
assert "torch" not in sys.modules and "datasets" not in sys.modules
import datasets
assert datasets.load_dataset.__module__ == "datasets.load", "nothing is patched by import"
try:
    t4sa_data.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "nothing" in done.stdout
