"""Logits of our nets against OpenCV's Caffe importer, which shares no line with them, and against float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from examples.caffe import prototxt, wire
from examples.caffe.net import net_of, net_of_deploy, weights_of
from examples.models import layers_of
from examples.models.graph import Layer, Net
from examples.models.inputs import Input, Prepare
from examples.models.operations import LRN
from examples.models.parts import conv, data, fc, pool, relu, softmax

# isort: split
from tests.caffe_helpers import MEAN, bytes_of, legacy_of, pictures, randomised, relative, run_opencv, small, text_of

OPENCV, DOUBLE = 2e-5, 5e-6
"""Largest relative difference of the logits; softmax would saturate and hide errors."""
WRONG = 1e-3
"""What a mistake makes at least."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def read_back(text: bytes, weights: bytes) -> Net:
    """The net of two files, by our readers."""
    net = net_of_deploy(text.decode())
    net.load_state_dict(weights_of(wire.decode(weights, "NetParameter")))
    return net.eval()


@torch.no_grad()
def assert_same_numbers(net: Net, side: int, number: int = 2) -> None:
    text, weights = text_of(net), bytes_of(net)
    x = pictures(side, number) - MEAN
    logits = read_back(text, weights)(x)
    assert logits.abs().max() > 1  # else everything would be equal
    assert torch.equal(logits, net(x))
    assert relative(logits, run_opencv(text, weights, x, net.output_blob).flatten(1)) < OPENCV
    exact = copy.deepcopy(net).double()(x.double())
    assert relative(logits, exact) < DOUBLE
    channels_last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    assert relative(channels_last(x.contiguous(memory_format=torch.channels_last)), exact) < DOUBLE


@pytest.mark.parametrize(
    ("name", "side", "width"),
    [
        ("alexnet", 224, 0.25),
        ("alexnet", 227, 0.125),
        ("caffenet", 224, 0.125),
        ("caffenet", 227, 0.25),
        ("vgg19", 64, 0.125),
        ("googlenet", 224, 0.125),
        ("googlenet", 231, 0.125),
        ("smoke", 64, 1.0),
    ],
)
def test_all_families_agree(name: str, side: int, width: float) -> None:
    assert_same_numbers(small(name, side, width), side)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"), [("alexnet", 224), ("caffenet", 227), ("hybrid", 227), ("googlenet", 224), ("vgg19", 224)]
)
def test_all_families_agree_at_full_size(name: str, side: int) -> None:
    assert_same_numbers(small(name, side, 1.0), side, 1)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pad"), [(14, 3, 2, 1), (13, 3, 2, 0), (12, 3, 2, 1), (9, 5, 3, 2)]
)
@pytest.mark.parametrize("kind", ["AVE", "MAX"])
def test_pooling_with_padding_and_rounding_up(kind: str, side: int, kernel: int, stride: int, pad: int) -> None:
    layers = [
        data(side),
        conv("conv1", "data", 8, 3, pad=1),
        relu("relu1", "conv1"),
        pool("pool1", "conv1", kernel, stride, kind, pad=pad),
        fc("fc2", "pool1", 3),
        softmax("fc2"),
    ]
    assert_same_numbers(randomised(layers, side), side)


def test_uneven_windows_strides_dilation_and_no_bias() -> None:
    options = {"num_output": 6, "kernel_h": 3, "kernel_w": 5, "stride_h": 2, "stride_w": 1, "pad_h": 1, "pad_w": 0}
    whole = {"pool": "MAX", "global_pooling": True}
    layers = [
        data(24),
        Layer(name="conv1", kind="Convolution", bottoms=("data",), tops=("conv1",), options=options),
        Layer(name="leaky", kind="ReLU", bottoms=("conv1",), tops=("leaky",), options={"negative_slope": 0.1}),
        conv("conv2", "leaky", 4, 3, dilation=2),
        Layer(
            name="all",
            kind="Pooling",
            bottoms=("conv2",),
            tops=("all",),
            options=whole,
        ),
        Layer(name="flat", kind="Flatten", bottoms=("all",), tops=("flat",)),
        fc("fc3", "flat", 3),
        softmax("fc3"),
    ]
    assert_same_numbers(randomised(layers, 24), 24)


def test_legacy_files_give_the_same_numbers_as_new_ones() -> None:
    """V1 layers, four-dimensional blobs, input_dim: for OpenCV and for us."""
    net = small("alexnet", 227, 0.125)
    given = net_of(net.layers, weights=net.state_dict())
    weights = wire.encode(legacy_of(given, 227), "NetParameter")
    text = prototxt.write(legacy_of(net_of(net.layers), 227)).encode()
    x = pictures(227, 1) - MEAN
    with torch.no_grad():
        ours = read_back(text, weights)(x)
        assert torch.equal(ours, net(x))
        assert relative(ours, run_opencv(text, weights, x, net.output_blob)) < OPENCV


def test_inputs_of_old_deploy_files() -> None:
    """`input` with `input_shape`, the form of 2015-16."""
    net = small("smoke", 64, 0.5)
    written = net_of(net.layers)
    written["layer"] = written["layer"][1:]
    old = {"name": "n", "input": ["data"], "input_shape": [{"dim": [1, 3, 64, 64]}], **written}
    read = read_back(prototxt.write(old).encode(), bytes_of(net))
    x = pictures(64) - MEAN
    with torch.no_grad():
        assert read.side_px == 64 and torch.equal(read(x), net(x))


