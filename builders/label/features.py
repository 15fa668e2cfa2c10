"""What the SVM sees of a text: words and short runs of them, weighted; lexicons, counts and parts of speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from builders.label.tokens import FLAGS, LEXICON_COLUMNS, POS, Batch

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]

NEGATED = "_not"
"""Behind a word in the scope of a negation."""
MIN_TEXTS = 2
"""Texts that an n-gram must occur in to be kept."""
FLIP = -0.7
"""What a lexicon's value is multiplied by in the scope of a negation (VADER: -0.74)."""
CLIP = 4.0
"""Standard deviations that a dense feature is cut at."""


@dataclass(frozen=True, kw_only=True)
class Ngrams:
    """Tf-idf of runs of one to three words; as scikit-learn's `TfidfVectorizer(sublinear_tf=True, min_df=2)`, on token
    numbers instead of strings.

    A run of two is kept as the numbers of its words, one of three as that of its first two and of its third.
    """

    words: tuple[str, ...]
    """Runs of one, in order; a negated word has `NEGATED` behind it."""
    pairs: Ints
    """Runs of two: first * len(words) + second, ascending."""
    triples: Ints
    """Runs of three: place in `pairs` * len(words) + third, ascending."""
    idf: Floats
    """Of words, pairs, triples, shape (features,)."""

    @property
    def num_features(self) -> int:
        """Columns."""
        return len(self.words) + len(self.pairs) + len(self.triples)

    @classmethod
    def fit(cls, batch: Batch, min_texts: int = MIN_TEXTS) -> Ngrams:
        """Learn which runs there are, and their weights.

        Args:
            batch: the training texts.
            min_texts: runs in fewer texts are left out.
        """
        names, numbers = _named(batch)
        owner = batch.owner
        counts = _texts_with(owner, numbers, len(names))
        kept = [i for i in sorted(range(len(names)), key=names.__getitem__) if counts[i] >= min_texts]
        words = tuple(names[i] for i in kept)
        place = np.full(len(names) + 1, -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        first = place[numbers]
        runs, frequencies = [], [counts[kept]]
        for distance in (1, 2):
            keys = _runs(first, place[numbers], owner, distance, len(words))
            found, inverse = np.unique(keys[keys >= 0], return_inverse=True)
            texts = _texts_with(owner[: len(keys)][keys >= 0], inverse, len(found))
            runs.append(found[texts >= min_texts])
            frequencies.append(texts[texts >= min_texts])
            first = _places(runs[-1], keys)
        df, num_texts = np.concatenate(frequencies), len(batch.starts) - 1
        idf = (np.log((1 + num_texts) / (1 + df)) + 1).astype(np.float32)
        return cls(words=words, pairs=runs[0], triples=runs[1], idf=idf)

    def transform(self, batch: Batch) -> sparse.csr_matrix:
        """Tf-idf, rows of length 1, shape (texts, features), float32."""
        names, numbers = _named(batch)
        lookup = self._lookup
        place = np.array([lookup.get(name, -1) for name in names], dtype=np.int64)
        words, owner, first = place[numbers], batch.owner, place[numbers]
        columns, rows = [words[words >= 0]], [owner[words >= 0]]
        offset = len(self.words)
        for distance, known in ((1, self.pairs), (2, self.triples)):
            first = _places(known, _runs(first, words, owner, distance, len(self.words)))
            columns.append(first[first >= 0] + offset)
            rows.append(owner[: len(first)][first >= 0])
            offset += len(known)
        return self._weighted(np.concatenate(rows), np.concatenate(columns), len(batch.starts) - 1)

    @property
    def _lookup(self) -> Mapping[str, int]:
        cached = self.__dict__.get("_words")
        if cached is None:
            cached = self.__dict__["_words"] = {word: i for i, word in enumerate(self.words)}
        return cached

    def _weighted(self, rows: Ints, columns: Ints, num_texts: int) -> sparse.csr_matrix:
        keys, counts = np.unique(rows * self.num_features + columns, return_counts=True)
        rows, columns = np.divmod(keys, max(1, self.num_features))
        values = (1 + np.log(counts)).astype(np.float32) * self.idf[columns]
        norm = np.sqrt(np.bincount(rows, weights=values.astype(np.float64) ** 2, minlength=num_texts))
        values /= np.where(norm > 0, norm, 1)[rows].astype(np.float32)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_texts))])
        return sparse.csr_matrix((values, columns, indptr), shape=(num_texts, self.num_features))


def _named(batch: Batch) -> tuple[list[str], Ints]:
    """Distinct words of a batch, those in a negation's scope apart, and the number of each token's among them."""
    found, numbers = np.unique(batch.ids * 2 + batch.negated, return_inverse=True)
    words = batch.table.words
    names: dict[str, int] = {}  # of tokens that differ in capitals only
    made = [names.setdefault(words[key >> 1] + (NEGATED if key & 1 else ""), len(names)) for key in found.tolist()]
    return list(names), np.array(made, dtype=np.int64)[numbers] if len(found) else numbers.astype(np.int64)


