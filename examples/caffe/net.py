"""From Caffe's NetParameter to layers and weights, and back; legacy files are brought up to date on the way.

Legacy means `layers` of enum types (V1, 2013-14) in place of `layer`, blobs of four dimensions (a fully connected
weight is 1 x 1 x OUT x IN), and `input_dim` in place of an Input layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from examples.caffe import prototxt
from examples.caffe.schema import KIND_FIELDS, MESSAGES, V1_KINDS
from examples.errors import ModelFileError, UnsupportedLayer, WeightsMismatch
from examples.models.graph import Layer, Net

WEIGHTED = ("Convolution", "InnerProduct")
"""Kinds with weights."""
LEARNING = [{"lr_mult": 1.0, "decay_mult": 1.0}, {"lr_mult": 2.0, "decay_mult": 0.0}]
"""`param` of weights and biases in DIGITS' and BVLC's nets."""


def module_name(layer: str) -> str:
    """Name of a layer's module: torch does not take dots."""
    return layer.replace(".", "_")


def upgrade(net: Mapping[str, Any]) -> dict[str, Any]:
    """A NetParameter with `layer` in place of legacy `layers`.

    Raises:
        UnsupportedLayer: layers of the oldest format (V0), or of a type without a name.
        ModelFileError: both formats in one file.
    """
    if "layers" not in net:
        return dict(net)
    if "layer" in net:
        raise ModelFileError("a network with both `layer` and `layers`")
    made = {name: value for name, value in net.items() if name != "layers"}
    made["layer"] = [_upgrade_layer(old) for old in net["layers"]]
    return made


def _upgrade_layer(old: Mapping[str, Any]) -> dict[str, Any]:
    """A V1 layer as a new one."""
    if "layer" in old:
        raise UnsupportedLayer(
            "a layer of Caffe's oldest format (V0)",
            where=old["layer"].get("name", "?"),
            hint="Caffe's tool upgrade_net_proto_binary or _text brings the file up to date.",
        )
    kind = V1_KINDS.get(old.get("type", "NONE"), (0, ""))[1]
    if not kind:
        raise UnsupportedLayer("type of a layer", expected="one of V1's", got=old.get("type"), where=old.get("name"))
    rates, decays = old.get("blobs_lr", []), old.get("weight_decay", [])
    new = {name: value for name, value in old.items() if name not in ("type", "blobs_lr", "weight_decay")}
    new["type"] = kind
    if rates or decays:
        count = max(len(rates), len(decays))
        new["param"] = [
            ({"lr_mult": rates[place]} if place < len(rates) else {})
            | ({"decay_mult": decays[place]} if place < len(decays) else {})
            for place in range(count)
        ]
    return new


def _is_deployed(layer: Mapping[str, Any]) -> bool:
    """Whether a layer is there in use (phase TEST, DIGITS' stage `deploy`), by Caffe's rules include and exclude."""

    def met(rule: Mapping[str, Any]) -> bool:
        """Whether this state fits a rule."""
        stages, not_stages = rule.get("stage", []), rule.get("not_stage", [])
        return rule.get("phase", "TEST") == "TEST" and set(stages) <= {"deploy"} and "deploy" not in not_stages

    if "include" in layer:
        return any(met(rule) for rule in layer["include"])
    return not any(met(rule) for rule in layer.get("exclude", []))


def layers_of(net: Mapping[str, Any]) -> tuple[list[Layer], tuple[int, ...] | None]:
    """The layers in use, an Input first where the file has its dims; and those dims: (N, C, H, W), None if not given.

    Raises:
        ModelFileError: no layers, or dims that are none.
        UnsupportedLayer: see `upgrade`; several inputs.
    """
    net = upgrade(net)
    layers = [_layer(one) for one in net.get("layer", []) if _is_deployed(one)]
    if not layers:
        raise ModelFileError("a network without layers: an empty file, or none of Caffe's")
    dims = None
    inputs = [layer for layer in layers if layer.kind == "Input"]
    if len(net.get("input", [])) + len(inputs) > 1:
        raise UnsupportedLayer("a network with several inputs", got=net.get("input") or [one.name for one in inputs])
    if inputs:
        shape = inputs[0].options.get("shape", {})
        dims = shape.get("dim") if isinstance(shape, dict) else []
    elif net.get("input"):
        shape = net.get("input_shape")
        dims = list(shape[0].get("dim", [])) if shape else list(net.get("input_dim", []))
        given = {"shape": {"dim": dims}} if dims else {}
        layers.insert(0, Layer(name=net["input"][0], kind="Input", tops=(net["input"][0],), options=given))
    if dims is not None and (len(dims) != 4 or min(dims) < 1):
        raise ModelFileError("dims of the input", expected="number, channels, height, width", got=list(dims))
    return layers, tuple(dims) if dims else None


def _layer(one: Mapping[str, Any]) -> Layer:
    """A LayerParameter as a `Layer`."""
    kind = one.get("type", "")
    options = one.get(KIND_FIELDS.get(kind, ""), {})
    return Layer(
        name=one.get("name", ""),
        kind=kind,
        bottoms=tuple(one.get("bottom", ())),
        tops=tuple(one.get("top", ())),
        options={
            name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in options.items()
        },
    )


def net_of_deploy(text: str) -> Net:
    """The network that a deploy.prototxt describes.

    Raises:
        ModelFileError: it is none, or lacks the size of its input.
        UnsupportedLayer: a layer or option that is not read here.
    """
    return Net(*square_of(*layers_of(prototxt.parse(text))))


