"""Splits: stratified by class and seeded as the paper's, or leak-free by tweet, near-duplicates and author, or by time,
or the official lists.

Sizes. The paper's split is called "80/10/10", but no rounding of a tenth gives its sizes. The rule here is
floor(n x held out / class size) with the published counts of `t4sa_data.catalog` (`PAPER`): at the paper's size it
gives the paper's numbers, at any other its proportions. `EIGHTY` is 80/10/10 to the letter. Each of validation and test
gets one row at least where a class has three; train gets the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from builders.keys import SPLIT, Ints, find, key_hash, pack
from builders.sources.tables import SplitList
from t4sa_data.catalog import CLASSES, SPLIT_CERTAINTY, SPLITS
from t4sa_data.errors import BadOption, ConflictingRows

SPLIT_VERSION = 1
"""Bump when the same rows would be split differently."""
SPLIT_SEED = 2017
"""Another seed, another split."""
TRAIN, VALIDATION, TEST, NONE = 0, 1, 2, -1
"""Values of `Assignment.split`: places in `catalog.SPLITS`."""
NOT_LISTED = "split/not-listed"
"""Official lists: no list names the image."""
ACROSS_THE_CUT = "split/across-the-cut"
"""By time: rows that have to stay together lie on both sides of a cut."""

Shares = tuple[int, int, int]
PAPER: Shares = (SPLIT_CERTAINTY.value["train"], SPLIT_CERTAINTY.value["validation"], SPLIT_CERTAINTY.value["test"])
"""Train to validation to test, as the published counts."""
EIGHTY: Shares = (80, 10, 10)
Splits = npt.NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A split of every row, and how near it came to what was asked for."""

    split: Splits
    """`TRAIN`, `VALIDATION`, `TEST`, or `NONE`, shape (n,)."""
    wanted: Ints
    """Rows asked for, shape (3 splits, 3 classes)."""
    got: Ints
    """Rows assigned, the same shape."""
    num_units: int
    """Sets of rows that stay together."""
    largest_unit: int
    """Rows of the largest."""

    @property
    def missed(self) -> int:
        """Rows by which the split is off, over all splits and classes: 0 where each has exactly its number."""
        return int(np.abs(self.got - self.wanted).sum()) // 2

    def to_json(self) -> dict[str, object]:
        """As a JSON value; counts are lists in class order."""
        return {
            "wanted": dict(zip(SPLITS, self.wanted.tolist(), strict=True)),
            "got": dict(zip(SPLITS, self.got.tolist(), strict=True)),
            "rows_off": self.missed,
            "in_no_split": int((self.split == NONE).sum()),
            "units": self.num_units,
            "largest_unit": self.largest_unit,
        }


