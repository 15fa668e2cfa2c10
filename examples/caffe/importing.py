"""From the files of a Caffe net to a `Model` of this project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.caffe.digits import Archive, read_archive
from examples.caffe.net import square_of
from examples.caffe.weights import read_weights
from examples.errors import ModelFileError, UnsupportedLayer, WeightsMismatch
from examples.models import build, default_input, head_of
from examples.models.folder import CAFFE, Model
from examples.models.graph import Net
from examples.models.inputs import RESIZE_PX, Input, View
from t4sa_data import catalog
from t4sa_data.errors import BadOption
from t4sa_data.files import sha256_file

MEANS = ("image", "pixel", "none", "t4sa")
"""`image`: mean.binaryproto; `pixel`: a value a channel; `none`: nothing is subtracted; `t4sa`: the published pixel."""
SYNONYMS: dict[str, tuple[str, ...]] = {
    "negative": ("negative", "neg", "0"),
    "neutral": ("neutral", "neu", "1"),
    "positive": ("positive", "pos", "2"),
}
"""What labels.txt may call a class; digits as in the official lists."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """What is subtracted."""

    pixel: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """B, G, R; of an image: the mean of its pixels."""
    image: torch.Tensor | None = None
    """float32 [3, H, W], BGR; in place of the pixel."""
    why: str
    """Which file says so."""


def import_archive(
    source: Path | str | Sequence[Path],
    *,
    mean: str | None = None,
    labels: Sequence[str] | None = None,
    view: View = "squash",
    any_classes: bool = False,
) -> Model:
    """The model of a DIGITS archive, a folder, or loose files.

    Nothing is assumed: the graph and the size come from deploy.prototxt, classes from labels.txt, the mean from
    train_val.prototxt where it says pixel, else from mean.binaryproto.

    Args:
        source: tar, tar.gz, tar.bz2, zip, folder, or the files themselves.
        mean: of `MEANS`, against what the files say.
        labels: in place of labels.txt, in the order of the outputs.
        view: see `Input.view`; `squash` is that of the authors' script, `center` that of DIGITS' validation.
        any_classes: the outputs may be anything: ImageNet's classes, adjective-noun pairs. Their names are those of
            labels.txt where it has as many lines, else numbers.

    Raises:
        InputMissing, ArchiveError, ModelFileError, UnsupportedLayer: files missing, damaged, or not understood.
        WeightsMismatch: weights that do not fit the network, labels that do not fit its outputs.
    """
    archive = read_archive(Path(source) if isinstance(source, str) else source)
    layers, side = square_of(*archive.network)
    network = Net(layers, side)
    if len(network.shapes[network.output_blob]) != 1 and max(network.shapes[network.output_blob][1:]) > 1:
        raise UnsupportedLayer("a net that gives a map", expected="one vector a picture", where=archive.where)
    unused = load_weights(network, archive.weights(), str(archive.where))
    lines = labels if labels is not None else archive.labels()
    classes = (
        other_classes(lines, network.num_classes)
        if any_classes
        else classes_of(lines, network.num_classes, str(archive.where))
    )
    found = mean_of(archive, mean)
    return Model(
        network=network.eval(),
        architecture=CAFFE,
        input=_input_of(archive, side, found, view),
        classes=classes,
        deploy=archive.deploy,
        mean_image=found.image,
        source=_source_of(archive, found, lines, unused) | {"head": head_of(network)},
    )


def import_weights(path: Path, architecture: str, *, labels: Sequence[str] | None = None) -> Model:
    """The model of a file that has weights only, and of a named net: the authors' `.pth`, a lone caffemodel.

    Args:
        path: see `read_weights`.
        architecture: a name of `examples.models.NAMES`.
        labels: of the outputs; None: negative, neutral, positive (the order of the authors' predict.py).

    Raises:
        InputMissing, ArchiveError, ModelFileError, UnsupportedLayer: the file is missing, damaged, or of no known kind.
        WeightsMismatch: it does not fit the named net.
        BadOption: no such net.
    """
    classes = classes_of(labels or catalog.CLASSES, len(labels or catalog.CLASSES), str(path))
    network = build(architecture, len(classes))
    unused = load_weights(network, read_weights(path), str(path))
    source = {"archive": path.name, "sha256": sha256_file(path), "mean": "published pixel of T4SA"}
    return Model(
        network=network.eval(),
        architecture=architecture,
        input=default_input(architecture),
        classes=classes,
        source=source | ({"unused weights": unused} if unused else {}),
    )


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], where: str) -> list[str]:
    """Put all weights of a network in their places; the names of those it has no place for.

    Raises:
        WeightsMismatch: some are missing, or of another shape.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in weights]
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise WeightsMismatch(
            "weights of a network are missing",
            got=", ".join(missing[:4]) + more,
            where=where,
            hint="Does the file belong to this deploy file, or to --model?",
        )
    for name, value in wanted.items():
        if value.shape != weights[name].shape:
            raise WeightsMismatch(
                f"shape of {name}",
                expected=list(value.shape),
                got=list(weights[name].shape),
                where=where,
                hint="The deploy file and the weights are of different nets, or it gives another size of the input.",
            )
    network.load_state_dict({name: weights[name] for name in wanted})
    return sorted(weights.keys() - wanted.keys())