def square_of(layers: list[Layer], dims: tuple[int, ...] | None) -> tuple[list[Layer], int]:
    """Layers and the side of the square they take.

    Raises:
        ModelFileError: the file does not say the size.
        UnsupportedLayer: not three channels, or no square.
    """
    if dims is None:
        raise ModelFileError(
            "the size of the network's input is not given",
            expected="input_shape, input_dim or an Input layer",
            hint="A train_val.prototxt has none: give the deploy.prototxt.",
        )
    if dims[1] != 3 or dims[2] != dims[3]:
        raise UnsupportedLayer("input of a network", expected="three channels, a square", got=list(dims))
    return layers, dims[2]


def weights_of(net: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of a caffemodel: `<layer>.weight`, `<layer>.bias` -> float32.

    Raises:
        ModelFileError: no layer has weights, or a shape does not fit its numbers.
    """
    made: dict[str, torch.Tensor] = {}
    for layer in upgrade(net).get("layer", []):
        name, kind = module_name(layer.get("name", "")), layer.get("type", "")
        for place, blob in enumerate(layer.get("blobs", [])):
            keep = {("InnerProduct", 0): 2, ("Convolution", 0): 4}.get((kind, place), 1)
            suffix = ("weight", "bias")[place] if kind in WEIGHTED and place < 2 else f"blob{place}"
            key = f"{name}.{suffix}"
            if key in made:
                raise ModelFileError("two layers of the same name have weights", got=layer.get("name"))
            made[key] = torch.from_numpy(np.array(array_of(blob, keep if kind in WEIGHTED else 0, key), np.float32))
    if not made:
        raise ModelFileError("no weights: an empty file, or none of Caffe's")
    return made


def array_of(blob: Mapping[str, Any], num_dims: int = 0, where: str | None = None) -> npt.NDArray[Any]:
    """The numbers of a blob in their shape; looks into the file's bytes.

    Args:
        blob: a BlobProto.
        num_dims: leading dimensions of 1 (legacy files) are taken off down to this many; 0: as they are.
        where: named in errors.
    """
    data = blob.get("data")
    if data is None or not len(data):
        data = blob.get("double_data", np.zeros(0, np.float32))
    legacy = [blob.get(name, 0) for name in ("num", "channels", "height", "width")]
    shape = list(blob["shape"].get("dim", [])) if "shape" in blob else legacy
    if min(shape, default=1) < 0 or math.prod(shape) != len(data):
        raise ModelFileError("numbers of a blob", expected=f"{shape}", got=len(data), where=where)
    while num_dims and len(shape) > num_dims and shape[0] == 1:
        shape = shape[1:]
    if num_dims and len(shape) != num_dims:
        raise ModelFileError("shape of weights", expected=f"{num_dims} dimensions", got=shape, where=where)
    made: npt.NDArray[Any] = data.reshape(shape)
    return made


def blob_of(array: npt.NDArray[Any], *, legacy: bool = False) -> dict[str, Any]:
    """A BlobProto of numbers, float32; `legacy`: with four dimensions of their own."""
    data = np.ascontiguousarray(array, np.float32).reshape(-1)
    if not legacy:
        return {"shape": {"dim": list(array.shape)}, "data": data}
    shape = (1,) * (4 - array.ndim) + array.shape
    return dict(zip(("num", "channels", "height", "width"), shape, strict=True)) | {"data": data}


def net_of(
    layers: Sequence[Layer],
    name: str = "net",
    *,
    weights: Mapping[str, torch.Tensor] | None = None,
    learning: bool = False,
) -> dict[str, Any]:
    """Layers as a NetParameter: a deploy file, or with `weights` a caffemodel.

    Args:
        layers: to write.
        name: of the net.
        weights: by `<layer>.weight` and `<layer>.bias`.
        learning: with the rates of weights and biases, for train_val files.

    Raises:
        WeightsMismatch: a layer's weights are not given.
    """
    made = []
    for layer in layers:
        one: dict[str, Any] = {"name": layer.name, "type": layer.kind}
        one |= {"bottom": list(layer.bottoms)} if layer.bottoms else {}
        one |= {"top": list(layer.tops)} if layer.tops else {}
        if layer.kind in WEIGHTED:
            biased = bool(layer.options.get("bias_term", True))
            one |= {"param": LEARNING[: 1 + biased]} if learning else {}
            one |= {"blobs": list(_blobs(layer, biased, weights))} if weights is not None else {}
        if layer.options:
            one[KIND_FIELDS[layer.kind]] = _options(layer)
        made.append(one)
    return {"name": name, "layer": made}


def _blobs(layer: Layer, biased: bool, weights: Mapping[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
    """Weight and bias of a layer."""
    for suffix in ("weight", "bias")[: 1 + biased]:
        key = f"{module_name(layer.name)}.{suffix}"
        if key not in weights:
            raise WeightsMismatch("weights of a layer are missing", got=key)
        yield blob_of(weights[key].detach().cpu().numpy())


def _options(layer: Layer) -> dict[str, Any]:
    """A layer's options as its message has them: lists where it repeats."""
    fields = MESSAGES[MESSAGES["LayerParameter"][KIND_FIELDS[layer.kind]].kind]
    return {
        name: list(value) if isinstance(value, list | tuple) else [value] if fields[name].repeated else value
        for name, value in layer.options.items()
    }
