"""Initial weights: where they come from, what of them is taken, what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
import safetensors.torch
import torch
from torch import nn

from examples.errors import ModelFileError, WeightsMismatch, WeightsUnavailable
from examples.models import build, default_input, head_of, layers_of
from examples.models.folder import Model, save_model
from examples.models.graph import Layer, Net
from examples.models.inputs import IMAGENET_MEAN, IMAGENET_STD, Input, torchvision_input
from examples.training import initial
from examples.training.config import Config
from examples.training.initial import REGISTRY, Loaded, fetch, fold_torchvision, initialise
from t4sa_data.errors import InputMissing, TruncatedArchive

# isort: split
from tests.caffe_helpers import PACKERS, bytes_of, digits_files, randomised, relative, small, text_of

WIDTH = 0.25
SMOKE = default_input("smoke")
BGR_MEAN = tuple(255 * one for one in reversed(IMAGENET_MEAN))


@pytest.fixture(scope="module")
def net() -> Net:
    return small("smoke", 64, WIDTH, seed=1)


def fresh(name: str = "smoke", width: float = WIDTH) -> nn.Module:
    torch.manual_seed(0)
    return build(name, width=width)


def begun(init: object, network: nn.Module | None = None, **more: Any) -> tuple[nn.Module, Loaded]:
    """A small network with its initial weights."""
    network = network or fresh()
    config = Config(model="smoke", width=WIDTH, init=str(init), **more)
    return network, initialise(network, config, SMOKE)


def assert_weights(network: nn.Module, expected: nn.Module, *, but: str = "") -> None:
    theirs = expected.state_dict()
    for name, value in network.state_dict().items():
        is_same = value.shape == theirs[name].shape and torch.equal(value, theirs[name])
        assert is_same != (bool(but) and name.startswith(but)), name


def numpy_pickle(net: Net) -> bytes:
    """As the authors' conversion writes it: `_1` at fully connected layers."""
    made: dict[str, dict[str, np.ndarray]] = {}
    for name, value in net.state_dict().items():
        layer, _, kind = name.rpartition(".")
        layer += "_1" if isinstance(net.get_submodule(layer), nn.Linear) else ""
        made.setdefault(layer, {})[{"weight": "weights"}.get(kind, kind)] = value.numpy()
    return pickle.dumps(made, protocol=2)


def torch_file(net: Net) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {f"module.{name}": value for name, value in net.state_dict().items()}}, buffer)
    return buffer.getvalue()


FILES: dict[str, Callable[[Net], bytes]] = {
    "x.safetensors": lambda net: safetensors.torch.save(net.state_dict()),
    "x.caffemodel": bytes_of,
    "x.pth": numpy_pickle,
    "x.pt": torch_file,
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_weights(name: str, net: Net, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name](net))
    network, loaded = begun(tmp_path / name)
    assert_weights(network, net)
    assert loaded == Loaded(source=name, loaded=("conv1", "conv2", "conv3", "fc4", "fc8-retrain"))
    assert str(loaded) == f"5 layers from {name}"
    network, loaded = begun(tmp_path / name, new_head=True)
    assert_weights(network, net, but="fc8-retrain")
    assert (loaded.fresh, loaded.ignored) == (("fc8-retrain",), ("fc8-retrain",))


@pytest.mark.parametrize("name", PACKERS)
def test_archives_of_digits(name: str, net: Net, tmp_path: Path) -> None:
    path = PACKERS[name](tmp_path / name, digits_files(net))
    network, loaded = begun(path)
    assert_weights(network, net)
    assert loaded.source == name


def test_a_model_folder(net: Net, tmp_path: Path) -> None:
    save_model(tmp_path / "model", Model(network=net, architecture="smoke", width=WIDTH, input=SMOKE))
    network, loaded = begun(tmp_path / "model")
    assert_weights(network, net)
    assert loaded.source == "model"
    text = text_of(net).decode()
    save_model(tmp_path / "model", Model(network=net, architecture="caffe", deploy=text, input=SMOKE))
    assert_weights(begun(tmp_path / "model")[0], net)


def test_deploy_and_weights(net: Net, tmp_path: Path) -> None:
    (tmp_path / "d.prototxt").write_bytes(text_of(net))
    (tmp_path / "w.caffemodel").write_bytes(bytes_of(net))
    network, loaded = begun(f"caffe:{tmp_path}/d.prototxt,{tmp_path}/w.caffemodel")
    assert_weights(network, net)
    assert str(loaded) == "5 layers from w.caffemodel"
    for wrong in (f"caffe:{tmp_path}/w.caffemodel", "caffe:a,b,c"):
        with pytest.raises(WeightsUnavailable, match=r"caffe: takes two files: expected caffe:deploy.prototxt,weights"):
            begun(wrong)
    with pytest.raises(InputMissing, match="initial weights: no such file"):
        begun(f"caffe:{tmp_path}/none.prototxt,{tmp_path}/w.caffemodel")


