"""The tandem LSTM-SVM (after Cimino & Dell'Orletta 2016): an SVM over words, lexicons and what an LSTM says of a text.

For training, the SVM sees the LSTM's word on each text from a network that was not trained on it (out of fold): from
one that was, it learns to trust it far too much, and its probabilities are worth nothing (a test holds that). Passed on
are log-probabilities, not embeddings: those of different networks live in different spaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from builders.label import lstm, subwords
from builders.label.features import Floats, Ints, Ngrams, Standard, dense, stacked
from builders.label.labeller import Labeller
from builders.label.lexicons import load_lexicons
from builders.label.linear import Calibration, fit_svm, out_of_fold
from builders.label.tokens import Batch, TokenTable

LEAST_DEVIATION = 0.1
"""Of log-probabilities that are standardised: networks that learned nothing say nearly the same of every text."""


@dataclass(frozen=True, kw_only=True)
class TandemConfig:
    """Choices of the tandem and its training."""

    lstm: lstm.LstmConfig = field(default_factory=lstm.LstmConfig)
    folds: int = 5
    """That the LSTM's word on the training texts is made in."""
    networks: int = 2
    """Of different seeds, whose probabilities are averaged."""
    c: float = 0.15
    """Of the SVM."""
    dense_weight: float = 0.05
    """Of lexicons and counts beside words."""
    lstm_weight: float = 0.3
    """Of the LSTM's standardised log-probabilities beside words; from 0.1 to 1 it makes no difference."""
    seed: int = 0
    use_lstm: bool = True
    use_ngrams: bool = True
    use_subwords: bool = True
    use_dense: bool = True
    is_leaking: bool = False
    """For the ablation only: the LSTM's word on a text from a network that was trained on it."""


