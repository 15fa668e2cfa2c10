"""`twitter-testing`: the user's copy of the Twitter Testing Dataset becomes a layer that every reader reads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from builders import sealing, write
from builders.folds import clean_folds, groups_of, split_twins, twins_of
from builders.prepare import prepare
from builders.report import as_text
from builders.run import PrepareConfig
from builders.sources.twitter_testing import LEVELS, Picture, read_copy
from t4sa_data import catalog
from t4sa_data.errors import (
    BadKey,
    BadOption,
    ConfigUnavailable,
    ConflictingRows,
    InputMissing,
    MalformedRow,
    NoRows,
    SourceChanged,
    StrictFailure,
    T4SAError,
    UnknownConfig,
    UnknownLabel,
)
from t4sa_data.manifest import load_manifest
from t4sa_data.shards import open_writer
from t4sa_data.testing import OfficialArchive, TwitterTesting, check_release, make_release, make_twitter_testing

# isort: split
from tests.helpers_release import (
    assert_pixels,
    assert_sound,
    build,
    differences,
    digests,
    ledger_of,
    read_by_table,
    read_parquet,
    read_tars,
    report_of,
)

LAYER = "twitter-testing"
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "twitter_testing"
NUM = 60


def add(ttd: TwitterTesting | Path, out: Path, **choices: Any) -> Any:
    """Run `prepare` for the layer, in small shards."""
    folder = ttd if isinstance(ttd, Path) else ttd.folder
    return build(folder, out, **{"configs": (LAYER,), **choices})


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "build" / LAYER / "report.json").read_bytes())


def by_key(made: TwitterTesting, values: Any) -> dict[str, Any]:
    return {made.keys[name]: value for name, value in values.items()}


@pytest.fixture(scope="module")
def ttd(tmp_path_factory: pytest.TempPathFactory) -> TwitterTesting:
    """Not to be changed by a test."""
    return make_twitter_testing(tmp_path_factory.mktemp("ttd"), NUM, num_broken=2)


@pytest.fixture(scope="module")
def joined(ttd: TwitterTesting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that had B-T4SA, and got the layer. Not to be changed by a test."""
    out = tmp_path_factory.mktemp("joined")
    make_release(out, 30)
    before = digests(out, "t4sa/b-t4sa", "t4sa-wds/b-t4sa")
    add(ttd, out)
    assert differences(before, digests(out, "t4sa/b-t4sa", "t4sa-wds/b-t4sa")) == [], "another layer was touched"
    return out


@pytest.fixture
def copy(tmp_path: Path) -> TwitterTesting:
    """A copy to change."""
    return make_twitter_testing(tmp_path / "ttd", NUM)


# The layer.


def test_rows_are_what_lists_and_pictures_say(joined: Path, ttd: TwitterTesting) -> None:
    assert_sound(joined)
    labels, images = by_key(ttd, ttd.labels), by_key(ttd, ttd.images)
    agreement, names = by_key(ttd, ttd.agreement), {key: name for name, key in ttd.keys.items()}
    expected = sorted(set(images) - {ttd.keys[name] for name in ttd.broken})
    for rows in (
        read_parquet(joined, LAYER),
        read_tars(joined, LAYER),
        read_by_table(joined / "t4sa", LAYER),
        read_by_table(joined / "t4sa-wds", LAYER),
    ):
        assert sorted(row["key"] for row in rows) == expected
        for row in rows:
            key = row["key"]
            assert row["image"] == images[key] and row["sha256"] == hashlib.sha256(images[key]).hexdigest()
            assert (row["label"], row["agreement"]) == (2 * labels[key], agreement[key])
            assert names[key].endswith(f"_{row['tweet_id']}_{row['media_key']}.jpg")
            assert key == f"{row['tweet_id']}-{row['image_index']}" and row["split"] == "test"
            assert all(row[name] is None for name in ("negative", "neutral", "positive", "confidence", "text"))
            assert {f"fold_{n}": row[f"fold_{n}"] is not None for n in (5, 4, 3)} == {
                f"fold_{n}": agreement[key] >= n for n in (5, 4, 3)
            }
            assert_pixels(row)
    assert read_parquet(joined, LAYER) == read_tars(joined, LAYER)


