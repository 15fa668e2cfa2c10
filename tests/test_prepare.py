"""`prepare` on the official packages in miniature: what comes out is what went in, in every format and every order."""

from __future__ import annotations

import csv
import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from builders.prepare import Outcome
from t4sa_data.catalog import CLASSES, OFFICIAL_LISTS, published_class_counts
from t4sa_data.manifest import load_manifest
from t4sa_data.testing import OfficialArchive, make_official_archive
from t4sa_data.testing.archive import EXTRA_NAME, IMAGES_NAME, SENTIMENT_NAME, TEXT_NAME, member_name, write_tar

# isort: split
from tests.helpers_release import (
    CONFIGS,
    IMAGE_LAYERS,
    NUM_EXTRA,
    NUM_IMAGES,
    PROBABILITIES,
    RELEASE_FOLDERS,
    TRUTH,
    assert_pixels,
    assert_sound,
    assert_truth,
    build,
    differences,
    digests,
    duplicates_of,
    float32,
    layer_digest,
    layer_truth,
    ledger_of,
    read_by_table,
    read_parquet,
    read_tars,
    read_text,
    report_of,
)

SEAL_FILES = ("README.md", "croissant.json", "manifest.json")


# What comes out is what went in.


@pytest.mark.parametrize("layer", IMAGE_LAYERS)
def test_four_readings_agree_with_the_archive(built: Path, archive: OfficialArchive, layer: str) -> None:
    expected = layer_truth(archive, layer)
    assert len(expected) >= 5
    readings = [
        read_parquet(built, layer),
        read_tars(built, layer),
        read_by_table(built / "t4sa", layer),
        read_by_table(built / "t4sa-wds", layer),
    ]
    for rows in readings:
        assert_truth(rows, expected)
        assert rows == readings[0]  # same rows, same order, every column
    for row in readings[0]:
        assert_pixels(row)


def test_splits_are_the_official_ones_in_release_order(built: Path, archive: OfficialArchive) -> None:
    rows = read_parquet(built, "b-t4sa")
    assert list(dict.fromkeys(row["split"] for row in rows)) == ["train", "validation", "test"]
    keys = [row["key"] for row in rows if row["split"] == "train"]
    assert keys != sorted(keys)  # a seeded permutation: the archive is sorted by time
    for line in (archive.folder / OFFICIAL_LISTS["test"]).read_text().splitlines():
        path, label = line.split()
        key = path.rsplit("/", 1)[1].removesuffix(".jpg")
        if key not in archive.broken:
            (row,) = [row for row in rows if row["key"] == key]
            assert (row["split"], row["label"]) == ("test", int(label))


def test_quarantine_holds_the_broken_with_bytes_and_reason(built: Path, archive: OfficialArchive) -> None:
    assert len(archive.broken) == 4
    rows = [json.loads(line) for line in (built / "quarantine" / "quarantine.jsonl").read_text().splitlines()]
    assert {row["key"]: row["reason"] for row in rows} == archive.broken
    for row in rows:
        data = archive.images[row["key"]]
        assert (built / "quarantine" / f"{row['key']}.jpg").read_bytes() == data
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert (row["split"], row["label"]) == (archive.splits[row["key"]], archive.labels[row["key"]])
        with (archive.folder / row["archive"]).open("rb") as file:
            file.seek(row["offset"])
            assert file.read(row["length"]) == data
    assert len(list((built / "quarantine").iterdir())) == 5
    entries = load_manifest(built / "t4sa").layers["b-t4sa"].splits
    assert sorted(key for entry in entries.values() for key in entry.quarantined) == sorted(archive.broken)