def sizes(num: int, shares: Shares = PAPER) -> Shares:
    """Rows of train, validation and test among `num` of one class.

    >>> from t4sa_data.catalog import PUBLISHED
    >>> sizes(PUBLISHED["balanced"].negative) == PAPER
    True
    >>> sizes(100, EIGHTY), sizes(3), sizes(2)
    ((80, 10, 10), (1, 1, 1), (2, 0, 0))
    """
    if min(shares) < 0 or sum(shares) <= 0 or not shares[0]:
        raise BadOption("shares of a split", expected="train > 0, validation and test >= 0", got=shares)
    held = [max(num * share // sum(shares), 1 if num >= 3 and share else 0) for share in shares[1:]]
    return num - sum(held), held[0], held[1]


def assign(
    label: Ints,
    tweet_id: Ints,
    image_index: npt.NDArray[np.int8],
    *,
    shares: Shares = PAPER,
    seed: int = SPLIT_SEED,
    together: Sequence[Ints] = (),
) -> Assignment:
    """Split at random, stratified by class.

    Without `together` each class is split exactly. With it, rows with an equal value in any of its columns stay in one
    split, and so do theirs (connected components, called units): units are dealt out largest first, those with equal
    counts of the classes in one go and in proportion to what each split still lacks. Where enough single rows are left
    for the end, they even out what the large units did; `Assignment.missed` says how far it is off.

    Args:
        label: 0, 1 or 2, shape (n,).
        tweet_id: shape (n,).
        image_index: shape (n,).
        shares: train to validation to test; `PAPER` or `EIGHTY`.
        seed: any integer; decides together with the keys, never with the order of rows.
        together: columns of shape (n,): tweet ids, near-duplicate groups, authors (`alone_where_null`).

    >>> made = assign(np.repeat([0, 1, 2], 20), np.arange(60), np.ones(60, np.int8), shares=EIGHTY)
    >>> made.got.tolist(), made.missed
    ([[16, 16, 16], [2, 2, 2], [2, 2, 2]], 0)
    """
    wanted = _wanted(label, shares)
    unit, num_units = _units(together, len(label))
    first = _first_rows(unit, num_units, pack(tweet_id, image_index))
    hashes = key_hash(tweet_id[first], image_index[first], seed=seed, purpose=SPLIT)
    counts = _class_counts(unit, num_units, label)
    size = counts.sum(axis=1)
    # Largest first; among equals by their classes, then by hash, then by key.
    order = np.lexsort((image_index[first], tweet_id[first], hashes, *(-counts.T), -size))
    ordered = counts[order]
    changes = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    bounds = [0, *changes.tolist(), num_units] if num_units else []
    left, of_unit = wanted.astype(np.int64), np.empty(num_units, dtype=np.int8)
    for low, high in pairwise(bounds):
        parts = _deal(left, ordered[low], high - low)
        of_unit[order[low:high]] = np.repeat(np.arange(len(SPLITS), dtype=np.int8), parts)
        left -= parts[:, None] * ordered[low]
    return _made(of_unit[unit], label, wanted, num_units, int(size.max(initial=0)))


def assign_by_time(
    label: Ints,
    tweet_id: Ints,
    image_index: npt.NDArray[np.int8],
    *,
    shares: Shares = PAPER,
    time: Ints | None = None,
    together: Sequence[Ints] = (),
) -> Assignment:
    """Train on the earliest, test on the latest; the cuts lie between tweets.

    Not stratified: what people posted later is what it is. A unit of `together` that lies on both sides of a cut is in
    no split (`ACROSS_THE_CUT`): put anywhere, it would leak.

    Args:
        label: 0, 1 or 2, shape (n,).
        tweet_id: shape (n,).
        image_index: shape (n,).
        shares: of all rows.
        time: when each tweet was made, in any unit, shape (n,); None: the tweet ids say it (`snowflake_ms`). Tweets of
            one time are told apart by id.
        together: as for `assign`.

    >>> ids, ks, label = np.array([7, 9, 8, 9, 5]), np.array([1, 1, 1, 2, 1], np.int8), np.zeros(5, np.int64)
    >>> assign_by_time(label, ids, ks, shares=(3, 0, 2)).split.tolist()
    [0, 2, 0, 2, 0]
    """
    order = np.lexsort((image_index, tweet_id, snowflake_ms(tweet_id) if time is None else time))
    ids = tweet_id[order]
    train, validation, _ = sizes(len(label), shares)
    cuts = [_between_tweets(ids, cut) for cut in (train, train + validation)]
    split = np.empty(len(label), dtype=np.int8)
    split[order] = np.searchsorted(cuts, np.arange(len(label)), side="right")
    unit, num_units = _units((tweet_id, *together), len(label))
    lowest, highest = np.full(num_units, TEST, np.int8), np.full(num_units, TRAIN, np.int8)
    np.minimum.at(lowest, unit, split)
    np.maximum.at(highest, unit, split)
    split[(lowest != highest)[unit]] = NONE
    wanted = _class_counts(np.repeat(np.arange(len(SPLITS)), np.diff([0, *cuts, len(ids)])), len(SPLITS), label[order])
    return _made(split, label, wanted, num_units, int(np.bincount(unit, minlength=1).max()))


def assign_official(
    label: Ints, tweet_id: Ints, image_index: npt.NDArray[np.int8], lists: Mapping[str, SplitList]
) -> Assignment:
    """The split that lists give: `builders.sources.tables.read_split_list` of `catalog.OFFICIAL_LISTS`.

    A row that no list names is in no split (`NOT_LISTED`). `Assignment.wanted` counts the lists' lines by their labels:
    `missed` is not 0 where images are not there or have another label.

    Args:
        label: 0, 1 or 2, shape (n,).
        tweet_id: shape (n,).
        image_index: shape (n,).
        lists: split -> list.

    Raises:
        BadOption: a split that does not exist.
        ConflictingRows: a key that stands in two lists.
    """
    if unknown := sorted(set(lists) - set(SPLITS)):
        raise BadOption("not a split", expected=SPLITS, got=unknown)
    chosen = [(SPLITS.index(name), lists[name]) for name in SPLITS if name in lists]
    keys = np.concatenate([np.zeros(0, np.uint64), *(pack(one.tweet_id, one.image_index) for _, one in chosen)])
    of_list = np.repeat([number for number, _ in chosen], [len(one.label) for _, one in chosen]).astype(np.int8)
    values, counts = np.unique(keys, return_counts=True)
    if (counts > 1).any():
        twice = int(values[counts > 1][0])
        raise ConflictingRows("an image stands in two split lists", got=f"{twice >> 2}-{(twice & 3) + 1}")
    row = find(pack(tweet_id, image_index), keys)
    split = np.full(len(label), NONE, dtype=np.int8)
    split[row >= 0] = of_list[row[row >= 0]]
    labels = np.concatenate([np.zeros(0, np.int64), *(one.label for _, one in chosen)])
    wanted = _class_counts(of_list.astype(np.int64), len(SPLITS), labels)
    return _made(split, label, wanted, len(label), min(1, len(label)))


def snowflake_ms(tweet_id: Ints) -> Ints:
    """When a tweet was made, by its id: milliseconds since 1970 (ids since November 2010).

    >>> np.array(snowflake_ms(np.array([767724493873516544])), dtype="datetime64[ms]").astype(str).tolist()
    ['2016-08-22T14:05:57.627']
    """
    return np.asarray((tweet_id >> 22) + 1_288_834_974_657, dtype=np.int64)


def alone_where_null(values: npt.NDArray[np.int64], is_null: npt.NDArray[np.bool_]) -> Ints:
    """A column for `together` whose nulls hold nobody together: each gets a value of its own."""
    made = np.unique(values, return_inverse=True)[1].astype(np.int64)
    made[is_null] = -1 - np.arange(int(is_null.sum()))
    return made


def _wanted(label: Ints, shares: Shares) -> Ints:
    counts = np.bincount(label, minlength=len(CLASSES))
    return np.array([sizes(int(num), shares) for num in counts]).T.copy()


def _class_counts(unit: Ints, num_units: int, label: Ints) -> Ints:
    """Rows of each class in each unit, shape (num_units, 3)."""
    flat = np.bincount(unit * len(CLASSES) + label, minlength=num_units * len(CLASSES))
    return flat.reshape(num_units, len(CLASSES))


def _made(split: Splits, label: Ints, wanted: Ints, num_units: int, largest: int) -> Assignment:
    inside = split != NONE
    got = _class_counts(split[inside].astype(np.int64), len(SPLITS), label[inside])
    return Assignment(split=split, wanted=wanted, got=got, num_units=num_units, largest_unit=largest)


def _units(together: Sequence[Ints], num: int) -> tuple[Ints, int]:
    """The unit of each row, numbered from 0, and how many there are: components of "equal in some column"."""
    parents = np.arange(num, dtype=np.int64)
    if not together:
        return parents, num
    links = []
    for column in together:
        _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
        links.append(first[inverse])
    while True:
        before = parents.copy()
        for link in links:
            # Each root hangs itself below the smallest root that one of its rows is linked to.
            one, other = parents, parents[link]
            np.minimum.at(parents, np.maximum(one, other), np.minimum(one, other))
            while not np.array_equal(parents, above := parents[parents]):
                parents = above
        if np.array_equal(parents, before):
            break
    roots, unit = np.unique(parents, return_inverse=True)
    return unit.astype(np.int64, copy=False), len(roots)


def _first_rows(unit: Ints, num_units: int, keys: npt.NDArray[np.uint64]) -> Ints:
    """The row with the smallest key of each unit, shape (num_units,)."""
    order = np.argsort(keys)[::-1]
    first = np.empty(num_units, dtype=np.int64)
    first[unit[order]] = order  # the last write stands: the smallest key
    return first


def _deal(left: Ints, classes: Ints, num: int) -> Ints:
    """How many of `num` equal units go to each split: in proportion to what it lacks of their classes.

    Args:
        left: rows that each split lacks, shape (3 splits, 3 classes).
        classes: rows of each class in one unit, shape (3,).
        num: units.
    """
    need = (np.maximum(left, 0) * classes).sum(axis=1)
    if need.sum() == 0:  # nothing is lacking: larger units before took it
        need = np.array([1, 0, 0])
    exact, total = need * num, int(need.sum())
    parts = exact // total
    # Those that are left over go one by one to the largest remainder, the first of equals.
    for place in np.argsort(-(exact % total), kind="stable")[: num - int(parts.sum())]:
        parts[place] += 1
    return np.asarray(parts)


def _between_tweets(ids: Ints, cut: int) -> int:
    """The nearest place at or before `cut` where another tweet begins."""
    while 0 < cut < len(ids) and ids[cut] == ids[cut - 1]:
        cut -= 1
    return cut
