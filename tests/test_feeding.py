"""The thread that makes batches ready ahead: order, errors in their place, a bound, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
from t4sa_data import stream
from t4sa_data.streaming import engine
from t4sa_data.streaming.feeding import Feeder
from tests.streaming_helpers import frozen, nothing_left


def counted(stop: int, made: list[int], error: Exception | None = None) -> Iterator[int]:
    for i in range(stop):
        made.append(i)
        yield i
    if error is not None:
        raise error


def test_results_in_order_and_an_error_in_its_place() -> None:
    assert list(Feeder(counted(50, []), lambda i: i * 2, ahead=3)) == [2 * i for i in range(50)]
    taken: list[int] = []
    with pytest.raises(ValueError, match="behind the fifth"):
        for one in Feeder(counted(5, [], ValueError("behind the fifth")), lambda i: i, ahead=2):
            taken.append(one)
    assert taken == [0, 1, 2, 3, 4]


def test_what_is_ahead_is_bounded() -> None:
    made: list[int] = []
    feeder = Feeder(counted(100, made), lambda i: i, ahead=2)
    items = iter(feeder)
    assert [next(items), next(items)] == [0, 1]
    deadline = time.monotonic() + 10
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 4  # two taken, two that wait
    feeder.close()
    assert not feeder._thread.is_alive()


def test_leaving_closes_what_is_taken_from() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    feeder = Feeder(endless(), lambda i: i, ahead=1)
    next(iter(feeder))
    feeder.close()
    assert closed.wait(10)


def through_a_feeder(batches: Iterator[Any]) -> Iterator[Any]:
    """What a GPU's stream does with batches, without the GPU."""
    feeder = Feeder(batches, lambda batch: batch, ahead=2)
    try:
        yield from feeder
    finally:
        feeder.close()


@pytest.mark.parametrize("shuffle", ["full", False])
def test_batches_and_state_are_those_of_the_stream(releases: Path, shuffle: Any) -> None:
    def loader() -> Any:
        return stream(releases, batch_size=8, size=24, workers=2, shuffle=shuffle)

    expected = [frozen(batch) for batch in loader()]
    fed = loader()
    states = []
    with nothing_left():
        got = []
        for batch in fed.batches(through=through_a_feeder):
            got.append(frozen(batch))
            states.append(fed.state_dict()["batches"])
    assert got == expected and states == list(range(1, len(expected) + 1))


def test_breaking_off_leaves_nothing(releases: Path) -> None:
    with nothing_left():
        for _ in stream(releases, batch_size=4, size=24, workers=2).batches(through=through_a_feeder):
            break


def test_breaking_off_while_the_feeder_waits_for_a_batch(releases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for pictures that never come; leaving wakes it by cancelling what was handed out."""
    release = threading.Event()
    original = engine.Engine._fill

    def stuck(self: Any, batch: Any, low: int, high: int) -> None:
        if int(batch.rows[0]) >= 8:
            release.wait(30)
        original(self, batch, low, high)

    monkeypatch.setattr(engine.Engine, "_fill", stuck)
    with nothing_left():
        loader = stream(releases, batch_size=8, size=24, workers=2, shuffle=False)
        for _ in loader.batches(through=through_a_feeder):
            threading.Timer(0.3, release.set).start()
            break
