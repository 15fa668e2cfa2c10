"""Networks side by side, and what an archive says of itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.caffe import (
    compare_graph,
    prototxt,
    read_archive,
)
from examples.caffe.importing import lrn_and_pooling
from examples.caffe.net import layers_of, net_of
from examples.caffe.showing import show_archive
from examples.models import layers_of as named
from examples.models.graph import Net

# isort: split
from tests.caffe_helpers import (
    TRAIN_VAL,
    bytes_of,
    digits_files,
    small,
    tar_of,
)


@pytest.fixture(scope="module")
def net() -> Net:
    return small("smoke", 64, 0.5)


def test_the_same_network_under_other_names_is_the_same() -> None:
    ours = named("alexnet", 3, 224)
    renamed = [
        replace(one, name=one.name.replace("relu", "rectify").replace("fc8-retrain", "fc8"))
        for one in named("hybrid", 1000)
    ]
    assert compare_graph(renamed, ours) == []
    text = prototxt.write(net_of(ours))
    assert compare_graph(layers_of(prototxt.parse(text))[0], ours) == []


def test_orders_of_lrn_and_pooling_are_told_apart() -> None:
    lines = compare_graph(named("caffenet"), named("alexnet"))
    assert [line.split(":")[0] for line in lines] == ["conv2", "conv3"]
    assert "is fed by conv1 > ReLU > max 3x3/2 > LRN 5 0.0001 0.75 1" in lines[0]
    assert "expected conv1 > ReLU > LRN 5 0.0001 0.75 1 > max 3x3/2" in lines[0]
    assert lrn_and_pooling(named("alexnet")) == "LRN, then pooling (AlexNet)"
    assert lrn_and_pooling(named("caffenet")) == "pooling, then LRN (CaffeNet)"
    assert lrn_and_pooling(named("vgg19")) == "no LRN"


def _option(name: str, **options: Any) -> Callable[[Any], Any]:
    def change(layers: Any) -> Any:
        return [replace(one, options={**one.options, **options}) if one.name == name else one for one in layers]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_option("norm1", alpha=1.0), "LRN 5 1 0.75 1"),
        (_option("pool1", pool="AVE"), "mean 3x3/2"),
        (_option("pool1", round_mode="FLOOR"), "rounded down"),
        (_option("pool5", pad=1), "max 3x3/2 pad 1"),
        (
            _option("conv2", group=1),
            "conv2: is convolution 256 5x5/1 pad 2, expected convolution 256 5x5/1 pad 2, 2 groups",
        ),
        (_option("conv1", stride=2), "11x11/2"),
        (_option("fc6", num_output=2048), "fully connected 2048"),
        (_option("fc7", bias_term=False), "without bias"),
        (_option("relu3", negative_slope=0.1), "ReLU 0.1"),
        (
            lambda layers: [one for one in layers if one.name != "relu4"],
            "conv5: is fed by conv4, expected conv4 > ReLU",
        ),
        (
            lambda layers: [replace(one, name="fc6_new") if one.name == "fc6" else one for one in layers],
            "fc6_new: only",
        ),
    ],
)
def test_any_difference_that_changes_numbers_is_told(change: Any, words: str) -> None:
    lines = compare_graph(change(named("alexnet")), named("alexnet"))
    assert any(words in line for line in lines), lines


def test_differences_in_a_branch_are_told() -> None:
    lines = compare_graph(_option("inception_3a/pool", pool="AVE")(named("googlenet")), named("googlenet"))
    assert len(lines) == 1 and lines[0].startswith("inception_3a/pool_proj")


def test_show_says_what_is_asked(net: Net, tmp_path: Path) -> None:
    text = TRAIN_VAL.format('mirror: true crop_size: 64 mean_file: "mean.binaryproto"').encode()
    solver = (
        b'base_lr: 0.001 lr_policy: "step" gamma: 0.1 stepsize: 28512 weight_decay: 1e-05 max_iter: 86400 iter_size: 2'
    )
    files = digits_files(net, train_val__prototxt=text, solver__prototxt=solver, labels__txt=b"0\n1\n2\n")
    said = show_archive(read_archive(tar_of(tmp_path / "x.tar.gz", files)))
    rows = {
        line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in said.splitlines() if not line.startswith(" ")
    }
    assert rows["resize mode"] == "squash" and rows["DIGITS version"] == "3.0" and rows["mirror"] == "yes"
    assert rows["labels"] == "0, 1, 2" and rows["read as"] == "negative, neutral, positive"
    assert rows["mean.binaryproto"].startswith("3 x 72 x 72, whole numbers; mean of B G R: 124.")
    assert rows["mean used"] == "image, mean_file of train_val.prototxt" and rows["training crop"] == "64 px"
    assert rows["weight decay"] == "1e-05" and rows["step"] == "28512" and rows["iterations"] == "86400"
    assert rows["network input"] == "1 x 3 x 64 x 64" and rows["LRN and pooling"].startswith("pooling, then LRN")
    assert rows["iteration"] == "34560" and rows["caffe version"] == "not said"


def test_show_names_the_net_it_is(tmp_path: Path) -> None:
    text = prototxt.write(net_of(named("hybrid", 3, 227))).encode()
    (tmp_path / "deploy.prototxt").write_bytes(text)
    said = show_archive(read_archive(tmp_path))
    assert re.search("^same net as +alexnet, hybrid$", said, re.MULTILINE)


def test_show_goes_on_where_something_is_missing(net: Net, tmp_path: Path) -> None:
    files = {
        "labels.txt": b"cat\ndog\nbird\n",
        "mean.binaryproto": b"\x00",
        "snapshot_iter_5.caffemodel": bytes_of(net)[:99],
    }
    said = show_archive(read_archive(tar_of(tmp_path / "x.tar.gz", files)))
    assert "network           cannot be read: no deploy file" in said
    assert "weights           cannot be read: LayerParameter.blobs" in said or "truncated file" in said
    assert "cat, dog, bird" in said and "each once, got cat" in said
