"""Mid-level rows: one linear head over a table of detectors' scores, whosever they are.

| row | scores | source |
| --- | --- | --- |
| SentiBank | 1,200 adjective-noun pairs | Borth et al., ACM MM 2013 [recalled] |
| Sentribute | 102 scene attributes | Yuan et al., WISDOM 2013 [recalled] |
| DeepSentiBank | 2,089 adjective-noun pairs | Chen et al., arXiv 1410.8586 [recalled: the number] |
| MVSO [EN] | 4,342 adjective-noun pairs, English | Jou et al., ACM MM 2015 [recalled] |

The detectors are not ours to give, and not here. The user brings `--init ROW=FILE`: .npz (`keys`, `scores`), .parquet
or .csv (column `key`, all others numbers; or one list of them, `scores`), a row a picture; `examples/features.py`
makes one from any blob of an imported network. Scores are standardised on the training folds, then a linear SVM as in
`linear` [ours: the originals' head is a linear SVM or logistic regression, recalled].

Without a file, where asked for (`--substitute`, and `--smoke`), a substitute of ours that needs no download: "concepts"
found without labels in the training folds, clusters of colours and edge directions over the picture, and how near a
picture is to each. It is none of these systems, and says so: it keeps the protocol alive.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

from examples.errors import Needs, PredictionsError
from examples.systems.data import Floats, Ints, Pictures
from examples.systems.features import kept_features
from examples.systems.linear import fit_svm, positive_of
from examples.systems.protocol import Options

WIDTHS = {"SentiBank": 1200, "Sentribute": 102, "DeepSentiBank": 2089, "MVSO [EN]": 4342}
NUM_CONCEPTS, NUM_SMOKE_CONCEPTS = 102, 12
SIDE_PX = 128
GRID = 4
NUM_DIRECTIONS = 8


def read_scores(path: Path, keys: list[str]) -> Floats:
    """Scores of pictures by key, shape (len(keys), D).

    Args:
        path: .npz, .parquet or .csv; further pictures in it are left out.
        keys: of the pictures, in the order wanted.

    Raises:
        Needs: no such file.
        PredictionsError: it cannot be read, names a picture twice or lacks one, or holds what is no finite number.
    """
    if not path.is_file():
        raise Needs("the table of scores is not there", where=path)
    try:
        names, scores = _read_npz(path) if path.suffix == ".npz" else _read_table(path)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        words = str(error).splitlines()[0]
        expected = "keys and scores (.npz), or a column key and numbers"
        raise PredictionsError("scores cannot be read", expected=expected, got=words, where=path) from error
    place = {name: row for row, name in enumerate(names)}
    if len(place) < len(names):
        raise PredictionsError("scores name a picture twice", got=f"{len(names) - len(place)} times", where=path)
    if missing := [key for key in keys if key not in place]:
        raise PredictionsError("scores lack pictures", got=f"{len(missing)}, e.g. {missing[0]}", where=path)
    found = scores[[place[key] for key in keys]]
    if not np.isfinite(found).all():
        raise PredictionsError("scores are not finite numbers", where=path)
    return np.asarray(found)


def _read_npz(path: Path) -> tuple[list[str], Floats]:
    with np.load(path, allow_pickle=False) as file:
        names, scores = [str(name) for name in file["keys"]], np.asarray(file["scores"], dtype=np.float64)
    if scores.ndim != 2 or len(scores) != len(names):
        raise ValueError(f"{len(names)} keys, scores of shape {scores.shape}")
    return names, scores


def _read_table(path: Path) -> tuple[list[str], Floats]:
    if path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
    else:
        options = pyarrow.csv.ConvertOptions(column_types={"key": pa.string()})
        table = pyarrow.csv.read_csv(path, convert_options=options)
    names = table["key"].to_pylist()
    if "scores" in table.column_names and pa.types.is_fixed_size_list(table.schema.field("scores").type):
        scores = table["scores"].combine_chunks()
        return names, scores.flatten().to_numpy().reshape(len(names), -1).astype(np.float64)
    columns = [np.asarray(table[name].to_numpy(), dtype=np.float64) for name in table.column_names if name != "key"]
    return names, np.stack(columns, axis=1)


def fit_predict(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
    """See `protocol.FitPredict`; `options.init` is the table, without one the substitute is used.

    Raises:
        Needs, PredictionsError: see `read_scores`.
    """
    if options.init is None:
        scores = substitute(data, train, options)
    else:
        needed = np.concatenate([train, test])
        scores = np.zeros((len(data), 0))
        found = read_scores(options.init, [data.keys[row] for row in needed])
        scores = np.zeros((len(data), found.shape[1]))
        scores[needed] = found
    mean, spread = scores[train].mean(axis=0), scores[train].std(axis=0)
    scores = (scores - mean) / np.where(spread > 0, spread, 1)
    scores /= np.sqrt(scores.shape[1])  # so that one set of C fits 102 columns and 4,342
    svm = fit_svm(scores[train], data.label[train], seed=options.seed)
    return positive_of(svm, scores[test])


def layout(picture: Image.Image) -> Floats:
    """Colours and edge directions in each cell of a 4 x 4 grid, shape (224,): what the substitute's concepts are of.

    A cell has mean and standard deviation of R, G, B (0 to 1), and the strength of edges in eight directions.
    """
    rgb = np.asarray(picture.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    down, across = np.gradient(rgb.mean(axis=2))
    direction = (np.arctan2(down, across) % np.pi / np.pi * NUM_DIRECTIONS).astype(np.int64) % NUM_DIRECTIONS
    strength = np.hypot(down, across)
    step = SIDE_PX // GRID
    found: list[Any] = []
    for i in range(GRID):
        for j in range(GRID):
            cell = np.s_[i * step : (i + 1) * step, j * step : (j + 1) * step]
            edges = np.bincount(direction[cell].ravel(), strength[cell].ravel(), NUM_DIRECTIONS) / step**2
            found += [rgb[cell].mean(axis=(0, 1)), rgb[cell].std(axis=(0, 1)), 10 * edges]
    return np.concatenate(found)


def substitute(data: Pictures, train: Ints, options: Options) -> Floats:
    """How near each picture is to each concept of the training rows, shape (n, concepts), rows sum to 1."""
    from sklearn.cluster import KMeans

    features = kept_features(data, options.work, "layout", layout)
    features = (features - features[train].mean(axis=0)) / (features[train].std(axis=0) + 1e-6)
    num = min(NUM_SMOKE_CONCEPTS if options.smoke else NUM_CONCEPTS, len(train) // 3)
    concepts = KMeans(num, random_state=options.seed, n_init=1).fit(features[train])
    far = concepts.transform(features)
    near = np.exp(-4 * far / np.median(far))
    return np.asarray(near / near.sum(axis=1, keepdims=True))