class Tandem(Labeller):
    """A trained tandem.

    Args:
        config: of its training.
        prior: share of each class in the training data, shape (3,).
        ngrams, subwords, standard, weights, intercept, calibration: of the SVM; weights of the subwords come last.
        networks: the LSTMs; none: without.
        log_standard: of their log-probabilities.
    """

    kind = "tandem"

    def __init__(
        self,
        *,
        config: TandemConfig,
        prior: Sequence[float] | npt.NDArray[Any],
        ngrams: Ngrams,
        subwords: subwords.Subwords,
        standard: Standard,
        weights: Floats,
        intercept: Floats,
        calibration: Calibration,
        networks: Sequence[lstm.Lstm],
        log_standard: Standard,
    ) -> None:
        super().__init__(prior)
        self.config, self.ngrams, self.standard, self.networks = config, ngrams, standard, tuple(networks)
        self.weights, self.intercept, self.calibration = weights, intercept, calibration
        self.subwords, self.log_standard = subwords, log_standard
        self._table = TokenTable(load_lexicons())
        self._words, self._of_tokens = self._table.words, np.zeros((0, 3))
        # Once: the product with a sparse table wants its rows one behind the other.
        self._by_feature = np.ascontiguousarray(weights.T)

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        batch = self._table.encode(texts)
        logs = _log_mean([one.log_probabilities(batch) for one in self.networks]) if self.networks else None
        made, at = np.tile(self.intercept.astype(np.float64), (len(batch.starts) - 1, 1)), 0
        for part in _parts(self.config, batch, self.ngrams, self.standard, logs, self.log_standard):
            made += part @ self._by_feature[at : at + part.shape[1]]
            at += part.shape[1]
        if self.config.use_subwords:
            made += subwords.margins(batch, self._subword_margins(self._by_feature[at:]))
        return self.calibration.probabilities(made)

    def _subword_margins(self, weights: Floats) -> npt.NDArray[np.float64]:
        """What each token of the table adds, kept from batch to batch."""
        if self._words is not self._table.words:
            self._words, self._of_tokens = self._table.words, np.zeros((0, 3))
        start = len(self._of_tokens)
        if start < len(self._words):
            new = self.subwords.of_tokens(self._table, weights, start)
            self._of_tokens = np.concatenate([self._of_tokens, new])
        return self._of_tokens

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """See `Labeller`."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "prior": self.prior,
            "pairs": self.ngrams.pairs,
            "triples": self.ngrams.triples,
            "idf": self.ngrams.idf,
            "subword_idf": self.subwords.idf,
            "dense_mean": self.standard.mean,
            "dense_scale": self.standard.scale,
            "log_mean": self.log_standard.mean,
            "log_scale": self.log_standard.scale,
            "weights": self.weights,
            "intercept": self.intercept,
            "calibration_weights": self.calibration.weights,
            "calibration_intercept": self.calibration.intercept,
        }
        values: dict[str, Any] = {"config": asdict(self.config), "words": list(self.ngrams.words), "lstm_words": []}
        for number, one in enumerate(self.networks):
            values["lstm_words"] = list(one.vocabulary.words)
            arrays |= {f"lstm{number}.{name}": array for name, array in one.weights().items()}
        return arrays, values

    @classmethod
    def from_state(cls, arrays: Mapping[str, npt.NDArray[Any]], values: Mapping[str, Any]) -> Self:
        """See `Labeller`."""
        config = TandemConfig(**{**values["config"], "lstm": lstm.LstmConfig(**values["config"]["lstm"])})
        networks = []
        for number in range(config.networks if config.use_lstm else 0):
            begin = f"lstm{number}."
            weights = {name.removeprefix(begin): array for name, array in arrays.items() if name.startswith(begin)}
            vocabulary = lstm.Vocabulary(words=tuple(values["lstm_words"]), config=config.lstm)
            networks.append(lstm.Lstm(vocabulary, weights))
        words, pairs, triples = tuple(values["words"]), arrays["pairs"], arrays["triples"]
        return cls(
            config=config,
            prior=arrays["prior"],
            ngrams=Ngrams(words=words, pairs=pairs, triples=triples, idf=arrays["idf"]),
            subwords=subwords.Subwords(idf=arrays["subword_idf"]),
            standard=Standard(mean=arrays["dense_mean"], scale=arrays["dense_scale"]),
            log_standard=Standard(mean=arrays["log_mean"], scale=arrays["log_scale"]),
            weights=arrays["weights"],
            intercept=arrays["intercept"],
            calibration=Calibration(weights=arrays["calibration_weights"], intercept=arrays["calibration_intercept"]),
            networks=networks,
        )


def _log_mean(logs: Sequence[Floats]) -> Floats:
    """Logarithm of the mean of probabilities that are given by theirs, shape (texts, 3)."""
    made: Floats = np.log(np.mean([np.exp(one) for one in logs], axis=0)).astype(np.float32)
    return made


def _parts(
    config: TandemConfig,
    batch: Batch,
    ngrams: Ngrams,
    standard: Standard,
    logs: Floats | None,
    log_standard: Standard,
) -> list[sparse.csr_matrix | Floats]:
    """What the SVM sees beside subwords, side by side."""
    made: list[sparse.csr_matrix | Floats] = [ngrams.transform(batch)] if config.use_ngrams else []
    if config.use_dense:
        made.append(standard.transform(dense(batch)) * np.float32(config.dense_weight))
    if logs is not None:
        made.append(log_standard.transform(logs) * np.float32(config.lstm_weight))
    return made


def folds_of(batch: Batch, count: int) -> Ints:
    """A fold for each text, by a hash of its words: texts that say the same stand in one, shape (texts,)."""
    words, made = batch.table.words, []
    for start, stop in zip(batch.starts[:-1].tolist(), batch.starts[1:].tolist(), strict=True):
        said = " ".join(word for word in (words[i] for i in batch.ids[start:stop].tolist()) if word[:1].isalpha())
        made.append(int.from_bytes(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest()[:8], "big") % count)
    return np.array(made, dtype=np.int64)


def train_tandem(
    texts: Sequence[str],
    labels: Sequence[int] | Ints,
    *,
    config: TandemConfig | None = None,
    workers: int = 1,
    device: str = "cpu",
    vectors: Mapping[str, Floats] | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> Tandem:
    """Train a tandem. Equal input, config and library versions give equal bytes, for any number of workers.

    Args:
        texts: of the training data; enough of each class for every fold.
        labels: 0, 1, 2, shape (texts,).
        config: None: the defaults.
        workers: processes that networks are trained in, each on one thread.
        device: `cpu`, or a CUDA device (then in this process, and equal within noise only).
        vectors: word -> pre-trained vector of `config.lstm.dim` numbers; None: made from the texts.
        say: gets a line now and then.
    """
    config = config or TandemConfig()
    labels = np.asarray(labels, dtype=np.int64)
    batch = TokenTable(load_lexicons()).encode(texts)
    folds = folds_of(batch, config.folds)
    ngrams = Ngrams.fit(batch)
    table = dense(batch)
    standard = Standard.fit(table)
    networks, logs = list[lstm.Lstm](), None
    if config.use_lstm:
        networks, logs = _train_networks(batch, labels, folds, config, workers, device, vectors, say)
    log_standard = Standard.fit(logs if logs is not None else np.zeros((1, 3), np.float32), LEAST_DEVIATION)
    parts = _parts(config, batch, ngrams, standard, logs, log_standard)
    of_words = subwords.Subwords.fit(batch)
    features = stacked([*parts, *([of_words.transform(batch)] if config.use_subwords else [])])
    say(f"SVM: {features.shape[1]:,} features, {config.folds} folds")
    held_out = out_of_fold(features, labels, folds, config.c)
    weights, intercept = fit_svm(features, labels, config.c)
    return Tandem(
        config=config,
        prior=np.bincount(labels, minlength=3) / len(labels),
        ngrams=ngrams,
        subwords=of_words,
        standard=standard,
        weights=weights,
        intercept=intercept,
        calibration=Calibration.fit(held_out, labels),
        networks=networks,
        log_standard=log_standard,
    )


def _train_networks(
    batch: Batch,
    labels: Ints,
    folds: Ints,
    config: TandemConfig,
    workers: int,
    device: str,
    vectors: Mapping[str, Floats] | None,
    say: Callable[[str], object],
) -> tuple[list[lstm.Lstm], Floats]:
    """The networks on all texts, and log-probabilities of each text by some that were not trained on it."""
    vocabulary = lstm.Vocabulary.fit(batch, config.lstm)
    initial = lstm.initial_vectors(batch, vocabulary, seed=config.seed)
    for number, word in enumerate(vocabulary.words if vectors else ()):
        if vectors and word in vectors:
            initial[number + 1] = vectors[word]
    held = [None, *(range(config.folds) if not config.is_leaking else ())]
    jobs = [(config.seed + number, fold) for fold in held for number in range(config.networks)]
    say(f"LSTM: {len(vocabulary.words):,} words, {len(jobs)} networks")
    shared = (lstm.inputs_of(batch, vocabulary), labels, folds, len(vocabulary.words), config.lstm, initial, device)
    trained = _train_all(shared, jobs, workers if device == "cpu" else 1)
    of_all = [lstm.Lstm(vocabulary, weights) for weights in trained[: config.networks]]
    if config.is_leaking:
        return of_all, _log_mean([one.log_probabilities(batch) for one in of_all])
    logs = np.zeros((len(labels), 3), dtype=np.float32)
    for fold in range(config.folds):
        at = (fold + 1) * config.networks
        unseen = [lstm.Lstm(vocabulary, weights) for weights in trained[at : at + config.networks]]
        logs[folds == fold] = _log_mean([one.log_probabilities(batch) for one in unseen])[folds == fold]
    return of_all, logs


def _train_all(shared: tuple[Any, ...], jobs: list[tuple[int, int | None]], workers: int) -> list[dict[str, Floats]]:
    """Weights of a network a job (seed, fold that it does not see)."""
    if workers < 2:
        return [_train_one(shared, job) for job in jobs]
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_share, initargs=shared) as pool:
        return list(pool.map(_train_shared, jobs))


_SHARED: list[Any] = []


def _share(*shared: Any) -> None:
    _SHARED[:] = shared


def _train_shared(job: tuple[int, int | None]) -> dict[str, Floats]:
    return _train_one(tuple(_SHARED), job)


def _train_one(shared: tuple[Any, ...], job: tuple[int, int | None]) -> dict[str, Floats]:
    """One network on one thread: more change its bytes."""
    import torch

    inputs, labels, folds, num_words, config, initial, device = shared
    seed, fold = job
    rows = None if fold is None else np.flatnonzero(folds != fold)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return lstm.train(inputs, labels, num_words, config, seed=seed, rows=rows, initial=initial, device=device)
    finally:
        torch.set_num_threads(before)
