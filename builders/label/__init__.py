"""The text labeller: from tweets to probabilities of negative, neutral and positive (extra `[label]`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builders.label.labeller import Labeller

__all__ = ["load_model"]


def load_model(folder: str | Path) -> Labeller:
    """The labeller of a model folder; see `builders.label.folder.load_model`. Light until it is called."""
    from builders.label.folder import load_model as load

    return load(folder)