def other_order(net: Net) -> Net:
    """The same layers, LRN before pooling: it takes the same weights."""
    layers: list[Layer] = []
    for layer in layers_of("smoke", 3, 64, width=WIDTH):
        if layer.name == "pool1":
            norm = next(one for one in layers_of("smoke", 3, 64, width=WIDTH) if one.name == "norm1")
            layers += [dataclasses.replace(norm, bottoms=("conv1",)), dataclasses.replace(layer, bottoms=("norm1",))]
        elif layer.name != "norm1":
            is_next = layer.bottoms == ("norm1",)
            layers.append(dataclasses.replace(layer, bottoms=("pool1",)) if is_next else layer)
    made = Net(layers, 64)
    made.load_state_dict(net.state_dict())
    return made


MISMATCH = "weights are of another network than --model: got .*conv2: is fed by conv1 > ReLU > LRN .* > max"


@pytest.mark.parametrize("name", [*PACKERS, "model", "caffe"])
def test_another_order_of_lrn_and_pooling_is_refused(name: str, net: Net, tmp_path: Path) -> None:
    other = other_order(net)
    if name == "model":
        text = text_of(other).decode()
        save_model(tmp_path / name, Model(network=other, architecture="caffe", deploy=text, input=SMOKE))
    elif name == "caffe":
        (tmp_path / "d.prototxt").write_bytes(text_of(other))
        (tmp_path / "w.caffemodel").write_bytes(bytes_of(other))
    else:
        PACKERS[name](tmp_path / name, digits_files(other))
    init = f"caffe:{tmp_path}/d.prototxt,{tmp_path}/w.caffemodel" if name == "caffe" else tmp_path / name
    with pytest.raises(WeightsMismatch, match=MISMATCH):
        begun(init)


def test_weights_of_caffenet_are_not_alexnets(tmp_path: Path) -> None:
    caffenet = small("caffenet", 224, 0.05)
    path = PACKERS["x.tar.gz"](tmp_path / "x.tar.gz", digits_files(caffenet))
    config = Config(model="alexnet", width=0.05, init=str(path))
    with pytest.raises(WeightsMismatch, match="relu-norm-pool"):
        initialise(fresh("alexnet", 0.05), config, default_input("alexnet"))
    network = fresh("caffenet", 0.05)
    initialise(network, dataclasses.replace(config, model="caffenet"), default_input("caffenet"))
    assert_weights(network, caffenet)


def test_a_modern_network_takes_no_archive(net: Net, tmp_path: Path) -> None:
    path = PACKERS["x.tar.gz"](tmp_path / "x.tar.gz", digits_files(net))
    with pytest.raises(WeightsMismatch, match="--model is no network of Caffe's"):
        begun(path, fresh("convnext_tiny", 0.1))


def test_a_last_layer_of_other_classes(net: Net, tmp_path: Path) -> None:
    path = tmp_path / "two.safetensors"
    two = randomised(layers_of("smoke", 2, 64, width=WIDTH), 64)
    safetensors.torch.save_file(two.state_dict(), path)
    with pytest.raises(WeightsMismatch, match=r"fc8-retrain.*expected \(3,.*got \(2,.*--new-head"):
        begun(path)
    network, loaded = begun(path, new_head=True)
    assert loaded.fresh == ("fc8-retrain",)
    assert torch.equal(network.get_parameter("fc4.bias"), two.get_parameter("fc4.bias"))
    tensors = {name.replace("fc8-retrain", "fc8"): value for name, value in net.state_dict().items()}
    safetensors.torch.save_file(tensors | {"extra.weight": torch.zeros(2)}, path)
    network, loaded = begun(path)
    assert_weights(network, net_with_fresh_head(net))
    assert loaded.fresh == ("fc8-retrain",) and set(loaded.ignored) == {"fc8", "extra"}
    assert "fresh: fc8-retrain; ignored: " in str(loaded)


def net_with_fresh_head(net: Net) -> nn.Module:
    made = fresh()
    made.load_state_dict(net.state_dict() | {n: v for n, v in made.state_dict().items() if n.startswith("fc8-retrain")})
    return made


