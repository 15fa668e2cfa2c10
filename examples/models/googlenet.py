"""GoogLeNet (Szegedy et al. 2014) as in BVLC's bvlc_googlenet/deploy.prototxt: without the two side heads.

layer                     kernel/stride, pad         output at 224
data                                                 3 x 224 x 224
conv1/7x7_s2              7/2, pad 3                 64 x 112 x 112
pool1/3x3_s2, pool1/norm1 max 3/2, LRN               64 x 56 x 56
conv2/3x3_reduce          1/1                        64 x 56 x 56
conv2/3x3, conv2/norm2    3/1, pad 1, LRN            192 x 56 x 56
pool2/3x3_s2              max 3/2                    192 x 28 x 28
inception_3a, 3b                                     256 x 28 x 28, 480 x 28 x 28
pool3/3x3_s2              max 3/2                    480 x 14 x 14
inception_4a, ..., 4e                                512, 512, 512, 528, 832 x 14 x 14
pool4/3x3_s2              max 3/2                    832 x 7 x 7
inception_5a, 5b                                     832, 1024 x 7 x 7
pool5/7x7_s1              mean 7/1                   1024 x 1 x 1
pool5/drop_7x7_s1         dropout 0.4                1024
loss3/classifier-retrain  K x 1024                   K

An inception block puts together 1x1; 1x1 then 3x3; 1x1 then 5x5; max 3/1 pad 1 then 1x1. A ReLU follows every
convolution. 6,998,552 parameters with K = 1000. Fillers: xavier, biases 0.2 (train_val.prototxt of bvlc_googlenet; its
`std` beside xavier is not used by Caffe), the head as everywhere here.
"""

from __future__ import annotations

from examples.models.graph import Layer
from examples.models.parts import conv, data, dropout, even, fc, gaussian, lrn, pool, relu, softmax, xavier

HEAD = "loss3/classifier-retrain"
BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels: 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj (table 1 of the paper)."""


def googlenet(num_classes: int, side_px: int = 224, *, width: float = 1.0) -> list[Layer]:
    """GoogLeNet.

    Args:
        num_classes: K.
        side_px: of its input; the last pooling takes all that is left of it.
        width: factor on channels.
    """
    start = xavier(0.2)
    layers = [
        data(side_px),
        conv("conv1/7x7_s2", "data", even(64, width), 7, stride=2, pad=3, **start),
        relu("conv1/relu_7x7", "conv1/7x7_s2"),
        pool("pool1/3x3_s2", "conv1/7x7_s2", 3, 2),
        lrn("pool1/norm1", "pool1/3x3_s2"),
        conv("conv2/3x3_reduce", "pool1/norm1", even(64, width), 1, **start),
        relu("conv2/relu_3x3_reduce", "conv2/3x3_reduce"),
        conv("conv2/3x3", "conv2/3x3_reduce", even(192, width), 3, pad=1, **start),
        relu("conv2/relu_3x3", "conv2/3x3"),
        lrn("conv2/norm2", "conv2/3x3"),
        pool("pool2/3x3_s2", "conv2/norm2", 3, 2),
    ]
    bottom = "pool2/3x3_s2"
    for block, channels in BLOCKS.items():
        layers += _inception(block, bottom, [even(one, width) for one in channels])
        bottom = f"inception_{block}/output"
        if block in ("3b", "4e"):
            after = f"pool{int(block[0])}/3x3_s2"
            layers.append(pool(after, bottom, 3, 2))
            bottom = after
    side = -(-side_px // 2)  # conv1's step rounds up, those of the four poolings of 3/2 down
    for _ in range(4):
        side //= 2
    return [
        *layers,
        pool("pool5/7x7_s1", bottom, side, 1, "AVE"),
        dropout("pool5/drop_7x7_s1", "pool5/7x7_s1", 0.4),
        fc(HEAD, "pool5/7x7_s1", num_classes, **gaussian(0.01, 0.0)),
        softmax(HEAD),
    ]


def _inception(block: str, bottom: str, channels: list[int]) -> list[Layer]:
    """One block: four branches and what puts them together."""
    one, three_in, three, five_in, five, projection = channels
    at, start = f"inception_{block}", xavier(0.2)

    def made(name: str, source: str, num_output: int, kernel: int = 1, pad: int = 0) -> list[Layer]:
        """A convolution and its ReLU."""
        full = f"{at}/{name}"
        return [
            conv(full, source, num_output, kernel, **({"pad": pad} if pad else {}), **start),
            relu(f"{at}/relu_{name}", full),
        ]

    ends = (f"{at}/1x1", f"{at}/3x3", f"{at}/5x5", f"{at}/pool_proj")
    return [
        *made("1x1", bottom, one),
        *made("3x3_reduce", bottom, three_in),
        *made("3x3", f"{at}/3x3_reduce", three, 3, 1),
        *made("5x5_reduce", bottom, five_in),
        *made("5x5", f"{at}/5x5_reduce", five, 5, 2),
        pool(f"{at}/pool", bottom, 3, 1, pad=1),
        *made("pool_proj", f"{at}/pool", projection),
        Layer(name=f"{at}/output", kind="Concat", bottoms=ends, tops=(f"{at}/output",)),
    ]
