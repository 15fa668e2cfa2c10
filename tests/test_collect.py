"""The four published rules, each trap of real tweets, and the stage from files to a ledger that adds up."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

pytest.importorskip("orjson")

from builders import collect as rules
from builders import collecting
from builders.collect import Image, Rules, images, keep, media, text_of, tweet_id
from builders.collect_cli import app
from builders.collecting import LEDGER_SCHEMA, TWEETS_SCHEMA, CollectConfig, Outcome, parse_time, run
from t4sa_data.errors import DiskSpaceError, OutputError, TooManyBadLines

from tests.tweet_helpers import FIRST_ID, TEXT, dump, entities, medium, tweet  # isort: skip

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data" / "tweets"
PHOTO, VIDEO, GIF = medium(), medium("video"), medium("animated_gif")
LONG = {"full_text": TEXT, "entities": entities(PHOTO), "extended_entities": entities(PHOTO)}


@pytest.fixture(autouse=True)
def _quick(quick_disk: None) -> None:
    pass


# The rules.

CASES: dict[str, tuple[dict[str, Any], str | None]] = {
    "one photo": (tweet(), None),
    "four photos": (tweet(extended_entities=entities(*[PHOTO] * 4)), None),
    "no media": (tweet(entities={"hashtags": []}), rules.NO_IMAGE),
    "an empty list": (tweet(entities=entities()), rules.NO_IMAGE),
    "no entities": (tweet(entities=...), rules.NO_IMAGE),
    "entities of null": (tweet(entities=None, extended_entities=None), rules.NO_IMAGE),
    "a video": (tweet(extended_entities=entities(VIDEO)), rules.NOT_ONLY_PHOTOS),
    "a gif": (tweet(extended_entities=entities(GIF)), rules.NOT_ONLY_PHOTOS),
    "a photo and a video": (tweet(extended_entities=entities(PHOTO, VIDEO)), rules.NOT_ONLY_PHOTOS),
    "entities call a video a photo": (
        tweet(entities=entities(PHOTO), extended_entities=entities(VIDEO)),
        rules.NOT_ONLY_PHOTOS,
    ),
    "entities with a video alone": (tweet(entities=entities(VIDEO)), rules.NOT_ONLY_PHOTOS),
    "an unknown type": (tweet(entities=entities({"media_url": "x"})), rules.NOT_ONLY_PHOTOS),
    "a long tweet": (tweet(truncated=True, text="five words are eno…", entities={}, extended_tweet=LONG), None),
    "a long tweet, a video inside": (
        tweet(entities=..., extended_tweet={**LONG, "extended_entities": entities(VIDEO)}),
        rules.NOT_ONLY_PHOTOS,
    ),
    "a long tweet, other media outside": (
        tweet(extended_entities=entities(PHOTO), extended_tweet={**LONG, "extended_entities": entities(VIDEO)}),
        rules.NOT_ONLY_PHOTOS,
    ),
    "a long tweet, entities inside only": (
        tweet(entities=..., extended_tweet={"full_text": TEXT, "entities": entities(PHOTO)}),
        None,
    ),
    "the words stand inside": (tweet(text="too few", extended_tweet=LONG), None),
    "few words inside": (tweet(extended_tweet={**LONG, "full_text": "too few"}), rules.FEW_WORDS),
    "full_text": (tweet(text=..., full_text=TEXT), None),
    "a quoted tweet's photo": (
        tweet(entities={}, quoted_status=tweet(), is_quote_status=True),
        rules.NO_IMAGE,
    ),
    "a quoted tweet's video": (tweet(quoted_status=tweet(extended_entities=entities(VIDEO))), None),
    "a quoted tweet that is a retweet": (tweet(quoted_status=tweet(retweeted_status=tweet())), None),
    "another language": (tweet(lang="it"), rules.NOT_ENGLISH),
    "undetermined": (tweet(lang="und"), rules.NOT_ENGLISH),
    "British": (tweet(lang="en-gb"), rules.NOT_ENGLISH),
    "no language, an English user": (tweet(lang=..., user={"lang": "en"}), rules.NO_LANGUAGE),
    "language of null": (tweet(lang=None), rules.NO_LANGUAGE),
    "four words": (tweet(text="four words are few"), rules.FEW_WORDS),
    "five with a link": (tweet(text="four words and a https://t.example/x"), None),
    "white space of all kinds": (tweet(text="\n a\tb  c\u00a0d\u3000e \n"), None),
    "no text": (tweet(text=...), rules.FEW_WORDS),
    "a retweet": (tweet(retweeted_status=tweet()), rules.RETWEET),
    "retweeted_status of null": (tweet(retweeted_status=None), None),
    "retweeted by the reader": (tweet(retweeted=True, retweet_count=9), None),
    "RT by hand": (tweet(text="RT @nobody: five words"), rules.FEW_WORDS),
    "RT by hand, more words": (tweet(text="RT @nobody: five words are enough"), None),
    "a wrapped id": (tweet(id={"$numberLong": "7"}), rules.BAD_ID),
    "an id that is a float": (tweet(id=7.5e17), rules.BAD_ID),
    "an id that is true": (tweet(id=True), rules.BAD_ID),
    "an id of digits": (tweet(id="7"), None),
    "no id": (tweet(id=..., id_str=...), None),
}


@pytest.mark.parametrize("name", CASES)
def test_rules(name: str) -> None:
    found, reason = CASES[name]
    verdict = keep(found)
    assert verdict.reason == reason
    assert bool(verdict) is (reason is None)


def test_the_first_rule_that_is_broken_gives_the_reason() -> None:
    worst = tweet(entities={}, lang="it", text="few", retweeted_status={}, id={})
    mended = [{"entities": entities(VIDEO)}, {"entities": entities(PHOTO)}, {"lang": "en"}, {"text": TEXT}]
    mended += [{"retweeted_status": None}, {"id": 1}]
    found = [keep(worst).reason]
    for one in mended:
        worst |= one
        found.append(keep(worst).reason)
    published = (rules.NO_IMAGE, rules.NOT_ONLY_PHOTOS, rules.NOT_ENGLISH, rules.FEW_WORDS, rules.RETWEET)
    assert found == [*published, rules.BAD_ID, None]


def test_options() -> None:
    by_hand = tweet(text="RT @nobody: five words are enough")
    assert keep(by_hand, Rules(drop_rt_text=True)).reason == rules.RT_TEXT
    assert keep(tweet(text="not RT @nobody: five words"), Rules(drop_rt_text=True))
    assert keep(tweet(id={"$numberLong": "7"}), Rules(wrapped_ids=True))
    assert keep(tweet(id={"$numberLong": 7.5}), Rules(wrapped_ids=True)).reason == rules.BAD_ID


def test_ids() -> None:
    assert tweet_id({"id": FIRST_ID}) == tweet_id({"id_str": str(FIRST_ID)}) == FIRST_ID
    assert tweet_id({"id": 505874315388104800, "id_str": "505874315388104833"}) == 505874315388104833
    assert tweet_id({"id": {"$numberLong": "12"}}) == 12
    for none in ({}, {"id": None}, {"id": -1}, {"id": 2**63}, {"id": True}, {"id": 1.0}, {"id_str": "1e5"}):
        assert tweet_id(none) is None
    assert tweet_id({"id_str": "9" * 5000, "id": 3}) == 3


def test_images_have_keys_in_order_and_at_most_four() -> None:
    found = tweet(
        7, entities=entities(medium(name="z")), extended_entities=entities(*(medium(name=n) for n in "bacde"))
    )
    assert images(found, 7) == [Image(f"7-{k}", f"https://pbs.example/{n}.jpg") for k, n in enumerate("bacd", 1)]
    plain = {"type": "photo", "media_url": "http://pbs.example/a.jpg"}
    assert images(tweet(entities=entities(plain, {"type": "photo"})), 7) == [
        Image("7-1", "http://pbs.example/a.jpg"),
        Image("7-2", None),
    ]


def test_times() -> None:
    assert parse_time("Tue Mar 21 20:50:14 +0000 2006") == 1142974214000
    assert parse_time("Tue Mar 21 22:20:14 +0130 2006") == parse_time("Tue Mar 21 19:20:14 -0130 2006") == 1142974214000
    for none in (None, 3, "", "2006-03-21", "Tue Mar 41 20:50:14 +0000 2006", "Tue Foo 21 20:50:14 +0000 2006"):
        assert parse_time(none) is None


_FIELDS = ["id", "id_str", "text", "full_text", "lang", "created_at", "type", "media", "media_url", "$numberLong"]
_OBJECTS = ["entities", "extended_entities", "extended_tweet", "retweeted_status", "quoted_status"]
_NAMES = st.sampled_from([*_FIELDS, *_OBJECTS])
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["en", "photo", "video", TEXT, "12", "RT @a b c d e"]),
)  # fmt: skip
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_NAMES, inner, max_size=5)),
    max_leaves=20,
)
_ODD = st.one_of(st.dictionaries(_NAMES, _VALUES), st.dictionaries(_NAMES, _VALUES).map(lambda odd: tweet() | odd))


def reordered(value: Any) -> Any:
    """The same, with the fields of every object in the other order."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(each) for each in value] if isinstance(value, list) else value


