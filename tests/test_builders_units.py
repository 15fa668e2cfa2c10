"""Where work runs and what a build remembers: engine, state, ledger, quarantine, the output folder."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import ledger as status
from builders import output, quarantine
from builders.engine import ATTEMPTS, Local
from builders.ledger import LEDGER_NAME, Ledger
from builders.quarantine import FOLDER, ROWS, Quarantined, own_files, write_quarantine
from builders.sources.archive import ArchiveIndex
from builders.state import State, fingerprint, read_arrow, stamp, write_arrow
from t4sa_data.errors import BadImage, ForeignFiles, MalformedRow, OutputLocked, SourceChanged, WorkerDied


def run_tasks(function: Any, tasks: Any, *, workers: int) -> Iterator[Any]:
    with Local(workers) as engine:
        yield from engine.run(function, tasks)


# Engine: real processes. Their functions stand in a module that a fresh process can import.
TASKS = """
import os, signal, time
from pathlib import Path
from t4sa_data.errors import BadImage, MalformedRow

def first_is_last(task):
    number, folder = task
    end = time.monotonic() + 60
    while number == 0 and not (Path(folder) / "3").exists() and time.monotonic() < end:
        time.sleep(0.01)
    (Path(folder) / str(number)).touch()
    return number, os.getpid()

def fails(number):
    if number == 3:
        raise MalformedRow("a row", expected=2, got=f"{number}", where="x.tsv, line 7", hint="Mend it.")
    if number == 5:
        raise BadImage("half a picture", reason="truncated")
    return number

def dies(task):
    number, folder, times = task
    deaths = Path(folder) / f"deaths-{number}"
    before = len(deaths.read_bytes()) if deaths.exists() else 0
    if before < times:
        with deaths.open("ab") as file:
            file.write(b"x")
        time.sleep(0.1)  # what another worker has just finished arrives
        os.kill(os.getpid(), signal.SIGKILL)
    return number

