"""GCH and LCH: global and local colour histograms, then `linear`.

GCH: 4 levels of each of R, G, B, joint histogram of 64 bins. LCH: the same in each cell of a 4 x 4 grid, 1,024 bins.
Siersdorfer et al. (ACM MM 2010), baselines of You et al. (AAAI 2015) [recalled: 64 bins and the grid; the numbers of
the two rows are You et al.'s]. Histograms sum to 1. Pixels as they are, no resizing [ours].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from examples.systems.data import Floats, Ints, Pictures
from examples.systems.features import kept_features
from examples.systems.linear import fit_svm, positive_of, square_root
from examples.systems.protocol import Options

NUM_BINS = 64
GRID = 4


def gch(picture: Image.Image) -> Floats:
    """Joint histogram of RGB, 4 levels each, shape (64,), sum 1; bin = 16 R + 4 G + B.

    >>> int(gch(Image.new("RGB", (2, 2), (255, 0, 130))).argmax())
    50
    """
    return _histogram(_bins(picture))


def lch(picture: Image.Image) -> Floats:
    """`gch` of each cell of a 4 x 4 grid, row by row, shape (1024,), sum 1; a cell without a pixel is 0."""
    bins_HW = _bins(picture)
    rows, columns = (_edges(side) for side in bins_HW.shape)
    cells = [
        _histogram(bins_HW[rows[i] : rows[i + 1], columns[j] : columns[j + 1]])
        for i in range(GRID)
        for j in range(GRID)
    ]
    return np.concatenate(cells) / max(sum(bool(cell.any()) for cell in cells), 1)


FEATURES = {"GCH": gch, "LCH": lch}


def colour_features(data: Pictures, options: Options, name: str) -> Floats:
    """GCH or LCH of every picture, shape (n, 64 or 1024)."""
    return kept_features(data, options.work, name.lower(), FEATURES[name])


def fit_predict(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
    """See `protocol.FitPredict`; `options.system` is GCH or LCH."""
    features = square_root([colour_features(data, options, options.system or "GCH")])
    svm = fit_svm(features[train], data.label[train], seed=options.seed)
    return positive_of(svm, features[test])


def _bins(picture: Image.Image) -> npt.NDArray[np.uint8]:
    levels = np.asarray(picture, dtype=np.uint8) >> 6
    return np.asarray(16 * levels[..., 0] + 4 * levels[..., 1] + levels[..., 2])


def _histogram(bins: npt.NDArray[np.uint8]) -> Floats:
    return np.bincount(bins.ravel(), minlength=NUM_BINS) / max(bins.size, 1)


def _edges(side: int) -> list[int]:
    return [side * k // GRID for k in range(GRID + 1)]
