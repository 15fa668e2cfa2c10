"""The manifest: equal releases say equal bytes; damaged, newer or edited ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from t4sa_data.catalog import CONFIGS
from t4sa_data.errors import ConfigUnavailable, ManifestError, ReleaseNotFound, UnknownConfig
from t4sa_data.manifest import (
    FORMAT_VERSION,
    FileEntry,
    LayerEntry,
    Manifest,
    SplitEntry,
    content_digest,
    count_classes,
    load_manifest,
)
from t4sa_data.miniature import make_samples
from t4sa_data.testing.releases import record_table


def layer(*splits: str, rows: int = 10, digest: str = "a", kind: str = "image") -> LayerEntry:
    classes = (rows - 3, 2, 1) if kind == "image" else None
    entries = {
        split: SplitEntry(rows=rows, bytes=100 * rows, classes=classes, listed=rows + 1, quarantined=(f"{rows}-1",))
        for split in splits
    }
    return LayerEntry(kind=kind, splits=entries, content_digest=digest * 64, provenance={"settings": {"x": 1}})


def shards(name: str, **counts: int) -> list[FileEntry]:
    return [
        FileEntry(
            name=f"{name}/{split}-{i:05d}-of-{count:05d}.parquet",
            bytes=7,
            sha256="0" * 64,
            layer=name,
            split=split,
            rows=10 // count,
            classes=(1, 2, 3),
        )
        for split, count in counts.items()
        for i in range(count)
    ]


NESTED = Manifest(
    format="parquet",
    layers={
        "b-t4sa": layer("train", "validation", "test"),
        "unique": layer("train", rows=20, digest="b"),
        "duplicates": layer("train", rows=30, digest="c"),
        "raw-text": layer("train", rows=40, digest="d", kind="text"),
    },
    files=(
        *shards("b-t4sa", train=2, validation=1, test=1),
        *shards("unique", train=2),
        *shards("duplicates", train=1),
        *shards("raw-text", train=1),
        FileEntry(name="README.md", bytes=3, sha256="1" * 64),
    ),
    toolchain={"pyarrow": "1", "numpy": "2"},
)


def test_round_trip_and_stable_bytes(tmp_path: Path) -> None:
    NESTED.save(tmp_path)
    read = load_manifest(tmp_path)
    assert read == NESTED and read.to_json() == NESTED.to_json() == (tmp_path / "manifest.json").read_bytes()
    turned = replace(NESTED, toolchain=dict(reversed(NESTED.toolchain.items())))
    assert turned.to_json() == NESTED.to_json()
    assert [f.name for f in tmp_path.iterdir()] == ["manifest.json"]


def test_golden_bytes_of_the_head() -> None:
    """The fields another tool reads stand where they stood."""
    value = json.loads(NESTED.to_json())
    assert list(value) == [
        "format_version",
        "name",
        "format",
        "data_version",
        "data_root",
        "content_digest",
        "configs",
        "layers",
        "toolchain",
        "files",
    ]
    assert (value["format_version"], value["name"], value["data_root"]) == (1, "t4sa", ".")
    assert value["configs"]["t4sa"] == {"train": 60, "validation": 10, "test": 10}
    assert value["files"][0] == {
        "name": "b-t4sa/train-00000-of-00002.parquet",
        "bytes": 7,
        "sha256": "0" * 64,
        "layer": "b-t4sa",
        "split": "train",
        "rows": 5,
        "classes": [1, 2, 3],
    }
    assert value["files"][-1] == {"name": "README.md", "bytes": 3, "sha256": "1" * 64}


def test_nothing_that_equal_builds_say_differently(tmp_path: Path) -> None:
    from t4sa_data.testing import make_release

    texts = []
    for name in ("one", "two"):
        make_release(tmp_path / name, 6, formats=["wds"])
        texts.append((tmp_path / name / "t4sa-wds" / "manifest.json").read_text())
    assert texts[0] == texts[1] and str(tmp_path) not in texts[0]


def test_nested_configs() -> None:
    assert NESTED.configs == ["b-t4sa", "t4sa-unique", "t4sa", "raw-text"]
    assert NESTED.parts("t4sa", "train") == [("b-t4sa", "train"), ("unique", "train"), ("duplicates", "train")]
    for split in ("validation", "test"):
        assert NESTED.shards("t4sa", split) == NESTED.shards("b-t4sa", split) != []
    assert {n: {s: e.rows for s, e in NESTED.splits(n).items()} for n in NESTED.configs} == {
        "b-t4sa": {"train": 10, "validation": 10, "test": 10},
        "t4sa-unique": {"train": 30, "validation": 10, "test": 10},
        "t4sa": {"train": 60, "validation": 10, "test": 10},
        "raw-text": {"train": 40},
    }
    train = NESTED.splits("t4sa-unique")["train"]
    assert train.classes == (24, 4, 2) and train.listed == 32 and train.quarantined == ("10-1", "20-1")
    assert train.bytes == 3000 and NESTED.splits("raw-text")["train"].classes is None
    assert [f.name for f in NESTED.shards("t4sa-unique", "train")] == [
        "b-t4sa/train-00000-of-00002.parquet",
        "b-t4sa/train-00001-of-00002.parquet",
        "unique/train-00000-of-00002.parquet",
        "unique/train-00001-of-00002.parquet",
    ]
    assert NESTED.file("README.md") == NESTED.files[-1] and NESTED.file("x") is None


def test_a_config_without_its_layers() -> None:
    less = replace(NESTED, layers={k: v for k, v in NESTED.layers.items() if k != "unique"})
    assert less.configs == ["b-t4sa", "raw-text"] and less.splits("t4sa") == {}
    with pytest.raises(ConfigUnavailable, match="prepare RAW --images TAR"):
        less.parts("t4sa", "train")
    with pytest.raises(UnknownConfig, match=r"no such split: expected train \| validation \| test"):
        less.parts("b-t4sa", "dev")
    with pytest.raises(UnknownConfig, match=r"no such config: expected b-t4sa \|"):
        less.parts("B-T4SA", "train")
    no_test = replace(NESTED, layers={"b-t4sa": layer("train", "validation")})
    assert no_test.parts("b-t4sa", "test") == [] and list(no_test.splits("b-t4sa")) == ["train", "validation"]


def test_in_place_shards_are_the_archives() -> None:
    archive = FileEntry(name="b-t4sa_imgs.tar", bytes=1, sha256="0", layer="b-t4sa")
    manifest = Manifest(
        format="in-place",
        layers={"b-t4sa": layer("train")},
        files=(archive, FileEntry(name="b-t4sa/index.parquet", bytes=1, sha256="0")),
        toolchain={},
        data_root="..",
    )
    assert manifest.shards("b-t4sa", "train") == [archive]


def test_content_digest_of_the_release_is_over_its_layers() -> None:
    assert replace(NESTED, layers=dict(reversed(NESTED.layers.items()))).content_digest == NESTED.content_digest
    changed = {**NESTED.layers, "unique": replace(NESTED.layers["unique"], content_digest="e" * 64)}
    assert replace(NESTED, layers=changed).content_digest != NESTED.content_digest
    assert replace(NESTED, toolchain={}, files=(), format="wds").content_digest == NESTED.content_digest


def edited(folder: Path, **changes: object) -> Path:
    value = json.loads(NESTED.to_json()) | changes
    (folder / "manifest.json").write_text(json.dumps({k: v for k, v in value.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"format_version": FORMAT_VERSION + 1},
            f"expected {FORMAT_VERSION}, got {FORMAT_VERSION + 1}.*pip install -U",
        ),
        ({"format_version": None}, f"expected {FORMAT_VERSION} "),
        ({"content_digest": "0" * 64}, "digest does not fit its layers"),
        ({"content_digest": None}, "lacks a field"),
        ({"layers": None}, "lacks a field"),
        ({"layers": []}, "lacks a field"),
        ({"files": [{"name": "x"}]}, "lacks a field"),
        ({"files": [{"name": "x", "bytes": 1, "sha256": "", "surprise": 1}]}, "lacks a field"),
        ({"toolchain": None}, "lacks a field"),
    ],
)
def test_refused(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(ManifestError, match=words) as caught:
        load_manifest(edited(tmp_path, **changes))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x80"])
def test_refused_as_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ManifestError):
        load_manifest(tmp_path)


def test_no_release(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(ReleaseNotFound, match="no release here"):
            load_manifest(folder)


def test_content_digest_golden() -> None:
    """Frozen: equal content keeps its digest over versions of this package (CHANGELOG: DATA)."""
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("split", pa.string()),
            ("label", pa.int64()),
            *((c, pa.float32()) for c in ("negative", "neutral", "positive")),
            ("tweet_id", pa.int64()),
            ("image_index", pa.int8()),
            ("text", pa.string()),
            ("sha256", pa.string()),
        ]
    )
    rows = [
        ("1-1", "train", 0, 0.9, 0.05, 0.05, 1, 1, "caf\u00e9", "ab"),
        ("2-1", "test", 2, None, None, None, 2, 1, None, "cd"),
    ]
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)
    assert content_digest(table) == "e05b2be248209c0e399cd54218439663715128c6a545a957378b60ab1d90e423"
    assert content_digest(table.slice(0, 0)) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_content_digest_of_rows() -> None:
    table = record_table(make_samples(6))
    digest = content_digest(table)
    assert content_digest(pa.concat_tables([table.slice(0, 2), table.slice(2)])) == digest  # chunks do not matter
    assert content_digest(table.slice(1)) != digest
    assert content_digest(table.take([1, 0, 2, 3, 4, 5])) != digest
    for column in table.schema.names:
        value = table[column][0].as_py()
        other = f"{value}x" if isinstance(value, str) else value + 1
        if column == "negative":
            other = float.fromhex("0x1.000002p-1")  # one bit of a float32 beside 0.5
        field = table.schema.field(column)
        changed = pa.array([other, *table[column].to_pylist()[1:]], field.type)
        number = table.schema.get_field_index(column)
        same = content_digest(table.set_column(number, field, changed)) == digest
        # Nothing computed from pixels, nor what follows from other columns.
        assert same == (column in ("confidence", "width", "height", "phash", "duplicate_group")), column
    nulls = table.set_column(table.schema.get_field_index("text"), "text", pa.nulls(6, pa.string()))
    empty = table.set_column(table.schema.get_field_index("text"), "text", pa.array([""] * 6))
    assert len({digest, content_digest(nulls), content_digest(empty)}) == 3
    assert content_digest(table.drop_columns(["text"])) == content_digest(nulls)


def test_count_classes() -> None:
    assert count_classes(pa.chunked_array([[0, 2, 2], [0]])) == (2, 0, 2)
    assert count_classes(pa.chunked_array([], pa.int64())) == (0, 0, 0)


def test_every_catalog_config_has_layers_that_can_be_asked_for() -> None:
    everything = {
        name: layer(
            *{part for config in CONFIGS.values() for parts in config.splits.values() for n, part in parts if n == name}
        )
        for config in CONFIGS.values()
        for name in config.layers
    }
    assert replace(NESTED, layers=everything).configs == list(CONFIGS)