def test_what_predict_feeds_is_what_caffe_is_fed() -> None:
    """RGB pictures through `Prepare` against BGR minus mean by hand, in OpenCV."""
    net = small("alexnet", 224, 0.125)
    rgb = pictures(224).to(torch.uint8)
    with torch.no_grad():
        ours = net(Prepare(Input(side_px=224))(rgb))
    bgr = rgb[:, [2, 1, 0]].float() - MEAN
    assert relative(ours, run_opencv(text_of(net), bytes_of(net), bgr, net.output_blob)) < OPENCV


# Mistakes that load without an error; each must be seen in the logits.


def _swap(layers: list[Layer]) -> list[Layer]:
    """CaffeNet's order in AlexNet's place."""
    return layers_of("caffenet", 3, 224, width=0.25)


def _alpha(layers: list[Layer]) -> list[Layer]:
    """Caffe's default in place of 1e-4."""
    return [replace(one, options={"local_size": 5}) if one.kind == "LRN" else one for one in layers]


def _no_lrn(layers: list[Layer]) -> list[Layer]:
    """A pooling of one pixel in LRN's place."""
    one_pixel = {"kernel_size": 1}
    return [replace(one, kind="Pooling", options=one_pixel) if one.kind == "LRN" else one for one in layers]


def _local_size(layers: list[Layer]) -> list[Layer]:
    return [replace(one, options={**one.options, "local_size": 3}) if one.kind == "LRN" else one for one in layers]


@pytest.fixture(scope="module")
def truth() -> tuple[Net, torch.Tensor, torch.Tensor]:
    """AlexNet, pictures, and OpenCV's logits of pictures minus mean."""
    net, x = small("alexnet", 224, 0.25), pictures(224)
    return net, x, run_opencv(text_of(net), bytes_of(net), x - MEAN, net.output_blob)


@pytest.mark.parametrize("mistake", [_swap, _alpha, _no_lrn, _local_size])
def test_a_wrong_graph_is_seen(truth: Any, mistake: Callable[[list[Layer]], list[Layer]]) -> None:
    net, x, right = truth
    wrong = Net(mistake(list(net.layers)), 224)
    wrong.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert relative(net(x - MEAN), right) < OPENCV
        assert relative(wrong.eval()(x - MEAN), right) > WRONG


@pytest.mark.parametrize(
    "feed",
    [
        pytest.param(lambda x: (x - MEAN).flip(1), id="RGB for BGR"),
        pytest.param(lambda x: x, id="no mean"),
        pytest.param(lambda x: x - MEAN.flip(0), id="mean in RGB order"),
        pytest.param(lambda x: (x - MEAN) / 255, id="0..1"),
        pytest.param(lambda x: (x - MEAN).flip(3), id="mirrored"),
    ],
)
def test_a_wrong_input_is_seen(truth: Any, feed: Callable[[torch.Tensor], torch.Tensor]) -> None:
    net, x, right = truth
    with torch.no_grad():
        assert relative(net(feed(x)), right) > WRONG


def test_a_wrong_flattening_is_seen(truth: Any) -> None:
    net, x, right = truth
    with torch.no_grad():
        pooled = net.features(x - MEAN, "pool5")
        weight, bias = net.get_parameter("fc6.weight"), net.get_parameter("fc6.bias")

        def finish(flat: torch.Tensor) -> torch.Tensor:
            """From fc6 on."""
            six = F.relu(F.linear(flat, weight, bias))
            seven = F.relu(F.linear(six, net.get_parameter("fc7.weight"), net.get_parameter("fc7.bias")))
            return F.linear(seven, net.get_parameter("fc8-retrain.weight"), net.get_parameter("fc8-retrain.bias"))

        assert relative(finish(pooled.flatten(1)), right) < OPENCV
        assert relative(finish(pooled.permute(0, 2, 3, 1).flatten(1)), right) > WRONG


def test_a_pooling_that_rounds_down_makes_another_fc6(truth: Any) -> None:
    net, _, _ = truth
    down = [
        replace(one, options={**one.options, "round_mode": "FLOOR"}) if one.kind == "Pooling" else one
        for one in net.layers
    ]
    assert Net(down, 224).get_parameter("fc6.weight").shape != net.get_parameter("fc6.weight").shape


def test_means_count_the_padding_but_not_what_lies_beyond() -> None:
    """torch's other way of counting is another number: the test above would see it."""
    x = torch.ones(1, 1, 12, 12)
    ours = Net([data(12), pool("p", "data", 3, 2, "AVE", pad=1), softmax("p")], 12)
    pooled = ours.features(x.expand(1, 3, 12, 12), "p")[0, 0]
    assert pooled[0, 0].item() == pytest.approx(4 / 9) and pooled[1, 1].item() == 1
    assert pooled[-1, -1].item() == pytest.approx(1 / 4)  # its window is cut at the padding: 2 x 2, one of them inside


def test_lrn_is_torchs_with_caffes_numbers() -> None:
    x = torch.randn(2, 9, 4, 5, dtype=torch.float64) * 30
    assert torch.allclose(LRN(5, 1e-4, 0.75)(x), F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), rtol=1e-12)
