"""Out-of-sample probabilities without a trained network: cross-validated logistic regression on features of pictures.

Near-duplicates, and pictures of one tweet, stand in one fold: else a sample's own twin would vouch for its label.
Shapes: n samples, D features, K classes (3).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.relabelling.samples import Ints
from examples.systems.colour import FEATURES
from examples.systems.data import groups_of
from examples.systems.linear import square_root
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import BadOption
from t4sa_data.pixels import decode_rgb
from t4sa_data.reading import OpenRelease
from t4sa_data.streaming.selection import Selection

Matrix = npt.NDArray[np.float64]
NUM_FOLDS = 5
REGULARISATION = 0.01
"""C of scikit-learn: strong, since wrong labels must not be learned by heart. Of 0.001 to 1, tried on 243 drawn
pictures of which 24 were planted wrong; with many more samples than features it hardly matters."""
MAX_STEPS = 300


def colour_features(release: OpenRelease, selection: Selection, name: str) -> Matrix:
    """Colour histograms (`gch`: 64 bins; `lch`: in each cell of a 4 x 4 grid) under the Hellinger map, shape (n, D).

    Raises:
        BadImage, ShardError: a picture cannot be read.
    """
    from tqdm import tqdm

    feature, source, rows = FEATURES[name.upper()], release.source(), []
    try:
        for row in tqdm(range(len(selection)), desc=name, unit="picture", disable=None):
            picture = decode_rgb(source.read(selection.ranges(np.array([row]))[0]))
            rows.append(feature(picture).astype(np.float32))
    finally:
        source.close()
    return square_root([np.stack(rows).astype(np.float64)])


def model_features(model: Any, blob: str, batches: Iterable[Mapping[str, Any]], device: str) -> Matrix:
    """A blob of an image model for every picture of a stream in release order, flat, shape (n, D).

    Args:
        model: of `load_model`.
        blob: of its network.
        batches: pictures of the size that the model's `input.stream_px` says.
        device: see `find_device`.

    Raises:
        BadOption, ModelFileError, PredictionsError: see `examples.models.blobs`.
    """
    from examples.evaluation.predicting import find_device
    from examples.models.blobs import blobs

    return np.concatenate([found for _, found in blobs(model, blob, batches, find_device(device))]).astype(np.float64)


def groups(selection: Selection) -> Ints:
    """Number of each sample's group: near-duplicates and pictures of one tweet are one, and so on; shape (n,)."""
    keys = selection.keys.to_pylist()
    twins = selection.extra["duplicate_group"].to_pylist()
    # A sample without a group is its own.
    named = [key if twin is None else twin for key, twin in zip(keys, twins, strict=True)]
    return groups_of(named, selection.extra["tweet_id"].to_pylist())


def folds(label: Ints, group: Ints, *, num_folds: int = NUM_FOLDS, seed: int = 0) -> Iterator[tuple[Ints, Ints]]:
    """Rows to learn from, and rows to ask about; no group is on both sides, classes as even as that allows.

    Raises:
        BadOption: a class in fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    for k, name in enumerate(CLASSES):
        if (found := len(np.unique(group[label == k]))) < num_folds:
            raise BadOption(f"too few samples of {name} for {num_folds} folds", got=f"{found} groups")
    made = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    yield from made.split(np.zeros((len(label), 1)), label, group)


def out_of_sample(
    features: Matrix,
    label: Ints,
    group: Ints,
    *,
    num_folds: int = NUM_FOLDS,
    seed: int = 0,
) -> Matrix:
    """What a logistic regression that did not see a sample, nor its twins, says of it; shape (n, K).

    Args:
        features: shape (n, D); standardised by those of the learning folds.
        label: as given, shape (n,).
        group: see `groups`.
        num_folds: of the cross-validation.
        seed: of the folds.

    Raises:
        BadOption: a class in fewer groups than folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = np.full((len(label), len(CLASSES)), np.nan)
    for learn, ask in folds(label, group, num_folds=num_folds, seed=seed):
        plain = LogisticRegression(C=REGULARISATION, max_iter=MAX_STEPS)
        model = make_pipeline(StandardScaler(), plain)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ConvergenceWarning: where it stands then is good enough to rank by
            model.fit(features[learn], label[learn])
        found[np.ix_(ask, model.classes_)] = model.predict_proba(features[ask])
    return np.asarray(np.nan_to_num(found))
