"""Archives of Caffe and DIGITS that are damaged, dangerous, or do not fit together."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from examples.caffe import (
    archive,
    import_archive,
    read_archive,
    read_network,
    read_weights,
    wire,
)
from examples.caffe.net import net_of
from examples.errors import ModelFileError, UnsupportedLayer, WeightsMismatch
from examples.models.graph import Net
from t4sa_data.errors import (
    ArchiveError,
    DuplicateMember,
    InputMissing,
    T4SAError,
    TruncatedArchive,
    UnsafeMember,
)

# isort: split
from tests.caffe_helpers import (
    PACKERS,
    bytes_of,
    digits_files,
    small,
    tar_of,
    text_of,
    zip_of,
)


@pytest.fixture(scope="module")
def net() -> Net:
    return small("smoke", 64, 0.5)


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
