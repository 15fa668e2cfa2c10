"""What the tandem has to beat, under the same interface: majority, VADER's rule, an SVM on words, the LSTM alone; and
any sequence classifier of `transformers` that lies on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from builders.label import text as texts_of
from builders.label.features import Floats, Ints, Ngrams, Standard, dense, stacked
from builders.label.labeller import Labeller
from builders.label.lexicons import load_lexicons
from builders.label.linear import Calibration, fit_svm, margins, out_of_fold
from builders.label.systems import require_classes
from builders.label.tokens import Batch, TokenTable
from t4sa_data.errors import BadOption, MissingDependency, UnknownLabel

if TYPE_CHECKING:
    from builders.label.lstm import Lstm, LstmConfig

Arrays = Mapping[str, npt.NDArray[Any]]
Say = Callable[[str], object]
State = tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]


def _silent(_line: str) -> None:
    pass


def checked(texts: Sequence[str], labels: Sequence[int] | Ints) -> Ints:
    """Labels as an array, fit to train with.

    Raises:
        BadOption: as many texts as labels are needed.
        UnknownLabel: a label that is not 0, 1 or 2.
        ClassAbsent: each class is needed once at least.
    """
    y = np.asarray(labels)
    if y.shape != (len(texts),):
        raise BadOption("texts and labels do not fit", expected=f"{len(texts)} labels", got=f"shape {y.shape}")
    odd = np.flatnonzero(~np.isin(y, (0, 1, 2)))
    if len(odd):
        raise UnknownLabel("unknown label", expected="0, 1 or 2", got=y[odd[0]].item(), where=f"row {odd[0]}")
    y = y.astype(np.int64)
    require_classes(y)
    return y


def shares(labels: Ints) -> npt.NDArray[np.float64]:
    """Share of each class, shape (3,)."""
    made: npt.NDArray[np.float64] = np.bincount(labels, minlength=3) / len(labels)
    return made


class Majority(Labeller):
    """Says the training data's share of classes of every text: the floor.

    Args:
        prior: that, shape (3,).
    """

    kind = "majority"

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        return np.tile(self.prior, (len(texts), 1))

    def state(self) -> State:
        """See `Labeller`."""
        return {"prior": self.prior}, {}

    @classmethod
    def from_state(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """See `Labeller`."""
        return cls(arrays["prior"])


def train_majority(texts: Sequence[str], labels: Sequence[int] | Ints, *, say: Say = _silent) -> Majority:  # noqa: ARG001
    """Count labels. Raises: see `checked`."""
    return Majority(shares(checked(texts, labels)))


COMPOUND = 0.05
"""From here on VADER's compound score is positive, and from its opposite on negative (Hutto & Gilbert 2014)."""
VADER_CHARS = 4000
"""Of a text that VADER looks at: its time grows with the square of the length."""


@lru_cache(1)
def _analyzer() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise MissingDependency(
            "VADER is not installed", got="vaderSentiment", hint="pip install 't4sa-data[label]'"
        ) from error
    return SentimentIntensityAnalyzer()


