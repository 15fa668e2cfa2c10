"""The networks: those of the paper with Caffe's numbers, a modern one, a small one for tests.

network = build("vgg19", 3)                     # x_B3SS -> logits_BK
prepare = Prepare(default_input("vgg19"))       # pictures of a stream -> x_B3SS
frozen = frozen_by_ft_f(network)                # what FT-F keeps fixed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from examples.errors import WeightsMismatch
from examples.models.alexnet import alexnet
from examples.models.googlenet import googlenet
from examples.models.graph import Layer, Linear, Net
from examples.models.inputs import Input, torchvision_input
from examples.models.smoke import RESIZE_PX, SIDE_PX, smoke
from examples.models.vgg19 import vgg19
from examples.models.you_cnn import SIDE_PX as YOU_SIDE_PX
from examples.models.you_cnn import you_cnn
from t4sa_data.errors import BadOption

if TYPE_CHECKING:
    from torchvision.models import ConvNeXt

CAFFE_SIDE_PX = 224
"""The converted nets of the authors are fed squares of 224 (check_outputs.py), though Caffe's files say 227."""


def _caffenet(num_classes: int, side_px: int = CAFFE_SIDE_PX, *, width: float = 1.0) -> list[Layer]:
    return alexnet(num_classes, side_px, width=width, caffenet=True)


_LAYERS: dict[str, Callable[..., list[Layer]]] = {
    "alexnet": alexnet,
    "caffenet": _caffenet,
    "hybrid": alexnet,
    "vgg19": vgg19,
    "googlenet": googlenet,
    "you_cnn": you_cnn,
    "smoke": smoke,
}
CAFFE_NAMES = tuple(_LAYERS)
"""Those that are lists of Caffe's layers."""
NAMES = ("alexnet", "caffenet", "hybrid", "vgg19", "googlenet", "you_cnn", "convnext_tiny", "smoke")
"""What `build` knows."""


def layers_of(name: str, num_classes: int = 3, side_px: int | None = None, *, width: float = 1.0) -> list[Layer]:
    """A named net of Caffe's kind as a list of layers.

    Args:
        name: of `NAMES`, not `convnext_tiny`.
        num_classes: K.
        side_px: of its input; None: as in `default_input`.
        width: factor on all numbers of channels, for tests.
    """
    _check(name, tuple(_LAYERS))
    return _LAYERS[name](num_classes, side_px or default_input(name).side_px, width=width)


def build(name: str, num_classes: int = 3, *, width: float = 1.0) -> nn.Module:
    """A network by name, its weights drawn from torch's generator: x_B3SS -> logits_BK.

    Args:
        name: of `NAMES`.
        num_classes: K.
        width: factor on all numbers of channels, for tests.

    Raises:
        BadOption: no such name.
    """
    _check(name, NAMES)
    if name == "convnext_tiny":
        return _convnext_tiny(num_classes, width)
    return Net(layers_of(name, num_classes, width=width), default_input(name).side_px)


def make_network(architecture: str, num_classes: int, *, width: float = 1.0, deploy: str | None = None) -> nn.Module:
    """The network of a model folder.

    Args:
        architecture: a name, or `caffe`.
        num_classes: K.
        width: see `build`.
        deploy: text of the deploy.prototxt, for `caffe`.

    Raises:
        BadOption: no such architecture.
        ModelFileError, UnsupportedLayer: the deploy file is not understood.
        WeightsMismatch: it has another number of classes.
    """
    if architecture != "caffe":
        return build(architecture, num_classes, width=width)
    if deploy is None:
        raise BadOption("architecture `caffe` needs the text of its deploy.prototxt")
    from examples.caffe.net import net_of_deploy

    network = net_of_deploy(deploy)
    if network.num_classes != num_classes:
        raise WeightsMismatch("classes of a network", expected=num_classes, got=network.num_classes)
    return network


def default_input(name: str) -> Input:
    """What a network is fed unless told otherwise.

    Raises:
        BadOption: no such name.
    """
    _check(name, NAMES)
    if name == "convnext_tiny":
        return torchvision_input(224)
    if name == "smoke":
        return Input(side_px=SIDE_PX, resize_px=RESIZE_PX)
    if name == "you_cnn":
        return Input(side_px=YOU_SIDE_PX, view="center")
    return Input(side_px=CAFFE_SIDE_PX)


def head_of(network: nn.Module) -> str:
    """Name of the module that makes the logits: the last fully connected layer (or convolution, where none is)."""
    return _weighted(network)[-1]


def frozen_by_ft_f(network: nn.Module) -> list[str]:
    """Names of the parameters that FT-F keeps fixed: all before the first fully connected layer.

    Of Caffe's nets those are the convolutions. A modern backbone has one fully connected layer, its head.
    """
    first = head_of(network)
    if isinstance(network, Net):
        dense = [name for name, module in network.named_children() if isinstance(module, Linear)]
        first = dense[0] if dense else first
    weighted = _weighted(network)
    free = set(weighted[weighted.index(first) :])
    return [name for name, _ in network.named_parameters() if name.rpartition(".")[0] not in free]


def _weighted(network: nn.Module) -> list[str]:
    """Names of convolutions and fully connected layers, in the order in which they run."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _convnext_tiny(num_classes: int, width: float) -> ConvNeXt:
    """torchvision's ConvNeXt-T (Liu et al. 2022) with a head of its own, 27,822,435 parameters with 3 classes.

    stage      blocks   channels   output at 224
    stem 4/4            96         96 x 56 x 56
    1          3        96         96 x 56 x 56
    2          3        192        192 x 28 x 28
    3          9        384        384 x 14 x 14
    4          3        768        768 x 7 x 7
    mean, norm          768        768
    classifier.2        K x 768    K

    Stochastic depth is 0: its draws would depend on the rows at hand (see `Dropout`). The head starts as in Caffe's
    nets, gaussian 0.01; the rest as torchvision does.
    """
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    channels = [8 * max(1, round(one * width / 8)) for one in (96, 192, 384, 768)]
    following: list[int | None] = [*channels[1:], None]
    setting = [CNBlockConfig(*one) for one in zip(channels, following, (3, 3, 9, 3), strict=True)]
    network = ConvNeXt(setting, stochastic_depth_prob=0.0, num_classes=num_classes)
    head = network.classifier[2]
    nn.init.normal_(head.weight, 0.0, 0.01)
    nn.init.zeros_(head.bias)
    return network


def _check(name: str, names: tuple[str, ...]) -> None:
    """Refuse a name that is not known."""
    if name not in names:
        raise BadOption("no such network", expected=", ".join(names), got=repr(name))


__all__ = ["NAMES", "Input", "Layer", "Net", "build", "default_input", "frozen_by_ft_f", "head_of", "layers_of"]
__all__ += ["make_network"]
