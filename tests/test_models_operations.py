"""Operations of Caffe that torch has with other numbers: LRN, pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.errors import ModelFileError
from examples.models import (
    build,
)
from examples.models.graph import Net
from examples.models.operations import LRN, CaffePool, pooled_sizes
from examples.models.parts import conv, data, fc, lrn, relu, softmax


@pytest.mark.parametrize(("size", "channels"), [(1, 3), (3, 2), (5, 7)])
def test_gradient_of_lrn_is_that_of_its_formula(size: int, channels: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, channels, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LRN(size, 0.5, 0.75, 1.5), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lrn_survives_large_activations_of_half_precision(dtype: torch.dtype) -> None:
    """torch's own gives 0 in fp16: squares of 600 are infinite there."""
    x = torch.full((1, 16, 2, 2), 600.0)
    true = LRN(5, 1e-4, 0.75)(x)
    assert true[0, 8, 0, 0].item() == pytest.approx(39.99, abs=0.01)
    with torch.autocast("cpu", dtype=dtype):
        half = LRN(5, 1e-4, 0.75)(x.to(dtype))
    assert half.dtype == dtype and torch.allclose(half.float(), true, rtol=1e-2)


def test_lrn_is_float32_inside_autocast_whatever_comes() -> None:
    layers = [data(9), conv("c", "data", 8, 3), relu("r", "c"), lrn("n", "c"), fc("f", "n", 2), softmax("f")]
    torch.manual_seed(0)
    network = Net(layers, 9).eval()
    network.get_parameter("c.weight").data.mul_(300)
    x = torch.rand(2, 3, 9, 9) * 255
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        half = network.features(x, "n").float()
    with torch.no_grad():
        full = network.features(x, "n")
    assert full.max() > 20 and torch.allclose(half, full, rtol=0.05, atol=0.5)


def caffe_pool(x_HW: np.ndarray, kind: str, k: int, s: int, p: int, ceil: bool = True) -> np.ndarray:
    """Pooling as pooling_layer.cpp words it: loops over windows, clipped to the padded picture, then to the picture."""
    height = x_HW.shape[0]
    rounded = np.ceil if ceil else np.floor
    num = int(rounded((height + 2 * p - k) / s)) + 1
    if p and (num - 1) * s >= height + p:
        num -= 1
    made = np.zeros((num, num))
    for i in range(num):
        for j in range(num):
            top, left = i * s - p, j * s - p
            bottom, right = min(top + k, height + p), min(left + k, height + p)
            size = (bottom - top) * (right - left)
            inside = x_HW[max(top, 0) : min(bottom, height), max(left, 0) : min(right, height)]
            made[i, j] = inside.max() if kind == "MAX" else inside.sum() / size
    return made


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 15),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 2),
    st.sampled_from(["MAX", "AVE"]),
    st.booleans(),
)
def test_pooling_is_caffes_for_any_window(side: int, k: int, s: int, p: int, kind: str, ceil: bool) -> None:
    x = torch.from_numpy(np.random.default_rng(side * 100 + k).normal(size=(1, 1, side, side)))
    try:
        layer = CaffePool(kind, (k, k), (s, s), (p, p), round_mode="CEIL" if ceil else "FLOOR")
        sizes = pooled_sizes(layer, (side, side))
    except ModelFileError:  # no window fits, padding of more than half of it, or an empty one
        assert k > side + 2 * p or 2 * p > k or s > k
        return
    true = caffe_pool(x[0, 0].numpy(), kind, k, s, p, ceil)
    assert true.shape == sizes
    assert np.allclose(layer(x)[0, 0].numpy(), true)


def test_dropout_of_a_net_drops_in_training_only() -> None:
    torch.manual_seed(0)
    network = build("smoke", 3)
    x = torch.randn(4, 3, 64, 64) * 50
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
