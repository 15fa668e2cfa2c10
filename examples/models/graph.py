"""A network as a list of layers, and what runs it with Caffe's numbers.

A `Layer` is what a prototxt says of one; `Net` executes a list of them. The named nets of this package, imported ones
and exported ones are all such lists, so that there is one executor, and export is writing the list back.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from examples.errors import ModelFileError, UnsupportedLayer
from examples.models.dropout import Dropout
from examples.models.operations import LRN, CaffePool, Concat, pooled_sizes

Shape = tuple[int, ...]
"""Of a blob, without the batch: (C, H, W) or (C,)."""

IGNORED = frozenset({"Input", "Data", "ImageData", "HDF5Data", "DummyData", "Accuracy", "SoftmaxWithLoss", "Silence"})
"""Kinds that feed a net or measure it; they are not part of what is run."""

MAX_WEIGHTS = 1 << 29
"""Numbers of one layer: as many float32 as a protobuf file, 2 GiB at most, can hold."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer as a prototxt describes it."""

    name: str
    kind: str
    """Caffe's type string: Convolution, ReLU, LRN, ..."""
    bottoms: tuple[str, ...] = ()
    """Blobs it reads."""
    tops: tuple[str, ...] = ()
    """Blobs it writes; the same name as a bottom: in place."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the kind's own message (`convolution_param`, ...), its names and defaults; lists of one value as the value."""


def pair(options: Mapping[str, Any], name: str, default: int | None, *, short: str | None = None) -> tuple[int, int]:
    """(height, width) of an option that Caffe spells `kernel_size`, or `kernel_h` and `kernel_w`.

    >>> pair({"kernel_size": 3}, "kernel_size", None, short="kernel"), pair({"stride_h": 2}, "stride", 1)
    ((3, 3), (2, 1))
    """
    both = options.get(name, default)
    values = list(both) if isinstance(both, list | tuple) else [both, both]
    values = values * 2 if len(values) == 1 else values
    short = short or name
    made = options.get(f"{short}_h", values[0]), options.get(f"{short}_w", values[-1])
    least = 0 if name == "pad" else 1
    if len(values) != 2 or not all(isinstance(one, int) and one >= least for one in made):
        raise UnsupportedLayer(f"`{name}` of a layer", expected=f"one or two numbers >= {least}", got=both)
    return made


