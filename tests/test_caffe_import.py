"""Archives of Caffe and DIGITS, good and bad, and other files of weights."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from examples.caffe import (
    archive,
    compare_graph,
    export_archive,
    import_archive,
    import_weights,
    importing,
    prototxt,
    read_archive,
    read_network,
    read_weights,
    wire,
)
from examples.caffe.importing import classes_of, lrn_and_pooling
from examples.caffe.net import layers_of, net_of
from examples.caffe.showing import show_archive
from examples.errors import ModelFileError, UnsupportedLayer, WeightsMismatch
from examples.models import build
from examples.models import layers_of as named
from examples.models.folder import Model, load_model, save_model
from examples.models.graph import Net
from examples.models.inputs import Input
from t4sa_data.errors import (
    ArchiveError,
    BadOption,
    DuplicateMember,
    InputMissing,
    T4SAError,
    TruncatedArchive,
    UnsafeMember,
)

# isort: split
from tests.caffe_helpers import (
    bytes_of,
    digits_files,
    legacy_of,
    mean_bytes,
    pictures,
    relative,
    run_opencv,
    small,
    tar_of,
    text_of,
    zip_of,
)

IMAGE = np.random.default_rng(0).integers(90, 160, (3, 72, 72)).astype(np.float32)
"""The mean image of `digits_files`."""


@pytest.fixture(scope="module")
def net() -> Net:
    return small("smoke", 64, 0.5)


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


PACKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "x.tar": lambda path, files: tar_of(path, files, "w"),
    "x.tar.gz": lambda path, files: tar_of(path, files, "w:gz"),
    "x.tar.bz2": lambda path, files: tar_of(path, files, "w:bz2"),
    "x.zip": zip_of,
    "folder": folder_of,
    "nested.tar.gz": lambda path, files: tar_of(path, {f"./job/{name}": data for name, data in files.items()}),
    "no_suffix": lambda path, files: tar_of(path, files, "w:gz"),
}


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


TRAIN_VAL = 'layer {{ name: "data" type: "Data" top: "data" include {{ phase: TRAIN }} transform_param {{ {} }} }}'


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


# Archives that are wrong.


def test_names_that_lead_out_are_refused_and_nothing_is_written(net: Net, tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    for number, name in enumerate(
        ["../deploy.prototxt", "/tmp/deploy.prototxt", "a/../../x.txt", "C:\\labels.txt", "..\\x.txt"]
    ):
        files = {**digits_files(net), name: b"evil"}
        for path in (tar_of(inside / f"{number}.tar.gz", files), zip_of(inside / f"{number}.zip", files)):
            with pytest.raises(UnsafeMember, match="leads out of the archive"):
                import_archive(path)
    assert {path.name for path in tmp_path.iterdir()} == {"in"}
    assert all(path.suffix in (".gz", ".zip") for path in inside.iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        header = tarfile.TarInfo("deploy.prototxt")
        header.type, header.linkname = kind, "/etc/passwd"
        tar.addfile(header)
    with pytest.raises(UnsafeMember, match="link or a device"):
        read_archive(tmp_path / "x.tar")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        link = zipfile.ZipInfo("deploy.prototxt")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeMember, match="a link in an archive"):
        read_archive(tmp_path / "x.zip")


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_bombs_are_refused_before_they_unpack(tmp_path: Path, pack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_OTHER_BYTES", 1 << 20)
    monkeypatch.setattr(archive, "MAX_WEIGHTS_BYTES", 2 << 20)
    with pytest.raises(ModelFileError, match=r"larger than any of its kind: expected <= 1048576.*labels.txt"):
        read_archive(pack(tmp_path / "a", {"labels.txt": bytes(3 << 20)}))
    with pytest.raises(ModelFileError, match=r"expected <= 2097152.*x.caffemodel"):
        read_archive(pack(tmp_path / "b", {"x.caffemodel": bytes(3 << 20)}))
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 4 << 20)
    with pytest.raises(ArchiveError, match="unpacks to more"):
        read_archive(pack(tmp_path / "c", {f"{place}.png": bytes(1 << 20) for place in range(9)}))
    with pytest.raises(ArchiveError, match="more members"):
        read_archive(pack(tmp_path / "d", {f"{place}.png": b"" for place in range(archive.MAX_MEMBERS + 2)}))


def test_a_stream_that_goes_on_after_its_end_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tar_of(tmp_path / "x.tar", {"labels.txt": b"0\n"}, "w").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(plain + bytes(8 << 20)))
    with pytest.raises(ArchiveError, match="unpacks to more"):
        read_archive(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("kind", ["x.tar", "x.tar.gz", "x.tar.bz2", "x.zip"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_archives_are_refused(net: Net, tmp_path: Path, kind: str, share: float) -> None:
    path = PACKERS[kind](tmp_path / kind, digits_files(net))
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises((TruncatedArchive, ModelFileError)):
        import_archive(path)


@pytest.mark.parametrize("kind", ["x.tar.gz", "x.tar.bz2", "x.zip"])
def test_damage_is_noticed_by_its_sum(net: Net, tmp_path: Path, kind: str) -> None:
    path = PACKERS[kind](tmp_path / kind, digits_files(net))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"damaged|cannot be read"):
        import_archive(path)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (b"", ModelFileError, "an empty file"),
        (b"<!DOCTYPE HTML PUBLIC><html>401 Unauthorized", ModelFileError, "a web page.*download it again"),
        (b"\n\n <html lang=en>", ModelFileError, "a web page"),
        (b"hello", ModelFileError, "no archive"),
        (b"PK\x03\x04 no zip", ArchiveError, "damaged"),
        (b"\x1f\x8b\x08\x00broken", ArchiveError, "damaged|too early"),
    ],
)
def test_other_files_are_no_archives(tmp_path: Path, data: bytes, error: Any, words: str) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(error, match=words):
        import_archive(tmp_path / "x.tar.gz")
    with pytest.raises(T4SAError):
        read_weights(tmp_path / "x.tar.gz")
    with pytest.raises(InputMissing, match="no such archive"):
        import_archive(tmp_path / "absent.tar.gz")


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"deploy__prototxt": None}, ModelFileError, "no deploy file"),
        ({"deploy__prototxt": b""}, ModelFileError, "an empty file: got deploy.prototxt"),
        ({"deploy__prototxt": b"<html></html>"}, ModelFileError, "not a prototxt"),
        ({"deploy__prototxt": b"layer {"}, ModelFileError, r"not a prototxt.*deploy.prototxt: line 1"),
        ({"snapshot_iter_34560__caffemodel": None}, ModelFileError, "no snapshot file"),
        ({"snapshot_iter_34560__caffemodel": b""}, ModelFileError, "an empty file"),
        ({"snapshot_iter_34560__caffemodel": b"\x0a\x01n"}, ModelFileError, "no weights"),
        ({"info__json": b"{"}, ModelFileError, r"info.json is no JSON"),
        ({"info__json": b"[]"}, ModelFileError, r"info.json: expected an object"),
    ],
)
def test_members_that_are_wrong(net: Net, tmp_path: Path, more: dict[str, bytes], error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        import_archive(tar_of(tmp_path / "x.tar.gz", digits_files(net, **more)))


def test_hdf5_snapshots_are_refused(net: Net, tmp_path: Path) -> None:
    files = digits_files(net, snapshot_iter_34560__caffemodel=None) | {"snapshot_iter_1.caffemodel.h5": b"\x89HDF"}
    with pytest.raises(ModelFileError, match=r"HDF5 snapshot.*BINARYPROTO"):
        import_archive(tar_of(tmp_path / "x.tar.gz", files))
    (tmp_path / "x.caffemodel.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelFileError, match="HDF5 snapshot"):
        read_weights(tmp_path / "x.caffemodel.h5")


def test_two_files_of_one_name_are_refused(net: Net, tmp_path: Path) -> None:
    files = digits_files(net) | {"other/labels.txt": b"2\n1\n0\n"}
    with pytest.raises(DuplicateMember, match=r"labels.txt"):
        import_archive(tar_of(tmp_path / "x.tar.gz", files))


def test_apple_files_are_passed_over(net: Net, tmp_path: Path) -> None:
    files = digits_files(net) | {"._labels.txt": b"\x00", "__MACOSX/x/labels.txt": b"\x00"}
    assert import_archive(zip_of(tmp_path / "x.zip", files)).classes[0] == "negative"


def test_weights_and_network_that_do_not_belong_together(net: Net, tmp_path: Path) -> None:
    wider = bytes_of(small("smoke", 64, 0.6))
    path = tar_of(tmp_path / "x.tar.gz", digits_files(net, snapshot_iter_34560__caffemodel=wider))
    with pytest.raises(WeightsMismatch, match=r"shape of conv1.weight: expected \[8, 3, 5, 5\], got \[10, 3, 5, 5\]"):
        import_archive(path)
    lacking = {name: value for name, value in net.state_dict().items() if not name.startswith("fc4")}
    layers = [one for one in net.layers if one.name != "fc4"]
    data = wire.encode(net_of(layers, weights=lacking), "NetParameter")
    with pytest.raises(WeightsMismatch, match=r"missing: got fc4.weight, fc4.bias"):
        import_archive(tar_of(tmp_path / "y.tar.gz", digits_files(net, snapshot_iter_34560__caffemodel=data)))


def test_weights_without_a_place_are_told(net: Net, tmp_path: Path) -> None:
    """GoogLeNet's side heads are in the snapshot and not in the deploy file."""
    with_more = wire.decode(bytes_of(net), "NetParameter")
    head = next(one for one in with_more["layer"] if one["name"] == "fc8-retrain")
    with_more["layer"].append({**head, "name": "loss1/classifier"})
    data = wire.encode(with_more, "NetParameter")
    model = import_archive(tar_of(tmp_path / "x.tar.gz", digits_files(net, snapshot_iter_34560__caffemodel=data)))
    assert model.source["unused weights"] == ["loss1/classifier.bias", "loss1/classifier.weight"]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            lambda text: text.replace(b'type: "Pooling"', b'type: "Deconvolution"', 1),
            UnsupportedLayer,
            "'Deconvolution'.*pool1",
        ),
        (lambda text: text.replace(b"dim: 64", b"dim: 65", 1), UnsupportedLayer, "three channels, a square"),
        (lambda text: text.replace(b"dim: 3", b"dim: 1", 1), UnsupportedLayer, "three channels, a square"),
        (
            lambda text: text.replace(b'type: "Input"', b'type: "Data"', 1),
            ModelFileError,
            "size of the network's input",
        ),
        (lambda text: text.replace(b"dim: 64", b"", 1), ModelFileError, "dims of the input"),
        (
            lambda text: text.replace(b'bottom: "data"', b'bottom: "date"', 1),
            ModelFileError,
            "reads what no layer.*date",
        ),
        (lambda text: b'input: "a" input: "b" ' + text, UnsupportedLayer, "several inputs"),
    ],
)
def test_deploy_files_that_are_not_understood(net: Net, tmp_path: Path, change: Any, error: Any, words: str) -> None:
    text = text_of(net)
    assert change(text) != text
    with pytest.raises(error, match=words):
        import_archive(tar_of(tmp_path / "x.tar.gz", digits_files(net, deploy__prototxt=change(text))))


