"""A model as a folder: `model.json` says what it is and names its files; nothing in it is code, nothing is unpickled.

    DIR/model.json             architecture, classes, input, where it comes from, name and sha256 of each file below
    DIR/model.safetensors      the weights (a checkpoint's bears the step in its name)
    DIR/deploy.prototxt        the network, where it was imported from Caffe
    DIR/mean.safetensors       the mean image, where there is one

`model.json` is written last, in one step, and files that an older one names are not written over (the new one gets a
part of its sha256 into its name): a folder is always the old model or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from examples.errors import ModelFileError, WeightsMismatch
from examples.models.inputs import Input, Prepare
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import InputMissing
from t4sa_data.files import TEMPORARY, sha256_file, write_bytes, write_json

JSON_NAME = "model.json"
FORMAT = 1
"""Of `model.json`; a reader refuses others."""
CAFFE = "caffe"
"""Architecture of a network that its own deploy.prototxt describes."""


@dataclass(kw_only=True)
class Model:
    """A network with all that is needed to use it."""

    network: nn.Module
    """From the network's input to logits_BK: no softmax inside."""
    architecture: str
    """A name of `examples.models.build`, or `caffe`: then `deploy` describes the network."""
    input: Input
    classes: tuple[str, ...] = CLASSES
    width: float = 1.0
    """Factor on all numbers of channels, see `examples.models.build`."""
    deploy: str | None = None
    """Text of the deploy.prototxt."""
    mean_image: torch.Tensor | None = None
    """float32 [3, H, W] in the order of the input's channels."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from: names, sha256 and what else is known; JSON values."""

    def prepare(self) -> Prepare:
        """What turns pictures of a stream into the network's input."""
        return Prepare(self.input, self.mean_image)


def save_model(
    folder: Path,
    model: Model,
    *,
    name: str = "model",
    more: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model folder; what was there before stays whole until the last rename, then its files go.

    Args:
        folder: made where it is missing.
        model: to write.
        name: of the weights' file, without suffix; a new one for each checkpoint in the same folder.
        more: further tensors, by name of the file without suffix: a checkpoint's optimiser.
        extra: further values of `model.json`, JSON.

    Returns:
        path of `model.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Mapping[str, torch.Tensor]] = {name: model.network.state_dict(), **(more or {})}
    if model.mean_image is not None:
        tensors["mean"] = {"mean": model.mean_image}
    files: dict[str, str] = {}
    named = {one: _write(folder, f"{one}.safetensors", to_bytes(what), files) for one, what in tensors.items()}
    if model.deploy is not None:
        named["deploy"] = _write(folder, "deploy.prototxt", model.deploy.encode(), files)
    path = folder / JSON_NAME
    write_json(
        path,
        {
            "format": FORMAT,
            "architecture": model.architecture,
            "width": model.width,
            "classes": list(model.classes),
            "input": model.input.to_json(),
            "weights": named[name],
            "mean_image": named.get("mean"),
            "deploy": named.get("deploy"),
            "more": {one: named[one] for one in more or {}},
            "files": files,
            "num_parameters": sum(p.numel() for p in model.network.parameters()),
            "source": dict(model.source),
            **(extra or {}),
        },
    )
    for old in folder.iterdir():
        is_ours = old.suffix in (".safetensors", ".prototxt") or old.name.endswith(TEMPORARY)
        if is_ours and old.name not in files:
            old.unlink()
    return path


def _write(folder: Path, name: str, data: bytes, files: dict[str, str]) -> str:
    """Write a file of a model; the name it got, whose sha256 is noted in `files`."""
    path = folder / name
    if path.is_file() and path.read_bytes() != data:
        path = path.with_stem(f"{path.stem}-{hashlib.sha256(data).hexdigest()[:12]}")
    files[path.name] = write_bytes(path, data)
    return path.name


def to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors as a safetensors file; equal tensors give equal bytes."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return safetensors.torch.save(plain)


def read_json(folder: Path) -> dict[str, Any]:
    """`model.json` of a folder.

    Raises:
        InputMissing: there is none.
        ModelFileError: it is none of this format.
    """
    path = folder / JSON_NAME
    if not path.is_file():
        raise InputMissing(
            "no model folder",
            expected=JSON_NAME,
            where=folder,
            hint="examples/convert.py makes one of an archive, examples/train.py of a run (RUN/best, RUN/last).",
        )
    try:
        value = json.loads(path.read_text())
        found = value["format"], value["weights"], value["files"][value["weights"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError("not the description of a model", got=repr(error), where=path) from error
    if found[0] != FORMAT:
        raise ModelFileError("format of a model folder", expected=FORMAT, got=found[0], where=path)
    assert isinstance(value, dict)
    return value


def read_tensors(folder: Path, file: str, description: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a file that `model.json` names, checked against its sha256.

    Raises:
        ModelFileError: missing, damaged, or not the one that was written.
    """
    path = _read(folder, file, description)
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError("no safetensors file", got=str(error), where=path) from error


def _read(folder: Path, file: str, description: Mapping[str, Any]) -> Path:
    """Path of a file that is there and whole."""
    path = folder / file
    if not path.is_file():
        raise ModelFileError("a file that model.json names is not there", where=path)
    if sha256_file(path) != description["files"].get(file):
        raise ModelFileError("a file is not the one that model.json names: other sha256", where=path)
    return path


def load_model(folder: Path | str, *, make: Callable[..., nn.Module] | None = None) -> Model:
    """The model of a folder, on the CPU, in evaluation mode.

    Args:
        folder: with a `model.json`.
        make: builds the network, called as `examples.models.make_network`; None: that.

    Raises:
        InputMissing: no model folder.
        ModelFileError, UnsupportedLayer: its files are damaged or not understood.
        WeightsMismatch: the weights do not fit the network.
    """
    folder = Path(folder)
    if make is None:
        from examples.models import make_network as make
    value = read_json(folder)
    deploy = _read(folder, value["deploy"], value).read_text() if value.get("deploy") else None
    with torch.device("meta"):  # no time for random numbers that are overwritten
        network = make(value["architecture"], len(value["classes"]), width=value["width"], deploy=deploy)
    weights = read_tensors(folder, value["weights"], value)
    try:
        network.load_state_dict({name: one.clone() for name, one in weights.items()}, assign=True)
    except RuntimeError as error:
        raise WeightsMismatch("the weights do not fit the network", got=str(error), where=folder) from error
    mean = read_tensors(folder, value["mean_image"], value)["mean"] if value.get("mean_image") else None
    return Model(
        network=network.eval(),
        architecture=value["architecture"],
        input=Input.from_json(value["input"]),
        classes=tuple(value["classes"]),
        width=value["width"],
        deploy=deploy,
        mean_image=mean,
        source=value["source"],
    )
