"""What only a CUDA device shows: the side stream's batches, mixed precision, compiled steps, parity with the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from examples.models import build, default_input
from examples.models.inputs import Prepare
from t4sa_data import stream
from t4sa_data.streaming.images import Augment
from t4sa_data.testing import make_release

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    make_release(folder, 400)
    return folder


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("augment", [None, Augment(crop=48, flip=True, on_device=True)])
def test_batches_of_the_side_stream_are_those_of_the_cpu(release: Path, augment: Any, apart: bool) -> None:
    """Copied ahead while the device is busy; a batch whose memory was given away too early would differ."""
    options = {"batch_size": 16, "size": 64, "augment": augment, "seed": 3}
    expected = [(b["key"], b["image"].clone(), b["label"]) for b in stream(release, **options).to("cpu")]
    busy = torch.randn(4096, 4096, device="cuda")
    loader = stream(release, workers=4, **options).to("cuda", apart=apart)
    assert loader._is_apart == apart
    for _ in range(3):
        loader.set_epoch(0)
        for batch, (key, image, label) in zip(loader, expected, strict=True):
            for _ in range(10):
                busy = torch.nn.functional.normalize(busy @ busy)  # the current stream is behind the side stream
            assert batch["image"].is_cuda and batch["key"] == key
            assert torch.equal(batch["image"].cpu(), image) and torch.equal(batch["label"].cpu(), label)
    assert not apart or loader._apart._pinned
    loader.close()


def test_state_counts_taken_batches_not_copied_ones(release: Path) -> None:
    loader = stream(release, batch_size=16, size=32).to("cuda")
    batches = iter(loader)
    for _ in range(3):
        last = next(batches)
    state = loader.state_dict()
    following = next(batches)
    other = stream(release, batch_size=16, size=32).to("cuda")
    other.load_state_dict(state)
    assert state["batches"] == 3 and next(iter(other))["key"] == following["key"] != last["key"]


@pytest.mark.parametrize("name", ["alexnet", "caffenet", "googlenet", "vgg19", "smoke", "convnext_tiny"])
def test_logits_of_the_gpu_are_those_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = build(name, width=0.5).eval()
    pixels = torch.randint(0, 256, (4, 3, *[default_input(name).side_px] * 2), dtype=torch.uint8)
    x = Prepare(default_input(name))(pixels)
    with torch.inference_mode():
        expected = network(x)
        got = network.cuda().to(memory_format=torch.channels_last)(Prepare(default_input(name)).cuda()(pixels.cuda()))
    error = (got.cpu() - expected).abs().max() / expected.abs().max()
    assert error < 5e-5, error


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lrn_of_large_activations_under_autocast(dtype: torch.dtype) -> None:
    """In fp16 the square of 600 is infinite and torch's LRN gives 0, silently."""
    network = build("alexnet").cuda()
    norm = next(module for module in network.modules() if "lrn" in type(module).__name__.lower())
    x = torch.full((1, 96, 4, 4), 600.0, device="cuda")
    expected = torch.nn.functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    with torch.autocast("cuda", dtype):
        got = norm(x.to(dtype))
    assert torch.allclose(got.float(), expected, rtol=0.01) and got.min() > 10


def train(release: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "examples/train.py", "--recipe", "smoke", "--data", str(release), "--out", str(out)]
    made = subprocess.run([*command, "--device", "cuda", *options], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "options", [["--amp", "none"], ["--amp", "bf16"], ["--amp", "fp16"], ["--amp", "auto", "--compile"]]
)
def test_training_learns_in_every_precision(release: Path, tmp_path: Path, options: list[str]) -> None:
    rows = train(release, tmp_path / "run", *options)
    assert [row for row in rows if row["kind"] == "val"][-1]["accuracy"] > 0.8
    assert ("loss_scale" in rows[0]) == ("fp16" in options)


def test_a_run_goes_on_within_float_tolerance(release: Path, tmp_path: Path) -> None:
    weights = []
    for name, parts in {"straight": ["20"], "broken": ["10", "20"]}.items():
        for steps in parts:
            train(release, tmp_path / name, "--max-steps", steps, "--amp", "fp16")
        from examples.models.folder import load_model

        weights.append(load_model(tmp_path / name / "last").network.state_dict())
    for key, value in weights[0].items():
        assert torch.allclose(value, weights[1][key], rtol=1e-2, atol=1e-4), key


def test_sigterm_saves_on_a_gpu_too(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "examples/train.py", "--recipe", "smoke", "--data", str(release), "--out", str(out)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*command, "--epochs", "2000"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step     20"):
            process.terminate()
            break
    words = process.stdout.read()
    assert process.wait(60) == 0 and "Stopped (SIGTERM)" in words
    assert json.loads((out / "last" / "model.json").read_text())["training"]["step"] >= 20