class Net(nn.Module):
    """Runs a list of layers: x_B3SS -> logits_BK.

    Softmax at the end is left out: what comes are the logits. Parameters are called `<layer>.weight` and
    `<layer>.bias`, a dot in a layer's name becomes an underscore. Weights start as the layers' fillers say.

    Args:
        layers: in the order in which they run.
        side_px: of the square it takes; three channels.

    Raises:
        UnsupportedLayer: a kind, or an option of one, that is not known here; the layer is named.
        ModelFileError: a layer reads a blob that no layer before it writes, or makes no sense at this size.
    """

    def __init__(self, layers: Sequence[Layer], side_px: int) -> None:
        super().__init__()
        self.layers, self.side_px = tuple(layers), side_px
        self.shapes: dict[str, Shape] = {}
        """Of each blob, as last written."""
        self.softmaxes: dict[str, str] = {}
        """Blob that a Softmax at the end would make -> blob of its logits."""
        self.steps: list[tuple[str, tuple[str, ...], str]] = []
        """Module, blobs it reads, blob it writes."""
        self.input_blob = _input_blob(self.layers)
        self.shapes[self.input_blob] = (3, side_px, side_px)
        read_later = _reads(self.layers)
        for place, layer in enumerate(self.layers):
            if layer.kind not in IGNORED:
                self._add(layer, read_later[place])
        self.output_blob = self._find_output()
        self.done = _done(self.steps)
        """Of each step, the blobs that no later one reads or writes."""

    def _add(self, layer: Layer, read_later: frozenset[str]) -> None:
        """One more step."""
        missing = [blob for blob in layer.bottoms if blob not in self.shapes]
        if missing or not layer.bottoms or not layer.tops:
            raise ModelFileError(
                "a layer reads what no layer before it writes", got=", ".join(missing) or "nothing", where=layer.name
            )
        if layer.kind == "Softmax":
            if layer.tops[0] in read_later or layer.options.get("axis", 1) != 1:
                raise UnsupportedLayer("Softmax is read at the end of a net only", where=f"layer {layer.name}")
            self.softmaxes[layer.tops[0]] = layer.bottoms[0]
            return
        name = layer.name.replace(".", "_")
        if not name or name in self._modules or hasattr(self, name):
            raise UnsupportedLayer("a layer's name is taken already, or cannot be used", got=repr(layer.name))
        if layer.kind == "Split":  # the same blob under other names
            module, shape = nn.Identity(), self.shapes[layer.bottoms[0]]
        else:
            module, shape = make_module(layer, [self.shapes[blob] for blob in layer.bottoms])
        if isinstance(module, nn.ReLU) and layer.bottoms == layer.tops:
            # Caffe's in-place; saves a copy of the activations. Only where nobody else holds the blob.
            module.inplace = self._is_fresh(layer.bottoms[0])
        self.add_module(name, module)
        for top in layer.tops:
            self.steps.append((name, layer.bottoms, top))
            self.shapes[top] = shape

    def _is_fresh(self, blob: str) -> bool:
        """Whether the last step made this blob by multiplying weights: then nobody needs it as it is."""
        made_by_last = bool(self.steps) and self.steps[-1][2] == blob
        return made_by_last and isinstance(self._modules[self.steps[-1][0]], nn.Conv2d | Linear)

    def _find_output(self) -> str:
        """The blob of the logits."""
        if not self.steps:
            raise ModelFileError("a network without layers")
        read = {blob for _, bottoms, top in self.steps for blob in bottoms if blob != top}
        ends = [top for top in dict.fromkeys(top for _, _, top in self.steps) if top not in read]
        wanted = [self.softmaxes[top] for top in self.softmaxes] or ends
        if len(set(wanted)) != 1:
            raise UnsupportedLayer("a network with several outputs", expected="one", got=", ".join(wanted) or "none")
        return wanted[0]

    @property
    def num_classes(self) -> int:
        """Channels of the logits."""
        return self.shapes[self.output_blob][0]

    def features(self, x: torch.Tensor, blob: str) -> torch.Tensor:
        """Any blob, as it is at the end of the net: `fc7`, `pool5`; of a Softmax at the end: the probabilities.

        Raises:
            ModelFileError: there is no such blob.
        """
        if blob not in self.shapes and blob not in self.softmaxes:
            raise ModelFileError("no such blob", expected=", ".join([*self.shapes, *self.softmaxes]), got=blob)
        value = self._run(x, self.softmaxes.get(blob, blob))
        return value.float().softmax(1) if blob in self.softmaxes else value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of x_B3SS; [B, K], or [B, K, H, W] where a fully convolutional net is given larger pictures."""
        logits = self._run(x, self.output_blob)
        return logits.flatten(1) if logits.dim() > 2 and logits.shape[2:].numel() == 1 else logits

    def _run(self, x: torch.Tensor, wanted: str) -> torch.Tensor:
        """A blob at the end of the net; the others are given back after they were read for the last time."""
        blobs = {self.input_blob: x}
        for (name, bottoms, top), done in zip(self.steps, self.done, strict=True):
            blobs[top] = self._modules[name](*(blobs[blob] for blob in bottoms))
            for blob in done:
                if blob != wanted:
                    del blobs[blob]
        return blobs[wanted]


class Linear(nn.Linear):
    """Caffe's InnerProduct: x_BCHW is flattened in the order C, H, W, whatever its memory format."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """To [B, num_output]."""
        return super().forward(x.flatten(1))


def _input_blob(layers: Sequence[Layer]) -> str:
    """Name of the pictures' blob: an Input's or Data's first top, or what the first layer reads."""
    for layer in layers:
        if layer.kind in IGNORED and layer.tops and not layer.bottoms:
            return layer.tops[0]
    for layer in layers:
        if layer.bottoms:
            return layer.bottoms[0]
    raise ModelFileError("a network without layers")


