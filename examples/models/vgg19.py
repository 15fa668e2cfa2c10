"""VGG-19 (Simonyan and Zisserman 2014, configuration E), layers named as in the released Caffe file.

layers                          weights (each)            output at 224
data                                                      3 x 224 x 224
conv1_1, conv1_2                64 x 3|64 x 3 x 3         64 x 224 x 224
pool1                           max 2/2                   64 x 112 x 112
conv2_1, conv2_2                128 x 64|128 x 3 x 3      128 x 112 x 112
pool2                                                     128 x 56 x 56
conv3_1 ... conv3_4             256 x 128|256 x 3 x 3     256 x 56 x 56
pool3                                                     256 x 28 x 28
conv4_1 ... conv4_4             512 x 256|512 x 3 x 3     512 x 28 x 28
pool4                                                     512 x 14 x 14
conv5_1 ... conv5_4             512 x 512 x 3 x 3         512 x 14 x 14
pool5                                                     512 x 7 x 7
fc6, dropout 0.5                4096 x 25088              4096
fc7, dropout 0.5                4096 x 4096               4096
fc8-retrain                     K x 4096                  K

Convolutions are 3/1 with padding 1; a ReLU follows every layer with weights but the last. 143,667,240 parameters with
K = 1000, 139,582,531 with 3. Fillers: xavier, biases 0: the released file has none, and the paper (section 3.1) says
that Glorot's start does without the shallower net its authors began from.
"""

from __future__ import annotations

from examples.models.graph import Layer
from examples.models.parts import HEAD, conv, data, dropout, even, fc, gaussian, pool, relu, softmax, xavier

BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
"""Convolutions and their channels before each pooling."""


def vgg19(num_classes: int, side_px: int = 224, *, width: float = 1.0) -> list[Layer]:
    """VGG-19.

    Args:
        num_classes: K.
        side_px: of its input.
        width: factor on channels.
    """
    layers, bottom = [data(side_px)], "data"
    for block, (num_convs, channels) in enumerate(BLOCKS, 1):
        for place in range(1, num_convs + 1):
            name = f"conv{block}_{place}"
            layers += [
                conv(name, bottom, even(channels, width), 3, pad=1, **xavier(0.0)),
                relu(f"relu{block}_{place}", name),
            ]
            bottom = name
        layers.append(pool(f"pool{block}", bottom, 2, 2))
        bottom = f"pool{block}"
    for number in ("6", "7"):
        name = f"fc{number}"
        layers += [
            fc(name, bottom, even(4096, width), **xavier(0.0)),
            relu(f"relu{number}", name),
            dropout(f"drop{number}", name),
        ]
        bottom = name
    return [*layers, fc(HEAD, bottom, num_classes, **gaussian(0.01, 0.0)), softmax(HEAD)]
