"""A thread that makes batches ready ahead of whoever takes them: what a GPU's next batch costs the host is not added to
the step."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

LEAVE_SECONDS = 0.5
"""Leaving waits so long for the thread; what it waits for itself ends when the loader is closed behind it."""


class Feeder(Generic[Given, Made]):
    """Works through an iterator in a thread of its own, a few ahead; iterating over it gives the results in order.

    Args:
        given: taken from, and closed, in the thread.
        work: called in the thread with each.
        ahead: results that wait at most.
    """

    def __init__(self, given: Generator[Given] | Iterator[Given], work: Callable[[Given], Made], *, ahead: int) -> None:
        self._given, self._work = given, work
        self._made: queue.SimpleQueue[tuple[Made] | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(ahead)
        self._is_left = False
        self._thread = threading.Thread(target=self._run, name="t4sa-stream-feeder", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Made]:
        while (made := self._made.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            self._room.release()
            yield made[0]

    def close(self) -> None:
        """Let the thread end; whoever closes what it takes from comes after."""
        self._is_left = True
        self._room.release()
        self._thread.join(LEAVE_SECONDS)

    def _run(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._is_left:
                    break
                self._made.put((self._work(next(self._given)),))
        except StopIteration:
            self._made.put(None)
        except BaseException as error:  # raised again by whoever takes; nobody does, once it was left
            self._made.put(error)
        finally:
            if isinstance(self._given, Generator):
                self._given.close()
