"""`t4sa build` end to end: a raw stream in miniature, and an image host on loopback that fails in every way."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from builders import pipeline
from builders.build_cli import app
from builders.build_config import BuildConfig, DedupSettings, SplitSettings, read_config
from builders.engine import Local
from builders.stages.split import distance_of
from t4sa_data.catalog import OFFICIAL_LISTS, SPLITS
from t4sa_data.errors import BadOption, FetchIncomplete, InputMissing, NoRows, OutputError, StageNotDone
from t4sa_data.testing import make_official_archive
from t4sa_data.testing.archive import member_name

from tests.build_helpers import Stream, kept_images, ledger_of, make_stream, run  # isort: skip
from tests.helpers_release import assert_sound, differences, digests, read_parquet, read_tars  # isort: skip
from tests.helpers_release import build as prepare  # isort: skip
from tests.image_host import image, status  # isort: skip

LAYERS = ("b-t4sa", "unique", "duplicates")
RESULTS = ("t4sa", "t4sa-wds", "quarantine", "build/ledger.parquet")


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    made = make_stream(tmp_path_factory.mktemp("raw"))
    yield made
    made.host.__exit__()


@pytest.fixture(scope="module")
def built(stream: Stream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build in one process that nobody disturbed."""
    folder = tmp_path_factory.mktemp("built")
    run(stream, folder / "out", stream.config(folder))
    return folder / "out"


def test_the_release_holds_what_the_host_gave(stream: Stream, built: Path) -> None:
    assert_sound(built)
    for read in (read_parquet, read_tars):
        rows = {row["key"]: row for layer in LAYERS for row in read(built, layer)}
        expected = kept_images(stream)
        assert {key: row["image"] for key, row in rows.items()} == dict(expected)
        for key, row in rows.items():
            tweet = int(key.split("-")[0])
            assert row["label"] == stream.raw.classes[tweet] and row["tweet_id"] == tweet
            assert row["sha256"] == hashlib.sha256(expected[key]).hexdigest()
            assert row["confidence"] >= 0.85 and row["text"].startswith("the ")


def test_b_t4sa_is_balanced_and_split(built: Path) -> None:
    rows = read_parquet(built, "b-t4sa")
    classes = Counter(row["label"] for row in rows)
    assert set(classes) == {0, 1, 2} and len(set(classes.values())) == 1
    splits = Counter((row["split"], row["label"]) for row in rows)
    for split in SPLITS:
        assert len({splits[split, label] for label in range(3)}) == 1, splits
    first = {row["duplicate_group"] for layer in ("b-t4sa", "unique") for row in read_parquet(built, layer)}
    assert len(first) == sum(len(read_parquet(built, layer)) for layer in ("b-t4sa", "unique"))


def test_the_card_says_that_it_is_no_official_release(built: Path) -> None:
    for folder in ("t4sa", "t4sa-wds"):
        card = (built / folder / "README.md").read_text()
        assert "**This copy is not the authors' dataset: it was built anew from raw tweets" in card
        assert "[ 120 tweets ]" in card and "set aside in duplicates" in card


def test_planted_near_duplicates_are_grouped(stream: Stream, built: Path) -> None:
    rows = {row["key"]: row for layer in LAYERS for row in read_parquet(built, layer)}
    pairs = [(a, b) for a, b in stream.raw.near_duplicates if a in rows and b in rows]
    assert len(pairs) >= 5
    for a, b in pairs:
        assert rows[a]["duplicate_group"] == rows[b]["duplicate_group"]
    sizes = Counter(row["duplicate_group"] for row in rows.values())
    assert sum(size - 1 for size in sizes.values()) == len(read_parquet(built, "duplicates"))
    for key in sizes:  # a group is named after the one that stands for it: the most confident
        mine = [row for row in rows.values() if row["duplicate_group"] == key]
        best = min(mine, key=lambda row: (-row["confidence"], row["tweet_id"], row["image_index"]))
        assert best["key"] == key


