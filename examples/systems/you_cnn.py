"""CNN of You et al. (AAAI 2015): two convolutions and four fully connected layers, trained on weak labels.

Architecture, and how surely each part is known: `examples/models/you_cnn.py`. Training: squash to 256, random crop of
227 and mirror (recalled), SGD 0.9 and rate 1e-3 (inferred), otherwise T4SA's settings (`examples/training/config.py`):
the authors' epochs and drops are unknown. Their weak set is 0.5 million Flickr pictures labelled by adjective-noun
pairs (published: abstract), which are not published as pictures: the user names another, B-T4SA by default.

- on weak labels (table 1, rows on which nobody was asked): trained from scratch, kept in `work`, tested as it is
- on four folds (table 2): begun with `init`, the network of weak labels, its last layer fresh; without `init` from
  scratch. The page puts this row into "without intermediate fine-tuning" (published), what its number was begun with is
  unknown.

`init` is a model folder: RUN/best of a training that can be stopped, gone on with, and shared out over GPUs:

    python examples/train.py --recipe you-cnn --data t4sa --out runs/cnn

That one learns three classes, and answers table 1's last column, too; its neutral class is left out for two. Report a
number of this as "CNN (re-implementation on weak set X)", never as the authors'.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch

from examples.errors import Needs, WeightsMismatch
from examples.models import default_input, layers_of
from examples.models.folder import JSON_NAME, Model, load_model, save_model
from examples.models.graph import Net
from examples.systems.data import Floats, Ints, Pictures
from examples.systems.fitting import (
    CLASSES_2,
    SMOKE,
    SMOKE_INPUT,
    few,
    learn,
    place_of,
    positive,
    probabilities,
    with_new_head,
)
from examples.systems.protocol import Options
from examples.training.config import Config

VERSION = 1
"""Bumped by hand when equal inputs give other predictions."""
NAME = "you_cnn"
SETTINGS = Config(model="you_cnn", init="scratch", eval_crop="center")
SMOKE_WIDTH = 0.25


def fit_predict(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
    """See `protocol.FitPredict`.

    Raises:
        Needs: `init` names no model folder.
        WeightsMismatch: it is of another network.
        TrainingDiverged: a loss was no number.
    """
    begun = None if options.init is None else brought(options.init)
    if begun is not None and is_weak(data, train):
        return answers(begun, data, test, options)
    if begun is not None:
        return answers(finetuned(begun, data, train, options), data, test, options)
    if is_weak(data, train):
        return answers(of_weak_labels(data, train, options), data, test, options)
    model = fresh(options)
    learn_rows(model, data, train, options)
    return answers(model, data, test, options)


def is_weak(data: Pictures, rows: Ints) -> bool:
    """Whether nobody was asked about these pictures: their labels come from elsewhere."""
    return not data.agreement[rows].any()


def brought(init: Path) -> Model:
    """The user's network.

    Raises:
        Needs: no model folder.
        WeightsMismatch: another network.
    """
    if not (init / JSON_NAME).is_file():
        raise Needs("a network of weak labels", expected="a model folder: RUN/best of examples/train.py", where=init)
    model = load_model(init)
    if model.architecture != NAME:
        raise WeightsMismatch("another network", expected=NAME, got=model.architecture, where=init)
    return model


def fresh(options: Options) -> Model:
    """The network with random weights of the seed, two classes."""
    torch.manual_seed(options.seed)
    given, width = (SMOKE_INPUT, SMOKE_WIDTH) if options.smoke else (default_input(NAME), 1.0)
    network = Net(layers_of(NAME, len(CLASSES_2), given.side_px, width=width), given.side_px)
    return Model(network=network, architecture=NAME, width=width, input=given, classes=CLASSES_2)


def learn_rows(model: Model, data: Pictures, rows: Ints, options: Options, label: Ints | None = None) -> None:
    """Train in place.

    Args:
        model: the network.
        data: the pictures.
        rows: to learn from.
        options: seed, size, device.
        label: of the rows, where not the pictures' own.
    """
    label = data.label[rows] if label is None else label
    settings = replace(SMOKE if options.smoke else SETTINGS, seed=options.seed)
    settings = replace(settings, resize_px=max(model.input.resize_px, model.input.side_px))
    learn(model, data, rows, label, settings, place_of(options.device))


def finetuned(model: Model, data: Pictures, train: Ints, options: Options) -> Model:
    """A network of weak labels with a fresh last layer, after four folds."""
    torch.manual_seed(options.seed)
    made = with_new_head(model)
    learn_rows(made, data, few(train, options.seed) if options.smoke else train, options)
    return made


def answers(model: Model, data: Pictures, rows: Ints, options: Options) -> Floats:
    """Probability of positive, shape (n,)."""
    table = probabilities(model, data, rows, place_of(options.device), crops=options.crops)
    return positive(table, model.classes)


def of_weak_labels(data: Pictures, rows: Ints, options: Options) -> Model:
    """The network after all weak labels: the one kept in `work` under its fingerprint, else trained and kept."""
    folder = options.work / NAME / fingerprint("round 1", data, rows, options)
    if (folder / JSON_NAME).is_file():
        return load_model(folder, make=_make)
    model = fresh(options)
    learn_rows(model, data, few(rows, options.seed) if options.smoke else rows, options)
    keep(model, folder)
    return model


def keep(model: Model, folder: Path) -> None:
    """Write a trained network."""
    model.network.to("cpu")
    save_model(folder, model)


def fingerprint(what: str, data: Pictures, rows: Ints, options: Options) -> str:
    """Of all that a kept network depends on, 24 hex digits."""
    about = [what, VERSION, data.digest, options.seed, options.smoke, SETTINGS.to_json()]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(rows.astype("<i8").tobytes())
    return digest.hexdigest()[:24]


def _make(name: str, num_classes: int, *, width: float, deploy: str | None) -> Net:  # noqa: ARG001 - as `make_network`
    """The kept network: small ones are of another side than their name says."""
    side_px = default_input(name).side_px if width == 1 else SMOKE_INPUT.side_px
    return Net(layers_of(name, num_classes, side_px, width=width), side_px)
