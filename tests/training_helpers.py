"""What the tests of the trainer share: runs in this process, and in processes that can be killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from examples import train
from examples.evaluation import figures
from examples.models.folder import load_model, read_json, read_tensors
from examples.training import checkpoint, report
from examples.training.command import parse
from examples.training.machine import machine

# isort: split
from tests.deaths import Points

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 120
IN_REPORT = -2
PRELOAD = ("tests.evaluation_rank", "torch._dynamo", "pandas", "scipy.stats", "torchcodec.decoders", "torchvision.io")
"""What a run imports late: seconds for each process that is not forked from one that has it."""
SMALL = ("--recipe", "smoke", "--device", "cpu", "--workers", "1", "--batch-size", "4", "--accumulate", "2")
"""A global batch of 8; with `releases` (60 samples) an epoch has 6 or 7 steps."""
QUIET = ("--width", "0.25", "--log-every", "1", "--eval-batch-size", "16", "--test-split", "none")


def words(data: Path, out: Path, *more: object) -> list[str]:
    """A small run as it is typed."""
    return [*SMALL, *QUIET, "--data", str(data), "--out", str(out), *map(str, more)]


def without_figures() -> None:
    """Leave out what takes a second and is tested elsewhere; for processes that end."""
    report.draw_inputs = lambda *_: None
    figures.curves_figure = lambda *_, **__: None
    os.fsync = lambda _: None  # against power cuts; a killed process leaves what it wrote to the system anyway


@contextlib.contextmanager
def run_of(*typed: object) -> Iterator[train.Run]:
    """A run that has not taken a step."""
    command = parse("", [str(word) for word in typed])
    assert command is not None
    with machine(command.config.device, command.config.amp) as where:
        yield train.Run(command.config, where)


def _child(
    typed: list[str],
    log: str,
    env: Mapping[str, str],
    kill_at: int,
    point: tuple[int, str] | None,
    keys_to: str,
) -> None:
    """A training in a process of its own."""
    torch.set_num_threads(1)
    os.environ |= env
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(descriptor, number)
    without_figures()
    step = train.Run.train_step

    def watched(self: train.Run, batch: dict[str, Any], waited: float) -> None:
        if self.progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if keys_to:
            with open(f"{keys_to}-{self.where.rank}.jsonl", "a") as file:  # noqa: PTH123
                file.write(json.dumps([self.progress.step, list(batch["key"])]) + "\n")
        step(self, batch, waited)

    train.Run.train_step = watched  # type: ignore[method-assign]
    if kill_at == IN_REPORT:
        report.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    points = Points(*point) if point is not None else None
    code = train.main(typed)
    if points is not None:
        print(f"points {points.count}", flush=True)
    sys.stdout.flush()
    os._exit(code)


def start(
    typed: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    kill_at: int = -1,
    point: tuple[int, str] | None = None,
    keys_to: Path | None = None,
) -> Any:
    """Begin a training in another process.

    Args:
        typed: the command line.
        log: gets what it prints.
        env: of the process: its rank.
        kill_at: steps done when it kills itself; -1: it does not; `IN_REPORT`: after all of them.
        point: rename or removal at which it does, see `Points`.
        keys_to: beginning of the files that get the keys of each step, by rank.
    """
    context = multiprocessing.get_context("forkserver")  # all is imported once, and forked before it has threads
    context.set_forkserver_preload(["tests.training_helpers", *PRELOAD])
    os.environ["PYTHONPATH"] = str(ROOT)
    try:
        made = context.Process(
            target=_child, args=(list(typed), str(log), env or {}, kill_at, point, str(keys_to or ""))
        )
        made.start()
    finally:
        del os.environ["PYTHONPATH"]
    return made


def end(process: Any) -> int:
    """Its exit status; minus the signal where one ended it."""
    process.join(PATIENCE_SECONDS)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode is not None
    return int(process.exitcode)


def run_ranks(world_size: int, typed: Sequence[str], log: Path, **more: Any) -> list[int]:
    """Train with several processes, as `torchrun` starts them; their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    if world_size == 1:
        env = {}
    ranks = [
        start(typed, log, env=env | ({"RANK": str(r), "LOCAL_RANK": str(r)} if env else {}), **more)
        for r in range(world_size)
    ]
    return [end(one) for one in ranks]


def state_of(out: Path, folder: str = checkpoint.LAST) -> dict[str, torch.Tensor]:
    """Weights, and the optimiser's tensors where there are some."""
    description = read_json(out / folder)
    tensors = read_tensors(out / folder, description["weights"], description)
    for file in description["more"].values():
        tensors |= read_tensors(out / folder, file, description)
    return tensors


def digest_of(out: Path, folder: str = checkpoint.LAST) -> str:
    """Of all tensors of a checkpoint, to the last bit."""
    made = hashlib.sha256()
    for name, value in sorted(state_of(out, folder).items()):
        made.update(name.encode() + value.contiguous().numpy().tobytes())
    return made.hexdigest()


def rows_of(out: Path, kind: str = "train") -> list[tuple[int, float, float]]:
    """Step, loss and accuracy of each row."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["accuracy"]) for row in rows if row["kind"] == kind]


def assert_loads(out: Path) -> None:
    """Whatever is there of a run is whole: folders that have a model.json load, nothing is half."""
    for name in (checkpoint.LAST, checkpoint.BEST):
        if (out / name / "model.json").exists():
            load_model(out / name)
            assert all(bool(one.isfinite().all()) for one in state_of(out, name).values())
    checkpoint.read_checkpoint(out)
