"""`t4sa label`: from labelled tweets to a model, its figures, and a file of probabilities; faults end in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("vaderSentiment")
pytest.importorskip("sklearn")

from typer.testing import CliRunner

from builders import label
from builders.label.cli import app
from builders.label.folder import read_description
from builders.label.training_data import is_development

from tests.label_helpers import Row, labelled, write_jsonl, write_tsv  # isort: skip

ROWS = labelled(300)
MODULE = [sys.executable, "-m", "t4sa_data.cli", "label"]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


def t4sa_label(*arguments: object) -> Ended:
    """The command, in this process."""
    found = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return Ended(found.exit_code, found.stdout, found.stderr)


@pytest.fixture(scope="module")
def tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    conflicting: list[Row] = [(5, 0, "never kept awful"), (5, 2, "never kept great"), (6, 1, " ")]
    return write_tsv(tmp_path_factory.mktemp("data") / "train.tsv", [*ROWS, *conflicting])


@pytest.fixture(scope="module")
def trained(tsv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    model = tmp_path_factory.mktemp("models") / "svm"
    return model, t4sa_label("train", tsv, "--out", model, "--system", "svm")


def test_training_tells_what_it_did_and_measures_on_tweets_held_back(tsv: Path, trained: tuple[Path, Ended]) -> None:
    model, ended = trained
    assert ended.status == 0
    assert "303 rows, 300 kept (100 negative, 100 neutral, 100 positive)" in ended.err
    assert "left out: 2 conflicting id" in ended.err and "ids with two labels: 1" in ended.err
    assert "never kept" not in ended.out + ended.err
    said = read_description(model)
    held = int(is_development([row[0] for row in ROWS]).sum())
    assert said["data"]["development"] == held > 10
    assert said["data"]["dropped"] == {"conflicting_id": 2, "empty_text": 1} and said["seed"] == 0
    figures = said["metrics"]["development"]
    assert figures["raw"]["n"] == figures["uniform"]["n"] == held
    assert figures["uniform"]["macro_recall"] > 0.95  # a template's words say it
    assert f"{figures['raw']['accuracy']:.4f}" in ended.out and "macro recall" in ended.out
    assert abs(sum(said["prior"]) - 1) < 1e-9 and str(tsv) not in json.dumps(said)


def test_the_same_data_and_seed_give_the_same_bytes(tsv: Path, trained: tuple[Path, Ended], tmp_path: Path) -> None:
    assert t4sa_label("train", tsv, "--out", tmp_path / "m", "--system", "svm", "--workers", 1).status == 0
    first, again = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (trained[0], tmp_path / "m"))
    assert first == again


def test_without_development_every_tweet_is_trained_on(tsv: Path, tmp_path: Path) -> None:
    ended = t4sa_label("train", tsv, "--out", tmp_path / "m", "--system", "majority", "--no-dev")
    said = read_description(tmp_path / "m")
    assert ended.status == 0 and "metrics" not in said and said["data"]["development"] == 0
    assert said["prior"] == pytest.approx([1 / 3] * 3) and "300 texts" in ended.out


def test_evaluation_prints_and_writes_figures_of_the_rules_asked_for(
    tsv: Path, trained: tuple[Path, Ended], tmp_path: Path
) -> None:
    ended = t4sa_label("evaluate", trained[0], tsv, "--json", tmp_path / "f.json")
    assert ended.status == 0 and "raw" in ended.out and "uniform" in ended.out
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["kind"] == "svm" and len(found["model"]) == 64 and found["data"]["kept"] == 300
    data = [row[2] for row in ROWS], np.array([row[1] for row in ROWS])
    p = label.load_model(trained[0]).predict_proba(data[0])
    assert found["metrics"]["raw"]["accuracy"] == pytest.approx((p.argmax(axis=1) == data[1]).mean())
    for prior in ("raw", "uniform"):
        assert t4sa_label("evaluate", trained[0], tsv, "--prior", prior, "--json", tmp_path / "g.json").status == 0
        assert json.loads((tmp_path / "g.json").read_text())["metrics"] == {prior: found["metrics"][prior]}


def test_running_labels_every_row(trained: tuple[Path, Ended], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id_str": str(i), "text": text} for i, _, text in labelled(60, seed=3)]
    rows[10] = {"id_str": "5", "text": ""}
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    ended = t4sa_label("run", trained[0], source, "--out", tmp_path / "o.parquet", "--workers", 2)
    table = pq.read_table(tmp_path / "o.parquet")
    assert ended.status == 0 and table["tweet_id"].to_pylist() == [int(row["id_str"]) for row in rows]
    p = np.stack([table[name].to_numpy() for name in ("negative", "neutral", "positive")], axis=1)
    right = [i % 3 for i in range(60)]
    assert (np.delete(p, 10, 0).argmax(axis=1) == np.delete(right, 10)).mean() > 0.95
    for shown in ("rows", "60", "labelled", "59", "empty text", "tweets/s", "neutral"):
        assert shown in ended.out


def vectors_file(path: Path, dim: int) -> Path:
    words = "love hate great awful the was".split()  # noqa: SIM905
    path.write_text(
        "".join(f"{word} {' '.join(str((i + j) % 5 - 2.5) for j in range(dim))}\n" for i, word in enumerate(words))
    )
    return path


def test_a_file_of_vectors_sets_the_width_of_the_network(tsv: Path, tmp_path: Path) -> None:
    path = vectors_file(tmp_path / "v.txt", 12)
    ended = t4sa_label("train", tsv, "--out", tmp_path / "m", "--system", "lstm", "--vectors", path)
    said = read_description(tmp_path / "m")
    assert ended.status == 0 and "12 numbers each" in ended.err and said["vectors"]["dim"] == 12
    assert said["state"]["config"]["dim"] == 12 and said["vectors"]["words"] == 6
    assert label.load_model(tmp_path / "m").predict_proba(["I love it"]).shape == (1, 3)


BAD_TSV = {
    "an unknown label": ("1\t9\ta\n", "unknown label"),
    "wrong fields": ("1\t0\n", "another number of fields"),
    "a class that is absent": (
        "".join(f"{i}\t{i % 2}\ttext {i}\n" for i in range(40)),
        "no text of the class positive",
    ),
    "a single class": ("".join(f"{i}\t1\ttext {i}\n" for i in range(40)), "a file of a single class"),
    "nothing": ("", "an empty file"),
}


@pytest.mark.parametrize("name", BAD_TSV)
@pytest.mark.parametrize("system", ["tandem", "majority"])
def test_data_that_cannot_be_trained_on_is_refused_in_one_line(name: str, system: str, tmp_path: Path) -> None:
    content, says = BAD_TSV[name]
    (tmp_path / "a.tsv").write_text(content)
    ended = t4sa_label("train", tmp_path / "a.tsv", "--out", tmp_path / "m", "--system", system)
    assert ended.status == 1 and says in ended.err.splitlines()[-1] and ended.err.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def test_exit_statuses_and_one_line_of_what_is_wrong(tsv: Path, trained: tuple[Path, Ended], tmp_path: Path) -> None:
    model, out = trained[0], tmp_path / "o"
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "text": "a"}])
    (tmp_path / "bad.jsonl").write_text("{\n")
    (tmp_path / "a.xlsx").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    for arguments, status, says in (
        (["train", tsv, "--out", out, "--system", "oracle"], 2, "no such system"),
        (["train", tsv, "--out", out, "--system", "svm", "--device", "cuda"], 2, "no use for device"),
        (["train", tsv, "--out", out, "--device", "warp"], 2, "no such device"),
        (
            ["train", tsv, "--out", out, "--system", "svm", "--vectors", vectors_file(tmp_path / "v", 2)],
            2,
            "no use for",
        ),
        (["train", tsv, "--out", tmp_path / "full", "--system", "svm"], 1, "holds something else"),
        (["train", tmp_path / "none", "--out", out], 1, "no such file"),
        (["evaluate", tmp_path / "full", tsv], 1, "no model folder"),
        (["evaluate", model, tmp_path / "none"], 1, "no such file"),
        (["run", model, tmp_path / "none.csv", "--out", out], 1, "no such file"),
        (["run", model, tmp_path / "bad.jsonl", "--out", out], 1, "line 1].*--skip-bad"),
        (["run", model, tmp_path / "a.xlsx", "--out", out], 2, "tells no format"),
        (["run", tmp_path / "full", source, "--out", out], 1, "no model folder"),
    ):
        ended = t4sa_label(*arguments)
        last = ended.err.splitlines()[-1]
        assert ended.status == status, (arguments, ended)
        assert last.startswith("error: ") and all(part in last for part in says.split(".*")), last
    for arguments in (["train", tsv], ["run", model, source], ["evaluate", model, tsv, "--prior", "flat"], ["fly"]):
        assert t4sa_label(*arguments).status == 2
    assert not out.exists()


def test_the_command_is_found_in_a_process_of_its_own(trained: tuple[Path, Ended], tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": 2**60 + 1, "text": "what a great day"}])
    command = [*MODULE, "run", str(trained[0]), str(source), "--out", str(tmp_path / "o.parquet")]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert pq.read_table(tmp_path / "o.parquet")["tweet_id"].to_pylist() == [2**60 + 1]
    (tmp_path / "a.jsonl").write_text("[")
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 1 and found.stderr.count("\n") == 1 and found.stderr.startswith("error: ")


@pytest.mark.slow
def test_a_newcomers_path_from_labelled_tweets_to_probabilities(tsv: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "o.parquet"
    for arguments in (
        ["train", tsv, "--out", model],
        ["evaluate", model, tsv],
        ["run", model, tsv, "--out", out],
    ):
        found = subprocess.run([*MODULE, *map(str, arguments)], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert "Traceback" not in found.stderr
    table = pq.read_table(out)
    assert table.num_rows == 303 and read_description(model)["kind"] == "tandem"
    assert read_description(model)["metrics"]["development"]["uniform"]["macro_recall"] > 0.6  # chance: 0.33
    command = [*MODULE, "train", str(tsv), "--out", str(tmp_path / "again"), "--workers", "2"]
    again = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert again.returncode == 0, again.stderr
    made = [{path.name: path.read_bytes() for path in f.iterdir()} for f in (model, tmp_path / "again")]
    assert made[0] == made[1]