def stays(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    name = f"engine_tasks_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(name)


def test_results_come_in_the_order_of_the_tasks(tasks: object, tmp_path: Path) -> None:
    results = list(run_tasks(tasks.first_is_last, [(i, str(tmp_path)) for i in range(12)], workers=2))
    assert [number for number, _ in results] == list(range(12))
    pids = {pid for _, pid in results}
    assert len(pids) == 2 and os.getpid() not in pids


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_workers_arrive_as_they_are(tasks: object, workers: int) -> None:
    done = run_tasks(tasks.fails, range(9), workers=workers)
    assert [next(done), next(done), next(done)] == [0, 1, 2]
    with pytest.raises(MalformedRow) as caught:
        next(done)
    error = MalformedRow("a row", expected=2, got="3", where="x.tsv, line 7", hint="Mend it.")
    assert str(caught.value) == str(error) == "a row: expected 2, got 3 [x.tsv, line 7]. Mend it."
    with pytest.raises(BadImage, match="half a picture") as bad:
        list(run_tasks(tasks.fails, [5, 5], workers=workers))
    assert bad.value.reason == "truncated"


def test_a_killed_worker_costs_nothing_but_time(tasks: object, tmp_path: Path) -> None:
    """One task kills its worker once, another twice: every result comes, once, in order."""
    times = {2: 1, 8: 2}
    todo = [(i, str(tmp_path), times.get(i, 0)) for i in range(10)]
    assert list(run_tasks(tasks.dies, todo, workers=2)) == list(range(10))
    assert {n: (tmp_path / f"deaths-{n}").stat().st_size for n in times} == times


def test_a_task_that_always_kills_its_worker_is_named(tasks: object, tmp_path: Path) -> None:
    todo = [(i, str(tmp_path), 99 if i == 1 else 0) for i in range(3)]
    results = run_tasks(tasks.dies, todo, workers=2)
    assert next(results) == 0
    with pytest.raises(WorkerDied, match=r"task 2 of 3.*--workers"):
        next(results)
    assert (tmp_path / "deaths-1").stat().st_size == ATTEMPTS


def test_a_task_that_kills_is_isolated_and_the_others_come(tasks: object, tmp_path: Path) -> None:
    """Whoever takes its death gets it, once, whatever else is under way; the others' results come in order."""
    todo = [(i, str(tmp_path), 99 if i in (1, 6) else 0) for i in range(9)]
    dead = []

    def on_death(task: tuple[int, str, int]) -> int:
        dead.append(task[0])
        return -task[0]

    for workers in (1, 2):
        dead.clear()
        with Local(workers, apart=True) as engine:
            assert list(engine.run(tasks.dies, todo, on_death=on_death)) == [0, -1, 2, 3, 4, 5, -6, 7, 8]
        assert dead == [1, 6]


def test_one_worker_may_be_a_process_of_its_own(tasks: object, tmp_path: Path) -> None:
    with Local(1, apart=True) as engine:
        assert list(engine.run(tasks.dies, [(0, str(tmp_path), 1)])) == [0]  # it died once, and this process lives
    assert (tmp_path / "deaths-0").stat().st_size == 1


def is_running(pid: int) -> bool:
    """Whether a process does anything; one that is dead and not yet collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX" if stat.parent.parent.is_dir() else True
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_their_parent(tasks: object, tmp_path: Path, how: signal.Signals) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"import {tasks.__name__} as tasks\nfrom builders.engine import Local\n"
        f"if __name__ == '__main__': list(Local(2).run(tasks.stays, [{str(pids)!r}] * 2))\n"
    )
    with subprocess.Popen([sys.executable, str(script)]) as parent:
        try:
            assert wait_for(lambda: len(list(pids.iterdir())) == 2, 30)
        finally:
            parent.send_signal(how)
    workers = [int(path.name) for path in pids.iterdir()]
    assert wait_for(lambda: not any(map(is_running, workers)), 5), workers


# State.
def test_fingerprints_tell_values_apart() -> None:
    values = [(1, "a"), (1, "b"), ("1", "a"), (1, ["a"]), ({"a": 1, "b": 2},), (None,), ()]
    assert len({fingerprint(*value) for value in values}) == len(values)
    assert fingerprint({"b": 2, "a": 1}) == fingerprint({"a": 1, "b": 2})
    assert len(fingerprint(1)) == 16


def test_a_stamp_sees_another_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"one")
    first = stamp(path)
    assert stamp(path) == first
    path.write_bytes(b"three")
    longer = stamp(path)
    os.utime(path, ns=(0, longer[2] + 1))
    assert len({first, longer, stamp(path)}) == 3


def test_state_keeps_values_under_their_fingerprint(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    assert state.load("index", "abc") is None
    state.save("index", "abc", {"n": [1, None]})
    assert State(tmp_path / "state").load("index", "abc") == {"n": [1, None]}
    assert state.load("index", "abd") is None and state.load("other", "abc") is None
    table = pa.table({"n": [1, 2, 3], "s": ["a", None, "\u00e9"]})
    write_arrow(state.path("index", "abc", "x.arrow"), table.schema, [table])
    assert read_arrow(state.path("index", "abc", "x.arrow")).equals(table)


def test_a_lock_is_given_back(tmp_path: Path) -> None:
    state = State(tmp_path / "build/state")
    with pytest.raises(KeyError), state.locked():
        with pytest.raises(OutputLocked, match=str(tmp_path)), State(state.folder).locked():
            raise AssertionError("locked twice")
        raise KeyError
    with state.locked():
        pass


# Ledger.
LAYERS, REASONS = st.sampled_from(["b-t4sa", "unique", "t4sa-text"]), st.sampled_from([status.REMOVED, status.NO_LABEL])
TOLD = st.lists(
    st.tuples(
        st.sampled_from(["image", "tweet"]), st.lists(st.sampled_from(["train", "test"]), max_size=5), LAYERS | REASONS
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TOLD)
def test_the_funnel_adds_up(tmp_path: Path, told: list[tuple[str, list[str], str]]) -> None:
    ledger, expected = Ledger(), []
    for number, (kind, splits, where) in enumerate(told):
        keys = [f"{number}-{i}" for i in range(len(splits))]
        if "/" in where:
            ledger.drop(kind, pa.array(keys, pa.string()), where)
            expected += [(kind, key, None, None, where) for key in keys]
        else:
            ledger.keep(kind, pa.array(keys, pa.string()), where, pa.array(splits, pa.string()))
            expected += [(kind, key, where, split, None) for key, split in zip(keys, splits, strict=True)]
    ledger.write(tmp_path)
    rows = [tuple(row.values()) for row in pq.read_table(tmp_path / LEDGER_NAME).to_pylist()]
    assert rows == expected
    assert ledger.num_dropped(status.REMOVED) == sum(row[4] == status.REMOVED for row in rows)
    funnel = ledger.funnel()
    assert funnel.keys() == {row[0] for row in rows}
    for kind, counts in funnel.items():
        mine = [row for row in rows if row[0] == kind]
        assert counts["candidates"] == len(mine)
        assert counts["kept"] == {k: sum(f"{r[2]}/{r[3]}" == k for r in mine) for k in counts["kept"]}
        assert counts["dropped"] == {k: sum(r[4] == k for r in mine) for k in counts["dropped"]}
        assert sum(counts["kept"].values()) + sum(counts["dropped"].values()) == len(mine)


# Quarantine.
def quarantined(key: str, data: bytes, offset: int, archive: str = "x.tar") -> Quarantined:
    sha256 = hashlib.sha256(data).hexdigest()
    detail = "line one\u2028line two\x85 \u00e9"
    return Quarantined(
        key=key, split="test", label=1, reason="empty", detail=detail, sha256=sha256, archive=archive, offset=offset,
        length=len(data),
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_quarantine_keeps_bytes_and_reason_and_forgets_what_is_mended(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"..oneTWOthree")
    archives, folder = {"x.tar": index_of(tmp_path / "x.tar")}, tmp_path / FOLDER
    rows = [quarantined("7-2", b"TWO", 5), quarantined("7-1", b"one", 2), quarantined("9-1", b"", 13)]
    write_quarantine(tmp_path, rows, archives)
    written = contents(folder)
    assert {name: data for name, data in written.items() if name != ROWS} == {
        "7-1.jpg": b"one",
        "7-2.jpg": b"TWO",
        "9-1.jpg": b"",
    }
    assert own_files(tmp_path) == written.keys()
    write_quarantine(tmp_path, rows[::-1], archives)
    assert contents(folder) == written
    write_quarantine(tmp_path, rows[:1], archives)
    assert contents(folder).keys() == own_files(tmp_path) == {ROWS, "7-2.jpg"}
    with pytest.raises(SourceChanged, match=r"7-2.*x\.tar, byte 5"):
        write_quarantine(tmp_path, [replace(rows[0], sha256=rows[1].sha256)], archives)


def index_of(path: Path) -> ArchiveIndex:
    """Of an archive whose members nobody asks for."""
    none = np.zeros(0, np.int64)
    return ArchiveIndex(path=path, name=path.name, tweet_id=none, image_index=none, offset=none, length=none)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.mark.parametrize("num_writes", range(4))
def test_quarantine_cut_off_anywhere_knows_its_own_files(
    num_writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From two images to two others: after any write the next run takes the folder for ours, and ends alike."""
    (tmp_path / "x.tar").write_bytes(b"..oneTWOthree")
    archives, state = {"x.tar": index_of(tmp_path / "x.tar")}, State(tmp_path / "build/state")
    one, two, three = quarantined("7-1", b"one", 2), quarantined("7-2", b"TWO", 5), quarantined("8-1", b"three", 8)
    write_quarantine(tmp_path / "whole", [two, three], archives)
    write_quarantine(tmp_path, [one, two], archives)
    left = iter(range(num_writes))
    real = quarantine.write_bytes

    def write_until_killed(path: Path, data: bytes) -> str:
        if next(left, None) is None:
            raise Killed
        return real(path, data)

    with monkeypatch.context() as short, pytest.raises(Killed) if num_writes < 3 else nullcontext():
        short.setattr(quarantine, "write_bytes", write_until_killed)
        write_quarantine(tmp_path, [two, three], archives)
    output.guard(tmp_path, state)
    write_quarantine(tmp_path, [two, three], archives)
    assert contents(tmp_path / FOLDER) == contents(tmp_path / "whole" / FOLDER)
    (tmp_path / FOLDER / "mine.jpg").touch()
    with pytest.raises(ForeignFiles, match=r"mine\.jpg"):
        output.guard(tmp_path, state)


@pytest.mark.parametrize("rows", [b"\xff\xfe", b"[1, 2]\n", b'"text"\n', b'{"name": 1}\n', b"not json"])
def test_rows_of_somebody_else_make_nothing_ours(rows: bytes, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / ROWS).write_bytes(rows)
    assert own_files(tmp_path) == set()
    with pytest.raises(ForeignFiles, match=r"quarantine\.jsonl"):
        output.guard(tmp_path, State(tmp_path / "build/state"))
