"""AlexNet in Caffe's two readings: with LRN before pooling (BVLC AlexNet) and after it (CaffeNet).

The weights of one fit the other without an error, and give other numbers. The paper's hybrid net is the first (the
authors' converted alexnet.py, which has LRN before pooling).

layer        kernel/stride, pad, groups   weights              output at 224     at 227
data                                                           3 x 224 x 224     3 x 227 x 227
conv1        11/4                         96 x 3 x 11 x 11     96 x 54 x 54      96 x 55 x 55
norm1        LRN 5, 1e-4, 0.75                                 96 x 54 x 54      96 x 55 x 55
pool1        max 3/2, rounding up                              96 x 27 x 27      96 x 27 x 27
conv2        5/1, pad 2, 2 groups         256 x 48 x 5 x 5     256 x 27 x 27     256 x 27 x 27
norm2        LRN 5, 1e-4, 0.75                                 256 x 27 x 27     256 x 27 x 27
pool2        max 3/2                                           256 x 13 x 13     256 x 13 x 13
conv3        3/1, pad 1                   384 x 256 x 3 x 3    384 x 13 x 13     384 x 13 x 13
conv4        3/1, pad 1, 2 groups         384 x 192 x 3 x 3    384 x 13 x 13     384 x 13 x 13
conv5        3/1, pad 1, 2 groups         256 x 192 x 3 x 3    256 x 13 x 13     256 x 13 x 13
pool5        max 3/2                                           256 x 6 x 6       256 x 6 x 6
fc6          dropout 0.5                  4096 x 9216          4096              4096
fc7          dropout 0.5                  4096 x 4096          4096              4096
fc8-retrain                               K x 4096             K                 K

A ReLU follows every layer with weights but the last. 60,965,224 parameters with K = 1000, 56,880,515 with 3.
Fillers: models/bvlc_alexnet and models/bvlc_reference_caffenet, train_val.prototxt, of BVLC/caffe: gaussian, 0.01 for
convolutions and the head, 0.005 for fc6 and fc7; biases of 0 for conv1, conv3 and the head, else 0.1 (AlexNet) or 1
(CaffeNet).
"""

from __future__ import annotations

from examples.models.graph import Layer
from examples.models.parts import HEAD, conv, data, dropout, even, fc, gaussian, lrn, pool, relu, softmax


def alexnet(num_classes: int, side_px: int = 224, *, width: float = 1.0, caffenet: bool = False) -> list[Layer]:
    """BVLC AlexNet, or CaffeNet.

    Args:
        num_classes: K.
        side_px: 224 in DIGITS' nets, 227 in BVLC's files.
        width: factor on channels.
        caffenet: pool before LRN.
    """
    bias = 1.0 if caffenet else 0.1
    low, high, dense = gaussian(0.01, 0.0), gaussian(0.01, bias), gaussian(0.005, bias)

    def narrow(place: str, bottom: str) -> list[Layer]:
        """LRN and pooling, in either order."""
        norm, small = f"norm{place}", f"pool{place}"
        if caffenet:
            return [pool(small, bottom, 3, 2), lrn(norm, small)]
        return [lrn(norm, bottom), pool(small, norm, 3, 2)]

    last = "norm" if caffenet else "pool"
    return [
        data(side_px),
        conv("conv1", "data", even(96, width), 11, stride=4, **low),
        relu("relu1", "conv1"),
        *narrow("1", "conv1"),
        conv("conv2", f"{last}1", even(256, width), 5, pad=2, group=2, **high),
        relu("relu2", "conv2"),
        *narrow("2", "conv2"),
        conv("conv3", f"{last}2", even(384, width), 3, pad=1, **low),
        relu("relu3", "conv3"),
        conv("conv4", "conv3", even(384, width), 3, pad=1, group=2, **high),
        relu("relu4", "conv4"),
        conv("conv5", "conv4", even(256, width), 3, pad=1, group=2, **high),
        relu("relu5", "conv5"),
        pool("pool5", "conv5", 3, 2),
        fc("fc6", "pool5", even(4096, width), **dense),
        relu("relu6", "fc6"),
        dropout("drop6", "fc6"),
        fc("fc7", "fc6", even(4096, width), **dense),
        relu("relu7", "fc7"),
        dropout("drop7", "fc7"),
        fc(HEAD, "fc7", num_classes, **gaussian(0.01, 0.0)),
        softmax(HEAD),
    ]
