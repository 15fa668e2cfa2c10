"""Where work runs, on a cluster: tasks of Ray (Moritz et al., OSDI 2018), for `--engine ray`. Extra `[ray]`.

Chosen by measurement (benchmarks/engine.py, docs/decisions.md): a few ms a task, and a killed worker or node costs
its own tasks only. Every node needs the same Python, Ray and version of this package, and the folders of the build
under the same path (a shared file system). Only paths and counts go through Ray, never images.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TypeVar

from builders.engine import ATTEMPTS
from t4sa_data.errors import ClusterError, MissingDependency, WorkerDied

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Tasks under way for each of the cluster's processors: results come early, and the queue stays short."""
ANSWER_SECONDS = 5.0
"""Within which the cluster's head must take a connection."""


class Ray:
    """The processors of a cluster. Use as a context manager: entering connects.

    Args:
        address: `HOST:PORT` of the cluster's head, `auto` for the one that this node belongs to, or `local` for one of
            its own on this machine, which ends with this object.
        workers: tasks at a time at most; None: as many as the cluster has processors.

    Raises:
        MissingDependency: Ray is not installed.
        ClusterError: on entering: no cluster answers there, or it is of another version.
    """

    def __init__(self, address: str, workers: int | None = None) -> None:
        self.address = address
        self.workers = workers or 1
        self._is_bounded = workers is not None
        self._ray: Any = None

    def __enter__(self) -> Self:
        # Neither a dashboard nor word to Ray's makers of a cluster that this process starts.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray: Any = import_module("ray")
        except ImportError as error:
            raise MissingDependency("--engine ray needs Ray", hint='pip install "t4sa-data[ray]"') from error
        _require_answer(self.address)
        own: dict[str, Any] = {"include_dashboard": False} if self.address == "local" else {}
        if own and self._is_bounded:
            own["num_cpus"] = self.workers
        try:
            ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level="error",
                runtime_env={"env_vars": {"ARROW_DEFAULT_MEMORY_POOL": "system"}},  # see engine._start_worker
                **own,
            )
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise _no_answer(self.address, f"{error} {error.__cause__ or ''}") from error
        self._ray = ray
        self._count()
        return self

    def _count(self) -> None:
        """Take nodes into account that joined or left."""
        if not self._is_bounded:
            self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def run(
        self, function: Callable[[T], R], tasks: Iterable[T], *, on_death: Callable[[T], R] | None = None
    ) -> Iterator[R]:
        """See `engine.Engine.run`."""
        # A task's own exceptions are raised, never tried again: the function would raise them again.
        remote = self._ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, retry_exceptions=False)(function)
        waiting = deque[tuple[T, Any]]()
        done = 0
        self._count()
        try:
            for task in tasks:
                waiting.append((task, remote.remote(task)))
                if len(waiting) >= AHEAD * self.workers:
                    yield self._result(*waiting[0], done, on_death)
                    waiting.popleft()
                    done += 1
            while waiting:
                yield self._result(*waiting[0], done, on_death)
                waiting.popleft()
                done += 1
        finally:
            for _, reference in waiting:
                self._ray.cancel(reference, force=False)

    def _result(self, task: T, reference: Any, done: int, on_death: Callable[[T], R] | None) -> R:
        errors = self._ray.exceptions
        try:
            result: R = self._ray.get(reference)
            return result
        except errors.RayTaskError as error:
            raise error.cause from None  # what the function raised, as it raised it
        except errors.LocalRayletDiedError as error:
            raise ClusterError(
                "the cluster's node that this command is on died", where=self.address, hint="The same command goes on."
            ) from error
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            if on_death is not None:
                return on_death(task)
            raise WorkerDied(
                "a worker process of the cluster was killed again and again",
                where=f"task {done + 1}",
                hint="Often this is a node short of memory. The same command goes on.",
            ) from error

    def close(self) -> None:
        """Leave the cluster; one of its own ends."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _require_answer(address: str) -> None:
    """Ray itself waits for minutes where nothing listens."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_answer(address, str(error)) from error


def _no_answer(address: str, said: str) -> ClusterError:
    hint = "Is `ray start --head` running there, with the same versions of Ray and Python?"
    if "InvalidAuthToken" in said or "AuthToken" in said:
        hint = "It asks for its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."
    return ClusterError(
        "no cluster of Ray answers",
        expected="HOST:PORT of its head, auto or local",
        got=said.strip().split("\n")[0][:200],
        where=address,
        hint=hint,
    )
