"""The messages of Caffe's files that are read or written here: field -> number and kind.

From caffe.proto of BVLC/caffe. Fields that are not listed are skipped by readers, so that files of forks (NVIDIA's,
Intel's, SSD's) can be read; layers that are not listed are refused later, by name.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """A field of a message."""

    number: int
    kind: str
    """int, uint, bool, float, double, string, or the name of an enum or of a message."""
    repeated: bool = False
    packed: bool = False
    """Written as one run of numbers (readers take both ways). Packed floats are arrays, other repeated fields lists."""


def _many(number: int, kind: str, packed: bool = False) -> Field:
    return Field(number, kind, True, packed)


V1_KINDS: dict[str, tuple[int, str]] = {
    "ABSVAL": (35, "AbsVal"),
    "ACCURACY": (1, "Accuracy"),
    "ARGMAX": (30, "ArgMax"),
    "BNLL": (2, "BNLL"),
    "CONCAT": (3, "Concat"),
    "CONTRASTIVE_LOSS": (37, "ContrastiveLoss"),
    "CONVOLUTION": (4, "Convolution"),
    "DATA": (5, "Data"),
    "DECONVOLUTION": (39, "Deconvolution"),
    "DROPOUT": (6, "Dropout"),
    "DUMMY_DATA": (32, "DummyData"),
    "ELTWISE": (25, "Eltwise"),
    "EUCLIDEAN_LOSS": (7, "EuclideanLoss"),
    "EXP": (38, "Exp"),
    "FLATTEN": (8, "Flatten"),
    "HDF5_DATA": (9, "HDF5Data"),
    "HDF5_OUTPUT": (10, "HDF5Output"),
    "HINGE_LOSS": (28, "HingeLoss"),
    "IM2COL": (11, "Im2col"),
    "IMAGE_DATA": (12, "ImageData"),
    "INFOGAIN_LOSS": (13, "InfogainLoss"),
    "INNER_PRODUCT": (14, "InnerProduct"),
    "LRN": (15, "LRN"),
    "MEMORY_DATA": (29, "MemoryData"),
    "MULTINOMIAL_LOGISTIC_LOSS": (16, "MultinomialLogisticLoss"),
    "MVN": (34, "MVN"),
    "NONE": (0, ""),
    "POOLING": (17, "Pooling"),
    "POWER": (26, "Power"),
    "RELU": (18, "ReLU"),
    "SIGMOID": (19, "Sigmoid"),
    "SIGMOID_CROSS_ENTROPY_LOSS": (27, "SigmoidCrossEntropyLoss"),
    "SILENCE": (36, "Silence"),
    "SLICE": (33, "Slice"),
    "SOFTMAX": (20, "Softmax"),
    "SOFTMAX_LOSS": (21, "SoftmaxWithLoss"),
    "SPLIT": (22, "Split"),
    "TANH": (23, "TanH"),
    "THRESHOLD": (31, "Threshold"),
    "WINDOW_DATA": (24, "WindowData"),
}
"""Of the legacy format: name -> number, and the type string that took its place (upgrade_proto.cpp)."""

ENUMS: dict[str, dict[str, int]] = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "V1Kind": {name: number for name, (number, _) in V1_KINDS.items()},
    "Region": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "Pool": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "Backend": {"LEVELDB": 0, "LMDB": 1},
    "SolverMode": {"CPU": 0, "GPU": 1},
}

_OF_KINDS: dict[str, tuple[int, int, str]] = {  # field -> number in LayerParameter, in V1LayerParameter, message
    "concat_param": (104, 9, "ConcatParameter"),
    "convolution_param": (106, 10, "ConvolutionParameter"),
    "data_param": (107, 11, "DataParameter"),
    "dropout_param": (108, 12, "DropoutParameter"),
    "inner_product_param": (117, 17, "InnerProductParameter"),
    "lrn_param": (118, 18, "LRNParameter"),
    "pooling_param": (121, 19, "PoolingParameter"),
    "relu_param": (123, 30, "ReLUParameter"),
    "softmax_param": (125, 39, "SoftmaxParameter"),
}

KIND_FIELDS: dict[str, str] = {
    "Concat": "concat_param",
    "Convolution": "convolution_param",
    "Data": "data_param",
    "Dropout": "dropout_param",
    "Flatten": "flatten_param",
    "InnerProduct": "inner_product_param",
    "Input": "input_param",
    "LRN": "lrn_param",
    "Pooling": "pooling_param",
    "ReLU": "relu_param",
    "Softmax": "softmax_param",
}
"""Type string of a layer -> the field that holds its options."""

MESSAGES: dict[str, dict[str, Field]] = {
    "BlobShape": {"dim": _many(1, "int", True)},
    "BlobProto": {
        "num": Field(1, "int"),
        "channels": Field(2, "int"),
        "height": Field(3, "int"),
        "width": Field(4, "int"),
        "data": _many(5, "float", True),
        "shape": Field(7, "BlobShape"),
        "double_data": _many(8, "double", True),
    },
    "NetParameter": {
        "name": Field(1, "string"),
        "layers": _many(2, "V1LayerParameter"),
        "input": _many(3, "string"),
        "input_dim": _many(4, "int"),
        "input_shape": _many(8, "BlobShape"),
        "layer": _many(100, "LayerParameter"),
    },
    "NetStateRule": {
        "phase": Field(1, "Phase"),
        "min_level": Field(2, "int"),
        "max_level": Field(3, "int"),
        "stage": _many(4, "string"),
        "not_stage": _many(5, "string"),
    },
    "ParamSpec": {"name": Field(1, "string"), "lr_mult": Field(3, "float"), "decay_mult": Field(4, "float")},
    "LayerParameter": {
        "name": Field(1, "string"),
        "type": Field(2, "string"),
        "bottom": _many(3, "string"),
        "top": _many(4, "string"),
        "loss_weight": _many(5, "float"),
        "param": _many(6, "ParamSpec"),
        "blobs": _many(7, "BlobProto"),
        "include": _many(8, "NetStateRule"),
        "exclude": _many(9, "NetStateRule"),
        "phase": Field(10, "Phase"),
        "transform_param": Field(100, "TransformationParameter"),
        "accuracy_param": Field(102, "AccuracyParameter"),
        **{name: Field(number, message) for name, (number, _, message) in _OF_KINDS.items()},
        "flatten_param": Field(135, "FlattenParameter"),
        "input_param": Field(143, "InputParameter"),
    },
    "V1LayerParameter": {
        "layer": Field(1, "V0LayerParameter"),
        "bottom": _many(2, "string"),
        "top": _many(3, "string"),
        "name": Field(4, "string"),
        "type": Field(5, "V1Kind"),
        "blobs": _many(6, "BlobProto"),
        "blobs_lr": _many(7, "float"),
        "weight_decay": _many(8, "float"),
        **{name: Field(number, message) for name, (_, number, message) in _OF_KINDS.items()},
        "include": _many(32, "NetStateRule"),
        "exclude": _many(33, "NetStateRule"),
        "transform_param": Field(36, "TransformationParameter"),
    },
    "V0LayerParameter": {"name": Field(1, "string"), "type": Field(2, "string")},
    "TransformationParameter": {
        "scale": Field(1, "float"),
        "mirror": Field(2, "bool"),
        "crop_size": Field(3, "uint"),
        "mean_file": Field(4, "string"),
        "mean_value": _many(5, "float"),
    },
    "FillerParameter": {
        "type": Field(1, "string"),
        "value": Field(2, "float"),
        "min": Field(3, "float"),
        "max": Field(4, "float"),
        "mean": Field(5, "float"),
        "std": Field(6, "float"),
        "sparse": Field(7, "int"),
    },
    "AccuracyParameter": {"top_k": Field(1, "uint")},
    "ConcatParameter": {"concat_dim": Field(1, "uint"), "axis": Field(2, "int")},
    "ConvolutionParameter": {
        "num_output": Field(1, "uint"),
        "bias_term": Field(2, "bool"),
        "pad": _many(3, "uint"),
        "kernel_size": _many(4, "uint"),
        "group": Field(5, "uint"),
        "stride": _many(6, "uint"),
        "weight_filler": Field(7, "FillerParameter"),
        "bias_filler": Field(8, "FillerParameter"),
        "pad_h": Field(9, "uint"),
        "pad_w": Field(10, "uint"),
        "kernel_h": Field(11, "uint"),
        "kernel_w": Field(12, "uint"),
        "stride_h": Field(13, "uint"),
        "stride_w": Field(14, "uint"),
        "axis": Field(16, "int"),
        "dilation": _many(18, "uint"),
    },
    "DataParameter": {
        "source": Field(1, "string"),
        "scale": Field(2, "float"),
        "mean_file": Field(3, "string"),
        "batch_size": Field(4, "uint"),
        "crop_size": Field(5, "uint"),
        "mirror": Field(6, "bool"),
        "backend": Field(8, "Backend"),
    },
    "DropoutParameter": {"dropout_ratio": Field(1, "float")},
    "FlattenParameter": {"axis": Field(1, "int"), "end_axis": Field(2, "int")},
    "InnerProductParameter": {
        "num_output": Field(1, "uint"),
        "bias_term": Field(2, "bool"),
        "weight_filler": Field(3, "FillerParameter"),
        "bias_filler": Field(4, "FillerParameter"),
        "axis": Field(5, "int"),
        "transpose": Field(6, "bool"),
    },
    "InputParameter": {"shape": _many(1, "BlobShape")},
    "LRNParameter": {
        "local_size": Field(1, "uint"),
        "alpha": Field(2, "float"),
        "beta": Field(3, "float"),
        "norm_region": Field(4, "Region"),
        "k": Field(5, "float"),
    },
    "PoolingParameter": {
        "pool": Field(1, "Pool"),
        "kernel_size": Field(2, "uint"),
        "stride": Field(3, "uint"),
        "pad": Field(4, "uint"),
        "kernel_h": Field(5, "uint"),
        "kernel_w": Field(6, "uint"),
        "stride_h": Field(7, "uint"),
        "stride_w": Field(8, "uint"),
        "pad_h": Field(9, "uint"),
        "pad_w": Field(10, "uint"),
        "global_pooling": Field(12, "bool"),
        "round_mode": Field(13, "RoundMode"),
    },
    "ReLUParameter": {"negative_slope": Field(1, "float")},
    "SoftmaxParameter": {"axis": Field(2, "int")},
    "SolverParameter": {
        "test_iter": _many(3, "int"),
        "test_interval": Field(4, "int"),
        "base_lr": Field(5, "float"),
        "display": Field(6, "int"),
        "max_iter": Field(7, "int"),
        "lr_policy": Field(8, "string"),
        "gamma": Field(9, "float"),
        "power": Field(10, "float"),
        "momentum": Field(11, "float"),
        "weight_decay": Field(12, "float"),
        "stepsize": Field(13, "int"),
        "snapshot": Field(14, "int"),
        "snapshot_prefix": Field(15, "string"),
        "solver_mode": Field(17, "SolverMode"),
        "random_seed": Field(20, "int"),
        "net": Field(24, "string"),
        "stepvalue": _many(34, "int"),
        "iter_size": Field(36, "int"),
        "type": Field(40, "string"),
    },
}
