"""`check_release` finds each planted fault, in the right file and row, and none in a clean release."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t4sa_data import release
from t4sa_data.errors import ReleaseNotFound
from t4sa_data.files import TEMPORARY
from t4sa_data.manifest import FileEntry, Manifest, load_manifest
from t4sa_data.miniature import make_samples
from t4sa_data.schema import TABLE, TEXT_RECORD, to_json
from t4sa_data.shards import TarShardWriter, read_table, walk
from t4sa_data.shards.parquet import open_writer
from t4sa_data.testing import Report, check_release, make_official_archive, make_release
from t4sa_data.testing.archive import IMAGES_NAME, member_name
from t4sa_data.testing.faults import MAX_ALIKE
from t4sa_data.testing.releases import record_table

NUM_SAMPLES = 40
PARQUET, TAR = "b-t4sa/train-00001-of-00004.parquet", "b-t4sa/train-00001-of-00004.tar"
INDEX = "b-t4sa/index.parquet"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    make_release(folder, NUM_SAMPLES, shard_bytes=40_000)
    return folder


@pytest.fixture
def broken(clean: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(clean, tmp_path / "release")
    return tmp_path / "release"


def rows_of(folder: Path, shard: str) -> list[dict]:
    """The sample table's rows of one shard."""
    return [row for row in read_table(folder / INDEX).to_pylist() if row["file"] == shard]


def places(report: Report) -> set[tuple[str, int | None]]:
    return {(fault.file, fault.row) for fault in report.faults}


def told(report: Report, file: str) -> str:
    return "\n".join(str(fault) for fault in report.faults if fault.file == file)


