"""The ledger of a build from raw tweets: one fate each, sums that add up, an id's story, what two builds differ in."""

from __future__ import annotations

import ast
import csv
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import builders
from builders.inspection import KILLED
from builders.label import inputs
from builders.ledger import BUILD_SCHEMA, LEDGER_NAME, QUARANTINED, SCHEMA, Ledger
from builders.ledger import diff as ledger_diff
from builders.ledger import words as ledger_words
from builders.ledger.funnel import funnels_of
from builders.ledger.reading import find_ledger, read_counts, require_sound
from builders.ledger.why import why
from builders.ledger_cli import app
from t4sa_data import pixels
from t4sa_data.errors import BadOption, InputMissing, LedgerFaulty, MissingColumn, TableError, UnknownCandidate
from t4sa_data.testing.releases import make_release
from tests.ledger_helpers import (
    IMAGE_DROPS,
    IMAGE_PLACES,
    TWEET_DROPS,
    TWEET_PLACE,
    Build,
    Fate,
    candidates,
    columns,
    fate,
    provenance_of,
    write_build,
)

IDS = st.integers(0, 40) | st.integers(760000000000000000, 760000000000000020)
IMAGES = st.lists(st.sampled_from([*IMAGE_DROPS, *IMAGE_PLACES]).map(fate), min_size=1, max_size=4)
GONE = st.tuples(st.sampled_from(TWEET_DROPS).map(fate), st.just([]))
STAYS = st.tuples(st.just(fate(TWEET_PLACE)), IMAGES)
BUILDS = st.dictionaries(IDS, GONE | STAYS, max_size=12)
FEW = settings(max_examples=20, deadline=None, derandomize=True)
NOT_THERE = 5


@pytest.fixture(scope="module")
def one() -> Build:
    kept = fate(TWEET_PLACE)
    return {
        7: (kept, [*map(fate, (("b-t4sa", "test"), ("duplicates", "train"), "fetch/not-found", "fetch/timeout"))]),
        9: (fate("collect/retweet"), []),
        11: (fate("select/below-threshold"), []),
        760000000000000001: (kept, [fate(("unique", "train")), fate("inspection/truncated")]),
    }  # fmt: skip


