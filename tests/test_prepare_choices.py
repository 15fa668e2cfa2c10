"""`prepare` with other settings, run again, and as a command."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from builders.prepare import Outcome
from builders.report import as_text
from t4sa_data.errors import ConfigUnavailable, UnknownConfig
from t4sa_data.manifest import load_manifest
from t4sa_data.testing import OfficialArchive
from t4sa_data.testing.archive import EXTRA_NAME, IMAGES_NAME, TEXT_NAME, member_name, write_tar

# isort: split
from tests.helpers_release import (
    CONFIGS,
    IMAGE_LAYERS,
    NUM_EXTRA,
    NUM_IMAGES,
    RELEASE_FOLDERS,
    assert_sound,
    assert_truth,
    build,
    differences,
    digests,
    duplicates_of,
    layer_truth,
    ledger_of,
    read_parquet,
    read_tars,
    read_text,
    report_of,
    truth_of,
)

# Choices.


def test_text_none_leaves_text_null(built: Path, archive: OfficialArchive, tmp_path: Path) -> None:
    build(archive, tmp_path, text="none")
    manifest = load_manifest(tmp_path / "t4sa")
    assert manifest.configs == ["b-t4sa", "t4sa-unique", "t4sa", "t4sa-text"]
    for layer in IMAGE_LAYERS:
        expected = {key: row | {"text": None} for key, row in layer_truth(archive, layer).items()}
        assert_truth(read_parquet(tmp_path, layer), expected)
        assert_truth(read_tars(tmp_path, layer), expected)
    assert {row["text"] for row in read_text(tmp_path, "t4sa-text").values()} == {None}
    assert manifest.content_digest != load_manifest(built / "t4sa").content_digest
    assert "none" in report_of(tmp_path)["checks"]["text"]
    # Nowhere in the shards, not even in a footer or as a leftover of a buffer.
    words = [text.encode() for text in archive.texts.values() if len(text) > 20]
    for path in [*(tmp_path / "t4sa").rglob("*.parquet"), *(tmp_path / "t4sa-wds").rglob("*.tar")]:
        data = path.read_bytes()
        assert not any(text in data for text in words), path.name
    assert_sound(tmp_path)


def test_without_the_csv_text_is_null_and_the_report_says_so(raw: Path, tmp_path: Path) -> None:
    (raw / TEXT_NAME).unlink()
    outcome = build(raw, tmp_path / "out", formats=("wds",))
    assert {row["text"] for row in read_tars(tmp_path / "out", "b-t4sa")} == {None}
    assert "text is null" in as_text(outcome.report).replace("`", "")
    with pytest.raises(ConfigUnavailable, match=TEXT_NAME):
        build(raw, tmp_path / "out", configs=("raw-text",))
    with pytest.raises(UnknownConfig, match=r"t4sa-unique.*nonsense"):
        build(raw, tmp_path / "out", configs=("nonsense",))


def test_limit_is_exact_and_stratified(archive: OfficialArchive, tmp_path: Path) -> None:
    limit = 30
    outcome = build(archive, tmp_path, limit=limit, configs=("b-t4sa", "t4sa-text"))
    rows = read_parquet(tmp_path, "b-t4sa")
    assert len(rows) + len(outcome.report.quarantined) == limit
    truth = truth_of(archive)
    assert_truth(rows, {row["key"]: truth[row["key"]] for row in rows})
    strata = Counter((archive.splits[key], archive.labels[key]) for key in archive.images)
    kept = Counter((row["split"], row["label"]) for row in rows)
    kept.update((archive.splits[row["key"]], archive.labels[row["key"]]) for row in outcome.report.quarantined)
    for stratum, size in strata.items():
        assert abs(kept[stratum] - size * limit / NUM_IMAGES) <= 1, stratum
    assert len(read_text(tmp_path, "t4sa-text")) == limit
    assert outcome.report.funnel["image"]["dropped"]["limit/beyond"] == NUM_IMAGES - limit
    assert_sound(tmp_path)
    # A larger limit keeps what a smaller one kept, in the same order.
    build(archive, tmp_path / "more", limit=40, configs=("b-t4sa",))
    keys = {row["key"] for row in rows}
    assert [row["key"] for row in read_parquet(tmp_path / "more", "b-t4sa") if row["key"] in keys] == [
        row["key"] for row in rows
    ]


def test_unique_list_decides_instead_of_hashes(built: Path, archive: OfficialArchive, tmp_path: Path) -> None:
    extra, copies = list(archive.extra), sorted(duplicates_of(archive))
    unique = {*extra[:4], copies[0]}  # not what the hashes say
    lines = [key if number % 2 else f"{member_name(key)} 1" for number, key in enumerate(sorted(unique))]
    (tmp_path / "unique.txt").write_text("\r\n".join(lines) + "\n")
    build(archive, tmp_path / "out", unique_list=tmp_path / "unique.txt", configs=("t4sa",))
    truth = truth_of(archive)
    for layer, keys in (("unique", unique), ("duplicates", set(extra) - unique)):
        assert_truth(read_parquet(tmp_path / "out", layer), {key: truth[key] for key in keys})
        assert_truth(read_tars(tmp_path / "out", layer), {key: truth[key] for key in keys})
    # B-T4SA's files do not depend on it.
    names = [f"{folder}/b-t4sa" for folder in ("t4sa", "t4sa-wds")]
    assert differences(digests(tmp_path / "out", *names), digests(built, *names)) == []
    assert_sound(tmp_path / "out")


def test_removals_take_images_and_texts_from_every_layer(archive: OfficialArchive, tmp_path: Path) -> None:
    good = [key for key in archive.images if key not in archive.broken]
    one = next(key for key in good if key.endswith("-2"))  # one image of a tweet that keeps another
    tweets = {good[0].split("-")[0], next(iter(duplicates_of(archive))).split("-")[0]}
    (tmp_path / "gone.txt").write_text("# asked for\n" + "\n".join(sorted(tweets)) + f"\n\n{one}  # by key\n")
    build(archive, tmp_path / "out")
    before = ledger_of(tmp_path / "out")
    outcome = build(archive, tmp_path / "out", removals=tmp_path / "gone.txt")  # from a release that held them
    digest = hashlib.sha256((tmp_path / "gone.txt").read_bytes()).hexdigest()  # a short list is guessed by it
    for path in (tmp_path / "out").glob("t4sa*/*.*"):
        assert digest not in path.read_text() and "gone.txt" not in path.read_text(), path
    gone = {key for key in (*archive.images, *archive.extra) if key.split("-")[0] in tweets} | {one}
    left = []
    for layer in IMAGE_LAYERS:
        rows = read_parquet(tmp_path / "out", layer)
        assert rows == read_tars(tmp_path / "out", layer)
        assert_truth(rows, {key: row for key, row in layer_truth(archive, layer).items() if key not in gone})
        left += [row["key"] for row in rows]
    assert len(left) == NUM_IMAGES + NUM_EXTRA - len(gone | archive.broken.keys())
    texts = {i for i in archive.texts if str(i) not in tweets}
    assert read_text(tmp_path / "out", "raw-text").keys() == texts
    assert read_text(tmp_path / "out", "t4sa-text").keys() == {i for i in archive.probabilities if str(i) not in tweets}
    assert outcome.report.funnel["image"]["dropped"]["removals/removed"] == len(gone)
    assert outcome.report.checks["tweets removed from the text layers"] == 2 * len(tweets)
    dropped = {row["key"] for row in ledger_of(tmp_path / "out") if row["reason"] == "removals/removed"}
    assert gone <= dropped <= gone | tweets
    assert len(ledger_of(tmp_path / "out")) == len(before)  # removed, not forgotten
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix in (".tar", ".parquet") and path.parent.name != "build" and path.name != "index.parquet":
            assert not any(archive_bytes(archive, key) in path.read_bytes() for key in gone), path
    assert_sound(tmp_path / "out")


def archive_bytes(archive: OfficialArchive, key: str) -> bytes:
    return (dict(archive.images) | dict(archive.extra))[key]


# Again, changed, smaller.


def test_second_run_has_nothing_to_do_and_touches_nothing(full: tuple[Path, Outcome], archive: OfficialArchive) -> None:
    out, first = full
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != "lock"}
    start = time.perf_counter()
    outcome = build(archive, out)
    seconds = time.perf_counter() - start
    assert outcome.unchanged and outcome.manifests == first.manifests
    assert seconds < 3
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before


def test_changed_inputs_are_noticed(archive: OfficialArchive, raw: Path, tmp_path: Path) -> None:
    def run() -> Outcome:
        return build(raw, tmp_path / "out", configs=("b-t4sa",))

    run()
    data = (raw / TEXT_NAME).read_bytes()
    (raw / TEXT_NAME).write_bytes(data.replace(b"day", b"eve"))  # as many bytes as before
    assert not run().unchanged
    texts = {row["text"] for row in read_tars(tmp_path / "out", "b-t4sa")}
    assert any("eve" in text for text in texts) and not any("day" in text for text in texts)
    assert_sound(tmp_path / "out")
    (raw / TEXT_NAME).write_bytes(data)
    assert not run().unchanged
    assert_truth(read_tars(tmp_path / "out", "b-t4sa"), layer_truth(archive, "b-t4sa"))
    assert_sound(tmp_path / "out")
    key = next(key for key in archive.images if key not in archive.broken)
    changed = dict(archive.images) | {key: archive.images[key] + b"\0"}
    write_tar(raw / IMAGES_NAME, {member_name(k): v for k, v in changed.items()})
    assert not run().unchanged
    (row,) = [row for row in read_parquet(tmp_path / "out", "b-t4sa") if row["key"] == key]
    assert row["image"] == changed[key] and row["sha256"] == hashlib.sha256(changed[key]).hexdigest()
    assert_sound(tmp_path / "out")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"text": "none"}),
        ({"shard_bytes": 1_000_000}, {"shard_bytes": 30_000}),
        ({"limit": 40}, {}),
    ],
    ids=["text", "smaller shards", "limit"],
)
def test_there_and_back_again(
    archive: OfficialArchive, tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Other settings replace the files and leave none behind; the earlier settings afterwards bring back the bytes."""

    def digests_of(name: str, choices: dict[str, Any]) -> dict[str, str]:
        outcome = build(archive, tmp_path / name, configs=("b-t4sa", "t4sa-text"), **choices)
        assert not outcome.unchanged
        return digests(tmp_path / name, *RELEASE_FOLDERS)

    expected = digests_of("out", first)
    assert differences(digests_of("out", second), digests_of("fresh", second)) == []
    assert differences(digests_of("out", first), expected) == []
    assert_sound(tmp_path / "out", deep=False)


