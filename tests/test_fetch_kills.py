"""Real processes, really killed while they fetch: what was journaled is not asked for again, the bytes are equal."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from builders.fetch import stage
from builders.fetch.journal import read_journal
from builders.state import write_arrow
from tests.fetch_helpers import IMAGE, candidates, images_of, loopback, run, small_partitions, start_child
from tests.image_host import Answer, ImageHost, Request, image, status, then

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers die with their parent on Linux"),
    pytest.mark.usefixtures("quick_disk"),
]

ROWS = 24
NUM_URLS = 150


class Killing:
    """Answers that kill a process when a number of requests is reached."""

    def __init__(self) -> None:
        self.victim = 0
        self.left = -1

    def __call__(self, request: Request) -> Answer:
        self.left -= 1
        if self.left == 0:
            os.kill(self.victim, signal.SIGKILL)
        if request.path == "/robots.txt":
            return status(404)
        number = int(request.path[1:].removesuffix(".jpg"))
        if number % 10 == 3:
            return status(404 if number % 20 == 3 else 410)
        return image(IMAGE + b"%d" % number, wait_seconds=number * 7 % 5 / 1000)


@pytest.fixture(autouse=True)
def cut_small() -> Any:
    small_partitions(ROWS)
    yield
    small_partitions(512)


def journaled(table: pa.Table, folder: Path) -> set[str]:
    """Paths of the URLs that a killed process had brought home: in a journal or in a table."""
    found = set[str]()
    for partition in stage.cut(table, loopback(), folder / f"fetch-v{stage.FETCH_VERSION}"):
        urls = list(dict.fromkeys(partition.urls))
        journal = partition.folder / f"{partition.name}.journal"
        if partition.table.exists():
            numbers = list(range(len(urls)))
        else:
            numbers = [n for n, _, _ in read_journal(journal) if n < len(urls)] if journal.exists() else []
        found |= {str(urls[number]).rsplit("/", 1)[1] for number in numbers}
    return {f"/{name}" for name in found}


def digests(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".json"
    }


def survive(folder: Path, kills: list[tuple[int, int]]) -> None:
    """Kill runs with so many workers, each at a number of requests; then run to the end, and compare.

    Args:
        folder: for both.
        kills: workers, requests.
    """
    killing, num_killed = Killing(), 0
    with ImageHost(killing) as host:
        table = candidates([host.url(f"/{i}.jpg") for i in range(NUM_URLS)])
        write_arrow(folder / "table.arrow", table.schema, [table])
        undisturbed = run(table, folder / "undisturbed")
        before = set[str]()
        for workers, requests in kills:
            host.counts.clear()
            told = {"table": str(folder / "table.arrow"), "folder": str(folder / "killed"), "workers": workers}
            killing.left = -1
            with start_child(told | {"rows": ROWS}) as child:
                killing.victim, killing.left = child.pid, requests
                child.communicate()
            num_killed += child.returncode == -signal.SIGKILL
            assert child.returncode in (0, -signal.SIGKILL)
            assert not before & set(host.counts), "asked for again, though it was journaled"
            before = journaled(table, folder / "killed")
        killing.left = -1
        host.counts.clear()
        fetched = run(table, folder / "killed")
        assert not before & set(host.counts)
        assert {f"/{i}.jpg" for i in range(NUM_URLS)} - before == set(host.counts) - {"/robots.txt"}
        assert num_killed
    assert images_of(fetched) == images_of(undisturbed)
    assert digests(folder / "killed") == digests(folder / "undisturbed")


def test_a_killed_fetch_goes_on(tmp_path: Path) -> None:
    survive(tmp_path, [(2, 70)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_fetch_goes_on_however_often_it_is_killed(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    survive(tmp_path, [(1 + seed % 2, rng.randrange(3, 60)), (1, rng.randrange(1, 60)), (2, rng.randrange(3, 40))])


def die_at(folder: Path, host: ImageHost, table: pa.Table, point: int, side: str) -> int | None:
    """Run until a rename or removal of a file; how many there are, where it ended before."""
    told = {"table": str(folder / "table.arrow"), "folder": str(folder / "killed"), "workers": 1, "rows": ROWS}
    with start_child(told | {"point": point, "side": side}) as child:
        output = child.communicate()[0]
    assert child.returncode in (0, -signal.SIGKILL)
    return None if child.returncode else int(output.split()[-1])


def around_every_rename(folder: Path, every: int) -> None:
    with ImageHost({f"/{i}.jpg": then(image(IMAGE + b"%d" % i)) for i in range(30)}) as host:
        table = candidates([host.url(f"/{i}.jpg") for i in range(30)])
        write_arrow(folder / "table.arrow", table.schema, [table])
        undisturbed = digests_of_run(table, folder / "undisturbed")
        for number in range(0, 1000, every):
            host.counts.clear()
            told = die_at(folder, host, table, number // 2, ("before", "after")[number % 2])
            if told is not None:
                assert number // 2 >= told > 3
                break
            run(table, folder / "killed")
            assert max(host.counts[path] for path in host.routes) == 1, number
            assert digests(folder / "killed") == undisturbed, number
            for path in (folder / "killed").rglob("*"):
                if path.is_file():
                    path.unlink()
        else:
            raise AssertionError("it never came to its end")


def digests_of_run(table: pa.Table, folder: Path) -> dict[str, bytes]:
    run(table, folder)
    return digests(folder)


def test_a_fetch_that_dies_as_a_file_takes_its_name(tmp_path: Path) -> None:
    around_every_rename(tmp_path, 7)


@pytest.mark.slow
def test_a_fetch_that_dies_before_and_after_every_rename(tmp_path: Path) -> None:
    around_every_rename(tmp_path, 1)
