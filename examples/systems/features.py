"""Features of pictures that depend on the picture alone: computed once, kept between folds."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from examples.systems.data import Floats, Pictures
from t4sa_data.files import write_bytes


def kept_features(
    data: Pictures, work: Path, name: str, feature: Callable[[Image.Image], Floats], *, version: int = 1
) -> Floats:
    """A feature of every picture, shape (n, D), float64; from `work/features` where it is there.

    Args:
        data: the pictures.
        work: see `protocol.Options`.
        name: of the feature.
        feature: picture -> shape (D,).
        version: bumped by hand when the feature changes.
    """
    stamp = hashlib.sha256(f"{name} {version} {data.digest}".encode()).hexdigest()[:24]
    path = work / "features" / f"{name}-{stamp}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    found = np.stack([feature(data.rgb(row)) for row in range(len(data))])
    buffer = io.BytesIO()
    np.save(buffer, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())
    return found
