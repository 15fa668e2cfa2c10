"""What must go of copies: rewriting shards, releases in place, caches, and the command."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from t4sa_data import release, removals, rewriting
from t4sa_data.errors import ChecksumMismatch, NoRows, RemovalsUnclear
from t4sa_data.manifest import load_manifest
from t4sa_data.reading.local import LocalRelease
from t4sa_data.releases_file import ReleaseEntry, Releases, Removals
from t4sa_data.schema import TEXT_RECORD, record_schema
from t4sa_data.shards import RangeReader, read_table
from t4sa_data.testing import check_release
from tests.hub_double import Hub, Repository
from tests.publish_helpers import TOKEN, environment

FOLDERS = ("t4sa", "t4sa-wds")


@pytest.fixture
def held(releases: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(releases, tmp_path / "held"))


def mask_of(folder: Path, rows: list[int]) -> np.ndarray:
    mask = np.zeros(read_table(folder / "b-t4sa" / "index.parquet").num_rows, dtype=bool)
    mask[rows] = True
    return mask


def without(held: Path, target: Path, rows: list[int]) -> Path:
    """Another copy, those rows taken out: what the maintainers publish next."""
    shutil.copytree(held, target)
    for name in FOLDERS:
        rewriting.drop_rows(target / name, {"b-t4sa": mask_of(target / name, rows)}, data_version="1.0.1")
    return target


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}  # fmt: skip


@pytest.mark.parametrize("rows", [[3], [0, 1, 58], list(range(12)), list(range(50))])
def test_only_touched_shards_are_written(held: Path, rows: list[int]) -> None:
    before = digests(held)
    for name in FOLDERS:
        table = read_table(held / name / "b-t4sa" / "index.parquet")
        touched = set(table["file"].take(pa.array(rows)).to_pylist())
        done = rewriting.drop_rows(held / name, {"b-t4sa": mask_of(held / name, rows)})
        emptied = len(rows) >= 12
        assert emptied or set(done.shards) == touched
        after = digests(held)
        same = set(table["file"].unique().to_pylist()) - touched
        assert emptied or all(after[f"{name}/{file}"] == before[f"{name}/{file}"] for file in same)
    report = check_release(held, deep=True)
    assert report.ok and report.samples == 2 * (60 - len(rows)), [str(fault) for fault in report.faults]
    assert sorted(p.name for p in held.iterdir()) == sorted(FOLDERS)


def grouped(held: Path, group: dict[int, int]) -> list[str]:
    """Rows of `held` as near-duplicates of others, in both formats; the keys of its rows."""
    keys: list[str] = []
    for name in FOLDERS:
        folder = held / name
        manifest, table = load_manifest(folder), read_table(folder / "b-t4sa" / "index.parquet")
        keys = table["key"].to_pylist()
        groups = [keys[group.get(row, row)] for row in range(len(keys))]
        records = table.set_column(
            table.schema.get_field_index("duplicate_group"), table.schema.field("duplicate_group"), pa.array(groups)
        )
        layers = [files for files in manifest.files if files.layer]
        tasks, written, start = [], [], 0
        with RangeReader(folder) as reader:
            for file in layers:
                split = [f for f in layers if f.split == file.split]
                task = release.ShardTask(
                    layer="b-t4sa", split=str(file.split), index=split.index(file), count=len(split), start=start,
                    stop=start + (file.rows or 0),
                )  # fmt: skip
                rows = records.slice(start, task.num_rows)
                images = [reader.read(r["file"], r["offset"], r["length"]) for r in rows.to_pylist()]
                part = rows.select(record_schema("b-t4sa").names)
                written.append(release.write_shard(held / "made", task, part, images, [manifest.format]))
                tasks.append(task)
                start = task.stop
        layer = release.Layer(
            name="b-t4sa", table=records.select(record_schema("b-t4sa").names), tasks=tasks, written=written,
            image_bytes=np.asarray(table["length"], dtype=np.int64),
        )  # fmt: skip
        release.seal(held / "made", manifest.format, [layer])
        shutil.rmtree(folder)
        (held / "made" / name).rename(folder)
    (held / "made").rmdir()
    return keys


def test_a_group_loses_the_name_of_a_sample_that_goes(held: Path) -> None:
    """The smallest key that stays names it, in every shard of both formats, and what goes is read nowhere."""
    keys = grouped(held, {20: 3, 45: 3, 55: 3, 7: 8})
    assert check_release(held).ok
    before = digests(held)
    for name in FOLDERS:
        table = read_table(held / name / "b-t4sa" / "index.parquet")
        touched = set(table["file"].take(pa.array([3, 20, 45, 55])).to_pylist())
        done = rewriting.drop_rows(held / name, {"b-t4sa": mask_of(held / name, [3])})
        assert set(done.shards) == touched
        rows = read_table(held / name / "b-t4sa" / "index.parquet").to_pylist()
        named = min((keys[row] for row in (20, 45, 55)), key=lambda key: [int(part) for part in key.split("-")])
        assert [r["key"] for r in rows if r["duplicate_group"] == named] == [keys[row] for row in (20, 45, 55)]
        assert [r["key"] for r in rows if r["duplicate_group"] == keys[8]] == [keys[7], keys[8]]
        same = set(table["file"].unique().to_pylist()) - touched
        assert same and all(digests(held)[f"{name}/{file}"] == before[f"{name}/{file}"] for file in same)
    report = check_release(held, deep=True)
    assert report.ok, report.faults
    assert not [path for path in held.rglob("*") if path.is_file() and keys[3].encode() in path.read_bytes()]


def test_a_layer_is_not_emptied_and_damage_is_not_copied(held: Path) -> None:
    folder = held / "t4sa"
    with pytest.raises(NoRows):
        rewriting.drop_rows(folder, {"b-t4sa": np.ones(60, dtype=bool)})
    row = read_table(folder / "b-t4sa" / "index.parquet").slice(0, 1).to_pylist()[0]
    with (folder / row["file"]).open("r+b") as file:
        file.seek(row["offset"] + row["length"] // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    before = digests(folder)
    with pytest.raises(ChecksumMismatch):
        rewriting.drop_rows(folder, {"b-t4sa": mask_of(folder, [1])})
    assert digests(folder) == before


@pytest.mark.parametrize(
    ("name", "every"),
    [("t4sa", 6), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in FOLDERS)],
)
def test_a_kill_at_any_step_leaves_it_as_it_was_or_goes_on(
    name: str, every: int, held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = without(held, tmp_path / "whole", [1, 40])
    real: Callable[..., Path] = Path.replace
    for number in range(0, 100, every):
        shutil.rmtree(tmp_path / "try", ignore_errors=True)
        shutil.copytree(held, tmp_path / "try")
        folder, count = tmp_path / "try" / name, 0

        def dies(path: Path, target: Path, number: int = number) -> Path:
            nonlocal count
            count += 1
            if count > number:
                raise KeyboardInterrupt
            return real(path, target)

        monkeypatch.setattr(Path, "replace", dies)
        try:
            rewriting.drop_rows(folder, {"b-t4sa": mask_of(folder, [1, 40])}, data_version="1.0.1")
        except KeyboardInterrupt:
            monkeypatch.undo()
            if not rewriting.finish_rewriting(folder):
                rewriting.drop_rows(folder, {"b-t4sa": mask_of(folder, [1, 40])}, data_version="1.0.1")
            assert digests(folder) == digests(whole / name), number
        else:
            break
    assert 8 < number < 99
    assert digests(folder) == digests(whole / name)


def test_what_the_current_release_lacks_is_found_and_removed(held: Path, tmp_path: Path) -> None:
    current = removals.current_of_folder(without(held, tmp_path / "new", [5, 33, 59]))
    found = removals.find(held, current, caches=False)
    assert [(one.kind, one.path.name, one.rows) for one in found] == [("release", name, 3) for name in FOLDERS]
    removals.apply(found, current)
    for name in FOLDERS:
        ours, theirs = load_manifest(held / name), load_manifest(tmp_path / "new" / name)
        assert ours.content_digest == theirs.content_digest
        assert ours.data_version == theirs.data_version == "1.0.1"
    assert check_release(held, deep=True).ok
    assert removals.find(held, current, caches=False) == []


def test_ids_that_were_sent(held: Path) -> None:
    table = read_table(held / "t4sa" / "b-t4sa" / "index.parquet")
    words = [table["key"][7].as_py(), str(table["tweet_id"][8].as_py())]
    tweets = table["tweet_id"].to_pylist()
    expected = len({7, *(row for row, tweet in enumerate(tweets) if tweet == tweets[8])})
    found = removals.find(held / "t4sa", None, ids=words, caches=False)
    assert [one.rows for one in found] == [expected]
    removals.apply(found, None)
    assert check_release(held / "t4sa").ok
    left = read_table(held / "t4sa" / "b-t4sa" / "index.parquet")["key"].to_pylist()
    assert words[0] not in left and len(left) == 60 - expected


def test_another_selection_is_not_taken_for_removals(held: Path, tmp_path: Path) -> None:
    current = removals.current_of_folder(without(held, tmp_path / "new", list(range(10))))
    with pytest.raises(RemovalsUnclear, match="another selection"):
        removals.find(held, current, caches=False)


def test_a_release_in_place(held: Path, truth: pa.Table, tmp_path: Path) -> None:
    import tarfile

    from t4sa_data.manifest import FileEntry

    raw = tmp_path / "raw"
    raw.mkdir()
    archive = raw / "b-t4sa_imgs.tar"
    with tarfile.open(archive, "w") as tar:
        for row in truth.to_pylist():
            info = tarfile.TarInfo(f"data/{row['key']}.jpg")
            info.size = len(row["bytes"])
            tar.addfile(info, io.BytesIO(row["bytes"]))
    with tarfile.open(archive) as tar:
        offsets = np.array([member.offset_data for member in tar.getmembers()])
    record = truth.drop_columns(["bytes"])
    sizes = np.array([len(one) for one in truth["bytes"].to_pylist()])
    layer = release.Layer(name="b-t4sa", table=record, tasks=(), written=(), image_bytes=sizes)
    entry = FileEntry(
        name=archive.name, bytes=archive.stat().st_size, sha256=hashlib.sha256(archive.read_bytes()).hexdigest()
    )
    release.seal_in_place(raw, layer, [archive.name] * len(sizes), offsets, [entry])
    assert check_release(raw).ok
    current = removals.current_of_folder(without(held, tmp_path / "new", [4, 30]))
    found = removals.find(raw, current, caches=False)
    assert [(one.kind, one.rows) for one in found] == [("in place", 2)]
    removals.apply(found, current)
    report = check_release(raw, deep=True)
    assert report.ok and report.samples == 58, [str(fault) for fault in report.faults]
    data = archive.read_bytes()
    images = truth["bytes"].to_pylist()
    assert [images[row] in data for row in (3, 4, 29, 30)] == [True, False, True, False]


def test_a_text_layer(tmp_path: Path) -> None:
    ids = list(range(1000, 1040))
    rows = [
        {"tweet_id": one, "negative": 0.0, "neutral": 0.0, "positive": 1.0, "confidence": 1.0, "label": 2,
         "text": f"t{one}", "split": "train"}
        for one in ids
    ]  # fmt: skip
    table = release.in_release_order(pa.Table.from_pylist(rows, schema=TEXT_RECORD))
    sizes = np.full(40, 1000, dtype=np.int64)
    tasks = release.plan_shards("t4sa-text", table, sizes, 10_000)
    written = [release.write_text_shard(tmp_path, t, table.slice(t.start, t.num_rows)) for t in tasks]
    totals = np.zeros(40, dtype=np.int64)
    for task, one in zip(tasks, written, strict=True):
        totals[task.start] = one["parquet"].bytes
    layer = release.Layer(name="t4sa-text", table=table, tasks=tasks, written=written, image_bytes=totals)
    release.seal(tmp_path, "parquet", [layer])
    assert check_release(tmp_path).ok and len(tasks) > 1
    found = removals.find(tmp_path, None, ids=["1003", "1010"], caches=False)
    assert [one.rows for one in found] == [2]
    removals.apply(found, None)
    report = check_release(tmp_path)
    assert report.ok, [str(fault) for fault in report.faults]
    assert load_manifest(tmp_path / "t4sa").layers["t4sa-text"].splits["train"].rows == 38


def test_caches(held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of old releases go, those that the current one shares stay; Arrow copies by their keys."""
    new = without(held, tmp_path / "new", [5])
    current = removals.current_of_folder(new)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("T4SA_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "T4SA_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    manifest = load_manifest(held / "t4sa")
    url = "hf://datasets/t4sa/t4sa@v1"
    note = {"url": url, "root": url, "manifest": manifest.to_json().decode()}
    for kind in ("releases", "shards"):
        (tmp_path / "cache" / kind).mkdir(parents=True)
    (tmp_path / "cache" / "releases" / "x.json").write_text(json.dumps(note))
    for file in manifest.files:
        if file.layer is not None:
            shutil.copy(held / "t4sa" / file.name, tmp_path / "cache" / "shards" / f"{file.sha256}-{file.bytes}")
    repository = tmp_path / "hf" / "hub" / "datasets--t4sa--t4sa"
    for commit, source in (("old", held), ("new", new)):
        for file in (source / "t4sa").rglob("*"):
            if file.is_file():
                blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
                blob.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, blob)
                link = repository / "snapshots" / commit / file.relative_to(source / "t4sa")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(blob)
    keys = read_table(held / "t4sa" / "b-t4sa" / "index.parquet")["key"].to_pylist()
    told = (("b-t4sa-00aa", keys), ("b-t4sa-00bb", keys[6:]), ("other-00cc", keys), ("twitter-testing-00dd", ["7-1"]))
    for config, some in told:
        folder = tmp_path / "hf" / "datasets" / "parquet" / config / "0.0.0"
        folder.mkdir(parents=True)
        table = pa.table({"key": some})
        with pa.OSFile(str(folder / "parquet-train.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    found = removals.find(held, current)
    kinds = [one.kind for one in found]
    assert kinds.count("Arrow copy") == kinds.count("Hub client's cache") == 1 and kinds.count("cache") == 2
    removals.apply(found, current)
    assert removals.find(held, current) == []
    left = {path.name.split("-")[0] for path in (tmp_path / "cache" / "shards").iterdir()}
    assert left == {f.sha256 for f in manifest.files if f.layer is not None} & set(current.files)
    kept = sorted(p.name for p in (tmp_path / "hf" / "datasets" / "parquet").iterdir())
    assert kept == ["b-t4sa-00bb", "other-00cc", "twitter-testing-00dd"]
    assert [p.name for p in (repository / "snapshots").iterdir()] == ["new"]
    assert all(path.resolve().is_file() for path in (repository / "snapshots" / "new").rglob("*") if path.is_symlink())
    assert {p.name for p in (repository / "blobs").iterdir()} == {
        hashlib.sha256(p.read_bytes()).hexdigest() for p in (new / "t4sa").rglob("*") if p.is_file()
    }


def test_the_command(held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from t4sa_data.cli import app

    new = without(held, tmp_path / "new", [5])
    options = ["removals", str(held), "--current", str(new), "--no-caches"]
    first = CliRunner().invoke(app, options)
    assert first.exit_code == 1 and "1 row(s)" in first.output and "--apply" in first.output
    second = CliRunner().invoke(app, [*options, "--apply"])
    assert second.exit_code == 0, second.output
    third = CliRunner().invoke(app, options)
    assert third.exit_code == 0 and "nothing is held" in third.output
    assert CliRunner().invoke(app, ["removals", str(held), "--only-ids"]).exit_code == 2


@pytest.mark.slow
def test_from_the_hub_with_what_its_client_kept(held: Path, tmp_path: Path) -> None:
    """Load a release, learn of its removals from the gated repositories, follow them: with the real client."""
    new = without(held, tmp_path / "new", [5, 59])
    old = {name: load_manifest(held / name) for name in FOLDERS}
    digests_of = {name: {n: e.content_digest for n, e in old[name].layers.items()} for name in FOLDERS}
    made = {}
    for name in FOLDERS:
        entry = ReleaseEntry(content_digest=digests_of[name], date="2026-01-01", state="current")
        first = Path(shutil.copytree(held / name, tmp_path / "first" / name))
        (first / "releases.json").write_bytes(Releases(current="v1.0.0", releases={"v1.0.0": entry}).to_json())
        fresh = {n: e.content_digest for n, e in load_manifest(new / name).layers.items()}
        releases = {
            "v1.0.0": replace(entry, state="withdrawn", successor="v1.0.1"),
            "v1.0.1": replace(entry, content_digest=fresh),
        }
        removed = Removals(count=2, hmac=("0" * 64, "1" * 64), updated="2026-02-01")
        said = Releases(current="v1.0.1", releases=releases, removals=removed)
        second = Path(shutil.copytree(new / name, tmp_path / "second" / name))
        (second / "releases.json").write_bytes(said.to_json())
        (second / "another").touch()  # the double makes its commits of names
        made[name] = (first, second)
    load = """
import t4sa_data, datasets
datasets.disable_progress_bars()
print(len(t4sa_data.load_dataset("t4sa", split="train")))
print(len(t4sa_data.load_dataset("t4sa", split="test")))
"""
    command = [sys.executable, "-m", "t4sa_data.cli", "removals", str(held)]
    allowed = frozenset({TOKEN})
    with Hub({}, tokens=allowed) as hub:
        settings = environment(hub, tmp_path) | {"T4SA_NAMESPACE": "ours", "T4SA_CACHE": str(tmp_path / "cache")}
        settings |= {"USE_TORCH": "0"}

        def go(*words: str) -> tuple[int, str]:
            done = subprocess.run(list(words), env=settings, capture_output=True, text=True, timeout=120, cwd=tmp_path)
            assert TOKEN not in done.stdout + done.stderr
            return done.returncode, done.stdout + done.stderr

        for name in FOLDERS:
            hub.repositories[f"ours/{name}"] = Repository(made[name][0], ("main", "v1.0.0"), allowed)
        code, said = go(sys.executable, "-c", load)
        assert code == 0, said
        code, said = go(*command)
        assert code == 0 and "nothing is held" in said, said
        for name in FOLDERS:
            hub.repositories[f"ours/{name}"] = Repository(made[name][1], ("main", "v1.0.1"), allowed)
        code, said = go(*command)
        kinds = [line.split("  ")[0] for line in said.splitlines()]
        assert code == 1, said
        assert kinds.count("release") == 2 and "Arrow copy" in kinds and "Hub client's cache" in kinds, said
        code, said = go(*command, "--apply")
        assert code == 0, said
        code, said = go(*command)
        assert code == 0 and "nothing is held" in said, said
        code, said = go(sys.executable, "-c", load)
        assert code == 0 and "removed" not in said, said
    assert check_release(held, deep=True).ok
    assert load_manifest(held / "t4sa").data_version == "1.0.1"


def test_keys_alone_need_no_text_shard(built: Path, tmp_path: Path) -> None:
    """A takedown that fetches what it touches has none here."""
    shutil.copytree(
        built / "t4sa", tmp_path / "t4sa", ignore=shutil.ignore_patterns("train-*", "validation-*", "test-*")
    )
    manifest = load_manifest(tmp_path / "t4sa")
    assert any(layer.kind == "text" for layer in manifest.layers.values())
    key = read_table(tmp_path / "t4sa" / "b-t4sa" / "index.parquet", ["key"])["key"][0].as_py()
    drop = removals.rows_to_drop(LocalRelease(tmp_path / "t4sa", manifest), None, [key])
    assert {name: int(mask.sum()) for name, mask in drop.items()} == {"b-t4sa": 1}
