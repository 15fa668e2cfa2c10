"""Pickles of arrays, and nothing but arrays: the `.pth` files of the authors' PyTorch conversion.

They are no torch checkpoints but numpy's pickles, `np.load(file, allow_pickle=True).item()` -> {layer: {weights, bias}}
(alexnet.py of fabiocarrara/visual-sentiment-analysis). A pickle may call any function; this reader knows those that
make arrays and refuses the rest.
"""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.caffe.wire import Buffer
from examples.errors import ModelFileError

_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}
_SUFFIXES = {"weights": "weight", "weight": "weight", "bias": "bias"}


class _Arrays(pickle.Unpickler):
    """An unpickler that makes arrays only."""

    def find_class(self, module: str, name: str) -> Any:
        """A function by name, if it makes arrays.

        Raises:
            ModelFileError: any other.
        """
        if (module, name) not in _ALLOWED:
            raise ModelFileError("a pickle that wants more than arrays: refused", got=f"{module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickled(data: Buffer, where: Path) -> dict[str, torch.Tensor]:
    """Weights of a numpy pickle, `<layer>.weight`, `<layer>.bias` -> float32.

    Fully connected layers lose the `_1` that the conversion added (`fc6_1` -> `fc6`).

    Raises:
        ModelFileError: not such a pickle, damaged, or one that would call other functions.
    """
    stream = io.BytesIO(data)
    try:
        if data[:6] == b"\x93NUMPY":  # version, length of a header that says `object`, header
            size_bytes = 2 if data[6] == 1 else 4
            stream.seek(8 + size_bytes + int.from_bytes(data[8 : 8 + size_bytes], "little"))
        value = _Arrays(stream, encoding="latin1").load()
        value = value.item() if isinstance(value, np.ndarray) else value
    except ModelFileError as error:
        error.where = where
        raise
    except Exception as error:  # pickle raises what it pleases on broken bytes
        raise ModelFileError("no pickle of arrays, or a damaged one", got=repr(error), where=where) from error
    return _named(value, where)


def _named(value: Any, where: Path) -> dict[str, torch.Tensor]:
    """Tensors of {layer: {weights, bias}}."""
    made: dict[str, torch.Tensor] = {}
    if not isinstance(value, dict) or not value:
        raise ModelFileError("a pickle", expected="{layer: {weights, bias}}", got=type(value).__name__, where=where)
    for layer, arrays in value.items():
        if not isinstance(layer, str) or not isinstance(arrays, dict):
            raise ModelFileError("a pickle", expected="{layer: {weights, bias}}", got=repr(layer), where=where)
        name = re.sub(r"^(fc.*)_1$", r"\1", layer).replace(".", "_")
        for kind, array in arrays.items():
            fits = isinstance(array, np.ndarray) and array.dtype.kind == "f"
            if kind not in _SUFFIXES or not fits:
                raise ModelFileError("a layer of a pickle", expected="weights, bias", got=repr(kind), where=layer)
            made[f"{name}.{_SUFFIXES[kind]}"] = torch.from_numpy(np.array(array, dtype=np.float32))
    return made
