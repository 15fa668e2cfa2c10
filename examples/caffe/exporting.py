"""From a `Model` to an archive that DIGITS' upload of pretrained models takes, whatever its version.

The newest DIGITS wants snapshot, framework, name and model file; older ones mean file, image dimensions and resize
mode as well (views.py of its pretrained models): all are written. Equal models give equal bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from examples.caffe import prototxt, wire
from examples.caffe.net import blob_of, net_of
from examples.errors import UnsupportedLayer
from examples.models.folder import Model
from examples.models.graph import IGNORED, Layer, Net
from t4sa_data.catalog import TRAINING
from t4sa_data.files import atomic_file

BATCH_SIZE, ACCUMULATION, LEARNING_RATE, NUM_EPOCHS, EPOCH_ITERATIONS = (
    TRAINING[name].value for name in ("batch_size", "accumulation", "learning_rate", "epochs", "iterations_per_epoch")
)
"""Of the solver that is written: the paper's, as far as they are known."""
_SOLVER_NOTE = "# Settings of the T4SA paper as far as they are known, no record of how this net was trained.\n"
_GZIP_LEVEL = 1
"""Weights are noise: level 9 saves nothing and takes ten times as long."""


def export_archive(model: Model, path: Path, *, name: str | None = None) -> Path:
    """Write a DIGITS archive (tar.gz); equal models give equal bytes.

    Args:
        model: of Caffe's kind: a `Net` fed BGR in 0..255.
        path: of the archive.
        name: shown by DIGITS; None: the architecture.

    Raises:
        UnsupportedLayer: Caffe has no such network or input.
    """
    files = archive_files(model, name or str(model.source.get("name") or model.architecture))
    with (
        atomic_file(path) as sink,
        gzip.GzipFile("", "wb", _GZIP_LEVEL, sink, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for member, parts in sorted(files.items()):
            header = tarfile.TarInfo(member)
            header.size, header.mtime, header.mode = sum(map(len, parts)), 0, 0o644
            tar.addfile(header, _Joined(parts))  # type: ignore[arg-type]
    return path


class _Joined:
    """Pieces of bytes read as one file, none of them copied as a whole."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = [memoryview(part).cast("B") for part in parts if len(part)]

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        made = io.BytesIO()
        while self.parts and made.tell() < size:
            piece = self.parts[0][: size - made.tell()]
            made.write(piece)
            self.parts[0] = self.parts[0][len(piece) :]
            if not len(self.parts[0]):
                self.parts.pop(0)
        return made.getvalue()


def archive_files(model: Model, name: str) -> dict[str, list[Any]]:
    """Members of the archive: name -> pieces of its bytes.

    Raises:
        UnsupportedLayer: see `export_archive`.
    """
    if not isinstance(model.network, Net) or model.input.channels != "BGR" or len(set(model.input.scale)) != 1:
        raise UnsupportedLayer(
            "Caffe has no such network", expected="a net of its kind, fed BGR", got=model.architecture
        )
    side = model.input.side_px
    layers = list(model.network.layers)
    inside = [layer for layer in layers if layer.kind not in IGNORED]
    deploy = model.deploy if model.deploy is not None else prototxt.write(net_of(layers, name))
    snapshot = f"snapshot_iter_{model.source.get('iteration', 1)}.caffemodel"
    weights = wire.encode_parts(net_of(inside, name, weights=model.network.state_dict()), "NetParameter")
    texts = {
        "deploy.prototxt": deploy,
        "train_val.prototxt": prototxt.write(_train_val(model, name, inside)),
        "original.prototxt": prototxt.write(_original(model, name, inside)),
        "solver.prototxt": _SOLVER_NOTE + prototxt.write(_solver(), "SolverParameter"),
        "labels.txt": "".join(f"{one}\n" for one in model.classes),
        "info.json": json.dumps(_info(model, name, snapshot), indent=4, sort_keys=True) + "\n",
    }
    files: dict[str, list[Any]] = {member: [text.encode()] for member, text in texts.items()}
    files["mean.binaryproto"] = wire.encode_parts(blob_of(_mean_image(model, side), legacy=True), "BlobProto")
    files[snapshot] = weights
    return files


def _mean_image(model: Model, side: int) -> Any:
    """The mean image, or one of the mean pixel all over, in the size of the dataset's pictures."""
    if model.mean_image is not None:
        return model.mean_image.cpu().numpy()
    size = max(model.input.resize_px, side)
    return torch.tensor(model.input.mean)[:, None, None].expand(3, size, size).contiguous().numpy()


def _transform(model: Model, *, mirror: bool) -> dict[str, Any]:
    """What DIGITS tells Caffe to do with pictures."""
    made: dict[str, Any] = {"scale": model.input.scale[0]} if model.input.scale[0] != 1 else {}
    made |= {"mirror": True} if mirror else {}
    made |= {"crop_size": model.input.side_px}
    if model.mean_image is not None:
        return made | {"mean_file": "mean.binaryproto"}
    return made | {"mean_value": list(model.input.mean)}


def _data(model: Model, phase: str, rule: Mapping[str, Any]) -> dict[str, Any]:
    """A Data layer."""
    assert isinstance(model.network, Net)
    return {
        "name": f"{phase}-data",
        "type": "Data",
        "top": [model.network.input_blob, "label"],
        "include": [dict(rule)],
        "transform_param": _transform(model, mirror=phase == "train"),
        "data_param": {"source": f"{phase}_db", "batch_size": BATCH_SIZE, "backend": "LMDB"},
    }


def _loss(bottom: str, rules: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Loss and accuracy."""
    both = {"bottom": [bottom, "label"]}
    loss = {"name": "loss", "type": "SoftmaxWithLoss", **both, "top": ["loss"], **rules}
    only = {"include": [{"phase": "TEST"}]} if not rules else {"include": [{"stage": ["val"]}]}
    return [loss, {"name": "accuracy", "type": "Accuracy", **both, "top": ["accuracy"], **only}]


def _train_val(model: Model, name: str, layers: Sequence[Layer]) -> dict[str, Any]:
    """train_val.prototxt: Data layers by phase, loss and accuracy in place of Softmax."""
    assert isinstance(model.network, Net)
    inside = net_of([layer for layer in layers if layer.kind != "Softmax"], name, learning=True)["layer"]
    data = [_data(model, "train", {"phase": "TRAIN"}), _data(model, "val", {"phase": "TEST"})]
    return {"name": name, "layer": [*data, *inside, *_loss(model.network.output_blob, {})]}


def _original(model: Model, name: str, layers: Sequence[Layer]) -> dict[str, Any]:
    """original.prototxt: all in one, told apart by DIGITS' stages train, val and deploy."""
    assert isinstance(model.network, Net)
    inside = net_of([layer for layer in layers if layer.kind != "Softmax"], name, learning=True)["layer"]
    data = [_data(model, phase, {"stage": [phase]}) for phase in ("train", "val")]
    for layer in data:  # the dataset and its mean are DIGITS' to fill in
        layer["data_param"] = {"batch_size": BATCH_SIZE}
        layer["transform_param"] = {k: v for k, v in layer["transform_param"].items() if not k.startswith("mean_")}
    output = model.network.output_blob
    end = {"name": "prob", "type": "Softmax", "bottom": [output], "top": ["prob"], "include": [{"stage": ["deploy"]}]}
    loss = _loss(output, {"exclude": [{"stage": ["deploy"]}]})
    return {"name": name, "layer": [*data, *inside, *loss, end]}


def _solver() -> dict[str, Any]:
    """solver.prototxt as DIGITS makes it of the paper's settings: weight decay is its base_lr / 100, steps are 33 %."""
    return {
        "test_iter": [1594],
        "test_interval": EPOCH_ITERATIONS,
        "base_lr": LEARNING_RATE,
        "display": EPOCH_ITERATIONS // 8,
        "max_iter": EPOCH_ITERATIONS * NUM_EPOCHS,
        "lr_policy": "step",
        "gamma": 0.1,
        "momentum": 0.9,
        "weight_decay": LEARNING_RATE / 100,
        "stepsize": -(-EPOCH_ITERATIONS * NUM_EPOCHS * 33 // 100),
        "snapshot": EPOCH_ITERATIONS,
        "snapshot_prefix": "snapshot",
        "solver_mode": "GPU",
        "net": "train_val.prototxt",
        "iter_size": ACCUMULATION,
        "type": "SGD",
    }


def _info(model: Model, name: str, snapshot: str) -> dict[str, Any]:
    """info.json with all keys that some version of DIGITS asks for."""
    size = model.mean_image.shape[-1] if model.mean_image is not None else model.input.resize_px
    return {
        "name": name,
        "framework": "caffe",
        "image dimensions": [size, size, 3],
        "image resize mode": model.source.get("image resize mode", "squash"),
        "snapshot file": snapshot,
        "solver file": "solver.prototxt",
        "train_val file": "train_val.prototxt",
        "deploy file": "deploy.prototxt",
        "model file": "original.prototxt",
        "mean file": "mean.binaryproto",
        "labels file": "labels.txt",
    }
