"""Several pictures at once give what one by one gives: the same pixels, the same errors, whatever the geometry."""

from __future__ import annotations

import hashlib
import random
import sys
import threading
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from t4sa_data import plan
from t4sa_data.errors import BadImage, ChecksumMismatch
from t4sa_data.miniature import KINDS, draw
from t4sa_data.streaming import placing, work
from t4sa_data.streaming.images import Augment, Geometry
from t4sa_data.streaming.images import draw as draw_numbers
from t4sa_data.streaming.work import Chunk, FaultyPicture, Recipe, Worker

CUT = draw(0, random.Random(99), "rgb")[:900]
GEOMETRIES = [
    Geometry(size=40, resize="squash", augment=Augment()),
    Geometry(size=40, resize="squash", augment=Augment(crop=31, flip=True)),
    Geometry(size=40, resize="squash", augment=Augment(crop=31, flip=True, on_device=True)),
    Geometry(size=33, resize="center_crop", augment=Augment(flip=True)),
    Geometry(size=33, resize="center_crop", augment=Augment(crop=20)),
    Geometry(size=32, resize="random_resized_crop", augment=Augment(flip=True)),
]


def pictures(num: int = 24) -> list[bytes]:
    """Most of them plain JPEGs, as in life, and one of each other kind."""
    rng = random.Random(0)
    kinds = [*KINDS, *["rgb"] * num][:num]
    return [draw(i % 3, rng, kind) for i, kind in enumerate(kinds)]


def chunk_of(data: list[bytes], sha256: list[str] | None = None, geometry: Geometry = GEOMETRIES[0]) -> Chunk:
    seeds = plan.sample_hash(np.arange(len(data)), seed=1, epoch=2, purpose=plan.AUGMENT)
    return Chunk(data=data, sha256=sha256, seeds=seeds, uniforms=draw_numbers(geometry, seeds))


def filled(worker: Worker, geometry: Geometry, chunk: Chunk) -> torch.Tensor:
    out = torch.full((len(chunk.data), geometry.side, geometry.side, 3), 7, dtype=torch.uint8).permute(0, 3, 1, 2)
    worker.fill(chunk, out)
    return out


@pytest.fixture(params=["torchcodec", "torchvision", "none"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With either decoder, and as on a torch without TorchScript."""
    if request.param == "none":
        monkeypatch.setattr(work, "filler", lambda _: None)
        return "none"
    if request.param == "torchvision":
        monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    worker = Worker(Recipe(decode="cpu", geometry=GEOMETRIES[0]))
    if worker._decode.name != request.param:
        pytest.skip(f"no {request.param} here")
    assert placing.filler(request.param) is not None
    return str(request.param)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=range(len(GEOMETRIES)))
def test_together_is_as_one_by_one(decoder: str, geometry: Geometry) -> None:
    worker, chunk = Worker(Recipe(decode="cpu", geometry=geometry)), chunk_of(pictures(), geometry=geometry)
    out = filled(worker, geometry, chunk)
    for i, image in enumerate(worker(chunk)):
        assert torch.equal(out[i], image), (decoder, i)


def test_plain_jpegs_take_the_common_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would compare one way with itself."""
    worker, chunk = Worker(Recipe(decode="cpu", geometry=GEOMETRIES[0])), chunk_of(pictures())
    if worker._fill is None:
        pytest.skip("no TorchScript, or no decoder for it")
    asked: list[int] = []
    monkeypatch.setattr(
        Worker, "__call__", lambda self, some, numbers: asked.extend(numbers) or [torch.zeros(3, 40, 40)] * len(numbers)
    )
    filled(worker, GEOMETRIES[0], chunk)
    plain = {i for i, kind in enumerate([*KINDS, *["rgb"] * 24][:24]) if kind in ("rgb", "grey", "progressive")}
    assert set(asked) == set(range(24)) - plain


@pytest.mark.parametrize("bad", [CUT, b"", b"<html>401</html>"])
def test_an_error_says_which_picture(decoder: str, bad: bytes) -> None:
    data = pictures()
    data[17] = bad
    worker, chunk = Worker(Recipe(decode="cpu", geometry=GEOMETRIES[0])), chunk_of(data)
    with pytest.raises(FaultyPicture) as caught:
        filled(worker, GEOMETRIES[0], chunk)
    assert caught.value.index == 17 and isinstance(caught.value.error, BadImage)


def test_a_wrong_checksum_says_which_picture(decoder: str) -> None:
    data = pictures()
    sha256 = [hashlib.sha256(one).hexdigest() for one in data]
    worker = Worker(Recipe(decode="cpu", geometry=GEOMETRIES[0]))
    filled(worker, GEOMETRIES[0], chunk_of(data, sha256))
    sha256[20] = "0" * 64
    with pytest.raises(FaultyPicture) as caught:
        filled(worker, GEOMETRIES[0], chunk_of(data, sha256))
    assert caught.value.index == 20 and isinstance(caught.value.error, ChecksumMismatch)


def test_a_head_that_lies_about_the_size_is_not_believed(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places are computed from the head; where the decoder finds another size, the picture goes alone."""
    monkeypatch.setattr(work, "plain_jpeg_size", lambda data: (50, 60))
    worker, chunk = Worker(Recipe(decode="cpu", geometry=GEOMETRIES[0])), chunk_of(pictures())
    out = filled(worker, GEOMETRIES[0], chunk)
    assert all(torch.equal(out[i], image) for i, image in enumerate(worker(chunk)))


def test_compiled_once_by_many_threads() -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(placing.filler("torchvision"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({id(one) for one in found}) == 1