def test_duplicate_groups_of_planted_near_duplicates(built: Path, archive: OfficialArchive) -> None:
    rows = {row["key"]: row for layer in IMAGE_LAYERS for row in read_parquet(built, layer)}
    assert archive.near_duplicates
    for pair in archive.near_duplicates:
        assert {rows[key]["duplicate_group"] for key in pair} == {min(pair)}
    listed = {row["duplicate_group"] for row in read_parquet(built, "b-t4sa")}
    assert listed <= set(archive.images)
    for row in read_parquet(built, "duplicates"):
        assert row["duplicate_group"] in listed  # named after the b-t4sa image, though the copy has the larger layer
    for row in read_parquet(built, "unique"):
        assert row["duplicate_group"] == row["key"]
    alone = [key for key in archive.images if key in rows and rows[key]["duplicate_group"] == key]
    assert len(alone) == len(archive.images) - 4 - len(archive.near_duplicates)


def test_everything_is_sound(built: Path) -> None:
    assert_sound(built)


def test_configs_are_unions_of_layers_with_the_same_held_out_files(built: Path) -> None:
    for folder in ("t4sa", "t4sa-wds"):
        manifest = load_manifest(built / folder)
        assert manifest.configs == (list(CONFIGS) if folder == "t4sa" else list(CONFIGS[:3]))
        for split in ("validation", "test"):
            files = [manifest.shards(config, split) for config in CONFIGS[:3]]
            assert files[0] == files[1] == files[2] != []
        trains = [[file.name for file in manifest.shards(config, "train")] for config in CONFIGS[:3]]
        assert trains[2][: len(trains[1])] == trains[1] and trains[1][: len(trains[0])] == trains[0]
        assert len(trains[0]) < len(trains[1]) < len(trains[2])
        assert manifest.splits("t4sa")["train"].rows == sum(
            manifest.layers[layer].splits["train"].rows for layer in IMAGE_LAYERS
        )


def test_text_layers_are_the_tables_row_for_row(built: Path, archive: OfficialArchive) -> None:
    with (archive.folder / TEXT_NAME).open(encoding="utf-8", newline="") as file:
        texts = {int(row["id"]): row["text"] for row in csv.DictReader(file)}
    assert texts == archive.texts
    assert any("\n" in text for text in texts.values()) and any('"' in text for text in texts.values())
    expected = {i: {"tweet_id": i, "text": text, "split": "train"} for i, text in texts.items()}
    assert read_text(built, "raw-text") == expected
    labelled = read_text(built, "t4sa-text")
    assert labelled.keys() == archive.probabilities.keys()
    for tweet_id, exact in archive.probabilities.items():
        rounded = [float32(float(f"{value:.12g}")) for value in exact]
        row = labelled[tweet_id]
        assert [row[name] for name in PROBABILITIES] == rounded
        assert (row["confidence"], row["label"]) == (max(rounded), exact.index(max(exact)))
        assert (row["text"], row["split"]) == (archive.texts.get(tweet_id), "train")


# The same content, whatever the way.


def test_one_format_alone_is_that_folder_of_both(built: Path, archive: OfficialArchive, tmp_path: Path) -> None:
    build(archive, tmp_path / "parquet", formats=("parquet",))
    build(archive, tmp_path / "wds", formats=("wds",))
    assert not (tmp_path / "parquet" / "t4sa-wds").exists() and not (tmp_path / "wds" / "t4sa").exists()
    assert differences(digests(tmp_path / "parquet", "t4sa"), digests(built, "t4sa")) == []
    assert differences(digests(tmp_path / "wds", "t4sa-wds"), digests(built, "t4sa-wds")) == []
    build(archive, tmp_path / "wds", formats=("parquet",))  # the other format later, into the same folder
    assert differences(digests(tmp_path / "wds", *RELEASE_FOLDERS), digests(built, *RELEASE_FOLDERS)) == []
    for name in IMAGE_LAYERS:
        assert layer_digest(built, name, "t4sa") == layer_digest(built, name, "t4sa-wds")


