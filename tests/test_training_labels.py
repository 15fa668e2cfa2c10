"""Training on another model's labels: they are learned and chosen by, the test split keeps the release's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
import torch

from examples import train
from examples.errors import RunError
from examples.evaluation import figures, writing
from examples.evaluation.predictions import read_truth
from examples.models.folder import read_json
from examples.training import data, report
from examples.training.checkpoint import require_same_labels
from examples.training.config import Config
from examples.training.machine import Machine
from t4sa_data.catalog import CLASSES
from t4sa_data.errors import InputMissing, NoRows
from t4sa_data.reading import open_release
from t4sa_data.testing import make_release

# isort: split
from tests.training_helpers import run_of, words

PERMUTED = np.array([1, 2, 0])
"""negative is called neutral, neutral positive, positive negative."""
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    make_release(folder, 240, formats=("parquet",))
    return folder


def rows_of_release(folder: Path, splits: tuple[str, ...] = SPLITS) -> pa.Table:
    release = open_release(folder)
    return pa.concat_tables([read_truth(release, "b-t4sa", split).select(["key", "label"]) for split in splits])


def permuted(folder: Path, path: Path, *, splits: tuple[str, ...] = SPLITS, sure: float | None = 0.8) -> Path:
    """A table that calls every class by another's name; without probabilities where `sure` is None."""
    rows = rows_of_release(folder, splits)
    label = PERMUTED[rows["label"].to_numpy()]
    made: dict[str, Any] = {"key": rows["key"], "label": label}
    for k, name in enumerate(CLASSES if sure is not None else ()):
        made[name] = np.where(label == k, sure, (1 - (sure or 0)) / 2).astype(np.float32)
    pq.write_table(pa.table(made), path)
    return path


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw_inputs", lambda *_: None)
    monkeypatch.setattr(figures, "curves_figure", lambda *_, **__: None)


def config_of(folder: Path, **more: Any) -> Config:
    return Config(model="smoke", data=str(folder), device="cpu", workers=1, batch_size=4, accumulate=2, **more)


