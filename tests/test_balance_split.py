"""Balance and split on columns: exact counts, the same for any order of rows, and nothing cut that stays together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import balance, split
from builders.keys import pack
from builders.sources.tables import SplitList, read_split_list
from t4sa_data.catalog import PUBLISHED, SPLIT_CERTAINTY, SPLIT_SIZES, SPLITS
from t4sa_data.errors import BadOption, ConflictingRows, NoRows


@st.composite
def keyed_rows(draw: st.DrawFn) -> tuple[Any, Any, Any, np.random.Generator]:
    """Labels of tweets, ids, indices: one to four images a tweet, in no order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_tweets = draw(st.integers(3, 150))
    ids = np.sort(rng.choice(10**6, num_tweets, replace=False)) + 767_724_493_873_516_544
    label = np.concatenate([[0, 1, 2], rng.choice(3, num_tweets - 3, p=[0.2, 0.5, 0.3])])
    images = rng.choice([1, 2, 4], num_tweets, p=[0.8, 0.1, 0.1])
    row = np.repeat(np.arange(num_tweets), images)
    index = (np.arange(len(row)) - np.repeat(np.cumsum(images) - images, images) + 1).astype(np.int8)
    order = rng.permutation(len(row))
    return label[row][order].astype(np.int64), ids[row][order], index[order], rng


@settings(max_examples=60, deadline=None, derandomize=True)
@given(keyed_rows(), st.sampled_from(["image", "tweet"]), st.integers(-5, 2**70))
def test_balance_draws_all_of_the_smallest_class_and_as_many_of_the_others(rows: Any, by: Any, seed: int) -> None:
    label, ids, index, rng = rows
    made = balance.balance(label, ids, index, seed=seed, by=by)
    counts = [len(set(ids[label == one])) if by == "tweet" else int((label == one).sum()) for one in range(3)]
    assert made.candidates == tuple(counts)
    assert np.bincount(label[made.drawn], minlength=3).tolist() == [min(counts)] * 3 == [made.per_class] * 3
    assert not (made.drawn & ~made.is_candidate).any()
    if by == "tweet":
        assert len(set(ids[made.drawn])) == made.drawn.sum()
    order = rng.permutation(len(label))
    again = balance.balance(label[order], ids[order], index[order], seed=seed, by=by)
    assert np.array_equal(again.drawn, made.drawn[order])
    fewer = balance.balance(label, ids, index, seed=seed, by=by, per_class=1)
    assert fewer.drawn.sum() == 3
    assert not (fewer.drawn & ~made.drawn).any()  # who is drawn of few is drawn of many


def test_another_seed_draws_others_and_everybody_is_drawn_as_often() -> None:
    label = np.repeat([0, 1, 2], [50, 500, 100])
    ids, index = np.arange(650), np.ones(650, np.int8)
    times = sum(balance.balance(label, ids, index, seed=seed).drawn.astype(int) for seed in range(400))
    assert (times[:50] == 400).all()
    assert abs(times[50:550].mean() - 40) < 1e-9
    assert times[50:550].std() < 1.3 * (400 * 0.1 * 0.9) ** 0.5
    assert times[50:550].std() > 0.7 * (400 * 0.1 * 0.9) ** 0.5