def _reads(layers: Sequence[Layer]) -> list[frozenset[str]]:
    """For each layer the blobs that layers after it read, those not run left out."""
    seen: frozenset[str] = frozenset()
    after = []
    for layer in reversed(layers):
        after.append(seen)
        if layer.kind not in IGNORED:
            seen |= frozenset(layer.bottoms)
    return after[::-1]


def _done(steps: Sequence[tuple[str, tuple[str, ...], str]]) -> list[tuple[str, ...]]:
    """For each step the blobs that it touches last.

    >>> _done([("conv", ("data",), "a"), ("relu", ("a",), "a"), ("pool", ("a",), "b")])
    [('data',), (), ('a', 'b')]
    """
    last = {blob: i for i, (_, bottoms, top) in enumerate(steps) for blob in (*bottoms, top)}
    return [tuple(blob for blob, at in last.items() if at == i) for i in range(len(steps))]


def make_module(layer: Layer, shapes: Sequence[Shape]) -> tuple[nn.Module, Shape]:
    """What runs a layer, and the shape it makes.

    Args:
        layer: to run.
        shapes: of its bottoms.

    Raises:
        UnsupportedLayer: kind or option not known.
        ModelFileError: it makes no sense at these shapes.
    """
    maker = _MAKERS.get(layer.kind)
    if maker is None:
        raise UnsupportedLayer(
            f"layers of type {layer.kind!r} are not read", expected=", ".join([*_MAKERS, "Softmax"]), where=layer.name
        )
    try:
        if len(shapes) != 1 and layer.kind != "Concat":
            raise UnsupportedLayer("number of bottoms", expected=1, got=len(shapes))
        made: tuple[nn.Module, Shape] = maker(layer.options, *shapes)
        return made
    except ModelFileError as error:
        error.where = f"layer {layer.name}"
        raise


def _refuse(options: Mapping[str, Any], **supported: Any) -> None:
    """Refuse options that would change numbers and are not known here."""
    for name, value in supported.items():
        if options.get(name, value) != value:
            raise UnsupportedLayer(f"option `{name}` of a layer", expected=value, got=options[name])


def _convolution(options: Mapping[str, Any], shape: Shape) -> tuple[nn.Module, Shape]:
    _refuse(options, axis=1)
    kernel = pair(options, "kernel_size", None, short="kernel")
    stride, pad = pair(options, "stride", 1), pair(options, "pad", 0)
    dilation, group, num_output = pair(options, "dilation", 1), options.get("group", 1), options.get("num_output", 0)
    if num_output < 1 or len(shape) != 3 or group < 1 or shape[0] % group or num_output % group:
        raise ModelFileError(
            "channels of a convolution", expected=f"multiples of group {group}", got=f"{shape} to {num_output}"
        )
    _check_count(num_output * shape[0] // group * kernel[0] * kernel[1])
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(shape[1:], kernel, stride, pad, dilation, strict=True)
    ]
    if min(sizes) < 1:
        raise ModelFileError("the picture is smaller than the window", expected=f">= {kernel}", got=shape[1:])
    bias = bool(options.get("bias_term", True))
    module = nn.Conv2d(shape[0], num_output, kernel, stride, pad, dilation, group, bias=bias)
    _fill(module, options, module.weight[0].numel())
    return module, (num_output, *sizes)


def _inner_product(options: Mapping[str, Any], shape: Shape) -> tuple[nn.Module, Shape]:
    _refuse(options, axis=1, transpose=False)
    num_output, num_input = options.get("num_output", 0), torch.Size(shape).numel()
    if num_output < 1:
        raise ModelFileError("`num_output` of a fully connected layer", expected=">= 1", got=num_output)
    _check_count(num_output * num_input)
    module = Linear(num_input, num_output, bias=bool(options.get("bias_term", True)))
    _fill(module, options, num_input)
    return module, (num_output,)


