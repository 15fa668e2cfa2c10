"""What tests of the loader share: batches that can be compared, transforms to be sent, what is left behind."""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import torch

Frozen = dict[str, Any]
ROOT = str(Path(__file__).parents[1])
if ROOT not in sys.path:  # `pytest` does not put it there; processes that are spawned take the path from here
    sys.path.insert(0, ROOT)


def frozen(value: Any) -> Any:
    """A value whose equality is that of every byte."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {name: frozen(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return tuple(frozen(one) for one in value)
    return value


def epoch_of(loader: Iterable[dict[str, Any]]) -> list[Frozen]:
    """All batches of an epoch."""
    return [frozen(batch) for batch in loader]


def keys_of(loader: Iterable[dict[str, Any]]) -> list[str]:
    """The keys of an epoch, in their order."""
    return [key for batch in loader for key in batch["key"]]


# Transforms at the top of a module, as processes need them.
def halved(image: torch.Tensor) -> torch.Tensor:
    return image[:, ::2, ::2].contiguous().float() / 255


def noisy(image: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    return image.float() + torch.rand(image.shape, generator=generator)


def global_noise(image: torch.Tensor) -> torch.Tensor:
    """Draws from all three global generators."""
    return image.float() + torch.rand(()) + float(np.random.rand()) + random.random()


def small(image: Any) -> torch.Tensor:
    """A PIL picture as a tensor of 8 by 8."""
    return torch.from_numpy(np.asarray(image.resize((8, 8))).copy())


def numpy_noise(image: torch.Tensor) -> torch.Tensor:
    return image.float() + float(np.random.rand())


def as_dict(image: torch.Tensor) -> dict[str, Any]:
    return {"mean": float(image.float().mean()), "shape": tuple(image.shape), "half": image.to(torch.bfloat16)}


class TwoWords(Exception):
    """An exception that pickle can write and not read: it takes two arguments, and gives pickle one."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class FailsAt:
    """A transform that fails on pictures that are wider than `width`."""

    def __init__(self, kind: str, width: int = 0) -> None:
        self.kind, self.width = kind, width

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[2] > self.width:
            if self.kind == "two words":
                raise TwoWords("no", "way")
            if self.kind == "stop":
                raise StopIteration
            if self.kind == "exit":
                os._exit(3)
            if self.kind == "hang":
                time.sleep(3600)
            raise ValueError("no way")
        return image


class HangsUntil:
    """A transform that is stuck until a file appears; `passes` pictures are let through before."""

    def __init__(self, path: Path, passes: int = 0) -> None:
        self.path, self.passes = path, passes
        self.is_stuck = threading.Event()

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.passes -= 1
        while self.passes < 0 and not self.path.exists():
            self.is_stuck.set()
            time.sleep(0.02)
        return image


def children() -> set[int]:
    """Processes of this one, but for Python's own resource tracker, which it starts with the first process."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= {int(pid) for pid in (task / "children").read_text().split()}
        except FileNotFoundError:
            pass  # a thread that ended
    return found - {getattr(resource_tracker._resource_tracker, "_pid", None)}


def open_files() -> Counter[str]:
    """What the file descriptors of this process point to."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[str(entry.readlink())] += 1
        except FileNotFoundError:
            pass  # the descriptor of this very listing
    return found


def own() -> tuple[set[threading.Thread], Counter[str], set[int]]:
    return set(threading.enumerate()), open_files(), children()


@contextmanager
def nothing_left(seconds: float = 20) -> Iterator[None]:
    """Fail where threads, open files, sockets, pipes or child processes are left that were not there before."""
    resource_tracker.ensure_running()
    gc.collect()
    threads, files, processes = own()
    yield
    until = time.monotonic() + seconds
    while True:
        now = own()
        left = [now[0] - threads, now[1] - files, now[2] - processes]
        if not any(left):
            return
        assert time.monotonic() < until, f"left behind: {left}"
        time.sleep(0.02)
        gc.collect()
