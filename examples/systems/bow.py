"""GCH+BoW and LCH+BoW: a colour histogram beside a bag of visual words, then `linear`.

BoW: SIFT (OpenCV, at most 500 key points, short side made 256 px), RootSIFT, 500 words by k-means, histogram of sum 1.
Siersdorfer et al. (ACM MM 2010), baselines of You et al. (AAAI 2015) [recalled: SIFT words beside the colour histogram;
number of words, of key points, the size and RootSIFT are ours]. The words are found in the training folds only. A
picture without key points keeps a histogram of zeros, and stays.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from examples.errors import Needs
from examples.systems.colour import colour_features
from examples.systems.data import Floats, Ints, Pictures
from examples.systems.linear import fit_svm, positive_of, square_root
from examples.systems.protocol import Options
from t4sa_data.files import write_bytes

SHORT_PX = 256
NUM_KEY_POINTS = 500
NUM_WORDS, NUM_SMOKE_WORDS = 500, 24
NUM_FITTED = 200_000
"""Descriptors that the words are found in, drawn from the training folds' where there are more."""
SIZE = 128
"""Of a descriptor."""


def descriptors(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """SIFT descriptors as OpenCV gives them (whole numbers, 0 to 255), shape (key points, 128); perhaps none.

    Raises:
        Needs: OpenCV is not installed.
    """
    cv2 = _opencv()
    scale = SHORT_PX / min(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.BILINEAR))
    found = cv2.SIFT_create(nfeatures=NUM_KEY_POINTS).detectAndCompute(grey, None)[1]
    return np.zeros((0, SIZE), dtype=np.uint8) if found is None else np.asarray(found).astype(np.uint8)


def root_sift(raw: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Square root of descriptors that sum to 1, shape (N, 128), float32."""
    values = raw.astype(np.float32)
    return np.asarray(np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1)))


class Descriptors:
    """Descriptors of all pictures, in one array; kept in `work/features`."""

    def __init__(self, data: Pictures, options: Options) -> None:
        stamp = hashlib.sha256(f"sift 1 {data.digest}".encode()).hexdigest()[:24]
        path = options.work / "features" / f"sift-{stamp}.npz"
        if not path.is_file():
            found = [descriptors(data.rgb(row)) for row in range(len(data))]
            ends = np.cumsum([0, *(len(one) for one in found)])
            buffer = io.BytesIO()
            np.savez(buffer, raw=np.concatenate(found), ends=ends)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, buffer.getvalue())
        with np.load(path, allow_pickle=False) as kept:
            self.raw, self.ends = kept["raw"], kept["ends"]

    def of(self, row: int) -> npt.NDArray[np.uint8]:
        """Of one picture."""
        return np.asarray(self.raw[self.ends[row] : self.ends[row + 1]])


def find_words(all_of: Descriptors, train: Ints, num_words: int, *, seed: int) -> Any:
    """The visual words of the training rows: a fitted k-means; None where they have no key point at all."""
    from sklearn.cluster import MiniBatchKMeans

    rows = [np.arange(all_of.ends[row], all_of.ends[row + 1]) for row in train]
    places = np.concatenate(rows)
    if not len(places):
        return None
    if len(places) > NUM_FITTED:
        places = np.sort(np.random.default_rng(seed).choice(places, NUM_FITTED, replace=False))
    fitted = MiniBatchKMeans(min(num_words, len(places)), random_state=seed, n_init=1, batch_size=4096)
    return fitted.fit(root_sift(all_of.raw[places]))


def histograms(all_of: Descriptors, words: Any, num_pictures: int) -> Floats:
    """Share of each word in each picture, shape (n, words); zeros for a picture without key points."""
    num = 1 if words is None else len(words.cluster_centers_)
    found = np.zeros((num_pictures, num))
    if words is None:
        return found
    word = words.predict(root_sift(all_of.raw))
    for row in range(num_pictures):
        own = word[all_of.ends[row] : all_of.ends[row + 1]]
        found[row] = np.bincount(own, minlength=num) / max(len(own), 1)
    return found


def fit_predict(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
    """See `protocol.FitPredict`; `options.system` is GCH+BoW or LCH+BoW."""
    colour = colour_features(data, options, (options.system or "GCH+BoW").partition("+")[0])
    all_of = Descriptors(data, options)
    words = find_words(all_of, train, NUM_SMOKE_WORDS if options.smoke else NUM_WORDS, seed=options.seed)
    features = square_root([colour, histograms(all_of, words, len(data))])
    svm = fit_svm(features[train], data.label[train], seed=options.seed)
    return positive_of(svm, features[test])


def _opencv() -> Any:
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise Needs(
            "SIFT comes from OpenCV, which is not installed", hint="pip install opencv-python-headless"
        ) from error
    return cv2
