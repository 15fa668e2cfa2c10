"""Ranks that are real processes, in a process group over loopback: together they see one epoch, whatever dies."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import torch.distributed as dist

if not dist.is_available() or sys.platform != "linux":
    pytest.skip("needs torch.distributed with gloo", allow_module_level=True)
from t4sa_data import stream
from t4sa_data.streaming.ranks import sum_over_ranks
from t4sa_data.testing import assert_resume_exact, make_release
from tests.rank_worker import EVALUATION, LOADER, seen, sums

ROOT = Path(__file__).parents[1]
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"
PATIENCE_SECONDS = 120


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_release(folder, 60, formats=("parquet",), shard_bytes=30_000)
    return folder


@pytest.fixture(scope="module")
def whole(path: Path) -> list[list[Any]]:
    """The global batches of an epoch, as one process sees them."""
    return [seen(batch) for batch in stream(path, **LOADER)]


def launch(path: Path, out: Path, world_size: int, checkpoint: Path, die: list[int] | None = None) -> list[int]:
    """Run all ranks of a training; their exit codes. Where one dies, the others are ended, as launchers do."""
    out.mkdir()
    options = json.dumps({"path": str(path), "out": str(out), "checkpoint": str(checkpoint), "die": die})
    ranks = []
    for rank in range(world_size):
        added = {"RANK": str(rank), "WORLD_SIZE": str(world_size), "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
        with (out / f"stderr{rank}").open("w") as stderr:
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.rank_worker", options],
                    cwd=ROOT,
                    env={**os.environ, **added, "OMP_NUM_THREADS": "1"},
                    stderr=stderr,
                )
            )
    try:
        if die is not None:
            ranks[die[0]].wait(PATIENCE_SECONDS)
            for process in ranks:
                process.kill()
        codes = [process.wait(PATIENCE_SECONDS) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    if die is None:
        errors = "".join((out / f"stderr{rank}").read_text()[-2000:] for rank in range(world_size))
        assert codes == [0] * world_size, errors
    return codes


def batches_of(out: Path, world_size: int) -> list[list[Any]]:
    """The global batches that all ranks of a run have seen, put together in the order of ranks."""
    logs = [(out / f"rank{rank}.jsonl").read_text().splitlines() for rank in range(world_size)]
    whole_lines = [[json.loads(line) for line in log] for log in logs]
    return [[row for part in parts for row in part] for parts in zip(*whole_lines, strict=False)]


def assert_sums(path: Path, out: Path, world_size: int) -> None:
    """An evaluation over ragged parts sums up to what one process finds: nothing counted twice, nothing left out."""
    of_batches = [sums(batch) for batch in stream(path, split="validation", **EVALUATION)]
    expected = [float(sum(column)) for column in zip(*of_batches, strict=True)]
    assert len(of_batches) >= 1 and expected[2] % 7, "the last batch is to be ragged"
    for rank in range(world_size):
        assert json.loads((out / f"sums{rank}.json").read_text()) == expected


@pytest.mark.parametrize(
    ("before", "dies", "after"),
    [
        (2, [1, 4], 1),
        pytest.param(2, [1, 4], 3, marks=pytest.mark.slow),
        pytest.param(3, [0, 3], 1, marks=pytest.mark.slow),
        pytest.param(1, [0, 2], 2, marks=pytest.mark.slow),
        pytest.param(3, [2, 6], 2, marks=pytest.mark.slow),
    ],
)
def test_a_rank_is_killed_and_the_run_goes_on_with_others(
    path: Path, whole: list[list[Any]], tmp_path: Path, before: int, dies: list[int], after: int
) -> None:
    """Megatron-Bridge PR #5637, #3993: a state of 2 ranks on 1 dropped half without a word."""
    checkpoint = tmp_path / "state.json"
    codes = launch(path, tmp_path / "one", before, checkpoint, dies)
    assert codes[dies[0]] == -signal.SIGKILL
    done = json.loads(checkpoint.read_text())["batches"]
    assert done == dies[1] - 1, "the step that a rank died in is not in the checkpoint"
    first = batches_of(tmp_path / "one", before)[:done]
    launch(path, tmp_path / "two", after, checkpoint)
    second = batches_of(tmp_path / "two", after)
    assert first + second == whole
    assert_sums(path, tmp_path / "two", after)
    assert json.loads(checkpoint.read_text())["batches"] == len(whole)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_see_the_global_batches_of_one(
    path: Path, whole: list[list[Any]], tmp_path: Path, world_size: int
) -> None:
    launch(path, tmp_path / "run", world_size, tmp_path / "state.json")
    assert batches_of(tmp_path / "run", world_size) == whole
    assert_sums(path, tmp_path / "run", world_size)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no real photos (../shared/data/photos)")
def test_resume_on_real_photos(tmp_path: Path) -> None:
    """From tar to Parquet, too; the whole run of all photos is the slow tests' of `test_photos`."""
    from tests.helpers_release import build
    from tests.test_photos import make_archive, photos

    out = tmp_path / "out"
    (tmp_path / "raw").mkdir()
    build(make_archive(tmp_path / "raw", photos(45)), out, shard_bytes=300_000)
    folders = itertools.cycle(["t4sa", "t4sa-wds"])

    def make(rank: int, world_size: int) -> Any:
        return stream(out / next(folders), **{**LOADER, "size": 48}, rank=rank, world_size=world_size)

    assert_resume_exact(make)


def test_sums_of_one_process() -> None:
    assert sum_over_ranks(1, 2.5) == (1.0, 2.5) and sum_over_ranks() == ()
