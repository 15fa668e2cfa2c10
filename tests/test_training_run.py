"""A whole run as a user starts it: it learns, its folder explains itself; and what is refused, in one line."""

from __future__ import annotations

import json
import random
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
import pyarrow.parquet as pq
import safetensors.torch
import torch

from examples import evaluate, train
from examples.evaluation import figures
from examples.models import layers_of
from examples.models.folder import load_model
from examples.models.graph import Net
from examples.training import checkpoint, journal, report
from examples.training.command import parse
from examples.training.config import load_recipe
from examples.training.data import confusion_and_loss
from examples.training.machine import Machine
from t4sa_data.catalog import CLASSES
from t4sa_data.reading import open_release
from t4sa_data.testing import make_release

# isort: split
from tests.training_helpers import assert_loads, rows_of, run_of, words

RUN_FILES = {"best", "config.toml", "confusion.png", "curves.png", "evaluation", "inputs.png", "last", "metrics.jsonl"}
RUN_FILES |= {"report.md", "run.json", "tensorboard"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 drawn pictures, whose colour and mouth follow the label."""
    folder = tmp_path_factory.mktemp("drawn")
    make_release(folder, 400, formats=("parquet",))
    return folder


@pytest.fixture(scope="module")
def run(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The recipe `smoke` with fewer epochs, and what it said. Not to be changed by a test."""
    out = tmp_path_factory.mktemp("runs") / "smoke"
    typed = ["--recipe", "smoke", "--data", str(drawn), "--out", str(out), "--device", "cpu", "--workers", "1"]
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *values, **_: said.append(" ".join(map(str, values))))
        patch.setattr(figures, "DPI", 40)
        assert train.main([*typed, "--epochs", "6", "--tensorboard"]) == 0
    return out, "\n".join(said)


def results_of(out: Path) -> dict[str, Any]:
    value = json.loads((out / "evaluation" / "results.json").read_text())
    assert isinstance(value, dict)
    return value


def test_it_learns(run: tuple[Path, str]) -> None:
    """Chance is a third."""
    out, _ = run
    found = results_of(out)["b-t4sa"]
    assert found["n"] == 35 and found["accuracy"] > 0.8
    assert max(accuracy for _, _, accuracy in rows_of(out, "val")) > 0.8
    losses = [loss for _, loss, _ in rows_of(out)]
    assert losses[0] == pytest.approx(1.0986, abs=0.15), "a fresh head guesses"
    assert losses[-1] < losses[0] / 2


def test_what_it_says(run: tuple[Path, str]) -> None:
    out, said = run
    for line in (
        'model = "smoke"',
        "device     cpu, 1 process(es); precision none: float32 on cpu",
        "network    smoke: 80,931 parameters, 80,931 of them learn; initial weights: scratch",
        "input      64 px, BGR, mean (116.8007, 121.2751, 130.4602)",
        "pictures   327: negative 107, neutral 111, positive 109",
        "steps      66 of 32 pictures, 11 an epoch",
        "ln 3 = 1.0986 is what guessing costs",
        "a checkpoint takes 0.00 GB",
        "waiting for data",
        f"examples/train.py --resume --out {out}",
        f"Report: {out / 'report.md'}",
    ):
        assert line in said, line
    told = {line.split("/")[0]: line for line in said.splitlines() if line.startswith("step")}
    assert "to go" not in told["step     10"] and told["step     20"].endswith(" s to go")