def test_every_candidate_has_one_fate(stream: Stream, built: Path) -> None:
    ledger = ledger_of(built)
    for tweet, reason in stream.raw.dropped.items():
        assert ledger["tweet", str(tweet)]["reason"] == f"collect/{reason}"
    for number, tweet in enumerate(stream.raw.classes):
        expected = "select/below-threshold" if number % 7 == 6 else None
        assert ledger["tweet", str(tweet)]["reason"] == expected
    assert sum(kind == "tweet" for kind, _ in ledger) == len(stream.raw.dropped) + len(stream.raw.classes)
    selected = {str(tweet) for number, tweet in enumerate(stream.raw.classes) if number % 7 != 6}
    for key in stream.raw.paths:
        row = ledger.get(("image", key))
        assert (row is not None) == (key.split("-")[0] in selected)
        if row is not None:
            wrong = stream.gone.get(key) or (f"inspection/{stream.broken[key]}" if key in stream.broken else None)
            assert row["reason"] == wrong and (row["layer"] in LAYERS) == (wrong is None), key
    quarantined = json.loads((built / "quarantine" / "quarantine.jsonl").read_text().splitlines()[0])
    assert {quarantined["key"]: quarantined["reason"]} == stream.broken
    assert quarantined["key"].split("-")[0] in selected


def test_stages_add_up(stream: Stream, tmp_path: Path) -> None:
    outcome = run(stream, tmp_path / "out", stream.config(tmp_path))
    assert tuple(outcome.counts) == pipeline.NAMES == outcome.ran
    for name, counts in outcome.counts.items():
        if "in" in counts:
            assert counts["in"] == counts["kept"] + sum(counts["dropped"].values()), name
    counts = outcome.counts
    assert counts["label"]["in"] == counts["collect"]["kept"] and counts["select"]["in"] == counts["label"]["kept"]
    assert counts["fetch"]["in"] == counts["select"]["images"]
    assert (
        counts["inspection"]["in"] == counts["fetch"]["kept"] and counts["dedup"]["in"] == counts["inspection"]["kept"]
    )
    assert counts["write"]["kept"] == counts["dedup"]["kept"] and counts["split"]["in"] == counts["balance"]["drawn"]


def test_what_stands_is_not_done_again(stream: Stream, tmp_path: Path) -> None:
    out, asked = tmp_path / "out", Counter(stream.host.counts)
    run(stream, out, stream.config(tmp_path))
    asked = stream.host.counts - asked
    before, first = digests(out, *RESULTS), Counter(stream.host.counts)
    again = run(stream, out, stream.config(tmp_path))
    assert again.ran == () and digests(out, *RESULTS) == before
    # Another cut, another distance: only what follows from them, and no image that was fetched is asked for again.
    wider = run(stream, out, stream.config(tmp_path, more="[dedup]\ndistance = 2\n"))
    assert wider.ran == ("dedup", "balance", "split", "write", "report")
    assert stream.host.counts == first
    lower = stream.config(tmp_path / "lower")
    lower.write_text(lower.read_text().replace("threshold = 0.85", "threshold = 0.5"))
    more = run(stream, out, lower)
    assert more.ran[0] == "select"
    held = {stream.raw.paths[key] for key in kept_images(stream)}
    assert not {path: num for path, num in (stream.host.counts - first).items() if path in held}
    assert len(ledger_of(out)) > len(before)
    assert_sound(out)
    back = run(stream, out, stream.config(tmp_path))
    assert set(back.ran) <= {"write", "report"} and differences(digests(out, *RESULTS), before) == []


@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_workers(stream: Stream, built: Path, tmp_path: Path, workers: int) -> None:
    run(stream, tmp_path / "out", stream.config(tmp_path), engine=Local(workers))
    assert differences(digests(tmp_path / "out", *RESULTS), digests(built, *RESULTS)) == []


def test_tweets_in_other_files_give_the_same_release(stream: Stream, built: Path, tmp_path: Path) -> None:
    import gzip
    from dataclasses import replace

    one, other = stream.raw.files
    lines = one.read_bytes().splitlines(keepends=True) + gzip.decompress(other.read_bytes()).splitlines(keepends=True)
    (tmp_path / "all.jsonl").write_bytes(b"".join(reversed(lines)))
    packed = replace(stream, raw=replace(stream.raw, files=[tmp_path / "all.jsonl"]))
    run(packed, tmp_path / "out", stream.config(tmp_path))
    assert differences(digests(tmp_path / "out", *RESULTS), digests(built, *RESULTS)) == []


