"""Archives of Caffe and DIGITS, good and bad, and other files of weights."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.caffe import (
    compare_graph,
    export_archive,
    import_archive,
    prototxt,
    read_archive,
    wire,
)
from examples.caffe.importing import classes_of
from examples.caffe.net import layers_of
from examples.errors import ModelFileError, UnsupportedLayer, WeightsMismatch
from examples.models.folder import Model, load_model, save_model
from examples.models.graph import Net
from examples.models.inputs import Input
from t4sa_data.errors import (
    BadOption,
)

# isort: split
from tests.caffe_helpers import (
    PACKERS,
    TRAIN_VAL,
    bytes_of,
    digits_files,
    folder_of,
    mean_bytes,
    pictures,
    relative,
    run_opencv,
    small,
    tar_of,
)

IMAGE = np.random.default_rng(0).integers(90, 160, (3, 72, 72)).astype(np.float32)
"""The mean image of `digits_files`."""


@pytest.fixture(scope="module")
def net() -> Net:
    return small("smoke", 64, 0.5)


@pytest.mark.parametrize("kind", sorted(PACKERS))
def test_archives_of_any_kind(net: Net, tmp_path: Path, kind: str) -> None:
    model = import_archive(PACKERS[kind](tmp_path / kind, digits_files(net)))
    assert model.architecture == "caffe" and model.classes == ("negative", "neutral", "positive")
    assert (model.input.side_px, model.input.resize_px, model.input.channels) == (64, 72, "BGR")
    assert model.mean_image is not None and np.array_equal(model.mean_image.numpy(), IMAGE)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in model.network.state_dict().items())
    assert model.source["iteration"] == 34560 and model.source["image resize mode"] == "squash"
    assert model.source["files"].keys() == digits_files(net).keys()
    assert not model.network.training


def test_loose_files(net: Net, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", digits_files(net))
    model = import_archive(sorted(folder.iterdir()))
    assert model.classes == ("negative", "neutral", "positive") and model.mean_image is not None


def test_a_model_folder_of_an_import_gives_the_same_logits(net: Net, tmp_path: Path) -> None:
    """DIGITS' mean image, resized to the net's square, is part of it."""
    model = import_archive(tar_of(tmp_path / "x.tar.gz", digits_files(net)))
    save_model(tmp_path / "model", model)
    again = load_model(tmp_path / "model")
    rgb = pictures(64).to(torch.uint8)
    with torch.no_grad():
        assert torch.equal(again.network(again.prepare()(rgb)), model.network(model.prepare()(rgb)))
    assert (again.deploy, again.classes, again.input) == (model.deploy, model.classes, model.input)


def test_what_is_fed_is_what_caffe_subtracts(net: Net, tmp_path: Path) -> None:
    """Pictures in the size of the mean image: its middle is subtracted from theirs, in BGR; OpenCV gives the truth."""
    files = digits_files(net)
    model = import_archive(tar_of(tmp_path / "x.tar.gz", files), view="center")
    rgb = pictures(72).to(torch.uint8)
    bgr = (rgb[:, [2, 1, 0]].float() - torch.from_numpy(IMAGE))[:, :, 4:68, 4:68]
    with torch.no_grad():
        ours = model.network(model.prepare()(rgb))
    true = run_opencv(files["deploy.prototxt"], files["snapshot_iter_34560.caffemodel"], bgr, "fc8-retrain")
    assert relative(ours, true) < 2e-5


# Both ways.


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "vgg19", "googlenet", "smoke"])
def test_import_export_import_is_bit_exact(tmp_path: Path, name: str) -> None:
    given = small(name, 64, 0.1)
    image = torch.from_numpy(IMAGE) + 0.25
    made = Model(network=given, architecture=name, width=0.1, input=Input(side_px=64, resize_px=72), mean_image=image)
    first = import_archive(export_archive(made, tmp_path / "1.tar.gz"))
    second = import_archive(export_archive(first, tmp_path / "2.tar.gz"))
    x = pictures(64) - 120
    with torch.no_grad():
        true = given(x)
        assert torch.equal(first.network(x), true) and torch.equal(second.network(x), true)
    for model in (first, second):
        assert replace(model.input, mean=made.input.mean) == made.input and model.classes == made.classes
        assert model.input.mean == pytest.approx(image.mean((1, 2)).tolist())
        assert model.mean_image is not None and torch.equal(model.mean_image, image)
    assert first.deploy == second.deploy
    assert not compare_graph(layers_of(prototxt.parse(first.deploy or ""))[0], given.layers)


def test_export_is_byte_deterministic_and_has_what_digits_asks_for(net: Net, tmp_path: Path) -> None:
    made = Model(network=net, architecture="smoke", input=Input(side_px=64, resize_px=72))
    one, other = (export_archive(made, tmp_path / name).read_bytes() for name in ("a.tar.gz", "b.tgz"))
    assert one == other and one[4:8] == bytes(4)  # gzip's time
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        names = tar.getnames()
        assert names == sorted(names) and {(member.mtime, member.uid) for member in tar} == {(0, 0)}
        info = json.load(tar.extractfile("info.json"))  # type: ignore[arg-type]
    for key in (
        "snapshot file",
        "model file",
        "mean file",
        "labels file",
        "deploy file",
        "train_val file",
        "solver file",
    ):
        assert info[key] in names
    assert info["framework"] == "caffe" and info["image dimensions"] == [72, 72, 3] and info["name"] == "smoke"
    assert info["image resize mode"] == "squash"


def test_an_exported_pixel_mean_and_scale_come_back(net: Net, tmp_path: Path) -> None:
    given = Input(side_px=64, resize_px=72, mean=(1.25, 100.1, 116.8007), scale=(0.0078125,) * 3)
    model = import_archive(export_archive(Model(network=net, architecture="smoke", input=given), tmp_path / "x.tar.gz"))
    assert model.input == given and model.mean_image is None
    assert "pixel, mean_value" in model.source["mean"]


def test_exported_files_of_training_are_those_of_caffe(net: Net, tmp_path: Path) -> None:
    """Loss for training, Softmax in use; biases learn twice as fast and do not decay."""
    path = export_archive(
        Model(network=net, architecture="smoke", input=Input(side_px=64, resize_px=72)), tmp_path / "x"
    )
    kept = read_archive(path)
    train = prototxt.parse(kept.text("train_val") or "")["layer"]
    assert [one["type"] for one in train[:2]] == ["Data", "Data"] and "Softmax" not in {one["type"] for one in train}
    assert {one["type"] for one in train} > {"SoftmaxWithLoss", "Accuracy"}
    conv1 = next(one for one in train if one["name"] == "conv1")
    assert [one["lr_mult"] for one in conv1["param"]] == [1, 2] and conv1["param"][1]["decay_mult"] == 0
    assert (kept.training.crop_size, kept.training.mirror, kept.training.batch_size) == (64, True, 32)
    assert kept.solver()["stepsize"] == 28512 and kept.solver()["weight_decay"] == 1e-5
    original = prototxt.parse(str(bytes(kept.files["original.prototxt"]), "utf-8"))
    assert original["layer"][0]["transform_param"] == {"mirror": True, "crop_size": 64}
    assert [one.kind for one in layers_of(original)[0]] == [one.kind for one in net.layers[1:]]  # stage deploy


def test_what_caffe_has_not_is_not_exported(tmp_path: Path, net: Net) -> None:
    with pytest.raises(UnsupportedLayer, match="no such network"):
        export_archive(
            Model(network=torch.nn.Linear(1, 1), architecture="convnext_tiny", input=Input(side_px=8)), tmp_path
        )
    rgb = Model(network=net, architecture="smoke", input=Input(side_px=64, channels="RGB"))
    with pytest.raises(UnsupportedLayer, match="BGR"):
        export_archive(rgb, tmp_path / "x.tar.gz")


# Labels and means.


@pytest.mark.parametrize(
    ("lines", "classes"),
    [
        (["negative", "neutral", "positive"], ("negative", "neutral", "positive")),
        (["0", "1", "2"], ("negative", "neutral", "positive")),
        (["Pos", "NEG", "neu"], ("positive", "negative", "neutral")),
        (["2", "0", "1"], ("positive", "negative", "neutral")),
        (["negative", "positive"], ("negative", "positive")),
    ],
)
def test_labels_in_any_order_name_the_outputs(lines: list[str], classes: tuple[str, ...]) -> None:
    assert classes_of(lines, len(lines), "x") == classes


def test_another_order_of_labels_renames_outputs_and_leaves_weights(net: Net, tmp_path: Path) -> None:
    files = digits_files(net, labels__txt=b"positive\r\nnegative\r\nneutral\r\n")
    model = import_archive(tar_of(tmp_path / "x.tar.gz", files))
    assert model.classes == ("positive", "negative", "neutral")
    weight = model.network.get_parameter("fc8-retrain.weight")
    assert torch.equal(weight, net.get_parameter("fc8-retrain.weight"))


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (b"negative\npositive\n", WeightsMismatch, "expected 3 lines, got 2"),
        (b"negative\nneutral\npositive\nangry\n", WeightsMismatch, "expected 3 lines, got 4"),
        (b"cat\ndog\nbird\n", ModelFileError, "each once, got cat.*train.py --init"),
        (b"negative\nneg\npositive\n", ModelFileError, "each once, got neg"),
        (b"\xff\xfe\n\n", ModelFileError, "no text file: got labels.txt"),
        (b"", ModelFileError, "empty file: got labels.txt"),
        (None, ModelFileError, "--labels negative,neutral,positive"),
    ],
)
def test_labels_that_do_not_fit(net: Net, tmp_path: Path, labels: bytes | None, error: Any, words: str) -> None:
    path = tar_of(tmp_path / "x.tar.gz", digits_files(net, labels__txt=labels))
    with pytest.raises(error, match=words):
        import_archive(path)
    assert import_archive(path, labels=["0", "1", "2"]).classes == ("negative", "neutral", "positive")


@pytest.mark.parametrize(
    ("transform", "choice", "pixel", "words"),
    [
        (None, None, None, "image, mean.binaryproto"),
        ('mean_file: "mean.binaryproto"', None, None, "image, mean_file of train_val"),
        ("mean_value: 104.5 mean_value: 117 mean_value: 123", None, (104.5, 117.0, 123.0), "pixel, mean_value"),
        ("mean_value: 100", None, (100.0, 100.0, 100.0), "pixel, mean_value"),
        ("mean_value: 104.5 mean_value: 117 mean_value: 123", "image", None, "image, mean.binaryproto"),
        ("crop_size: 64", "pixel", tuple(IMAGE.mean((1, 2), dtype=np.float64)), "pixel, the mean of"),
        (None, "t4sa", (116.8007, 121.2751, 130.4602), "published"),
        (None, "none", (0.0, 0.0, 0.0), "nothing"),
    ],
)
def test_which_mean_is_subtracted(
    net: Net, tmp_path: Path, transform: str | None, choice: str | None, pixel: Any, words: str
) -> None:
    text = None if transform is None else TRAIN_VAL.format(transform).encode()
    model = import_archive(tar_of(tmp_path / "x.tar.gz", digits_files(net, train_val__prototxt=text)), mean=choice)
    assert words in model.source["mean"]
    if pixel is None:
        assert model.mean_image is not None and np.array_equal(model.mean_image.numpy(), IMAGE)
    else:
        assert model.mean_image is None and model.input.mean == pytest.approx(pixel, rel=1e-6)


@pytest.mark.parametrize(
    ("mean", "error", "words"),
    [
        (None, ModelFileError, "no mean.binaryproto.*--mean t4sa"),
        (b"", ModelFileError, "empty file: got mean.binaryproto"),
        (mean_bytes(IMAGE)[:1000], ModelFileError, "truncated file .*mean.binaryproto"),
        (mean_bytes(IMAGE[:1]), ModelFileError, "mean image: expected 3 x height x width"),
        (mean_bytes(IMAGE[:, :50]), UnsupportedLayer, "mean image: expected a square"),
        (b"<html>", ModelFileError, "not a Caffe file"),
    ],
)
def test_means_that_are_none(net: Net, tmp_path: Path, mean: bytes | None, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        import_archive(tar_of(tmp_path / "x.tar.gz", digits_files(net, mean__binaryproto=mean)))


def test_a_mean_of_one_pixel_is_a_pixel(net: Net, tmp_path: Path) -> None:
    one = wire.encode({"shape": {"dim": [3, 1, 1]}, "data": np.array([1, 2, 3], "<f4")}, "BlobProto")
    model = import_archive(tar_of(tmp_path / "x.tar.gz", digits_files(net, mean__binaryproto=one)))
    assert model.mean_image is None and model.input.mean == (1, 2, 3)
    with pytest.raises(BadOption, match="no such mean"):
        import_archive(tmp_path / "x.tar.gz", mean="median")


def test_members_are_found_by_info_json_whatever_their_names(net: Net, tmp_path: Path) -> None:
    files = digits_files(net)
    names = {"deploy.prototxt": "a.prototxt", "snapshot_iter_34560.caffemodel": "b.caffemodel", "labels.txt": "c.txt"}
    keys = {"deploy file": "a.prototxt", "snapshot file": "/jobs/7/b.caffemodel", "labels file": "c.txt"}
    moved = {names.get(name, name): data for name, data in files.items()}
    other = {"b_old.caffemodel": b"\x00", "z.prototxt": b"", "notes.txt": b"", "picture.png": b"not looked at"}
    moved["info.json"] = json.dumps(keys).encode()
    model = import_archive(tar_of(tmp_path / "x.tar.gz", {**other, **moved}))
    assert model.classes == ("negative", "neutral", "positive")
    assert "picture.png" not in model.source["files"]


def test_the_last_of_several_snapshots_is_taken(net: Net, tmp_path: Path) -> None:
    files = digits_files(net) | {"snapshot_iter_9999.caffemodel": bytes_of(small("smoke", 64, 0.5, seed=5))}
    model = import_archive(tar_of(tmp_path / "x.tar.gz", files))
    assert model.source["iteration"] == 34560
    assert torch.equal(model.network.get_parameter("conv1.weight"), net.get_parameter("conv1.weight"))
    two = {"a.caffemodel": b"1", "b.caffemodel": b"2", **digits_files(net, snapshot_iter_34560__caffemodel=None)}
    with pytest.raises(ModelFileError, match=r"several files could be the snapshot.*a.caffemodel, b.caffemodel"):
        import_archive(tar_of(tmp_path / "y.tar.gz", two))