def reseal(folder: Path, *names: str, **changes: object) -> None:
    """Make the manifest agree with files that were changed, as a faulty builder's would."""
    manifest = load_manifest(folder)
    entries = []
    for entry in manifest.files:
        if entry.name in names:
            data = (folder / entry.name).read_bytes()
            entry = replace(entry, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        entries.append(entry)
    replace(manifest, files=tuple(entries), **changes).save(folder)  # type: ignore[arg-type]


def edit(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    change(load_manifest(folder)).save(folder)


def write_index(folder: Path, table: pa.Table) -> None:
    with (folder / INDEX).open("wb") as file:
        writer = open_writer(file, TABLE)
        writer.write_table(table.cast(TABLE))
        writer.close()


def write_tar(path: Path, samples: Sequence[tuple[str, bytes, bytes, int]]) -> None:
    from t4sa_data.files import atomic_file

    with atomic_file(path) as sink:
        writer = TarShardWriter(sink)
        for sample in samples:
            writer.write(*sample)
        writer.close()


def tar_samples(path: Path) -> list[tuple[str, bytes, bytes, int]]:
    data, made = path.read_bytes(), []
    members = list(walk(path))
    for jpg, record, label in zip(members[::3], members[1::3], members[2::3], strict=True):
        parts = [data[m.offset : m.offset + m.length] for m in (jpg, record, label)]
        made.append((jpg.name.removesuffix(".jpg"), parts[0], parts[1], int(parts[2])))
    return made


def test_clean_release_has_no_fault(clean: Path) -> None:
    seen: list[int] = []
    report = check_release(clean, deep=True, progress=seen.append)
    assert report.ok and report.faults == ()
    assert report.samples == 2 * NUM_SAMPLES
    manifests = [load_manifest(clean / name) for name in ("t4sa", "t4sa-wds")]
    assert report.files == sum(len(m.files) for m in manifests)
    assert report.bytes == sum(f.bytes for m in manifests for f in m.files) == sum(seen)


def test_one_folder_and_nothing(clean: Path, tmp_path: Path) -> None:
    report = check_release(clean / "t4sa-wds")
    assert report.ok and report.samples == NUM_SAMPLES and [f.name for f in report.folders] == ["t4sa-wds"]
    with pytest.raises(ReleaseNotFound, match="no release here"):
        check_release(tmp_path)
    with pytest.raises(ReleaseNotFound):
        check_release(tmp_path / "absent")


@pytest.mark.parametrize(("fmt", "shard"), [("t4sa", PARQUET), ("t4sa-wds", TAR)])
def test_one_flipped_byte_in_an_image(broken: Path, fmt: str, shard: str) -> None:
    rows = rows_of(broken / fmt, shard)
    row = rows[3]
    with (broken / fmt / shard).open("r+b") as file:
        file.seek(row["offset"] + row["length"] // 2)
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    report = check_release(broken)
    assert places(report) == {(f"{fmt}/{shard}", None), (f"{fmt}/{shard}", 3)}
    assert row["key"] in {fault.key for fault in report.faults}
    assert f"{fmt}/{shard}, row 3 ({row['key']}): the image's sha256 is not the table's" in told(
        report, f"{fmt}/{shard}"
    )


@pytest.mark.parametrize(("fmt", "shard"), [("t4sa", PARQUET), ("t4sa-wds", TAR)])
def test_truncated_shard(broken: Path, fmt: str, shard: str) -> None:
    path = broken / fmt / shard
    rows = rows_of(broken / fmt, shard)
    cut = rows[-2]["offset"] + 10
    path.write_bytes(path.read_bytes()[:cut])
    report = check_release(broken)
    assert {fault.file for fault in report.faults} == {f"{fmt}/{shard}"}
    assert {row for _, row in places(report)} >= {None, len(rows) - 2, len(rows) - 1}
    assert f"{cut} bytes, the manifest says" in told(report, f"{fmt}/{shard}")
    if fmt == "t4sa-wds":
        assert "the archive ends early" in told(report, f"{fmt}/{shard}")


@pytest.mark.parametrize("name", [PARQUET, INDEX, "README.md", "croissant.json"])
def test_deleted_file(broken: Path, name: str) -> None:
    (broken / "t4sa" / name).unlink()
    report = check_release(broken)
    assert str(report.faults[0]) == f"t4sa/{name}: missing"
    assert {fault.file for fault in report.faults} == {f"t4sa/{name}"}


def test_deleted_manifest_beside_a_release(broken: Path) -> None:
    (broken / "t4sa" / "manifest.json").unlink()
    assert [str(f) for f in check_release(broken).faults] == ["t4sa/manifest.json: missing: not a finished release"]


def test_files_that_no_manifest_names(broken: Path) -> None:
    left = broken / "t4sa" / "b-t4sa" / f".train.tar.1-2{TEMPORARY}"
    left.write_bytes(b"half")
    (broken / "t4sa-wds" / "notes.txt").write_text("mine")
    hub = broken / "t4sa" / ".cache" / "huggingface"
    hub.mkdir(parents=True)
    (hub / "x.lock").write_text("")
    (broken / "t4sa" / ".gitattributes").write_text("")
    assert [str(fault) for fault in check_release(broken).faults] == [
        f"t4sa/b-t4sa/{left.name}: left by a writer that was killed: remove it",
        "t4sa-wds/notes.txt: the manifest does not name it",
    ]


def test_swapped_labels_in_json(broken: Path) -> None:
    folder = broken / "t4sa-wds"
    path, made = folder / TAR, tar_samples(folder / TAR)
    i, j = 0, next(n for n, sample in enumerate(made) if sample[3] != made[0][3])
    records = [json.loads(sample[2]) for sample in made]
    records[i]["label"], records[j]["label"] = records[j]["label"], records[i]["label"]
    for n in (i, j):
        made[n] = (
            *made[n][:2],
            json.dumps(records[n], ensure_ascii=False, separators=(", ", ": ")).encode(),
            made[n][3],
        )
    write_tar(path, made)
    reseal(folder, TAR)
    report = check_release(broken)
    assert places(report) == {(f"t4sa-wds/{TAR}", i), (f"t4sa-wds/{TAR}", j), ("t4sa-wds/croissant.json", None)}
    assert f".json label is {made[j][3]}, the table says {made[i][3]}" in told(report, f"t4sa-wds/{TAR}")


def test_wrong_cls_and_text_stays_out_of_the_report(broken: Path) -> None:
    folder = broken / "t4sa-wds"
    made = tar_samples(folder / TAR)
    made[2] = (*made[2][:3], (made[2][3] + 1) % 3)
    record = json.loads(made[4][2]) | {"text": "a secret"}
    record["tweet_id"] = int(record["tweet_id"])
    made[4] = (*made[4][:2], to_json(record), made[4][3])
    write_tar(folder / TAR, made)
    report = check_release(broken)
    assert {(f"t4sa-wds/{TAR}", 2), (f"t4sa-wds/{TAR}", 4)} <= places(report)
    assert "the .cls member is" in told(report, f"t4sa-wds/{TAR}")
    assert ".json text differs from the table's" in told(report, f"t4sa-wds/{TAR}")
    assert "secret" not in "".join(map(str, report.faults))


def test_reordered_samples_in_a_tar(broken: Path) -> None:
    folder = broken / "t4sa-wds"
    made = tar_samples(folder / TAR)
    made[1], made[2] = made[2], made[1]
    write_tar(folder / TAR, made)
    reseal(folder, TAR)
    report = check_release(broken)
    assert {(f"t4sa-wds/{TAR}", 1), (f"t4sa-wds/{TAR}", 2)} <= places(report)
    assert f"the key is {made[1][0]}, the table says {made[2][0]}" in told(report, f"t4sa-wds/{TAR}")


def test_members_out_of_order_in_a_tar(broken: Path) -> None:
    path = broken / "t4sa-wds" / TAR
    data, members = path.read_bytes(), list(walk(path))
    cls, record = members[5], members[4]  # sample 1: its .cls before its .json
    swapped = data[: record.header_offset] + data[cls.header_offset : cls.end]
    swapped += data[record.header_offset : record.end] + data[cls.end :]
    path.write_bytes(swapped)
    reseal(broken / "t4sa-wds", TAR)
    report = check_release(broken)
    assert (f"t4sa-wds/{TAR}", 1) in places(report)
    assert "a member out of order" in told(report, f"t4sa-wds/{TAR}")


def test_reordered_rows_in_parquet(broken: Path) -> None:
    folder = broken / "t4sa"
    table = pq.read_table(folder / PARQUET, partitioning=None)
    order = list(range(table.num_rows))
    order[0], order[1] = 1, 0
    with (folder / PARQUET).open("wb") as file:
        writer = open_writer(file, table.schema)
        writer.write_table(table.take(order))
        writer.close()
    reseal(folder, PARQUET)
    report = check_release(broken)
    assert {(f"t4sa/{PARQUET}", 0), (f"t4sa/{PARQUET}", 1)} <= places(report)
    assert "key is" in told(report, f"t4sa/{PARQUET}") and "image.path is" in told(report, f"t4sa/{PARQUET}")


def test_one_label_changed_in_parquet(broken: Path) -> None:
    folder = broken / "t4sa"
    table = pq.read_table(folder / PARQUET, partitioning=None)
    labels = table["label"].to_pylist()
    labels[5] = (labels[5] + 1) % 3
    table = table.set_column(1, table.schema.field("label"), pa.array(labels, pa.int64()))
    with (folder / PARQUET).open("wb") as file:
        writer = open_writer(file, table.schema)
        writer.write_table(table)
        writer.close()
    report = check_release(broken)
    assert (f"t4sa/{PARQUET}", 5) in places(report)
    assert f"label is {labels[5]}, the table says {(labels[5] - 1) % 3}" in told(report, f"t4sa/{PARQUET}")


def test_other_columns_in_parquet(broken: Path) -> None:
    folder = broken / "t4sa"
    table = pq.read_table(folder / PARQUET, partitioning=None).drop_columns(["phash"])
    pq.write_table(table, folder / PARQUET)
    reseal(folder, PARQUET)
    assert "columns are" in told(check_release(broken), f"t4sa/{PARQUET}")


def test_compressed_images_in_parquet(broken: Path) -> None:
    folder = broken / "t4sa"
    pq.write_table(pq.read_table(folder / PARQUET, partitioning=None), folder / PARQUET)
    reseal(folder, PARQUET)
    assert "images are not addressable" in told(check_release(broken), f"t4sa/{PARQUET}")


def _in_config(manifest: Manifest, **changes: object) -> Manifest:
    layer = manifest.layers["b-t4sa"]
    split = replace(layer.splits["train"], **changes)  # type: ignore[arg-type]
    return replace(manifest, layers={"b-t4sa": replace(layer, splits={**layer.splits, "train": split})})


@pytest.mark.parametrize("changes", [{"rows": 999}, {"classes": (9, 9, 9)}, {"bytes": 1}])
def test_edited_count_of_a_split(broken: Path, changes: dict) -> None:
    edit(broken / "t4sa", lambda m: _in_config(m, **changes))
    report = check_release(broken)
    wrong = told(report, "t4sa/manifest.json")
    what = {"rows": "rows", "classes": "rows per class", "bytes": "image bytes"}[next(iter(changes))]
    assert f"b-t4sa/train: {what} is {next(iter(changes.values()))} here" in wrong
    assert ("t4sa/README.md: dataset_info of b-t4sa: train: num_examples is" in told(report, "t4sa/README.md")) == (
        "rows" in changes
    )
    assert {f.file for f in report.faults} <= {"t4sa/manifest.json", "t4sa-wds/manifest.json", "t4sa/README.md"}


@pytest.mark.parametrize("changes", [{"rows": 4}, {"classes": (1, 1, 1)}, {"sha256": "0" * 64}, {"bytes": 7}])
def test_edited_entry_of_a_file(broken: Path, changes: dict) -> None:
    def change(manifest: Manifest) -> Manifest:
        return manifest.with_files(replace(f, **changes) if f.name == TAR else f for f in manifest.files)

    edit(broken / "t4sa-wds", change)
    report = check_release(broken)
    assert "the manifest says" in told(report, f"t4sa-wds/{TAR}")
    sidecars = {f"t4sa-wds/b-t4sa/{name}" for name in ("_info.json", "sizes.json", ".nv-meta/.info.json")}
    assert {f.file for f in report.faults} <= {f"t4sa-wds/{TAR}", "t4sa-wds/croissant.json", *sidecars}


def test_manifest_edited_as_text(broken: Path) -> None:
    path = broken / "t4sa" / "manifest.json"
    value = json.loads(path.read_text())
    value["configs"]["b-t4sa"]["train"] += 1  # derived: nothing else changes
    path.write_text(json.dumps(value, indent=1) + "\n")
    assert "edited by hand" in told(check_release(broken), "t4sa/manifest.json")
    value["content_digest"] = "0" * 64
    path.write_text(json.dumps(value))
    report = check_release(broken)
    assert "digest does not fit" in told(report, "t4sa/manifest.json")
    path.write_text("{")
    report = check_release(broken)
    assert "no JSON" in told(report, "t4sa/manifest.json")
    assert {f.file for f in report.faults} == {"t4sa/manifest.json"} and report.samples == NUM_SAMPLES


def test_manifest_that_points_outside(broken: Path) -> None:
    secret = broken / "t4sa" / ".." / "secret"
    secret.write_text("x")
    edit(broken / "t4sa", lambda m: m.with_files([*m.files, FileEntry(name="../secret", bytes=1, sha256="0")]))
    report = check_release(broken)
    assert told(report, "t4sa/manifest.json").endswith("names a place outside the release: ../secret")
    assert len(report.faults) == 1


def test_entry_dropped_from_the_manifest(broken: Path) -> None:
    edit(broken / "t4sa-wds", lambda m: m.with_files(f for f in m.files if f.name != TAR))
    report = check_release(broken)
    assert "the manifest does not name it" in told(report, f"t4sa-wds/{TAR}")
    assert "expected b-t4sa/train-00000-of-00003.tar" in told(report, "t4sa-wds/manifest.json")
    assert f"points into {TAR}" in told(report, f"t4sa-wds/{INDEX}")
    edit(broken / "t4sa", lambda m: m.with_files(f for f in m.files if f.name != INDEX))
    assert f"does not name {INDEX}" in told(check_release(broken), "t4sa/manifest.json")


@pytest.mark.parametrize("fmt", ["t4sa", "t4sa-wds"])
@pytest.mark.parametrize("column", ["offset", "length", "sha256", "label", "text", "negative"])
def test_edited_sample_table(broken: Path, fmt: str, column: str) -> None:
    folder = broken / fmt
    table = read_table(folder / INDEX)
    values = table[column].to_pylist()
    row = next(r for r, name in enumerate(table["file"].to_pylist()) if name in (PARQUET, TAR)) + 2
    was = values[row]
    values[row] = f"{was}x" if isinstance(was, str) else 0.5 if isinstance(was, float) else was + 1
    if column == "label":
        values[row] %= 3
    number = table.schema.get_field_index(column)
    write_index(folder, table.set_column(number, TABLE.field(column), pa.array(values, TABLE.field(column).type)))
    reseal(folder, INDEX)
    report = check_release(broken)
    shard = f"{fmt}/{PARQUET if fmt == 't4sa' else TAR}"
    assert (shard, 2) in places(report)
    assert {fault.row for fault in report.faults if fault.file == shard} <= {2, None}
    assert ("content_digest" in told(report, f"{fmt}/{INDEX}")) == (column not in ("offset", "length"))


def test_sample_table_out_of_order_and_with_a_key_twice(broken: Path) -> None:
    folder = broken / "t4sa-wds"
    table = read_table(folder / INDEX)
    order = np.arange(table.num_rows)
    order[[0, 1]] = 1, 0
    write_index(folder, table.take(order))
    report = check_release(broken)
    assert (f"t4sa-wds/{INDEX}", 0) in places(report)
    assert "not in release order" in told(report, f"t4sa-wds/{INDEX}")
    order[[0, 1]] = 0, 0
    write_index(folder, table.take(order))
    report = check_release(broken)
    assert "the key occurs more than once" in told(report, f"t4sa-wds/{INDEX}")
    assert read_table(folder / INDEX)["key"][0].as_py() in {fault.key for fault in report.faults}


def test_edited_readme_number_and_glob(broken: Path) -> None:
    path = broken / "t4sa" / "README.md"
    text = path.read_text()
    rows = load_manifest(broken / "t4sa").layers["b-t4sa"].splits["train"].rows
    path.write_text(text.replace(f"num_examples: {rows}\n", "num_examples: 12345\n").replace("test-*", "tset-*"))
    reseal(broken / "t4sa", "README.md")
    report = check_release(broken)
    assert {f.file for f in report.faults} == {"t4sa/README.md"}
    assert f"train: num_examples is 12345, the manifest says {rows}" in told(report, "t4sa/README.md")
    assert "test is ['b-t4sa/tset-*.parquet']: 0 files" in told(report, "t4sa/README.md")
    path.write_text(text.removeprefix("---\n"))
    assert "no YAML front matter" in told(check_release(broken), "t4sa/README.md")


def test_edited_croissant(broken: Path) -> None:
    path = broken / "t4sa-wds" / "croissant.json"
    value = json.loads(path.read_text())
    value["distribution"] = [o for o in value["distribution"] if o["@id"] != TAR]
    path.write_text(json.dumps(value))
    reseal(broken / "t4sa-wds", "croissant.json")
    report = check_release(broken)
    assert [str(fault) for fault in report.faults] == [f"t4sa-wds/croissant.json: does not name {TAR}"]
    path.write_text("{}")
    assert "no Croissant" in told(check_release(broken), "t4sa-wds/croissant.json")


def test_edited_tar_index_and_sidecars(broken: Path) -> None:
    folder = broken / "t4sa-wds"
    path = folder / f"{TAR}.idx"
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 8 * 2, 512)
    path.write_bytes(data)
    sizes = folder / "b-t4sa" / "sizes.json"
    sizes.write_text(sizes.read_text().replace(": ", ": 1", 1))
    reseal(folder, f"{TAR}.idx", "b-t4sa/sizes.json")
    assert places(check_release(broken)) == {(f"t4sa-wds/{TAR}.idx", 2), ("t4sa-wds/b-t4sa/sizes.json", None)}
    path.write_bytes(data[:-8])
    assert "follow from the tar's samples" in told(check_release(broken), f"t4sa-wds/{TAR}.idx")


def test_formats_that_hold_different_rows(broken: Path) -> None:
    make_release(broken, 30, formats=["wds"], shard_bytes=40_000)
    # what the larger release left behind is named by no manifest
    report = check_release(broken)
    assert "b-t4sa: content_digest is" in told(report, "t4sa-wds/manifest.json")
    assert "b-t4sa: splits is" in told(report, "t4sa-wds/manifest.json")


@pytest.mark.parametrize(("column", "value"), [("width", 7), ("phash", "0123456789abcdef")])
def test_deep_compares_what_a_decode_says(tmp_path: Path, column: str, value: object) -> None:
    samples = make_samples(12)
    table = release.in_release_order(record_table(samples))
    values = table[column].to_pylist()
    key = table["key"][4].as_py()
    values[4] = value
    field = table.schema.field(column)
    table = table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
    seal_one_layer(tmp_path, table, {s.key: s.image for s in samples})
    assert check_release(tmp_path).ok
    report = check_release(tmp_path, deep=True)
    assert [(f.row, f.key) for f in report.faults] == [(4, key)] * 2  # once a format
    assert f"{column} is" in str(report.faults[0]) and f"the table says {value}" in str(report.faults[0])


def seal_one_layer(folder: Path, table: pa.Table, images: dict[str, bytes]) -> None:
    layer = written_layer(folder, "b-t4sa", table, images)
    for fmt in release.FORMATS:
        release.seal(folder, fmt, [layer])


def written_layer(folder: Path, name: str, table: pa.Table, images: dict[str, bytes]) -> release.Layer:
    keys = table["key"].to_pylist()
    lengths = np.array([len(images[key]) for key in keys])
    tasks = release.plan_shards(name, table, lengths, 1 << 30)
    written = [
        release.write_shard(
            folder,
            task,
            table.slice(task.start, task.stop - task.start),
            (images[key] for key in keys[task.start : task.stop]),
            release.FORMATS,
        )
        for task in tasks
    ]
    return release.Layer(name=name, table=table, tasks=tasks, written=written, image_bytes=lengths)


def seal_nested(folder: Path, *, twice: bool = False) -> None:
    """Layers b-t4sa, unique and t4sa-text; `twice`: a key of the first in the second, too."""
    samples = make_samples(30, seed=6)
    images = {s.key: s.image for s in samples}
    everything = record_table(samples)
    ours = np.arange(30) < 20
    parts = {"b-t4sa": everything.filter(ours), "unique": everything.filter(~ours)}
    if twice:
        parts["unique"] = pa.concat_tables([parts["unique"], parts["b-t4sa"].slice(4, 1)])
    split = pa.array(["train"] * parts["unique"].num_rows)
    number = everything.schema.get_field_index("split")
    parts["unique"] = parts["unique"].set_column(number, "split", split)
    layers = [written_layer(folder, name, release.in_release_order(part), images) for name, part in parts.items()]
    text = release.in_release_order(
        everything.select(TEXT_RECORD.names).filter(everything["split"].to_numpy() == "train")
    )
    tasks = release.plan_shards("t4sa-text", text, np.full(text.num_rows, 100), 1000)
    written = [release.write_text_shard(folder, t, text.slice(t.start, t.stop - t.start)) for t in tasks]
    layers.append(
        release.Layer(
            name="t4sa-text", table=text, tasks=tasks, written=written, image_bytes=np.full(text.num_rows, 100)
        )
    )
    for fmt in release.FORMATS:
        release.seal(folder, fmt, layers)


def test_layers_and_texts(tmp_path: Path) -> None:
    seal_nested(tmp_path)
    report = check_release(tmp_path)
    assert report.ok, report.faults
    folder = tmp_path / "t4sa"
    manifest = load_manifest(folder)
    assert manifest.configs == ["b-t4sa", "t4sa-unique", "t4sa-text"]
    assert report.samples == 60 + manifest.layers["t4sa-text"].splits["train"].rows
    shards = manifest.shards("t4sa-text", "train")
    assert len(shards) > 1
    table = pq.read_table(folder / shards[1].name, partitioning=None)
    table = table.set_column(6, "text", pa.array(["other", *table["text"].to_pylist()[1:]]))
    pq.write_table(table, folder / shards[1].name)
    reseal(folder, shards[1].name)
    report = check_release(folder)
    assert "content_digest is" in told(report, "t4sa/t4sa-text") and "other" not in str(report.faults)
    pq.write_table(table.slice(1), folder / shards[1].name)
    report = check_release(folder)
    assert f"{table.num_rows - 1} rows, the manifest says {table.num_rows}" in told(report, f"t4sa/{shards[1].name}")
    assert "t4sa-text/train: rows is" in told(report, "t4sa/manifest.json")
    (folder / shards[0].name).unlink()
    assert f"t4sa/{shards[0].name}: missing" in map(str, check_release(folder).faults)


def test_a_key_in_two_layers(tmp_path: Path) -> None:
    seal_nested(tmp_path, twice=True)
    report = check_release(tmp_path / "t4sa-wds")
    (fault,) = report.faults
    assert fault.file == "t4sa-wds/unique/index.parquet"
    assert fault.what == "the key occurs more than once (in b-t4sa, unique)"
    assert fault.key is not None and read_table(tmp_path / fault.file)["key"][fault.row].as_py() == fault.key


def test_many_faults_of_a_kind_are_counted(tmp_path: Path) -> None:
    samples = make_samples(MAX_ALIKE + 15, seed=3)
    table = release.in_release_order(record_table(samples))
    sha256 = pa.array(["0" * 64] * table.num_rows)
    table = table.set_column(table.schema.get_field_index("sha256"), "sha256", sha256)
    seal_one_layer(tmp_path, table, {s.key: s.image for s in samples})
    report = check_release(tmp_path / "t4sa")
    faults = [f for f in report.faults if "train" in f.file]
    rows = table["split"].to_pylist().count("train")
    assert rows > MAX_ALIKE and len(faults) == MAX_ALIKE + 1
    assert faults[-1].what == f"and {rows - MAX_ALIKE} more: image sha256"


@pytest.fixture
def in_place(tmp_path: Path) -> Path:
    """A release in place: the official archive and a table over it."""
    archive = make_official_archive(tmp_path, 30, num_broken=0, with_text=False)
    table = release.in_release_order(record_table(make_samples(30)))
    names = {member_name(key): key for key in archive.images}
    where = {names[m.name]: m for m in walk(tmp_path / IMAGES_NAME) if m.name in names}
    members = [where[key] for key in table["key"].to_pylist()]
    # near-duplicates replaced some drawn pictures: take what is in the archive
    sha256 = pa.array([hashlib.sha256(archive.images[k]).hexdigest() for k in table["key"].to_pylist()])
    table = table.set_column(table.schema.get_field_index("sha256"), "sha256", sha256)
    lengths = np.array([m.length for m in members])
    layer = release.Layer(name="b-t4sa", table=table, tasks=(), written=(), image_bytes=lengths)
    data = (tmp_path / IMAGES_NAME).read_bytes()
    entry = FileEntry(name=IMAGES_NAME, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    release.seal_in_place(tmp_path, layer, [IMAGES_NAME] * 30, np.array([m.offset for m in members]), [entry])
    return tmp_path


def test_in_place(in_place: Path) -> None:
    (in_place / "t4sa-inplace" / "build").mkdir()
    (in_place / "t4sa-inplace" / "build" / "report.json").write_text("{}")
    report = check_release(in_place)
    assert report.ok, report.faults
    assert report.samples == 30 and check_release(in_place / "t4sa-inplace").ok
    row = read_table(in_place / "t4sa-inplace" / INDEX).to_pylist()[7]
    with (in_place / IMAGES_NAME).open("r+b") as file:
        file.seek(row["offset"] + 30)
        file.write(b"\0\1\2\3")
    report = check_release(in_place)
    assert {(f.file, f.key) for f in report.faults} == {
        (f"t4sa-inplace/{IMAGES_NAME}", None),
        (f"t4sa-inplace/{IMAGES_NAME}", row["key"]),
    }


def test_in_place_table_that_misses_the_member(in_place: Path) -> None:
    folder = in_place / "t4sa-inplace"
    table = read_table(folder / INDEX)
    offsets = table["offset"].to_pylist()
    offsets[3] += 512
    key = table["key"][3].as_py()
    write_index(folder, table.set_column(table.schema.get_field_index("offset"), "offset", pa.array(offsets)))
    reseal(folder, INDEX)
    report = check_release(in_place)
    assert "no member's data starts at byte" in told(report, f"t4sa-inplace/{IMAGES_NAME}")
    assert {f.key for f in report.faults if f.file.endswith(".tar")} == {key}