def test_another_size_of_the_input_is_not_guessed(tmp_path: Path) -> None:
    """AlexNet's weights fit 224 and 227: the deploy file alone tells."""
    for side in (224, 227):
        kept = small("alexnet", side, 0.02)
        model = import_archive(tar_of(tmp_path / f"{side}.tar.gz", digits_files(kept)))
        assert model.input.side_px == model.input.resize_px == side  # the mean image is smaller
    assert read_network(tmp_path / "227.tar.gz")[1] == (1, 3, 227, 227)


# Other files of weights.


def arrays() -> dict[str, dict[str, np.ndarray]]:
    """Layers as the authors' conversion names them."""
    generator = np.random.default_rng(0)
    shapes = {"conv1": (4, 3, 2, 2), "conv1_1": (4, 3, 1, 1), "fc6_1": (5, 9), "fc8-retrain_1": (3, 5)}
    return {
        name: {
            "weights": generator.normal(size=shape).astype("f4"),
            "bias": generator.normal(size=shape[0]).astype("f4"),
        }
        for name, shape in shapes.items()
    }


NAMES = {"conv1": "conv1", "conv1_1": "conv1_1", "fc6_1": "fc6", "fc8-retrain_1": "fc8-retrain"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("in_npy", [True, False])
def test_numpy_pickles(tmp_path: Path, protocol: int, in_npy: bool) -> None:
    path = tmp_path / "hybrid_finetuned_all.pth"
    given = arrays()
    stream = io.BytesIO()
    if in_npy:
        array = np.array(given, dtype=object)
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        pickle.dump(array, stream, protocol=protocol)
    else:
        pickle.dump(given, stream, protocol=protocol)
    path.write_bytes(stream.getvalue())
    weights = read_weights(path)
    assert weights.keys() == {f"{NAMES[name]}.{kind}" for name in given for kind in ("weight", "bias")}
    for name, layer in given.items():
        assert np.array_equal(weights[f"{NAMES[name]}.weight"].numpy(), layer["weights"])
        assert np.array_equal(weights[f"{NAMES[name]}.bias"].numpy(), layer["bias"])


def test_numpy_pickles_as_numpy_and_python_2_write_them(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(arrays(), dtype=object), allow_pickle=True)
    assert len(read_weights(tmp_path / "x.npy")) == 8
    old = pickle.dumps(arrays(), protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    (tmp_path / "old.pth").write_bytes(old)
    assert len(read_weights(tmp_path / "old.pth")) == 8


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_that_call_functions_are_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    evil = Evil(f"touch {tmp_path / 'ran'}")
    for number, value in enumerate([evil, {"conv1": evil}, np.array({"conv1": {"weights": evil}}, dtype=object)]):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        with pytest.raises(ModelFileError, match=r"wants more than arrays: refused: got (posix|nt).system"):
            read_weights(path)
    np.save(tmp_path / "x.npy", np.array([evil], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError, match="refused"):
        read_weights(tmp_path / "x.npy")
    torch.save({"a": evil}, tmp_path / "torch.pt")
    with pytest.raises(ModelFileError, match="weights alone"):
        read_weights(tmp_path / "torch.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [[1, 2], {}, {"conv1": 3}, {3: {"weights": np.zeros(3)}}, {"a": {"mean": np.zeros(3)}}, {"a": {"bias": "x"}}],
)
def test_pickles_of_other_things_are_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps(value))
    with pytest.raises(ModelFileError, match="pickle"):
        read_weights(tmp_path / "x.pth")


def test_cut_pickles_are_refused(tmp_path: Path) -> None:
    data = pickle.dumps(arrays(), protocol=4)
    for stop in (2, 20, len(data) // 2, len(data) - 1):
        (tmp_path / "x.pth").write_bytes(data[:stop])
        with pytest.raises(ModelFileError, match="no pickle of arrays, or a damaged one"):
            read_weights(tmp_path / "x.pth")


def test_files_of_torch_and_safetensors(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    torch.save(state, tmp_path / "plain.pt")
    torch.save(
        {"state_dict": {f"module.{name}": value.half() for name, value in state.items()}, "epoch": 3},
        tmp_path / "w.pth",
    )
    torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, tmp_path / "c.pt")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    for name in ("plain.pt", "c.pt", "old.pth", "x.safetensors"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[one], state[one]) for one in state), name
    assert all(value.dtype == torch.float32 for value in read_weights(tmp_path / "w.pth").values())
    shutil.copy(tmp_path / "x.safetensors", tmp_path / "renamed.bin")
    assert read_weights(str(tmp_path / "renamed.bin")).keys() == state.keys()
    for name in ("plain.pt", "x.safetensors"):
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2)
        with pytest.raises(T4SAError):
            read_weights(tmp_path / name)
    with pytest.raises(InputMissing):
        read_weights(tmp_path / "absent.pt")


def test_weights_of_archives_caffemodels_and_model_folders(net: Net, tmp_path: Path) -> None:
    state = net.state_dict()
    made = tar_of(tmp_path / "x.tar.gz", digits_files(net))
    (tmp_path / "x.caffemodel").write_bytes(bytes_of(net))
    old = legacy_of(net_of(net.layers, weights=state), 64)
    (tmp_path / "legacy").write_bytes(wire.encode(old, "NetParameter"))
    save_model(tmp_path / "model", import_archive(made))
    for name in ("x.tar.gz", "x.caffemodel", "legacy", "model"):
        read = read_weights(tmp_path / name)
        assert read.keys() == state.keys() and all(torch.equal(read[one], state[one]) for one in state), name
        assert all(value.dtype == torch.float32 and value.is_contiguous() for value in read.values())


def test_the_authors_pth_with_a_named_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their files hold weights alone; the network is named by the user."""
    monkeypatch.setattr(importing, "build", partial(build, width=0.05))
    state = small("alexnet", 224, 0.05).state_dict()
    given: dict[str, dict[str, np.ndarray]] = {}
    for name, value in state.items():
        layer, kind = name.rsplit(".", 1)
        layer += "_1" if layer.startswith("fc") else ""
        given.setdefault(layer, {})["weights" if kind == "weight" else kind] = value.numpy()
    np.save(tmp_path / "x.npy", np.array(given, dtype=object), allow_pickle=True)
    model = import_weights((tmp_path / "x.npy").rename(tmp_path / "hybrid.pth"), "hybrid")
    assert model.architecture == "hybrid" and model.classes == ("negative", "neutral", "positive")
    assert all(torch.equal(value, state[name]) for name, value in model.network.state_dict().items())
    with pytest.raises(WeightsMismatch, match=r"missing: got conv1_1.weight"):
        import_weights(tmp_path / "hybrid.pth", "vgg19")


# Networks side by side.


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


# What an archive says of itself.


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
