"""Processes that die where it hurts: just before and after every rename and removal of a file."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from t4sa_data.manifest import load_manifest

from tests.helpers_release import build, differences, digests  # isort: skip


def assert_nothing_half(out: Path) -> None:
    """Whatever stands under a final name is whole: a manifest names only files that are there, byte for byte."""
    for path in out.glob("t4sa*/manifest.json"):
        manifest = load_manifest(path.parent)
        for entry in manifest.files:
            data = manifest.path(path.parent, entry).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry.sha256, f"{path.parent.name}/{entry.name}"


def die(_number: int) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


class Points:
    """Counts renames and removals, and calls `act` just before or after one of them.

    Args:
        number: which, from 0; -1 for none.
        side: `before` or `after` it.
        act: what happens there.
    """

    def __init__(self, number: int, side: str, act: Callable[[int], Any] = die) -> None:
        self.number, self.side, self.act, self.count = number, side, act, 0
        for name in ("replace", "unlink"):
            setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> None:
            here, self.count = self.count == self.number, self.count + 1
            if here and self.side == "before":
                self.act(self.number)
            try:
                function(*args, **kwargs)
            finally:
                if here and self.side == "after":
                    self.act(self.number)

        return counted


def in_child(work: Callable[[], None]) -> int:
    """Run something in a forked process; its exit status as `waitpid` gives it."""
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(number, 0)[1]


def drive(raw: str, folder: str, before: dict[str, Any] | None, choices: dict[str, Any], every: int) -> None:
    """In a process without threads: build, die at a point, build again, compare; for each `every`-th point.

    Prints JSON: `points` there are, `tried` of them, and `faults`.

    Args:
        raw: RAW.
        folder: for the builds.
        before: what a build before had chosen, which this one replaces or adds to; None for an empty folder.
        choices: what the build that dies has chosen.
        every: 1 for all points on both sides, 2 for all on one.
    """
    os.fsync = void  # it makes files survive a power cut; a killed process leaves what it wrote to the system anyway
    start, work = Path(folder) / "start", Path(folder) / "out"
    for some in (before or {}, choices):
        some |= {name: Path(some[name]) for name in ("removals",) if name in some}

    def again() -> None:
        build(work if choices.get("in_place") else Path(raw), work, **choices)

    def reset() -> None:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(start, work)

    if choices.get("in_place"):
        shutil.copytree(raw, start)
    else:
        start.mkdir()
    if before is not None and in_child(lambda: void(build(Path(raw), start, **before))) != 0:
        sys.exit("the build before failed")
    reset()
    counted = Path(folder) / "counted"

    def count() -> None:
        points = Points(-1, "before")
        again()
        counted.write_text(json.dumps([points.count, sorted(sys.modules)]))

    if in_child(count) != 0:
        sys.exit("the undisturbed build failed")
    num_points, modules = json.loads(counted.read_text())
    for name in modules:  # once here, not in each child
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    expected, faults, tried = digests(work), [], 0
    for number in range(2 * num_points)[::every]:
        point, side = number // 2, ("before", "after")[number % 2]
        tried += 1
        reset()

        def doomed() -> None:
            Points(point, side)  # noqa: B023 - called at once
            again()

        status = in_child(doomed)
        told = f"{side} point {point} of {num_points}"
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            faults.append(f"{told}: ended with {status}, not killed")
        try:
            assert_nothing_half(work)
        except (AssertionError, OSError) as error:
            faults.append(f"{told}: a manifest that does not hold: {str(error).splitlines()[0]}")
        if in_child(again) != 0:
            faults.append(f"{told}: the same command fails afterwards")
        elif wrong := differences(digests(work), expected):
            faults.append(f"{told}: other bytes afterwards: {wrong[:4]}")
    print(json.dumps({"points": num_points, "tried": tried, "faults": faults}))


def void(_value: object) -> None:
    """Nothing of a value."""
