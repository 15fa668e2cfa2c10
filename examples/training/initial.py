"""Initial weights: from torchvision, from Caffe, from a file, or none; and a report of which layer got what."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.errors import ModelFileError, WeightsMismatch, WeightsUnavailable
from examples.models import head_of
from examples.models.folder import JSON_NAME, load_model
from examples.models.graph import Layer, Net
from examples.models.inputs import Input
from examples.training.config import Config
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import InputMissing
from t4sa_data.files import sha256_file

Tensors = Mapping[str, torch.Tensor]
UNRECORDED = "unrecorded"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that somebody publishes, fetched only when asked for."""

    url: str
    sha256: str
    """The first digits, which torchvision writes into the file's name and checks; or `unrecorded`."""
    licence: str
    source: str
    layers: Callable[[Tensors, nn.Module, Input], dict[str, torch.Tensor]]
    """From the file's tensors, the network and its input to the network's own names and pixels."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Which layers of a network got weights."""

    source: str
    loaded: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    """Layers of the network that keep their random beginning."""
    ignored: tuple[str, ...] = ()
    """Layers of the file that the network has no place for."""

    def __str__(self) -> str:
        parts = (
            [f"{len(self.loaded)} layers from {self.source}"] if self.loaded else [f"initial weights: {self.source}"]
        )
        parts += [f"fresh: {', '.join(self.fresh)}"] if self.loaded and self.fresh else []
        parts += [f"ignored: {', '.join(self.ignored)}"] if self.ignored else []
        return "; ".join(parts)


def fold_torchvision(tensors: Tensors, network: nn.Module, given: Input) -> dict[str, torch.Tensor]:
    """torchvision's VGG-19 under the names of Caffe's, with its input folded into conv1_1.

    It wants RGB, `(pixels / 255 - mean) / std`; the network gets `(pixels - mean') * scale'` in its own order. The
    weights take up order and scale, the bias the difference of the means: the same function, but for the borders where
    the means differ, as both pad with their own mean.

    Args:
        tensors: `features.N.weight`, `classifier.N.weight`, ...
        network: whose parameters, in order, are those of the file; its last layer is left out.
        given: what the network is fed.
    """
    from examples.models.inputs import IMAGENET_MEAN, IMAGENET_STD

    theirs = [name for name in tensors if name.endswith(".weight")]
    mine = [name for name, _ in network.named_parameters() if name.endswith(".weight")]
    made: dict[str, torch.Tensor] = {}
    for their, my in zip(theirs[:-1], mine[:-1], strict=True):
        for kind in ("weight", "bias"):
            made[my.removesuffix("weight") + kind] = tensors[their.removesuffix("weight") + kind].clone()
    first = mine[0].removesuffix(".weight")
    order = [2, 1, 0] if given.channels == "BGR" else [0, 1, 2]
    mean, std = (255 * torch.tensor(one, dtype=torch.float64)[order] for one in (IMAGENET_MEAN, IMAGENET_STD))
    weight = made[f"{first}.weight"].double()[:, order] / std[:, None, None]
    shift = torch.tensor(given.mean, dtype=torch.float64) - mean
    made[f"{first}.bias"] = (made[f"{first}.bias"].double() + (weight * shift[:, None, None]).sum((1, 2, 3))).float()
    made[f"{first}.weight"] = (weight / torch.tensor(given.scale, dtype=torch.float64)[:, None, None]).float()
    return made


def same_names(tensors: Tensors, network: nn.Module, _: Input) -> dict[str, torch.Tensor]:
    """All but the last layer, as they are: the network is torchvision's own."""
    head = head_of(network)
    return {name: value for name, value in tensors.items() if not name.startswith(f"{head}.")}


_TORCHVISION = "torchvision, trained on ILSVRC 2012"
_BSD = "BSD-3-Clause (torchvision); the pictures of ILSVRC 2012 are for research"
REGISTRY: dict[str, Published] = {
    "vgg19": Published(
        url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9d",
        licence=_BSD,
        source=f"VGG-19, {_TORCHVISION}",
        layers=fold_torchvision,
    ),
    "convnext_tiny": Published(
        url="https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
        sha256="983f1562",
        licence=_BSD,
        source=f"ConvNeXt-Tiny, {_TORCHVISION}",
        layers=same_names,
    ),
}
"""Model -> what `--init imagenet` fetches."""

