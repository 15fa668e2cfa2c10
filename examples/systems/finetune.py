"""The deep rows of table 2: a network that has learned something else is fine-tuned on four folds, all its weights, and
tested on the fifth.

| row | network | learned before | settings |
| --- | --- | --- | --- |
| AlexNet | CaffeNet | ILSVRC12 | UPC, Campos et al. 2015 |
| PlaceCNN | CaffeNet | Places205 | UPC, Campos et al. 2017 |
| DeepSentiBank, MVSO [EN] | CaffeNet | ANPs of Flickr (2,089; 4,342 of English) | UPC, Campos et al. 2017 |
| GoogleNet | GoogLeNet | ILSVRC12 | T4SA's: those of Islam and Zhang 2016 are unknown |
| HybridNet, VGG-19 | AlexNet, VGG-19 | ILSVRC12 + Places205, ILSVRC12 | T4SA's |
| Hybrid-T4SA, VGG-T4SA; FT-A, FT-F | the same | then B-T4SA, as table 1's rows | T4SA's |

All weights learn, also in rows called FT-F, which says how they learned B-T4SA (published: the page).

UPC: SGD 0.9, rate 1e-3, a tenth of it each 6 epochs, 65 epochs, batch 256 (recalled; 65 x 704 / 256 = 178.75 steps fits
their snapshot's name, iter_180, computed); squash to 256, crop of the net's side, ILSVRC's mean pixel, one middle crop
in testing or ten (published: their script; which of their numbers has which is recalled: 81.7 one, 83.0 ten). Weight
decay 5e-4 and ten times the rate for the new last layer are Caffe's custom (inferred).
T4SA's: those of `examples/training/config.py` (32 x 2 pictures, 1e-3, 15 epochs, 33 %), the paper's for B-T4SA; whether
it changed them for these folds is unknown. Mirrors: DIGITS' and Caffe's default (inferred).
All rows are tested by one crop, or all by ten (`--crops ten`).

Initial weights, `options.init`: a model folder, as `examples/convert.py` makes it of Caffe's files: the network is then
the one in its deploy.prototxt, fed as the folder says. Or a file of weights for the row's network (caffemodel, DIGITS
archive, safetensors, the authors' .pth). VGG-19 is the same net in torchvision: its file is taken where torch's cache
has it. Nothing is fetched. In `smoke`, without `init`, a narrow net of the same graph begins from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from examples.errors import Needs
from examples.models import default_input, layers_of
from examples.models.folder import JSON_NAME, Model, load_model
from examples.models.graph import Net
from examples.models.inputs import Input
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
from examples.training.config import Config, ModelName
from examples.training.initial import CAFFE_PLACES, REGISTRY, initialise
from t4sa_data.errors import BadOption

VERSION = 1
"""Bumped by hand when equal inputs give other predictions."""
UPC = Config(
    batch_size=32,
    accumulate=8,
    epochs=65,
    lr_step_percent=100 * 6 / 65,
    weight_decay=5e-4,
    head_lr_mult=10.0,
    eval_crop="center",
)
T4SA = Config()
SMOKE_WIDTH = 0.05
ILSVRC_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
"""Mean pixel of Caffe's ilsvrc_2012_mean.npy, as its examples print it (recalled)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one row is trained."""

    model: ModelName
    """The network, where `init` brings weights alone, and in `smoke`."""
    settings: Config
    needs: str
    """What the user has to bring."""


_ILSVRC, _ANP = "trained on ILSVRC12", "trained on adjective-noun pairs"
_RELEASED = "released by the authors of T4SA (examples/convert.py {name}_finetuned_{which}.tar.gz)"


def _released(model: ModelName, which: str) -> Row:
    named = "hybrid" if model == "hybrid" else "vgg19"
    return Row(model=model, settings=T4SA, needs=_RELEASED.format(name=named, which=which))


