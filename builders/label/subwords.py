"""Character n-grams inside words, for words that were never met: a text's row is the sum of its words' rows.

As no text's row is brought to length 1 by itself, what an SVM makes of them is a sum over words, too: of each word it
is computed once, and costs nothing when the word comes again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from builders.label.tokens import Batch, TokenTable

Floats = npt.NDArray[np.float32]

BUCKETS = 1 << 18
"""That n-grams are hashed to; of 55,000 that occur in five tweets of SemEval's, one in ten shares its bucket."""
SIZES = (2, 3, 4, 5)
MIN_TEXTS = 5
"""Texts that a bucket must occur in to count."""
SCALE = 40.0
"""A text's sum is divided by this and by the root of its number of tokens: rows come to a length of about 0.4, beside
the 1 of its words'."""


def grams(word: str) -> list[int]:
    """Distinct buckets of a word's character n-grams, with marks at its ends; marks in brackets have none.

    >>> len(grams("good")), grams("<url>"), grams("") == grams("<url>")
    (14, [], True)
    """
    if not word or word.startswith("<"):
        return []
    marked = f"<{word}>"
    found = {marked[i : i + size] for size in SIZES for i in range(len(marked) - size + 1)}
    return sorted({zlib.crc32(gram.encode("utf-8", "surrogatepass")) % BUCKETS for gram in found})


def of_words(table: TokenTable, start: int = 0) -> sparse.csr_matrix:
    """1 for each bucket of the table's tokens from `start` on, shape (rows, BUCKETS)."""
    rows = [grams(word) for word in table.words[start:]]
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.array([bucket for row in rows for bucket in row], dtype=np.int64)
    return sparse.csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(rows), BUCKETS))


@dataclass(frozen=True, kw_only=True)
class Subwords:
    """Weighted n-grams of characters."""

    idf: Floats
    """Of each bucket, 0 where it is too rare, shape (BUCKETS,)."""

    @classmethod
    def fit(cls, batch: Batch, min_texts: int = MIN_TEXTS) -> Subwords:
        """Learn the weights of buckets from the training texts."""
        texts = _counts(batch)
        texts.data[:] = 1
        found = np.bincount((texts @ of_words(batch.table)).tocsr().indices, minlength=BUCKETS)
        idf = np.log((1 + texts.shape[0]) / (1 + found)) + 1
        return cls(idf=np.where(found >= min_texts, idf, 0).astype(np.float32))

    def transform(self, batch: Batch) -> sparse.csr_matrix:
        """Of texts, shape (texts, BUCKETS): to train with; `margins` is what labelling needs."""
        weighted = of_words(batch.table) @ sparse.diags(self.idf)
        made = sparse.diags(_divisors(batch)) @ _counts(batch) @ weighted
        return sparse.csr_matrix(made, dtype=np.float32)

    def of_tokens(self, table: TokenTable, weights: Floats, start: int = 0) -> npt.NDArray[np.float64]:
        """What each token of a table from `start` on adds to the margins, shape (rows, 3).

        Args:
            table: of tokens.
            weights: of the SVM, shape (BUCKETS, 3).
            start: first token.
        """
        made: npt.NDArray[np.float64] = of_words(table, start) @ (self.idf[:, None] * weights).astype(np.float64)
        return made


def margins(batch: Batch, of_tokens: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """What its tokens add to the margins of each text, shape (texts, 3)."""
    num, owner, values = len(batch.starts) - 1, batch.owner, of_tokens[batch.ids]
    sums = np.stack([np.bincount(owner, values[:, i], num) for i in range(3)], axis=1)
    made: npt.NDArray[np.float64] = sums * _divisors(batch)[:, None]
    return made


def _counts(batch: Batch) -> sparse.csr_matrix:
    """How often each token stands in each text, shape (texts, rows of the table)."""
    shape = (len(batch.starts) - 1, len(batch.table.words))
    made = sparse.csr_matrix((np.ones(len(batch.ids), np.float32), batch.ids, batch.starts), shape=shape)
    made.sum_duplicates()
    return made


def _divisors(batch: Batch) -> npt.NDArray[np.float64]:
    made: npt.NDArray[np.float64] = 1 / (SCALE * np.sqrt(np.maximum(batch.lengths, 1)))
    return made
