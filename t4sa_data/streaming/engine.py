"""One iteration of a loader: what reads and decodes ahead of whoever takes the batches.

The main thread does the arithmetic (which rows, where their bytes are), worker threads read and decode a few pictures
at a time straight into the batch.
"""

from __future__ import annotations

import atexit
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from t4sa_data import plan
from t4sa_data.errors import LoaderStalled, ShardError
from t4sa_data.plan import Ints
from t4sa_data.reading import OpenRelease, Range, Source
from t4sa_data.streaming.images import crop_and_flip_of, draw
from t4sa_data.streaming.options import Options
from t4sa_data.streaming.processes import Processes
from t4sa_data.streaming.selection import Selection
from t4sa_data.streaming.threads import Threads
from t4sa_data.streaming.work import Chunk, FaultyPicture, Worker, located, require_seeded

log = logging.getLogger(__name__)

SPEAK_SECONDS = 30.0
"""After so long without a batch, a log line says what is waited for."""
STALL_SECONDS = 600.0
"""After so long, it is an error."""
EARLIER_SECONDS = 5.0
"""After an error, what comes before it in its batch may take so long: the first error is the one that is raised."""
LEAVE_SECONDS = 30.0
"""Leaving a loop waits so long for threads that are at work; those that are stuck are left behind, with a log line."""
REMOTE_AHEAD = 1024
"""Samples whose ranges a remote source is told of ahead."""


class Epoch:
    """Which rows of the selection a rank's batches are made of."""

    def __init__(self, selection: Selection, options: Options, epoch: int, rank: int, world_size: int) -> None:
        self._options, self._rank, self._world_size = options, rank, world_size
        rows: Ints | None = None
        draw: Ints | int = 0
        if options.weights is not None:
            rows, draw = plan.draw_rows(
                options.weights, selection.positions, seed=options.seed, epoch=epoch, groups=selection.label
            )
        positions = selection.positions if rows is None else selection.positions[rows]
        order = plan.epoch_order(positions, seed=options.seed, epoch=epoch, shuffle=options.shuffle, draw=draw)
        self._rows = order if rows is None else rows[order]
        self._draw = None if rows is None else np.asarray(draw)[order]

    def __getitem__(self, number: int) -> tuple[Ints, Ints]:
        """Rows of the selection in a batch of this rank, and which draw of its row each is."""
        o = self._options
        places = plan.batch_slice(
            number, len(self._rows), o.batch_size, o.tail, rank=self._rank, world_size=self._world_size
        )
        return self._rows[places], np.zeros(len(places), np.int64) if self._draw is None else self._draw[places]


@dataclass(kw_only=True)
class _Batch:
    """A batch that is being made."""

    rows: Ints
    draw: Ints
    ranges: list[Range]
    images: Any = None
    """A tensor or a list that workers fill; None: not handed out yet."""
    seeds: npt.NDArray[np.uint64] | None = None
    uniforms: npt.NDArray[np.float64] | None = None
    """Of `images.draw`."""
    pending: Sequence[Future[None]] = ()


_running: set[Engine] = set()


@atexit.register
def _close_all() -> None:
    """An iteration that is left open when the interpreter ends: later there are no threads to be had."""
    for engine in list(_running):
        engine.close()


