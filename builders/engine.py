"""Where work runs: independent tasks, in this process or in local ones, results in the order of the tasks.

A task is a picklable function of one picklable argument that writes its own files atomically and returns little. So a
worker may die at any moment, and its task is simply run again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from t4sa_data.errors import WorkerDied

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 3
"""Times a task is started before its worker's death is taken to be the task's fault."""


def run_tasks(function: Callable[[T], R], tasks: Sequence[T], *, workers: int) -> Iterator[R]:
    """Results of `function` over `tasks`, in their order.

    Args:
        function: a module-level function.
        tasks: its arguments.
        workers: processes; 1 runs everything here, with no process started.

    Raises:
        WorkerDied: a worker was killed while on the same tasks `ATTEMPTS` times.
        Exception: whatever the function raises; remaining tasks are cancelled.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    done = deaths = 0
    while done < len(tasks):
        try:
            for result in _run_pool(function, tasks[done:], workers):
                done, deaths = done + 1, 0
                yield result
        except BrokenProcessPool as error:
            deaths += 1
            if deaths == ATTEMPTS:
                raise WorkerDied(
                    "a worker process was killed again and again",
                    where=f"task {done + 1} of {len(tasks)}",
                    hint="Often this is the system short of memory: try fewer --workers. The same command goes on.",
                ) from error


def _run_pool(function: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    # spawn: no forked locks or threads, and the same on every platform.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _die_with_parent, (os.getpid(),))
    waiting: deque[Future[R]] = deque()
    remaining = iter(tasks)
    try:
        for task in remaining:
            waiting.append(pool.submit(function, task))
            if len(waiting) > 2 * workers:  # a short queue: memory stays flat, results come early
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent(parent: int) -> None:
    """In a worker: end when the parent does, even when it was killed; leave Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:  # where there is no such signal, and for a parent that died before it was asked for
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
