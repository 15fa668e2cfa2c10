"""The CNN of You, Luo, Jin and Yang, "Robust Image Sentiment Analysis Using Progressively Trained and Domain
Transferred Deep Networks", AAAI 2015: two convolutions and four fully connected layers.

layer         kernel/stride     weights              output at 227
data                                                 3 x 227 x 227
conv1         11/4              96 x 3 x 11 x 11     96 x 55 x 55
norm1, pool1  LRN, max 3/2                           96 x 27 x 27
conv2         5/2               256 x 96 x 5 x 5     256 x 12 x 12
norm2, pool2  LRN, max 3/2                           256 x 6 x 6
fc3           dropout 0.5       512 x 9216           512
fc4           dropout 0.5       512 x 512            512
fc5                             24 x 512             24
fc8-retrain                     K x 24               K

A ReLU follows every layer with weights but the last. Number and sizes of the layers: two public re-implementations
agree on the convolutions (published), the fully connected ones 512-512-24 are recalled; so are LRN before pooling,
rounding up, and where dropout stands. Fillers are ours (xavier, then a head near 0: the authors' are unknown): five
gaussian layers of 0.01 on top of each other would let nothing through. 5,643,747 parameters with K = 3.
"""

from __future__ import annotations

from examples.models.graph import Layer
from examples.models.parts import HEAD, conv, data, dropout, even, fc, gaussian, lrn, pool, relu, softmax, xavier

SIDE_PX = 227
"""Of the crop, out of a squash to 256 (recalled)."""


def you_cnn(num_classes: int, side_px: int = SIDE_PX, *, width: float = 1.0) -> list[Layer]:
    """The net.

    Args:
        num_classes: K.
        side_px: of its input.
        width: factor on channels.
    """
    start = xavier(0.0)
    return [
        data(side_px),
        conv("conv1", "data", even(96, width), 11, stride=4, **start),
        relu("relu1", "conv1"),
        lrn("norm1", "conv1"),
        pool("pool1", "norm1", 3, 2),
        conv("conv2", "pool1", even(256, width), 5, stride=2, **start),
        relu("relu2", "conv2"),
        lrn("norm2", "conv2"),
        pool("pool2", "norm2", 3, 2),
        fc("fc3", "pool2", even(512, width), **start),
        relu("relu3", "fc3"),
        dropout("drop3", "fc3"),
        fc("fc4", "fc3", even(512, width), **start),
        relu("relu4", "fc4"),
        dropout("drop4", "fc4"),
        fc("fc5", "fc4", even(24, width), **start),
        relu("relu5", "fc5"),
        fc(HEAD, "fc5", num_classes, **gaussian(0.001, 0.0)),
        softmax(HEAD),
    ]