@pytest.mark.parametrize(
    "order",
    [
        ("raw-text", "t4sa", "t4sa-text", "b-t4sa"),
        pytest.param(CONFIGS, marks=pytest.mark.slow),
        pytest.param(CONFIGS[::-1], marks=pytest.mark.slow),
    ],
)
def test_configs_one_by_one_give_the_bytes_of_all_at_once(
    built: Path, archive: OfficialArchive, tmp_path: Path, order: tuple[str, ...]
) -> None:
    for config in order:
        build(archive, tmp_path, configs=(config,))
        assert config in load_manifest(tmp_path / "t4sa").configs
    assert differences(digests(tmp_path, *RELEASE_FOLDERS), digests(built, *RELEASE_FOLDERS)) == []
    build(archive, tmp_path)
    notes = ("build/ledger.parquet", "build/report.json")
    assert differences(digests(tmp_path, *RELEASE_FOLDERS, *notes), digests(built, *RELEASE_FOLDERS, *notes)) == []
    assert_sound(tmp_path)


def test_content_and_bytes_do_not_depend_on_the_order_of_the_inputs(
    built: Path, archive: OfficialArchive, raw: Path, tmp_path: Path
) -> None:
    keys = sorted(archive.images, key=lambda key: hashlib.sha256(key.encode()).digest())
    write_tar(raw / IMAGES_NAME, {member_name(key): archive.images[key] for key in keys})
    for name in (SENTIMENT_NAME, *OFFICIAL_LISTS.values()):
        head, *lines = (raw / name).read_text().splitlines(keepends=True)
        lines = [head, *reversed(lines)] if name == SENTIMENT_NAME else [*reversed(lines), head]
        (raw / name).write_text("".join(lines))
    with (raw / TEXT_NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("id", "text"), *sorted(archive.texts.items(), reverse=True)])
    build(raw, tmp_path / "out")
    changed = differences(digests(tmp_path / "out", "t4sa", "t4sa-wds"), digests(built, "t4sa", "t4sa-wds"))
    assert {Path(name).name for name in changed} <= set(SEAL_FILES)  # these name the inputs by their sha256
    assert load_manifest(tmp_path / "out" / "t4sa").content_digest == load_manifest(built / "t4sa").content_digest


def test_content_does_not_depend_on_shard_size(built: Path, archive: OfficialArchive, tmp_path: Path) -> None:
    build(archive, tmp_path, shard_bytes=10_000_000)
    for folder in ("t4sa", "t4sa-wds"):
        one, other = load_manifest(tmp_path / folder), load_manifest(built / folder)
        assert len(one.files) < len(other.files)
        assert one.content_digest == other.content_digest
    assert read_tars(tmp_path, "b-t4sa") == read_tars(built, "b-t4sa")


def test_lists_inside_the_tar_are_as_good_as_beside_it(built: Path, tmp_path: Path) -> None:
    inside = make_official_archive(tmp_path / "raw", NUM_IMAGES, num_extra=NUM_EXTRA, lists_inside=True)
    assert not any((inside.folder / name).exists() for name in OFFICIAL_LISTS.values())
    build(inside, tmp_path / "out", formats=("wds",), configs=("b-t4sa",))
    assert layer_digest(tmp_path / "out", "b-t4sa", "t4sa-wds") == layer_digest(built, "b-t4sa", "t4sa-wds")


def test_in_place_reads_the_archive_where_it_lies(built: Path, archive: OfficialArchive, raw: Path) -> None:
    before = digests(raw)
    outcome = build(raw, raw / "nowhere", in_place=True)
    assert set(outcome.manifests) == {"in-place"} and not (raw / "nowhere").exists()
    after = digests(raw)
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"t4sa-inplace"}
    rows = read_by_table(raw / "t4sa-inplace", "b-t4sa", data_root="..")
    assert_truth(rows, layer_truth(archive, "b-t4sa"))
    assert [row["key"] for row in rows] == [row["key"] for row in read_parquet(built, "b-t4sa")]
    manifest = load_manifest(raw / "t4sa-inplace")
    assert manifest.layers["b-t4sa"].content_digest == layer_digest(built, "b-t4sa")
    assert_sound(raw)
    assert build(raw, raw / "nowhere", in_place=True).unchanged


# What it says of itself.


