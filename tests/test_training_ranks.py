"""The same run on 1, 2 or 4 processes: pictures, dropout, weights, evaluation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("tyro")
import torch
import torch.distributed as dist

from examples.training import checkpoint

# isort: split
from tests.training_helpers import ROOT, rows_of, run_ranks, state_of, words

pytestmark = pytest.mark.skipif(
    not dist.is_available() or sys.platform != "linux", reason="needs torch.distributed with gloo"
)
STEPS = ("--max-steps", 10, "--checkpoint-every", 5)
KILLED = -9


@pytest.fixture(scope="module")
def alone(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten steps of one process. Not to be changed by a test."""
    out = tmp_path_factory.mktemp("alone")
    assert run_ranks(1, words(releases, out, *STEPS), out / "log", keys_to=out / "keys") == [0]
    return out


def keys_of(out: Path, world_size: int) -> dict[int, list[str]]:
    """Keys of each step, of all ranks one after the other."""
    made: dict[int, list[str]] = {}
    for rank in range(world_size):
        for line in (out / f"keys-{rank}.jsonl").read_text().splitlines():
            step, keys = json.loads(line)
            made.setdefault(step, []).extend(keys)
    return made


def assert_close(out: Path, alone: Path) -> None:
    """The same run to float tolerance."""
    for folder in (checkpoint.LAST, checkpoint.BEST):
        found, true = state_of(out, folder), state_of(alone, folder)
        assert found.keys() == true.keys()
        for name, value in true.items():
            assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-4 * float(value.abs().max())), name
    for kind in ("train", "val"):
        ours, theirs = rows_of(out, kind), rows_of(alone, kind)
        assert [(step, accuracy) for step, _, accuracy in ours] == [(step, accuracy) for step, _, accuracy in theirs]
        assert [loss for _, loss, _ in ours] == pytest.approx([loss for _, loss, _ in theirs], rel=1e-4)


def test_two_processes_are_one(releases: Path, alone: Path, tmp_path: Path) -> None:
    assert run_ranks(2, words(releases, tmp_path, *STEPS), tmp_path / "log", keys_to=tmp_path / "keys") == [0, 0]
    assert keys_of(tmp_path, 2) == keys_of(alone, 1)
    assert_close(tmp_path, alone)
    told = (tmp_path / "log").read_text()
    assert told.count("step     10/10") == 1 and "cpu, 2 process(es)" in told, "one process talks"


def test_four_processes_share_micro_batches(releases: Path, alone: Path, tmp_path: Path) -> None:
    """Two micro-batches of 4 on four processes: each has two rows of one, and their part of its dropout mask."""
    assert run_ranks(4, words(releases, tmp_path, *STEPS), tmp_path / "log", keys_to=tmp_path / "keys") == [0] * 4
    assert keys_of(tmp_path, 4) == keys_of(alone, 1)
    assert_close(tmp_path, alone)


def test_hours_that_are_over_end_all_processes(releases: Path, tmp_path: Path) -> None:
    """They ask one another after each epoch, and after every tenth step."""
    assert run_ranks(2, words(releases, tmp_path, *STEPS, "--max-hours", 1e-9), tmp_path / "log") == [0, 0]
    assert "Stopped (--max-hours) at step 7. To go on:" in (tmp_path / "log").read_text()


def test_begun_with_two_gone_on_with_one(releases: Path, alone: Path, tmp_path: Path) -> None:
    typed = words(releases, tmp_path, *STEPS)
    assert run_ranks(2, typed, tmp_path / "log", kill_at=5) == [KILLED, KILLED]
    saved = checkpoint.read_checkpoint(tmp_path)
    assert saved is not None
    assert (saved[checkpoint.KEY]["step"], saved[checkpoint.KEY]["world_size"]) == (5, 2)
    assert run_ranks(1, typed, tmp_path / "log") == [0]
    assert "going on   at step 5" in (tmp_path / "log").read_text()
    assert_close(tmp_path, alone)


def test_processes_that_do_not_share_evenly_are_refused(releases: Path, tmp_path: Path) -> None:
    assert run_ranks(3, words(releases, tmp_path, *STEPS), tmp_path / "log") == [2, 2, 2]
    told = (tmp_path / "log").read_text()
    assert "error: micro-batches and processes do not go into one another: expected" in told
    assert "shares out 2 micro-batches of 4 evenly, got 3" in told and "Traceback" not in told


def test_a_loss_that_is_no_number_ends_all_processes(releases: Path, tmp_path: Path) -> None:
    typed = words(releases, tmp_path, *STEPS, "--learning-rate", 1e9)
    assert run_ranks(2, typed, tmp_path / "log") == [2, 2]
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_torchrun(releases: Path, alone: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(ROOT / "examples" / "train.py"), *words(releases, tmp_path, *STEPS)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_close(tmp_path, alone)