_BVLC = "http://dl.caffe.berkeleyvision.org"
CAFFE_PLACES: dict[str, str] = {
    "alexnet": f"BVLC AlexNet: {_BVLC}/bvlc_alexnet.caffemodel (unrestricted use, its readme says), deploy.prototxt in "
    "github.com/BVLC/caffe/tree/master/models/bvlc_alexnet",
    "caffenet": f"BVLC CaffeNet: {_BVLC}/bvlc_reference_caffenet.caffemodel (unrestricted use), deploy.prototxt in "
    "github.com/BVLC/caffe/tree/master/models/bvlc_reference_caffenet",
    "hybrid": "Hybrid-CNN (ILSVRC12 + Places205, Zhou et al. 2014): hybridCNN_iter_700000.caffemodel and "
    "hybridCNN_deploy.prototxt from places.csail.mit.edu (free for any use, its page says)",
    "googlenet": f"BVLC GoogLeNet: {_BVLC}/bvlc_googlenet.caffemodel (unrestricted use), deploy.prototxt in "
    "github.com/BVLC/caffe/tree/master/models/bvlc_googlenet",
}
"""Model -> where its Caffe weights were published: torchvision's AlexNet and GoogLeNet are other networks."""


def fetch(name: str, folder: Path | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a registered model, from torch's cache or the network.

    Raises:
        WeightsUnavailable: not registered, not reachable, or not the file whose hash is known.
    """
    if name not in REGISTRY:
        raise WeightsUnavailable(
            f"--init imagenet has no weights for {name}: torchvision's network of that name is another one"
            if name in CAFFE_PLACES
            else f"--init imagenet has no weights for {name}",
            expected=" or ".join(REGISTRY),
            hint=f"--init caffe:deploy.prototxt,weights.caffemodel with files of your own. {CAFFE_PLACES.get(name, '')}"
            if name in CAFFE_PLACES
            else "--init scratch.",
        )
    published = REGISTRY[name]
    at = Path(folder or Path(torch.hub.get_dir()) / "checkpoints") / published.url.rpartition("/")[2]
    if at.is_file() and published.sha256 != UNRECORDED and not sha256_file(at).startswith(published.sha256):
        raise WeightsUnavailable(
            "a fetched file is not the published one",
            expected=f"sha256 {published.sha256}...",
            where=at,
            hint="Remove it, and it is fetched again.",
        )
    print(f"initial weights: {published.source}, {published.url} ({published.licence})")
    try:
        return dict(
            torch.hub.load_state_dict_from_url(
                published.url,
                model_dir=str(at.parent),
                map_location="cpu",
                check_hash=published.sha256 != UNRECORDED,
                weights_only=True,
            )
        )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsUnavailable(
            "the weights could not be fetched",
            got=str(error),
            where=published.url,
            hint=f"Put the file into {at.parent} yourself.",
        ) from error


def initialise(network: nn.Module, config: Config, given: Input) -> Loaded:
    """Give a network its initial weights, as `config.init` says.

    Raises:
        WeightsUnavailable, InputMissing: there are none.
        ModelFileError, WeightsMismatch: they are damaged, or of another network.
    """
    if config.init == "scratch":
        return Loaded(source="scratch", fresh=_layers(network.state_dict()))
    if config.init == "imagenet":
        fetched = fetch(config.model)
        tensors = REGISTRY[config.model].layers(fetched, network, given)
        return apply(network, tensors, "torchvision's ImageNet weights", new_head=True)
    from examples import caffe
    from examples.caffe.archive import is_archive
    from examples.caffe.digits import read_archive

    if config.init.startswith("caffe:"):
        paths = [Path(part) for part in config.init.removeprefix("caffe:").split(",")]
        if len(paths) != 2:
            raise WeightsUnavailable(
                "--init caffe: takes two files", expected="caffe:deploy.prototxt,weights.caffemodel"
            )
        _require_files(paths)
        _require_same_graph(network, caffe.read_network(paths[0])[0], paths[0])
        return apply(network, caffe.read_weights(paths[1]), paths[1].name, new_head=config.new_head)
    path = Path(config.init)
    _require_files([path])
    if (path / JSON_NAME).is_file():
        model = load_model(path)
        if isinstance(model.network, Net):
            _require_same_graph(network, model.network.layers, path)
        _require_same_order(model.classes, config, path)
        return apply(network, model.network.state_dict(), path.name, new_head=config.new_head)
    if path.is_dir() or is_archive(path):
        archive = read_archive(path)
        _require_same_graph(network, archive.network[0], path)
        _require_same_order(archive.labels() or (), config, path)
        return apply(network, archive.weights(), path.name, new_head=config.new_head)
    return apply(network, caffe.read_weights(path), path.name, new_head=config.new_head)


def _require_files(paths: list[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise InputMissing(
                "initial weights: no such file", where=path, hint="--init imagenet, scratch, caffe:..., or a file."
            )


def _require_same_graph(network: nn.Module, layers: Sequence[Layer], where: Path) -> None:
    """Weights fit networks of another order of LRN and pooling without an error: compare what comes with them."""
    from examples.caffe import compare_graph

    faults = compare_graph(layers, network.layers) if isinstance(network, Net) else ["--model is no network of Caffe's"]
    if faults:
        raise WeightsMismatch(
            "the weights are of another network than --model",
            got="; ".join(faults[:4]) + (f"; {len(faults) - 4} more" if len(faults) > 4 else ""),
            where=where,
            hint="alexnet is relu-norm-pool, caffenet relu-pool-norm.",
        )


def _require_same_order(labels: Sequence[str], config: Config, where: Path) -> None:
    """A last layer whose outputs are our classes in another order would begin wrong."""
    from examples.caffe.importing import SYNONYMS

    found = [next((name for name, words in SYNONYMS.items() if one.strip().lower() in words), one) for one in labels]
    if not config.new_head and sorted(found) == sorted(CLASSES) and found != list(CLASSES):
        raise WeightsMismatch(
            "the last layer's classes are in another order",
            expected=", ".join(CLASSES),
            got=", ".join(found),
            where=where,
            hint="--new-head begins with a fresh last layer.",
        )


def apply(network: nn.Module, tensors: Tensors, source: str, *, new_head: bool) -> Loaded:
    """Copy tensors into the parameters of the same name and shape.

    Args:
        network: gets them.
        tensors: by parameter name.
        source: of them, for messages.
        new_head: leave the last layer as it is, whatever the file has.

    Raises:
        WeightsMismatch: a parameter of another shape, or nothing that fits.
    """
    state, head = network.state_dict(), head_of(network)
    taken = [name for name in tensors if name in state and not (new_head and name.startswith(f"{head}."))]
    for name in taken:
        if tensors[name].shape != state[name].shape:
            is_head = name.startswith(f"{head}.")
            raise WeightsMismatch(
                f"{name} of the file has another shape than the network's",
                expected=tuple(state[name].shape),
                got=tuple(tensors[name].shape),
                where=source,
                hint="Its last layer has other classes: --new-head begins with a fresh one."
                if is_head
                else "Is it the network of --model?",
            )
        if not torch.isfinite(tensors[name]).all():
            raise ModelFileError(f"{name} holds values that are no numbers", where=source)
    if not any(not name.startswith(f"{head}.") for name in taken):
        raise WeightsMismatch(
            "no layer of the file belongs to this network",
            expected=", ".join(_layers(state)[:3]) + ", ...",
            got=", ".join(_layers(tensors)[:3]) + ", ...",
            where=source,
        )
    with torch.no_grad():
        for name in taken:
            state[name].copy_(tensors[name])
    missing, found = [name for name in state if name not in taken], set(_layers(dict.fromkeys(taken)))
    fresh = _layers(dict.fromkeys(missing))
    return Loaded(
        source=source,
        loaded=tuple(layer for layer in _layers(state) if layer not in fresh),
        fresh=fresh,
        ignored=tuple(layer for layer in _layers(tensors) if layer not in found),
    )


def _layers(tensors: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of layers, in order: parameter names without their last part."""
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
