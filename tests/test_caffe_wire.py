"""Caffe's binary and text formats: against Google's protobuf, for any message, and against damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.caffe import prototxt, wire
from examples.caffe.net import layers_of, net_of, upgrade, weights_of
from examples.caffe.schema import ENUMS, KIND_FIELDS, MESSAGES, Field
from examples.errors import ModelFileError, UnsupportedLayer
from t4sa_data.errors import InputMissing

# isort: split
from tests.caffe_helpers import bytes_of, from_protobuf, legacy_of, protobuf, same, small, text_of, to_protobuf

FLOAT32 = st.floats(width=32).map(wire.shortest)
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-2, 300),
    "uint": st.integers(0, (1 << 64) - 1) | st.integers(0, 300),
    "bool": st.booleans(),
    "float": FLOAT32,
    "double": st.floats(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
}


def a_value(kind: str) -> st.SearchStrategy[Any]:
    if kind in MESSAGES:
        return st.deferred(lambda: a_message(kind))
    return st.sampled_from(sorted(ENUMS[kind])) if kind in ENUMS else SCALARS[kind]


def a_field(field: Field) -> st.SearchStrategy[Any]:
    if not field.repeated:
        return a_value(field.kind)
    if field.packed and field.kind in ("float", "double"):
        dtype = "<f4" if field.kind == "float" else "<f8"
        width = 32 if field.kind == "float" else 64
        return st.lists(st.floats(width=width, allow_nan=False), min_size=1, max_size=5).map(
            lambda v: np.array(v, dtype)
        )
    return st.lists(a_value(field.kind), min_size=1, max_size=3)


def a_message(name: str) -> st.SearchStrategy[dict[str, Any]]:
    """A message with some of its fields."""
    fields = MESSAGES[name]
    chosen = st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=3)
    return chosen.flatmap(lambda words: st.fixed_dictionaries({word: a_field(fields[word]) for word in words}))


ANY = st.sampled_from(["NetParameter", "LayerParameter", "V1LayerParameter", "SolverParameter", "BlobProto"]).flatmap(
    lambda name: st.tuples(st.just(name), a_message(name))
)


@settings(max_examples=80, deadline=None)
@given(ANY)
def test_bytes_are_protobufs_own_and_read_back(case: tuple[str, dict[str, Any]]) -> None:
    name, value = case
    data = wire.encode(value, name)
    assert data == to_protobuf(value, name).SerializeToString(deterministic=True)
    assert same(wire.decode(data, name), value)
    assert same(from_protobuf(protobuf()[name].FromString(data), name), value)


@settings(max_examples=80, deadline=None)
@given(ANY)
def test_text_reads_back_and_protobuf_understands_it(case: tuple[str, dict[str, Any]]) -> None:
    from google.protobuf import text_format

    name, value = case
    text = prototxt.write(value, name)
    assert same(prototxt.parse(text, name), value)
    assert prototxt.write(prototxt.parse(text, name), name) == text
    theirs = text_format.Parse(text, protobuf()[name]())
    assert theirs.SerializeToString(deterministic=True) == wire.encode(value, name)
    for one_line in (False, True):
        ours = prototxt.parse(text_format.MessageToString(theirs, as_one_line=one_line), name)
        assert wire.encode(ours, name) == wire.encode(value, name)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers())
def test_bytes_of_anything_are_read_or_refused_by_name(data: bytes, place: int) -> None:
    """Noise, and good bytes with one of them changed: no other error comes out."""
    good = bytearray(wire.encode(EXAMPLE, "NetParameter"))
    for one in (data, bytes(good[: place % len(good)]), bytes(good[: place % len(good)] + data)):
        try:
            net = wire.decode(one, "NetParameter")
            layers_of(net)
            weights_of(net)
        except ModelFileError as error:
            assert str(error)


EXAMPLE: dict[str, Any] = {
    "name": "n",
    "layer": [
        {"name": "data", "type": "Input", "top": ["data"], "input_param": {"shape": [{"dim": [1, 3, 8, 8]}]}},
        {
            "name": "fc",
            "type": "InnerProduct",
            "bottom": ["data"],
            "top": ["fc"],
            "blobs": [{"data": np.arange(192, dtype="<f4"), "shape": {"dim": [1, 192]}}],
            "inner_product_param": {"num_output": 1, "bias_term": False},
        },
    ],
}


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=40) | st.text("{}<>[]:;,\"'#\n layernm1.0", max_size=40))
def test_text_of_anything_is_read_or_refused_by_name(text: str) -> None:
    try:
        layers_of(prototxt.parse(text))
    except ModelFileError as error:
        assert str(error)


# Numbers of the fields, from caffe.proto, typed a second time: the schema is the source of the oracle above.
NUMBERS = {
    "NetParameter": "name=1 layers=2 input=3 input_dim=4 input_shape=8 layer=100",
    "BlobProto": "num=1 channels=2 height=3 width=4 data=5 shape=7 double_data=8",
    "V1LayerParameter": (
        "bottom=2 top=3 name=4 type=5 blobs=6 concat_param=9 convolution_param=10 dropout_param=12 "
        "inner_product_param=17 lrn_param=18 pooling_param=19 relu_param=30"
    ),
    "LayerParameter": (
        "name=1 type=2 bottom=3 top=4 blobs=7 include=8 exclude=9 concat_param=104 convolution_param=106 "
        "dropout_param=108 inner_product_param=117 lrn_param=118 pooling_param=121 relu_param=123 "
        "flatten_param=135 input_param=143 transform_param=100"
    ),
    "ConvolutionParameter": (
        "num_output=1 bias_term=2 pad=3 kernel_size=4 group=5 stride=6 weight_filler=7 bias_filler=8 pad_h=9 "
        "pad_w=10 kernel_h=11 kernel_w=12 stride_h=13 stride_w=14 axis=16 dilation=18"
    ),
    "PoolingParameter": "pool=1 kernel_size=2 stride=3 pad=4 global_pooling=12 round_mode=13",
    "LRNParameter": "local_size=1 alpha=2 beta=3 norm_region=4 k=5",
    "InnerProductParameter": "num_output=1 bias_term=2 axis=5 transpose=6",
    "SolverParameter": (
        "base_lr=5 max_iter=7 lr_policy=8 gamma=9 momentum=11 weight_decay=12 stepsize=13 iter_size=36 type=40 net=24"
    ),
}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_numbers_of_fields(name: str) -> None:
    typed = dict(one.split("=") for one in NUMBERS[name].split())
    assert {word: str(MESSAGES[name][word].number) for word in typed} == typed


def test_the_schema_holds_together() -> None:
    for name, fields in MESSAGES.items():
        numbers = [field.number for field in fields.values()]
        assert len(set(numbers)) == len(numbers), name
        for field in fields.values():
            assert field.kind in MESSAGES or field.kind in ENUMS or field.kind in SCALARS
    assert set(KIND_FIELDS.values()) <= MESSAGES["LayerParameter"].keys()


# Files of nets.


def test_a_caffemodel_is_protobufs_byte_for_byte() -> None:
    net = small("alexnet", 224, 0.05)
    data = bytes_of(net)
    assert data == to_protobuf(wire.decode(data, "NetParameter"), "NetParameter").SerializeToString(deterministic=True)


def test_legacy_is_read_as_new() -> None:
    net = small("alexnet", 224, 0.05)
    new = net_of(net.layers, weights=net.state_dict())
    old = wire.decode(wire.encode(legacy_of(new, 224), "NetParameter"), "NetParameter")
    ours, theirs = weights_of(old), weights_of(new)
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)
    assert [layer.kind for layer in layers_of(old)[0]] == [layer.kind for layer in net.layers]
    assert layers_of(old)[1] == (10, 3, 224, 224)
    assert upgrade({"layers": [{"name": "c", "type": "RELU", "blobs_lr": [1.0, 2.0], "weight_decay": [1.0, 0.0]}]}) == {
        "layer": [
            {
                "name": "c",
                "type": "ReLU",
                "param": [{"lr_mult": 1.0, "decay_mult": 1.0}, {"lr_mult": 2.0, "decay_mult": 0.0}],
            }
        ]
    }


def test_weights_look_into_the_file(tmp_path: Path) -> None:
    """Nothing is copied: half a gigabyte is parsed in a millisecond."""
    path = tmp_path / "x.caffemodel"
    path.write_bytes(bytes_of(small("smoke", 64, 1.0)))
    net = wire.decode(wire.map_file(path), "NetParameter")
    assert all(not blob["data"].flags.owndata for layer in net["layer"] for blob in layer.get("blobs", []))


def test_unpacked_floats_doubles_and_both_kinds_of_runs_are_read() -> None:
    one = b"\x2d" + np.float32(1.5).tobytes()  # field 5, fixed32
    many = b"\x2a\x08" + np.array([2, 3], "<f4").tobytes()
    assert wire.decode(one + many + one, "BlobProto")["data"].tolist() == [1.5, 2, 3, 1.5]
    packed_dims = wire.decode(b"\x0a\x02\x03\x04\x08\x05", "BlobShape")
    assert packed_dims == {"dim": [3, 4, 5]}
    blob = wire.encode({"shape": {"dim": [2]}, "double_data": np.array([0.1, 0.2])}, "BlobProto")
    layer = {
        "name": "fc",
        "type": "InnerProduct",
        "blobs": [wire.decode(blob, "BlobProto") | {"shape": {"dim": [1, 2]}}],
    }
    assert weights_of({"layer": [layer]})["fc.weight"].tolist() == [[np.float32(0.1), np.float32(0.2)]]


def test_numbers_at_their_limits() -> None:
    for name, field, value in [
        ("TransformationParameter", "crop_size", (1 << 64) - 1),
        ("ConcatParameter", "axis", -(1 << 63)),
        ("ConcatParameter", "axis", (1 << 63) - 1),
    ]:
        assert wire.decode(wire.encode({field: value}, name), name) == {field: value}


def test_fields_of_forks_are_skipped() -> None:
    data = wire.encode(EXAMPLE, "NetParameter")
    more = b"\x80\x7d\x01" + b"\x8a\x7d\x03abc" + b"\x95\x7d1234" + b"\x91\x7d12345678"  # numbers 2000, 2001, 2002
    assert same(wire.decode(more + data + more, "NetParameter"), EXAMPLE)
    text = 'nv { a: 1 b { c: "x" } d: [1, 2] e < f: G > } debug_info: true name: "n"'
    assert prototxt.parse(text) == {"name": "n"}


@pytest.mark.parametrize(
    "text",
    [
        'name: "n" layer { name: "c" type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 } }',
        "name: 'n'; layer: < name: \"c\", type: 'Convolution' convolution_param < num_output: 0x4 kernel_size: [3] > >",
        '# a comment\nname: "n" # another\nlayer { name: "c" type: "Convo" \'lution\'\n convolution_param: '
        "{ num_output: 04, kernel_size: 3; } }",
        'name: "\\x6e" layer [{ name: "\\143" type: "Convolution" '
        "convolution_param { kernel_size: 3 num_output: 4 } }]",
    ],
)
def test_ways_to_write_the_same(text: str) -> None:
    layer = {"name": "c", "type": "Convolution", "convolution_param": {"num_output": 4, "kernel_size": [3]}}
    assert prototxt.parse(text) == {"name": "n", "layer": [layer]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name: "n', "line 1"),
        ("layer {\n name: 1 }", "line 2"),
        ("layer {", "line 1"),
        ("layer { } }", "name of a field"),
        ("layer { convolution_param { num_output: many } }", "uint"),
        ("layer { convolution_param { num_output: -1 } }", "uint"),
        ("layer { pooling_param { pool: MEAN } }", "Pool"),
        ("layer { convolution_param: 3 }", "value"),
        ('name { a: "b" }', "message where a value"),
        ("layer { phase: [TRAIN, TEST] }", "several values"),
        ("a { " * 100, "within each other"),
        (" " * (5 << 20), "longer than any network"),
        ("<html><body>401</body></html>", "not a prototxt"),
        ("layer { inner_product_param { bias_term: 2 } }", "bool"),
    ],
)
def test_bad_text_is_refused(text: str, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        prototxt.parse(text)


def test_cut_files_are_refused_where_they_were_cut() -> None:
    """At every byte: an error, or fewer layers, which the weights then miss; never wrong numbers."""
    data = bytes_of(small("smoke", 64, 0.1))
    whole = weights_of(wire.decode(data, "NetParameter"))
    told = 0
    for stop in range(0, len(data), 7):
        try:
            part = weights_of(wire.decode(data[:stop], "NetParameter"))
        except ModelFileError as error:
            told += "truncated file" in str(error)
            continue
        assert part.keys() < whole.keys() and all((part[name] == whole[name]).all() for name in part)
    assert told > len(data) / 7 * 0.9
    with pytest.raises(ModelFileError, match=r"field 100 at byte \d+ runs past the end \(\d+ > \d+\): truncated file"):
        wire.decode(data[: len(data) // 2], "NetParameter")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>", "not a Caffe file"),
        (b"\x00\x00\x00\x00", "not a Caffe file"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "64 bits"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0a\x02\xff\xfe", "no text"),
        (b"\x08\x01", "wire type 2, got 0"),
        (b"\xa2\x06\x05\x3a\x03\x2a\x01\x00", "length of a run"),
    ],
)
def test_other_bytes_are_refused(data: bytes, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        wire.decode(data, "NetParameter")


def test_what_has_no_weights_is_refused(tmp_path: Path) -> None:
    """An empty file is an empty net to protobuf."""
    with pytest.raises(ModelFileError, match="no weights"):
        weights_of(wire.decode(b"", "NetParameter"))
    (tmp_path / "empty").touch()
    with pytest.raises(ModelFileError, match="empty file"):
        wire.map_file(tmp_path / "empty")
    with pytest.raises(InputMissing, match="cannot read"):
        wire.map_file(tmp_path / "absent")
    bad = {"name": "fc", "type": "InnerProduct", "blobs": [{"data": np.zeros(3, "<f4"), "shape": {"dim": [2, 2]}}]}
    with pytest.raises(ModelFileError, match=r"numbers of a blob: expected \[2, 2\], got 3 \[fc.weight\]"):
        weights_of({"layer": [bad]})
    with pytest.raises(UnsupportedLayer, match="upgrade_net_proto"):
        weights_of({"layers": [{"layer": {"name": "old", "type": "conv"}}]})
    with pytest.raises(ModelFileError, match="without layers"):
        layers_of({"name": "n"})


def test_what_the_schema_lacks_is_not_written() -> None:
    with pytest.raises(ModelFileError, match=r"LayerParameter.python_param"):
        wire.encode({"layer": [{"python_param": {}}]}, "NetParameter")
    with pytest.raises(ModelFileError, match=r"LayerParameter.python_param"):
        prototxt.write({"layer": [{"python_param": {}}]})
    with pytest.raises(ModelFileError, match=r"cannot be written.*PoolingParameter.pool"):
        wire.encode({"pool": "MEAN"}, "PoolingParameter")


def test_deploy_text_of_a_named_net_is_read_as_it_was_written() -> None:
    net = small("googlenet", 64, 0.1)
    assert tuple(layers_of(prototxt.parse(text_of(net).decode()))[0]) == net.layers
