"""What a run tells while it works: lines, `metrics.jsonl`, TensorBoard; and `run.json`, which says what it was."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from examples.errors import TrainingDiverged
from examples.training.config import Config
from examples.training.machine import Machine, synchronize
from t4sa_data.errors import MissingDependency
from t4sa_data.files import write_bytes, write_json

METRICS = "metrics.jsonl"
ETA_STEPS = 20
"""Steps after which the time to the end is told: the first ones are slower than the others."""


def read_metrics(out: Path, until: int | None = None) -> list[dict[str, Any]]:
    """Rows of `metrics.jsonl`, those of later steps than `until` left out; a half-written last line does not count."""
    path = out / METRICS
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if until is None or row["step"] <= until:
            rows.append(row)
    return rows


class Journal:
    """Keeps the sums of a window of steps on the device, and looks at them when a line is due.

    Args:
        config: of the run.
        machine: only its main process writes.
        first_step: steps done before; later rows of an earlier process are dropped.
        total_steps: of the run.
        num_samples: pictures of an epoch.
    """

    def __init__(
        self, config: Config, machine: Machine, *, first_step: int, total_steps: int, num_samples: int = 1
    ) -> None:
        self.config, self.machine = config, machine
        self.first_step, self.total_steps, self.num_samples = first_step, total_steps, num_samples
        self._sums = torch.zeros(3, dtype=torch.float64, device=machine.device)  # loss, right, pictures
        self._bad_step = torch.zeros((), dtype=torch.int64, device=machine.device)
        self._keys: deque[tuple[int, list[str]]] = deque(maxlen=max(config.log_every, 1) + 1)
        self._waited, self._since = 0.0, time.perf_counter()
        self._window_start = first_step
        self._board = _tensorboard(config) if config.tensorboard and machine.is_main else None
        if machine.is_main:
            rows = read_metrics(config.out, first_step)
            write_bytes(config.out / METRICS, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def add(
        self, step: int, loss: torch.Tensor, num_right: torch.Tensor, num: int, keys: Sequence[str], waited: float
    ) -> None:
        """Take up a step; nothing is copied from the device.

        Args:
            step: just done, counted from 1.
            loss: this rank's part of the mean loss of the global batch.
            num_right: pictures of this rank that were classified as their label.
            num: pictures of this rank.
            keys: of them.
            waited: seconds for the batch.
        """
        self._sums += torch.stack([loss.double(), num_right.double(), torch.full_like(loss.double(), num)])
        bad = ~torch.isfinite(loss) & (self._bad_step == 0)
        self._bad_step = torch.where(bad, step, self._bad_step)
        self._keys.append((step, list(keys)))
        self._waited += waited

    def is_due(self, step: int) -> bool:
        """Whether a line comes after this step."""
        more = (self.first_step + 1, self.first_step + ETA_STEPS, self.total_steps)
        return (step % self.config.log_every == 0 or step in more) and step > self._window_start

    def line(self, step: int, rate: float, loss_scale: float | None = None) -> dict[str, Any]:
        """Write the window's row and line; the row.

        Raises:
            TrainingDiverged: a loss was no number: names step and pictures.
        """
        synchronize(self.machine.device)
        self.require_finite()
        now, steps = time.perf_counter(), step - self._window_start
        loss, right, num = self.machine.sum(self._sums).tolist()
        seconds = now - self._since
        row: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "epoch": round(step * self.config.global_batch / max(1, self.num_samples), 4),
            "loss": loss / steps,
            "accuracy": right / num,
            "lr": rate,
            "samples_per_second": num / seconds,
            "waiting": self._waited / seconds,
        }
        if loss_scale is not None:
            row["loss_scale"] = loss_scale
        self._write(row)
        words = (
            f"step {step:>6,}/{self.total_steps:,}  loss {row['loss']:.4f}  accuracy {row['accuracy']:6.1%}  "
            f"{row['samples_per_second']:7,.0f} pictures/s  waiting for data {row['waiting']:5.1%}  rate {rate:.1e}"
        )
        if step - self.first_step >= ETA_STEPS:
            words += f"  {duration((self.total_steps - step) * seconds / steps)} to go"
        self.say(words)
        self._sums.zero_()
        self._waited, self._since, self._window_start = 0.0, time.perf_counter(), step
        return row

    def require_finite(self, weights_are: bool = True) -> None:
        """Raise where a loss was no number.

        Args:
            weights_are: numbers; if not, the last step made them so.

        Raises:
            TrainingDiverged: names step and pictures of this rank, if it is one of its own.
        """
        step = int(self._bad_step) or (0 if weights_are or not self._keys else self._keys[-1][0])
        if not self.machine.any(step > 0):
            return
        keys = next((keys for at, keys in self._keys if at == step), [])
        raise TrainingDiverged(
            "the loss is no number" if int(self._bad_step) or weights_are else "the weights are no numbers",
            got=f"step {step}" if step else "on another process",
            where=", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else ""),
            hint="A lower --learning-rate, some --warmup-steps, or --amp none; the checkpoint before it is whole.",
        )

    def validation(self, step: int, loss: float, accuracy: float) -> None:
        """Write the row of an evaluation."""
        self._write({"kind": "val", "step": step, "loss": loss, "accuracy": accuracy})
        self.say(f"step {step:>6,}: {self.config.eval_split}: loss {loss:.4f}, accuracy {accuracy:.2%}")

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time that is not training: evaluation, checkpoints."""
        synchronize(self.machine.device)
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began

    def say(self, words: str) -> None:
        """A line, of the main process."""
        if self.machine.is_main:
            print(words, flush=True)

    def _write(self, row: Mapping[str, Any]) -> None:
        if not self.machine.is_main:
            return
        with (self.config.out / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    self._board.add_scalar(f"{row['kind']}/{name}", value, row["step"])
            self._board.flush()

    def close(self) -> None:
        """Give back TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def _tensorboard(config: Config) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependency("--tensorboard needs tensorboard", hint="pip install tensorboard") from error
    return SummaryWriter(config.out / "tensorboard")


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(40), duration(4000), duration(400_000)
    ('40 s', '1 h 07 min', '111 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes < 6000 else f"{minutes // 60} h"


def describe_run(config: Config, argv: Sequence[str], machine: Machine, more: Mapping[str, Any]) -> None:
    """Write `run.json`: the commands so far, the project's revision, versions, device, release."""
    path = config.out / "run.json"
    before = json.loads(path.read_text())["commands"] if more["step"] and path.is_file() else []
    packages = ("t4sa-data", "torch", "torchvision", "numpy", "pillow", "pyarrow")
    write_json(
        path,
        {
            "commands": [*before, shlex.join(["python", "examples/train.py", *argv])],
            "git_revision": git_revision(),
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in packages},
            "device": str(machine.device),
            "device_name": torch.cuda.get_device_name(machine.device)
            if machine.device.type == "cuda"
            else platform.machine(),
            "precision": f"{machine.amp} ({machine.reason})",
            "world_size": machine.world_size,
            "cores": os.cpu_count(),
            **more,
        },
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """Commit of this checkout, with a + where files differ from it; None outside git."""
    folder = Path(__file__).resolve().parent
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def resume_command(config: Config) -> str:
    """What to type to go on."""
    return shlex.join([Path(sys.executable).name, "examples/train.py", "--resume", "--out", str(config.out)])