@given(_ODD, st.builds(Rules, drop_rt_text=st.booleans(), wrapped_ids=st.booleans()))
@settings(max_examples=150, deadline=None)
def test_nothing_raises_and_the_order_of_fields_is_nothing(found: dict[str, Any], chosen: Rules) -> None:
    verdict = keep(found, chosen)
    assert verdict.reason is None or verdict.reason in rules.REASONS
    assert keep(reordered(found), chosen) == verdict
    assert isinstance(text_of(found), str) and isinstance(media(found), list)
    parse_time(found.get("created_at"))
    number = tweet_id(found)
    assert number is None or 0 <= number < 2**63
    if verdict:
        assert 1 <= len(images(found, 1)) <= 4
        assert found["lang"] == "en" and found.get("retweeted_status") is None
        assert {medium["type"] for medium in media(found)} == {"photo"}
        assert len(text_of(found).split()) >= 5


# Real tweets.


def real() -> tuple[Path, Path]:
    tweets, expected = REAL / "tweets_v11.jsonl", REAL / "expected_kept_ids.txt"
    if not (tweets.is_file() and expected.is_file()):
        pytest.skip("real tweets are not beside the checkout")
    return tweets, expected


def test_real_tweets_are_kept_as_an_independent_filter_keeps_them(tmp_path: Path) -> None:
    tweets, expected = real()
    outcome = run(CollectConfig(files=(tweets,), out=tmp_path / "out"))
    assert (tmp_path / "out/kept_ids.txt").read_bytes() == expected.read_bytes()
    assert_adds_up(outcome, tmp_path / "out")


