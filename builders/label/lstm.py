"""A bidirectional LSTM over a tweet's tokens (PyTorch): class scores, and a document's embedding.

A token enters as the sum of its word's vector and the mean of its character n-grams' (Bojanowski et al. 2017), beside
what the lexicons say of it. Without a file of pre-trained vectors, words begin with the SVD of their positive pointwise
mutual information in the training texts (Levy & Goldberg 2014). Texts of one length make a batch: nothing is padded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from builders.label.tokens import FLAGS, LEXICON_COLUMNS, Batch, TokenTable

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

INPUT_FLAGS = ("caps", "elongated", "tag", "happy", "sad", "exclamation", "negation")
"""Of a token, beside its lexicon values and whether it stands in a negation's scope."""
LEXICON_SCALE = (0.25, 1, 1, 1, 0.5, 1)
"""What lexicon values are multiplied by, to be of about one size."""
NUM_INPUTS = len(LEXICON_COLUMNS) + len(INPUT_FLAGS) + 1
_INPUT_FLAGS = [FLAGS.index(name) for name in INPUT_FLAGS]


@dataclass(frozen=True, kw_only=True)
class LstmConfig:
    """Choices of the network and its training."""

    dim: int = 100
    """Of a word's vector."""
    hidden: int = 64
    """Of each direction."""
    embedding: int = 64
    """Of a document."""
    buckets: int = 20_000
    """That character n-grams are hashed to."""
    ngrams_per_word: int = 12
    """Most that are looked at."""
    min_texts: int = 2
    """Words in fewer texts are unknown."""
    epochs: int = 2
    """More of them are over-confident, and no better."""
    batch_size: int = 64
    lr: float = 1.5e-3
    """Largest of the one-cycle schedule (Adam)."""
    input_dropout: float = 0.2
    """Of a token's dimensions, the same for all tokens of a text."""
    output_dropout: float = 0.4
    word_dropout: float = 0.08
    """Of words, which are then unknown."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Words that have a vector; number 0 is the unknown one."""

    words: tuple[str, ...]
    config: LstmConfig

    @classmethod
    def fit(cls, batch: Batch, config: LstmConfig) -> Vocabulary:
        """Words that occur in enough texts, in alphabetical order."""
        rows, counts = np.unique(np.unique(batch.owner * len(batch.table.words) + batch.ids) % len(batch.table.words),
                                 return_counts=True)  # fmt: skip
        totals: dict[str, int] = {}
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
            word = batch.table.words[row]
            totals[word] = totals.get(word, 0) + count
        return cls(words=tuple(sorted(w for w, n in totals.items() if n >= config.min_texts)), config=config)

    def numbers(self, table: TokenTable, start: int = 0) -> tuple[Ints, Ints]:
        """Of the table's tokens from `start` on: the word's number, shape (rows,), and those of its n-grams, shape
        (rows, ngrams_per_word), 0 where there are fewer."""
        lookup = self._lookup
        words = table.words[start:]
        grams = np.zeros((len(words), self.config.ngrams_per_word), dtype=np.int64)
        for row, word in enumerate(words):
            found = ngrams(word, self.config.buckets)[: self.config.ngrams_per_word]
            grams[row, : len(found)] = found
        return np.array([lookup.get(word, 0) for word in words], dtype=np.int64), grams

    @property
    def _lookup(self) -> Mapping[str, int]:
        cached = self.__dict__.get("_numbers")
        if cached is None:
            cached = self.__dict__["_numbers"] = {word: i + 1 for i, word in enumerate(self.words)}
        return cached


def ngrams(word: str, buckets: int) -> list[int]:
    """Buckets of a word's character n-grams of 3 to 5, from 1; marks in brackets have none.

    >>> len(ngrams("good", 100)), ngrams("<url>", 100), ngrams("good", 100) == ngrams("good", 100)
    (9, [], True)
    """
    if word.startswith("<"):
        return []
    marked = f"<{word}>"
    made = [marked[i : i + size] for size in (3, 4, 5) for i in range(len(marked) - size + 1)]
    return [zlib.crc32(gram.encode("utf-8", "surrogatepass")) % buckets + 1 for gram in made]