def test_twins_share_a_group_and_all_folds(joined: Path, ttd: TwitterTesting) -> None:
    rows = {row["key"]: row for row in read_parquet(joined, LAYER)}
    for one, other in ttd.twins:
        a, b = rows[ttd.keys[one]], rows[ttd.keys[other]]
        assert a["media_key"] == b["media_key"] and a["sha256"] == b["sha256"]
        assert a["duplicate_group"] == b["duplicate_group"]
        assert all(None in (a[f], b[f]) or a[f] == b[f] for f in ("fold_5", "fold_4", "fold_3"))


def test_who_posted_is_in_no_file_of_the_release(joined: Path, ttd: TwitterTesting) -> None:
    users = [name.split("_")[0].encode() + b"_" for name in ttd.images]
    for path in [path for folder in ("t4sa", "t4sa-wds") for path in (joined / folder).rglob("*") if path.is_file()]:
        data = path.read_bytes()
        assert not [user for user in users if user in data], path
        assert not [name for name in ttd.images if name.encode() in data], path


def test_report_ledger_and_quarantine(joined: Path, ttd: TwitterTesting) -> None:
    told = report(joined)
    (count,) = told["counts"]
    assert (count["paper"], count["listed"], count["released"], count["quarantined"]) == (1_269, NUM, NUM - 2, 2)
    checks = told["checks"]
    pairs = [" = ".join(sorted((ttd.keys[a], ttd.keys[b]))) for a, b in ttd.twins]
    assert sorted(checks["twins (a media key in two tweets)"]["examples"]) == sorted(pairs)
    assert checks["twins whose labels contradict each other"] == {"count": 1, "examples": pairs[:1]}
    assert checks["twins whose bytes differ"]["count"] == 0
    assert checks["our folds (seed 2017), at least three agree"] == {"images": NUM, "twin pairs on both sides": 0}
    assert checks["fold lists that are not the published ones, not used"]["count"] == 15
    five = Counter(ttd.labels[name] for name, agreed in ttd.agreement.items() if agreed == 5)
    assert checks["listed, five agree"] == {
        "negative": five[0], "positive": five[1], "published negative": 301, "published positive": 581,
    }  # fmt: skip
    funnel = told["funnel"]["image"]
    assert funnel["candidates"] == sum(funnel["kept"].values()) + sum(funnel["dropped"].values()) == NUM
    ledger = pq.read_table(joined / "build" / LAYER / "ledger.parquet").to_pylist()
    assert sorted(row["key"] for row in ledger) == sorted(ttd.keys.values())
    broken = sorted(ttd.keys[name] for name in ttd.broken)
    assert sorted(load_manifest(joined / "t4sa").layers[LAYER].splits["test"].quarantined) == broken
    for name in ttd.broken:
        assert (joined / "quarantine" / f"{ttd.keys[name]}.jpg").read_bytes() == ttd.images[name]


# Readers.


@pytest.mark.parametrize("path", ["t4sa", "t4sa-wds"])
@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset(joined: Path, alone: None, monkeypatch: pytest.MonkeyPatch, path: str, streaming: bool) -> None:
    monkeypatch.setenv("T4SA_HOME", str(joined))
    from t4sa_data import load_dataset

    loaded = load_dataset(path, LAYER, split="test", streaming=streaming)
    expected = read_parquet(joined, LAYER)
    assert loaded.features["label"].names == list(catalog.CLASSES) and "agreement" in loaded.features
    rows = list(loaded)
    for name in ("key", "label", "agreement", "fold_5", "fold_3", "media_key", "text", "confidence"):
        assert [row[name] for row in rows] == [row[name] for row in expected], name
    assert [row["image"].size for row in rows] == [(row["width"], row["height"]) for row in expected]
    some = load_dataset(path, LAYER, split="test", filters=[("agreement", "==", 5)], columns=["key", "fold_5"])
    assert some.to_list() == [{"key": row["key"], "fold_5": row["fold_5"]} for row in expected if row["agreement"] == 5]
    with pytest.raises(UnknownConfig, match="no such column"):
        load_dataset(path, split="test", columns=["agreement"])  # B-T4SA has none