def _texts_with(owner: Ints, numbers: Ints, count: int) -> Ints:
    """Texts that each number occurs in, shape (count,)."""
    if not len(numbers):
        return np.zeros(count, dtype=np.int64)
    return np.bincount(np.unique(owner * count + numbers) % count, minlength=count)


def _runs(first: Ints, words: Ints, owner: Ints, distance: int, base: int) -> Ints:
    """Key of the run that begins at each token, -1 where there is none: that of its beginning (-1: not kept) * base +
    its last word."""
    stop = max(0, len(words) - distance)
    last = words[distance:]
    is_run = (first[:stop] >= 0) & (last >= 0) & (owner[:stop] == owner[distance:])
    return np.where(is_run, first[:stop] * base + last, -1)


def _places(known: Ints, keys: Ints) -> Ints:
    """Place of each key among those known, -1: unknown."""
    if not len(known):
        return np.full(len(keys), -1, dtype=np.int64)
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, place, -1)


OF_LEXICON = ("sum", "positive", "negative", "max", "min", "last", "second half", "hits")
COUNTED = tuple(name for name in FLAGS if name != "stop")
DENSE = (
    *(f"{lexicon} {what}" for lexicon in LEXICON_COLUMNS for what in OF_LEXICON),
    *(f"number of {flag}" for flag in COUNTED),
    *(f"number of {pos}" for pos in POS),
    "tokens", "characters", "negated tokens",
)  # fmt: skip
"""Names of the dense features, in order."""


def dense(batch: Batch) -> Floats:
    """Lexicon values with their negations, counts of marks and of parts of speech; signed log(1 + x).

    Returns:
        shape (texts, len(DENSE)), not standardised.
    """
    num, owner = len(batch.starts) - 1, batch.owner
    flags = batch.table.flags
    made: list[Column] = []
    values = batch.table.values[batch.ids].astype(np.float64) if len(batch.ids) else np.zeros((0, len(LEXICON_COLUMNS)))
    turned = np.where(batch.negated, FLIP, 1.0)
    position = np.arange(len(batch.ids)) - batch.starts[:-1][owner]
    is_late = position * 2 >= batch.lengths[owner]
    for column in range(len(LEXICON_COLUMNS)):
        is_turned = LEXICON_COLUMNS[column] != "subjectivity"
        made += _of_lexicon(values[:, column] * (turned if is_turned else 1.0), owner, is_late, num)
    for name in COUNTED:
        made.append(np.bincount(owner[flags[batch.ids, FLAGS.index(name)]], minlength=num))
    pos = batch.table.pos[batch.ids] if len(batch.ids) else np.zeros(0, np.int64)
    for number in range(len(POS)):
        made.append(np.bincount(owner[pos == number], minlength=num))
    made += [batch.lengths, batch.chars, np.bincount(owner[batch.negated], minlength=num)]
    table = np.stack(made, axis=1).astype(np.float32)
    return np.sign(table) * np.log1p(np.abs(table))


def _of_lexicon(
    values: npt.NDArray[np.float64], owner: Ints, is_late: npt.NDArray[np.bool_], num: int
) -> list[npt.NDArray[Any]]:
    hit = values != 0
    values, owner, is_late = values[hit], owner[hit], is_late[hit]
    total = np.bincount(owner, values, num)
    positive = np.bincount(owner, np.maximum(values, 0), num)
    largest, smallest, last = np.zeros(num), np.zeros(num), np.zeros(num)
    np.maximum.at(largest, owner, values)
    np.minimum.at(smallest, owner, values)
    last[owner] = values  # the last one written stays
    late = np.bincount(owner[is_late], values[is_late], num)
    return [total, positive, total - positive, largest, smallest, last, late, np.bincount(owner, minlength=num)]


@dataclass(frozen=True, kw_only=True)
class Standard:
    """Columns brought to mean 0 and deviation 1, and cut at `CLIP`."""

    mean: Floats
    scale: Floats

    @classmethod
    def fit(cls, table: Floats, least: float = 0.0) -> Standard:
        """Of a table, shape (rows, columns); a deviation of less than `least` counts as that: noise stays small."""
        deviation = np.maximum(table.std(axis=0, dtype=np.float64), least)
        return cls(
            mean=table.mean(axis=0, dtype=np.float64).astype(np.float32),
            scale=np.where(deviation > 0, deviation, 1).astype(np.float32),
        )

    def transform(self, table: Floats) -> Floats:
        """The same shape."""
        made: Floats = np.clip((table - self.mean) / self.scale, -CLIP, CLIP).astype(np.float32)
        return made


def stacked(parts: Sequence[sparse.csr_matrix | Floats]) -> sparse.csr_matrix:
    """Features side by side."""
    return sparse.hstack([sparse.csr_matrix(part) for part in parts], format="csr", dtype=np.float32)