def invoke(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


@FEW
@given(BUILDS)
def test_every_candidate_has_one_fate_and_all_counts_add_up(build: Build) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger, truth = write_build(Path(folder), build), candidates(build)
        path = find_ledger(Path(folder))
        table = pq.read_table(path)
        assert table.schema.equals(BUILD_SCHEMA)
        rows = table.to_pylist()
        told = [((r["kind"], r["key"]), Fate(r["layer"], r["split"], r["reason"])) for r in rows]
        assert dict(told) == truth and len(told) == len(truth)
        assert told == [*((k, f) for k, f in told if k[0] == "tweet"), *((k, f) for k, f in told if k[0] == "image")]
        for row in rows:
            expected = dict.fromkeys(("status", "bytes", "sha256"))
            if row["kind"] == "image":
                found = provenance_of(row["key"], truth["image", row["key"]])
                expected = found | {"sha256": found["sha256"] and found["sha256"].hex()}
            assert {name: row[name] for name in expected} == expected
        require_sound(path)
        counts = read_counts(path)
        assert counts == ledger.funnel()
        for funnel in funnels_of(counts, of_build=True):
            mine = [f for (kind, _), f in truth.items() if kind == funnel.kind]
            assert funnel.candidates == len(mine)
            left = Counter(f.reason for f in mine if f.reason)
            assert Counter({r: n for step in funnel.steps for r, n in step.dropped.items()}) == left
            assert all(r.startswith(step.stage + "/") for step in funnel.steps for r in step.dropped)
            aside = Counter(f.layer for f in mine if f.layer in ("unique", "duplicates"))
            assert Counter({k: n for step in funnel.steps for k, n in step.aside.items()}) == aside
            assert sum(funnel.kept.values()) == len(mine) - left.total() - aside.total()
            assert [step.num_in for step in funnel.steps[1:]] == [step.num_out for step in funnel.steps[:-1]]
            assert funnel.steps[0].num_in == len(mine) and funnel.steps[-1].num_out == sum(funnel.kept.values())
            assert ledger.num_dropped("fetch/timeout") == sum(f.reason == "fetch/timeout" for f in truth.values())


@FEW
@given(BUILDS)
def test_why_names_every_fate(build: Build) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_build(Path(folder), build)
        for (kind, key), found in candidates(build).items():
            story = why(Path(folder), key)
            assert story.startswith(f"{kind} {key}\n")
            own = story.split("\n  image ")[0]
            if found.reason:
                assert f"it left at {found.reason.split('/')[0]}: " in own and f"({found.reason})" in own
            else:
                assert f"it is in the layer {found.layer}, split {found.split}" in own and "it left" not in own
            if kind == "tweet":
                images = build[int(key)][1]
                assert story.count("\n  image ") == len(images)
                assert all(str(image).split("/")[0] in story for image in images)
        with pytest.raises(UnknownCandidate):
            why(Path(folder), "41")


@FEW
@given(BUILDS, BUILDS)
def test_diff_is_nothing_with_itself_and_a_mirror_the_other_way(a: Build, b: Build) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, build in (("a", a), ("b", b)):
            write_build(Path(folder) / name, build)
        left, right = Path(folder) / "a", Path(folder) / "b"
        itself = ledger_diff.diff(left, left)
        assert itself.changes() == [] and itself.num_changed == 0
        assert sum(itself.num_same.values()) == len(candidates(a))
        there, back = ledger_diff.diff(left, right), ledger_diff.diff(right, left)
        truth = [
            (kind, key, str(candidates(a).get((kind, key), "-")), str(candidates(b).get((kind, key), "-")))
            for kind, key in {*candidates(a), *candidates(b)}
        ]
        listed = [tuple(row.values())[:4] for table in there.tables() for row in table.to_pylist()]
        assert sorted(listed) == sorted(row for row in truth if row[2] != row[3])
        assert sum(there.num_same.values()) == sum(row[2] == row[3] for row in truth)
        assert Counter((c.kind, c.a, c.b, c.stage, c.num, c.examples) for c in there.changes()) == Counter(
            (c.kind, c.b, c.a, c.stage, c.num, c.examples) for c in back.changes()
        )
        assert sum(c.num for c in there.changes()) == len(listed) == there.num_changed
        order = {"tweet": 1, "image": 0}
        numbers = [(order[row[0]], *map(int, row[1].split("-"))) for row in listed]
        assert numbers == sorted(numbers)


def test_the_stage_where_ways_part_is_the_earlier_one(tmp_path: Path) -> None:
    def of_image(what: Any) -> Build:
        return {7: (fate(TWEET_PLACE), [fate(what)])}

    ways = [
        ("fetch/timeout", ("b-t4sa", "test"), "fetch"), (("duplicates", "train"), ("b-t4sa", "test"), "dedup"),
        (("unique", "train"), ("b-t4sa", "test"), "balance"), (("b-t4sa", "train"), ("b-t4sa", "test"), "split"),
        ("inspection/truncated", ("unique", "train"), "inspection"), ("fetch/timeout", "fetch/not-found", "fetch"),
    ]  # fmt: skip
    for number, (a, b, stage) in enumerate(ways):
        write_build(tmp_path / f"{number}a", of_image(a))
        write_build(tmp_path / f"{number}b", of_image(b))
        (change,) = ledger_diff.diff(tmp_path / f"{number}a", tmp_path / f"{number}b").changes()
        assert (change.stage, change.num, change.examples) == (stage, 1, ("7-1",))


def test_a_row_without_a_fate_or_with_two_is_refused() -> None:
    ids = pa.array([7, 8], pa.int64())
    good = columns([Fate("t4sa-text", "train"), Fate(reason="collect/retweet")])
    Ledger().tell("tweet", ids, **good)
    for bad in (Fate(), Fate("t4sa-text", "train", "collect/retweet")):
        with pytest.raises(LedgerFaulty, match="tweet 8"):
            Ledger().tell("tweet", ids, **columns([Fate("t4sa-text", "train"), bad]))
    with pytest.raises(LedgerFaulty, match="splits do not fit"):
        Ledger().tell("tweet", ids, **{**good, "splits": pa.array(["train"])})


def test_later_fates_must_be_those_of_the_tweets_collected(tmp_path: Path, one: Build) -> None:
    write_build(tmp_path, one)
    path = tmp_path / "collected" / LEDGER_NAME
    fates = columns([Fate("t4sa-text", "train")] * 3)
    for ids in ([7, 11, 12], [11, 7, 760000000000000001]):
        ledger = Ledger(of_build=True)
        ledger.take_over(path, pa.array(ids, pa.int64()), **fates)
        with pytest.raises(LedgerFaulty, match="do not fit"):
            ledger.write(tmp_path)
    more = Ledger(of_build=True)
    more.take_over(path, pa.array([7, 11, 760000000000000001, 760000000000000002]), **columns([Fate("a", "b")] * 4))
    with pytest.raises(LedgerFaulty, match="4 fates for 3"):
        more.funnel()


def test_why_as_a_command(tmp_path: Path, one: Build) -> None:
    write_build(tmp_path, one)
    status, out, _ = invoke("why", tmp_path, 7)
    sha256 = provenance_of("7-1", one[7][1][0])["sha256"].hex()
    assert status == 0 and out.splitlines()[:13] == [
        "tweet 7",
        "  it was collected: the published rules keep it",
        "  it was labelled",
        "  it was selected: the rule of confidence keeps it",
        "  it is in the layer t4sa-text, split train; of the configs t4sa-text (train)",
        "  image 7-1",
        f"    it was fetched: HTTP status 200, {provenance_of('7-1', one[7][1][0])['bytes']:,} bytes, sha256 {sha256}",
        "    it decodes",
        "    it is the representative of its near-duplicates",
        "    it was drawn into the balanced set",
        "    it is in the layer b-t4sa, split test; of the configs b-t4sa (test), t4sa-unique (test), t4sa (test)",
        "  image 7-2",
        f"    it was fetched: HTTP status 200, {provenance_of('7-2', one[7][1][1])['bytes']:,} bytes, sha256 "
        + provenance_of("7-2", one[7][1][1])["sha256"].hex(),
    ]
    assert out.splitlines()[-5:] == [
        "  image 7-3",
        "    it was asked for: the last answer had the HTTP status 404",
        "    it left at fetch: its host does not have it (fetch/not-found)",
        "  image 7-4",
        "    it left at fetch: its host did not answer in time (fetch/timeout)",
    ]
    assert invoke("why", tmp_path / "build", "9")[1] == (
        "tweet 9\n  it left at collect: it is a retweet (collect/retweet)\n"
    )
    assert invoke("why", tmp_path / "collected", "7")[1] == "tweet 7\n  it is kept by collect; of no release yet\n"
    status, _, error = invoke("why", tmp_path, NOT_THERE)
    assert status == 1 and error.startswith("error: the ledger does not have it: got 5")
    assert invoke("why", tmp_path, "7-5")[0] == invoke("why", tmp_path / "nowhere", "7")[0] == 1
    assert invoke("why", tmp_path, "")[0] == invoke("why", tmp_path)[0] == 2


def test_why_says_what_the_sample_table_says(tmp_path: Path) -> None:
    make_release(tmp_path, 12)
    rows = pq.read_table(tmp_path / "t4sa/b-t4sa/index.parquet").to_pylist()
    row = max(rows, key=lambda row: row["duplicate_group"] != row["key"])
    write_build(tmp_path, {row["tweet_id"]: (fate(TWEET_PLACE), [fate(("b-t4sa", row["split"]))] * 4)})
    story = why(tmp_path, row["key"])
    assert (
        f"its label is {('negative', 'neutral', 'positive')[row['label']]}, confidence {row['confidence']:.3f}" in story
    )
    assert "its group of near-duplicates is" in story
    assert not row["text"] or row["text"] not in story


def test_funnel_as_a_command(tmp_path: Path, one: Build) -> None:
    write_build(tmp_path, one)
    status, out, _ = invoke("funnel", tmp_path)
    assert status == 0
    assert (
        out
        == """\
tweets                    in  dropped  set aside  out
collect                    4        1          -    3
  collect/retweet                   1                  it is a retweet
label                      3        -          -    3
select                     3        1          -    2
  select/below-threshold            1                  its label is less confident than the threshold
kept                                                2
  t4sa-text/train                                   2

images                    in  dropped  set aside  out
fetch                      6        2          -    4
  fetch/not-found                   1                  its host does not have it
  fetch/timeout                     1                  its host did not answer in time
inspection                 4        1          -    3
  inspection/truncated              1                  the picture ends too early
dedup                      3        -          1    2
  layer duplicates                             1
balance                    2        -          1    1
  layer unique                                 1
split                      1        -          -    1
kept                                                1
  b-t4sa/test                                       1
"""
    )
    status, out, _ = invoke("funnel", tmp_path, "--json")
    tweets, images = json.loads(out)
    assert status == 0 and tweets["stages"][0] == {
        "stage": "collect", "in": 4, "dropped": {"collect/retweet": 1}, "aside": {}, "out": 3,
    }  # fmt: skip
    assert images["kept"] == {"b-t4sa/test": 1} and images["stages"][2]["aside"] == {"duplicates": 1}


def rewrite(folder: Path, change: Any) -> None:
    path = folder / "build" / LEDGER_NAME
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, BUILD_SCHEMA), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(reason=None, layer=None), "without a fate"),
        (lambda rows: rows[0].update(reason="collect/retweet", layer="t4sa-text"), "or with two"),
        (lambda rows: rows.append(rows[0]), "stand twice (tweet)"),
        (lambda rows: rows.append(rows[-1]), "stand twice (image)"),
        (lambda rows: rows.append({**rows[-1], "key": "8-1"}), "whose tweet is not in the ledger"),
        (lambda rows: rows[0].update(key=None), "without kind or key"),
    ],
)
def test_a_ledger_that_does_not_add_up_fails_loudly(tmp_path: Path, one: Build, change: Any, message: str) -> None:
    write_build(tmp_path, one)
    rewrite(tmp_path, change)
    status, out, error = invoke("funnel", tmp_path)
    assert (status, out) == (1, "") and message in error


