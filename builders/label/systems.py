"""Every labeller by the name of its kind: where it is, and how it is trained. Nothing is imported before it is asked
for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from t4sa_data.errors import BadOption, ClassAbsent, MissingDependency

if TYPE_CHECKING:
    from builders.label.labeller import Labeller

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Say = Callable[[str], object]
CLASSES = ("negative", "neutral", "positive")
MEAN_LENGTH = 1 / 3
"""That pre-trained vectors are brought to: that of the ones made from the texts, which stand beside them."""


@dataclass(frozen=True, kw_only=True)
class System:
    """A kind of labeller."""

    path: str
    """`module:class` of the `Labeller`."""
    trainer: str = ""
    """`module:function`; empty: it is not trained here."""
    takes: tuple[str, ...] = ()
    """Of `seed`, `workers`, `device`, `vectors`: what the training can use."""
    reads_lexicons: bool = True
    """Whether its tokens hang on the lexicons that are installed."""


SYSTEMS: Mapping[str, System] = {
    "tandem": System(
        path="builders.label.tandem:Tandem",
        trainer="builders.label.systems:_tandem",
        takes=("seed", "workers", "device", "vectors"),
    ),
    "svm": System(path="builders.label.baselines:LinearSvm", trainer="builders.label.systems:_svm"),
    "lstm": System(
        path="builders.label.baselines:LstmAlone",
        trainer="builders.label.systems:_lstm",
        takes=("seed", "device", "vectors"),
    ),
    "majority": System(
        path="builders.label.baselines:Majority",
        trainer="builders.label.baselines:train_majority",
        reads_lexicons=False,
    ),
    "vader": System(path="builders.label.baselines:Vader", trainer="builders.label.baselines:train_vader"),
    "transformers": System(path="builders.label.transformers_folder:Transformers", reads_lexicons=False),
}


def names() -> tuple[str, ...]:
    """Kinds that can be trained."""
    return tuple(kind for kind, system in SYSTEMS.items() if system.trainer)


def labeller_class(kind: str) -> type[Labeller]:
    """The class of a kind.

    Raises:
        BadOption: no such kind.
        MissingDependency: a package that it needs is not installed.
    """
    found: type[Labeller] = _found(_system(kind).path)
    return found


def train_system(
    kind: str,
    texts: Sequence[str],
    labels: Sequence[int] | Ints,
    *,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
    vectors: Mapping[str, Floats] | None = None,
    say: Say = lambda _line: None,
) -> Labeller:
    """Train a labeller, everything on one thread: equal input and seed give equal bytes, whatever the machine's cores.

    Args:
        kind: one of `names()`.
        texts: of the training data.
        labels: 0, 1, 2, shape (texts,).
        seed: of whatever is drawn.
        workers: processes, where the kind can use them; no change of the result.
        device: `cpu`, or a CUDA device, where the kind can use it.
        vectors: word -> pre-trained vector, all of one length; the network's words follow it.
        say: gets a line now and then.

    Raises:
        BadOption: no such kind or device, or an option that it cannot use.
        ClassAbsent: a class is missing, or would be in a fold: told before any training.
    """
    system = _system(kind)
    if not system.trainer:
        raise BadOption("this system is not trained here", expected=" | ".join(names()), got=kind)
    for name, is_given in (("device", device != "cpu"), ("vectors", bool(vectors))):
        if is_given and name not in system.takes:
            raise BadOption(f"`{kind}` has no use for {name}", hint="Leave it out, or choose `tandem`.")
    numbers = np.asarray(labels, dtype=np.int64)
    require_classes(numbers)
    options = {"seed": seed, "workers": workers, "device": device, "vectors": scaled(vectors) if vectors else None}
    _require_device(device)
    train = _found(system.trainer)
    for name in (system.path.split(":")[0], "scipy.sparse.linalg", "sklearn.linear_model", "sklearn.svm"):
        import_module(name)  # `one_thread` binds what is there
    with one_thread():
        made: Labeller = train(texts, numbers, **{name: options[name] for name in system.takes}, say=say)
    return made


def require_classes(labels: Ints) -> None:
    """See to it that each class is there.

    Raises:
        ClassAbsent: one is not.
    """
    counts = np.bincount(labels, minlength=3)
    if absent := [name for name, count in zip(CLASSES, counts, strict=True) if not count]:
        only = " (a file of a single class)" if len(absent) == 2 else ""
        raise ClassAbsent(
            f"no text of the class {' or '.join(absent)}{only}",
            expected="texts of negative, neutral and positive",
            got=", ".join(f"{count:,} {name}" for name, count in zip(CLASSES, counts, strict=True)),
        )


def _require_device(device: str) -> None:
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadOption("no such device here", expected="cpu, or cuda where there is one", got=device) from error


def scaled(vectors: Mapping[str, Floats]) -> dict[str, Floats]:
    """Vectors of a mean length of `MEAN_LENGTH`, their proportions as they were.

    >>> made = scaled({"a": np.float32([3, 4]), "b": np.zeros(2)})
    >>> {word: round(float(np.linalg.norm(vector)), 3) for word, vector in made.items()}
    {'a': 0.667, 'b': 0.0}
    """
    lengths = [float(np.linalg.norm(vector)) for vector in vectors.values()]
    mean = sum(lengths) / len(lengths)
    factor = np.float32(MEAN_LENGTH / mean if mean > 0 else 1)
    return {word: np.asarray(vector, dtype=np.float32) * factor for word, vector in vectors.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS, OpenMP and torch: sums of other threads differ in their last bits. Of what is imported
    already; import first."""
    from threadpoolctl import threadpool_limits  # of scikit-learn

    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(1))
        if (torch := sys.modules.get("torch")) is not None:  # three seconds to import, which not every kind needs
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield


