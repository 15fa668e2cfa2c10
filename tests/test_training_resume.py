"""Runs that are killed, stopped and gone on with: the same bits as without; folders that load whenever it was."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
import torch

from examples.caffe import prototxt
from examples.caffe.net import net_of
from examples.errors import ModelFileError, RunError
from examples.models import build, default_input
from examples.models.folder import Model, load_model, save_model
from examples.training import checkpoint
from t4sa_data.errors import BadOption, StateMismatch

# isort: split
from tests.deaths import Points
from tests.training_helpers import IN_REPORT, assert_loads, digest_of, end, rows_of, run_of, start, state_of, words

STEPS = ("--max-steps", 10, "--checkpoint-every", 5)
KILLED = -9


@pytest.fixture(scope="module")
def straight(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps without a break. Not to be changed by a test."""
    out = tmp_path_factory.mktemp("straight")
    assert end(start(words(releases, out, *STEPS), out / "log")) == 0
    return out


def assert_same(out: Path, straight: Path) -> None:
    """All tensors of `last` and `best`, and all rows, to the last bit."""
    assert digest_of(out) == digest_of(straight)
    assert digest_of(out, checkpoint.BEST) == digest_of(straight, checkpoint.BEST)
    assert {name.partition("/")[0] for name in state_of(out) if "/" in name} == {"momentum_buffer"}
    for kind in ("train", "val"):
        assert rows_of(out, kind) == rows_of(straight, kind)
    assert [step for step, _, _ in rows_of(out)] == list(range(1, 11))


def test_killed_and_run_again_with_the_same_command(releases: Path, straight: Path, tmp_path: Path) -> None:
    typed = words(releases, tmp_path, *STEPS)
    assert end(start(typed, tmp_path / "log", kill_at=9)) == KILLED
    saved = checkpoint.read_checkpoint(tmp_path)
    assert saved is not None and saved[checkpoint.KEY]["step"] == 7  # the end of the epoch, after that of step 5
    assert [step for step, _, _ in rows_of(tmp_path)] == list(range(1, 10))
    assert end(start(typed, tmp_path / "log")) == 0
    assert "going on   at step 7" in (tmp_path / "log").read_text()
    assert_same(tmp_path, straight)


def test_killed_at_step_5_and_resumed_with_other_workers(releases: Path, straight: Path, tmp_path: Path) -> None:
    assert end(start(words(releases, tmp_path, *STEPS, "--workers", 2), tmp_path / "log", kill_at=5)) == KILLED
    saved = checkpoint.read_checkpoint(tmp_path)
    assert saved is not None and saved[checkpoint.KEY]["step"] == 5
    again = ["--resume", "--out", str(tmp_path), "--workers", "3"]
    assert end(start(again, tmp_path / "log")) == 0
    assert_same(tmp_path, straight)


@pytest.mark.slow
def test_killed_before_the_first_checkpoint(releases: Path, straight: Path, tmp_path: Path) -> None:
    typed = words(releases, tmp_path, *STEPS)
    assert end(start(typed, tmp_path / "log", kill_at=3)) == KILLED
    assert checkpoint.read_checkpoint(tmp_path) is None
    assert end(start(typed, tmp_path / "log")) == 0
    assert_same(tmp_path, straight)


def wait_for(text: str, log: Path) -> None:
    until = time.monotonic() + 60
    while not (log.is_file() and text in log.read_text()):
        assert time.monotonic() < until, log.read_text() if log.is_file() else "no log"
        time.sleep(0.005)


def test_sigterm_saves_and_says_how_to_go_on(releases: Path, tmp_path: Path) -> None:
    whole, typed = tmp_path / "whole", words(releases, tmp_path / "out", "--epochs", 3)
    log = tmp_path / "log"
    running = start(typed, log)
    wait_for("step      2/", log)
    running.terminate()
    assert end(running) == 0
    told = re.search(r"Stopped \(SIGTERM\) at step (\d+). To go on: (\S+) examples/train.py (.*)\n", log.read_text())
    assert told is not None
    saved = checkpoint.read_checkpoint(tmp_path / "out")
    assert saved is not None and saved[checkpoint.KEY]["step"] == int(told[1]) < 18
    assert not (tmp_path / "out" / "report.md").exists()
    assert end(start(told[3].split(), log)) == 0
    assert end(start(words(releases, whole, "--epochs", 3), tmp_path / "other")) == 0
    assert digest_of(tmp_path / "out") == digest_of(whole)
    assert (tmp_path / "out" / "report.md").exists()