def test_the_folder_explains_itself(run: tuple[Path, str], drawn: Path) -> None:
    out, _ = run
    assert {path.name for path in out.iterdir()} == RUN_FILES
    assert load_recipe(str(out / "config.toml")).epochs == 6
    assert tomllib.loads((out / "config.toml").read_text())["data"] == str(drawn)
    about = json.loads((out / "run.json").read_text())
    assert len(about["commands"]) == 1 and about["commands"][0].startswith("python examples/train.py --recipe smoke")
    assert about["packages"]["torch"] == version("torch") and about["precision"] == "none (float32 on cpu)"
    assert about["git_revision"] is None or len(about["git_revision"].rstrip("+")) == 40
    release = open_release(drawn)
    assert set(about["digests"]) == {"train", "plan", "eval"} and about["release"] == release.where
    for name in ("confusion.png", "curves.png", "inputs.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG"), name
    assert any((out / "tensorboard").iterdir())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == [1, 10, 20, 30, 40, 50, 60, 66]
    assert [row["step"] for row in rows if row["kind"] == "val"] == [11, 22, 33, 44, 55, 66]
    assert all(row["samples_per_second"] > 0 and 0 <= row["waiting"] <= 1 for row in rows if row["kind"] == "train")
    assert rows[-2]["epoch"] == pytest.approx(66 * 32 / 327, abs=1e-3) and rows[-2]["lr"] == pytest.approx(2e-4)


def test_models_of_a_run(run: tuple[Path, str]) -> None:
    out, _ = run
    best, last = load_model(out / "best"), load_model(out / "last")
    assert best.classes == CLASSES and best.input == last.input and best.architecture == "smoke"
    saved = checkpoint.read_checkpoint(out)
    assert saved is not None
    progress = saved[checkpoint.KEY]
    values = {step: accuracy for step, _, accuracy in rows_of(out, "val")}
    assert progress["is_finished"] and progress["step"] == 66 and progress["seconds"] > 0
    assert progress["best_accuracy"] == max(values.values()) == values[progress["best_step"]]
    assert saved["source"]["recipe"]["model"] == "smoke"


def test_report_is_one_document(run: tuple[Path, str]) -> None:
    out, _ = run
    text = (out / "report.md").read_text()
    assert text.startswith("# smoke: smoke, all\n\n66 steps of 32 pictures (6.5 epochs) in ")
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# smoke: smoke, all"]
    accuracy = results_of(out)["b-t4sa"]["accuracy"]
    assert f"**{100 * accuracy:.2f}**" in text and "51.92" in text, "the table, the paper's numbers in it"
    for name in ("curves.png", "confusion.png", "inputs.png"):
        assert f"]({name})" in text
    assert "\n\n\n" not in text