def test_a_draw_says_nothing_of_a_split_or_of_the_order_of_a_release() -> None:
    from t4sa_data.plan import release_order

    num = 30_000
    label, ids, index = np.arange(num) % 3, np.arange(num), np.ones(num, np.int8)
    drawn = balance.balance(label, ids, index, per_class=1000).drawn
    made = split.assign(label, ids, index, shares=split.EIGHTY).split
    assert abs((made[drawn] == split.TEST).mean() - 0.1) < 0.02
    assert abs(drawn[release_order(ids, index)[: num // 10]].mean() - 0.1) < 0.02


def test_balance_refuses_what_cannot_be() -> None:
    keys = np.arange(4), np.ones(4, np.int8)
    with pytest.raises(NoRows, match="positive 0"):
        balance.balance(np.array([0, 0, 1, 1]), *keys)
    for per_class in (0, 2):
        with pytest.raises(BadOption):
            balance.balance(np.array([0, 2, 1, 1]), *keys, per_class=per_class)


def test_the_papers_sizes_come_out() -> None:
    num = PUBLISHED["balanced"].negative
    assert dict(zip(SPLITS, split.sizes(num), strict=True)) == SPLIT_CERTAINTY.value
    label = np.repeat([0, 1, 2], num)
    made = split.assign(label, np.arange(3 * num), np.ones(3 * num, np.int8))
    assert dict(zip(SPLITS, made.got.sum(axis=1).tolist(), strict=True)) == SPLIT_SIZES
    assert made.missed == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(keyed_rows(), st.sampled_from([split.PAPER, split.EIGHTY, (1, 1, 0)]), st.integers(-5, 2**70))
def test_images_are_split_exactly_by_class(rows: Any, shares: split.Shares, seed: int) -> None:
    label, ids, index, rng = rows
    made = split.assign(label, ids, index, shares=shares, seed=seed)
    for one in range(3):
        counts = np.bincount(made.split[label == one], minlength=3)
        assert tuple(counts.tolist()) == split.sizes(int((label == one).sum()), shares)
    assert made.missed == 0
    order = rng.permutation(len(label))
    again = split.assign(label[order], ids[order], index[order], shares=shares, seed=seed)
    assert np.array_equal(again.split, made.split[order])


def components(columns: list[Any]) -> list[int]:
    """By definition: the smallest row that is reached over equal values."""
    group = list(range(len(columns[0])))
    while True:
        before = list(group)
        for column in columns:
            least: dict[int, int] = {}
            for value, one in zip(column.tolist(), group, strict=True):
                least[value] = min(least.get(value, one), one)
            group = [least[value] for value in column.tolist()]
        if group == before:
            return group


@settings(max_examples=60, deadline=None, derandomize=True)
@given(keyed_rows(), st.integers(1, 200), st.integers(1, 400), st.booleans(), st.booleans())
def test_what_stays_together_is_never_cut(
    rows: Any, num_groups: int, num_authors: int, by_time: bool, has_time: bool
) -> None:
    label, ids, index, rng = rows
    num = len(label)
    together = [ids, rng.integers(0, num_groups, num), rng.integers(0, num_authors, num)]
    order = rng.permutation(num)
    time = ids // 7 if has_time else None

    def run(rows: Any) -> split.Assignment:
        columns = label[rows], ids[rows], index[rows]
        kin = [column[rows] for column in together]
        if by_time:
            return split.assign_by_time(*columns, together=kin, time=None if time is None else time[rows])
        return split.assign(*columns, together=kin)

    made = run(np.arange(num))
    unit = np.array(components(together))
    assert made.num_units == len(set(unit.tolist()))
    assert made.largest_unit == np.bincount(unit).max()
    for one in np.unique(unit):
        assert len(set(made.split[unit == one].tolist())) == 1
    inside = made.split >= 0
    assert made.got.sum() == inside.sum()
    assert by_time or inside.all()
    assert made.missed == np.abs(made.got - made.wanted).sum() // 2
    assert np.array_equal(run(order).split, made.split[order])


def test_a_null_author_is_nobodys() -> None:
    values = np.array([0, 5, 0, 5, 0, 0])
    made = split.alone_where_null(values, np.array([False, False, True, True, True, False]))
    assert made[0] == made[5]
    assert len(set(made.tolist())) == 5


def test_a_units_place_does_not_depend_on_which_of_its_rows_comes_first() -> None:
    rng = np.random.default_rng(7)
    ids, index = np.repeat(np.arange(500), 2), np.tile(np.array([1, 2], np.int8), 500)
    for _ in range(3):
        order = rng.permutation(1000)
        made = split.assign(np.zeros(1000, np.int64), ids, index, together=(ids // 2,))
        again = split.assign(np.zeros(1000, np.int64), ids[order], index[order], together=(ids[order] // 2,))
        assert np.array_equal(made.split[order], again.split)


def test_chains_over_two_relations_hold_together() -> None:
    """A chain of 20,000 links, tweet, author, tweet, author ..., in an order that is as unkind as can be."""
    place = np.random.default_rng(0).permutation(20_000)
    first, second = place // 2, (place + 1) // 2
    unit, num = split._units((first, second), len(place))
    assert num == 1
    assert not unit.any()


def test_groups_of_usual_sizes_cost_no_balance() -> None:
    """Tweets of up to four images and some large groups: every class is split exactly all the same."""
    rng = np.random.default_rng(1)
    tweet = np.repeat(np.arange(9000), rng.choice([1, 2, 3, 4], 9000, p=[0.85, 0.07, 0.04, 0.04]))
    label = (tweet % 3).astype(np.int64)
    group = np.where(rng.random(len(tweet)) < 0.1, rng.integers(0, 30, len(tweet)), tweet + 100)
    made = split.assign(label, tweet, np.ones(len(tweet), np.int8), together=(tweet, group))
    assert made.missed == 0
    assert made.largest_unit > 30
    again = split.assign(label, tweet, np.ones(len(tweet), np.int8), together=(tweet, group), seed=1)
    assert not np.array_equal(again.split, made.split)
    # One group of nearly everything cannot be split: it says so.
    one = split.assign(label, tweet, np.ones(len(tweet), np.int8), together=(np.minimum(tweet, 1),))
    assert one.missed > 1000
    assert one.to_json()["rows_off"] == one.missed


def test_time_goes_forward_and_tweets_are_not_cut() -> None:
    rng = np.random.default_rng(2)
    ids = rng.permutation(np.repeat(np.arange(1000) << 22, 2))
    label = rng.integers(0, 3, 2000)
    made = split.assign_by_time(label, ids, np.ones(2000, np.int8), shares=split.EIGHTY)
    parts = [ids[made.split == one] for one in range(3)]
    assert [len(part) for part in parts] == [1600, 200, 200]
    assert parts[0].max() < parts[1].min() <= parts[1].max() < parts[2].min()
    odd = split.assign_by_time(label, ids, np.ones(2000, np.int8), shares=(1333, 334, 333))
    assert (odd.split >= 0).all()  # both cuts would fall between two images of one tweet
    # Given times beat ids, and nulls hold nobody together.
    back = split.assign_by_time(label, ids, np.ones(2000, np.int8), shares=split.EIGHTY, time=-ids)
    assert ids[back.split == split.TEST].max() < ids[back.split == split.TRAIN].min()
    author = split.alone_where_null(np.where(ids % 3 == 0, 0, ids), np.ones(2000, bool))
    assert len(np.unique(author)) == 2000
    kept = split.assign_by_time(label, ids, np.ones(2000, np.int8), shares=split.EIGHTY, together=(author,))
    assert (kept.split >= 0).all()
    one = split.assign_by_time(label, ids, np.ones(2000, np.int8), together=(np.zeros(2000, np.int64),))
    assert (one.split == split.NONE).all()


def test_the_official_lists_are_followed() -> None:
    lists = {
        "train": read_split_list(b"data/1/11-1.jpg 0\ndata/1/11-2.jpg 0\ndata/1/15-1.jpg 2\n", "train"),
        "test": read_split_list(b"data/1/12-4.jpg 1\n", "test"),
    }
    ids, index = np.array([12, 11, 13, 11, 12]), np.array([4, 2, 1, 1, 3], np.int8)
    made = split.assign_official(np.array([1, 0, 0, 0, 1]), ids, index, lists)
    assert made.split.tolist() == [split.TEST, split.TRAIN, split.NONE, split.TRAIN, split.NONE]
    assert made.wanted.tolist() == [[2, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert made.got.tolist() == [[2, 0, 0], [0, 0, 0], [0, 1, 0]]
    twice = SplitList(tweet_id=np.array([11]), image_index=np.array([2], np.int8), label=np.array([0]))
    with pytest.raises(ConflictingRows, match="11-2"):
        split.assign_official(np.array([1, 0, 0, 0, 1]), ids, index, {**lists, "validation": twice})
    with pytest.raises(BadOption):
        split.assign_official(np.array([1, 0, 0, 0, 1]), ids, index, {"val": twice})


@pytest.mark.parametrize("shares", [(0, 1, 1), (1, -1, 1), (0, 0, 0)])
def test_shares_that_make_no_split_are_refused(shares: split.Shares) -> None:
    with pytest.raises(BadOption):
        split.sizes(100, shares)


def test_nothing_in_nothing_out() -> None:
    none, index = np.zeros(0, np.int64), np.zeros(0, np.int8)
    assert len(split.assign(none, none, index).split) == 0
    assert len(split.assign(none, none, index, together=(none,)).split) == 0
    assert len(split.assign_by_time(none, none, index).split) == 0
    assert len(pack(none, index)) == 0