def test_an_outage_is_no_smaller_dataset(tmp_path: Path) -> None:
    """Half of the pictures answer 503: no release. When they are back, the same command asks for them only."""
    stream = make_stream(tmp_path / "raw", faults=False, num_tweets=60)
    try:
        out, config = tmp_path / "out", stream.config(tmp_path)
        down = sorted(stream.raw.images)[::2]
        whole = {path: stream.host.routes[path] for path in down}
        stream.host.routes.update(dict.fromkeys(down, status(503)))
        with pytest.raises(FetchIncomplete):
            run(stream, out, config)
        assert not (out / "t4sa").exists() and not (out / "build" / "ledger.parquet").exists()
        stream.host.routes.update(whole)
        before = Counter(stream.host.counts)
        run(stream, out, config)
        assert set(stream.host.counts - before) <= {*down, "/robots.txt"}
        assert_sound(out)
        rows = {row["key"] for layer in LAYERS for row in read_parquet(out, layer)}
        assert rows == set(kept_images(stream))
    finally:
        stream.host.__exit__()


def test_the_small_layer_and_other_choices(stream: Stream, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(stream, out, stream.config(tmp_path, write='small = true\ntext = "none"\nformats = ["wds"]'))
    assert_sound(out)
    assert not (out / "t4sa").exists()
    rows = read_tars(out, "b-t4sa-256")
    assert [row["key"] for row in rows] == [row["key"] for row in read_parquet(built, "b-t4sa")]
    assert all(row["text"] is None for row in rows)
    kinds = Counter(kind for kind, _ in ledger_of(out))
    assert kinds["small image"] == len(rows)


def test_layers_of_an_earlier_build_go(stream: Stream, tmp_path: Path) -> None:
    """They would be of other pictures, or say texts that this one leaves out."""
    out = tmp_path / "out"
    run(stream, out, stream.config(tmp_path, write="small = true"))
    assert (out / "t4sa" / "b-t4sa-256").is_dir()
    run(stream, out, stream.config(tmp_path, write='text = "none"'))
    assert_sound(out)
    assert {path.name for path in (out / "t4sa").iterdir() if path.is_dir() and any(path.iterdir())} == set(LAYERS)


def test_removals(stream: Stream, built: Path, tmp_path: Path) -> None:
    rows = read_parquet(built, "b-t4sa")
    tweet, key = rows[0]["tweet_id"], next(row["key"] for row in rows if row["tweet_id"] != rows[0]["tweet_id"])
    (tmp_path / "removals.txt").write_text(f"{tweet}\n{key}  # asked for\n")
    config = stream.config(tmp_path)
    config.write_text(config.read_text().replace("[select]", '[select]\nremovals = "removals.txt"'))
    run(stream, tmp_path / "out", config)
    assert_sound(tmp_path / "out")
    ledger = ledger_of(tmp_path / "out")
    assert ledger["tweet", str(tweet)]["reason"] == ledger["image", key]["reason"] == "removals/removed"
    held = {row["key"] for layer in LAYERS for row in read_parquet(tmp_path / "out", layer)}
    assert key not in held and not any(one.startswith(f"{tweet}-") for one in held)
    texts = pq.read_table(tmp_path / "out" / "t4sa" / "raw-text")["tweet_id"].to_pylist()
    assert tweet not in texts and len(texts) > 60


def test_official_lists_are_reproduced(stream: Stream, built: Path, tmp_path: Path) -> None:
    """Lists of every third image: these are B-T4SA, in these splits, with these labels."""
    keys = sorted(row["key"] for layer in LAYERS for row in read_parquet(built, layer))[::3]
    lists, expected = tmp_path / "lists", {}
    lists.mkdir()
    for number, key in enumerate(keys):
        expected[key] = (SPLITS[number % 3], number % 2)
    for split, name in OFFICIAL_LISTS.items():
        mine = [(key, label) for key, (where, label) in expected.items() if where == split]
        (lists / name).write_text("".join(f"{member_name(key)} {label}\n" for key, label in mine))
    run(stream, tmp_path / "out", stream.config(tmp_path, more='[split]\nlists = "lists"\n'))
    assert_sound(tmp_path / "out")
    found = {row["key"]: (row["split"], row["label"]) for row in read_parquet(tmp_path / "out", "b-t4sa")}
    assert found == expected
    further = [row for layer in ("unique", "duplicates") for row in read_parquet(tmp_path / "out", layer)]
    assert further and {row["split"] for row in further} == {"train"}
    assert all(row["label"] == stream.raw.classes[row["tweet_id"]] for row in further)


def test_splits_by_author_keep_authors_together(stream: Stream, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(stream, out, stream.config(tmp_path, more='[split]\nby = ["author", "duplicates"]\n'))
    first = min([*stream.raw.classes, *stream.raw.dropped])
    splits: dict[int, set[str]] = {}
    for row in read_parquet(out, "b-t4sa"):
        author = (row["tweet_id"] - first) // 46_116_860_184 // 4
        splits.setdefault(author, set()).add(row["split"])
    assert {len(some) for some in splits.values()} == {1} and len(set.union(*splits.values())) == 3
    for path in (out / "t4sa").rglob("*.parquet"):
        assert "author" not in pq.read_schema(path).names


# From the command line.


def call(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    return done.exit_code, done.output


def test_the_command_says_what_stands_and_goes_in_steps(stream: Stream, tmp_path: Path) -> None:
    out, config = tmp_path / "out", stream.config(tmp_path)
    wanted = (*stream.raw.files, "--out", out, "--config", config, "--workers", 1)
    code, told = call(*wanted, "--dry-run")
    assert code == 0 and told.count("to do") == len(pipeline.NAMES) and not (out / "t4sa").exists()
    code, told = call(*wanted, "--to", "select")
    assert code == 0 and "72 kept" in told and not (out / "t4sa").exists()
    code, told = call(*wanted, "--dry-run")
    assert [line.split()[0] for line in told.splitlines() if "stands" in line] == ["collect", "label", "select"]
    code, told = call(*wanted, "--from", "inspection")
    assert code == 1 and "an earlier stage does not stand" in told and "fetch" in told
    code, told = call(*wanted)
    assert code == 0 and f"t4sa check {out}" in told
    assert_sound(out)
    code, told = call(*wanted, "--from", "split")
    assert code == 0 and "dedup" in told
    code, told = call(*wanted)
    assert code == 0 and "nothing to do" in told
    before = digests(out, *RESULTS)
    code, told = call(*wanted, "--from", "collect")
    assert code == 0 and "nothing to do" not in told and digests(out, *RESULTS) == before


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[label", "not TOML"),
        ("[labels]\nmodel = 'x'", "no such section"),
        ("[dedup]\ndistanze = 3", "no such setting"),
        ("[dedup]\ndistance = 'far'", "a value of another kind"),
        ("[balance]\nby = 'author'", "'image' | 'tweet'"),
        ("[collect]\n", "what labels the tweets?"),
        ("[label]\nlabels = 'nowhere.parquet'", "no such file of labels"),
        ("[label]\nlabels = 'x'\nmodel = 'y'", "what labels the tweets?"),
    ],
)
def test_a_configuration_that_does_not_hold(stream: Stream, tmp_path: Path, toml: str, said: str) -> None:
    config = tmp_path / "build.toml"
    config.write_text(toml)
    with pytest.raises((BadOption, InputMissing), match=said.replace("|", r"\|").replace("?", r"\?")) as caught:
        run(stream, tmp_path / "out", config)
    assert str(tmp_path) in str(caught.value) or "[label]" in str(caught.value)
    assert not (tmp_path / "out").exists()  # nothing was done before


def test_usage_faults(stream: Stream, tmp_path: Path) -> None:
    config = read_config(stream.config(tmp_path))
    with pytest.raises(BadOption, match="no such stage"):
        run(stream, tmp_path / "out", config, last="publish")
    with pytest.raises(BadOption, match="comes before"):
        run(stream, tmp_path / "out", config, first="fetch", last="label")
    with pytest.raises(StageNotDone, match="collect"):
        run(stream, tmp_path / "out", config, first="fetch")
    with pytest.raises(InputMissing, match="no such file or folder of tweets"), Local(1) as engine:
        pipeline.build([tmp_path / "nowhere"], tmp_path / "out", config, engine)
    high = stream.config(tmp_path / "high")
    high.write_text(high.read_text().replace("threshold = 0.85", "threshold = 0.9999"))
    with pytest.raises(NoRows, match="not one tweet is selected"):
        run(stream, tmp_path / "out", high)


def test_two_sources_are_never_one_release(stream: Stream, built: Path, tmp_path: Path) -> None:
    archive = make_official_archive(tmp_path / "raw", 30)
    before = digests(built, "t4sa")
    with pytest.raises(OutputError, match="another source"):
        prepare(archive, built, configs=("b-t4sa",))
    assert digests(built, "t4sa") == before
    prepare(archive, tmp_path / "out", configs=("b-t4sa",))
    with pytest.raises(OutputError, match=r"another source.*official packages"):
        run(stream, tmp_path / "out", stream.config(tmp_path))


@pytest.mark.slow
def test_labels_from_a_model(stream: Stream, tmp_path: Path) -> None:
    """The labeller itself, trained on texts of the same kind: classes are those that the texts were made from."""
    from builders.label.folder import save_model
    from builders.label.systems import train_system
    from builders.label.training_data import read_labelled

    data = read_labelled(stream.raw.labelled)
    save_model(train_system("svm", list(data.texts), data.labels), tmp_path / "model", {})
    config = stream.config(tmp_path)
    text = config.read_text().replace(f'labels = "{stream.raw.labels}"', 'model = "model"')
    config.write_text(text.replace("threshold = 0.85", "top = 0.9"))
    run(stream, tmp_path / "out", config)
    assert_sound(tmp_path / "out")
    sure = {tweet for number, tweet in enumerate(stream.raw.classes) if number % 7 != 6}
    rows = [row for layer in LAYERS for row in read_parquet(tmp_path / "out", layer) if row["tweet_id"] in sure]
    right = sum(row["label"] == stream.raw.classes[row["tweet_id"]] for row in rows)
    assert right / len(rows) > 0.95
    fates = Counter(row["reason"] for (kind, _), row in ledger_of(tmp_path / "out").items() if kind == "tweet")
    assert fates["select/not-among-the-most-confident"] == len(stream.raw.classes) - fates[None]


def test_the_host_is_asked_politely(stream: Stream, built: Path) -> None:
    assert stream.host.counts["/robots.txt"] >= 1
    agents = {request.headers["user-agent"] for request in stream.host.requests}
    assert len(agents) == 1 and agents.pop().startswith("t4sa-data/")
    assert image(b"x").status == 200


def test_the_report_is_for_people(stream: Stream, built: Path) -> None:
    folder = built / "build"
    page = (folder / "report.html").read_text()
    for words in ("<svg", "below threshold", "near-duplicate, 8 bits", "Near-duplicates", "pillow"):
        assert words in page, words
    assert stream.host.url("") not in page + (folder / "report.md").read_text()  # no address of an image, no text
    assert "the game" not in page
    assert (folder / "duplicates" / "index.html").is_file() and list((folder / "duplicates").glob("*.jpg"))
    leaks = json.loads((folder / "leaks.json").read_text())
    assert leaks["relations"]["near-duplicate, 8 bits"]["sets"] == 0
    assert sum(leaks["rows"].values()) == len(read_parquet(built, "b-t4sa"))


def test_a_split_by_time_leaves_out_what_lies_across(stream: Stream, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(stream, out, stream.config(tmp_path, more='[split]\nby = ["time", "author"]\nshares = [5, 2, 3]\n'))
    assert_sound(out)
    rows = read_parquet(out, "b-t4sa")
    spans = {
        split: [row["tweet_id"] for row in rows if row["split"] == split] for split in ("train", "validation", "test")
    }
    assert max(spans["train"]) < min(spans["validation"]) and max(spans["validation"]) < min(spans["test"])
    ledger = ledger_of(out)
    across = {key for (_, key), row in ledger.items() if row["reason"] == "split/across-the-cut"}
    held = {row["key"] for layer in LAYERS for row in read_parquet(out, layer)}
    assert across and not across & held
    counts = json.loads((out / "build" / "report.json").read_text())["funnel"]["image"]
    assert counts["dropped"]["split/across-the-cut"] == len(across)


def test_a_layer_says_which_labels_it_was_made_with(stream: Stream, built: Path) -> None:
    manifest = json.loads((built / "t4sa" / "manifest.json").read_text())
    expected = hashlib.sha256(stream.raw.labels.read_bytes()).hexdigest()
    for layer in manifest["layers"].values():
        assert layer["provenance"]["settings"]["label"]["sha256"] == expected


def test_zero_bits_are_a_distance() -> None:
    for chosen, expected in ((None, 5 + 2), (0, 0), (12, 12)):
        config = BuildConfig(dedup=DedupSettings(distance=5), split=SplitSettings(duplicate_distance=chosen))
        assert distance_of(config) == expected
