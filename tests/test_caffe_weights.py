"""Weights out of any file; pickles that hold more than arrays."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from examples.caffe import (
    import_archive,
    import_weights,
    importing,
    read_weights,
    wire,
)
from examples.caffe.net import net_of
from examples.errors import ModelFileError, WeightsMismatch
from examples.models import build
from examples.models.folder import save_model
from examples.models.graph import Net
from t4sa_data.errors import (
    InputMissing,
    T4SAError,
)

# isort: split
from tests.caffe_helpers import (
    bytes_of,
    digits_files,
    legacy_of,
    small,
    tar_of,
)


@pytest.fixture(scope="module")
def net() -> Net:
    return small("smoke", 64, 0.5)


def arrays() -> dict[str, dict[str, np.ndarray]]:
    """Layers as the authors' conversion names them."""
    generator = np.random.default_rng(0)
    shapes = {"conv1": (4, 3, 2, 2), "conv1_1": (4, 3, 1, 1), "fc6_1": (5, 9), "fc8-retrain_1": (3, 5)}
    return {
        name: {
            "weights": generator.normal(size=shape).astype("f4"),
            "bias": generator.normal(size=shape[0]).astype("f4"),
        }
        for name, shape in shapes.items()
    }


NAMES = {"conv1": "conv1", "conv1_1": "conv1_1", "fc6_1": "fc6", "fc8-retrain_1": "fc8-retrain"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("in_npy", [True, False])
def test_numpy_pickles(tmp_path: Path, protocol: int, in_npy: bool) -> None:
    path = tmp_path / "hybrid_finetuned_all.pth"
    given = arrays()
    stream = io.BytesIO()
    if in_npy:
        array = np.array(given, dtype=object)
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        pickle.dump(array, stream, protocol=protocol)
    else:
        pickle.dump(given, stream, protocol=protocol)
    path.write_bytes(stream.getvalue())
    weights = read_weights(path)
    assert weights.keys() == {f"{NAMES[name]}.{kind}" for name in given for kind in ("weight", "bias")}
    for name, layer in given.items():
        assert np.array_equal(weights[f"{NAMES[name]}.weight"].numpy(), layer["weights"])
        assert np.array_equal(weights[f"{NAMES[name]}.bias"].numpy(), layer["bias"])


def test_numpy_pickles_as_numpy_and_python_2_write_them(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(arrays(), dtype=object), allow_pickle=True)
    assert len(read_weights(tmp_path / "x.npy")) == 8
    old = pickle.dumps(arrays(), protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    (tmp_path / "old.pth").write_bytes(old)
    assert len(read_weights(tmp_path / "old.pth")) == 8


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_call_functions_are_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    evil = Evil(f"touch {tmp_path / 'ran'}")
    for number, value in enumerate([evil, {"conv1": evil}, np.array({"conv1": {"weights": evil}}, dtype=object)]):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        with pytest.raises(ModelFileError, match=r"wants more than arrays: refused: got (posix|nt).system"):
            read_weights(path)
    np.save(tmp_path / "x.npy", np.array([evil], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError, match="refused"):
        read_weights(tmp_path / "x.npy")
    torch.save({"a": evil}, tmp_path / "torch.pt")
    with pytest.raises(ModelFileError, match="weights alone"):
        read_weights(tmp_path / "torch.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [[1, 2], {}, {"conv1": 3}, {3: {"weights": np.zeros(3)}}, {"a": {"mean": np.zeros(3)}}, {"a": {"bias": "x"}}],
)
def test_pickles_of_other_things_are_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps(value))
    with pytest.raises(ModelFileError, match="pickle"):
        read_weights(tmp_path / "x.pth")


def test_cut_pickles_are_refused(tmp_path: Path) -> None:
    data = pickle.dumps(arrays(), protocol=4)
    for stop in (2, 20, len(data) // 2, len(data) - 1):
        (tmp_path / "x.pth").write_bytes(data[:stop])
        with pytest.raises(ModelFileError, match="no pickle of arrays, or a damaged one"):
            read_weights(tmp_path / "x.pth")


def test_files_of_torch_and_safetensors(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save(
        {"state_dict": {f"module.{name}": value.half() for name, value in state.items()}, "epoch": 3},
        tmp_path / "w.pth",
    )
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "c.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    for name in ("plain.pt", "c.pt", "old.pth", "x.safetensors"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[one], state[one]) for one in state), name
    assert all(value.dtype == torch.float32 for value in read_weights(tmp_path / "w.pth").values())
    shutil.copy(tmp_path / "x.safetensors", tmp_path / "renamed.bin")
    assert read_weights(str(tmp_path / "renamed.bin")).keys() == state.keys()
    for name in ("plain.pt", "x.safetensors"):
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2)
        with pytest.raises(T4SAError):
            read_weights(tmp_path / name)
    with pytest.raises(InputMissing):
        read_weights(tmp_path / "absent.pt")


def test_weights_of_archives_caffemodels_and_model_folders(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    made = tar_of(tmp_path / "x.tar.gz", digits_files(net))
    (tmp_path / "x.caffemodel").write_bytes(bytes_of(net))
    old = legacy_of(net_of(net.layers, weights=state), 64)
    (tmp_path / "legacy").write_bytes(wire.encode(old, "NetParameter"))
    save_model(tmp_path / "model", import_archive(made))
    for name in ("x.tar.gz", "x.caffemodel", "legacy", "model"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[one], state[one]) for one in state), name
        assert all(value.dtype == torch.float32 and value.is_contiguous() for value in read.values())


def test_the_authors_pth_with_a_named_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their files hold weights alone; the network is named by the user."""
    monkeypatch.setattr(importing, "build", partial(build, width=0.05))
    state = small("alexnet", 224, 0.05).state_dict()
    given: dict[str, dict[str, np.ndarray]] = {}
    for name, value in state.items():
        layer, kind = name.rsplit(".", 1)
        layer += "_1" if layer.startswith("fc") else ""
        given.setdefault(layer, {})["weights" if kind == "weight" else kind] = value.numpy()
    np.save(tmp_path / "x.npy", np.array(given, dtype=object), allow_pickle=True)
    model = import_weights((tmp_path / "x.npy").rename(tmp_path / "hybrid.pth"), "hybrid")
    assert model.architecture == "hybrid" and model.classes == ("negative", "neutral", "positive")
    assert all(torch.equal(value, state[name]) for name, value in model.network.state_dict().items())
    with pytest.raises(WeightsMismatch, match=r"missing: got conv1_1.weight"):
        import_weights(tmp_path / "hybrid.pth", "vgg19")
