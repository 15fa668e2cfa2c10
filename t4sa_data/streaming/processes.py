"""Worker processes, for transforms that spend their time in Python.

A process is driven by one thread of the loader, which reads the bytes, sends them through a pipe and waits for the
pictures: whatever knows tokens, caches and files stays in the main process, and no operating-system object has a name.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import threading
import traceback
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from t4sa_data.errors import BadOption, WorkerDied
from t4sa_data.streaming.work import Chunk, FaultyPicture, Recipe, Worker

START_SECONDS = 120.0
"""A process may take so long to import torch on a busy machine."""


class Processes:
    """Worker processes; called like a `Worker`, from as many threads as there are processes.

    Args:
        recipe: what becomes of pictures; must be picklable.
        count: how many.
        seconds: a chunk may take so long.
    """

    def __init__(self, recipe: Recipe, count: int, seconds: float) -> None:
        self._seconds = seconds
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        self._children: list[_Child] = []
        try:
            packed = pickle.dumps(recipe)
        except Exception as error:
            raise BadOption(
                "the transform cannot be sent to a process",
                got=f"{type(error).__name__}: {error}",
                hint="Define it at the top level of a module (no lambda, no inner function), or use threads.",
            ) from error
        try:
            for _ in range(count):
                child = _Child(packed)
                self._children.append(child)
                self._idle.put(child)
        except BaseException:
            self.close()
            raise

    def __call__(self, chunk: Chunk) -> list[Any]:
        """The pictures of a chunk.

        Raises:
            WorkerDied: the process ended, or gave no answer in time.
            FaultyPicture: see `Worker`.
        """
        child = self._idle.get()
        try:
            return child.work(chunk, self._seconds)
        finally:
            self._idle.put(child)

    def abort(self) -> None:
        """End all processes; who waits for one gets an error."""
        for child in self._children:
            child.kill()

    def close(self) -> None:
        """End all processes and give back their pipes; nobody may be waiting."""
        for child in self._children:
            child.close()
        self._children.clear()


class _Child:
    """One process and the pipe to it."""

    def __init__(self, packed: bytes) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs, packed), daemon=True)
        self._is_ready = False
        self._ending = threading.Lock()  # two threads that ask at once how a process ended may both learn nothing
        try:
            self._process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()

    def work(self, chunk: Chunk, seconds: float) -> list[Any]:
        """Send a chunk, wait for its pictures."""
        try:
            if not self._is_ready:
                self._answer(START_SECONDS)
                self._is_ready = True
            self._pipe.send_bytes(pickle.dumps(chunk, protocol=5))
            answer = self._answer(seconds)
        except (EOFError, OSError) as error:
            raise WorkerDied(
                "a worker process of the loader died",
                got=f"exit code {self._exit_code()}",
                hint="Killed or out of memory? A script that starts processes needs `if __name__ == '__main__':`.",
            ) from error
        if isinstance(answer, BaseException):
            raise answer
        return [_unpack(image) for image in answer]

    def _answer(self, seconds: float) -> Any:
        if not self._pipe.poll(seconds):
            raise WorkerDied(
                "a worker process of the loader does not answer",
                expected=f"an answer within {seconds:g} s",
                hint="A transform that waits for something?",
            )
        return pickle.loads(self._pipe.recv_bytes())

    def _exit_code(self) -> object:
        with self._ending:
            try:
                self._process.join(5)
                return self._process.exitcode
            except ValueError:  # it was closed, by who ends the loader
                return "unknown"

    def kill(self) -> None:
        """End the process: it holds nothing that would need to be put away."""
        self._process.kill()

    def close(self) -> None:
        """End the process and give back the pipe."""
        self._process.kill()
        with self._ending:
            self._process.join()
            self._process.close()
        self._pipe.close()


def _serve(pipe: Connection, packed: bytes) -> None:
    """What a process does: answer chunks until the pipe closes."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which closes the pipe
    torch.set_num_threads(1)
    try:
        worker = Worker(pickle.loads(packed), owns_process=True)
        pipe.send_bytes(pickle.dumps(os.getpid()))
        while True:
            chunk = pickle.loads(pipe.recv_bytes())
            try:
                answer: Any = [_pack(image) for image in worker(chunk)]
            except FaultyPicture as error:
                answer = _sendable(error)
            pipe.send_bytes(_packed(answer))
    except (EOFError, OSError):
        pass


def _sendable(fault: FaultyPicture) -> FaultyPicture:
    """A fault that arrives: an exception of the user's may not be picklable, or not come out again."""
    told = traceback.format_exc()  # a traceback cannot be sent
    try:
        pickle.loads(pickle.dumps(fault.error))
    except Exception:
        fault = FaultyPicture(fault.index, RuntimeError(f"{type(fault.error).__qualname__}: {fault.error}"))
    fault.error.add_note(told)
    return fault


class _Array(NamedTuple):
    """A tensor on its way: as a plain array it is sent ten times faster."""

    values: Any
    is_picture: bool
    """[C, H, W], sent as it is stored: H, W, C."""


def _pack(image: Any) -> Any:
    import torch

    if not isinstance(image, torch.Tensor) or image.dtype == torch.bfloat16:  # which numpy does not have
        return image
    is_picture = image.dim() == 3
    image = image.detach().permute(1, 2, 0) if is_picture else image.detach()
    return _Array(image.contiguous().numpy(), is_picture)


def _unpack(image: Any) -> Any:
    import torch

    if not isinstance(image, _Array):
        return image
    made = torch.from_numpy(image.values)
    return made.permute(2, 0, 1) if image.is_picture else made


def _packed(answer: Any) -> bytes:
    try:
        return pickle.dumps(answer, protocol=5)
    except Exception as error:
        return pickle.dumps(
            BadOption(
                "what the transform gives cannot be sent between processes", got=f"{type(error).__name__}: {error}"
            )
        )
