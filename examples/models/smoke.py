"""A small net with all kinds of layers the others have, for drawn pictures and tests: a pass takes milliseconds.

layer         kernel/stride        weights          output at 64
data                                                3 x 64 x 64
conv1         5/2, pad 2           16 x 3 x 5 x 5   16 x 32 x 32
pool1, norm1  max 3/2, LRN                          16 x 16 x 16
conv2         3/1, pad 1           32 x 16 x 3 x 3  32 x 16 x 16
pool2         max 3/2                               32 x 8 x 8
conv3         3/1, pad 1, 2 groups 64 x 16 x 3 x 3  64 x 8 x 8
pool3         mean 3/2                              64 x 4 x 4
fc4           dropout 0.5          64 x 1024        64
fc8-retrain                        K x 64           K

A ReLU follows every layer with weights but the last. 80,931 parameters with K = 3. Fillers: xavier, which keeps the
size of what comes in, 0..255: so the head begins with gaussian 0.001, and the first loss is near ln K.
"""

from __future__ import annotations

from examples.models.graph import Layer
from examples.models.parts import HEAD, conv, data, dropout, even, fc, gaussian, lrn, pool, relu, softmax, xavier

SIDE_PX, RESIZE_PX = 64, 72
"""The net's square, and what pictures are squashed to before crops of it are taken."""


def smoke(num_classes: int, side_px: int = SIDE_PX, *, width: float = 1.0) -> list[Layer]:
    """The small net.

    Args:
        num_classes: K.
        side_px: of its input.
        width: factor on channels.
    """
    start = xavier(0.0)
    return [
        data(side_px),
        conv("conv1", "data", even(16, width), 5, stride=2, pad=2, **start),
        relu("relu1", "conv1"),
        pool("pool1", "conv1", 3, 2),
        lrn("norm1", "pool1"),
        conv("conv2", "norm1", even(32, width), 3, pad=1, **start),
        relu("relu2", "conv2"),
        pool("pool2", "conv2", 3, 2),
        conv("conv3", "pool2", even(64, width), 3, pad=1, group=2, **start),
        relu("relu3", "conv3"),
        pool("pool3", "conv3", 3, 2, "AVE"),
        fc("fc4", "pool3", even(64, width), **start),
        relu("relu4", "fc4"),
        dropout("drop4", "fc4"),
        fc(HEAD, "fc4", num_classes, **gaussian(0.001, 0.0)),
        softmax(HEAD),
    ]
