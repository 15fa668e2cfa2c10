"""The cut by confidence: what it keeps, in which order, what is counted, what it says of itself on labelled data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.label.metrics import uniform
from builders.selection import (
    BELOW,
    KEPT,
    NOT_AMONG,
    UNLABELLED,
    Cut,
    report,
    select,
    select_file,
    wilson,
)
from t4sa_data.errors import BadOption, InputMissing, MalformedRow, MissingColumn, NoRows, TableError

FIRST_ID = 780_000_000_000_000_000


def drawn(num: int, seed: int = 0, coarse: int | None = None, unlabelled: float = 0.0) -> tuple[Any, Any]:
    """Ids beyond 2^53 and probabilities; coarse: with many ties."""
    chance = np.random.default_rng(seed)
    ids = FIRST_ID + chance.permutation(num)
    p = chance.dirichlet([0.5, 1.2, 1.1], num)
    if coarse:
        p = np.round(p * coarse) + 0.25
        p /= p.sum(axis=1, keepdims=True)
    p = p.astype(np.float32)
    p[chance.random(num) < unlabelled] = np.nan
    return ids, p


share = st.floats(0, 1)
cuts = st.one_of(
    st.builds(lambda x: Cut(threshold=x), st.one_of(share, st.tuples(share, share, share))),
    st.builds(lambda x: Cut(top=x), st.one_of(share, st.tuples(share, share, share))),
    st.builds(lambda x: Cut(top_of_all=x), share),
)
rows = st.builds(
    drawn, st.integers(0, 80), st.integers(0, 10**6), st.sampled_from([None, 2, 5]), st.sampled_from([0.0, 0.3])
)


@settings(max_examples=60, deadline=None)
@given(rows, cuts, st.integers(0, 10**6))
def test_every_row_has_a_reason_and_the_order_of_rows_is_nothing(given_rows: Any, cut: Cut, seed: int) -> None:
    ids, p = given_rows
    found = select(ids, p, cut)
    assert len(found.mask) == len(found.reasons) == len(ids)
    assert ((found.reasons == KEPT) == found.mask).all()
    assert found.mask.sum() + sum(found.dropped.values()) == len(ids)
    assert sum(one["kept"] for one in found.counts.values()) == found.mask.sum()
    assert sum(one["labelled"] for one in found.counts.values()) == (~np.isnan(p[:, 0])).sum()
    assert not found.mask[np.isnan(p[:, 0])].any()
    assert (found.labels[found.mask] == p[found.mask].argmax(axis=1)).all()
    order = np.random.default_rng(seed).permutation(len(ids))
    again = select(ids[order], p[order], cut)
    assert set(again.tweet_ids[again.mask].tolist()) == set(found.tweet_ids[found.mask].tolist())


@settings(max_examples=50, deadline=None)
@given(rows, share, share, st.sampled_from(["threshold", "top", "top_of_all"]))
def test_a_stricter_cut_keeps_a_part_of_what_a_looser_one_keeps(given_rows: Any, a: float, b: float, name: str) -> None:
    loose, strict = (min(a, b), max(a, b)) if name == "threshold" else (max(a, b), min(a, b))
    kept = [select(*given_rows, Cut(**{name: value})).mask for value in (strict, loose)]
    assert not (kept[0] & ~kept[1]).any()


@settings(max_examples=50, deadline=None)
@given(rows, st.tuples(share, share, share))
def test_tops_have_their_size_and_nobody_left_out_is_surer(given_rows: Any, top: tuple[float, float, float]) -> None:
    found = select(*given_rows, Cut(top=top))
    for number in range(3):
        of_class = found.labels == number
        inside, outside = of_class & found.mask, of_class & ~found.mask
        assert inside.sum() == int(of_class.sum() * top[number] + 1e-9)
        if inside.any() and outside.any():
            least, most = found.confidence[inside].min(), found.confidence[outside].max()
            assert least >= most
            if least == most:  # then the ids decide
                tied = of_class & (found.confidence == least)
                assert found.tweet_ids[tied & found.mask].max() < found.tweet_ids[tied & ~found.mask].min()


def test_thresholds_by_hand() -> None:
    ids = [5, 4, 3, 2, 1]
    p = [[0.85, 0.1, 0.05], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.02, 0.08, 0.9], [np.nan] * 3]
    found = select(ids, p, Cut(threshold=0.85))
    assert found.mask.tolist() == [True, False, False, True, False]  # stored as float32, .85 is at .85
    assert found.reasons.tolist() == [KEPT, BELOW, BELOW, KEPT, UNLABELLED]
    each = select(ids, p, Cut(threshold=(0.8, 0.7, 0.95)), reasons=[None, None, None, None, "empty text"])
    assert each.mask.tolist() == [True, True, True, False, False]
    assert each.reasons[4] == "empty text" and each.dropped == {BELOW: 1, "empty text": 1}
    assert each.counts["negative"] == {"labelled": 2, "kept": 2} and each.counts["positive"]["kept"] == 0
    assert each.labels.tolist() == [0, 0, 1, 2, -1] and np.isnan(each.confidence[4])


def test_shares_are_exact_where_floating_point_is_not() -> None:
    ids, p = drawn(100)
    assert select(ids, p, Cut(top_of_all=0.29)).mask.sum() == 29
    assert select(ids, p, Cut(top_of_all=1)).mask.all() and not select(ids, p, Cut(top_of_all=0)).mask.any()
    assert set(select(ids, p, Cut(top=0)).reasons) == {NOT_AMONG}


def test_ties_go_to_the_smaller_id_and_repeated_ids_to_the_first_row() -> None:
    p = [[0.2, 0.7, 0.1]] * 6
    found = select([30, 10, 20, 10, 2**62, 0], p, Cut(top_of_all=0.5))
    assert found.mask.tolist() == [False, True, False, True, False, True]
    assert select([7, 7, 7], p[:3], Cut(top_of_all=0.34)).mask.tolist() == [True, False, False]


def test_ranking_by_uniform_empties_the_neutral_class() -> None:
    """The trap of the module's docstring, with probabilities that are exactly right under the training prior."""
    prior = np.array([0.156, 0.448, 0.396])
    chance = np.random.default_rng(1)
    truth = chance.choice(3, 20_000, p=prior)
    means = np.array([-1.5, 0, 1.5])  # of a hidden mood: neutral lies between
    mood = means[truth] + chance.normal(size=20_000)
    raw = prior * np.exp(-((mood[:, None] - means) ** 2) / 2)  # the posterior of exactly this model
    raw /= raw.sum(axis=1, keepdims=True)
    ids = np.arange(20_000)
    kept = {}
    for name, p in (("raw", raw), ("uniform", uniform(raw, prior))):
        counts = select(ids, p, Cut(top_of_all=0.3)).counts
        kept[name] = [one["kept"] / 6000 for one in counts.values()]
    negatives = {name: shares[0] for name, shares in kept.items()}
    neutrals = {name: shares[1] for name, shares in kept.items()}
    assert negatives["uniform"] > 2 * negatives["raw"] and neutrals["uniform"] < 0.5 * neutrals["raw"]
    raw_right, uniform_right = (
        (truth[mask] == p[mask].argmax(axis=1)).mean()
        for p in (raw, uniform(raw, prior))
        for mask in [select(ids, p, Cut(top_of_all=0.3)).mask]
    )
    assert raw_right > uniform_right  # and it is wrong more often