def test_hours_that_are_over(releases: Path, tmp_path: Path) -> None:
    """Each process does a step: they add up to the run."""
    log = tmp_path / "log"
    typed = words(releases, tmp_path / "out", "--max-steps", 2, "--max-hours", 1e-9)
    assert end(start(typed, log)) == 0
    assert "Stopped (--max-hours) at step 1. To go on:" in log.read_text()
    assert end(start(["--resume", "--out", str(tmp_path / "out")], log)) == 0
    assert "Report: " in log.read_text()


def test_a_finished_run_has_nothing_to_do_until_there_are_more_steps(
    releases: Path, straight: Path, tmp_path: Path
) -> None:
    out, log = Path(shutil.copytree(straight, tmp_path / "out")), tmp_path / "log"
    before = digest_of(out)
    assert end(start(["--resume", "--out", str(out)], log)) == 0
    assert "Nothing to do: 10 steps are done." in log.read_text()
    assert digest_of(out) == before
    assert end(start(["--resume", "--out", str(out), "--max-steps", "11"], log, kill_at=IN_REPORT)) == KILLED
    report = (out / "report.md").read_text()
    assert end(start(["--resume", "--out", str(out), "--max-steps", "11"], log)) == 0
    assert rows_of(out)[:10] == rows_of(straight) and len(rows_of(out)) == 11
    assert "10 steps of 8 pictures" in report
    assert "11 steps of 8 pictures" in (out / "report.md").read_text()
    saved = checkpoint.read_checkpoint(out)
    assert saved is not None and saved[checkpoint.KEY]["is_finished"]


def test_fewer_steps_in_all_than_the_checkpoint_has(releases: Path, tmp_path: Path) -> None:
    """Killed before the first look at the other split, then told to end where it is: it has to look."""
    typed = words(releases, tmp_path, "--checkpoint-every", 2)
    assert end(start(typed, tmp_path / "log", kill_at=4)) == KILLED
    assert end(start([*typed, "--max-steps", "4"], tmp_path / "log")) == 0
    assert [step for step, _, _ in rows_of(tmp_path, "val")] == [4]
    assert "4 steps of 8 pictures" in (tmp_path / "report.md").read_text()


def killed_somewhere(releases: Path, straight: Path, out: Path, seconds: float) -> str:
    """Kill a run some time after its first line, look, run it again; how far it came."""
    typed, log = words(releases, out, *STEPS[:2], "--checkpoint-every", 1), out / "log"
    out.mkdir()
    running = start(typed, log)
    wait_for("step      1/", log)
    time.sleep(seconds)
    running.kill()
    end(running)
    assert_loads(out)
    told = log.read_text().rpartition("step ")[2].splitlines()[0]
    assert end(start(typed, log)) == 0
    assert_loads(out)
    assert digest_of(out) == digest_of(straight)
    assert rows_of(out) == rows_of(straight)
    return told


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))])
def test_killed_at_any_moment(number: int, releases: Path, straight: Path, tmp_path: Path) -> None:
    killed_somewhere(releases, straight, tmp_path / "out", random.Random(number).uniform(0, 0.6))


def count_points(releases: Path, folder: Path) -> int:
    folder.mkdir()
    typed = words(releases, folder / "out", "--max-steps", 4, "--checkpoint-every", 2)
    assert end(start(typed, folder / "log", point=(-1, "before"))) == 0
    return int((folder / "log").read_text().rpartition("points ")[2])


def die_at(releases: Path, folder: Path, point: tuple[int, str], expected: str) -> None:
    folder.mkdir()
    typed = words(releases, folder / "out", "--max-steps", 4, "--checkpoint-every", 2)
    assert end(start(typed, folder / "log", point=point)) == KILLED
    assert_loads(folder / "out")
    assert end(start(typed, folder / "log")) == 0
    assert digest_of(folder / "out") == expected
    left = [path.name for path in (folder / "out").rglob("*") if "tmp" in path.name and path.parent != folder / "out"]
    assert left == [], "what a killed process left is swept"


