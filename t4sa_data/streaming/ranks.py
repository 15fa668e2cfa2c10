"""Which of how many processes this is, and whether somebody else would share out the samples a second time."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import torch

from t4sa_data.errors import BadOption, ShardedTwice


def find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Rank and world size: as given, else those of torch.distributed, else those that torchrun sets, else 0 of 1.

    Raises:
        BadOption: only one is given, or they do not fit.
    """
    if rank is None and world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        told = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (told[0].isdecimal() and told[1].isdecimal() and int(told[0]) < int(told[1])):
            raise BadOption(
                "RANK and WORLD_SIZE of the environment do not fit",
                expected="0 <= RANK < WORLD_SIZE",
                got=" of ".join(told),
                hint="Unset both, or give rank= and world_size=.",
            )
        return int(told[0]), int(told[1])
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise BadOption(
            "rank and world_size go together", expected="0 <= rank < world_size", got=f"rank {rank} of {world_size}"
        )
    return rank, world_size


def require_only_sharding() -> None:
    """Refuse to run where a framework shares out samples again.

    Raises:
        ShardedTwice: in a worker of a `DataLoader`, or under Accelerate's own sharding.
    """
    info = torch.utils.data.get_worker_info()
    if info is not None:
        refuse(f"a DataLoader with {info.num_workers} worker(s) would give each its own copy of the stream")
    # Accelerate shares out what a DataLoader gives by wrapping it: only the callers show that.
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "accelerate.data_loader":
            kind = type(frame.f_locals.get("self")).__name__
            if kind in ("IterableDatasetShard", "DataLoaderDispatcher"):
                refuse(f"Accelerate's {kind} would give each process a part of this process's part")
        frame = frame.f_back


def refuse(what: str) -> NoReturn:
    """Raise `ShardedTwice`."""
    raise ShardedTwice(
        what,
        hint="A stream is the loader: its batches are whole, its rank is its own. Iterate over the stream itself, in "
        "place of a DataLoader.",
    )


def sum_over_ranks(*values: float, device: Any = None) -> tuple[float, ...]:
    """Add numbers up over all ranks: sums of losses, of right answers, and of samples.

    With `tail="ragged"` each sample is on one rank only, once: sums over ranks divided by the summed count are exact.

    Args:
        values: of this rank.
        device: where the process group works; None: the current GPU for NCCL, else the CPU.

    >>> sum_over_ranks(3, 4.5)
    (3.0, 4.5)
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tuple(float(value) for value in values)
    if device is None:
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.tensor(values, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return tuple(total.tolist())
