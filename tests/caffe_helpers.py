"""Nets as Caffe files, and two foreign readers of them: OpenCV's importer and Google's protobuf."""

from __future__ import annotations

import io
import math
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from examples.caffe import prototxt, wire
from examples.caffe.net import net_of
from examples.caffe.schema import ENUMS, MESSAGES, V1_KINDS
from examples.models import layers_of
from examples.models.graph import Layer, Net

MEAN = torch.tensor([116.8007, 121.2751, 130.4602])[:, None, None]


def randomised(layers: Sequence[Layer], side: int, seed: int = 0) -> Net:
    """A net with He weights and biases of 1: logits of some hundreds, in which any error shows."""
    torch.manual_seed(seed)
    net = Net(layers, side)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias)
    return net.eval()


def small(name: str, side: int, width: float, seed: int = 0) -> Net:
    return randomised(layers_of(name, 3, side, width=width), side, seed)


def pictures(side: int, number: int = 2, seed: int = 0) -> torch.Tensor:
    """Noise in 0..255, x_B3SS."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 3, side, side), generator=generator).float()


def text_of(net: Net) -> bytes:
    return prototxt.write(net_of(net.layers)).encode()


def bytes_of(net: Net) -> bytes:
    return wire.encode(net_of(net.layers, weights=net.state_dict()), "NetParameter")


def run_opencv(text: bytes, weights: bytes, x: torch.Tensor, blob: str) -> torch.Tensor:
    """A blob, by OpenCV's own reader and executor."""
    import cv2

    cv2.setNumThreads(1)
    net = cv2.dnn.readNetFromCaffe(np.frombuffer(text, np.uint8), np.frombuffer(weights, np.uint8))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setInput(x.contiguous().numpy(), "data")
    return torch.from_numpy(np.array(net.forward(blob)))


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    """Largest difference over largest value."""
    return ((found.double() - true.double()).abs().max() / true.double().abs().max()).item()


@cache
def protobuf() -> dict[str, Any]:
    """Classes of Google's protobuf for the messages of the schema."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = {"int": 3, "uint": 4, "bool": 8, "float": 2, "double": 1, "string": 9}
    file = descriptor_pb2.FileDescriptorProto(name="caffe_subset.proto", package="caffe", syntax="proto2")
    for name, values in ENUMS.items():
        enum = file.message_type.add(name=f"In{name}").enum_type.add(name=name)
        for word, number in values.items():
            enum.value.add(name=word, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for word, field in fields.items():
            one = message.field.add(name=word, number=field.number, label=3 if field.repeated else 1)
            if field.kind in MESSAGES:
                one.type, one.type_name = 11, f".caffe.{field.kind}"
            elif field.kind in ENUMS:
                one.type, one.type_name = 14, f".caffe.In{field.kind}.{field.kind}"
            else:
                one.type = kinds[field.kind]
            if field.packed:
                one.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in MESSAGES}


def to_protobuf(value: Mapping[str, Any], name: str) -> Any:
    """A dict as a message of Google's."""
    made = protobuf()[name]()
    for word, given in value.items():
        field = MESSAGES[name][word]
        if field.kind in MESSAGES:
            for one in given if field.repeated else [given]:
                target = getattr(made, word).add() if field.repeated else getattr(made, word)
                target.SetInParent() if not field.repeated else None
                target.CopyFrom(to_protobuf(one, field.kind))
        elif field.repeated:
            getattr(made, word).extend([_number(one, field.kind) for one in given])
        else:
            setattr(made, word, _number(given, field.kind))
    return made


def _number(value: Any, kind: str) -> Any:
    return ENUMS[kind][value] if kind in ENUMS else value


def from_protobuf(message: Any, name: str) -> dict[str, Any]:
    """A message of Google's as a dict."""
    made: dict[str, Any] = {}
    for descriptor, given in message.ListFields():
        field = MESSAGES[name][descriptor.name]
        values = [_plain(one, field.kind) for one in (given if field.repeated else [given])]
        if field.packed and field.kind in ("float", "double"):
            made[descriptor.name] = np.array(values, "<f4" if field.kind == "float" else "<f8")
        else:
            made[descriptor.name] = values if field.repeated else values[0]
    return made


def _plain(value: Any, kind: str) -> Any:
    if kind in MESSAGES:
        return from_protobuf(value, kind)
    if kind in ENUMS:
        return next(word for word, number in ENUMS[kind].items() if number == value)
    return wire.shortest(value) if kind == "float" else value


def same(one: Any, other: Any) -> bool:
    """Whether two dicts of the schema are equal; not-a-number equals itself."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        a, b = np.asarray(one), np.asarray(other)
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and bool(one == other)


def legacy_of(net: Mapping[str, Any], side: int) -> dict[str, Any]:
    """A NetParameter in the format of 2013-14: V1 layers, blobs of four dimensions, input_dim."""
    kinds = {new: old for old, (_, new) in V1_KINDS.items()}
    layers = []
    for layer in net["layer"]:
        if layer["type"] == "Input":
            continue
        old = {name: value for name, value in layer.items() if name not in ("type", "param")}
        old["type"] = kinds[layer["type"]]
        if "blobs" in layer:
            old["blobs"] = [_legacy_blob(blob) for blob in layer["blobs"]]
        layers.append(old)
    return {"name": net["name"], "input": ["data"], "input_dim": [10, 3, side, side], "layers": layers}


def _legacy_blob(blob: Mapping[str, Any]) -> dict[str, Any]:
    shape = blob["shape"]["dim"]
    four = [1] * (4 - len(shape)) + list(shape)
    return {**dict(zip(("num", "channels", "height", "width"), four, strict=True)), "data": blob["data"]}


def mean_bytes(image: npt.NDArray[Any]) -> bytes:
    """A mean.binaryproto as DIGITS writes it."""
    shape = dict(zip(("num", "channels", "height", "width"), (1, *image.shape), strict=True))
    return wire.encode({**shape, "data": image.astype(np.float32).reshape(-1)}, "BlobProto")


def tar_of(path: Path, files: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def zip_of(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return path


def digits_files(net: Net, **more: bytes | None) -> dict[str, bytes]:
    """Members of an archive of an early DIGITS; `more` by name with dots as `__`, None leaves one out."""
    image = np.random.default_rng(0).integers(90, 160, (3, 72, 72)).astype(np.float32)
    files: dict[str, bytes | None] = {
        "snapshot_iter_34560.caffemodel": bytes_of(net),
        "labels.txt": b"negative\nneutral\npositive\n",
        "mean.binaryproto": mean_bytes(image),
        "deploy.prototxt": text_of(net),
        "info.json": b'{"image resize mode": "squash", "image dimensions": [72, 72, 3], "digits version": "3.0"}',
    }
    files |= {name.replace("__", "."): data for name, data in more.items()}
    return {name: data for name, data in files.items() if data is not None}


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


PACKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "x.tar": lambda path, files: tar_of(path, files, "w"),
    "x.tar.gz": lambda path, files: tar_of(path, files, "w:gz"),
    "x.tar.bz2": lambda path, files: tar_of(path, files, "w:bz2"),
    "x.zip": zip_of,
    "folder": folder_of,
    "nested.tar.gz": lambda path, files: tar_of(path, {f"./job/{name}": data for name, data in files.items()}),
    "no_suffix": lambda path, files: tar_of(path, files, "w:gz"),
}


TRAIN_VAL = 'layer {{ name: "data" type: "Data" top: "data" include {{ phase: TRAIN }} transform_param {{ {} }} }}'
"""A train_val.prototxt; what it says of pictures is filled in."""