class Network(nn.Module):  # type: ignore[misc]
    """The network.

    Args:
        num_words: with vectors, the unknown one aside.
        config: see there.
    """

    def __init__(self, num_words: int, config: LstmConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(num_words + 1, config.dim, sparse=True)
        self.grams = nn.EmbeddingBag(config.buckets + 1, config.dim, mode="mean", padding_idx=0, sparse=True)
        self.lstm = nn.LSTM(config.dim + NUM_INPUTS, config.hidden, bidirectional=True, batch_first=True)
        self.document = nn.Linear(4 * config.hidden, config.embedding)
        self.scores = nn.Linear(config.embedding, 3)

    def vectors(self, words: torch.Tensor, grams: torch.Tensor) -> torch.Tensor:
        """Of tokens: their word's vector and the mean of their n-grams', shape (..., dim)."""
        bags = self.grams(grams.reshape(-1, grams.shape[-1]))
        return self.words(words) + bags.reshape(*words.shape, -1)

    def forward(self, vectors_BTD: torch.Tensor, inputs_BTI: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class scores, shape (texts, 3), and embeddings, shape (texts, embedding)."""
        rate = self.config.input_dropout
        if self.training and rate:
            shape = (vectors_BTD.shape[0], 1, vectors_BTD.shape[2])
            vectors_BTD = vectors_BTD * (torch.rand(shape, device=vectors_BTD.device) >= rate) / (1 - rate)
        states, _ = self.lstm(torch.cat([vectors_BTD, inputs_BTI], dim=-1))
        pooled = torch.cat([states.amax(dim=1), states.mean(dim=1)], dim=-1)
        pooled = nn.functional.dropout(pooled, self.config.output_dropout, self.training)
        embedding = torch.relu(self.document(pooled))
        return self.scores(nn.functional.dropout(embedding, self.config.output_dropout / 2, self.training)), embedding


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Texts as the network reads them."""

    words: Ints
    """Number of each token, shape (tokens,)."""
    grams: npt.NDArray[np.int32]
    """Of its n-grams, shape (distinct tokens, ngrams_per_word)."""
    gram_rows: Ints
    """Row of each token in `grams`, shape (tokens,)."""
    values: Floats
    """Lexicons and flags, shape (tokens, NUM_INPUTS)."""
    starts: Ints
    """First token of each text, and the end of the last, shape (texts + 1,)."""


def inputs_of(batch: Batch, vocabulary: Vocabulary) -> Inputs:
    """Texts as the network reads them; a text without a token has one that is unknown."""
    words, grams = vocabulary.numbers(batch.table)
    found, rows = np.unique(batch.ids, return_inverse=True)
    values = token_values(batch)
    empty = np.flatnonzero(batch.lengths == 0)
    places = batch.starts[empty]
    return Inputs(
        words=np.insert(words[batch.ids], places, 0),
        grams=np.concatenate([grams[found], np.zeros((1, grams.shape[1]), np.int64)]).astype(np.int32),
        gram_rows=np.insert(rows, places, len(found)),
        values=np.insert(values, places, 0, axis=0),
        starts=np.concatenate([[0], np.cumsum(np.maximum(batch.lengths, 1))]),
    )


def token_values(batch: Batch) -> Floats:
    """Lexicons and flags of each token, shape (tokens, NUM_INPUTS)."""
    table = batch.table
    if not len(batch.ids):
        return np.zeros((0, NUM_INPUTS), dtype=np.float32)
    scale = np.array(LEXICON_SCALE, dtype=np.float32)
    parts = [table.values[batch.ids] * scale, table.flags[batch.ids][:, _INPUT_FLAGS], batch.negated[:, None]]
    return np.concatenate([part.astype(np.float32) for part in parts], axis=1)


def batches(lengths: Ints, size: int, chance: np.random.Generator | None = None) -> Iterator[Ints]:
    """Positions of texts of one length, at most `size` a batch; in a random order where chance is given.

    >>> [b.tolist() for b in batches(np.array([2, 1, 2, 2]), 2)]
    [[1], [0, 2], [3]]
    """
    order = np.argsort(lengths, kind="stable") if chance is None else chance.permutation(len(lengths))
    if chance is not None:
        order = order[np.argsort(lengths[order], kind="stable")]
    bounds = np.flatnonzero(np.diff(lengths[order])) + 1
    made = [run[i : i + size] for run in np.split(order, bounds) for i in range(0, len(run), size)]
    if chance is not None:
        chance.shuffle(made)
    yield from made


def train(
    inputs: Inputs,
    labels: Ints,
    num_words: int,
    config: LstmConfig,
    *,
    seed: int,
    rows: Ints | None = None,
    initial: Floats | None = None,
    device: str = "cpu",
) -> dict[str, Floats]:
    """Train a network; its weights. Equal on one thread, whatever else runs.

    Args:
        inputs: of all texts.
        labels: 0, 1, 2, shape (texts,).
        num_words: of the vocabulary.
        config: see there.
        seed: of initial weights, order and dropout.
        rows: texts to train on; None: all.
        initial: vectors of the words, the unknown one first, shape (num_words + 1, dim).
        device: `cpu` or a CUDA device.
    """
    torch.manual_seed(seed)
    chance = np.random.default_rng(seed)
    rows = np.arange(len(labels)) if rows is None else rows
    network = _new_network(num_words, config, initial).to(device).train()
    lengths = np.diff(inputs.starts)[rows]
    step = _stepper(network, config.epochs * sum(1 for _ in batches(lengths, config.batch_size)))
    targets, grams = torch.from_numpy(labels).to(device), torch.from_numpy(inputs.grams).to(device)
    for _ in range(config.epochs):
        for places in batches(lengths, config.batch_size, chance):
            texts = rows[places]
            tokens = inputs.starts[texts][:, None] + np.arange(int(lengths[places[0]]))
            words = torch.from_numpy(inputs.words[tokens]).to(device)
            words = words * (torch.rand(words.shape, device=device) >= config.word_dropout)
            values = torch.from_numpy(inputs.values[tokens]).to(device)
            vectors = network.vectors(words, grams[torch.from_numpy(inputs.gram_rows[tokens]).to(device)])
            scores, _ = network(vectors, values)
            step(nn.functional.cross_entropy(scores, targets[torch.from_numpy(texts).to(device)]))
    return {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}


def _new_network(num_words: int, config: LstmConfig, initial: Floats | None) -> Network:
    network = Network(num_words, config)
    with torch.no_grad():
        network.grams.weight.mul_(0.1)
        if initial is not None:
            network.words.weight.copy_(torch.from_numpy(initial))
        else:
            network.words.weight.mul_(0.3)
    return network


def _stepper(network: Network, num_steps: int) -> Callable[[torch.Tensor], None]:
    """What takes a step for a loss: Adam, one cycle of the learning rate, clipped gradients."""
    tables = [network.words.weight, network.grams.weight]  # of these, a step touches the rows of its words only
    others = [p for module in (network.lstm, network.document, network.scores) for p in module.parameters()]
    lr = network.config.lr
    optimizers = [torch.optim.SparseAdam(tables, lr=lr), torch.optim.Adam(others, lr=lr)]
    cycle = {"max_lr": lr, "total_steps": num_steps, "pct_start": 0.3, "cycle_momentum": False}
    schedules = [torch.optim.lr_scheduler.OneCycleLR(optimizer, **cycle) for optimizer in optimizers]

    def step(loss: torch.Tensor) -> None:
        network.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(others, 5.0)
        for each in (*optimizers, *schedules):
            each.step()

    return step


class Lstm:
    """A trained network with its vocabulary.

    Args:
        vocabulary: of its words.
        weights: of `train`.
        device: that it runs on.
    """

    def __init__(self, vocabulary: Vocabulary, weights: Mapping[str, Floats], device: str = "cpu") -> None:
        self.vocabulary, self.device = vocabulary, device
        self.network = Network(len(vocabulary.words), vocabulary.config)
        self.network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        self.network.to(device).eval()
        self._table: TokenTable | None = None
        self._vectors = torch.zeros(0)
        self._words: list[str] = []

    def weights(self) -> dict[str, Floats]:
        """Copies of the network's arrays, by name."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.network.state_dict().items()}

    def log_probabilities(self, batch: Batch, batch_size: int = 256) -> Floats:
        """Log-probabilities of the classes, shape (texts, 3)."""
        made: Floats = self._run(batch, batch_size)[0]
        return made

    def embeddings(self, batch: Batch, batch_size: int = 256) -> Floats:
        """Documents' embeddings, shape (texts, config.embedding)."""
        made: Floats = self._run(batch, batch_size)[1]
        return made

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _run(self, batch: Batch, batch_size: int) -> tuple[Floats, Floats]:
        vectors, values = self._vectors_of(batch.table), torch.from_numpy(token_values(batch))
        lengths = np.maximum(batch.lengths, 1)
        scores = np.zeros((len(lengths), 3), dtype=np.float32)
        embeddings = np.zeros((len(lengths), self.vocabulary.config.embedding), dtype=np.float32)
        for texts in batches(batch.lengths, batch_size):
            length = int(batch.lengths[texts[0]])
            if length:
                tokens = torch.from_numpy(batch.starts[texts][:, None] + np.arange(length))
                x, inputs = vectors[torch.from_numpy(batch.ids)[tokens]], values[tokens]
            else:
                x = vectors.new_zeros((len(texts), 1, vectors.shape[1])) + self.network.words.weight[0]
                inputs = torch.zeros((len(texts), 1, NUM_INPUTS))
            found, embedding = self.network(x.to(self.device), inputs.to(self.device))
            scores[texts] = torch.log_softmax(found, dim=-1).cpu().numpy()
            embeddings[texts] = embedding.cpu().numpy()
        return scores, embeddings

    def _vectors_of(self, table: TokenTable) -> torch.Tensor:
        """Vectors of all tokens of a table, kept from batch to batch."""
        if self._words is not table.words:
            self._words, self._vectors = table.words, torch.zeros((0, self.vocabulary.config.dim))
        start = len(self._vectors)
        if start < len(table.words):
            words, grams = self.vocabulary.numbers(table, start)
            new = self.network.vectors(torch.from_numpy(words).to(self.device), torch.from_numpy(grams).to(self.device))
            self._vectors = torch.cat([self._vectors, new.cpu()])
        return self._vectors


def initial_vectors(batch: Batch, vocabulary: Vocabulary, *, seed: int, window: int = 5) -> Floats:
    """Words by the company they keep: SVD of their positive pointwise mutual information, each word at a mean length of
    one third; the unknown word is zero.

    Args:
        batch: the training texts.
        vocabulary: words that get a vector.
        seed: of the SVD's first vector.
        window: tokens to each side; nearer ones count more (1 / distance).

    Returns:
        shape (words + 1, dim).
    """
    from scipy import sparse
    from scipy.sparse.linalg import svds

    words, _ = vocabulary.numbers(batch.table)
    numbers, owner, size = words[batch.ids], batch.owner, len(vocabulary.words) + 1
    counts: Any = sparse.csr_matrix((size, size), dtype=np.float64)
    for distance in range(1, window + 1):
        a, b = numbers[:-distance], numbers[distance:]
        together = (owner[:-distance] == owner[distance:]) & (a > 0) & (b > 0)
        weights = np.full(int(together.sum()), 1 / distance)
        counts = counts + sparse.csr_matrix((weights, (a[together], b[together])), shape=(size, size))
    counts = (counts + counts.T).tocoo()
    dim = vocabulary.config.dim
    made = np.zeros((size, dim), dtype=np.float32)
    if not counts.nnz or size <= dim + 1:
        chance = np.random.default_rng(seed)
        made[1:] = chance.normal(0, 1, (size - 1, dim)) / (3 * np.sqrt(dim))
        return made
    rows, columns = np.asarray(counts.sum(axis=1)).ravel(), np.asarray(counts.sum(axis=0)).ravel() ** 0.75
    mutual = np.log(counts.data * columns.sum() / (rows[counts.row] * columns[counts.col]))
    keep = mutual > 0
    matrix = sparse.csr_matrix((mutual[keep], (counts.row[keep], counts.col[keep])), shape=(size, size))
    first = np.random.default_rng(seed).normal(size=size)
    left, strength, _ = svds(matrix, k=dim, v0=first)
    left = left * np.where(left[np.abs(left).argmax(axis=0), np.arange(dim)] < 0, -1, 1)  # a sign is arbitrary
    vectors = left * np.sqrt(strength)
    length = np.linalg.norm(vectors, axis=1)
    made[1:] = vectors[1:] / (3 * length[1:].mean())
    return made
