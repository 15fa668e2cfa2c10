"""An engine in a process of its own, for who trains on a GPU: reading and decoding do not take turns at Python's lock
with the steps, however many threads they have.

The process (its threads are the engine's) writes pictures into memory that both share, a slot for each batch, and sends
the rest of the batch through a pipe; this side copies a slot to the device and gives it back. Shared memory and pipe
have no name that could be left behind; either side ends when the other does. Needs Linux (memfd); where it cannot be,
the engine's threads run in the training process: same batches, same state.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import torch

from t4sa_data.errors import T4SAError, WorkerDied
from t4sa_data.reading import OpenRelease
from t4sa_data.streaming.engine import Engine, Epoch
from t4sa_data.streaming.options import Options
from t4sa_data.streaming.selection import Selection

START_SECONDS = 120.0
"""The process may take so long to import torch on a busy machine."""
LEAVE_SECONDS = 10.0
"""Leaving an epoch waits so long for the process to do so; then it is ended, and the next epoch starts another."""
POLL_SECONDS = 0.2
"""While a batch is waited for, this often a look at whether it is still wanted."""
SPARE_SLOTS = 4
"""Batches that are on their way to the device, beside those that are being made."""
LEAST_WORKERS = 3
"""With fewer threads there is little to take turns with, and one core less to decode on."""


def can_be_apart(release: OpenRelease, options: Options) -> bool:
    """Whether an engine can run in a process of its own, and it pays."""
    recipe = options.recipe
    return (
        hasattr(os, "memfd_create")
        and not release.is_remote  # tokens, caches and connections stay in one process
        and options.num_workers >= LEAST_WORKERS
        and not options.use_processes
        and recipe.decode == "cpu"
        and recipe.transform is None
        and recipe.geometry.resize != "none"
    )


class Apart:
    """The process, for as long as this object lives; epochs are run in it one after another.

    Args:
        release: to read from.
        selection: of it.
        options: of the loader.
        rows: of a batch at most, on this rank.
        pin: page-lock the shared memory, for copies to a GPU.
    """

    def __init__(
        self, release: OpenRelease, selection: Selection, options: Options, *, rows: int, pin: bool = False
    ) -> None:
        side = options.recipe.geometry.side
        num_slots = options.num_ahead(rows) + SPARE_SLOTS
        self._memory = os.memfd_create("t4sa-stream")
        os.ftruncate(self._memory, num_slots * rows * side * side * 3)
        self._slots = _map(self._memory, num_slots, rows, side)
        self._pinned = pin and _pin(self._slots)
        self._given = pickle.dumps((release, selection, options, num_slots, rows, side), protocol=5)
        self._child: _Child | None = None
        self._start()
        self._end = weakref.finalize(self, _give_back, self._slots if self._pinned else None, self._memory)

    def _start(self) -> _Child:
        if self._child is None or not self._child.is_alive():
            self._child = _Child(self._memory, self._given)
        return self._child

    def run(self, epoch: int, first: int, stop: int, rank: int, world_size: int) -> Run:
        """The batches `first` to `stop` - 1 of an epoch; the one before must be closed."""
        child = self._start()
        child.send(("run", (epoch, first, stop, rank, world_size)))
        return Run(child, self._slots)

    def close(self) -> None:
        """End the process and give back the memory; once is enough."""
        if self._child is not None:
            self._child.close()
            self._child = None
        self._end()


class Run:
    """An epoch's batches from the process, in order. A batch's pictures lie in its slot until `free` is called."""

    def __init__(self, child: _Child, slots: torch.Tensor) -> None:
        self._child, self._slots = child, slots
        self._is_left = self._is_over = False

    def __iter__(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Batches and their slots.

        Raises:
            WorkerDied: the process ended, or gave no sign of life at its start.
            T4SAError: whatever the engine raises.
        """
        while not self._is_over:
            message = self._child.receive(lambda: self._is_left)
            if message is None:
                return
            kind, value = message
            if kind == "end":
                self._is_over = True
                return
            if kind == "error":
                self._is_over = True
                raise value
            batch, slot = value
            yield batch | {"image": self._slots[slot, : len(batch["label"])].permute(0, 3, 1, 2)}, slot

    def free(self, slot: int) -> None:
        """Give a slot back; nobody reads from it any more."""
        if not self._is_left:
            self._child.send(("free", slot))

    def leave(self) -> None:
        """No batch is wanted any more: who waits for one is woken."""
        self._is_left = True

    def close(self) -> None:
        """Leave the epoch; nobody may be taking from it."""
        self._is_left = True
        if not self._is_over:
            self._child.leave()
            self._is_over = True