def _check_count(num_weights: int) -> None:
    """Refuse what a file of Caffe's cannot hold (2 GiB), before memory is asked for."""
    if num_weights > MAX_WEIGHTS:
        raise ModelFileError("weights of a layer", expected=f"<= {MAX_WEIGHTS}", got=num_weights)


def _fill(module: nn.Module, options: Mapping[str, Any], fan_in: int) -> None:
    """Start weights as Caffe's fillers do; where a deploy file names none: gaussian 0.01, biases 0."""
    for parameter, name in ((module.weight, "weight_filler"), (module.bias, "bias_filler")):
        if parameter is None:
            continue
        tensor = parameter.detach()
        default = {"type": "gaussian", "std": 0.01} if name == "weight_filler" else {}
        filler = options.get(name) or default
        kind = filler.get("type", "constant")
        if kind == "constant":
            tensor.fill_(filler.get("value", 0.0))
        elif kind == "gaussian":
            tensor.normal_(filler.get("mean", 0.0), filler.get("std", 1.0))
        elif kind == "uniform":
            tensor.uniform_(filler.get("min", 0.0), filler.get("max", 1.0))
        elif kind == "xavier":  # of Caffe: by fan in alone
            tensor.uniform_(-((3 / fan_in) ** 0.5), (3 / fan_in) ** 0.5)
        elif kind == "msra":
            tensor.normal_(0.0, (2 / fan_in) ** 0.5)
        else:
            raise UnsupportedLayer(f"{name} of a layer", expected="gaussian, xavier, msra, uniform, constant", got=kind)


def _relu(options: Mapping[str, Any], shape: Shape) -> tuple[nn.Module, Shape]:
    slope = options.get("negative_slope", 0.0)
    return nn.LeakyReLU(slope) if slope else nn.ReLU(), shape


def _lrn(options: Mapping[str, Any], shape: Shape) -> tuple[nn.Module, Shape]:
    _refuse(options, norm_region="ACROSS_CHANNELS")
    size = options.get("local_size", 5)
    if size % 2 == 0:
        raise UnsupportedLayer("`local_size` of LRN", expected="an odd number", got=size)
    # Caffe's defaults: torch's alpha is 1e-4.
    return LRN(size, options.get("alpha", 1.0), options.get("beta", 0.75), options.get("k", 1.0)), shape


def _pooling(options: Mapping[str, Any], shape: Shape) -> tuple[nn.Module, Shape]:
    if len(shape) != 3:
        raise ModelFileError("pooling wants channels, height, width", got=shape)
    kind = options.get("pool", "MAX")
    if options.get("global_pooling", False):
        kernel, stride, pad = shape[1:], (1, 1), (0, 0)
    else:
        kernel = pair(options, "kernel_size", None, short="kernel")
        stride, pad = pair(options, "stride", 1), pair(options, "pad", 0)
    module = CaffePool(kind, kernel, stride, pad, round_mode=options.get("round_mode", "CEIL"))
    return module, (shape[0], *pooled_sizes(module, shape[1:]))


def _concat(options: Mapping[str, Any], *shapes: Shape) -> tuple[nn.Module, Shape]:
    _refuse(options, axis=1, concat_dim=1)
    if len({shape[1:] for shape in shapes}) != 1:
        raise ModelFileError("sizes that are put together differ", got=", ".join(map(str, shapes)))
    return Concat(), (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _dropout(options: Mapping[str, Any], shape: Shape) -> tuple[nn.Module, Shape]:
    return Dropout(options.get("dropout_ratio", 0.5)), shape


def _flatten(options: Mapping[str, Any], shape: Shape) -> tuple[nn.Module, Shape]:
    _refuse(options, axis=1, end_axis=-1)
    return nn.Flatten(), (torch.Size(shape).numel(),)


_MAKERS: dict[str, Any] = {
    "Convolution": _convolution,
    "InnerProduct": _inner_product,
    "ReLU": _relu,
    "LRN": _lrn,
    "Pooling": _pooling,
    "Concat": _concat,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "Split": None,
}