def write(path: Path, ids: Any, p: Any, metadata: dict[str, str] | None = None, **further: Any) -> Path:
    columns = {
        name: pa.array(p[:, i], pa.float32(), mask=np.isnan(p[:, i]))
        for i, name in enumerate(("negative", "neutral", "positive"))
    }
    table = pa.table({"tweet_id": pa.array(ids, pa.int64()), **columns, **further})
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=7)
    return path


def test_a_file_of_label_run(tmp_path: Path) -> None:
    ids, p = drawn(50, 3, unlabelled=0.2)
    unlabelled = np.isnan(p[:, 0])
    given_ids = [None if i == np.flatnonzero(unlabelled)[0] else int(x) for i, x in enumerate(ids)]
    reasons = pa.array(
        ["bad id" if x is None else "empty text" if u else None for x, u in zip(given_ids, unlabelled, strict=True)]
    )
    path = write(tmp_path / "labels.parquet", given_ids, p, {"t4sa.prior": "raw"}, reason=reasons)
    found = select_file(path, Cut(threshold=0.7))
    expected = select(ids, p, Cut(threshold=0.7))
    assert (found.mask == expected.mask).all() and found.counts == expected.counts and 0 < found.mask.sum() < 40
    assert found.dropped == {"bad id": 1, "empty text": unlabelled.sum() - 1, BELOW: expected.dropped[BELOW]}
    table = found.table()
    assert table["tweet_id"].to_pylist() == given_ids and table["kept"].to_pylist() == found.mask.tolist()
    assert table["label"].null_count == table["confidence"].null_count == unlabelled.sum()
    assert table["reason"].null_count == found.mask.sum()
    assert (
        select_file(write(tmp_path / "bare.parquet", ids, p), Cut(threshold=0.7)).dropped[UNLABELLED]
        == unlabelled.sum()
    )


