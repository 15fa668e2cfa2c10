"""Which samples take part: every condition against a plain loop over the rows; other labels; weights."""

from __future__ import annotations

import csv
import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import (
    BadOption,
    ConfigUnavailable,
    NoRows,
    ShardError,
    UnknownConfig,
    UnmatchedLabels,
)
from t4sa_data.reading import open_release
from t4sa_data.streaming import Labels, Where, select, stream
from t4sa_data.streaming.selection import Selection
from t4sa_data.streaming.where import as_where
from t4sa_data.testing import make_release

NUM = 120
Row = dict[str, Any]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release whose table has the edges in it: a confidence that is null, one that is 0.9, shared groups."""
    folder = tmp_path_factory.mktemp("selection")
    make_release(folder, NUM, formats=("parquet",), shard_bytes=60_000)
    table_path = folder / "t4sa" / "b-t4sa" / "index.parquet"
    rows = pq.read_table(table_path, partitioning=None).to_pylist()
    train = [row for row in rows if row["split"] == "train"]
    for row, value in zip(train, (None, 0.9, 0.95, 0.9), strict=False):
        row["confidence"] = value
        if value is None:
            row |= dict.fromkeys(CLASSES)
    for one, other in itertools.pairwise(train[10:13]):
        other["duplicate_group"] = one["duplicate_group"]
    train[20]["text"] = None
    schema = pq.read_schema(table_path)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), table_path)
    return folder


@pytest.fixture(scope="module")
def rows(path: Path) -> list[Row]:
    """The train rows in release order, read without our code."""
    table = pq.read_table(path / "t4sa" / "b-t4sa" / "index.parquet", partitioning=None)
    made = [row for row in table.to_pylist() if row["split"] == "train"]
    return [row | {"position": position} for position, row in enumerate(made)]


def chosen(path: Path, where: Any = None, **options: Any) -> Selection:
    return select(open_release(path), "b-t4sa", "train", where=as_where(where), **options)


def assert_chosen(path: Path, where: Any, expected: list[Row], **options: Any) -> Selection:
    """The selection is these rows, in release order, with everything about them."""
    if not expected:
        with pytest.raises(NoRows, match="no sample meets"):
            chosen(path, where, **options)
        return None  # type: ignore[return-value]
    made = chosen(path, where, **options)
    assert made.keys.to_pylist() == [row["key"] for row in expected]
    assert made.positions.tolist() == [row["position"] for row in expected] and len(made) == len(expected)
    places = [(r.file, r.offset, r.length) for r in made.ranges(np.arange(len(made)))]
    assert places == [(row["file"], row["offset"], row["length"]) for row in expected]
    for batch_size, tail in ((7, "drop"), (7, "ragged"), (1, "drop")):
        if len(made) >= batch_size:
            loader = stream(path, where=where, batch_size=batch_size, tail=tail, **options)
            full, rest = divmod(len(expected), batch_size)
            assert len(loader) == full + (tail == "ragged" and rest > 0)
    return made


def test_nothing_asked_is_everything(path: Path, rows: list[Row]) -> None:
    made = assert_chosen(path, None, rows)
    assert made.label.tolist() == [row["label"] for row in rows] and made.classes == CLASSES
    assert made.original_label is None and made.has_own_probabilities and made.num_split == len(rows)
    expected = np.array([[np.nan if row[c] is None else row[c] for c in CLASSES] for row in rows], dtype=np.float32)
    assert np.array_equal(made.probabilities, expected, equal_nan=True) and np.isnan(expected[0]).all()
    assert made.sha256 is None
    assert chosen(path, with_sha256=True).sha256.to_pylist() == [row["sha256"] for row in rows]


@pytest.mark.parametrize("classes", [("negative", "positive"), ("positive", "negative"), ("neutral",), CLASSES])
def test_classes_are_renumbered_and_the_original_kept(path: Path, rows: list[Row], classes: tuple[str, ...]) -> None:
    made = assert_chosen(path, {"classes": classes}, [row for row in rows if CLASSES[row["label"]] in classes])
    assert made.classes == tuple(c for c in CLASSES if c in classes)  # the catalog's order, whatever was asked
    assert [made.classes[label] for label in made.label] == [CLASSES[label] for label in made.original_label]
    batch = next(iter(stream(path, where={"classes": classes}, batch_size=4, size=8)))
    assert [made.classes[i] for i in batch["label"]] == [CLASSES[i] for i in batch["original_label"]]


@pytest.mark.parametrize(
    "least", [0.9, 0.95, 0.85, 0, -1, 1.1, {"negative": 0.93}, {"negative": 0.9, "positive": 0.97}, {"neutral": 2}]
)
def test_least_confidence(path: Path, rows: list[Row], least: Any) -> None:
    """0.9 does not turn away a stored 0.9 (float32), and a row without a confidence has none."""
    limits = least if isinstance(least, dict) else dict.fromkeys(CLASSES, least)

    def keeps(row: Row) -> bool:
        limit = limits.get(CLASSES[row["label"]], -np.inf)
        return np.float32(-1 if row["confidence"] is None else row["confidence"]) >= np.float32(limit)

    expected = [row for row in rows if keeps(row)]
    assert_chosen(path, {"min_confidence": least}, expected)
    if least == 0.9:
        assert rows[1] in expected and rows[3] in expected and rows[0] not in expected


def test_keys_and_removals(path: Path, rows: list[Row], tmp_path: Path) -> None:
    some = [row["key"] for row in rows[3:30:2]]
    assert_chosen(path, {"keys": [*some, "12345-1"]}, rows[3:30:2])
    assert_chosen(path, {"keys": []}, [])
    tweet = next(row["tweet_id"] for row in rows if sum(r["tweet_id"] == row["tweet_id"] for r in rows) > 1)
    gone = [some[0], some[1], str(tweet), "12345"]
    left = [row for row in rows if row["key"] not in gone and row["tweet_id"] != tweet]
    assert len(rows) - len(left) >= 4
    assert_chosen(path, {"removals": gone}, left)
    assert_chosen(path, {"removals": [some[0], some[1], tweet]}, left)
    listed = tmp_path / "gone.txt"
    listed.write_text("# taken down\n\n" + "".join(f"{word}  # by request\n" for word in gone))
    assert_chosen(path, {"removals": listed}, left)
    assert_chosen(path, Where(removals=str(listed)), left)
    assert_chosen(path, {"keys": some, "removals": some[1:]}, rows[3:4])
    for wrong in ("http://x", "9" * 25, "\u00b2", "123-7"):
        with pytest.raises(BadOption, match="neither a key nor a tweet id"):
            chosen(path, {"removals": [wrong]})
    with pytest.raises(BadOption, match="cannot be read"):
        chosen(path, {"keys": tmp_path / "nothing.txt"})


@pytest.mark.parametrize(("kind", "column"), [("tweet", "tweet_id"), ("duplicate_group", "duplicate_group")])
def test_one_per_group_is_the_first_that_is_left(path: Path, rows: list[Row], kind: str, column: str) -> None:
    def firsts(some: list[Row]) -> list[Row]:
        return [row for i, row in enumerate(some) if row[column] not in {r[column] for r in some[:i]}]

    assert len(firsts(rows)) < len(rows)
    assert_chosen(path, {"one_per": kind}, firsts(rows))
    gone = [row["key"] for row in firsts(rows)]  # then the second of each
    assert_chosen(path, {"one_per": kind, "removals": gone}, firsts([row for row in rows if row["key"] not in gone]))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(fractions=st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)), seed=st.integers(-5, 2**40))
def test_fraction_is_nested_stratified_and_seeded(
    path: Path, rows: list[Row], fractions: tuple[float, float], seed: int
) -> None:
    of_class = Counter(row["label"] for row in rows)
    small, large = (
        {row["key"]: row["label"] for row in rows if row["key"] in kept}
        for kept in (
            set(chosen(path, {"fraction": f, "fraction_seed": seed}).keys.to_pylist()) for f in sorted(fractions)
        )
    )
    assert small.keys() <= large.keys()
    for kept, fraction in zip((small, large), sorted(fractions), strict=True):
        assert Counter(kept.values()) == Counter({c: round(n * fraction) for c, n in of_class.items()})


def test_fraction_seeds_choose_others_and_all_is_all(path: Path, rows: list[Row]) -> None:
    parts = {tuple(chosen(path, {"fraction": 0.3, "fraction_seed": seed}).keys.to_pylist()) for seed in range(5)}
    assert len(parts) == 5
    assert_chosen(path, {"fraction": 1}, rows)
    with pytest.raises(NoRows):
        chosen(path, {"fraction": 0.001})


@pytest.mark.parametrize(
    ("expression", "keeps"),
    [
        (pc.field("width") >= 110, lambda r: r["width"] >= 110),
        ([("width", ">=", 110), ("height", "<", 120)], lambda r: r["width"] >= 110 and r["height"] < 120),
        ([[("width", ">=", 140)], [("width", "<", 80)]], lambda r: r["width"] >= 140 or r["width"] < 80),
        (pc.field("confidence") > 0.9, lambda r: r["confidence"] is not None and r["confidence"] > 0.9),
        (~(pc.field("confidence") > 0.9), lambda r: r["confidence"] is not None and r["confidence"] <= 0.9),
        (pc.field("confidence").is_null(), lambda r: r["confidence"] is None),
        (pc.match_substring(pc.field("text"), "day"), lambda r: r["text"] is not None and "day" in r["text"]),
        (pc.field("width") < 0, lambda _: False),
    ],
)
def test_expressions(path: Path, rows: list[Row], expression: Any, keeps: Any) -> None:
    """What compares with null is null, and not kept."""
    expected = [row for row in rows if keeps(row)]
    assert_chosen(path, expression, expected)
    assert_chosen(path, {"expression": expression, "classes": ["positive"]}, [r for r in expected if r["label"] == 2])


@pytest.mark.parametrize(
    "wrong",
    [
        pc.field("nope") > 1,
        pc.field("width"),
        pc.field("width") > "a",
        "width > 3",
        5,
        [("width", "~", 90)],
        [("width", ">=")],
        [("nope", "==", 1)],
        {"classes": ["happy"]},
        {"classes": "negative"},
        {"min_confidence": {"happy": 0.5}},
        {"min_confidence": "high"},
        {"min_confidence": float("nan")},
        {"fraction": 0},
        {"fraction": 1.5},
        {"one_per": "user"},
        {"confidence": 0.9},
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_a_bad_option(path: Path, wrong: Any) -> None:
    with pytest.raises(BadOption) as caught:
        chosen(path, wrong)
    assert len(str(caught.value).splitlines()) == 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    classes=st.sets(st.sampled_from(CLASSES), min_size=1).map(sorted),
    least=st.floats(0.8, 1),
    width=st.integers(60, 160),
    one_per=st.sampled_from([None, "tweet"]),
    removed=st.sets(st.integers(0, 80)),
)
def test_conditions_together(
    path: Path, rows: list[Row], classes: list[str], least: float, width: int, one_per: Any, removed: set[int]
) -> None:
    gone = {rows[i]["key"] for i in removed if i < len(rows)}
    expected, tweets = [], set()
    for row in rows:
        confident = row["confidence"] is not None and np.float32(row["confidence"]) >= np.float32(least)
        if CLASSES[row["label"]] in classes and confident and row["width"] >= width and row["key"] not in gone:
            if one_per is None or row["tweet_id"] not in tweets:
                expected.append(row)
            tweets.add(row["tweet_id"])
    where = Where(
        classes=classes,
        min_confidence=least,
        expression=pc.field("width") >= width,
        one_per=one_per,
        removals=sorted(gone),
    )
    if expected:
        made = chosen(path, where)
        assert made.keys.to_pylist() == [row["key"] for row in expected]
        assert made.num_split == len(rows)
    else:
        with pytest.raises(NoRows):
            chosen(path, where)


# Configs of several layers.
def test_positions_run_on_over_the_layers_of_a_config(built: Path) -> None:
    folder = built / "t4sa"
    expected = []
    for layer in ("b-t4sa", "unique"):
        table = pq.read_table(folder / layer / "index.parquet", partitioning=None).to_pylist()
        expected += [row for row in table if row["split"] == "train"]
    made = select(open_release(built), "t4sa-unique", "train", where=Where())
    assert made.keys.to_pylist() == [row["key"] for row in expected]
    assert made.positions.tolist() == list(range(len(expected))) and made.num_split == len(expected)
    assert {name.split("/")[0] for name in made.files} >= {"b-t4sa", "unique"}
    only = Where(expression=pc.field("width") < 110)
    some = select(open_release(built), "t4sa-unique", "train", where=only)
    kept = [(i, row) for i, row in enumerate(expected) if row["width"] < 110]
    assert some.positions.tolist() == [i for i, _ in kept]
    assert some.keys.to_pylist() == [row["key"] for _, row in kept]
    base = select(open_release(built), "b-t4sa", "validation", where=Where())
    large = select(open_release(built), "t4sa", "validation", where=Where())
    assert base.keys == large.keys  # nobody trains on the test set by accident


def test_one_per_group_holds_over_layers(built: Path) -> None:
    made = select(
        open_release(built), "t4sa", "train", where=Where(one_per="duplicate_group"), columns=["duplicate_group"]
    )
    groups = made.extra["duplicate_group"].to_pylist()
    everything = select(open_release(built), "t4sa", "train", where=Where(), columns=["duplicate_group"])
    assert len(groups) == len(set(groups)) < len(everything)
    assert set(groups) == set(everything.extra["duplicate_group"].to_pylist())


def test_columns(path: Path, rows: list[Row]) -> None:
    names = ["text", "tweet_id", "width", "phash", "confidence"]
    batch = next(iter(stream(path, batch_size=9, size=8, shuffle=False, columns=names)))
    for name in names:
        assert batch[name] == [row[name] for row in rows[:9]]
    same = next(iter(stream(path, batch_size=9, size=8, shuffle=False, columns=["label", "key"])))
    assert same["label"].tolist() == [row["label"] for row in rows[:9]], "a tensor still"
    with pytest.raises(UnknownConfig, match="no such column"):
        stream(path, batch_size=9, columns=["texts"])
    with pytest.raises(BadOption, match="list of names"):
        stream(path, batch_size=9, columns="text")


# Labels of another source.
def write_labels(folder: Path, kind: str, columns: dict[str, list[Any]]) -> Path:
    target = folder / f"labels.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(columns), target)
        return target
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return target


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("by", ["key", "tweet_id"])
@pytest.mark.parametrize("what", ["name", "number", "probabilities", "both"])
def test_other_labels(path: Path, rows: list[Row], tmp_path: Path, kind: str, by: str, what: str) -> None:
    identity = list(dict.fromkeys(row[by] for row in reversed(rows)))  # in another order
    new = {one: i % 3 for i, one in enumerate(identity)}
    columns: dict[str, list[Any]] = {by: identity}
    if what in ("name", "both"):
        columns["label"] = [CLASSES[label] for label in new.values()]
    if what == "number":
        columns["label"] = list(new.values())
    if what in ("probabilities", "both"):
        for i, name in enumerate(CLASSES):
            columns[name] = [0.7 if label == i else 0.15 for label in new.values()]
    made = chosen(path, labels=Labels(path=write_labels(tmp_path, kind, columns)))
    assert made.label.tolist() == [new[row[by]] for row in rows]
    assert made.original_label.tolist() == [row["label"] for row in rows]
    if "probabilities" in what or what == "both":
        assert not made.has_own_probabilities
        expected = [[0.7 if new[row[by]] == i else 0.15 for i in range(3)] for row in rows]
        assert np.array_equal(made.probabilities, np.array(expected, dtype=np.float32))
    else:
        assert made.has_own_probabilities
        assert made.probabilities[5].tolist() == [rows[5][name] for name in CLASSES]


def test_unmatched_labels_are_refused_or_dropped(path: Path, rows: list[Row], tmp_path: Path) -> None:
    known = rows[::2]
    target = write_labels(
        tmp_path, "csv", {"key": [r["key"] for r in known], "label": [i % 3 for i in range(len(known))]}
    )
    with pytest.raises(UnmatchedLabels) as caught:
        chosen(path, labels=Labels(path=target))
    assert f"{len(rows) - len(known)} of {len(rows)} samples" in str(caught.value) and rows[1]["key"] in str(
        caught.value
    )
    made = chosen(path, labels=Labels(path=target, unmatched="drop"))
    assert made.keys.to_pylist() == [row["key"] for row in known]
    assert made.label.tolist() == [i % 3 for i in range(len(known))]
    # Only samples that take part must be known; classes are those of the new labels.
    assert_chosen(path, {"keys": [r["key"] for r in known]}, known, labels=Labels(path=target))
    two = chosen(path, {"classes": ["negative", "positive"]}, labels=Labels(path=target, unmatched="drop"))
    kept = [(i % 3, row) for i, row in enumerate(known) if i % 3 != 1]
    assert two.keys.to_pylist() == [row["key"] for _, row in kept]
    assert two.label.tolist() == [label // 2 for label, _ in kept]
    assert two.original_label.tolist() == [row["label"] for _, row in kept]


def test_equal_probabilities_give_the_first(path: Path, rows: list[Row], tmp_path: Path) -> None:
    columns = {"key": [row["key"] for row in rows]} | {
        name: [0.4 - 0.2 * (i == 0)] * len(rows) for i, name in enumerate(CLASSES)
    }
    assert set(chosen(path, labels=Labels(path=write_labels(tmp_path, "parquet", columns))).label) == {1}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["1-1", "1-1"], "label": [0, 1]}, "stands there twice"),
        ({"id": ["1-1"], "label": [0]}, "a column is missing"),
        ({"key": ["1-1"], "negative": [0.5]}, "a column is missing"),
        ({"key": ["@"], "label": [3]}, "not a class"),
        ({"key": ["@"], "label": [-1]}, "not a class"),
        ({"key": ["@"], "label": ["happy"]}, "not a class"),
        ({"key": ["@"], "label": [1.0]}, "not a class"),
        ({"key": ["@"], "label": [None]}, "not a class"),
        ({"tweet_id": ["x"], "label": [1]}, "tweet_id is not int64"),
        ({"tweet_id": [None], "label": [1]}, "tweet_id is missing"),
        ({"key": ["@"], "negative": [None], "neutral": [0.1], "positive": [0.2]}, "negative is missing"),
        ({"key": ["@"], "negative": [float("nan")], "neutral": [0.1], "positive": [0.2]}, "negative is missing"),
        ({"key": ["@"], "negative": ["a"], "neutral": [0.1], "positive": [0.2]}, "negative is not float"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_tables_of_labels_that_are_none(
    path: Path, rows: list[Row], tmp_path: Path, columns: dict[str, list[Any]], message: str
) -> None:
    if columns.get("key") == ["@"]:
        columns = columns | {"key": [rows[0]["key"]]}
    target = write_labels(tmp_path, "parquet", columns)
    with pytest.raises(BadOption, match=message) as caught:
        chosen(path, labels=Labels(path=target, unmatched="drop"))
    assert str(target) in str(caught.value)


def test_labels_from_pandas_categories_and_files_that_are_no_tables(
    path: Path, rows: list[Row], tmp_path: Path
) -> None:
    names = pa.array([CLASSES[i % 3] for i in range(len(rows))]).dictionary_encode()
    small = pa.array([i % 3 for i in range(len(rows))], pa.uint8())
    pq.write_table(pa.table({"key": [row["key"] for row in rows], "label": small}), tmp_path / "u.parquet")
    assert chosen(path, labels=Labels(path=tmp_path / "u.parquet")).label.tolist() == small.to_pylist()
    pq.write_table(pa.table({"key": [row["key"] for row in rows], "label": names}), tmp_path / "c.parquet")
    assert chosen(path, labels=Labels(path=tmp_path / "c.parquet")).label.tolist() == [i % 3 for i in range(len(rows))]
    (tmp_path / "x.parquet").write_bytes(b"no table")
    (tmp_path / "x.csv").write_text('key,label\n"torn')
    for name in ("x.parquet", "x.csv", "missing.csv"):
        with pytest.raises(BadOption, match="labels: cannot be read"):
            chosen(path, labels=Labels(path=tmp_path / name))


# Weights.
def drawn(path: Path, **options: Any) -> list[int]:
    """Positions of an epoch."""
    loader = stream(path, batch_size=10, decode=None, tail="ragged", **options)
    return [p for batch in loader for p in batch["position"].tolist()]


def test_balanced_and_class_weights(path: Path, rows: list[Row]) -> None:
    label = {row["position"]: row["label"] for row in rows}
    counts = Counter(label[p] for p in drawn(path, weights="balanced"))
    assert sum(counts.values()) == len(rows) and max(counts.values()) - min(counts.values()) <= 1
    counts = Counter(label[p] for p in drawn(path, weights={"negative": 1, "positive": 1}))
    assert counts[1] == 0 and sum(counts.values()) == len(rows)
    two = {"classes": ["negative", "positive"], "min_confidence": {"negative": 0.93}}
    counts = Counter(label[p] for p in drawn(path, weights="balanced", where=two))
    assert counts.keys() == {0, 2} and abs(counts[0] - counts[2]) <= 1


def test_weights_of_a_column_and_of_an_array(path: Path, rows: list[Row]) -> None:
    counts = Counter(drawn(path, weights="width"))
    total = sum(row["width"] for row in rows)
    for row in rows:
        due = row["width"] / total * len(rows)
        assert int(due) <= counts[row["position"]] <= int(due) + 1
    null = Counter(drawn(path, weights="confidence"))
    assert null[0] == 0, "a weight that is null is 0"
    one = np.zeros(len(rows))
    one[7] = 2.5
    assert drawn(path, weights=one) == [7] * len(rows)
    assert sorted(drawn(path, weights=[3] * len(rows))) == list(range(len(rows)))
    assert "width" not in next(iter(stream(path, batch_size=4, size=8, weights="width"))), "only what was asked for"


@pytest.mark.parametrize(
    "wrong",
    [
        "text",
        "sha256",
        {"happy": 1},
        {"neutral": -1},
        {"neutral": 0},
        {"neutral": "a"},
        [1, 2],
        [],
        "nan",
        "negative array",
    ],
    ids=str,
)
def test_weights_that_are_none(path: Path, rows: list[Row], wrong: Any) -> None:
    if wrong == "nan":
        wrong = [float("nan")] * len(rows)
    if wrong == "negative array":
        wrong = [-1.0] + [1.0] * (len(rows) - 1)
    with pytest.raises(BadOption, match="weights"):
        stream(path, batch_size=4, weights=wrong)


# What is not there.
def test_unknown_and_unavailable(path: Path, tmp_path: Path) -> None:
    for options, error in (
        ({"config": "nope"}, UnknownConfig),
        ({"split": "nope"}, UnknownConfig),
        ({"config": "t4sa"}, ConfigUnavailable),
        ({"config": "raw-text"}, ConfigUnavailable),
        ({"weights": "nope"}, UnknownConfig),
    ):
        with pytest.raises(error):
            stream(path, batch_size=4, **options)
    copy = Path(shutil.copytree(path, tmp_path / "copy"))
    table = copy / "t4sa" / "b-t4sa" / "index.parquet"
    table.write_bytes(table.read_bytes()[:-100])
    with pytest.raises(ShardError, match="sample table cannot be read"):
        stream(copy, batch_size=4)
    table.unlink()
    with pytest.raises(ShardError, match="no sample table"):
        stream(copy, batch_size=4)
