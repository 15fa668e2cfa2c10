"""The journal of a partition: whatever is cut off or damaged, what stands before it counts, and nothing else does."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.fetch.journal import Journal, Outcome, read_journal

Record = tuple[int, Outcome, bytes]


def to_record(number: int, data: bytes, reason: str | None, status: int | None) -> Record:
    if reason is not None:
        return number, Outcome(reason=reason, status=status), b""
    return number, Outcome(reason=None, status=status, sha256=hashlib.sha256(data).digest()), data


records = st.lists(
    st.builds(
        to_record,
        st.integers(0, 5000),
        st.binary(max_size=300),
        st.none() | st.sampled_from(["fetch/gone", "fetch/robots"]),
        st.none() | st.integers(100, 599),
    ),
    max_size=8,
)


def write(path: Path, some: list[Record], policy: str = "p") -> list[int]:
    """Append records; the journal's length after each."""
    with Journal(path, policy) as journal:
        lengths = [path.stat().st_size]
        for record in some:
            journal.add(*record)
            lengths.append(path.stat().st_size)
    return lengths


def read(path: Path, policy: str = "p") -> dict[int, tuple[Outcome, bytes]]:
    """What a journal holds when it is opened again."""
    with Journal(path, policy) as journal, path.open("rb") as file:
        found = {}
        for number, entry in journal.entries.items():
            file.seek(entry.offset)
            found[number] = (entry.outcome, file.read(entry.length))
        return found


def as_dict(some: list[Record]) -> dict[int, tuple[Outcome, bytes]]:
    return {number: (outcome, data) for number, outcome, data in some}


@settings(deadline=None, max_examples=60)
@given(some=records, more=records, data=st.data())
def test_any_truncation_leaves_the_whole_records_before_it(
    some: list[Record], more: list[Record], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        lengths = write(path, some)
        cut = data.draw(st.integers(0, lengths[-1]))
        with path.open("r+b") as file:
            file.truncate(cut)
        left = [record for record, length in zip(some, lengths[1:], strict=True) if length <= cut]
        write(path, more)  # goes on behind what is whole
        assert read(path) == as_dict(left + more)


@settings(deadline=None, max_examples=60)
@given(some=records.filter(bool), data=st.data())
def test_any_damage_ends_the_journal_there(some: list[Record], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        lengths = write(path, some)
        at = data.draw(st.integers(lengths[0], lengths[-1] - 1))
        content = bytearray(path.read_bytes())
        content[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        assert read(path) == as_dict([r for r, length in zip(some, lengths[1:], strict=True) if length <= at])


@pytest.mark.parametrize("garbage", [b"\0" * 500, b"T4J1" * 200, b"\xff" * 70])
def test_garbage_behind_the_end(garbage: bytes, tmp_path: Path) -> None:
    path, some = tmp_path / "journal", [to_record(1, b"abc", None, 200)]
    end = write(path, some)[-1]
    with path.open("ab") as file:
        file.write(garbage)
    assert read(path) == as_dict(some) and path.stat().st_size == end


def test_records_know_the_settings_under_which_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for policy, number in (("p", 1), ("q", 2), ("q", 3), ("p", 4)):
        write(path, [to_record(number, b"", "fetch/gone", 410)], policy)
    policies = {number: entry.policy for number, entry, _ in read_journal(path) if number < 10}
    assert policies == {1: "p", 2: "q", 3: "q", 4: "p"}


def test_two_processes_never_write_one_journal(tmp_path: Path) -> None:
    import threading

    path = tmp_path / "journal"
    first = Journal(path, "p")
    first.__enter__()
    entered = threading.Event()

    def second() -> None:
        with Journal(path, "p") as journal:
            assert not journal.entries  # not the file that was taken away, a new one
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    first.add(1, Outcome(reason="fetch/gone"))
    assert not entered.wait(0.2)
    path.unlink()
    first.__exit__(None, None, None)
    thread.join(10)
    assert entered.is_set() and path.exists()