def test_a_report_that_counted_otherwise_fails_loudly(tmp_path: Path, one: Build) -> None:
    funnel = write_build(tmp_path, one).funnel()
    report = tmp_path / "build/report.json"
    report.write_text(json.dumps({"funnel": funnel}))
    assert invoke("funnel", tmp_path)[0] == 0
    rewrite(tmp_path, lambda rows: rows.pop())
    status, _, error = invoke("funnel", tmp_path)
    assert status == 1 and "not what the report counted (image)" in error
    report.write_text("{}")
    assert invoke("funnel", tmp_path)[0] == 1


def test_counts_that_do_not_add_up_make_no_funnel() -> None:
    for counts in (
        {"candidates": 3, "kept": {"b-t4sa/test": 1}, "dropped": {"fetch/gone": 1}},
        {"candidates": 0, "kept": {"b-t4sa/test": -1}, "dropped": {"fetch/gone": 1}},
    ):
        with pytest.raises(LedgerFaulty, match="do not add up"):
            funnels_of({"image": counts}, of_build=True)


def test_what_is_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        find_ledger(tmp_path)
    path = tmp_path / LEDGER_NAME
    path.write_bytes(b"PAR1 of something else PAR1")
    with pytest.raises(TableError):
        read_counts(path)
    pq.write_table(pa.table({"tweet_id": [1], "stage": ["collect"], "reason": ["collect/retweet"]}), path)
    with pytest.raises(MissingColumn):
        read_counts(path)
    assert invoke("funnel", tmp_path)[0] == invoke("diff", tmp_path, tmp_path)[0] == invoke("why", path, "1")[0] == 1


