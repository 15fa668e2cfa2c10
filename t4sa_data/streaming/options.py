"""How a loader goes through a selection: what `stream` was asked for, checked, and what follows from it for workers."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t4sa_data.errors import BadOption
from t4sa_data.plan import Shuffle, Tail
from t4sa_data.streaming.work import DECODES, Recipe

CHUNK_BYTES, CHUNK_SENT = 32, 16
"""Pictures a thread takes at a time, where handing out costs more than the work."""
LEAST_DECODED, MOST_DECODED = 4, 16
"""Where they are decoded: few, so that the last batch does not wait for one thread; more with more threads, which take
turns at Python's lock (16 threads: 6,400 pictures a second by 4, 11,400 by 16)."""
AHEAD_OF_WORKER = 32
"""Pictures per worker that are handed out ahead of the consumer, where they are decoded."""
CHUNKS_AHEAD = 8
"""Chunks per worker, elsewhere."""
NUM_AHEAD = 3
"""Batches that are being made at least, the one that is waited for among them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a loader goes through a selection."""

    batch_size: int
    """Of the global batch: all ranks together."""
    shuffle: Shuffle | None
    tail: Tail
    seed: int
    weights: npt.NDArray[np.float64] | None
    """shape (n,); None: every sample once."""
    recipe: Recipe
    columns: tuple[str, ...]
    num_workers: int
    use_processes: bool
    rank: int | None
    world_size: int | None

    def __post_init__(self) -> None:
        """Raise `BadOption` for what cannot be meant."""
        if self.batch_size < 1:
            raise BadOption("batch_size is that of all ranks together", expected="1 or more", got=self.batch_size)
        if self.tail not in ("drop", "wrap", "ragged"):
            raise BadOption("no such tail", expected="drop | wrap | ragged", got=self.tail)
        if self.recipe.decode not in DECODES:
            raise BadOption("no such decode", expected='"cpu" | "cuda" | None', got=self.recipe.decode)
        if self.recipe.decode == "cuda" and self.recipe.transform is not None:
            raise BadOption(
                'a transform has no pictures before the device where decode="cuda"',
                hint='decode="cpu", or transform the batches of stream(...).to("cuda").',
            )
        if self.num_workers < 1:
            raise BadOption("workers", expected="1 or more", got=self.num_workers)

    @property
    def is_decoded(self) -> bool:
        """Whether threads decode into a batch, or transform."""
        return self.recipe.decode == "cpu" or self.recipe.transform is not None

    @property
    def chunk(self) -> int:
        """Pictures that a worker takes at a time."""
        if self.use_processes:
            return CHUNK_SENT
        return min(max(LEAST_DECODED, self.num_workers), MOST_DECODED) if self.is_decoded else CHUNK_BYTES

    def num_ahead(self, per_rank: int) -> int:
        """Batches that are being made at a time.

        Args:
            per_rank: samples of a batch on this rank.
        """
        of_worker = AHEAD_OF_WORKER if self.is_decoded and not self.use_processes else CHUNKS_AHEAD * self.chunk
        return max(NUM_AHEAD, -(-of_worker * self.num_workers // per_rank))


def parse_workers(workers: int | str | None) -> tuple[int, bool]:
    """Number of workers, and whether they are processes.

    Args:
        workers: a number of threads, `processes`, `processes:4`, or None.

    Raises:
        BadOption: none of these.

    >>> parse_workers(3), parse_workers("processes:2")
    ((3, False), (2, True))
    """
    if isinstance(workers, int):
        return workers, False
    share = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    share = max(1, share // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's: ranks on this machine
    if workers is None:
        return share, False
    kind, _, count = workers.partition(":")
    if kind != "processes" or not (count.isdigit() or not count):
        raise BadOption("workers", expected="a number of threads, processes, or processes:N", got=workers)
    return int(count or share), True