@pytest.mark.parametrize(
    "lost", ["t4sa/b-t4sa/test-00000-of-00001.parquet", "t4sa-wds/b-t4sa/_info.json", "t4sa/README.md"]
)
def test_a_lost_file_is_made_again(archive: OfficialArchive, built: Path, tmp_path: Path, lost: str) -> None:
    shutil.copytree(built, tmp_path / "out")
    (tmp_path / "out" / lost).unlink()
    assert not build(archive, tmp_path / "out").unchanged
    assert differences(digests(tmp_path / "out"), digests(built)) == []


# The command.


def command(raw: Path, out: Path, *options: str) -> list[str]:
    where = [str(raw), "--out", str(out), "--workers", "1", "--shard-size", "60000"]
    return [sys.executable, "-m", "t4sa_data.cli", "prepare", *where, *options]


def test_command_prints_the_table_and_is_quiet_without_a_terminal(
    built: Path, archive: OfficialArchive, tmp_path: Path
) -> None:
    extra = ("--images", str(archive.folder / EXTRA_NAME))
    made = subprocess.run(command(archive.folder, tmp_path, *extra), capture_output=True, text=True, check=True)
    rows = {line.split()[0]: line.split() for line in made.stdout.splitlines() if "/" in line.split(" ")[0]}
    manifest = load_manifest(tmp_path / "t4sa")
    for config in CONFIGS:
        for split, entry in manifest.splits(config).items():
            assert rows[f"{config}/{split}"][3] == f"{entry.rows:,}"
    assert rows["b-t4sa/train"][1] == "368,586"
    assert f"images: {NUM_IMAGES + NUM_EXTRA} candidates" in made.stdout
    assert "GB free" in made.stderr and "t4sa check" in made.stdout
    for sign in ("\r", "%|", "img/s", "it/s"):
        assert sign not in made.stderr + made.stdout
    assert differences(digests(tmp_path, *RELEASE_FOLDERS), digests(built, *RELEASE_FOLDERS)) == []
    again = subprocess.run(command(archive.folder, tmp_path, *extra), capture_output=True, text=True, check=True)
    assert again.stderr.startswith("Nothing to do") and again.stderr.count("\n") == 1 and not again.stdout


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals on this system")
def test_command_shows_progress_on_a_terminal(archive: OfficialArchive, tmp_path: Path) -> None:
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # a terminal of no width shows no bar
    with subprocess.Popen(
        command(archive.folder, tmp_path, "--configs", "b-t4sa", "--formats", "wds"),
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as running:
        os.close(theirs)
        shown = io.BytesIO()
        try:
            while data := os.read(ours, 65_536):
                shown.write(data)
        except OSError:  # Linux says so when the other end is closed
            pass
        assert running.wait() == 0
    os.close(ours)
    text = shown.getvalue().decode()
    for stage in ("inspect", "write"):
        assert f"{stage}: 100%" in text
    assert "img/s" in text
