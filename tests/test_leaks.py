"""The leak report: against its definition on small splits, nothing to tell of a clean one; a release's by command."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from builders import dedup, split
from builders.leaks import Columns, find_leaks
from builders.leaks_cli import app
from t4sa_data.catalog import SPLITS
from t4sa_data.testing import make_release


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 30))
def test_every_number_is_what_it_says(seed: int, num: int, num_values: int) -> None:
    rng = np.random.default_rng(seed)
    label, chosen = rng.integers(0, 3, num), rng.integers(-1, 3, num).astype(np.int8)
    values = rng.integers(0, num_values, num)
    phash = (values.astype(np.uint64) * np.uint64(0xFF)) << np.uint64(8)
    columns = Columns(
        split=chosen, label=label, tweet_id=values << 22, phash=phash, sha256=values + 3, author=values * 2
    )
    found = find_leaks(columns, distances=(0,))
    assert [one.name for one in found.relations] == ["same tweet", "same file", "near-duplicate, 0 bits", "same author"]
    inside = np.flatnonzero(chosen >= 0)
    kin = [(a, b) for a in inside for b in inside if values[a] == values[b]]
    for one in found.relations:
        for a, b in combinations(range(3), 2):
            expected = sum(chosen[i] == a and chosen[j] == b for i, j in kin)
            assert one.pairs[f"{SPLITS[a]}-{SPLITS[b]}"] == expected
        twins = {i: [j for k, j in kin if k == i and chosen[j] == 0] for i in inside if chosen[i] == 2}
        assert one.test_rows == sum(bool(found) for found in twins.values())
        assert one.test_conflicts == sum(bool(found) and label[i] not in label[found] for i, found in twins.items())
        across = [v for v in set(values[inside].tolist()) if len(set(chosen[inside][values[inside] == v])) > 1]
        assert (one.sets, one.rows) == (len(across), sum(int((values[inside] == v).sum()) for v in across))
    last = values[chosen == 0].max(initial=-1)
    assert found.test_before_last_train == (values[chosen == 2] <= last).sum()
    assert sum(found.rows.values()) == len(inside)
    assert json.loads(json.dumps(found.to_json()))["rows"] == found.rows
    assert str(found.rows["train"]) in found.as_text()


def test_splits_that_keep_things_together_leak_nothing_of_them() -> None:
    """And the distance of the report may be another one than the split's: what lies between is found."""
    rng = np.random.default_rng(0)
    num = 600
    phash = rng.integers(0, 2**64, 300, dtype=np.uint64)[rng.integers(0, 300, num)]
    phash[::2] ^= np.uint64(0b111111)  # six bits away from its kin
    ids, index = rng.permutation(num) // 2 << 22, (np.arange(num) % 4 + 1).astype(np.int8)
    label, author = ids // (1 << 22) % 3, rng.integers(0, 300, num)
    for distance, leaks_at_8 in ((8, False), (4, True)):
        kin = (ids, dedup.group(phash, distance), author)
        made = split.assign(label, ids, index, together=kin[:2])
        found = find_leaks(Columns(split=made.split, label=label, tweet_id=ids, phash=phash, author=author))
        numbers = {one.name: one.sets for one in found.relations}
        assert numbers["same tweet"] == numbers["near-duplicate, 0 bits"] == numbers["near-duplicate, 4 bits"] == 0
        assert (numbers["near-duplicate, 8 bits"] > 0) == leaks_at_8
        assert numbers["same author"] > 0
    made = split.assign_by_time(label, ids, index)
    assert find_leaks(Columns(split=made.split, label=label, tweet_id=ids)).test_before_last_train == 0


def test_the_command_reads_any_release(tmp_path: Path) -> None:
    make_release(tmp_path, 60)
    run = CliRunner()
    for folder in (tmp_path, tmp_path / "t4sa-wds"):
        done = run.invoke(app, [str(folder), "--json", "--distance", "0", "--distance", "16"])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        table = pq.read_table(tmp_path / "t4sa/b-t4sa/index.parquet")
        names = table["split"].to_pylist()
        assert found["rows"] == {name: names.count(name) for name in SPLITS}
        assert list(found["relations"]) == [
            "same tweet", "same file", "near-duplicate, 0 bits", "near-duplicate, 16 bits"
        ]  # fmt: skip
        by_hand = {(i, j) for i, a in enumerate(names) for j, b in enumerate(names) if (a, b) == ("train", "test")}
        tweet = table["tweet_id"].to_pylist()
        assert found["relations"]["same tweet"]["pairs"]["train-test"] == sum(tweet[i] == tweet[j] for i, j in by_hand)
    done = run.invoke(app, [str(tmp_path)])
    assert done.exit_code == 0
    assert "same tweet" in done.stdout
    assert "test rows not later" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere"], 1, "no release here"),
        (["t4sa", "--config", "raw-text"], 2, "not an image config"),
        (["t4sa", "--config", "t4sa"], 1, "not in this release"),
        (["t4sa", "--distance", "17"], 2, "less than or equal to 16"),
    ],
)
def test_what_the_command_refuses(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    make_release(tmp_path, 30, formats=("parquet",))
    done = CliRunner().invoke(app, [str(tmp_path / arguments[0]), *arguments[1:]])
    assert done.exit_code == status
    assert words in done.output
