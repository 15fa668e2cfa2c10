"""What a check says: faults, and the report that holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAX_ALIKE = 20
"""Faults of one kind that are told of one file; the rest is counted in one more."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong; `str()` is one line."""

    file: str
    """`<release folder>/<path below it>`, with slashes."""
    what: str
    row: int | None = None
    """Row of the file (a tar's sample, a table's row), from 0; None where the fault is of the file as a whole."""
    key: str | None = None
    """Key of the sample."""

    def __str__(self) -> str:
        row = f", row {self.row}" if self.row is not None else ""
        return " ".join(f"{self.file}{row}{f' ({self.key})' if self.key else ''}: {self.what}".split())


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `check_release` found, and how much it looked at."""

    faults: tuple[Fault, ...]
    folders: tuple[Path, ...]
    """Release folders checked."""
    files: int
    """Files whose sha256 was taken."""
    samples: int
    """Images (rows of text layers) whose bytes were compared."""
    bytes: int
    """Bytes read under sha256."""

    @property
    def ok(self) -> bool:
        """No fault."""
        return not self.faults


class Faults:
    """Collects faults below one release folder; tells `MAX_ALIKE` of a kind and counts the others.

    Args:
        folder: name of the release folder, the start of every fault's `file`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._found: list[Fault] = []
        self._alike: Counter[tuple[str, str]] = Counter()
        self.samples = self.bytes = self.files = 0

    def add(
        self, file: str, what: str, *, row: int | None = None, key: str | None = None, kind: str | None = None
    ) -> None:
        """Note a fault of `file` (below the folder); those of one `kind` (default: no two are alike) are capped."""
        path = f"{self.folder}/{file}"
        if kind is not None:
            self._alike[path, kind] += 1
            if self._alike[path, kind] > MAX_ALIKE:
                return
        self._found.append(Fault(path, what, row, key))

    def extend(self, other: Faults) -> None:
        """Take over what another collector found and counted."""
        self._found += other.all()
        self.samples += other.samples
        self.bytes += other.bytes
        self.files += other.files

    def all(self) -> list[Fault]:
        """Everything found, and a line for each kind of which there were too many to tell."""
        more = [
            Fault(path, f"and {count - MAX_ALIKE} more: {kind}")
            for (path, kind), count in self._alike.items()
            if count > MAX_ALIKE
        ]
        return self._found + more

    @contextmanager
    def guard(self, file: str) -> Iterator[None]:
        """Turn what is raised while `file` is looked at into a fault of it, so that the others are checked too."""
        try:
            yield
        except Exception as error:  # damaged bytes make a parser raise anything
            name = "" if type(error).__module__.startswith("t4sa_data") else f"{type(error).__name__}: "
            self.add(file, f"{name}{error}")
