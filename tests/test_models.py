"""The networks: shapes, counts, fillers, what FT-F keeps fixed, what is refused."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import nn

from examples.caffe import prototxt
from examples.caffe.net import net_of
from examples.errors import ModelFileError, UnsupportedLayer, WeightsMismatch
from examples.models import (
    CAFFE_NAMES,
    NAMES,
    build,
    default_input,
    frozen_by_ft_f,
    head_of,
    layers_of,
    make_network,
)
from examples.models.graph import Layer, Net
from examples.models.parts import conv, data, dropout, fc, pool, relu, softmax
from t4sa_data import catalog
from t4sa_data.errors import BadOption


def on_paper(name: str, num_classes: int = 3, side: int | None = None) -> nn.Module:
    """A network without memory for its weights."""
    with torch.device("meta"):
        if side is not None:
            return Net(layers_of(name, num_classes, side), side)
        return build(name, num_classes)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "num_classes", "published"),
    [
        ("alexnet", 1000, 60_965_224),
        ("alexnet", 3, 56_880_515),
        ("caffenet", 1000, 60_965_224),
        ("hybrid", 3, 56_880_515),
        ("vgg19", 1000, 143_667_240),
        ("vgg19", 3, 139_582_531),
        ("googlenet", 1000, 6_998_552),
        ("convnext_tiny", 1000, 28_589_128),
        ("convnext_tiny", 3, 27_822_435),
        ("you_cnn", 3, 5_643_747),
        ("smoke", 3, 80_931),
    ],
)
def test_numbers_of_parameters(name: str, num_classes: int, published: int) -> None:
    assert count(on_paper(name, num_classes)) == published


SHAPES: list[tuple[str, int, dict[str, tuple[int, ...]]]] = [
    ("alexnet", 224, {"conv1": (96, 54, 54), "norm1": (96, 54, 54), "pool1": (96, 27, 27), "pool2": (256, 13, 13)}),
    ("alexnet", 227, {"conv1": (96, 55, 55), "pool1": (96, 27, 27), "pool5": (256, 6, 6), "fc6": (4096,)}),
    ("caffenet", 227, {"pool1": (96, 27, 27), "norm1": (96, 27, 27), "conv3": (384, 13, 13), "fc8-retrain": (3,)}),
    ("vgg19", 224, {"conv1_2": (64, 224, 224), "pool3": (256, 28, 28), "conv5_4": (512, 14, 14), "pool5": (512, 7, 7)}),
    ("googlenet", 224, {"conv1/7x7_s2": (64, 112, 112), "pool2/3x3_s2": (192, 28, 28), "pool5/7x7_s1": (1024, 1, 1)}),
    ("googlenet", 224, {"inception_3a/output": (256, 28, 28), "inception_3b/output": (480, 28, 28)}),
    ("googlenet", 224, {"inception_4a/output": (512, 14, 14), "inception_4d/output": (528, 14, 14)}),
    ("googlenet", 224, {"inception_4e/output": (832, 14, 14), "inception_5b/output": (1024, 7, 7)}),
    ("you_cnn", 227, {"conv1": (96, 55, 55), "pool1": (96, 27, 27), "conv2": (256, 12, 12), "pool2": (256, 6, 6)}),
    ("you_cnn", 227, {"fc3": (512,), "fc4": (512,), "fc5": (24,), "fc8-retrain": (3,)}),
    ("smoke", 64, {"conv1": (16, 32, 32), "norm1": (16, 16, 16), "pool3": (64, 4, 4), "fc4": (64,)}),
]


@pytest.mark.parametrize(("name", "side", "shapes"), SHAPES)
def test_shapes_of_the_docstrings(name: str, side: int, shapes: dict[str, tuple[int, ...]]) -> None:
    network = on_paper(name, side=side)
    assert isinstance(network, Net)
    assert {blob: network.shapes[blob] for blob in shapes} == shapes


@pytest.mark.parametrize("name", ["alexnet", "vgg19", "googlenet", "smoke"])
def test_computed_shapes_are_those_of_the_run(name: str) -> None:
    side = default_input(name).side_px if name == "smoke" else 70 if name == "alexnet" else 33
    network = Net(layers_of(name, 5, side, width=0.1), side).eval()
    x = torch.randn(2, 3, side, side)
    assert {blob: tuple(network.features(x, blob).shape[1:]) for blob in network.shapes} == network.shapes
    assert network(torch.randn(2, 3, side, side)).shape == (2, 5)


def test_blobs_are_given_back_after_their_last_use() -> None:
    """Otherwise an evaluation of VGG-19 by 256 pictures held all its activations, 16 GB."""
    network = build("vgg19", width=0.05).eval()
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watch(_: object, __: object, output: torch.Tensor) -> None:
        nonlocal most
        alive.append(weakref.ref(output))
        most = max(most, sum(one() is not None for one in alive))

    for module in network.children():
        module.register_forward_hook(watch)
    with torch.inference_mode():
        network(torch.randn(1, 3, 224, 224))
    assert len(alive) > 40 and most <= 4  # a ReLU in place is counted with what it changed


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_network_runs_in_any_memory_format(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, 3, width=0.05).eval()
    x = torch.randn(2, 3, default_input(name).side_px, default_input(name).side_px) * 50
    logits = network(x)
    assert logits.shape == (2, 3) and logits.dtype == torch.float32 and bool(logits.isfinite().all())
    moved = copy.deepcopy(network).to(memory_format=torch.channels_last)
    assert torch.allclose(moved(x.contiguous(memory_format=torch.channels_last)), logits, rtol=1e-4, atol=1e-5)


def test_a_seed_is_all_that_weights_depend_on() -> None:
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(build("googlenet", 3, width=0.1).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(made[0]["conv1/7x7_s2.weight"], made[2]["conv1/7x7_s2.weight"])


def test_names_and_heads() -> None:
    heads = {name: head_of(on_paper(name)) for name in NAMES}
    assert set(heads.values()) == {"fc8-retrain", "loss3/classifier-retrain", "classifier.2"}
    assert all(heads[name] == catalog.TRAINING["head"].value for name in ("alexnet", "caffenet", "hybrid", "vgg19"))
    for name in ("alexnet", "vgg19"):
        names = dict(on_paper(name).named_parameters())
        assert {"fc6.weight", "fc6.bias", "fc8-retrain.weight"} <= names.keys()
    with pytest.raises(BadOption, match=r"no such network.*alexnet.*'resnet'"):
        build("resnet")
    with pytest.raises(BadOption, match="no such network"):
        default_input("resnet")


@pytest.mark.parametrize(
    ("name", "first_free", "num_frozen"),
    [
        ("alexnet", "fc6", 10),
        ("caffenet", "fc6", 10),
        ("vgg19", "fc6", 32),
        ("googlenet", None, 114),
        ("smoke", "fc4", 6),
    ],
)
def test_ft_f_keeps_convolutions_fixed_and_nothing_else(name: str, first_free: str | None, num_frozen: int) -> None:
    network = on_paper(name)
    frozen = frozen_by_ft_f(network)
    assert len(frozen) == num_frozen
    modules = dict(network.named_modules())
    assert all(isinstance(modules[one.rpartition(".")[0]], nn.Conv2d) for one in frozen)
    free = {one.rpartition(".")[0] for one, _ in network.named_parameters()} - {
        one.rpartition(".")[0] for one in frozen
    }
    assert all(isinstance(modules[one], nn.Linear) for one in free)
    assert (first_free or head_of(network)) in free and head_of(network) in free


def test_ft_f_of_a_modern_backbone_leaves_its_head_free() -> None:
    network = on_paper("convnext_tiny")
    free = {name for name, _ in network.named_parameters()} - set(frozen_by_ft_f(network))
    assert free == {"classifier.2.weight", "classifier.2.bias"}


def test_ft_f_of_a_net_of_convolutions_alone() -> None:
    layers = [data(8), conv("a", "data", 4, 3), relu("r", "a"), conv("b", "a", 3, 6), softmax("b")]
    network = Net(layers, 8)
    assert frozen_by_ft_f(network) == ["a.weight", "a.bias"] and head_of(network) == "b"
    assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    assert network(torch.zeros(2, 3, 10, 10)).shape == (2, 3, 3, 3)


def test_inputs() -> None:
    for name in ("alexnet", "caffenet", "hybrid", "vgg19", "googlenet"):
        given_ = default_input(name)
        assert (given_.side_px, given_.channels, given_.view) == (224, "BGR", "squash")
        assert given_.mean == catalog.TRAINING["mean_bgr"].value
    assert default_input("convnext_tiny").channels == "RGB"
    assert (default_input("smoke").side_px, default_input("smoke").resize_px) == (64, 72)


@pytest.mark.parametrize(("name", "high"), [("alexnet", 0.1), ("caffenet", 1.0)])
def test_fillers_of_alexnet(name: str, high: float) -> None:
    torch.manual_seed(0)
    network = build(name, 3, width=0.25)
    weights = network.state_dict()
    assert weights["conv2.weight"].std().item() == pytest.approx(0.01, rel=0.05)
    assert weights["fc6.weight"].std().item() == pytest.approx(0.005, rel=0.05)
    biases = {
        layer: weights[f"{layer}.bias"].unique().tolist() for layer in ("conv1", "conv2", "conv3", "conv4", "fc7")
    }
    expected = {"conv1": 0.0, "conv2": high, "conv3": 0.0, "conv4": high, "fc7": high}
    assert {layer: one[0] for layer, one in biases.items()} == pytest.approx(expected)
    assert weights["fc8-retrain.bias"].abs().max() == 0
    assert weights["fc8-retrain.weight"].std().item() == pytest.approx(0.01, rel=0.1)


def test_xavier_is_that_of_caffe() -> None:
    torch.manual_seed(0)
    weight = build("googlenet", 3, width=0.5).get_parameter("conv2/3x3.weight")
    bound = (3 / weight[0].numel()) ** 0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01) and weight.std().item() == pytest.approx(
        bound / 3**0.5, rel=0.03
    )


@pytest.mark.parametrize("width", [0.01, 0.1, 0.3, 0.77])
def test_any_width_can_be_built(width: float) -> None:
    for name in CAFFE_NAMES:
        with torch.device("meta"):
            network = build(name, 3, width=width)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                assert module.in_channels % module.groups == 0


# The executor.


def test_any_blob_can_be_had() -> None:
    network = build("smoke", 3).eval()
    x = torch.randn(2, 3, 64, 64) * 50
    assert network.features(x, "fc4").shape == (2, 64)
    assert torch.allclose(network.features(x, "prob"), network(x).softmax(1))
    with pytest.raises(ModelFileError, match=r"no such blob: expected data, conv1.*got fc9"):
        network.features(x, "fc9")


def test_a_blob_changed_in_place_is_seen_changed_by_later_layers_alone() -> None:
    """Pooling before the ReLU reads the blob as it was; gradients flow through both."""
    layers = [
        data(6),
        conv("c", "data", 2, 3),
        pool("before", "c", 2, 2),
        relu("r", "c"),
        pool("after", "c", 2, 2),
        Layer(name="both", kind="Concat", bottoms=("before", "after"), tops=("both",)),
        fc("f", "both", 2),
        softmax("f"),
    ]
    torch.manual_seed(0)
    network = Net(layers, 6)
    x = torch.randn(3, 3, 6, 6)
    before, after = network.features(x, "before"), network.features(x, "after")
    assert before.min() < 0 and after.min() >= 0 and torch.equal(before.relu(), after)
    network(x).sum().backward()
    assert network.get_parameter("c.weight").grad is not None


def test_relu_works_in_place_only_where_nobody_needs_what_was_there() -> None:
    layers = layers_of("alexnet", 3, 64, width=0.1)
    inplace = {
        name for name, module in Net(layers, 64).named_children() if isinstance(module, nn.ReLU) and module.inplace
    }
    assert inplace == {"relu1", "relu2", "relu3", "relu4", "relu5", "relu6", "relu7"}
    odd = [data(6), relu("r", "data"), fc("f", "data", 2), softmax("f")]
    x = torch.tensor([-1.0]).expand(1, 3, 6, 6).clone()
    Net(odd, 6)(x)
    assert bool((x == -1).all())  # the caller's pictures are left alone


def test_split_and_dots_in_names() -> None:
    layers = [
        data(6),
        conv("a.1", "data", 2, 3),
        Layer(name="s", kind="Split", bottoms=("a.1",), tops=("x", "y")),
        Layer(name="both", kind="Concat", bottoms=("x", "y"), tops=("both",)),
        fc("f", "both", 2),
    ]
    network = Net(layers, 6)
    assert [name for name, _ in network.named_parameters()][:2] == ["a_1.weight", "a_1.bias"]
    assert network(torch.zeros(1, 3, 6, 6)).shape == (1, 2)


def one(kind: str, **options: object) -> list[Layer]:
    return [data(8), Layer(name="odd", kind=kind, bottoms=("data",), tops=("odd",), options=options), fc("f", "odd", 2)]


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        (one("BatchNorm"), UnsupportedLayer, "'BatchNorm' are not read.*odd"),
        (one("LRN", norm_region="WITHIN_CHANNEL"), UnsupportedLayer, "norm_region.*layer odd"),
        (one("LRN", local_size=4), UnsupportedLayer, "local_size.*layer odd"),
        (one("Pooling", pool="STOCHASTIC", kernel_size=2), UnsupportedLayer, "STOCHASTIC.*layer odd"),
        (one("Pooling", kernel_size=2, pad=2), UnsupportedLayer, "half its window.*layer odd"),
        (one("Pooling", kernel_size=1, stride=4), UnsupportedLayer, "last window is empty.*layer odd"),
        (one("Pooling", kernel_size=9), ModelFileError, "smaller than the window.*layer odd"),
        (one("Pooling"), UnsupportedLayer, "kernel_size"),
        (one("Pooling", kernel_size=2, stride=0), UnsupportedLayer, "stride.*>= 1"),
        (one("Convolution", num_output=4, kernel_size=9), ModelFileError, "smaller than the window"),
        (one("Convolution", num_output=4, kernel_size=3, group=2), ModelFileError, "multiples of group 2"),
        (one("Convolution", num_output=4, kernel_size=[1, 2, 3]), UnsupportedLayer, "kernel_size"),
        (one("Convolution", num_output=4, kernel_size=3, axis=2), UnsupportedLayer, "axis"),
        (one("Convolution", kernel_size=3), ModelFileError, "channels of a convolution"),
        (one("InnerProduct", num_output=4, transpose=True), UnsupportedLayer, "transpose"),
        (one("InnerProduct"), ModelFileError, "num_output"),
        (one("InnerProduct", num_output=1 << 40), ModelFileError, "weights of a layer.*layer odd"),
        (one("Concat", axis=2), UnsupportedLayer, "axis"),
        (one("Flatten", axis=2), UnsupportedLayer, "axis"),
        (one("Softmax"), UnsupportedLayer, "end of a net.*layer odd"),
        ([data(8), fc("f", "absent", 2)], ModelFileError, "absent.*f"),
        ([data(8), fc("a", "data", 2), fc("b", "data", 2)], UnsupportedLayer, "several outputs.*a, b"),
        ([data(8), fc("a", "data", 2), fc("a", "a", 2)], UnsupportedLayer, "taken already.*'a'"),
        ([data(8), fc("forward", "data", 2)], UnsupportedLayer, "taken already.*'forward'"),
        ([data(8)], ModelFileError, "without layers"),
        ([], ModelFileError, "without layers"),
        ([data(8), fc("f", "data", 2, weight_filler={"type": "bilinear"})], UnsupportedLayer, "bilinear"),
    ],
)
def test_what_is_not_known_is_refused_by_name(layers: Sequence[Layer], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Net(layers, 8)


def test_networks_of_deploy_files() -> None:
    text = prototxt.write(net_of(layers_of("smoke", 2, 64)))
    network = make_network("caffe", 2, deploy=text)
    assert isinstance(network, Net) and network.side_px == 64 and network.num_classes == 2
    with pytest.raises(WeightsMismatch, match="classes of a network: expected 3, got 2"):
        make_network("caffe", 3, deploy=text)
    with pytest.raises(BadOption, match=r"deploy.prototxt"):
        make_network("caffe", 3)
    assert count(make_network("vgg19", 3, width=0.05)) == count(build("vgg19", 3, width=0.05))


def test_order_of_steps_is_that_of_the_layers() -> None:
    """Children come in the order in which they run: what FT-F and the head are found by."""
    network = Net(layers_of("googlenet", 3, 64, width=0.1), 64)
    places = [[one.name for one in network.layers].index(name) for name, _ in network.named_children()]
    assert all(a < b for a, b in pairwise(places))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smoke", "googlenet"])
def test_networks_can_be_compiled_as_one_graph(name: str) -> None:
    torch.manual_seed(0)
    network = Net(layers_of(name, 3, 64, width=0.25), 64).eval()
    x = torch.randn(2, 3, 64, 64) * 50
    compiled = torch.compile(network, fullgraph=True)
    assert torch.allclose(compiled(x), network(x), rtol=1e-4, atol=1e-5)


def test_a_net_that_ends_without_softmax_gives_its_last_blob() -> None:
    network = Net([data(8), fc("a", "data", 4), relu("r", "a"), dropout("d", "a"), fc("b", "a", 2)], 8)
    assert network.output_blob == "b"
