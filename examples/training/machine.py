"""Where a run works: device, precision, ranks; and the wish to stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from examples.errors import DeviceError

BF16_CAPABILITY = (8, 0)
"""Least compute capability with bf16 units (Ampere). A T4 (7.5) says that it supports bf16, and emulates it."""
STOP_CHECK_STEPS = 10
"""Steps after which several processes ask each other whether one is to stop: a SIGTERM reaches not all at once."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Device, precision and place among the ranks."""

    device: torch.device
    amp: str
    """bf16, fp16 or none."""
    reason: str
    """Why this precision."""
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    @property
    def dtype(self) -> torch.dtype | None:
        """Of mixed precision; None: float32 throughout."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "none": None}[self.amp]

    def autocast(self) -> Any:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Added up over all ranks, in place; the tensor."""
        if self.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, wish: bool) -> bool:
        """Whether some rank wishes so."""
        return bool(self.sum(torch.tensor([int(wish)], device=self.device)).item())

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.world_size > 1:
            torch.distributed.barrier()


def choose_device(wanted: str) -> torch.device:
    """`auto` is cuda, else mps, else cpu; under torchrun each process has its own GPU.

    Raises:
        DeviceError: the wanted device is not here.
    """
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(name for name, is_here in here.items() if is_here) if wanted == "auto" else wanted
    if not here[kind]:
        raise DeviceError(
            f"no {kind} device here",
            expected=" or ".join(name for name, is_here in here.items() if is_here),
            got=f"--device {wanted}",
            hint="On the CPU: `--recipe smoke`, or any recipe with --device cpu and patience.",
        )
    if kind != "cuda":
        return torch.device(kind)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise DeviceError("more processes than GPUs", expected=f"at most {torch.cuda.device_count()}", got=local + 1)
    return torch.device("cuda", local)


def choose_amp(wanted: str, device: torch.device, capability: tuple[int, int] | None = None) -> tuple[str, str]:
    """Precision, and why.

    Args:
        wanted: auto, bf16, fp16, none.
        device: to work on.
        capability: of the GPU; None: asked.

    Raises:
        DeviceError: fp16 on a CPU: torch has no fp16 convolutions worth the name there.

    >>> choose_amp("auto", torch.device("cuda"), (7, 5))[0], choose_amp("auto", torch.device("cuda"), (9, 0))[0]
    ('fp16', 'bf16')
    """
    if wanted == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 needs a GPU", got="--amp fp16 on the CPU", hint="--amp none, or bf16.")
    if wanted != "auto":
        return wanted, "as asked for"
    if device.type != "cuda":
        return "none", f"float32 on {device.type}"
    found = capability or torch.cuda.get_device_capability(device)
    words = f"compute capability {found[0]}.{found[1]}"
    if found >= BF16_CAPABILITY:
        return "bf16", f"{words} has bf16"
    return "fp16", f"{words} has no bf16 units; LRN, loss and softmax stay in float32"


@contextmanager
def machine(device: str, amp: str) -> Iterator[Machine]:
    """This process's place, joined with the others of `torchrun`, left at the end.

    Raises:
        DeviceError: the wanted device or precision is not here.
    """
    chosen = choose_device(device)
    precision, reason = choose_amp(amp, chosen)
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = True  # shapes are the same in every step
    if world_size > 1:
        torch.distributed.init_process_group(
            "nccl" if chosen.type == "cuda" else "gloo", device_id=chosen if chosen.type == "cuda" else None
        )
    try:
        yield Machine(device=chosen, amp=precision, reason=reason, rank=rank, world_size=world_size)
    finally:
        if world_size > 1:
            torch.distributed.destroy_process_group()


class Stop:
    """The wish to stop: SIGTERM (a scheduler's warning), or the hours that were given.

    Args:
        max_hours: of this process; 0: no limit.
    """

    def __init__(self, max_hours: float) -> None:
        self.until = time.monotonic() + 3600 * max_hours if max_hours else float("inf")
        self.reason = ""
        self._before = signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, *_: Any) -> None:
        self.reason = "SIGTERM"

    def asked(self, where: Machine, step: int) -> str:
        """Why to stop after this step; empty: go on. All ranks get the same answer."""
        if time.monotonic() > self.until:
            self.reason = self.reason or "--max-hours"
        if where.world_size == 1:
            return self.reason
        if step % STOP_CHECK_STEPS or not where.any(bool(self.reason)):
            return ""
        return self.reason or "another process is to stop"

    def close(self) -> None:
        """Give SIGTERM back its meaning."""
        signal.signal(signal.SIGTERM, self._before)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
