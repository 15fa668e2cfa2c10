"""PCNN of You et al. (AAAI 2015): a network looks at its own weakly labelled training set, forgets what it doubts, and
learns on.

What is known, and how surely:
- round 1: the CNN of `you_cnn` learns all weak labels (published: abstract)
- a picture whose two probabilities are p0, p1 is dropped with probability max(0, 2 - exp|p0 - p1|) (recalled): always
  where both are 1/2, never where |p0 - p1| >= ln 2 = 0.693, that is from a larger probability of 0.847 on
- round 2: the same weights learn on, on what was kept (recalled; how long is unknown: here as long as round 1)
- then the folds of the Twitter Testing Dataset, as in `you_cnn` (published: abstract)

Ours, and said so: the weak set is what the user names (the authors' 0.5 million Flickr pictures are not published as
pictures); with three classes the difference is that of the two largest probabilities, which for two is |p0 - p1|; each
picture is drawn by a hash of seed and key, so that the list of kept keys is a file that can be made again and cited.
Report a number of this as "PCNN (re-implementation on weak set X)", never as the authors'.

    python examples/train.py --recipe you-cnn --data t4sa --out runs/cnn                          # round 1
    python examples/systems/progressive.py --model runs/cnn/best --data t4sa --out runs/pcnn      # selection, round 2

Then `runs/pcnn/best` is what `fit_predict` begins with (`init`). With `init` left out it has nothing to begin with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t4sa_data.errors import BadOption
from t4sa_data.files import write_bytes

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_BITS = 53
"""Of a float64's fraction: a draw is a whole number of 2^-53."""


def drop_probability(probabilities: npt.NDArray[Any]) -> Floats:
    """How probably each picture is dropped: max(0, 2 - exp(d)), d the two largest probabilities' difference.

    Args:
        probabilities: shape (n, K), K >= 2; each row sums to 1.

    Returns:
        shape (n,), 0 to 1.

    Raises:
        BadOption: these are no probabilities.

    >>> drop_probability(np.array([[0.5, 0.5], [0.75, 0.25], [0.1, 0.9]])).round(3).tolist()
    [1.0, 0.351, 0.0]
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    is_table = wide.ndim == 2 and wide.shape[1] >= 2
    if not is_table or not (wide >= 0).all() or not np.allclose(wide.sum(axis=1), 1, atol=1e-4):
        raise BadOption("probabilities of at least two classes, rows that sum to 1", got=f"shape {wide.shape}")
    largest = np.sort(wide, axis=1)[:, -2:]
    return np.maximum(0.0, 2.0 - np.exp(largest[:, 1] - largest[:, 0]))


def draws(keys: Sequence[str], seed: int) -> Floats:
    """A number in [0, 1) for each key: of seed and key alone, whatever else is in the set.

    >>> draws(["1-1", "2-1"], 0).tolist() == draws(["2-1", "1-1"], 0).tolist()[::-1]
    True
    """
    hashes = (hashlib.sha256(f"{seed}/{key}".encode()).digest() for key in keys)
    return np.array([(int.from_bytes(one[:8], "big") >> 64 - _BITS) * 2.0**-_BITS for one in hashes], dtype=np.float64)


def choose(probabilities: npt.NDArray[Any], keys: Sequence[str], seed: int = 0) -> Mask:
    """Which pictures stay.

    Args:
        probabilities: of the network, in evaluation; shape (n, K).
        keys: of the pictures.
        seed: of the draws; another seed keeps others.

    Returns:
        shape (n,), True for those that stay.

    Raises:
        BadOption: no probabilities, or not one row for each key.
    """
    if len(keys) != len(probabilities):
        raise BadOption("a row of probabilities for each key", expected=len(keys), got=len(probabilities))
    return draws(keys, seed) >= drop_probability(probabilities)


def write_kept(path: Path, keys: Sequence[str], kept: Mask) -> str:
    """Write the keys that stay, one a line: what `examples/train.py --keep` reads; its sha256."""
    lines = [key for key, stays in zip(keys, kept, strict=True) if stays]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_bytes(path, "".join(f"{key}\n" for key in lines).encode())