def test_diff_as_a_command(tmp_path: Path, one: Build) -> None:
    other = {**one, 9: (fate(TWEET_PLACE), [fate(("b-t4sa", "train"))])}
    del other[11]
    write_build(tmp_path / "a", one)
    write_build(tmp_path / "b", other)
    status, out, _ = invoke("diff", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "list.csv")
    assert status == 0
    assert (
        out
        == """\
same fate: 6 images
same fate: 2 tweets
changed: 3

kind   stage    fate in A               fate in B        candidates  as
image  split    -                       b-t4sa/train              1  9-1
tweet  collect  collect/retweet         t4sa-text/train           1  9
tweet  select   select/below-threshold  -                         1  11
"""
    )
    with (tmp_path / "list.csv").open(newline="") as file:
        listed = list(csv.reader(file))
    assert listed == [
        ["kind", "key", "a", "b", "stage"],
        ["image", "9-1", "-", "b-t4sa/train", "split"],
        ["tweet", "9", "collect/retweet", "t4sa-text/train", "collect"],
        ["tweet", "11", "select/below-threshold", "-", "select"],
    ]
    status, out, _ = invoke("diff", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "list.parquet", "--json")
    assert status == 0 and json.loads(out)["changed"] == 3
    assert [list(row.values()) for row in pq.read_table(tmp_path / "list.parquet").to_pylist()] == listed[1:]
    assert invoke("diff", tmp_path / "a", tmp_path / "a")[1].endswith("changed: none\n")
    status, _, error = invoke("diff", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "list.txt")
    assert status == 2 and ".parquet or .csv" in error
    with pytest.raises(BadOption):
        ledger_diff.write_diff(ledger_diff.diff(tmp_path / "a", tmp_path / "b"), tmp_path / "list.txt")