ROWS: dict[str, Row] = {
    "AlexNet": Row(model="caffenet", settings=UPC, needs=f"CaffeNet {_ILSVRC}; {CAFFE_PLACES['caffenet']}"),
    "PlaceCNN": Row(model="caffenet", settings=UPC, needs="Places205-CNN (Zhou et al. 2014), Caffe files"),
    "GoogleNet": Row(model="googlenet", settings=T4SA, needs=f"GoogLeNet {_ILSVRC}; {CAFFE_PLACES['googlenet']}"),
    "HybridNet": Row(model="hybrid", settings=T4SA, needs=CAFFE_PLACES["hybrid"]),
    "VGG-19": Row(model="vgg19", settings=T4SA, needs=f"{REGISTRY['vgg19'].url} in torch's cache, or Caffe files"),
    "DeepSentiBank": Row(model="caffenet", settings=UPC, needs=f"DeepSentiBank {_ANP} (2,089), Caffe files"),
    "MVSO [EN]": Row(model="caffenet", settings=UPC, needs=f"MVSO's English network {_ANP} (4,342), Caffe files"),
    "Hybrid-T4SA FT-A": _released("hybrid", "all"),
    "Hybrid-T4SA FT-F": _released("hybrid", "fc6+"),
    "VGG-T4SA FT-F": _released("vgg19", "fc6+"),
    "VGG-T4SA FT-A": _released("vgg19", "all"),
}


def fit_predict(data: Pictures, train: Ints, test: Ints, options: Options) -> Floats:
    """See `protocol.FitPredict`.

    Args:
        data: the pictures.
        train: rows to learn from.
        test: rows to answer for.
        options: `system` is one of `ROWS`.

    Raises:
        Needs: the initial weights are not there.
        BadOption: no such row.
        ModelFileError, WeightsMismatch: they are damaged, or of another network.
        TrainingDiverged: a loss was no number.
    """
    if options.system not in ROWS:
        raise BadOption("no such row", expected=", ".join(ROWS), got=repr(options.system))
    row, where = ROWS[options.system], place_of(options.device)
    torch.manual_seed(options.seed)  # the fresh last layer; later draws are seeded where they are made
    settings = replace(SMOKE if options.smoke else row.settings, seed=options.seed)
    model = with_new_head(starting_model(options.system, options.init, smoke=options.smoke))
    settings = replace(settings, resize_px=max(model.input.resize_px, model.input.side_px))
    if options.smoke:
        train = few(train, options.seed)
    learn(model, data, train, data.label[train], settings, where)
    return positive(probabilities(model, data, test, where, crops=options.crops), CLASSES_2)


def starting_model(system: str, init: Path | None, *, smoke: bool = False) -> Model:
    """The network of a row with its initial weights, and the last layer they came with.

    Args:
        system: one of `ROWS`.
        init: what the user brought.
        smoke: where nothing was brought, begin from scratch, narrow and small.

    Raises:
        Needs: nothing was brought, and nothing is here.
        ModelFileError, WeightsMismatch: it is damaged, or of another network.
    """
    row = ROWS[system]
    if init is not None and (init / JSON_NAME).is_file():
        model = load_model(init)
        if not isinstance(model.network, Net):
            raise BadOption("initial weights of a network of Caffe's kind", got=model.architecture, where=init)
        return model
    if init is None and smoke:
        return small_model(row.model)
    source = None if init is None else str(init)
    if init is not None and not init.exists():
        raise Needs("initial weights: not there", expected=row.needs, where=init)
    if source is None and row.model in REGISTRY and _is_cached(row.model):
        source = "imagenet"
    if source is None:
        raise Needs(
            "initial weights",
            expected=row.needs,
            hint="examples/convert.py makes a model folder of Caffe's files; give it as this row's --init.",
        )
    given = input_of(row)
    network = Net(layers_of(row.model, len(CLASSES_2), given.side_px), given.side_px)
    initialise(network, Config(model=row.model, init=source, new_head=True), given)
    return Model(network=network, architecture=row.model, input=given, classes=CLASSES_2)


def input_of(row: Row) -> Input:
    """What a row's network is fed, where no model folder says it: UPC's middle crop of 227 and ILSVRC's mean, or
    T4SA's."""
    given = default_input(row.model)
    if row.settings is UPC:
        return replace(given, side_px=227, view="center", mean=ILSVRC_MEAN_BGR)
    return given


def small_model(name: str) -> Model:
    """A network of the same graph, narrow, for small pictures, from scratch."""
    layers = layers_of(name, len(CLASSES_2), SMOKE_INPUT.side_px, width=SMOKE_WIDTH)
    network = Net(layers, SMOKE_INPUT.side_px)
    return Model(network=network, architecture=name, width=SMOKE_WIDTH, input=SMOKE_INPUT, classes=CLASSES_2)


def _is_cached(name: str) -> bool:
    """Whether torch's cache holds the published weights."""
    return (Path(torch.hub.get_dir()) / "checkpoints" / REGISTRY[name].url.rpartition("/")[2]).is_file()
