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

from builders.label import lstm
from builders.label.features import Floats, Ints, Ngrams, Standard, dense, stacked
from builders.label.labeller import Labeller
from builders.label.lexicons import load_lexicons
from builders.label.linear import Calibration, fit_svm, out_of_fold
from builders.label.tokens import Batch, TokenTable


@dataclass(frozen=True, kw_only=True)
class TandemConfig:
    """Choices of the tandem and its training."""

    lstm: lstm.LstmConfig = field(default_factory=lstm.LstmConfig)
    folds: int = 5
    """That the LSTM's word on the training texts is made in."""
    c: float = 0.1
    """Of the SVM."""
    dense_weight: float = 0.05
    """Of lexicons and counts beside words."""
    lstm_weight: float = 0.3
    """Of the LSTM's standardised log-probabilities beside words; from 0.1 to 1 it makes no difference."""
    seed: int = 0
    use_lstm: bool = True
    use_ngrams: bool = True
    use_dense: bool = True
    is_leaking: bool = False
    """For the ablation only: the LSTM's word on a text from a network that was trained on it."""


class Tandem(Labeller):
    """A trained tandem.

    Args:
        config: of its training.
        prior: share of each class in the training data, shape (3,).
        ngrams, standard, weights, intercept, calibration: of the SVM.
        network: the LSTM; None: without.
        log_standard: of its log-probabilities.
    """

    kind = "tandem"

    def __init__(
        self,
        *,
        config: TandemConfig,
        prior: Sequence[float] | npt.NDArray[Any],
        ngrams: Ngrams,
        standard: Standard,
        weights: Floats,
        intercept: Floats,
        calibration: Calibration,
        network: lstm.Lstm | None,
        log_standard: Standard,
    ) -> None:
        super().__init__(prior)
        self.config, self.ngrams, self.standard, self.network = config, ngrams, standard, network
        self.weights, self.intercept, self.calibration = weights, intercept, calibration
        self.log_standard = log_standard
        self._table = TokenTable(load_lexicons())
        # Once: the product with a sparse table wants its rows one behind the other.
        self._by_feature = np.ascontiguousarray(weights.T)

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        batch = self._table.encode(texts)
        logs = self.network.log_probabilities(batch) if self.network is not None else None
        return self.calibration.probabilities(self._scores(batch, logs))

    def _scores(self, batch: Batch, logs: Floats | None) -> npt.NDArray[np.float64]:
        """The SVM's margins and the LSTM's log-probabilities, shape (texts, 3 or 6)."""
        made, at = np.tile(self.intercept.astype(np.float64), (len(batch.starts) - 1, 1)), 0
        for part in _parts(self.config, batch, self.ngrams, self.standard, logs, self.log_standard):
            made += part @ self._by_feature[at : at + part.shape[1]]
            at += part.shape[1]
        return made if logs is None else np.concatenate([made, logs], axis=1)

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """See `Labeller`."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "prior": self.prior,
            "pairs": self.ngrams.pairs,
            "triples": self.ngrams.triples,
            "idf": self.ngrams.idf,
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
        if self.network is not None:
            values["lstm_words"] = list(self.network.vocabulary.words)
            state = self.network.network.state_dict()
            arrays |= {f"lstm.{name}": value.detach().cpu().numpy().copy() for name, value in state.items()}
        return arrays, values

    @classmethod
    def from_state(cls, arrays: Mapping[str, npt.NDArray[Any]], values: Mapping[str, Any]) -> Self:
        """See `Labeller`."""
        config = TandemConfig(**{**values["config"], "lstm": lstm.LstmConfig(**values["config"]["lstm"])})
        network = None
        if config.use_lstm:
            weights = {name.removeprefix("lstm."): a for name, a in arrays.items() if name.startswith("lstm.")}
            vocabulary = lstm.Vocabulary(words=tuple(values["lstm_words"]), config=config.lstm)
            network = lstm.Lstm(vocabulary, weights)
        words, pairs, triples = tuple(values["words"]), arrays["pairs"], arrays["triples"]
        return cls(
            config=config,
            prior=arrays["prior"],
            ngrams=Ngrams(words=words, pairs=pairs, triples=triples, idf=arrays["idf"]),
            standard=Standard(mean=arrays["dense_mean"], scale=arrays["dense_scale"]),
            log_standard=Standard(mean=arrays["log_mean"], scale=arrays["log_scale"]),
            weights=arrays["weights"],
            intercept=arrays["intercept"],
            calibration=Calibration(weights=arrays["calibration_weights"], intercept=arrays["calibration_intercept"]),
            network=network,
        )


def _parts(
    config: TandemConfig,
    batch: Batch,
    ngrams: Ngrams,
    standard: Standard,
    logs: Floats | None,
    log_standard: Standard,
) -> list[sparse.csr_matrix | Floats]:
    """What the SVM sees, side by side."""
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
    network, logs = None, None
    if config.use_lstm:
        network, logs = _train_networks(batch, labels, folds, config, workers, device, vectors, say)
    log_standard = Standard.fit(logs if logs is not None else np.zeros((1, 3), np.float32))
    features = stacked(_parts(config, batch, ngrams, standard, logs, log_standard))
    say(f"SVM: {features.shape[1]:,} features, {config.folds} folds")
    held_out = out_of_fold(features, labels, folds, config.c)
    weights, intercept = fit_svm(features, labels, config.c)
    scores = held_out if logs is None else np.concatenate([held_out, logs], axis=1)
    return Tandem(
        config=config,
        prior=np.bincount(labels, minlength=3) / len(labels),
        ngrams=ngrams,
        standard=standard,
        weights=weights,
        intercept=intercept,
        calibration=Calibration.fit(scores, labels),
        network=network,
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
) -> tuple[lstm.Lstm, Floats]:
    """The network on all texts, and log-probabilities of each text by one that was not trained on it."""
    vocabulary = lstm.Vocabulary.fit(batch, config.lstm)
    say(f"LSTM: {len(vocabulary.words):,} words, {config.folds + 1} networks")
    initial = lstm.initial_vectors(batch, vocabulary, seed=config.seed)
    for number, word in enumerate(vocabulary.words if vectors else ()):
        if vectors and word in vectors:
            initial[number + 1] = vectors[word]
    inputs = lstm.inputs_of(batch, vocabulary)
    jobs = [None, *(np.flatnonzero(folds != fold) for fold in range(config.folds) if not config.is_leaking)]
    arguments = [
        (inputs, labels, len(vocabulary.words), config.lstm, config.seed, rows, initial, device) for rows in jobs
    ]
    if workers > 1 and device == "cpu":
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            trained = list(pool.map(_train_one, arguments))
    else:
        trained = [_train_one(one) for one in arguments]
    network = lstm.Lstm(vocabulary, trained[0])
    if config.is_leaking:
        return network, network.log_probabilities(batch)
    logs = np.zeros((len(labels), 3), dtype=np.float32)
    for fold, weights in enumerate(trained[1:]):
        found = lstm.Lstm(vocabulary, weights).log_probabilities(batch)
        logs[folds == fold] = found[folds == fold]
    return network, logs


def _train_one(arguments: tuple[Any, ...]) -> dict[str, Floats]:
    """One network on one thread: more change its bytes."""
    import torch

    inputs, labels, num_words, config, seed, rows, initial, device = arguments
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return lstm.train(inputs, labels, num_words, config, seed=seed, rows=rows, initial=initial, device=device)
    finally:
        torch.set_num_threads(before)
