"""Where work runs: independent tasks, in this process or in local ones, results in the order of the tasks. On a cluster
of Ray: `builders.cluster`.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Protocol, Self, TypeVar

from t4sa_data.errors import WorkerDied

T = TypeVar("T")
R = TypeVar("R")

ATTEMPTS = 3
"""Times a task is started before its worker's death is taken to be the task's fault."""


class Engine(Protocol):
    """Where tasks run. Use as a context manager."""

    workers: int
    """Tasks that run at a time."""

    def run(
        self, function: Callable[[T], R], tasks: Iterable[T], *, on_death: Callable[[T], R] | None = None
    ) -> Iterator[R]:
        """Results of `function` over `tasks`, in their order.

        Args:
            function: a module-level function.
            tasks: its arguments; taken a few ahead of the results, as they come.
            on_death: called here for a task that killed its process `ATTEMPTS` times, alone; what it returns is the
                task's result. None: such a task ends the work.

        Raises:
            WorkerDied: a worker was killed while on the same tasks `ATTEMPTS` times, and nobody takes that.
            Exception: whatever the function or `tasks` raises; remaining tasks are cancelled.
        """

    def close(self) -> None:
        """End what was started; tasks that run are waited for."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Local:
    """Local processes, started when they are first needed and kept for the next stage. Use as a context manager.

    Args:
        workers: processes; 1 runs everything here, with no process started.
        apart: even one worker, or one task, has a process of its own, whose death this one outlives.
    """

    def __init__(self, workers: int, *, apart: bool = False) -> None:
        self.workers = workers
        self._apart = apart
        self._pool: ProcessPoolExecutor | None = None

    def run(
        self, function: Callable[[T], R], tasks: Iterable[T], *, on_death: Callable[[T], R] | None = None
    ) -> Iterator[R]:
        """See `Engine.run`."""
        is_short = isinstance(tasks, Sequence) and len(tasks) <= 1
        if not self._apart and (self.workers <= 1 or is_short):
            yield from map(function, tasks)
            return
        source, begun = iter(tasks), deque[T]()
        done = deaths = 0
        while True:
            try:
                for result in self._submit(function, source, begun):
                    done, deaths = done + 1, 0
                    yield result
                return
            except BrokenProcessPool as error:
                self.close()
                deaths += 1
                if deaths < ATTEMPTS:
                    continue
                if on_death is None:
                    of = f" of {len(tasks)}" if isinstance(tasks, Sequence) else ""
                    raise WorkerDied(
                        "a worker process was killed again and again",
                        where=f"task {done + 1}{of}",
                        hint="Often this is the system short of memory: try fewer --workers. The same command goes on.",
                    ) from error
            # One of those begun kills. Of one worker it is the first; else each has a process for itself, to see which.
            for task in [begun[0]] if self.workers == 1 else list(begun):
                yield on_death(task) if self.workers == 1 else self._alone(function, task, on_death)
                begun.popleft()
                done, deaths = done + 1, 0

    def _alone(self, function: Callable[[T], R], task: T, on_death: Callable[[T], R]) -> R:
        """The result of one task while no other runs."""
        for _ in range(ATTEMPTS):
            try:
                return self._started().submit(function, task).result()
            except BrokenProcessPool:
                self.close()
        return on_death(task)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: no forked locks or threads, and the same on every platform.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, _start_worker, (os.getpid(),))
        return self._pool

    def _submit(self, function: Callable[[T], R], tasks: Iterator[T], begun: deque[T]) -> Iterator[R]:
        """Results, one after the other. `begun` are the tasks that were taken and whose results were not: they come
        first, and are there for another try."""
        pool = self._started()
        waiting = deque[Future[R]]()
        try:
            waiting.extend(pool.submit(function, task) for task in begun)
            for task in tasks:
                begun.append(task)
                waiting.append(pool.submit(function, task))
                if len(waiting) > 2 * self.workers:  # a short queue: memory stays flat, results come early
                    result = waiting.popleft().result()
                    begun.popleft()
                    yield result
            while waiting:
                result = waiting.popleft().result()
                begun.popleft()
                yield result
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """End the processes; tasks that run are waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _start_worker(parent: int) -> None:
    """In a worker: end when the parent does, even when it was killed; leave Ctrl-C to the parent."""
    # For Arrow, imported later: its own pool gives each row group's pages back and faults them in again, which is a
    # fifth of a Parquet shard's time.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    def watch() -> None:  # where there is no such signal, and for a parent that died before it was asked for
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