@pytest.mark.usefixtures("quiet")
def test_the_labels_of_the_table_are_learned(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Figures are tested elsewhere, and slow.
    monkeypatch.setattr(writing, "write_figures", lambda out, _: (out / "confusion-b-t4sa.png").touch())
    monkeypatch.setattr(writing, "write_grids", lambda *_, **__: None)
    labels, out = permuted(drawn, tmp_path / "labels.parquet"), tmp_path / "run"
    typed = ["--recipe", "smoke", "--data", drawn, "--out", out, "--device", "cpu", "--workers", "1"]
    assert train.main([str(one) for one in [*typed, "--labels", labels, "--epochs", "6"]]) == 0
    said = capsys.readouterr().out
    assert f"labels     {labels}: 194 of 194 of train, 24 of 24 of validation" in said
    found = json.loads((out / "evaluation" / "results.json").read_text())["b-t4sa"]
    confusion = np.array(found["confusion"])
    truth = np.bincount(rows_of_release(drawn, ("test",))["label"].to_numpy())
    assert confusion.sum(axis=1).tolist() == truth.tolist(), "the truth is the release's own"
    as_permuted = confusion[np.arange(3), PERMUTED].sum() / confusion.sum()
    assert as_permuted > 0.7 and found["accuracy"] < 0.2, confusion.tolist()
    best = json.loads((out / "last" / "model.json").read_text())["training"]["best_accuracy"]
    assert best > 0.7, "the best weights are chosen by the table's labels"
    assert "labels of `labels.parquet`" in (out / "report.md").read_text()
    digest = read_json(out / "best")["source"]["labels_sha256"]
    assert json.loads((out / "run.json").read_text())["digests"]["labels_sha256"] == digest


@pytest.mark.usefixtures("quiet")
def test_a_run_does_not_go_on_with_other_labels(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where only labels of the split to look at changed, which no batch of a step shows."""
    path = permuted(drawn, tmp_path / "labels.parquet")
    typed = words(drawn, tmp_path / "run", "--labels", path, "--max-steps", 2)
    assert train.main(typed) == 0
    before = path.read_bytes()
    table = pq.read_table(path)
    last = table.num_rows - 1  # of validation
    label = table["label"].to_numpy().copy()
    label[last] = (label[last] + 1) % 3
    pq.write_table(table.set_column(table.column_names.index("label"), "label", pa.array(label)), path)
    capsys.readouterr()
    assert train.main([*typed[:-1], "4"]) == 2
    assert "the labels are not those that this run was begun with" in capsys.readouterr().err
    path.write_bytes(before)
    assert train.main([*typed[:-1], "4"]) == 0
    assert "going on   at step 2" in capsys.readouterr().out


def test_runs_with_and_without_a_table_are_told_apart() -> None:
    with pytest.raises(RunError, match="expected sha256 of no file, got abc"):
        require_same_labels({"training": {}}, "abc", "labels.parquet")
    with pytest.raises(RunError, match="expected sha256 abc, got no file"):
        require_same_labels({"training": {"labels_sha256": "abc"}}, "", "release")
    require_same_labels({"training": {}}, "", "release")


@pytest.mark.usefixtures("quiet")
def test_pictures_that_the_table_does_not_name_are_left_out(drawn: Path, tmp_path: Path) -> None:
    path = permuted(drawn, tmp_path / "labels.parquet")
    pq.write_table(pq.read_table(path)[20:-5], path)
    named = set(pq.read_table(path)["key"].to_pylist())
    with run_of(*words(drawn, tmp_path / "run", "--labels", path)) as run:
        assert run.batches.num_samples == 174 and run.eval_batches.num_samples == 19
        seen = {key for batches in (run.batches, run.eval_batches) for batch in batches for key in batch["key"]}
        assert seen == named
    only_train = permuted(drawn, tmp_path / "train.parquet", splits=("train",))
    with pytest.raises(NoRows, match=r"the labels name no picture of validation .*relabel that split, too"):
        data.eval_stream(config_of(drawn, labels=str(only_train)), run.model.input, run.where)


def test_targets_and_weights_are_the_tables(drawn: Path, tmp_path: Path) -> None:
    """Not the release's labeller's, who was sure of other classes."""
    path = permuted(drawn, tmp_path / "labels.parquet", sure=0.6)
    config = config_of(drawn, labels=str(path), soft_labels=True, confidence_weight=True)
    machine = Machine(device=torch.device("cpu"), amp="none", reason="", rank=0, world_size=1)
    batches = data.train_stream(config, 64, machine)
    data.require_probabilities(config, batches)
    batch = next(iter(batches))
    target = data.targets(batch, config)
    assert torch.equal(target.argmax(1), batch["label"]) and torch.allclose(target.amax(1), torch.tensor(0.6))
    assert (batch["original_label"] != batch["label"]).all()
    parts = list(data.micro_batches(batch, config, machine))
    assert torch.allclose(torch.cat([part.weight for part in parts]), torch.tensor(0.6))


def test_what_is_refused(drawn: Path, tmp_path: Path) -> None:
    path = permuted(drawn, tmp_path / "labels.parquet", sure=None)
    machine = Machine(device=torch.device("cpu"), amp="none", reason="", rank=0, world_size=1)
    for more in ({"soft_labels": True}, {"confidence_weight": True}):
        config = config_of(drawn, labels=str(path), **more)
        with pytest.raises(RunError, match=r"need probabilities: expected columns negative, neutral, positive"):
            data.require_probabilities(config, data.train_stream(config, 64, machine))
    data.require_probabilities(config_of(drawn, soft_labels=True), None)
    with pytest.raises(RunError, match=r"about the release's labels.*relabel.py --min-confidence"):
        data.labels_digest(config_of(drawn, labels=str(path), min_confidence=0.7))
    with pytest.raises(InputMissing, match=r"no such file of labels .*relabel.py makes one"):
        data.labels_digest(config_of(drawn, labels=str(tmp_path / "none.parquet")))