def test_what_label_run_writes_is_what_is_selected_from(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    from builders.label.baselines import Majority
    from builders.label.run import label_file

    (tmp_path / "tweets.csv").write_text(f"id,text\n{FIRST_ID},one\n{FIRST_ID + 1},\nx,two\n{FIRST_ID - 1},three\n")
    labeller = Majority([0.2, 0.7, 0.1])
    label_file(labeller, tmp_path / "tweets.csv", tmp_path / "raw.parquet")
    found = select_file(tmp_path / "raw.parquet", Cut(top_of_all=0.5))
    assert found.mask.tolist() == [False, False, False, True]  # equal confidence: the smaller id
    assert found.dropped == {NOT_AMONG: 1, "empty text": 1, "bad id": 1}
    label_file(labeller, tmp_path / "tweets.csv", tmp_path / "uniform.parquet", prior="uniform")
    with pytest.raises(BadOption, match="must not be ranked"):
        select_file(tmp_path / "uniform.parquet", Cut(top_of_all=0.5))


def test_files_that_cannot_be_selected_from(tmp_path: Path) -> None:
    ids, p = drawn(20)
    cut = Cut(threshold=0.5)
    with pytest.raises(InputMissing):
        select_file(tmp_path / "absent.parquet", cut)
    (tmp_path / "text.parquet").write_text("tweet_id\n1\n")
    with pytest.raises(TableError, match="no Parquet"):
        select_file(tmp_path / "text.parquet", cut)
    with pytest.raises(BadOption, match="must not be ranked"):
        select_file(write(tmp_path / "uniform.parquet", ids, p, {"t4sa.prior": "uniform"}), cut)
    pq.write_table(pa.table({"tweet_id": ids, "negative": p[:, 0]}), tmp_path / "less.parquet")
    with pytest.raises(MissingColumn, match="neutral"):
        select_file(tmp_path / "less.parquet", cut)
    with pytest.raises(MalformedRow, match="row 4"):
        select_file(write(tmp_path / "no_id.parquet", [*ids[:4].tolist(), None, *ids[5:].tolist()], p), cut)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"threshold": 0.5, "top": 0.5},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"threshold": ("a", 0, 0)},
        {"top": (0.1, 0.2)},
        {"top": -0.1},
        {"top_of_all": (0.1, 0.2, 0.3)},
    ],
)
def test_no_such_cut(values: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        Cut(**values)


@pytest.mark.parametrize("row", [[0.5, 0.5, np.nan], [0.5, 0.6, 0.2], [-0.1, 0.6, 0.5], [np.inf, 0, 0]])
def test_no_probabilities(row: list[float]) -> None:
    with pytest.raises(MalformedRow, match="row 1"):
        select([1, 2], [[0.2, 0.3, 0.5], row], Cut(threshold=0.5))


def test_shapes_that_do_not_fit() -> None:
    cut = Cut(threshold=0.5)
    for ids, p in (([1, 2], [[0.2, 0.3, 0.5]]), ([1.5], [[0.2, 0.3, 0.5]]), ([1], [[0.5, 0.5]])):
        with pytest.raises(BadOption):
            select(ids, p, cut)
    with pytest.raises(BadOption, match="reasons"):
        select([1], [[0.2, 0.3, 0.5]], cut, reasons=[])


def test_the_report_says_what_a_cut_brings() -> None:
    chance = np.random.default_rng(2)
    p = chance.dirichlet([0.5, 1.2, 1.1], 4000)
    y = (p.cumsum(axis=1) < chance.random((4000, 1))).sum(axis=1).clip(max=2)  # calibrated
    cut = Cut(top=(0.2, 0.1, 0.3))
    found = report(p, y, cut)
    assert json.loads(json.dumps(found, allow_nan=False)) == found and found["n"] == 4000
    said, confidence = p.argmax(axis=1), p.max(axis=1)
    assert [round(point["coverage"], 2) for point in found["curve"]] == [round(x / 20, 2) for x in range(1, 21)]
    for point in found["curve"]:
        best = np.argsort(-confidence, kind="stable")[: point["rows"]]
        assert point["accuracy"] == pytest.approx((said[best] == y[best]).mean())
        assert point["threshold"] == confidence[best].min()
        assert point["interval"][0] < point["accuracy"] < point["interval"][1]
        assert sum(point["shares"].values()) == pytest.approx(1)
        kept = select(np.arange(4000), p, Cut(threshold=point["threshold"])).mask.sum()  # the cut that it stands for
        assert abs(kept - point["rows"]) <= 1
    accuracies = [point["accuracy"] for point in found["curve"]]
    assert accuracies[0] > accuracies[9] > accuracies[-1] + 0.1
    mask = select(np.arange(4000), p, cut).mask
    assert found["cut"]["rows"] == mask.sum() and found["cut"]["accuracy"] == pytest.approx((said == y)[mask].mean())
    for number, name in enumerate(("negative", "neutral", "positive")):
        one, of_class = found["cut"]["by_class"][name], said == number
        assert one["coverage"] == pytest.approx(cut.of_each("top")[number], abs=0.01)
        assert one["accuracy"] == pytest.approx((y == number)[mask & of_class].mean())
        assert found["by_class"][name][-1]["rows"] == of_class.sum()


def test_a_report_of_little() -> None:
    found = report([[0.2, 0.3, 0.5]], [2], Cut(threshold=0.9))
    assert found["cut"]["rows"] == 0 and found["cut"]["accuracy"] is None and found["cut"]["interval"] is None
    assert [point["rows"] for point in found["curve"]] == [1] and found["by_class"]["negative"] == []
    with pytest.raises(NoRows):
        report(np.zeros((0, 3)), [])


def test_the_interval_of_a_share() -> None:
    assert wilson(0, 0) is None and wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == pytest.approx(1)  # type: ignore[index]
    assert wilson(50, 100) == pytest.approx([0.4038, 0.5962], abs=1e-4)
