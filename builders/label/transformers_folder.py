"""Any sequence classifier of `transformers` that lies in a folder, as a labeller: other label sets by one command.

Nothing is fetched, and no code of the folder is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from builders.label import text as texts_of
from builders.label.labeller import Labeller
from t4sa_data.errors import BadOption, MissingDependency, ModelFolderError

CLASS_OF = {
    **dict.fromkeys(("negative", "neg", "label_0"), 0),
    **dict.fromkeys(("neutral", "neu", "label_1"), 1),
    **dict.fromkeys(("positive", "pos", "label_2"), 2),
}
"""What a model may call the classes, in any capitals."""
MAX_TOKENS = 512
"""Of a text; a tweet has at most a few hundred."""
POSITION_OFFSET = 2
"""Positions that the RoBERTa family keeps for itself: a limit of 514 means 512 tokens."""


def is_transformers_folder(folder: Path) -> bool:
    """Whether a folder holds a model of `transformers`: a `config.json` that names an architecture."""
    try:
        found = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and bool(found.get("architectures"))


class Transformers(Labeller):
    """A sequence classifier of `transformers`. Texts of one length make a batch: nothing is padded, so that a text's
    probabilities do not hang on its neighbours (to 1e-5).

    Args:
        model: an `AutoModelForSequenceClassification`.
        tokenizer: its tokenizer.
        columns: where negative, neutral and positive stand among its classes.
        prior: share of each class in its training data; None: not known, taken as equal, so that `uniform` is `raw`.
        batch_size: texts of a batch, at most.
        device: that it runs on.
    """

    kind = "transformers"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        columns: Sequence[int],
        *,
        prior: Sequence[float] | None = None,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        super().__init__([1 / 3] * 3 if prior is None else prior)
        if batch_size < 1:
            raise BadOption("no such batch size", expected="at least 1", got=batch_size)
        self.model, self.tokenizer, self.columns = model.to(device).eval(), tokenizer, list(columns)
        self.batch_size, self.device = batch_size, device
        positions = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS + POSITION_OFFSET
        self._max_tokens = min(MAX_TOKENS, tokenizer.model_max_length, positions - POSITION_OFFSET)

    @classmethod
    def from_folder(cls, folder: Path, **options: Any) -> Self:
        """Load a model and its tokenizer.

        Args:
            folder: as `save_pretrained` wrote it.
            options: of the class.

        Raises:
            MissingDependency: `transformers` or torch is not installed.
            ModelFolderError: no such model, one that has other classes, or one that needs code of its own.
        """
        folder = Path(folder)
        if not is_transformers_folder(folder):
            raise ModelFolderError(
                "no model of transformers", expected="a config.json that names an architecture", where=folder
            )
        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise MissingDependency(
                "transformers is not installed", where=folder, hint="pip install transformers"
            ) from error
        columns = columns_of(json.loads((folder / "config.json").read_text(encoding="utf-8")), folder)
        options_of_both: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **options_of_both)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder, output_loading_info=True, **options_of_both
            )
        except Exception as error:  # of many kinds: missing or broken files, unknown architectures
            raise ModelFolderError(
                "transformers cannot load the model", got=f"{type(error).__name__}: {error}", where=folder
            ) from error
        missing = sorted(report["missing_keys"])
        if missing:  # transformers fills them with random numbers, and only warns
            raise ModelFolderError("weights are missing from the model", got=", ".join(missing[:3]), where=folder)
        return cls(model, tokenizer, columns, **options)

    def _probabilities(self, texts: list[str]) -> npt.NDArray[np.float64]:
        import torch

        from builders.label.lstm import batches

        cleaned = [texts_of.clean(text) for text in texts]
        # By hand: a tokenizer without a known limit warns for each long text.
        encoded = (
            self.tokenizer(cleaned, truncation=True, max_length=self._max_tokens) if cleaned else {"input_ids": []}
        )
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)
        made = np.zeros((len(texts), 3))
        with torch.inference_mode():
            for places in batches(lengths, self.batch_size):
                if not lengths[places[0]]:  # no token at all: nothing to say of it
                    made[places] = self.prior
                    continue
                given = {
                    name: torch.tensor([rows[i] for i in places.tolist()], device=self.device)
                    for name, rows in encoded.items()
                }
                scores = self.model(**given).logits.double()
                made[places] = torch.softmax(scores, dim=-1)[:, self.columns].cpu().numpy()
        return made

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Raises: BadOption: such a model stays in its own folder."""
        raise BadOption(
            "a model of transformers is not saved here: it stays in its own folder",
            hint="Give that folder to `t4sa label run` as it is.",
        )

    @classmethod
    def from_state(cls, arrays: Mapping[str, npt.NDArray[Any]], values: Mapping[str, Any]) -> Self:  # noqa: ARG003
        """Raises: BadOption: see `state`."""
        raise BadOption("a model of transformers has no state here", hint="Use Transformers.from_folder(folder).")


def columns_of(config: Mapping[str, Any], folder: Path) -> list[int]:
    """Where negative, neutral and positive stand among a model's classes.

    Args:
        config: of the model, read from JSON.
        folder: for the error.

    Raises:
        ModelFolderError: other names, or not three of them.

    >>> columns_of({"id2label": {"0": "POS", "1": "neg", "2": "Neutral"}}, Path("m"))
    [1, 2, 0]
    """
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers takes without
    try:
        classes = {CLASS_OF[str(name).lower()]: int(number) for number, name in names.items()}
    except (KeyError, ValueError, AttributeError):
        classes = {}
    if len(names) != 3 or sorted(classes) != [0, 1, 2] or sorted(classes.values()) != [0, 1, 2]:
        raise ModelFolderError(
            "the model's classes are not the three of T4SA",
            expected="negative, neutral, positive (or neg, neu, pos, or LABEL_0, LABEL_1, LABEL_2) in id2label",
            got=names,
            where=folder / "config.json",
            hint="Where the names only are others, change them in config.json.",
        )
    return [classes[number] for number in range(3)]
