"""`load_dataset` on releases of this machine: what users ask of it, and what they do with the result."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image, ImageOps

import t4sa_data
from t4sa_data import catalog, release, schema
from t4sa_data.errors import (
    ConfigUnavailable,
    NoRows,
    ReleaseError,
    UnknownConfig,
)
from t4sa_data.loading import wanted_splits
from t4sa_data.manifest import FileEntry
from t4sa_data.miniature import make_samples
from t4sa_data.shards import walk
from t4sa_data.testing import make_official_archive
from t4sa_data.testing.archive import IMAGES_NAME
from t4sa_data.testing.releases import record_table

pytestmark = pytest.mark.usefixtures("alone")

SURE = [("confidence", ">=", 0.95)]


def of_split(truth: pa.Table, *splits: str) -> pa.Table:
    return pa.concat_tables([truth.filter(pc.field("split") == split) for split in splits])


def raw_images(dataset: datasets.Dataset | datasets.IterableDataset) -> list[bytes]:
    return [row["image"]["bytes"] for row in dataset.cast_column("image", datasets.Image(decode=False))]


@pytest.mark.parametrize("name", ["t4sa", "t4sa-wds"])
def test_every_split_whole_and_in_order(home: Path, truth: pa.Table, no_network: None, name: str) -> None:
    loaded = t4sa_data.load_dataset(name)
    assert list(loaded) == list(catalog.SPLITS)
    for split, dataset in loaded.items():
        expected = of_split(truth, split)
        assert raw_images(dataset) == expected["bytes"].to_pylist()
        records = dataset.remove_columns("image").with_format("arrow")[:]
        assert records.to_pylist() == expected.select(schema.RECORD.names).to_pylist()
        assert dataset.features == schema.features()
        assert dataset.info.config_name == "b-t4sa"


@pytest.mark.parametrize("name", ["t4sa", "t4sa-wds"])
def test_streaming_gives_the_same(home: Path, truth: pa.Table, no_network: None, name: str) -> None:
    streamed = t4sa_data.load_dataset(name, streaming=True)
    for split, dataset in streamed.items():
        expected = of_split(truth, split)
        rows = list(dataset.cast_column("image", datasets.Image(decode=False)))
        assert [row.pop("image")["bytes"] for row in rows] == expected["bytes"].to_pylist()
        assert rows == expected.select(schema.RECORD.names).to_pylist()
    both = t4sa_data.load_dataset(name, split="validation+test", streaming=True)
    assert [row["key"] for row in both] == of_split(truth, "validation", "test")["key"].to_pylist()


def test_images_are_upright_rgb(home: Path, truth: pa.Table) -> None:
    dataset = t4sa_data.load_dataset("t4sa", split="train")
    for row, data in zip(dataset, of_split(truth, "train")["bytes"].to_pylist(), strict=True):
        with Image.open(io.BytesIO(data)) as image:
            expected = ImageOps.exif_transpose(image).convert("RGB")
        assert row["image"].mode == "RGB" and row["image"].size == (row["width"], row["height"])
        assert row["image"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ["t4sa", "t4sa-wds"])
def test_slices_and_sums(home: Path, truth: pa.Table, name: str) -> None:
    keys = {split: of_split(truth, split)["key"].to_pylist() for split in catalog.SPLITS}

    def load(split: object) -> object:
        return t4sa_data.load_dataset(name, split=split)

    half = round(len(keys["train"]) * 0.5)
    assert load("train[:50%]")["key"] == keys["train"][:half]
    assert load("train+validation")["key"] == keys["train"] + keys["validation"]
    assert load("validation[1:]+test[:2]")["key"] == keys["validation"][1:] + keys["test"][:2]
    assert [d["key"] for d in load(["test", "validation"])] == [keys["test"], keys["validation"]]
    assert load(datasets.Split.TEST)["key"] == keys["test"]
    instruction = datasets.ReadInstruction("train", from_=-5, unit="abs")
    assert load(instruction)["key"] == keys["train"][-5:]


def test_only_the_files_of_the_wanted_splits_are_read(releases: Path, tmp_path: Path, truth: pa.Table) -> None:
    shutil.copytree(releases / "t4sa", tmp_path / "t4sa")
    for path in (tmp_path / "t4sa" / "b-t4sa").glob("train-*"):
        path.write_bytes(b"not read")
    dataset = t4sa_data.load_dataset(tmp_path / "t4sa", split="test")
    assert dataset["key"] == of_split(truth, "test")["key"].to_pylist()
    with pytest.raises(ReleaseError, match=r"train-00000-of.*t4sa check"):
        t4sa_data.load_dataset(tmp_path / "t4sa", split="test+train[:1]")


def test_formats_and_casts(home: Path, truth: pa.Table) -> None:
    torch = pytest.importorskip("torch")
    dataset = t4sa_data.load_dataset("t4sa", split="test")
    row = dataset.with_format("torch")[0]
    assert row["image"].dtype == torch.uint8 and row["image"].shape[0] == 3
    assert row["label"].item() == of_split(truth, "test")["label"][0].as_py()
    assert row["tweet_id"].item() == of_split(truth, "test")["tweet_id"][0].as_py()  # 60 bits, not a float
    as_numpy = dataset.with_format("numpy")
    assert as_numpy[0]["image"].shape == (dataset[0]["height"], dataset[0]["width"], 3)
    np.testing.assert_array_equal(as_numpy["label"], of_split(truth, "test")["label"].to_numpy())
    assert dataset.features["label"].int2str(2) == "positive"


def add_one(row: dict) -> dict:
    return {"next": row["label"] + 1}


def test_map_shuffle_and_streams_of_it(home: Path, truth: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    # `datasets` sleeps five seconds after each shuffled stream of Parquet files.
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    expected = of_split(truth, "train")
    dataset = t4sa_data.load_dataset("t4sa", split="train", num_proc=2)
    assert dataset["key"] == expected["key"].to_pylist()
    mapped = dataset.map(add_one, num_proc=2, remove_columns=["image"])
    assert mapped["next"] == [label + 1 for label in expected["label"].to_pylist()]
    once, again = (dataset.shuffle(seed=7)["key"] for _ in range(2))
    assert list(once) == list(again) != list(dataset["key"]) and sorted(once) == sorted(dataset["key"])
    assert [r["key"] for r in dataset.to_iterable_dataset(num_shards=3)] == expected["key"].to_pylist()
    streams = [t4sa_data.load_dataset("t4sa", split="train", streaming=True).shuffle(seed=7) for _ in range(2)]
    first, second = ([row["key"] for row in stream.select_columns("key")] for stream in streams)
    assert first == second and sorted(first) == sorted(dataset["key"])


@pytest.mark.parametrize("name", ["t4sa", "t4sa-wds"])
@pytest.mark.parametrize("streaming", [False, True])
def test_columns_and_filters(home: Path, truth: pa.Table, name: str, streaming: bool) -> None:
    expected = of_split(truth, "train").filter(pc.field("confidence") >= 0.95)
    assert 0 < expected.num_rows < 50
    sure = t4sa_data.load_dataset(name, split="train", filters=SURE, streaming=streaming)
    assert raw_images(sure) == expected["bytes"].to_pylist()
    few = t4sa_data.load_dataset(name, split="train", filters=SURE, columns=["text", "label"], streaming=streaming)
    assert few.column_names == ["text", "label"]
    assert [dict(row) for row in few] == expected.select(["text", "label"]).to_pylist()
    either = [[("label", "==", 0)], [("label", "==", 2), ("confidence", "<", 0.95)]]
    rows = t4sa_data.load_dataset(name, split="train", filters=either, columns=["key"], streaming=streaming)
    condition = (pc.field("label") == 0) | ((pc.field("label") == 2) & (pc.field("confidence") < 0.95))
    assert [row["key"] for row in rows] == of_split(truth, "train").filter(condition)["key"].to_pylist()


def test_filters_that_leave_nothing_say_so(home: Path) -> None:
    nobody = [("confidence", ">", 2.0)]
    with pytest.raises(NoRows, match="leave no row"):
        t4sa_data.load_dataset("t4sa", split="test", filters=nobody)
    assert list(t4sa_data.load_dataset("t4sa", split="test", filters=nobody, streaming=True)) == []


def test_unknown_names_list_what_exists(home: Path) -> None:
    load = t4sa_data.load_dataset
    with pytest.raises(UnknownConfig, match=r"b-t4sa \| t4sa-unique.*got b-t4sa-512"):
        load("t4sa", "b-t4sa-512")
    with pytest.raises(ConfigUnavailable, match=r"expected b-t4sa, got t4sa-unique\. Needs .*--images"):
        load("t4sa", "t4sa-unique")
    with pytest.raises(UnknownConfig, match=r"no such split: expected train \| validation \| test, got dev"):
        load("t4sa", split="dev")
    with pytest.raises(UnknownConfig, match=r"no such column: expected image \| label.*got b-t4sa/likes"):
        load("t4sa", columns=["likes"])
    with pytest.raises(UnknownConfig, match="no such column"):
        load("t4sa", filters=[("likes", ">", 3)])
    with pytest.raises(UnknownConfig, match=r"whole splits.*take\(n\)"):
        load("t4sa", split="train[:5]", streaming=True)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (None, ["train", "validation", "test"]),
        ("all", ["train", "validation", "test"]),
        ("test[:10%](pct1_dropremainder)+train[3:5]", ["train", "test"]),
        (["validation", "train[:1]"], ["train", "validation"]),
        ({"a": "test"}, ["test"]),
        ("trains", None),
        ("train-test", None),
        ("", None),
    ],
)
def test_wanted_splits(split: object, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(UnknownConfig):
            wanted_splits(split, catalog.SPLITS)
    else:
        assert wanted_splits(split, catalog.SPLITS) == names


@pytest.mark.parametrize("streaming", [False, True])
def test_miniature_is_made_on_the_spot(no_network: None, streaming: bool) -> None:
    loaded = t4sa_data.load_dataset("t4sa", "miniature", streaming=streaming)
    rows = {split: list(dataset) for split, dataset in loaded.items()}
    assert sum(map(len, rows.values())) == 90 and min(map(len, rows.values())) > 3
    assert {row["label"] for row in rows["train"]} == {0, 1, 2} and rows["test"][0]["image"].mode == "RGB"
    assert all(row["split"] == split for split, some in rows.items() for row in some)
    sure = t4sa_data.load_dataset(name="miniature", split="train", filters=SURE, columns=["key"], streaming=streaming)
    assert [row["key"] for row in sure] == [row["key"] for row in rows["train"] if row["confidence"] >= 0.95]


@pytest.fixture(scope="module")
def in_place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table, dict[str, bytes]]:
    """RAW with a release in place over the official tar; its table; the images."""
    raw = tmp_path_factory.mktemp("raw")
    made = make_official_archive(raw, 60, num_broken=0)
    members = {Path(m.name).stem: m for m in walk(raw / IMAGES_NAME) if m.kind == "file"}
    table = record_table(make_samples(60))
    table = release.in_release_order(table.filter(pc.is_in(table["key"], pa.array(list(made.images)))))
    keys = table["key"].to_pylist()
    layer = release.Layer(
        name="b-t4sa",
        table=table,
        tasks=(),
        written=(),
        image_bytes=np.array([members[key].length for key in keys], dtype=np.int64),
    )
    archive = FileEntry(name=IMAGES_NAME, bytes=(raw / IMAGES_NAME).stat().st_size, sha256="0" * 64)
    offsets = [members[key].offset for key in keys]
    release.seal_in_place(raw, layer, [IMAGES_NAME] * len(keys), offsets, [archive])
    return raw, table, dict(made.images)


def test_in_place_streams_from_the_archive(in_place: tuple[Path, pa.Table, dict[str, bytes]]) -> None:
    raw, table, images = in_place
    loaded = t4sa_data.load_dataset(raw, streaming=True)
    for split, stream in loaded.items():
        keys = of_split(table, split)["key"].to_pylist()
        rows = list(stream.cast_column("image", datasets.Image(decode=False)))
        assert [row["key"] for row in rows] == keys
        assert [row["image"]["bytes"] for row in rows] == [images[key] for key in keys]
        assert stream.features == schema.features()
    asked = {"filters": SURE, "columns": ["key", "label"], "split": "train", "streaming": True}
    few = t4sa_data.load_dataset(raw / "t4sa-inplace", **asked)
    expected = of_split(table, "train").filter(pc.field("confidence") >= 0.95)
    assert [dict(row) for row in few] == expected.select(["key", "label"]).to_pylist()


def test_in_place_is_found_and_refuses_a_copy(
    in_place: tuple[Path, pa.Table, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(in_place[0])
    assert next(iter(t4sa_data.load_dataset("t4sa", split="test", streaming=True)))["image"].mode == "RGB"
    with pytest.raises(ConfigUnavailable, match=r"streaming only.*streaming=True"):
        t4sa_data.load_dataset("t4sa", split="test")


def test_in_place_is_shared_by_workers(in_place: tuple[Path, pa.Table, dict[str, bytes]]) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    raw, table, _ = in_place
    stream = t4sa_data.load_dataset(raw, split="train", streaming=True, columns=["key", "image"])
    assert stream.num_shards > 2
    loader = torch_data.DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(row["key"] for row in loader) == sorted(of_split(table, "train")["key"].to_pylist())