def test_ledgers_of_prepare_in_any_order_with_keys_of_all_kinds(tmp_path: Path) -> None:
    """A tweet in two text layers, pictures told by their file names, rows in no order."""
    for name, split in (("a", "train"), ("b", "test")):
        ledger = Ledger()
        ledger.keep("image", pa.array(["9-2", "7-1"]), "b-t4sa", pa.array(["train", split]))
        ledger.drop("image", pa.array(["picture ä.jpg", "07-1", "9999999999999999999-1"]), "twitter-testing/not-listed")
        ledger.keep("tweet", pa.array([9, 7]), "t4sa-text", pa.array(["train", "train"]))
        ledger.keep("tweet", pa.array([7, 8]), "raw-text", pa.array(["train", "train"]))
        (tmp_path / name).mkdir()
        ledger.write(tmp_path / name)
    assert pq.read_schema(tmp_path / "a" / LEDGER_NAME).equals(SCHEMA)
    assert invoke("funnel", tmp_path / "a")[0] == 0
    found = ledger_diff.diff(tmp_path / "a", tmp_path / "b")
    (change,) = found.changes()
    assert (change.kind, change.a, change.b, change.examples) == ("image", "b-t4sa/train", "b-t4sa/test", ("7-1",))
    assert found.num_same == {"image": 4, "tweet": 3}
    assert why(tmp_path / "a", "7").count("it is in the layer") == 3  # two text layers, and its image
    assert "no list names it" in why(tmp_path / "a", "picture ä.jpg")


# Words.
def constants() -> set[str]:
    """Every `stage/reason` that a module of the builders names on its top level."""
    found = set()
    for path in Path(builders.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                value = str(node.value.value)
                if re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", value) and value.split("/")[0] in ledger_words.STAGES:
                    found.add(value)
    return found


def test_every_reason_has_words() -> None:
    reasons = constants()
    assert {"collect/retweet", "official/not-listed", "removals/removed"} <= reasons
    reasons |= {ledger_words.reason_of("label", reason) for reason in inputs.REASONS}
    of_pixels = [
        getattr(pixels, name) for name in vars(pixels) if name.isupper() and isinstance(getattr(pixels, name), str)
    ]
    reasons |= {QUARANTINED + reason for reason in [*of_pixels, KILLED]}
    assert len(of_pixels) == 6
    assert {reason for reason in reasons if not ledger_words.meaning_of(reason)} == set()
    assert all(ledger_words.place_of(reason.split("/")[0]) < len(ledger_words.STAGES) for reason in reasons)


def test_an_unknown_reason_stands_for_itself(tmp_path: Path) -> None:
    write_build(tmp_path, {7: (fate(TWEET_PLACE), [fate("fetch/of-tomorrow")])})
    assert why(tmp_path, "7-1").endswith("  it left at fetch: fetch/of-tomorrow")


def test_a_candidate_of_several_rows_has_all_their_fates(tmp_path: Path) -> None:
    for name, layers in (("a", ["raw-text", "t4sa-text", "x"]), ("b", ["x", "raw-text"]), ("c", ["raw-text", "x"])):
        ledger = Ledger()
        for layer in layers:
            ledger.keep("tweet", pa.array([8, 7]), layer, pa.array(["train", "train"]))
        (tmp_path / name).mkdir()
        ledger.write(tmp_path / name)
    (change,) = ledger_diff.diff(tmp_path / "a", tmp_path / "b").changes()
    assert change.a == "raw-text/train + t4sa-text/train + x/train" and change.b == "raw-text/train + x/train"
    assert (change.num, change.examples) == (2, ("7", "8"))
    assert ledger_diff.diff(tmp_path / "b", tmp_path / "c").num_changed == 0