class _Child:
    """The process, and the pipe to it."""

    def __init__(self, memory: int, given: bytes) -> None:
        self._pipe, theirs = Pipe()
        code = (
            # Ctrl-C, and a scheduler's SIGTERM to a whole job, are for this side: it saves, and then closes the pipe.
            "import signal as s; s.signal(s.SIGINT, s.SIG_IGN); s.signal(s.SIGTERM, s.SIG_IGN); "
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
            "from t4sa_data.streaming.apart import serve; serve(int(sys.argv[2]), int(sys.argv[3]))"
        )
        numbers = [str(theirs.fileno()), str(memory)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, json.dumps(sys.path), *numbers],
                pass_fds=(theirs.fileno(), memory),
                stdin=subprocess.DEVNULL,
                env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            )
        finally:
            theirs.close()
        self._sending = threading.Lock()
        self._is_ready = False
        self._end = weakref.finalize(self, _end, self._process, self._pipe)
        try:
            self._pipe.send_bytes(given)
        except OSError as error:
            raise self._died() from error

    def is_alive(self) -> bool:
        return self._end.alive and self._process.poll() is None

    def send(self, message: Any) -> None:
        try:
            with self._sending:
                self._pipe.send_bytes(pickle.dumps(message))
        except OSError as error:
            raise self._died() from error

    def receive(self, is_left: Any) -> Any:
        """The next message; None: `is_left()` says that nobody wants it."""
        waited = 0.0
        try:
            while not self._pipe.poll(POLL_SECONDS):
                waited += POLL_SECONDS
                if is_left():
                    return None
                if not self._is_ready and waited > START_SECONDS:
                    raise WorkerDied("the loader's process does not start", expected=f"within {START_SECONDS:g} s")
            self._is_ready = True
            return pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._died() from error

    def leave(self) -> None:
        """Have the process leave its epoch; one that does not is ended."""
        try:
            self.send(("leave", None))
            waited = 0.0
            while waited < LEAVE_SECONDS:
                if not self._pipe.poll(POLL_SECONDS):
                    waited += POLL_SECONDS
                elif pickle.loads(self._pipe.recv_bytes())[0] in ("end", "error"):
                    return
        except (WorkerDied, EOFError, OSError):
            pass
        self.close()

    def close(self) -> None:
        self._end()

    def _died(self) -> WorkerDied:
        try:
            code: object = self._process.wait(5)
        except subprocess.TimeoutExpired:
            code = "none"
        return WorkerDied(
            "the loader's process died", got=f"exit code {code}", hint="Killed, or out of memory? See its last words."
        )


def _end(process: subprocess.Popen[bytes], pipe: Connection) -> None:
    """End the process: it holds nothing that would need to be put away."""
    pipe.close()
    process.kill()
    process.wait()


def _map(memory: int, num_slots: int, rows: int, side: int) -> torch.Tensor:
    """The shared memory: uint8 [slots, B, side, side, 3]."""
    mapped = mmap.mmap(memory, num_slots * rows * side * side * 3)
    return torch.frombuffer(mapped, dtype=torch.uint8).view(num_slots, rows, side, side, 3)


def _pin(slots: torch.Tensor) -> bool:
    """Page-lock it; False: copies will be slower, nothing else."""
    return int(torch.cuda.cudart().cudaHostRegister(slots.data_ptr(), slots.numel(), 0)) == 0


def _give_back(pinned: torch.Tensor | None, memory: int) -> None:
    if pinned is not None:
        torch.cuda.cudart().cudaHostUnregister(pinned.data_ptr())
    os.close(memory)


class _Left(Exception):
    """Nobody wants the epoch any more."""


class _Orders:
    """What the other side says, taken up by a thread."""

    def __init__(self, pipe: Connection, num_slots: int) -> None:
        self._pipe, self._num_slots = pipe, num_slots
        self.runs: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.is_left = False
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                kind, value = pickle.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the training is over
            if kind == "free":
                self._free.put(value)
            elif kind == "leave":
                self.is_left = True
                self._free.put(None)
            else:  # all slots are free, whatever an epoch that was left had taken
                self._free = queue.SimpleQueue()
                for slot in range(self._num_slots):
                    self._free.put(slot)
                self.is_left = False
                self.runs.put(value)

    def take(self) -> int:
        """A free slot, when there is one."""
        slot = self._free.get()
        if slot is None:
            raise _Left
        return slot


def serve(pipe_number: int, memory: int) -> None:
    """What the process does: run epochs until the pipe closes."""
    torch.set_num_threads(1)
    pipe = Connection(pipe_number)
    release, selection, options, num_slots, rows, side = pickle.loads(pipe.recv_bytes())
    slots = _map(memory, num_slots, rows, side)
    orders = _Orders(pipe, num_slots)
    while True:
        epoch, first, stop, rank, world_size = orders.runs.get()
        try:
            order = Epoch(selection, options, epoch, rank, world_size)
            _run(pipe, orders, slots, Engine(release, selection, options, epoch), order, first, stop)
            answer: tuple[str, Any] = ("end", None)
        except _Left:
            answer = ("end", None)
        except Exception as error:
            known = isinstance(error, T4SAError)
            answer = ("error", error if known else RuntimeError(f"{type(error).__name__}: {error}"))
        try:
            pipe.send_bytes(pickle.dumps(answer))
        except OSError:
            return


def _run(
    pipe: Connection, orders: _Orders, slots: torch.Tensor, engine: Engine, order: Epoch, first: int, stop: int
) -> None:
    """An epoch: pictures into free slots, the rest of each batch through the pipe."""
    slot_of: dict[int, int] = {}

    def allocate(count: int) -> torch.Tensor:
        slot = orders.take()
        x_BHWC = slots[slot, :count]
        slot_of[x_BHWC.data_ptr()] = slot
        return x_BHWC.permute(0, 3, 1, 2)

    with engine:
        engine.allocate = allocate
        for batch in engine.run(order, first, stop):
            if orders.is_left:
                raise _Left
            slot = slot_of[batch.pop("image").data_ptr()]
            pipe.send_bytes(pickle.dumps(("batch", (batch, slot)), protocol=5))
