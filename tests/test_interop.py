"""The stream inside other frameworks: the examples run and resume; nobody shares out samples a second time."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import t4sa_data  # noqa: E402
from t4sa_data.errors import ShardedTwice  # noqa: E402

ROOT = Path(__file__).parents[1]
EXAMPLES = {"accelerate": "accelerate", "hf_trainer": "transformers", "lightning": "lightning"}
BATCH, STEPS, MORE = 8, 8, 14
"""Six batches are an epoch: both runs go over the end of one."""
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "USE_TF": "0"}


def call(*words: str) -> None:
    """Run Python in a process of its own: frameworks keep what they find out in globals."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *words],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]


def positions_of(out: Path) -> dict[int, list[int]]:
    """Step -> positions of the global batch, rank after rank."""
    made: dict[int, list[int]] = {}
    for path in sorted(out.glob("seen-*.jsonl")):
        for line in path.read_text().splitlines():
            seen = json.loads(line)
            made.setdefault(seen["step"], []).extend(seen["position"])
    return made


def expected(data: Path, steps: int) -> dict[int, list[int]]:
    """What one rank alone would see."""
    stream = t4sa_data.stream(data, batch_size=BATCH, size=64, decode=None)
    made: dict[int, list[int]] = {}
    while len(made) < steps:
        for batch in stream:
            made[len(made) + 1] = batch["position"].tolist()
    return {step: made[step] for step in range(1, steps + 1)}


@pytest.fixture(scope="module")
def begun(releases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each example that can be, run for eight steps; all in one process, as most of their time is imports."""
    folder = tmp_path_factory.mktemp("begun")
    there = [name for name, package in EXAMPLES.items() if importlib.util.find_spec(package)]
    options = ["--data", str(releases), "--steps", str(STEPS), "--batch-size", str(BATCH)]
    code = "import importlib\n"
    for name in there:
        (folder / name).mkdir()
        words = [*options, "--out", str(folder / name)]
        code += f"importlib.import_module('examples.interop.{name}').main({words!r})\n"
    call("-c", code)
    return folder


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, releases: Path, begun: Path) -> None:
    pytest.importorskip(EXAMPLES[example])
    assert positions_of(begun / example) == expected(releases, STEPS)


@pytest.mark.parametrize(
    "example", [e if e == "accelerate" else pytest.param(e, marks=pytest.mark.slow) for e in EXAMPLES]
)
def test_a_run_goes_on_with_two_processes(example: str, releases: Path, begun: Path, tmp_path: Path) -> None:
    """As a user starts it: no sample is seen twice and none is lost, though the number of processes changed."""
    pytest.importorskip(EXAMPLES[example])
    shutil.copytree(begun / example, tmp_path, dirs_exist_ok=True)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-endpoint", "127.0.0.1:0"]
    launch += ["--rdzv-backend", "c10d", "--local-addr", "127.0.0.1", "-m", f"examples.interop.{example}"]
    options = ["--data", str(releases), "--out", str(tmp_path), "--steps", str(MORE), "--batch-size", str(BATCH)]
    call(*launch, *options, "--resume")
    assert positions_of(tmp_path) == expected(releases, MORE)
    if example == "accelerate":  # one training of two processes, not two trainings
        assert len(list((tmp_path / "checkpoint").glob("random_states_*.pkl"))) == 2


def test_examples_are_short() -> None:
    for path in (ROOT / "examples" / "interop").glob("*.py"):
        assert len(path.read_text().splitlines()) < 80, path.name


def test_a_dataloader_with_workers_is_refused(releases: Path) -> None:
    stream = t4sa_data.stream(releases, batch_size=BATCH, size=32)
    with pytest.raises(ShardedTwice, match="DataLoader with 1 worker"):
        list(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=1))
    with pytest.raises(ShardedTwice):
        stream[0]
    plain = list(torch.utils.data.DataLoader(stream, batch_size=None))  # nothing is shared out: it works
    assert [b["key"] for b in plain] == [b["key"] for b in t4sa_data.stream(releases, batch_size=BATCH, size=32)]


@pytest.mark.skipif(not importlib.util.find_spec("accelerate"), reason="accelerate is not installed")
def test_sharding_by_accelerate_is_refused(releases: Path) -> None:
    from accelerate.data_loader import DataLoaderDispatcher, IterableDatasetShard, prepare_data_loader

    stream = t4sa_data.stream(releases, batch_size=BATCH, size=32)
    with pytest.raises(ShardedTwice, match="Accelerate"):
        next(iter(IterableDatasetShard(stream, batch_size=2, num_processes=2)))
    loader = torch.utils.data.DataLoader(stream, batch_size=None)
    with pytest.raises(ShardedTwice, match="Accelerate"):
        next(iter(DataLoaderDispatcher(stream, batch_size=None)))
    prepared = prepare_data_loader(loader, num_processes=1, process_index=0, put_on_device=False)
    assert len(list(prepared)) == len(stream)


@pytest.mark.skipif(not importlib.util.find_spec("torchdata"), reason="torchdata is not installed")
def test_the_state_goes_through_a_stateful_dataloader(releases: Path) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make() -> StatefulDataLoader:
        return StatefulDataLoader(t4sa_data.stream(releases, batch_size=BATCH, size=32), batch_size=None)

    every = [batch["key"] for batch in make()]
    loader = make()
    batches = iter(loader)
    taken = [next(batches)["key"] for _ in range(2)]
    state = loader.state_dict()
    again = make()
    again.load_state_dict(state)
    assert taken + [batch["key"] for batch in again] == every


def test_the_state_goes_through_a_distributed_checkpoint(releases: Path, tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.stateful import Stateful

    stream = t4sa_data.stream(releases, batch_size=BATCH, size=32)
    assert isinstance(stream, Stateful)
    every = [batch["key"] for batch in t4sa_data.stream(releases, batch_size=BATCH, size=32)]
    batches = iter(stream)
    next(batches)
    dcp.save({"loader": stream}, checkpoint_id=tmp_path / "checkpoint", no_dist=True)
    batches.close()
    other = t4sa_data.stream(releases, batch_size=BATCH, size=32)
    dcp.load({"loader": other}, checkpoint_id=tmp_path / "checkpoint", no_dist=True)
    assert [batch["key"] for batch in other] == every[1:]
    shutil.rmtree(tmp_path / "checkpoint")