@pytest.mark.parametrize("share", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_death_while_a_checkpoint_is_written(releases: Path, tmp_path: Path, share: int) -> None:
    """Before and after each rename and removal of files; three points in the fast suite."""
    num = count_points(releases, tmp_path / "counted")
    expected = digest_of(tmp_path / "counted" / "out")
    every = [(number, side) for number in range(num) for side in ("before", "after")]
    some = every if share == 2 else [(number, "before") for number in (num // 4, num // 3, num // 2)]
    assert len(every) > 20
    for number, side in some:
        die_at(releases, tmp_path / f"{number}-{side}", (number, side), expected)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        (("--batch-size", 8), "batch_size"),
        (("--accumulate", 1), "accumulate"),
        (("--seed", 1), "seed"),
        (("--learning-rate", 1), "learning_rate"),
        (("--finetune", "fc6+"), "finetune"),
    ],
)
def test_other_settings_are_refused(releases: Path, straight: Path, more: tuple[Any, ...], field: str) -> None:
    with (
        pytest.raises(BadOption, match=rf"begun with other settings: expected {field}=.* got {field}="),
        run_of(*words(releases, straight, *STEPS), *more),
    ):
        pass


def test_another_release_is_refused(straight: Path, tmp_path: Path) -> None:
    from t4sa_data.testing import make_release

    make_release(tmp_path, 54, formats=("parquet",))
    with pytest.raises(StateMismatch), run_of(*words(tmp_path, straight, *STEPS)):
        pass


def test_nothing_to_go_on_with(releases: Path, tmp_path: Path) -> None:
    from examples.training.command import parse
    from examples.training.machine import machine

    # isort: split
    from examples.train import Run

    command = parse("", [*words(releases, tmp_path), "--resume"])
    assert command is not None
    with machine("cpu", "none") as where, pytest.raises(RunError, match="no checkpoint to go on with"):
        Run(command.config, where, resume=command.resume)


def test_a_damaged_checkpoint_is_named(releases: Path, straight: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(straight, tmp_path / "out"))
    weights = next((out / checkpoint.LAST).glob("model-*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelFileError, match="other sha256"), run_of(*words(releases, out, *STEPS)):
        pass


class Died(Exception):
    """In place of a process."""


def model_of(seed: int, mean: float) -> Model:
    torch.manual_seed(seed)
    network, given = build("smoke", width=0.25), default_input("smoke")
    text = prototxt.write(net_of(network.layers))  # type: ignore[arg-type, attr-defined]
    image = torch.full((3, 72, 72), mean)
    return Model(network=network, architecture="caffe", input=given, deploy=text + f"# {seed}\n", mean_image=image)


def die_of(_number: int) -> None:
    raise Died


def test_a_model_folder_is_the_old_model_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written again under the same name, as a GPU's run does that is killed and does a step once more."""
    old, new = model_of(1, 100.0), model_of(2, 110.0)
    seen = []
    for number in range(100):
        folder = tmp_path / str(number)
        save_model(folder, old)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", os.replace)
            patch.setattr(os, "unlink", os.unlink)
            points = Points(number, "after", die_of)
            with contextlib.suppress(Died):
                save_model(folder, new)
        found = load_model(folder)
        assert found.mean_image is not None and found.deploy is not None
        which = found.deploy[-2]
        weights = {"1": old, "2": new}[which].network.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in found.network.state_dict().items())
        assert found.mean_image[0, 0, 0] == {"1": 100.0, "2": 110.0}[which]
        seen.append(which)
        if points.count <= number:
            break
    assert "1" in seen and seen[-1] == "2" and len(seen) > 6
    assert {path.suffix for path in folder.iterdir()} == {".json", ".prototxt", ".safetensors"}
    assert len(list(folder.iterdir())) == 4, "the old one's files are gone"
    deploy = next(folder.glob("*.prototxt"))
    deploy.write_text(deploy.read_text().replace("0.75", "0.5"))
    with pytest.raises(ModelFileError, match="other sha256"):
        load_model(folder)
