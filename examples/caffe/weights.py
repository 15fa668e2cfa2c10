"""Weights and networks out of any file they come in."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from examples.caffe import prototxt, wire
from examples.caffe.archive import is_archive, refuse_page
from examples.caffe.digits import read_archive, refuse_hdf5
from examples.caffe.net import layers_of, weights_of
from examples.caffe.pickled import read_pickled
from examples.errors import ModelFileError
from examples.models.folder import JSON_NAME, read_json, read_tensors
from examples.models.graph import Layer
from t4sa_data.errors import InputMissing

_WRAPPERS = ("state_dict", "model_state_dict", "model", "weights", "net")
"""Keys under which checkpoints of others hold their weights."""
_PREFIXES = ("module.", "_orig_mod.")
"""What DDP and torch.compile put before names."""


def read_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """Weights by name of the parameter, float32, on the CPU; the format is told by the bytes, not by the name.

    Args:
        path: a .caffemodel; a DIGITS archive (tar, tar.gz, tar.bz2, zip, folder); a numpy-pickle .pth of the authors'
            conversion; a torch .pt or .pth (read with `weights_only=True`); a .safetensors; a model folder.

    Returns:
        `<layer>.weight` and `<layer>.bias` for Caffe's files, the names as they stand for torch's.

    Raises:
        InputMissing: no such file.
        ArchiveError, ModelFileError, UnsupportedLayer: damaged, dangerous, or of no known kind.
    """
    path = Path(path)
    if not path.exists():
        raise InputMissing("no such file of weights", where=path)
    if path.is_dir():
        if (path / JSON_NAME).is_file():
            description = read_json(path)
            return _plain(read_tensors(path, description["weights"], description), path)
        return read_archive(path).weights()
    data = wire.map_file(path)
    start = bytes(data[:16])
    refuse_page(bytes(data[:64]), path)
    if start.startswith(b"\x89HDF"):
        refuse_hdf5(path)
    if is_archive(path):
        return read_archive(path).weights()
    if start.startswith(b"PK"):
        return _from_torch(path)
    if start.startswith(b"\x93NUMPY") or (start[:1] == b"\x80" and path.suffix != ".caffemodel"):
        return _from_torch(path) if _is_old_torch(start) else read_pickled(data, path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < len(data):
        return _from_safetensors(path)
    with wire.located(path):
        return weights_of(wire.decode(data, "NetParameter"))


def read_network(source: Path | str) -> tuple[list[Layer], tuple[int, ...] | None]:
    """Layers of a network and dims of its input (N, C, H, W), None if the file does not give them.

    Args:
        source: a deploy.prototxt, or a DIGITS archive or folder.

    Raises:
        InputMissing: no such file.
        ArchiveError, ModelFileError, UnsupportedLayer: damaged, or not understood.
    """
    source = Path(source)
    if source.is_dir() or (source.is_file() and is_archive(source)):
        return read_archive(source).network
    data = wire.map_file(source)
    refuse_page(bytes(data[:64]), source)
    try:
        with wire.located(source):
            return layers_of(prototxt.parse(str(bytes(data), "utf-8-sig")))
    except UnicodeDecodeError as error:
        raise ModelFileError("no prototxt: no text", where=source) from error


def _is_old_torch(start: bytes) -> bool:
    """Whether a pickle begins with the magic number of torch before 1.6."""
    return b"\x8a\x0al\xfc\x9cF\xf9" in start


def _from_torch(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a torch file."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise ModelFileError(
            "no torch file of weights alone, or a damaged one",
            got=str(error).strip().splitlines()[0],
            where=path,
            hint="Save `model.state_dict()`: files that hold code are not read.",
        ) from error
    for name in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(name), Mapping):
            value = value[name]
            break
    return _plain(value, path)


def _from_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Weights of a safetensors file."""
    try:
        return _plain(safetensors.torch.load_file(path), path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError("no safetensors file, or a damaged one", got=str(error), where=path) from error


def _plain(value: Any, path: Path) -> dict[str, torch.Tensor]:
    """Floating tensors as float32, wrappers' prefixes taken off."""
    if not isinstance(value, Mapping):
        raise ModelFileError("a file of weights", expected="tensors by name", got=type(value).__name__, where=path)
    made = {}
    for name, tensor in value.items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            short = str(name)
            while short.startswith(_PREFIXES):
                short = short.split(".", 1)[1]
            made[short] = tensor.detach().float().contiguous()
    if not made:
        raise ModelFileError("no weights in a file", where=path)
    return made
