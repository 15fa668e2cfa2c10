"""What a model says: exact on any number of ranks, and that of a plain loop over the pictures."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")
import torch
import torch.distributed as dist

from examples.errors import DeviceError, PredictionsError, WeightsMismatch
from examples.evaluation import predicting
from examples.evaluation.predictions import logits_of, probabilities_of, read_truth
from examples.models.folder import load_model
from t4sa_data import stream
from t4sa_data.errors import BadOption
from t4sa_data.reading import open_release

# isort: split
from tests import evaluation_rank
from tests.evaluation_helpers import save_smoke

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_smoke(tmp_path_factory.mktemp("model"))


@pytest.mark.skipif(not dist.is_available() or sys.platform != "linux", reason="needs torch.distributed with gloo")
def test_one_two_and_three_processes_say_the_same_to_the_last_bit(
    model: Path, releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    context = multiprocessing.get_context("forkserver")  # all is imported once, and forked before it has threads
    context.set_forkserver_preload(["tests.evaluation_rank", "scipy.stats", "torchcodec.decoders", "torchvision.io"])
    files: dict[str, set[bytes]] = {"predictions.parquet": set(), "results.json": set()}
    for world_size in (1, 2, 3):
        out = tmp_path / str(world_size)
        out.mkdir()
        ranks = [
            context.Process(target=evaluation_rank.run, args=(rank, world_size, model, releases, out, 5))
            for rank in range(world_size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(PATIENCE_SECONDS)
        assert [process.exitcode for process in ranks] == [0] * world_size
        for name, seen in files.items():
            seen.add((out / name).read_bytes())
    assert {name: len(seen) for name, seen in files.items()} == {"predictions.parquet": 1, "results.json": 1}
    table = pq.read_table(tmp_path / "3" / "predictions.parquet")
    truth = read_truth(open_release(releases), "b-t4sa", "train")
    assert table["key"].to_pylist() == truth["key"].to_pylist()
    assert table.num_rows % 5 and table.num_rows % 10 and table.num_rows % 15  # the last batches were ragged


def test_logits_are_those_of_a_plain_loop(model: Path, releases: Path) -> None:
    loaded = load_model(model)
    loaded.network.train()
    table = predicting.predict(loaded, releases, split="validation", batch_size=4, workers=1)
    assert table is not None
    assert loaded.network.training  # left as it was
    loaded.network.eval()
    rows = []
    for batch in stream(
        releases, split="validation", batch_size=1, size=loaded.input.stream_px, shuffle=False, workers=1
    ):
        with torch.no_grad():
            rows.append(loaded.network(loaded.prepare()(batch["image"]))[0].numpy())
    expected = np.stack(rows)
    found = logits_of(table)
    assert found is not None
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    powers = np.exp(expected - expected.max(1, keepdims=True))
    assert np.abs(probabilities_of(table) - powers / powers.sum(1, keepdims=True)).max() < 1e-5
    assert np.ptp(expected, axis=0).min() > 1e-3  # the pictures matter


def test_columns_go_by_the_names_of_classes(model: Path, releases: Path, tmp_path: Path) -> None:
    other = save_smoke(tmp_path / "other", classes=("positive", "negative", "neutral"))
    one, two = (
        predicting.predict(load_model(folder), releases, split="validation", workers=1) for folder in (model, other)
    )
    assert one is not None
    assert two is not None
    assert np.allclose(logits_of(one), logits_of(two), rtol=1e-5, atol=1e-5)
    loaded = load_model(model)
    loaded.classes = ("negative", "positive")
    with pytest.raises(WeightsMismatch, match="expected negative, neutral, positive, got negative, positive"):
        predicting.predict(loaded, releases)


def test_another_view_gives_other_numbers(model: Path, releases: Path) -> None:
    tables = []
    for view in ("squash", "center"):
        loaded = load_model(model)
        loaded.input = type(loaded.input)(**{**loaded.input.to_json(), "view": view})
        tables.append(predicting.predict(loaded, releases, split="validation", workers=1))
    assert not tables[0].equals(tables[1])


def test_logits_that_are_no_numbers(model: Path, releases: Path) -> None:
    loaded = load_model(model)
    with torch.no_grad():
        next(reversed(list(loaded.network.parameters()))).fill_(float("nan"))
    first = read_truth(open_release(releases), "b-t4sa", "validation")["key"][0].as_py()
    with pytest.raises(PredictionsError, match=f"no numbers: got .* rows, the first is {first}"):
        predicting.predict(loaded, releases, split="validation", workers=1)


def test_too_little_memory_says_what_to_lower(model: Path, releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_model(model)

    def refuse(_x: torch.Tensor) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loaded.network, "forward", refuse)
    with pytest.raises(DeviceError, match=r"a batch of 7 .*Lower the batch size"):
        predicting.predict(loaded, releases, batch_size=7, workers=1)


def test_half_precision_and_devices(model: Path, releases: Path) -> None:
    exact, half = (
        predicting.predict(load_model(model), releases, split="validation", amp=amp, workers=1)
        for amp in ("none", "bf16")
    )
    assert exact is not None
    assert half is not None
    difference = np.abs(logits_of(exact) - logits_of(half)).max()
    assert 0 < difference < 0.1 * np.abs(logits_of(exact)).max()
    with pytest.raises(BadOption, match="precision"):
        predicting.predict(load_model(model), releases, amp="int8")
    assert predicting.find_device("cpu") == torch.device("cpu")
    for name in ("tpu-9", "cpu:7", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(DeviceError):
            predicting.find_device(name)