# The stage.

MIXED: list[dict[str, Any]] = [
    tweet(50), tweet(9, lang="it"), {"delete": {"status": {"id": 50, "id_str": "50", "user_id": 5}}},
    tweet(50, lang="it"), tweet(7, text="few"), tweet(8, entities=entities(*[PHOTO] * 3)), {"limit": {"track": 4}},
    {"id": 5, "screen_name": "a user"}, tweet(9), tweet(FIRST_ID, text="RT @nobody by hand is kept \ud83d"),
    tweet(11, retweeted_status=tweet(12)), tweet(13, entities={}),
]  # fmt: skip


def collected(folder: Path, *files: Path, **options: Any) -> Outcome:
    return run(CollectConfig(files=files, out=folder, **options))


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_adds_up(outcome: Outcome, folder: Path) -> None:
    """Nothing is lost on the way from lines to the ledger."""
    seen, counts = outcome.seen, json.loads((folder / "collect.json").read_bytes())
    assert seen.num_lines == seen.num_bad + seen.notices.total() + seen.num_tweets
    assert seen.num_tweets == outcome.num_repeated + outcome.num_candidates
    ledger = pq.read_table(folder / "ledger.parquet")
    ids, reasons = [int(key) for key in ledger["key"].to_pylist()], ledger["reason"].to_pylist()
    assert ledger.schema.equals(LEDGER_SCHEMA) and set(ledger["kind"].to_pylist()) <= {"tweet"}
    assert ledger["layer"].to_pylist() == [None if reason else "collected" for reason in reasons]
    assert all(reason is None or reason.startswith("collect/") for reason in reasons)
    assert ledger["split"].null_count == len(ledger)
    assert ids == sorted(set(ids)) and len(ids) == outcome.num_candidates
    dropped = {reason: reasons.count(reason) for reason in collecting.ALL_REASONS}
    assert dropped == outcome.by_reason == counts["dropped"]
    kept = [number for number, reason in zip(ids, reasons, strict=True) if reason is None]
    assert (folder / "kept_ids.txt").read_text().split() == [str(number) for number in kept]
    tweets = pq.read_table(folder / "tweets.parquet")
    assert tweets["tweet_id"].to_pylist() == kept and len(kept) == outcome.num_kept == counts["kept"]
    assert tweets["num_images"].to_pylist() == [len(urls) for urls in tweets["image_urls"].to_pylist()]
    assert sum(tweets["num_images"].to_pylist()) == outcome.num_images