def classes_of(lines: Sequence[str] | None, num_classes: int, where: str) -> tuple[str, ...]:
    """The project's names of the outputs, in the outputs' order, whatever it is.

    >>> classes_of(["Positive", "neg", "1"], 3, "")
    ('positive', 'negative', 'neutral')

    Raises:
        ModelFileError: no labels, or names that are none of the three classes.
        WeightsMismatch: not as many as outputs.
    """
    if lines is None:
        raise ModelFileError(
            "no labels: which output is which is not known",
            expected="labels.txt, a class a line",
            where=where,
            hint="Give them: --labels negative,neutral,positive.",
        )
    if len(lines) != num_classes:
        raise WeightsMismatch("labels of a network", expected=f"{num_classes} lines", got=len(lines), where=where)
    made = []
    for line in lines:
        name = next((name for name, words in SYNONYMS.items() if line.strip().lower() in words), None)
        if name is None or name in made:
            raise ModelFileError(
                "labels of a network",
                expected="negative, neutral, positive (or neg, neu, pos; 0, 1, 2), each once",
                got=line,
                where=where,
                hint="A net of other classes: --any-classes; as initial weights also as it is, train.py --init.",
            )
        made.append(name)
    return tuple(made)


def other_classes(lines: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    """Names of outputs that need not be the project's classes.

    >>> other_classes(None, 3), other_classes(["cute cat", "cute dog"], 2)
    (('0', '1', '2'), ('cute cat', 'cute dog'))
    """
    if lines is not None and len(lines) == num_classes:
        return tuple(lines)
    return tuple(map(str, range(num_classes)))


def mean_of(archive: Archive, choice: str | None = None) -> Mean:
    """What the net is fed minus.

    Args:
        archive: the files.
        choice: of `MEANS`; None: what train_val.prototxt says, else the mean image.

    Raises:
        BadOption: no such choice.
        ModelFileError: the files do not have it.
    """
    if choice is not None and choice not in MEANS:
        raise BadOption("no such mean", expected=", ".join(MEANS), got=choice)
    told, image = archive.training, archive.mean_image()
    if choice == "none":
        return Mean(why="nothing, as asked for")
    if choice == "t4sa":
        return Mean(pixel=catalog.TRAINING["mean_bgr"].value, why="published pixel of T4SA, as asked for")
    if told.mean_values and choice != "image":
        return Mean(pixel=_three(told.mean_values), why="pixel, mean_value of train_val.prototxt")
    if image is None:
        raise ModelFileError(
            "no mean.binaryproto, and no mean_value in a train_val.prototxt",
            where=archive.where,
            hint="Bring the file, or say --mean t4sa (the published pixel) or --mean none.",
        )
    blue, green, red = image.double().mean((1, 2)).float().tolist()
    if choice == "pixel" or image.shape[1:] == (1, 1):
        return Mean(pixel=(blue, green, red), why="pixel, the mean of mean.binaryproto")
    if image.shape[1] != image.shape[2]:
        raise UnsupportedLayer("mean image", expected="a square", got=list(image.shape), where=archive.where)
    why = "image, mean_file of train_val.prototxt" if told.mean_file else "image, mean.binaryproto"
    return Mean(pixel=(blue, green, red), image=image, why=why)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    """One value a channel; one alone is that of all."""
    if len(values) not in (1, 3):
        raise ModelFileError("mean_value of train_val.prototxt", expected="1 or 3", got=len(values))
    return values[0], values[-1 if len(values) == 1 else 1], values[-1]


def _input_of(archive: Archive, side: int, mean: Mean, view: View) -> Input:
    """What the net is fed."""
    dims = archive.info.get("image dimensions")
    told = dims[0] if isinstance(dims, list) and dims and isinstance(dims[0], int) else RESIZE_PX
    size = mean.image.shape[1] if mean.image is not None and mean.image.shape[1] >= side else told
    scale = archive.training.scale or 1.0
    return Input(side_px=side, mean=mean.pixel, scale=(scale,) * 3, view=view, resize_px=max(side, size))


def _source_of(archive: Archive, mean: Mean, lines: Sequence[str] | None, unused: Sequence[str]) -> dict[str, Any]:
    """What is known of where a model comes from; JSON values."""
    training = archive.training
    found = {
        "archive": archive.where.name,
        "sha256": sha256_file(archive.where) if archive.where.is_file() else None,
        "files": archive.digests(),
        "name": archive.info.get("name"),
        "digits version": archive.info.get("digits version"),
        "image resize mode": archive.info.get("image resize mode"),
        "iteration": archive.iteration(),
        "mean": mean.why,
        "labels": list(lines or ()),
        "crop_size": training.crop_size,
        "mirror": training.mirror,
        "unused weights": list(unused),
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def lrn_and_pooling(layers: Sequence[Any]) -> str:
    """In which order a net normalises and pools: what tells AlexNet from CaffeNet."""
    kinds = [layer.kind for layer in layers if layer.kind in ("LRN", "Pooling", "Convolution")]
    words = re.findall(r"LRN Pooling|Pooling LRN", " ".join(kinds))
    if "LRN" not in kinds:
        return "no LRN"
    orders = {"LRN Pooling": "LRN, then pooling (AlexNet)", "Pooling LRN": "pooling, then LRN (CaffeNet)"}
    return "; ".join(orders[word] for word in dict.fromkeys(words)) or "LRN without pooling beside it"