def test_report_counts_and_funnel_add_up(full: tuple[Path, Outcome], archive: OfficialArchive) -> None:
    out, outcome = full
    report = report_of(out)
    assert report == json.loads(json.dumps(outcome.report.to_json()))
    counts = {(row["config"], row["split"]): row for row in report["counts"]}
    assert {config for config, _ in counts} == set(CONFIGS)
    for split in OFFICIAL_LISTS:
        row = counts["b-t4sa", split]
        keys = [key for key, s in archive.splits.items() if s == split]
        good = [key for key in keys if key not in archive.broken]
        assert (row["listed"], row["released"], row["quarantined"]) == (len(keys), len(good), len(keys) - len(good))
        tally = Counter(archive.labels[key] for key in good)
        assert row["classes"] == [tally[label] for label in range(len(CLASSES))]
        published = published_class_counts("b-t4sa", split)
        assert published is not None and row["paper_classes"] == list(published.values())
    released = {config: counts[config, "train"]["released"] for config in CONFIGS}
    copies = len(duplicates_of(archive))
    assert released["t4sa-unique"] == released["b-t4sa"] + NUM_EXTRA - copies
    assert released["t4sa"] == released["b-t4sa"] + NUM_EXTRA
    assert (released["raw-text"], released["t4sa-text"]) == (len(archive.texts), len(archive.probabilities))
    images, tweets = report["funnel"]["image"], report["funnel"]["tweet"]
    assert images["candidates"] == NUM_IMAGES + NUM_EXTRA
    assert tweets["candidates"] == len(archive.texts) + len(archive.probabilities)
    for funnel in (images, tweets):
        assert funnel["candidates"] == sum(funnel["kept"].values()) + sum(funnel["dropped"].values())
    assert images["dropped"] == {f"inspection/{reason}": 1 for reason in archive.broken.values()}


def test_report_checks_are_the_archives(full: tuple[Path, Outcome], archive: OfficialArchive) -> None:
    checks = report_of(full[0])["checks"]
    selected = [archive.texts[i] for i in archive.probabilities]
    lowest = min(max(float32(value) for value in row) for row in archive.probabilities.values())
    keys = [key for key in (*archive.images, *archive.extra) if key not in archive.broken]
    tweets = {key.split("-")[0] for key in keys}
    assert checks["tweets in the TSV"] == len(archive.probabilities)
    assert checks["rows of the CSV"] == len(archive.texts)
    assert checks["retweets among the selected texts (RT @)"] == sum(text.startswith("RT @") for text in selected) > 0
    assert checks["lowest largest probability"] == lowest
    assert checks["images per tweet"] == round(len(keys) / len(tweets), 3)
    assert checks["tweets of the TSV without an image"] == len(archive.probabilities) - len(tweets)
    assert checks["tweets that stand in two splits"]["count"] == 0
    crossing = {a for a, b in archive.near_duplicates if archive.splits[a] != archive.splits[b]}
    assert crossing <= set(checks["near-duplicate groups that stand in two splits"]["examples"])
    assert checks["formats"]["JPEG"] + checks["formats"]["PNG"] + checks["formats"]["GIF"] + checks["formats"].get(
        "WEBP", 0
    ) == len(keys)


def test_ledger_gives_every_candidate_one_status(full: tuple[Path, Outcome], archive: OfficialArchive) -> None:
    rows = ledger_of(full[0])
    images = [row for row in rows if row["kind"] == "image"]
    assert sorted(row["key"] for row in images) == sorted([*archive.images, *archive.extra])
    for row in rows:
        assert (row["reason"] is None) == (row["layer"] is not None) == (row["split"] is not None)
    assert {row["key"]: row["reason"].removeprefix("inspection/") for row in images if row["reason"]} == archive.broken
    for layer in IMAGE_LAYERS:
        kept = {row["key"]: row["split"] for row in images if row["layer"] == layer}
        assert kept == {key: row["split"] for key, row in layer_truth(archive, layer).items()}
    tweets = Counter((row["layer"], row["key"]) for row in rows if row["kind"] == "tweet")
    assert set(tweets) == {("raw-text", str(i)) for i in archive.texts} | {
        ("t4sa-text", str(i)) for i in archive.probabilities
    }
    assert set(tweets.values()) == {1}