@pytest.mark.parametrize("kind", ["archive", "model"])
def test_classes_in_another_order(kind: str, net: Net, tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    if kind == "archive":
        PACKERS["x.tar.gz"](path, digits_files(net, labels__txt=b"positive\nneutral\nnegative\n"))
    else:
        model = Model(network=net, architecture="smoke", width=WIDTH, input=SMOKE)
        save_model(path, dataclasses.replace(model, classes=("positive", "neutral", "negative")))
    with pytest.raises(WeightsMismatch, match=r"in another order: expected negative, .*got positive, .*--new-head"):
        begun(path)
    assert_weights(begun(path, new_head=True)[0], net, but="fc8-retrain")


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        ({"features.0.weight": torch.zeros(3)}, WeightsMismatch, "no layer of the file belongs to this network"),
        ({"fc8-retrain.bias": torch.zeros(3)}, WeightsMismatch, "no layer of the file belongs"),
        (
            {"conv1.weight": torch.zeros(3)},
            WeightsMismatch,
            "conv1.weight .*another shape.*Is it the network of --model",
        ),
        ({"conv1.bias": torch.full((4,), float("nan"))}, ModelFileError, "conv1.bias holds values that are no numbers"),
    ],
)
def test_weights_that_do_not_fit(
    tensors: dict[str, torch.Tensor], error: type[Exception], message: str, tmp_path: Path
) -> None:
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(error, match=message):
        begun(tmp_path / "x.safetensors")


def test_no_such_file_and_damaged_ones(net: Net, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"initial weights: no such file .*none.pt.*--init imagenet"):
        begun(tmp_path / "none.pt")
    for name, make in FILES.items():
        (tmp_path / name).write_bytes(make(net)[:-100])
        with pytest.raises((ModelFileError, TruncatedArchive)):
            begun(tmp_path / name)


def test_scratch_is_the_seeds() -> None:
    network, loaded = begun("scratch")
    assert_weights(network, fresh())
    assert str(loaded) == "initial weights: scratch" and loaded.fresh[-1] == "fc8-retrain"


@pytest.mark.parametrize("model", ["hybrid", "alexnet", "caffenet", "googlenet"])
def test_imagenet_is_refused_where_torchvisions_network_is_another(model: str) -> None:
    config = Config(model=model, width=0.05, init="imagenet")
    with pytest.raises(WeightsUnavailable, match=rf"no weights for {model}: .*--init caffe:deploy.prototxt,weights"):
        initialise(fresh(model, 0.05), config, default_input(model))


def test_imagenet_for_the_small_network() -> None:
    with pytest.raises(
        WeightsUnavailable, match=r"no weights for smoke: expected vgg19 or convnext_tiny. --init scratch"
    ):
        begun("imagenet")


def test_registry_is_what_torchvision_publishes() -> None:
    from torchvision.models import ConvNeXt_Tiny_Weights, VGG19_Weights

    weights = {"vgg19": VGG19_Weights.IMAGENET1K_V1, "convnext_tiny": ConvNeXt_Tiny_Weights.IMAGENET1K_V1}
    assert REGISTRY.keys() == weights.keys()
    for name, one in weights.items():
        assert REGISTRY[name].url == one.url
        assert REGISTRY[name].url.endswith(f"-{REGISTRY[name].sha256}.pth") and REGISTRY[name].licence
        preset = one.transforms()
        assert (tuple(preset.mean), tuple(preset.std)) == (IMAGENET_MEAN, IMAGENET_STD)


