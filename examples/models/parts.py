"""Short ways to write a network's layers down, one list a layer group."""

from __future__ import annotations

from typing import Any

from examples.models.graph import Layer

HEAD_FILLER = {"type": "gaussian", "std": 0.01}
"""Of a fresh last layer, as in BVLC's models/bvlc_alexnet/train_val.prototxt (fc8)."""
HEAD = "fc8-retrain"
"""Name of the last layer in the authors' released nets (`catalog.TRAINING["head"]`)."""


def even(channels: int, width: float) -> int:
    """A number of channels times `width`, even, so that groups of two still divide it.

    >>> even(96, 1), even(96, 0.1), even(16, 0.01)
    (96, 10, 2)
    """
    return channels if width == 1 else 2 * max(1, round(channels * width / 2))


def gaussian(std: float, bias: float) -> dict[str, Any]:
    """Fillers: normal weights, equal biases."""
    return {"weight_filler": {"type": "gaussian", "std": std}, "bias_filler": {"type": "constant", "value": bias}}


def xavier(bias: float) -> dict[str, Any]:
    """Fillers: Caffe's xavier (uniform, by fan in), equal biases."""
    return {"weight_filler": {"type": "xavier"}, "bias_filler": {"type": "constant", "value": bias}}


def data(side_px: int) -> Layer:
    """The pictures: one at a time, BGR."""
    return Layer(name="data", kind="Input", tops=("data",), options={"shape": {"dim": [1, 3, side_px, side_px]}})


def conv(name: str, bottom: str, num_output: int, kernel: int, **options: Any) -> Layer:
    """A convolution whose blob bears its name."""
    given = {"num_output": num_output, "kernel_size": kernel, **options}
    return Layer(name=name, kind="Convolution", bottoms=(bottom,), tops=(name,), options=given)


def fc(name: str, bottom: str, num_output: int, **options: Any) -> Layer:
    """A fully connected layer whose blob bears its name."""
    given = {"num_output": num_output, **options}
    return Layer(name=name, kind="InnerProduct", bottoms=(bottom,), tops=(name,), options=given)


def relu(name: str, blob: str) -> Layer:
    """max(x, 0), in place."""
    return Layer(name=name, kind="ReLU", bottoms=(blob,), tops=(blob,))


def lrn(name: str, bottom: str) -> Layer:
    """LRN as all nets of that time have it: 5 channels, alpha 1e-4, beta 0.75."""
    given = {"local_size": 5, "alpha": 0.0001, "beta": 0.75}
    return Layer(name=name, kind="LRN", bottoms=(bottom,), tops=(name,), options=given)


def pool(name: str, bottom: str, kernel: int, stride: int, kind: str = "MAX", **options: Any) -> Layer:
    """Pooling whose blob bears its name."""
    given = {"pool": kind, "kernel_size": kernel, "stride": stride, **options}
    return Layer(name=name, kind="Pooling", bottoms=(bottom,), tops=(name,), options=given)


def dropout(name: str, blob: str, ratio: float = 0.5) -> Layer:
    """Dropout, in place."""
    return Layer(name=name, kind="Dropout", bottoms=(blob,), tops=(blob,), options={"dropout_ratio": ratio})


def softmax(bottom: str) -> Layer:
    """The end of a deploy file."""
    return Layer(name="prob", kind="Softmax", bottoms=(bottom,), tops=("prob",))