def vader_scores(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """VADER's shares of negative, neutral, positive and its compound score, shape (texts, 4)."""
    made = [_analyzer().polarity_scores(texts_of.clean(text)[:VADER_CHARS]) for text in texts]
    return np.array([[s["neg"], s["neu"], s["pos"], s["compound"]] for s in made], dtype=np.float64).reshape(-1, 4)


class Vader(Labeller):
    """VADER (a lexicon and rules; nothing learned), its scores brought to probabilities on training data.

    Args:
        prior: share of each class there, shape (3,).
        calibration: from its four scores.
    """

    kind = "vader"

    def __init__(self, prior: Sequence[float] | npt.NDArray[Any], calibration: Calibration) -> None:
        super().__init__(prior)
        self.calibration = calibration

    @staticmethod
    def rule(texts: Sequence[str]) -> Ints:
        """Classes by its authors' thresholds of the compound score, without any training, shape (texts,)."""
        compound = vader_scores(texts)[:, 3]
        return (1 + (compound >= COMPOUND) - (compound <= -COMPOUND)).astype(np.int64)

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        return self.calibration.probabilities(vader_scores(texts))

    def state(self) -> State:
        """See `Labeller`."""
        return {"prior": self.prior, **_calibration_arrays(self.calibration)}, {}

    @classmethod
    def from_state(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """See `Labeller`."""
        return cls(arrays["prior"], _calibration(arrays))


def train_vader(texts: Sequence[str], labels: Sequence[int] | Ints, *, say: Say = _silent) -> Vader:
    """Fit the calibration: in sample, as the scores have not seen a label. Raises: see `checked`."""
    y = checked(texts, labels)
    say(f"VADER: {len(y):,} texts")
    return Vader(shares(y), Calibration.fit(vader_scores(texts), y))


def _calibration_arrays(calibration: Calibration) -> dict[str, npt.NDArray[Any]]:
    return {"calibration_weights": calibration.weights, "calibration_intercept": calibration.intercept}


def _calibration(arrays: Arrays) -> Calibration:
    return Calibration(weights=arrays["calibration_weights"], intercept=arrays["calibration_intercept"])


@dataclass(frozen=True, kw_only=True)
class SvmConfig:
    """Choices of the SVM."""

    c: float = 0.1
    folds: int = 5
    """That the calibration's margins are made in."""
    use_dense: bool = False
    """Lexicons and counts beside words."""
    dense_weight: float = 0.05


class LinearSvm(Labeller):
    """A linear SVM on runs of words, calibrated.

    Args:
        config: of its training.
        prior: share of each class in the training data, shape (3,).
        ngrams, standard, weights, intercept, calibration: what it learned.
    """

    kind = "svm"

    def __init__(
        self,
        *,
        config: SvmConfig,
        prior: Sequence[float] | npt.NDArray[Any],
        ngrams: Ngrams,
        standard: Standard,
        weights: Floats,
        intercept: Floats,
        calibration: Calibration,
    ) -> None:
        super().__init__(prior)
        self.config, self.ngrams, self.standard, self.calibration = config, ngrams, standard, calibration
        self.weights, self.intercept = weights, intercept
        self._table = TokenTable(load_lexicons())

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        features = _features(self.config, self._table.encode(texts), self.ngrams, self.standard)
        return self.calibration.probabilities(margins(features, self.weights, self.intercept))

    def state(self) -> State:
        """See `Labeller`."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "prior": self.prior,
            "pairs": self.ngrams.pairs,
            "triples": self.ngrams.triples,
            "idf": self.ngrams.idf,
            "dense_mean": self.standard.mean,
            "dense_scale": self.standard.scale,
            "weights": self.weights,
            "intercept": self.intercept,
            **_calibration_arrays(self.calibration),
        }
        return arrays, {"config": asdict(self.config), "words": list(self.ngrams.words)}

    @classmethod
    def from_state(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        """See `Labeller`."""
        words, pairs, triples = tuple(values["words"]), arrays["pairs"], arrays["triples"]
        return cls(
            config=SvmConfig(**values["config"]),
            prior=arrays["prior"],
            ngrams=Ngrams(words=words, pairs=pairs, triples=triples, idf=arrays["idf"]),
            standard=Standard(mean=arrays["dense_mean"], scale=arrays["dense_scale"]),
            weights=arrays["weights"],
            intercept=arrays["intercept"],
            calibration=_calibration(arrays),
        )


def train_svm(
    texts: Sequence[str], labels: Sequence[int] | Ints, *, config: SvmConfig | None = None, say: Say = _silent
) -> LinearSvm:
    """Train an SVM; equal input gives equal bytes. Raises: see `checked`."""
    from builders.label.tandem import folds_of

    config, y = config or SvmConfig(), checked(texts, labels)
    batch = TokenTable(load_lexicons()).encode(texts)
    ngrams, standard = Ngrams.fit(batch), Standard.fit(dense(batch))
    features = _features(config, batch, ngrams, standard)
    say(f"SVM: {features.shape[1]:,} features, {config.folds} folds")
    held_out = out_of_fold(features, y, folds_of(batch, config.folds), config.c)
    weights, intercept = fit_svm(features, y, config.c)
    return LinearSvm(
        config=config,
        prior=shares(y),
        ngrams=ngrams,
        standard=standard,
        weights=weights,
        intercept=intercept,
        calibration=Calibration.fit(held_out, y),
    )


def _features(config: SvmConfig, batch: Batch, ngrams: Ngrams, standard: Standard) -> Any:
    words = ngrams.transform(batch)
    if not config.use_dense:
        return words
    return stacked([words, standard.transform(dense(batch)) * np.float32(config.dense_weight)])


class LstmAlone(Labeller):
    """The tandem's network without the SVM: its softmax as it is, which is too sure of itself.

    Args:
        prior: share of each class in the training data, shape (3,).
        network: the trained LSTM.
    """

    kind = "lstm"

    def __init__(self, prior: Sequence[float] | npt.NDArray[Any], network: Lstm) -> None:
        super().__init__(prior)
        self.network = network
        self._table = TokenTable(load_lexicons())

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        return np.exp(self.network.log_probabilities(self._table.encode(texts)).astype(np.float64))

    def state(self) -> State:
        """See `Labeller`."""
        weights = self.network.network.state_dict()
        arrays = {f"lstm.{name}": value.detach().cpu().numpy().copy() for name, value in weights.items()}
        vocabulary = self.network.vocabulary
        return {"prior": self.prior, **arrays}, {
            "config": asdict(vocabulary.config),
            "lstm_words": list(vocabulary.words),
        }

    @classmethod
    def from_state(cls, arrays: Arrays, values: Mapping[str, Any]) -> Self:
        """See `Labeller`."""
        from builders.label import lstm

        config = lstm.LstmConfig(**values["config"])
        vocabulary = lstm.Vocabulary(words=tuple(values["lstm_words"]), config=config)
        weights = {name.removeprefix("lstm."): value for name, value in arrays.items() if name.startswith("lstm.")}
        return cls(arrays["prior"], lstm.Lstm(vocabulary, weights))


def train_lstm(
    texts: Sequence[str],
    labels: Sequence[int] | Ints,
    *,
    config: LstmConfig | None = None,
    seed: int = 0,
    device: str = "cpu",
    vectors: Mapping[str, Floats] | None = None,
    say: Say = _silent,
) -> LstmAlone:
    """Train a network on one thread; equal input and seed give equal bytes on the CPU.

    Args:
        texts: of the training data.
        labels: 0, 1, 2, shape (texts,).
        config: None: the defaults.
        seed: of initial weights, order and dropout.
        device: `cpu` or a CUDA device.
        vectors: word -> pre-trained vector of `config.dim` numbers.
        say: gets a line now and then.

    Raises:
        BadOption, ClassAbsent, UnknownLabel: see `checked`.
    """
    import torch

    from builders.label import lstm

    config, y = config or lstm.LstmConfig(), checked(texts, labels)
    batch = TokenTable(load_lexicons()).encode(texts)
    vocabulary = lstm.Vocabulary.fit(batch, config)
    say(f"LSTM: {len(vocabulary.words):,} words")
    initial = lstm.initial_vectors(batch, vocabulary, seed=seed)
    for number, word in enumerate(vocabulary.words if vectors else ()):
        if vectors and word in vectors:
            initial[number + 1] = vectors[word]
    inputs, before = lstm.inputs_of(batch, vocabulary), torch.get_num_threads()
    torch.set_num_threads(1)  # more change the bytes
    try:
        num_words = len(vocabulary.words)
        weights = lstm.train(inputs, y, num_words, config, seed=seed, initial=initial, device=device)
    finally:
        torch.set_num_threads(before)
    return LstmAlone(shares(y), lstm.Lstm(vocabulary, weights))