def torchvisions_vgg19(like: nn.Module, num_classes: int) -> nn.Module:
    """torchvision's own VGG-19, channels as in ours."""
    from torchvision.models import vgg

    channels = iter([one.out_channels for one in like.modules() if isinstance(one, nn.Conv2d)])
    network = vgg.VGG(vgg.make_layers([one if one == "M" else next(channels) for one in vgg.cfgs["E"]]), num_classes)
    dense = [one for one in like.modules() if isinstance(one, nn.Linear)]
    for place, one in zip((0, 3), dense, strict=False):
        network.classifier[place] = nn.Linear(one.in_features, one.out_features)
    network.classifier[6] = nn.Linear(dense[1].out_features, num_classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


@pytest.mark.parametrize("width", [1 / 16, pytest.param(1.0, marks=pytest.mark.slow)])
def test_torchvisions_vgg19_folded_into_bgr(width: float) -> None:
    torch.manual_seed(0)
    ours = build("vgg19", 7, width=width).eval()
    theirs = torchvisions_vgg19(ours, 7)
    rgb = torch.randint(0, 256, (2, 3, 224, 224)).float()
    mean, std = (torch.tensor(one)[:, None, None] for one in (IMAGENET_MEAN, IMAGENET_STD))
    x = (rgb / 255 - mean) / std
    same = Input(side_px=224, mean=BGR_MEAN)  # type: ignore[arg-type]
    made = fold_torchvision(theirs.state_dict(), ours, same)
    assert not any(name.startswith(head_of(ours)) for name in made), "the last layer is left out"
    head = {f"{head_of(ours)}.{kind}": theirs.classifier[6].state_dict()[kind] for kind in ("weight", "bias")}
    ours.load_state_dict(made | head)
    with torch.inference_mode():
        true = theirs(x)
        assert relative(ours(rgb.flip(1) - torch.tensor(BGR_MEAN)[:, None, None]), true) < 2e-5
        assert relative(ours(rgb - torch.tensor(BGR_MEAN)[:, None, None]), true) > 1e-3, "RGB for BGR would show"
        first = theirs.features[:2](x)
        for given in (default_input("vgg19"), dataclasses.replace(torchvision_input(224), mean=(90.0, 100.0, 110.0))):
            folded = fold_torchvision(theirs.state_dict(), ours, given)
            ours.load_state_dict(folded | head)
            pixels = rgb.flip(1) if given.channels == "BGR" else rgb
            fed = (pixels - torch.tensor(given.mean)[:, None, None]) * torch.tensor(given.scale)[:, None, None]
            found = ours.features(fed, "conv1_1")  # type: ignore[operator]
            assert relative(found[..., 1:-1, 1:-1], first[..., 1:-1, 1:-1]) < 2e-5


Server = tuple[str, dict[str, bytes]]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        data = self.server.files.get(self.path)  # type: ignore[attr-defined]
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    made.files = {}  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    yield f"http://127.0.0.1:{made.server_port}", made.files  # type: ignore[attr-defined]
    made.shutdown()
    made.server_close()
    thread.join()


def publish(server: Server, name: str, data: bytes, sha256: str, monkeypatch: pytest.MonkeyPatch) -> str:
    path = f"/{name}-{sha256}.pth"
    server[1][path] = data
    entry = dataclasses.replace(REGISTRY[name], url=server[0] + path, sha256=sha256)
    monkeypatch.setitem(initial.REGISTRY, name, entry)
    return path


def test_fetched_when_asked_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A modern network, through the whole of `--init imagenet`: all but its last layer."""
    torch.manual_seed(5)
    theirs = build("convnext_tiny", 10, width=0.1)
    buffer = io.BytesIO()
    torch.save(theirs.state_dict(), buffer)
    data = buffer.getvalue()
    path = publish(server, "convnext_tiny", data, hashlib.sha256(data).hexdigest()[:8], monkeypatch)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    network = fresh("convnext_tiny", 0.1)
    config = Config(model="convnext_tiny", width=0.1, init="imagenet")
    loaded = initialise(network, config, default_input("convnext_tiny"))
    assert_weights(network, theirs, but="classifier.2")
    assert loaded.fresh == ("classifier.2",) and loaded.source == "torchvision's ImageNet weights"
    assert f"{server[0]}{path} (BSD-3-Clause" in capsys.readouterr().out
    server[1].clear()
    initialise(network, config, default_input("convnext_tiny"))  # the second time from the cache


def test_files_that_are_not_the_published_ones(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = publish(server, "vgg19", b"something else", "dcbb9e9d", monkeypatch)
    with pytest.raises(WeightsUnavailable, match=r"could not be fetched: got invalid hash value"):
        fetch("vgg19", tmp_path)
    assert list(tmp_path.iterdir()) == [], "not kept"
    (tmp_path / path[1:]).write_bytes(b"half a file")
    with pytest.raises(WeightsUnavailable, match=r"not the published one: expected sha256 dcbb9e9d.*Remove it"):
        fetch("vgg19", tmp_path)
    (tmp_path / path[1:]).unlink()
    server[1].clear()
    with pytest.raises(WeightsUnavailable, match=r"could not be fetched: got HTTP Error 404.*yourself"):
        fetch("vgg19", tmp_path)
    page = b"<html>please log in</html>"
    publish(server, "vgg19", page, hashlib.sha256(page).hexdigest()[:8], monkeypatch)
    with pytest.raises(WeightsUnavailable, match="could not be fetched"):
        fetch("vgg19", tmp_path)