def _system(kind: str) -> System:
    if kind not in SYSTEMS:
        raise BadOption("no such system", expected=" | ".join(SYSTEMS), got=kind)
    return SYSTEMS[kind]


def _found(path: str) -> Any:
    module, name = path.split(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "the labeller's packages are not installed", got=error.name, hint="pip install 't4sa-data[label]'"
        ) from error


def _tandem(
    texts: Sequence[str], labels: Ints, *, seed: int, vectors: Mapping[str, Floats] | None, **further: Any
) -> Labeller:
    from builders.label.tandem import TandemConfig, train_tandem

    config = TandemConfig(lstm=_network(vectors), seed=seed)
    _require_trainable(texts, labels, config.folds)
    return train_tandem(texts, labels, config=config, vectors=vectors, **further)


def _svm(texts: Sequence[str], labels: Ints, *, say: Say) -> Labeller:
    from builders.label.baselines import SvmConfig, train_svm

    config = SvmConfig()
    _require_trainable(texts, labels, config.folds)
    return train_svm(texts, labels, config=config, say=say)


def _lstm(texts: Sequence[str], labels: Ints, *, vectors: Mapping[str, Floats] | None, **further: Any) -> Labeller:
    from builders.label.baselines import train_lstm

    return train_lstm(texts, labels, config=_network(vectors), vectors=vectors, **further)


def _network(vectors: Mapping[str, Floats] | None) -> Any:
    """The network's defaults, its words as wide as the vectors."""
    from builders.label.lstm import LstmConfig

    return LstmConfig(dim=len(next(iter(vectors.values())))) if vectors else LstmConfig()


def _require_trainable(texts: Sequence[str], labels: Ints, folds: int) -> None:
    from builders.label.lexicons import load_lexicons
    from builders.label.tandem import folds_of
    from builders.label.tokens import TokenTable

    require_folds(labels, folds_of(TokenTable(load_lexicons()).encode(texts), folds))


def require_folds(labels: Ints, folds: Ints) -> None:
    """See to it that each class is there whichever fold is left out.

    Raises:
        ClassAbsent: all texts of one stand in the same fold (equal texts always do).
    """
    for number, name in enumerate(CLASSES):
        if len(np.unique(folds[labels == number])) < 2:
            raise ClassAbsent(
                f"too few different texts of the class {name}",
                expected="texts in two folds at least",
                got=f"{int((labels == number).sum())} text(s), all in one fold",
                hint="Some dozens of different texts of each class are the least that a tandem can be trained on.",
            )
