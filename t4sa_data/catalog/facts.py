"""A statement with its source and how sure we are of it."""

from dataclasses import dataclass
from typing import Any, Literal

Certainty = Literal["published", "computed", "inferred", "recalled", "unknown"]
"""published: stands in the named source (read there, or quoted from it by the named reader);
computed: arithmetic on published values; inferred: a conclusion that fits the evidence;
recalled: handed down, not re-read; unknown: not found."""

PAPER = "Vadicamo et al., ICCVW 2017, pp. 308-317, doi 10.1109/ICCVW.2017.45"
PAGE = "T4SA page, http://www.t4sa.it"
CAPSTONE = "Baskaran, capstone report (Keras retraining of the paper's VGG-19 models), July 2018"
CONVERTED = "README and code of github.com/fabiocarrara/visual-sentiment-analysis (the authors' PyTorch conversion)"
SERRA = 'notebook "Predict images with original paper models", github.com/codiceSpaghetti/T4SA-2.0'


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One statement about T4SA."""

    value: Any
    """The statement's value; None when certainty is "unknown"."""
    source: str
    """Where it stands, or what it was computed from."""
    certainty: Certainty
    """How far to trust it."""
    note: str = ""
    """What a reader must know before using it."""