def test_plain_datasets_reads_parquet_and_tar_by_their_cards(joined: Path, alone: None) -> None:
    import datasets

    expected = [(row["key"], row["agreement"], row["fold_4"]) for row in read_parquet(joined, LAYER)]
    parquet = datasets.load_dataset(str(joined / "t4sa"), LAYER, split="test", streaming=True)
    assert [(row["key"], row["agreement"], row["fold_4"]) for row in parquet] == expected
    tar = datasets.load_dataset(str(joined / "t4sa-wds"), LAYER, split="test", streaming=True)
    told = [(row["__key__"], row["json"]["agreement"], row["json"]["fold_4"]) for row in tar]
    assert [(key, agreed, fold) for key, agreed, fold in told] == expected


@pytest.mark.parametrize("folder", ["t4sa", "t4sa-wds"])
def test_stream_and_t4sa(joined: Path, folder: str) -> None:
    pytest.importorskip("torch")
    from t4sa_data import T4SA, stream

    expected = {row["key"]: row for row in read_parquet(joined, LAYER)}
    batches = stream(
        joined / folder, config=LAYER, split="test", batch_size=16, size=32, shuffle=False, tail="ragged",
        columns=("agreement", "fold_5", "confidence"),
    )  # fmt: skip
    seen = [
        row for b in batches for row in zip(b["key"], b["label"].tolist(), b["agreement"], b["fold_5"], strict=True)
    ]
    assert seen == [(k, r["label"], r["agreement"], r["fold_5"]) for k, r in expected.items()]
    two = {"classes": ["negative", "positive"], "expression": [("agreement", ">=", 4)]}
    dataset = T4SA(joined / folder, config=LAYER, split="test", where=two)
    assert dataset.samples == [(k, r["label"] // 2) for k, r in expected.items() if r["agreement"] >= 4]
    with pytest.raises(UnknownConfig, match=r"no such column.*agreement.*fold_3.*got nothing"):
        stream(joined / folder, config=LAYER, split="test", batch_size=4, columns=("nothing",))
    with pytest.raises(UnknownConfig, match="got agreement"):
        stream(joined / folder, split="test", batch_size=4, columns=("agreement",))


def test_card_and_croissant_tell_of_it(joined: Path, tmp_path: Path) -> None:
    make_release(tmp_path, 30)
    for folder in ("t4sa", "t4sa-wds"):
        told, plain = ((root / folder / "README.md").read_text() for root in (joined, tmp_path))
        assert "| `agreement` | int8 |" in told and "five workers looked" in told and "- crowdsourced" in told
        assert f"| `{LAYER}` | test | 1,269 | {NUM} | {NUM - 2} | 2 |" in told
        assert "agreement" not in plain and "crowdsourced" not in plain
        croissant = json.loads((joined / folder / "croissant.json").read_text())
        (records,) = [one for one in croissant["recordSet"] if one["@id"] == LAYER]
        assert {"agreement", "fold_5", "fold_4", "fold_3", "media_key", "key"} <= {f["name"] for f in records["field"]}
        (records,) = [one for one in croissant["recordSet"] if one["@id"] == "b-t4sa"]
        assert "agreement" not in {f["name"] for f in records["field"]}


@pytest.mark.slow
def test_croissant_reads_it(joined: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlcroissant")
    script = (
        "import json, mlcroissant, sys\n"
        "for folder in ('t4sa', 't4sa-wds'):\n"
        "    data = mlcroissant.Dataset(jsonld=f'{folder}/croissant.json')\n"
        "    issues = data.metadata.ctx.issues\n"
        "    assert not [*issues.errors, *issues.warnings]\n"
        f"    print(json.dumps(sorted([r['{LAYER}/key'].decode(), r['{LAYER}/agreement']]\n"
        f"          for r in data.records('{LAYER}')), default=int))\n"
    )
    environment = {**os.environ, "CROISSANT_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=joined, env=environment, capture_output=True, text=True, check=True
    )
    expected = sorted([row["key"], row["agreement"]] for row in read_parquet(joined, LAYER))
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected, expected]


@pytest.mark.parametrize("column", ["agreement", "fold_3"])
def test_check_sees_a_number_that_was_changed(joined: Path, tmp_path: Path, column: str) -> None:
    shutil.copytree(joined, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "t4sa-wds" / LAYER / "index.parquet"
    table = pq.read_table(path, partitioning=None)
    field = table.schema.field(column)
    values = pa.array([1, *table[column].to_pylist()[1:]], field.type)
    with path.open("wb") as file:
        writer = open_writer(file, table.schema)
        writer.write_table(table.set_column(table.schema.get_field_index(column), field, values))
        writer.close()
    faults = [str(fault) for fault in check_release(tmp_path).faults]
    assert any(f".json {column} is" in fault for fault in faults), faults


# The same bytes, however they come about.


def test_layouts_and_workers_give_the_same_layer(ttd: TwitterTesting, joined: Path, tmp_path: Path) -> None:
    names = ("t4sa/twitter-testing", "t4sa-wds/twitter-testing")
    expected = digests(joined, *names)
    for layout in ("twitter_dataset", "csv"):
        other = make_twitter_testing(tmp_path / layout, NUM, num_broken=2, layout=layout, with_folds=False)  # type: ignore[arg-type]
        assert other.images == ttd.images
        add(other, tmp_path / f"{layout}-out", workers=2 if layout == "csv" else 1)
        assert differences(digests(tmp_path / f"{layout}-out", *names), expected) == []
        assert_sound(tmp_path / f"{layout}-out", deep=False)


def test_a_second_run_has_nothing_to_do(joined: Path, ttd: TwitterTesting, tmp_path: Path) -> None:
    shutil.copytree(joined, tmp_path, dirs_exist_ok=True)
    before = digests(tmp_path)
    assert add(ttd, tmp_path).unchanged
    assert differences(digests(tmp_path), before) == []
    assert not add(ttd, tmp_path, limit=20).unchanged
    assert len(read_parquet(tmp_path, LAYER)) <= 20
    assert not add(ttd, tmp_path).unchanged
    assert (
        differences(
            digests(tmp_path, "t4sa", "t4sa-wds", "quarantine"), digests(joined, "t4sa", "t4sa-wds", "quarantine")
        )
        == []
    )


def test_it_and_the_official_packages_leave_each_other_alone(
    archive: OfficialArchive, ttd: TwitterTesting, tmp_path: Path
) -> None:
    official = {"configs": ("b-t4sa",), "images": ()}
    build(archive, tmp_path, **official)
    before, ledger, told = digests(tmp_path), ledger_of(tmp_path), report_of(tmp_path)
    add(ttd, tmp_path)
    after = digests(tmp_path)
    changed = set(differences(before, after)) & set(before)
    # Markers of the state name the manifests' digests; nothing else of what stood there is touched but what names all.
    rest = {name for name in changed if not name.startswith("build/state/")}
    told_of_all = ("README.md", "croissant.json", "manifest.json")
    assert rest == {f"{folder}/{name}" for folder in ("t4sa", "t4sa-wds") for name in told_of_all} | {
        "quarantine/quarantine.jsonl"
    }
    assert (ledger_of(tmp_path), report_of(tmp_path)) == (ledger, told)
    quarantined = {path.stem for path in (tmp_path / "quarantine").glob("*.jpg")}
    assert quarantined == {*archive.broken, *(ttd.keys[name] for name in ttd.broken)}
    assert build(archive, tmp_path, **official).unchanged, "the official build does not stand any more"
    build(archive, tmp_path, **official, limit=30)  # another build of it: the layer and its quarantine stay
    assert_sound(tmp_path)
    assert load_manifest(tmp_path / "t4sa").configs == ["b-t4sa", LAYER]
    assert {ttd.keys[name] for name in ttd.broken} <= {path.stem for path in (tmp_path / "quarantine").glob("*.jpg")}


@pytest.mark.parametrize("place", ["inspect", "write", "seal"])
def test_a_build_that_dies_goes_on_to_the_same_bytes(
    joined: Path, ttd: TwitterTesting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    make_release(tmp_path, 30)
    with monkeypatch.context() as patched:
        if place == "inspect":
            patched.setattr("builders.twitter_testing.write_quarantine", _fails)
        elif place == "write":
            real, calls = write.write_job, Counter[str]()

            def third_fails(job: Any) -> None:
                calls["all"] += 1
                _fails() if calls["all"] == 3 else real(job)

            patched.setattr(write, "write_job", third_fails)
        else:
            real_seal, order = sealing.release.seal, iter([False, True])
            patched.setattr(sealing.release, "seal", lambda *a, **k: _fails() if next(order) else real_seal(*a, **k))
        with pytest.raises(KeyboardInterrupt):
            add(ttd, tmp_path)
    add(ttd, tmp_path)
    assert (
        differences(
            digests(tmp_path, "t4sa", "t4sa-wds", "quarantine"), digests(joined, "t4sa", "t4sa-wds", "quarantine")
        )
        == []
    )


def _fails(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_killed_at_any_rename(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    make_twitter_testing(tmp_path / "ttd", 24, num_twins=2, num_broken=1)
    script = (
        "from tests.deaths import drive; "
        f"drive({str(tmp_path / 'ttd')!r}, {str(tmp_path)!r}, {{'configs': ({LAYER!r},), 'limit': 12}}, "
        f"{{'configs': ({LAYER!r},)}}, 1)"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["tried"] and told["faults"] == []


# Choices.


def test_removals_limit_and_unlisted_pictures(copy: TwitterTesting, tmp_path: Path) -> None:
    gone = [copy.keys[name] for name in list(copy.images)[:3]]
    (tmp_path / "removals").write_text(f"{gone[0]}\n{gone[1].split('-')[0]} # all of it\n{gone[2]}\n")
    stranger = copy.folder / "Agg_AMT_Candidates" / "10_428900000000000001_Bstranger.jpg"
    stranger.write_bytes(b"whatever")
    (stranger.parent / "amt_result.csv").write_text("name,votes,x,y\n")
    outcome = add(copy, tmp_path / "out", removals=tmp_path / "removals", limit=20)
    rows = read_parquet(tmp_path / "out", LAYER)
    assert len(rows) == 20 and not {row["key"] for row in rows} & set(gone)
    assert {row["label"] for row in rows} == {0, 2}
    assert outcome.report.funnel["image"]["dropped"] == {
        "limit/beyond": NUM - 23,
        "removals/removed": 3,
        "twitter-testing/not-listed": 1,
    }
    assert outcome.report.checks["pictures that no list names"] == {"count": 1, "examples": [stranger.name]}
    assert "pictures that no list names: 1" in as_text(outcome.report)
    whole = {row["key"]: row for row in read_parquet(_whole(copy, tmp_path), LAYER)}
    assert all(row["fold_3"] == whole[row["key"]]["fold_3"] for row in rows), "folds are those of the lists"


def _whole(made: TwitterTesting, tmp_path: Path) -> Path:
    add(made, tmp_path / "whole", formats=("parquet",))
    return tmp_path / "whole"


def test_another_agreement_is_another_layer(copy: TwitterTesting, tmp_path: Path) -> None:
    """`content_digest` does not see it, the shards do."""
    add(copy, tmp_path / "out")
    before = load_manifest(tmp_path / "out" / "t4sa").layers[LAYER].content_digest
    first = lists_of(copy, "five").read_text().split()[0]
    edit(copy, "five", lambda lines: lines[1:])
    add(copy, tmp_path / "out")
    assert load_manifest(tmp_path / "out" / "t4sa").layers[LAYER].content_digest == before
    for rows in (read_parquet(tmp_path / "out", LAYER), read_tars(tmp_path / "out", LAYER)):
        (row,) = [row for row in rows if row["key"] == copy.keys[first]]
        assert (row["agreement"], row["fold_5"]) == (4, None) and row["fold_4"] is not None
    assert_sound(tmp_path / "out", deep=False)


def test_fewer_lists(copy: TwitterTesting, tmp_path: Path) -> None:
    lists = copy.folder / "ground_truth"
    (lists / "twitter_three_agrees.txt").unlink()
    (lists / "twitter_four_agrees.txt").unlink()
    add(copy, tmp_path / "out", formats=("wds",))
    rows = read_tars(tmp_path / "out", LAYER)
    assert len(rows) == sum(agreed == 5 for agreed in copy.agreement.values())
    assert {(row["agreement"], row["fold_4"], row["fold_3"]) for row in rows} == {(5, None, None)}
    assert_sound(tmp_path / "out")


def test_strict(copy: TwitterTesting, tmp_path: Path) -> None:
    with pytest.raises(StrictFailure, match=r"five agree: .* published 301"):
        add(copy, tmp_path / "out", strict=True)


@pytest.mark.parametrize(
    ("choices", "error", "words"),
    [
        ({"configs": ("b-t4sa", LAYER)}, ConfigUnavailable, "a run of its own"),
        ({"in_place": True}, ConfigUnavailable, "in-place"),
        ({"splits": ("train",)}, ConfigUnavailable, "one split: expected test"),
        ({"images": (Path("more.tar"),)}, BadOption, "official packages"),
    ],
)
def test_options_that_do_not_go_together(
    ttd: TwitterTesting, tmp_path: Path, choices: dict[str, Any], error: type[T4SAError], words: str
) -> None:
    with pytest.raises(error, match=words):
        add(ttd, tmp_path, **choices)
    assert not list(tmp_path.iterdir())


# Faults of the copy: named, with file and line.


def lists_of(made: TwitterTesting, word: str) -> Path:
    return made.folder / "ground_truth" / f"twitter_{word}_agrees.txt"


def edit(made: TwitterTesting, word: str, change: Callable[[list[str]], list[str]]) -> None:
    path = lists_of(made, word)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def other_label(line: str) -> str:
    return f"{line[:-1]}{1 - int(line[-1])}"


def another_spelling(made: TwitterTesting) -> None:
    lines = lists_of(made, "five").read_text().replace(" ", ",").splitlines()
    text = "\n".join(["path,class", other_label(lines[0]), *lines[1:]])
    (made.folder / "ground_truth" / "5agree.csv").write_text(text)


FAULTS: dict[str, tuple[Callable[[TwitterTesting], object], type[T4SAError], str]] = {
    "a label of 2": (
        lambda m: edit(m, "three", lambda x: [*x[:4], f"{x[4][:-1]}2", *x[5:]]),
        UnknownLabel,
        r"0 \(neg.*three_agrees.txt, line 5",
    ),
    "three fields": (
        lambda m: edit(m, "four", lambda x: [x[0], x[1] + " 1", *x[2:]]),
        MalformedRow,
        r"four_agrees.txt, line 2",
    ),
    "a name of another kind": (
        lambda m: edit(m, "three", lambda x: ["cat.jpg 1", *x]),
        BadKey,
        r"<user>_<tweet>.*cat.jpg.*three_agrees.txt, line 1",
    ),
    "an image twice": (
        lambda m: edit(m, "five", lambda x: [*x, x[2]]),
        ConflictingRows,
        r"listed twice.*line 3 and line 4",
    ),
    "five without four": (
        lambda m: edit(m, "four", lambda x: x[1:]),
        ConflictingRows,
        r"five agree is not in the list of four.*five_agrees.txt, line 1.*four_agrees.txt",
    ),
    "another label": (
        lambda m: edit(m, "four", lambda x: [other_label(x[0]), *x[1:]]),
        ConflictingRows,
        r"two labels.*five_agrees.txt, line 1; .*four_agrees.txt, line 1",
    ),
    "two spellings that differ": (another_spelling, ConflictingRows, r"one agreement differ.*5agree.csv"),
    "not text": (lambda m: lists_of(m, "five").write_bytes(b"\xff\xfe\x00"), MalformedRow, "not a text file"),
    "an empty list": (lambda m: lists_of(m, "five").write_text("\n"), MalformedRow, "without a line.*five_agrees"),
    "no list of four": (
        lambda m: lists_of(m, "four").unlink(),
        InputMissing,
        r"label list is missing.*got twitter_five_agrees.txt, twitter_three_agrees.txt",
    ),
    "no lists": (lambda m: shutil.rmtree(m.folder / "ground_truth"), InputMissing, r"label list is missing.*got none"),
    "a missing picture": (
        lambda m: (m.folder / "Agg_AMT_Candidates" / list(m.images)[7]).unlink(),
        InputMissing,
        r"picture is missing.*59 of 60.*three_agrees.txt, line 8",
    ),
    "no pictures": (
        lambda m: shutil.rmtree(m.folder / "Agg_AMT_Candidates"),
        InputMissing,
        r"no pictures.*882.*1,116.*1,269.*sentiment-2017-imavis",
    ),
    "pictures twice": (
        lambda m: shutil.copytree(m.folder / "Agg_AMT_Candidates", m.folder / "images"),
        ConflictingRows,
        "two folders of pictures: got Agg_AMT_Candidates and images",
    ),
    "a copy that is not there": (
        lambda m: shutil.rmtree(m.folder),
        InputMissing,
        r"no such folder.*882.*1,116.*1,269.*T4SA-2.0",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_copy_are_named(copy: TwitterTesting, tmp_path: Path, fault: str) -> None:
    spoil, error, words = FAULTS[fault]
    spoil(copy)
    with pytest.raises(error, match=words) as caught:
        add(copy, tmp_path / "out")
    assert type(caught.value) is error
    assert not (tmp_path / "out").exists()


def test_a_picture_that_changes_meanwhile(
    copy: TwitterTesting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy.folder / "Agg_AMT_Candidates" / next(iter(copy.images))

    def spoil(*_: Any, **__: Any) -> None:
        path.write_bytes(bytes(path.stat().st_size))

    monkeypatch.setattr("builders.twitter_testing.write_quarantine", spoil)
    with pytest.raises(SourceChanged, match=r"image changed.*got 428"):
        add(copy, tmp_path / "out")


def test_no_picture_decodes(copy: TwitterTesting, tmp_path: Path) -> None:
    for path in (copy.folder / "Agg_AMT_Candidates").iterdir():
        path.write_bytes(b"<html>")
    with pytest.raises(NoRows, match="not one picture"):
        add(copy, tmp_path / "out")
    assert not (tmp_path / "out" / "t4sa").exists()


def test_the_command_says_where_copies_are_known(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "t4sa_data.cli", "prepare", str(tmp_path / "empty"), "--configs", LAYER]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    for words in (
        "error: ",
        "Agg_AMT_Candidates",
        "882",
        "1,116",
        "1,269",
        "sentiment-2017-imavis",
        "since September 2021",
    ):
        assert words in done.stderr
    with pytest.raises(ConfigUnavailable, match=r"1,269.*Known places"):
        make_release(tmp_path / "r", 20)["parquet"].parts(LAYER, "test")


# Folds.


def drawn(num: int, twins: int) -> list[Picture]:
    """Listed images of all kinds; the last ones are twins of the first."""
    made = []
    for i in range(num):
        media = f"B{i if i < num - twins else i - (num - twins)}"
        made.append(
            Picture(
                name=f"1_{10**17 + i}_{media}.jpg", tweet_id=10**17 + i, media_key=media, image_index=1,
                label=(0, 2, 2)[i * i % 3], agreement=(5, 5, 4, 3, 5)[i % 5],
            )
        )  # fmt: skip
    return made


def test_clean_folds_keep_groups_and_are_balanced() -> None:
    pictures = drawn(211, 13)
    fold = clean_folds(pictures)
    assert set(fold) == {one.name for one in pictures} and set(fold.values()) == {1, 2, 3, 4, 5}
    assert split_twins(twins_of(pictures), fold) == [] and len(twins_of(pictures)) == 13
    for least in LEVELS.values():
        counts = Counter((fold[one.name], one.label) for one in pictures if one.agreement >= least)
        for label in (0, 2):
            sizes = [counts[number, label] for number in range(1, 6)]
            assert max(sizes) - min(sizes) <= 2, (least, label, sizes)
    assert clean_folds(pictures[::-1]) == fold
    assert clean_folds(pictures, seed=1) != fold
    five = [one for one in pictures if one.agreement == 5]
    alone = clean_folds(five)
    assert sum(alone[one.name] != fold[one.name] for one in five) == 0, "what agrees less changes nothing above it"


def test_pictures_of_one_tweet_are_one_group(ttd: TwitterTesting) -> None:
    pictures = read_copy(ttd.folder).pictures
    (second,) = [one for one in pictures if one.image_index == 2]
    group = groups_of(pictures)
    assert group[second.key] == group[f"{second.tweet_id}-1"]
    assert len(set(group.values())) == NUM - 1 - len(ttd.twins)
    fold = clean_folds(pictures)
    assert len({fold[one.name] for one in pictures if one.tweet_id == second.tweet_id}) == 1


# The real lists, with drawn pictures.


def tiny(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (4, 4), hashlib.sha512(b"%d" % number).digest()[:48]).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def real(tmp_path: Path) -> Path:
    if not REAL.is_dir():
        pytest.skip("../shared/data/twitter_testing is not here")
    folder = tmp_path / "ttd"
    (folder / "Agg_AMT_Candidates").mkdir(parents=True)
    shutil.copytree(REAL / "upc_folds", folder / "ground_truth")
    for path in REAL.glob("twitter_*_agrees.txt"):
        shutil.copy(path, folder / "ground_truth")
    media: dict[str, int] = {}
    for line in (REAL / "twitter_three_agrees.txt").read_text().splitlines():
        name = line.split()[0]
        number = media.setdefault(name.split("_", 2)[2], len(media))
        (folder / "Agg_AMT_Candidates" / name).write_bytes(tiny(number))
    return folder


def test_the_real_lists(real: Path, tmp_path: Path, quick_disk: None) -> None:
    out = tmp_path / "out"
    told = prepare(PrepareConfig(raw=real, out=out, configs=(LAYER,), formats=("parquet",), strict=True)).report
    rows = read_parquet(out, LAYER)
    agreed = Counter(row["agreement"] for row in rows)
    assert (agreed[5], agreed[5] + agreed[4], len(rows)) == (882, 1_116, 1_269)
    for word, least in LEVELS.items():
        labels = Counter(row["label"] for row in rows if row["agreement"] >= least)
        published = catalog.TWITTER_TESTING[word]
        assert (labels[0], labels[1], labels[2]) == (published.negative, 0, published.positive)
        fold = Counter(row[f"fold_{least}"] for row in rows if row["agreement"] >= least)
        missing = fold.pop(None)
        assert set(fold) == {1, 2, 3, 4, 5} and len(set(fold.values())) == 1
        assert sum(fold.values()) == published.fold_images == published.total - missing
        assert told.checks[f"published folds (UPC), {published.name}"] == {
            "images": published.fold_images,
            "twin pairs on both sides": published.split_twins,
        }
        for number in range(1, 6):
            lines = (real / "ground_truth" / f"{word}_agrees" / f"test{number}" / "test.txt").read_text().splitlines()
            tweets = sorted(int(line.split("_")[1]) for line in lines)
            assert tweets == sorted(row["tweet_id"] for row in rows if row[f"fold_{least}"] == number)
    assert len({row["key"] for row in rows}) == 1_269 and len({row["tweet_id"] for row in rows}) == 1_268
    assert told.checks["twins (a media key in two tweets)"]["count"] == 13
    assert told.checks["twins whose labels contradict each other"]["count"] == 1
    assert told.checks["twins whose bytes differ"]["count"] == 0
    assert "fold lists that are not the published ones, not used" not in told.checks
    for path in (real / "ground_truth").glob("*_agrees"):
        if path.is_dir():
            shutil.rmtree(path)
    pictures = read_copy(real).pictures
    fold = clean_folds(pictures)
    assert split_twins(twins_of(pictures), fold) == []
    for least in LEVELS.values():
        sizes = Counter((fold[one.name], one.label) for one in pictures if one.agreement >= least)
        for label in (0, 2):
            counts = [sizes[number, label] for number in range(1, 6)]
            assert max(counts) - min(counts) <= 1, (least, label, counts)
