"""What every labeller is: texts in, probabilities of negative, neutral and positive out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from t4sa_data.errors import BadOption

Floats = npt.NDArray[np.float32]
Prior = Literal["raw", "uniform"]
CHUNK = 8192
"""Texts that are looked at together: memory is flat over any number of them."""
MOST_KEPT = 100_000
"""Texts whose probabilities are kept from call to call, as tweets repeat (about 50 MB); then the store begins anew."""


class Labeller(ABC):
    """A labeller.

    Args:
        prior: share of each class in the training data, shape (3,).
    """

    kind: ClassVar[str]
    """Names the system in a model's description."""

    def __init__(self, prior: Sequence[float] | npt.NDArray[Any]) -> None:
        self.prior = np.asarray(prior, dtype=np.float64)
        self._kept: dict[str, npt.NDArray[np.float64]] = {}

    def predict_proba(self, texts: Sequence[str], prior: Prior = "raw") -> Floats:
        """Probabilities of negative, neutral, positive; equal texts are looked at once.

        Args:
            texts: as they come; an empty one gets what the model says of nothing.
            prior: `raw`: as learned, under the training data's share of classes (to store and to rank by); `uniform`:
                divided by it (the rule for macro recall).

        Returns:
            float32, shape (texts, 3); rows sum to 1 within 1e-6.

        Raises:
            BadOption: no such prior, or a text is not a string.
        """
        if prior not in ("raw", "uniform"):
            raise BadOption("no such prior", expected="raw | uniform", got=prior)
        if isinstance(texts, str):
            raise BadOption("one text in place of a list of texts", expected="[text]", got=texts[:40])
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise BadOption("a text is not a string", got=type(text).__name__, where=f"text {place}")
        parts = [self._chunk(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)]
        made = np.concatenate([np.zeros((0, 3)), *parts])
        if prior == "uniform":
            made = made / self.prior
        found: Floats = (made / made.sum(axis=1, keepdims=True)).astype(np.float32)
        return found

    def _chunk(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Probabilities of some texts; those that were asked for before are not looked at again, shape (texts, 3)."""
        kept = self._kept
        new = list(dict.fromkeys(text for text in texts if text not in kept))
        if len(kept) + len(new) > MOST_KEPT:
            self._kept = kept = {}
            new = list(dict.fromkeys(texts))
        if new:
            kept.update(zip(new, np.asarray(self._probabilities(new), dtype=np.float64), strict=True))
        return np.array([kept[text] for text in texts], dtype=np.float64).reshape(-1, 3)

    @abstractmethod
    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        """Under the training prior, shape (texts, 3); at most `CHUNK` distinct texts."""

    @abstractmethod
    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Arrays, and values for JSON, that `from_state` makes an equal labeller of. No text of the training data but
        its vocabulary."""

    @classmethod
    @abstractmethod
    def from_state(cls, arrays: Mapping[str, npt.NDArray[Any]], values: Mapping[str, Any]) -> Self:
        """The labeller of a `state`."""
