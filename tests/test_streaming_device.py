"""Batches for a GPU, as far as they can be tested without one; and the names that users call by."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch

import t4sa_data
from t4sa_data import stream
from t4sa_data.errors import BadImage, BadOption, MissingDependency
from t4sa_data.streaming import device
from t4sa_data.streaming.device import DeviceStream
from t4sa_data.streaming.images import Augment
from t4sa_data.streaming.loader import Stream
from t4sa_data.testing import make_release
from tests.streaming_helpers import epoch_of, frozen

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_release(tmp_path, 40, formats=("wds",))
    return tmp_path


def loader_of(path: Path, **options: Any) -> Any:
    return stream(path, **{"batch_size": 8, "size": 24, "workers": 2, "shuffle": False, **options})


@no_gpu
@pytest.mark.parametrize("decode", ["cpu", "cuda"])
def test_a_device_that_is_not_there_is_said(releases: Path, decode: str) -> None:
    with pytest.raises(BadOption, match="no CUDA device on this machine"):
        loader_of(releases, decode=decode).to("cuda")


def test_decoding_on_a_gpu_needs_one_and_its_decoder(releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = loader_of(releases, decode="cuda")
    with pytest.raises(BadOption, match="needs a CUDA device"):
        loader.to("cpu")
    with pytest.raises(BadOption, match=r'stream\(\.\.\.\)\.to\("cuda"\)'):
        next(iter(loader))  # bytes in place of pictures would go unseen for long
    with pytest.raises(BadOption, match="transform"):
        loader_of(releases, decode="cuda", transform=torch.clone)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(MissingDependency, match="torchcodec"):
        loader.to("cuda")


def as_if_on_a_gpu(loader: Any, monkeypatch: pytest.MonkeyPatch) -> DeviceStream:
    """What a GPU would get, on the CPU: the same steps, but for the decoder."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = loader.to("cuda")
    made.device = torch.device("cpu")
    decode = device._gpu_decoder()
    monkeypatch.setattr(
        device, "_gpu_decoder", lambda: lambda data, mode, device: [decode(one, mode=mode) for one in data]
    )
    return made


@pytest.mark.parametrize(
    "options",
    [
        {"resize": "random_resized_crop", "augment": "flip"},
        {"augment": Augment(flip=True, crop=16)},
        {"augment": Augment(flip=True, crop=16, on_device=True)},
        {"resize": "none"},
        {"resize": "center_crop"},
    ],
    ids=["random", "crop", "on device", "none", "plain"],
)
def test_the_steps_behind_the_gpus_decoder(
    path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchcodec")
    expected = epoch_of(loader_of(path, **options).to("cpu"))
    made = as_if_on_a_gpu(loader_of(path, decode="cuda", **options), monkeypatch)
    for got, wanted in zip(made, expected, strict=True):
        assert frozen(got) == wanted
    assert made.state_dict()["epoch"] == 1


def test_a_picture_that_the_gpu_cannot_decode_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchcodec")
    where = {"classes": ("negative", "positive")}  # rows and positions differ
    loader = loader_of(path, decode="cuda", where=where)
    row = 9
    wanted = loader.selection.ranges([row])[0]
    with (path / "t4sa-wds" / wanted.file).open("r+b") as file:
        file.seek(wanted.offset + wanted.length // 2)
        file.write(bytes(wanted.length // 2))
        file.seek(wanted.offset + 2)
        file.write(b"\xff" * 40)
    batches = iter(as_if_on_a_gpu(loader, monkeypatch))
    next(batches)
    with pytest.raises(BadImage) as caught:
        next(batches)
    batches.close()
    key = loader.selection.keys[row].as_py()
    assert f"sample {key}, {wanted.file}, byte {wanted.offset}" in str(caught.value)


STREAM = (
    'path="t4sa", *, config="b-t4sa", split="train", batch_size, size=224, resize="squash", augment=None, '
    'transform=None, shuffle="full", tail=None, seed=0, epoch=0, rank=None, world_size=None, where=None, '
    'weights=None, labels=None, columns=(), workers=None, decode="cpu", verify=None, token=None, offline=False, '
    "cache=None, cache_bytes=None"
)


def test_names_and_defaults_are_kept() -> None:
    """What users wrote goes on to work."""
    made = [one.replace(annotation=one.empty) for one in inspect.signature(t4sa_data.stream).parameters.values()]
    assert inspect.Signature(made) == inspect.signature(eval(f"lambda {STREAM}: None"))
    t4sa = list(inspect.signature(t4sa_data.T4SA).parameters)
    assert t4sa == ["root", "split", "transform", "target_transform", "download", "config", "transforms", "where"]
    for name in ("__iter__", "__len__", "set_epoch", "state_dict", "load_state_dict"):
        assert callable(getattr(DeviceStream, name)) and callable(getattr(Stream, name))
    assert callable(t4sa_data.webdataset) and callable(t4sa_data.testing.assert_resume_exact)