@pytest.mark.parametrize("limit", [None, 20])
def test_odd_inputs_are_counted_and_nothing_disappears(
    archive: OfficialArchive, raw: Path, tmp_path: Path, limit: int | None
) -> None:
    train = raw / OFFICIAL_LISTS["train"]
    good = [key for key in archive.images if archive.splits[key] == "train" and key not in archive.broken]
    relabelled, unlisted, unknown, silent = good[0], good[5], good[10], good[15]
    assert len({key.split("-")[0] for key in (relabelled, unlisted, unknown, silent)}) == 4
    lines = train.read_text().splitlines(keepends=True)
    lines = [line for line in lines if unlisted not in line]
    wrong = (archive.labels[relabelled] + 1) % 3
    lines = [f"{member_name(relabelled)} {wrong}\n" if relabelled in line else line for line in lines]
    lines += ["\n", f"{member_name('757999999999999999-3')} 2\n"]
    train.write_text("".join(lines))
    tsv = (raw / SENTIMENT_NAME).read_text().splitlines(keepends=True)
    tsv = [line for line in tsv if not line.startswith(unknown.split("-")[0])]
    (raw / SENTIMENT_NAME).write_text("".join(tsv))
    texts = {i: text for i, text in archive.texts.items() if i != int(silent.split("-")[0])}
    first = next(iter(texts))
    with (raw / TEXT_NAME).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *texts.items(), (first, "another text of an earlier id")])
    with tarfile.open(raw / EXTRA_NAME) as tar:
        extra = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    nameless, again = "798000000000000001-1", good[20]
    extra |= {member_name(nameless): archive.images[good[1]], member_name(again): archive.images[again]}
    write_tar(raw / EXTRA_NAME, extra)

    outcome = build(raw, tmp_path / "out", limit=limit)
    funnel = outcome.report.funnel["image"]
    assert funnel["candidates"] == NUM_IMAGES + NUM_EXTRA + 3  # listed nowhere, listed and absent, ...
    assert funnel["candidates"] == sum(funnel["kept"].values()) + sum(funnel["dropped"].values())
    reasons = {row["key"]: row["reason"] for row in ledger_of(tmp_path / "out") if row["kind"] == "image"}
    assert reasons["757999999999999999-3"] == "official/not-in-archive"
    assert reasons[unlisted] == "official/not-listed"
    assert reasons[nameless] == "official/no-label"
    assert funnel["dropped"]["official/already-in-b-t4sa"] == 1
    tweets = outcome.report.funnel["tweet"]
    assert tweets["candidates"] == len(texts) + 1 + len(archive.probabilities) - 1
    assert tweets["candidates"] == sum(tweets["kept"].values()) + sum(tweets["dropped"].values())
    if limit is not None:
        return
    rows = {row["key"]: row for row in read_parquet(tmp_path / "out", "b-t4sa")}
    assert rows[relabelled]["label"] == wrong
    assert [rows[unknown][name] for name in (*PROBABILITIES, "confidence")] == [None] * 4
    assert rows[silent]["text"] is None
    checks = outcome.report.checks
    assert checks["labels that are not the most probable class"] == {"count": 1, "examples": [relabelled]}
    assert unknown in checks["images whose tweet is not in the TSV"]["examples"]
    assert checks["tweets of the TSV without a text"] == 1
    assert (checks["repeated ids in the CSV"], checks["of these, with another text"]) == (1, 1)
    assert checks["blank lines in the lists"] == 1
    assert read_text(tmp_path / "out", "raw-text")[first]["text"] == texts[first]
    assert rows == {row["key"]: row for row in read_tars(tmp_path / "out", "b-t4sa")}
    assert_sound(tmp_path / "out")


def test_truth_columns_are_those_of_the_digest() -> None:
    """The tests above compare every column that the content digest covers (image stands for its sha256)."""
    assert set(TRUTH) >= {"split", "label", *PROBABILITIES, "tweet_id", "image_index", "text", "sha256", "image"}
