"""Worker threads that nobody has to wait for: one that is stuck in a transform or on a dead disk holds up neither an
error nor the end of the program, as one of `ThreadPoolExecutor` would."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch

START_SECONDS = 30.0
"""Threads start within milliseconds; on a machine that is out of memory they may not."""

_Tasks = queue.SimpleQueue[tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]] | None]


class Threads:
    """Some threads that work through what is submitted, in its order; their tensor operations stay in them: each would
    bring a pool of threads of its own (OpenMP's).

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._tasks: _Tasks = queue.SimpleQueue()
        self._is_left = False
        self._handing_in = threading.Lock()
        # torch keeps that number for each thread, but what a thread sets is also the default of threads to come.
        before = torch.get_num_threads()
        started = threading.Barrier(count + 1)
        self._threads = [
            threading.Thread(target=_serve, args=(self._tasks, started), name=f"t4sa-stream-{number}", daemon=True)
            for number in range(count)
        ]
        try:
            for thread in self._threads:
                thread.start()
            started.wait(START_SECONDS)
        except BaseException:
            started.abort()
            raise
        finally:
            torch.set_num_threads(before)

    def submit(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have `task(*args)` called; after `cancel` nothing is."""
        future: Future[Any] = Future()
        with self._handing_in:
            if not self._is_left:
                self._tasks.put((future, task, args))
                return future
        _cancel(future)
        return future

    def cancel(self) -> None:
        """Drop what has not begun, and let threads end as soon as they are done with what has."""
        with self._handing_in:
            self._is_left = True
            try:
                while True:
                    task = self._tasks.get_nowait()
                    if task is not None:
                        _cancel(task[0])
            except queue.Empty:
                pass
            for _ in self._threads:
                self._tasks.put(None)

    def join(self, seconds: float) -> int:
        """Wait for threads to end; how many did not in time."""
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return sum(thread.is_alive() for thread in self._threads)


def _cancel(future: Future[Any]) -> None:
    """Cancel, so that who waits for it learns so."""
    if future.cancel():
        future.set_running_or_notify_cancel()


def _serve(tasks: _Tasks, started: threading.Barrier) -> None:
    torch.set_num_threads(1)
    try:
        started.wait()
    except threading.BrokenBarrierError:  # another could not be started
        return
    while (task := tasks.get()) is not None:
        _run(*task)
        del task  # a batch is not kept while there is nothing to do


def _run(future: Future[Any], task: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = task(*args)
    except BaseException as error:
        future.set_exception(error)
        del future  # the error's traceback holds this frame: no circle
    else:
        future.set_result(result)