def test_the_stage(tmp_path: Path) -> None:
    source = tmp_path / "tweets.jsonl"
    source.write_bytes(dump(MIXED))
    outcome = collected(tmp_path / "out", source)
    assert_adds_up(outcome, tmp_path / "out")
    assert sorted(written(tmp_path / "out")) == ["collect.json", "kept_ids.txt", "ledger.parquet", "tweets.parquet"]
    assert (tmp_path / "out/kept_ids.txt").read_text() == f"8\n50\n{FIRST_ID}\n"
    table = pq.read_table(tmp_path / "out/tweets.parquet")
    assert table.schema.equals(TWEETS_SCHEMA)
    rows = table.to_pylist()
    assert rows[0]["image_urls"] == ["https://pbs.example/a.jpg"] * 3
    assert rows[1]["created_at"].isoformat() == "2016-07-26T20:50:14+00:00"
    assert rows[2]["text"] == "RT @nobody by hand is kept \ufffd"
    assert (outcome.num_repeated, outcome.num_rt_text, outcome.num_deleted) == (2, 1, 1)
    assert dict(outcome.seen.notices) == {"delete": 1, "limit": 1, "other": 1}


def test_deleted_tweets_are_dropped_where_it_is_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "tweets.jsonl"
    source.write_bytes(dump(MIXED))
    outcome = collected(tmp_path / "out", source, drop_deleted=True)
    assert_adds_up(outcome, tmp_path / "out")
    assert outcome.by_reason[collecting.DELETED] == 1 and outcome.num_deleted == 0
    assert (tmp_path / "out/kept_ids.txt").read_text() == f"8\n{FIRST_ID}\n"


def test_the_order_of_the_arguments_is_nothing_and_a_second_run_writes_the_same(tmp_path: Path) -> None:
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.jsonl")
        files[-1].write_bytes(dump([tweet(n, lang="en" if (n + i) % 3 else "it") for n in range(i, 40, i + 1)]))
    assert_adds_up(collected(tmp_path / "a", *files), tmp_path / "a")
    collected(tmp_path / "b", *files[::-1], files[0])
    first = written(tmp_path / "a")
    assert first == written(tmp_path / "b")
    collected(tmp_path / "a", *files)
    assert written(tmp_path / "a") == first


def test_an_output_inside_the_input_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "tweets.jsonl").write_bytes(dump(MIXED))
    collected(tmp_path, tmp_path)
    first = written(tmp_path)
    again = collected(tmp_path, tmp_path)
    assert again.seen.num_files == 1 and again.num_kept == 3
    assert {**written(tmp_path), "collect.json": b""} == {**first, "collect.json": b""}  # it counts what is not read


def test_rows_wait_in_pieces_and_come_out_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [n * 7919 % 1009 for n in range(1009)]
    source = tmp_path / "tweets.jsonl"
    source.write_bytes(dump(tweet(n, text=f"{TEXT} {n}", lang="en" if n % 3 else "it") for n in numbers))
    monkeypatch.setattr(collecting, "_SPILL_ROWS", 16)
    monkeypatch.setattr(collecting, "BATCH_ROWS", 100)
    assert_adds_up(collected(tmp_path / "out", source), tmp_path / "out")
    kept = [n for n in range(1009) if n % 3]
    assert pq.read_table(tmp_path / "out/tweets.parquet")["text"].to_pylist() == [f"{TEXT} {n}" for n in kept]