def test_evaluation_is_what_evaluate_writes(
    run: tuple[Path, str], drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = run
    monkeypatch.setattr(figures, "DPI", 40)
    evaluate.main(["--run", str(out), "--data", str(drawn), "--device", "cpu", "--out", str(tmp_path)])
    ours, theirs = ({path.name for path in folder.iterdir()} for folder in (out / "evaluation", tmp_path))
    assert ours == theirs and len(ours) == 9
    predictions = "predictions-b-t4sa.parquet"
    assert pq.read_table(tmp_path / predictions).equals(pq.read_table(out / "evaluation" / predictions))
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["b-t4sa"] == results_of(out)["b-t4sa"]
    assert again["about"].items() <= results_of(out)["about"].items()


def test_looking_at_the_other_split_is_exact(run: tuple[Path, str], drawn: Path) -> None:
    """The last row of `val` against a plain loop over the split."""
    out, _ = run
    typed = ["--resume", "--data", str(drawn), "--out", str(out)]
    rows = rows_of(out, "val")
    with run_of(*typed) as again:
        confusion, loss = confusion_and_loss(again.model.network, again.prepare, again.eval_batches, again.where)
        model = load_model(out / "last")
        right, sum_of_losses, num = 0, 0.0, 0
        for batch in again.eval_batches:
            for picture, label in zip(batch["image"], batch["label"], strict=True):
                with torch.no_grad():
                    logits = model.network(model.prepare()(picture[None]))
                right += int(logits.argmax() == label)
                sum_of_losses += float(torch.nn.functional.cross_entropy(logits, label[None]))
                num += 1
    assert num == int(confusion.sum()) == 38
    assert rows[-1] == (66, loss, right / num)
    assert loss == pytest.approx(sum_of_losses / num, rel=1e-5)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures and curves."""
    monkeypatch.setattr(report, "draw_inputs", lambda *_: None)
    monkeypatch.setattr(figures, "curves_figure", lambda *_, **__: None)


def refusal(capsys: pytest.CaptureFixture[str], *typed: object) -> str:
    """The one line of a run that ends with status 2."""
    assert train.main([str(word) for word in typed]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--recipe", "vgg19-ft-a", "--device", "auto"), "no GPU here, and vgg19 on this CPU would take weeks"),
        (("--train-split", "test"), "training on a test split: expected --train-split train"),
        (("--config", "twitter-testing"), "training on a test split"),
        (("--eval-split", "test"), "choosing weights by the test split: expected --eval-split validation"),
        (("--amp", "fp16"), "fp16 needs a GPU"),
        (("--init", "none.safetensors"), "initial weights: no such file"),
        (("--init", "imagenet"), "--init imagenet has no weights for smoke"),
        (
            ("--model", "hybrid", "--width", 0.05, "--resize-px", 256, "--init", "imagenet"),
            "--init caffe:deploy.prototxt,weights.caffemodel",
        ),
        (("--recipe", "vgg"), "no such recipe: expected a TOML file, or"),
        (("--resume",), "no run to go on with"),
        (("--train-split", "dev"), "dev"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
@pytest.mark.usefixtures("plain")
def test_refusals(
    more: tuple[Any, ...],
    message: str,
    releases: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    typed = words(releases, tmp_path / "out", "--init", "scratch")
    if more[0] in ("--recipe", "--resume"):
        typed = typed[2:]
    assert message in refusal(capsys, *typed, *more)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["truncated", "missing"])
def test_a_release_that_is_not_whole(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_release(tmp_path, 54, formats=("parquet",))
    shard = sorted(tmp_path.rglob("train-*.parquet"))[0]
    size = shard.stat().st_size
    if fault == "missing":
        shard.unlink()
    else:
        with shard.open("r+b") as file:
            file.truncate(size - 1)
    said = refusal(capsys, *words(tmp_path, tmp_path / "out"))
    found = f"expected {size} bytes, got " + ("no file" if fault == "missing" else f"{size - 1} bytes")
    assert found in said and shard.name in said and "t4sa check" in said


@pytest.mark.usefixtures("plain")
def test_a_loss_that_is_no_number(releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    typed = words(releases, tmp_path, "--learning-rate", 1e9, "--checkpoint-every", 1, "--max-steps", 7)
    said = refusal(capsys, *typed)
    assert "no number" in said and "got step " in said and "--learning-rate" in said
    release = open_release(releases)
    keys = said.partition("[")[2].partition(" and 4 more]")[0].split(", ")
    assert len(keys) == 4 and all(key.endswith(("-1", "-2", "-3")) for key in keys) and release is not None
    assert_loads(tmp_path)


@pytest.mark.usefixtures("plain")
def test_weights_that_are_no_numbers_after_a_loss_that_is(
    releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step before a checkpoint may break them: it is not written."""
    step = train.Run.train_step

    def broken(self: train.Run, batch: dict[str, Any], waited: float) -> None:
        step(self, batch, waited)
        if self.progress.step == 4:
            next(self.model.network.parameters()).data[0] = float("inf")

    monkeypatch.setattr(train.Run, "train_step", broken)
    said = refusal(capsys, *words(releases, tmp_path, "--checkpoint-every", 2))
    assert "the weights are no numbers: got step 4" in said
    saved = checkpoint.read_checkpoint(tmp_path)
    assert saved is not None and saved[checkpoint.KEY]["step"] == 2
    assert_loads(tmp_path)


@pytest.mark.usefixtures("plain")
def test_too_little_memory(
    releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(Net, "forward", refuse)
        said = refusal(capsys, *words(releases, tmp_path))
    assert "memory does not suffice: got CUDA out of memory. --batch-size 2 --accumulate 4 has" in said


@pytest.mark.usefixtures("plain")
def test_tensorboard_that_is_not_installed(
    releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert "pip install tensorboard" in refusal(capsys, *words(releases, tmp_path, "--tensorboard"))


@pytest.mark.usefixtures("plain")
def test_weights_of_two_classes(releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "two.safetensors"
    safetensors.torch.save_file(Net(layers_of("smoke", 2, 64, width=0.25), 64).state_dict(), file)
    typed = words(releases, tmp_path / "out", "--init", file, "--max-steps", 1)
    assert "--new-head begins with a fresh one" in refusal(capsys, *typed)
    assert train.main([*typed, "--new-head"]) == 0
    assert "4 layers from two.safetensors; fresh: fc8-retrain" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [
        ("--amp", "bf16"),
        ("--optimizer", "adamw", "--lr-policy", "cosine", "--warmup-steps", 2),
        ("--soft-labels", "--label-smoothing", 0.1, "--confidence-weight"),
        ("--no-channels-last", "--no-flip", "--eval-crop", "center", "--shuffle", "block", "--min-confidence", 0.9),
    ],
)
@pytest.mark.usefixtures("plain")
def test_options_train(
    more: tuple[Any, ...], releases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each gives other numbers than the recipe."""
    for name, some in (("with", more), ("without", ())):
        assert train.main(words(releases, tmp_path / name, "--max-steps", 3, *some)) == 0
    assert rows_of(tmp_path / "with") != rows_of(tmp_path / "without")
    assert len(rows_of(tmp_path / "with")) == 3
    if "bf16" in more:
        assert "precision bf16: as asked for" in capsys.readouterr().out


@pytest.mark.usefixtures("plain")
def test_precision_may_change_when_a_run_goes_on(releases: Path, tmp_path: Path) -> None:
    typed = words(releases, tmp_path)
    assert train.main([*typed, "--max-steps", "2", "--amp", "bf16"]) == 0
    command = parse("", typed)
    assert command is not None
    older = Machine(device=torch.device("cpu"), amp="fp16", reason="")  # as on a GPU without bf16: it scales its losses
    assert train.Run(command.config, older).scaler.is_enabled()
    assert train.main([*typed, "--max-steps", "3"]) == 0
    commands = json.loads((tmp_path / "run.json").read_text())["commands"]
    assert len(commands) == 3 and "--amp bf16" in commands[0] and "--amp" not in commands[2]


@pytest.mark.usefixtures("plain")
def test_no_test_split(releases: Path, tmp_path: Path) -> None:
    assert train.main(words(releases, tmp_path, "--max-steps", 1)) == 0
    assert "No test split was asked for." in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "evaluation").exists()
    assert train.main(words(releases, tmp_path, "--max-steps", 2, "--test-split", "other")) == 0
    assert "other" in (tmp_path / "report.md").read_text()


def test_rows_that_were_cut_off(tmp_path: Path) -> None:
    rows = [{"kind": "train", "step": step, "loss": random.Random(step).random()} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "tra')
    assert journal.read_metrics(tmp_path) == rows
    assert journal.read_metrics(tmp_path, until=2) == rows[:2]


@pytest.mark.usefixtures("plain")
def test_steps_are_taken_in_training_mode(releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a look at the other split: with dropout; and the files' network is the trained one."""
    step, modes = train.Run.train_step, []

    def watched(self: train.Run, batch: dict[str, Any], waited: float) -> None:
        modes.append(all(module.training for module in self.model.network.modules()))
        step(self, batch, waited)

    monkeypatch.setattr(train.Run, "train_step", watched)
    assert train.main(words(releases, tmp_path, "--max-steps", 9)) == 0
    assert modes == [True] * 9 and len(rows_of(tmp_path, "val")) == 2