class Engine:
    """Readers and decoders of one iteration; use as a context manager: nothing of it is left behind.

    Args:
        release: to read from.
        selection: of it.
        options: of the loader.
        epoch: for the seeds of augmentation.
        pin: pictures in page-locked memory.
    """

    def __init__(
        self, release: OpenRelease, selection: Selection, options: Options, epoch: int, *, pin: bool = False
    ) -> None:
        self._selection, self._options, self._epoch, self._pin = selection, options, epoch, pin
        self._is_remote = release.is_remote
        self._source: Source = release.source()
        self._processes: Processes | None = None
        self._work: Any = None
        self._threads = Threads(options.num_workers)
        self._chunk = options.chunk
        self.allocate: Callable[[int], torch.Tensor] | None = None
        """Where a batch's pictures go, uint8 [B, 3, side, side]; None: new memory."""
        self._is_closed = self._is_stalled = False
        _running.add(self)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all work and give back threads, processes, files and sockets; once is enough."""
        if self._is_closed:
            return
        self._is_closed = True
        _running.discard(self)
        self._threads.cancel()
        self._source.abort()  # what waits for a network or a process ends with an error that nobody sees
        if self._processes is not None:
            self._processes.abort()
        if stuck := self._threads.join(0 if self._is_stalled else LEAVE_SECONDS):
            log.warning("%d thread(s) of the loader are stuck, and left behind", stuck)
        if self._processes is not None:
            self._processes.close()
        self._source.close()

    def run(self, epoch: Epoch, first: int, stop: int) -> Iterator[dict[str, Any]]:
        """The batches `first` to `stop` - 1 of an epoch, in order.

        Raises:
            ShardError, BadImage, ChecksumMismatch, WorkerDied, LoaderStalled: names shard, key and byte.
        """
        per_rank = max(1, self._options.batch_size // max(1, epoch._world_size))
        num_ahead = self._options.num_ahead(per_rank)
        num_told = max(2 * num_ahead, -(-REMOTE_AHEAD // per_rank) if self._is_remote else 0)
        told: deque[_Batch] = deque()
        handed: deque[_Batch] = deque()
        following = first
        while following < stop or told or handed:
            if following < stop and len(told) < num_told:
                upto = self._told_behind(following + num_told - len(told), stop)
                told.extend(self._tell([epoch[number] for number in range(following, upto)]))
                following = upto
            while told and len(handed) < num_ahead:
                handed.append(self._hand_out(told.popleft()))
            yield self._finish(handed.popleft())

    def _told_behind(self, goal: int, stop: int) -> int:
        """Behind which batch the source is told of: a remote one of whole windows, whose blocks are neighbours."""
        if self._is_remote and self._options.shuffle == "block":
            window = plan.BLOCK_SAMPLES * plan.WINDOW_BLOCKS
            goal = -(-(-(-goal * self._options.batch_size // window) * window) // self._options.batch_size)
        return min(goal, stop)

    def _tell(self, batches: list[tuple[Ints, Ints]]) -> list[_Batch]:
        """Tell the source of batches, all at once: then it sees which ranges are neighbours."""
        made = [_Batch(rows=rows, draw=draw, ranges=self._selection.ranges(rows)) for rows, draw in batches]
        ranges = [wanted for batch in made for wanted in batch.ranges]
        if self._is_remote:
            self._source.announce(ranges)
        else:  # a call of the system for each, from a thread: before they are read, as those are handed out later
            self._threads.submit(self._source.announce, ranges)
        return made

    def _hand_out(self, batch: _Batch) -> _Batch:
        """Give a batch's pictures to the workers, a few at a time."""
        o, n = self._options, len(batch.rows)
        batch.seeds = plan.sample_hash(
            self._selection.positions[batch.rows],
            seed=o.seed,
            epoch=self._epoch,
            purpose=plan.AUGMENT,
            draw=batch.draw,
        )
        if o.recipe.decode is not None:
            batch.uniforms = draw(o.recipe.geometry, batch.seeds)
        batch.images = [None] * n if self._gives_list else self._empty(n)
        if self._work is None:
            self._start(batch)
        batch.pending = [
            self._threads.submit(self._fill, batch, low, min(low + self._chunk, n)) for low in range(0, n, self._chunk)
        ]
        return batch

    @property
    def _gives_list(self) -> bool:
        recipe = self._options.recipe
        return recipe.decode != "cpu" or recipe.geometry.resize == "none" or recipe.transform is not None

    def _empty(self, count: int) -> torch.Tensor:
        """uint8 [B, 3, side, side], stored as B, side, side, 3."""
        if self.allocate is not None:
            return self.allocate(count)
        side = self._options.recipe.geometry.side
        with torch.inference_mode(False):  # the threads that fill it are not in the mode of whoever iterates
            x_BHWC = torch.empty((count, side, side, 3), dtype=torch.uint8, pin_memory=self._pin)
            return x_BHWC.permute(0, 3, 1, 2)

    def _start(self, batch: _Batch) -> None:
        """Start what works on pictures, when the first of them are known."""
        o = self._options
        if o.use_processes:
            self._processes = Processes(o.recipe, o.num_workers, STALL_SECONDS)
            self._work = self._processes
            return
        self._work = Worker(o.recipe)
        if o.recipe.transform is not None and len(batch.rows):
            with self._told_where(batch, 0):
                require_seeded(o.recipe, self._chunk_of(batch, 0, 1))

    def _chunk_of(self, batch: _Batch, low: int, high: int) -> Chunk:
        """Read the bytes of a part of a batch."""
        assert batch.seeds is not None
        data = []
        for place in range(low, high):
            try:
                data.append(self._source.read(batch.ranges[place]))
            except ShardError as error:
                error.where = f"{error.where}; {self._selection.where(int(batch.rows[place]))}"
                raise
        sha256 = self._selection.sha256
        return Chunk(
            data=data,
            sha256=None if sha256 is None else sha256.take(batch.rows[low:high]).to_pylist(),
            seeds=batch.seeds[low:high],
            uniforms=None if batch.uniforms is None else batch.uniforms[low:high],
        )

    def _fill(self, batch: _Batch, low: int, high: int) -> None:
        """What a thread does: a part of a batch."""
        chunk = self._chunk_of(batch, low, high)
        with self._told_where(batch, low):
            if not self._gives_list and not self._options.use_processes:
                self._work.fill(chunk, batch.images[low:high])
                return
            made = self._work(chunk)
        for place, image in enumerate(made, low):
            batch.images[place] = image

    @contextmanager
    def _told_where(self, batch: _Batch, low: int) -> Iterator[None]:
        try:
            yield
        except FaultyPicture as fault:
            self._source.forget(batch.ranges[low + fault.index])
            raise located(fault, self._selection.where(int(batch.rows[low + fault.index]))) from fault.error

    def _finish(self, batch: _Batch) -> dict[str, Any]:
        """Wait for a batch's pictures, and put its columns beside them."""
        self._wait(batch)
        s, rows, recipe = self._selection, batch.rows, self._options.recipe
        taken = pa.array(rows)
        made: dict[str, Any] = {
            "image": batch.images if recipe.transform is None else _stacked(batch.images),
            "label": torch.from_numpy(s.label[rows]),
            "probabilities": torch.from_numpy(s.probabilities[rows]),
            "key": s.keys.take(taken).to_pylist(),
            "position": torch.from_numpy(s.positions[rows]),
        }
        if s.original_label is not None:
            made["original_label"] = torch.from_numpy(s.original_label[rows])
        if recipe.decode == "cuda" and batch.uniforms is not None:
            made["uniforms"] = batch.uniforms
        if batch.uniforms is not None and recipe.geometry.augment.on_device:
            crop, flip = crop_and_flip_of(recipe.geometry, batch.uniforms)
            made["crop"], made["flip"] = torch.from_numpy(crop), torch.from_numpy(flip)
        return {name: s.extra[name].take(taken).to_pylist() for name in self._options.columns} | made

    def _wait(self, batch: _Batch) -> None:
        """Wait for a batch; say after a while what is waited for, and give up in the end."""
        waited = 0.0
        while True:
            done, pending = wait(batch.pending, SPEAK_SECONDS, return_when="FIRST_EXCEPTION")
            failed = next((i for i, one in enumerate(batch.pending) if one in done and one.exception()), None)
            if failed is not None:  # those before it may fail too: the same error each time
                wait(batch.pending[:failed], EARLIER_SECONDS)
                for future in batch.pending:
                    if future.done():
                        future.result()
            if not pending:
                return
            waited += SPEAK_SECONDS
            first = self._selection.where(int(batch.rows[0]))
            if waited >= STALL_SECONDS:
                self._is_stalled = True
                raise LoaderStalled(
                    "a batch did not come",
                    expected=f"within {STALL_SECONDS:g} s",
                    where=first,
                    hint="Is the disk, the network or the transform stuck?",
                )
            log.warning("waiting for a batch for %g s: its first is %s", waited, first)


def _stacked(images: list[Any]) -> Any:
    """What a transform gave as one tensor [B, ...] where it can be, else as it is."""
    if images and all(isinstance(image, torch.Tensor) for image in images):
        first = images[0]
        if all(image.shape == first.shape and image.dtype == first.dtype for image in images):
            return torch.stack(images)
    return images