KILLED = """
import os, sys
from pathlib import Path
from builders import collecting
from t4sa_data import files
files.sync_folder = lambda folder: None
os.fsync = lambda file: next(left) or os.kill(os.getpid(), 9)
left = iter([True] * int(sys.argv[3]) + [False])
collecting.run(collecting.CollectConfig(files=(Path(sys.argv[1]),), out=Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
@pytest.mark.parametrize("num_written", [0, 2])
def test_a_killed_run_leaves_whole_files_and_is_run_again(tmp_path: Path, num_written: int) -> None:
    source, out = tmp_path / "tweets.jsonl", tmp_path / "out"
    source.write_bytes(dump(MIXED))
    collected(tmp_path / "whole", source)
    line = [sys.executable, "-c", KILLED, str(source), str(out), str(num_written)]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -9
    whole, found = written(tmp_path / "whole"), written(out)
    assert len(found.keys() - whole.keys()) == 1  # the one that was being written
    assert {name: data for name, data in found.items() if name in whole}.items() <= whole.items()
    assert len(found.keys() & whole.keys()) == num_written
    collected(out, source)
    assert written(out) == whole


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    outcome = collected(tmp_path / "out", tmp_path / "empty.jsonl")
    assert_adds_up(outcome, tmp_path / "out")
    assert outcome.num_candidates == 0 and outcome.seen.num_files == 1


def test_too_many_bad_lines_write_nothing(tmp_path: Path) -> None:
    source = tmp_path / "tweets.jsonl"
    source.write_bytes(dump(tweet(n) for n in range(98)) + b"{\n[]\n")
    with pytest.raises(TooManyBadLines, match=r"got 2 \[.*tweets.jsonl, line 99\]"):
        collected(tmp_path / "out", source)
    assert not list((tmp_path / "out").iterdir())
    outcome = collected(tmp_path / "out", source, max_bad_share=0.02)
    assert outcome.seen.num_bad == 2
    assert_adds_up(outcome, tmp_path / "out")


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    source = tmp_path / "tweets.jsonl"
    source.write_bytes(dump([tweet()]))
    with pytest.raises(OutputError):
        collected(source, source)


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "tweets.jsonl"
    source.write_bytes(dump([tweet()]))

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(collecting.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(DiskSpaceError):
        collected(tmp_path / "out", source)
    assert not list((tmp_path / "out").iterdir())


# The command.


def test_the_command(tmp_path: Path) -> None:
    source, out = tmp_path / "tweets.jsonl", tmp_path / "out"
    source.write_bytes(dump(MIXED) + b"no json\n")
    line = [sys.executable, "-m", "builders.collect_cli", str(source), "--out", str(out), "--max-bad", "0.1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["lines", "13"] in words and ["kept", "3"] in words and ["-", "collect/few-words", "1"] in words
    assert "bad: no JSON" in done.stdout and f"{out}: 3 tweets kept of 7" in done.stdout


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["absent.jsonl", "--out", "o"], 1, "error: no such file or folder [absent.jsonl]"),
        (["bad.jsonl", "--out", "o"], 1, "error: too many lines that are no JSON objects"),
        (["bad.jsonl"], 2, "--out"),
        (["bad.jsonl", "--out", "o", "--max-bad", "2"], 2, "--max-bad"),
    ],
)
def test_faults_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], status: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_bytes(b"{\n")
    done = CliRunner().invoke(app, args)
    assert done.exit_code == status and words in done.stderr and "Traceback" not in done.stderr


def test_options_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrapped = tweet(99, id={"$numberLong": "99"})
    Path("tweets.jsonl").write_bytes(dump([*MIXED, wrapped]))
    done = CliRunner().invoke(app, ["tweets.jsonl", "--out", "o", "--drop-rt-text", "--drop-deleted", "--wrapped-ids"])
    assert done.exit_code == 0, done.output
    assert Path("o/kept_ids.txt").read_text() == "8\n99\n"
