"""`prepare` gives the same bytes whatever the number of workers, and whatever is killed on the way.

Real processes are killed with SIGKILL: at random moments (seeded, spread over the stages), and, in `drive`, exactly
before and after every rename and removal of a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from t4sa_data.files import TEMPORARY
from t4sa_data.manifest import load_manifest
from t4sa_data.testing import OfficialArchive, make_official_archive
from t4sa_data.testing.archive import EXTRA_NAME

from tests.helpers_release import assert_sound, build, differences, digests  # isort: skip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")

ROOT = Path(__file__).parents[1]
NUM_IMAGES = 150
"""More than one chunk of inspection, so that it runs in workers too."""
SHARD_BYTES = 100_000
SEED = 20170724
PATIENCE_SECONDS = 10
"""For a killed command's workers to be gone."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> OfficialArchive:
    return make_official_archive(tmp_path_factory.mktemp("raw"), NUM_IMAGES)


@pytest.fixture(scope="module")
def undisturbed(archive: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every file of a build in one process that nobody killed, with its sha256."""
    out = tmp_path_factory.mktemp("undisturbed")
    build(archive, out, shard_bytes=SHARD_BYTES)
    assert_sound(out)
    return digests(out)


# Real commands, real kills.


class Command:
    """`t4sa prepare` as a process; its children are known by a variable of their environment."""

    def __init__(self, raw: Path, out: Path, workers: int, **environment: str) -> None:
        self.token = uuid.uuid4().hex
        self.started = time.time()
        arguments = [str(raw), "--out", str(out), "--workers", str(workers), "--shard-size", str(SHARD_BYTES)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "t4sa_data.cli", "prepare", *arguments],
            env={**os.environ, **environment, "T4SA_TEST_TOKEN": self.token},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self) -> None:
        """Wait for its end; it must be a good one, and leave no process."""
        output, _ = self.process.communicate()
        assert self.process.returncode == 0, output
        self.assert_alone()

    def kill(self) -> bool:
        """SIGKILL the main process only; whether that was what ended it. Its workers must end by themselves."""
        self.process.send_signal(signal.SIGKILL)
        output, _ = self.process.communicate()
        assert self.process.returncode in (0, -signal.SIGKILL), output
        self.assert_alone()
        return self.process.returncode != 0

    def family(self) -> list[int]:
        """Ids of the living processes that this command started, itself included."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.token.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # gone meanwhile, or another user's
                pass
        return found

    def workers(self) -> list[int]:
        """Ids of the workers among them."""
        made = []
        for number in self.family():
            try:
                if b"spawn_main" in Path(f"/proc/{number}/cmdline").read_bytes():
                    made.append(number)
            except OSError:
                pass
        return made

    def assert_alone(self) -> None:
        """Wait until no process of this command lives."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while (left := self.family()) and time.monotonic() < limit:
            time.sleep(0.02)
        assert not left, f"processes outlived their command: {left}"

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Wait until something happened; False where the command ended before."""
        while self.process.poll() is None:
            if happened():
                return True
            time.sleep(0.005)
        return False


MOMENTS = {
    "start": (),
    "index": ("build/state/index-*",),
    "inspection": ("build/state/inspection-*/*",),
    "write": ("t4sa*/*/*.parquet*", "t4sa*/*/.*.parquet*", "t4sa*/*/*.tar*", "t4sa*/*/.*.tar*"),
    "seal": ("t4sa*/*/index.parquet", "t4sa*/README.md"),
}
"""Stage -> files whose appearance begins it."""
LASTS_SECONDS = {"start": 1.2, "index": 0.8, "inspection": 1.5, "write": 1.5, "seal": 0.3}
"""About how long each goes on, with workers started."""


def began(stage: str, out: Path, since: float) -> bool:
    """Whether a file of this stage appeared in `out` since then."""
    for pattern in MOMENTS[stage]:
        for path in out.glob(pattern):
            try:
                if path.stat().st_mtime >= since:
                    return True
            except FileNotFoundError:
                pass
    return not MOMENTS[stage]


def assert_nothing_half(out: Path) -> None:
    """Whatever stands under a final name is whole: a manifest names only files that are there, byte for byte."""
    for path in out.glob("t4sa*/manifest.json"):
        manifest = load_manifest(path.parent)
        for entry in manifest.files:
            data = manifest.path(path.parent, entry).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry.sha256, f"{path.parent.name}/{entry.name}"


def temporaries(out: Path) -> list[str]:
    return [path.relative_to(out).as_posix() for path in out.rglob(f"*{TEMPORARY}*")]


def kill_at_random(
    raw: Path, out: Path, expected: dict[str, str], *, num_kills: int, kills_per_build: int, seed: int
) -> Counter[str]:
    """Kill commands at random moments until `num_kills` were hit, each build some times before it may finish.

    Returns:
        Stage -> kills that hit it.
    """
    rng, hits, attempts = random.Random(seed), Counter[str](), 0
    stages = list(MOMENTS)
    while hits.total() < num_kills:
        for _ in range(kills_per_build):
            attempts += 1
            assert attempts < 4 * num_kills + 8, f"kills come too late: {hits}"
            stage = stages[hits.total() % len(stages)]
            running = Command(raw, out, rng.choice((1, 2, 4)))
            alive = running.wait_for(lambda: began(stage, out, running.started))  # noqa: B023 - called at once
            if alive:
                time.sleep(rng.random() * LASTS_SECONDS[stage])
            if running.kill():
                hits[stage] += 1
                assert_nothing_half(out)
            if hits.total() == num_kills:
                break
        Command(raw, out, rng.choice((1, 2))).finish()
        assert differences(digests(out), expected) == []
        assert temporaries(out) == []
        shutil.rmtree(out)
    return hits


def test_two_workers_write_the_bytes_of_one(
    archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    Command(archive.folder, tmp_path, 2).finish()
    assert differences(digests(tmp_path), undisturbed) == []
    assert temporaries(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_writes_the_same_bytes(
    archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path, workers: int
) -> None:
    Command(archive.folder, tmp_path, workers).finish()
    assert differences(digests(tmp_path), undisturbed) == []


def test_killed_twice_and_run_again(archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path) -> None:
    for stage, delay in (("inspection", 0.3), ("write", 0.1)):
        running = Command(archive.folder, tmp_path / "out", 2)
        assert running.wait_for(lambda: began(stage, tmp_path / "out", running.started))  # noqa: B023 - called at once
        time.sleep(delay)
        running.kill()
        assert_nothing_half(tmp_path / "out")
    Command(archive.folder, tmp_path / "out", 1).finish()
    assert differences(digests(tmp_path / "out"), undisturbed) == []
    assert temporaries(tmp_path / "out") == []


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again(
    archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    start = time.monotonic()
    hits = kill_at_random(archive.folder, tmp_path / "out", undisturbed, num_kills=25, kills_per_build=3, seed=SEED)
    print(f"\n{hits.total()} kills ({dict(hits)}), same bytes each time, {time.monotonic() - start:.0f} s")
    assert all(hits[stage] >= 3 for stage in MOMENTS)


# A worker that dies: the command itself goes on.

DYING_WORKER = """
import os, signal, sys
if "--multiprocessing-fork" in sys.orig_argv:
    replace = os.replace
    def dying(source, target, *args, **kwargs):
        if os.environ["T4SA_TEST_DIES_AT"] in str(target):
            try:  # one worker only, once
                os.close(os.open(os.environ["T4SA_TEST_DIED"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return replace(source, target, *args, **kwargs)
    os.replace = dying
"""
"""A `sitecustomize`: the first worker about to give a file its final name dies, and leaves the temporary one."""


def run_with_dying_worker(raw: Path, out: Path, folder: Path, at: str, expected: dict[str, str]) -> None:
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(textwrap.dedent(DYING_WORKER))
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    died = folder / "died"
    Command(raw, out, 2, PYTHONPATH=path, T4SA_TEST_DIES_AT=at, T4SA_TEST_DIED=str(died)).finish()
    assert died.exists(), f"no worker wrote {at}"
    assert temporaries(out) == []
    assert differences(digests(out), expected) == []


def test_a_worker_dies_while_it_writes_a_shard(tmp_path: Path) -> None:
    few = make_official_archive(tmp_path / "raw", 100)  # one chunk of inspection: no pool for it
    build(few, tmp_path / "undisturbed", shard_bytes=SHARD_BYTES)
    run_with_dying_worker(few.folder, tmp_path / "out", tmp_path / "site", ".tar", digests(tmp_path / "undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize("at", ["build/state/inspection-", ".parquet", "build/state/write/"])
def test_a_worker_dies_at_another_file(
    archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path, at: str
) -> None:
    run_with_dying_worker(archive.folder, tmp_path / "out", tmp_path / "site", at, undisturbed)


@pytest.mark.slow
def test_workers_killed_at_random_moments(
    archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    rng, num_killed = random.Random(SEED), 0
    for number in range(5):
        out = tmp_path / str(number)
        running = Command(archive.folder, out, 2)
        for _ in range(2):  # fewer than the attempts that a task has
            if running.wait_for(lambda: bool(running.workers())):  # noqa: B023 - called at once
                time.sleep(rng.random() * 2)
                for victim in running.workers()[:1]:
                    try:
                        os.kill(victim, signal.SIGKILL)
                        num_killed += 1
                    except ProcessLookupError:
                        pass
        running.finish()
        assert differences(digests(out), undisturbed) == []
        assert temporaries(out) == []
    print(f"\n{num_killed} workers killed in 5 builds")
    assert num_killed >= 5


# Every point at which a file gets its final name, or goes.


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


def sweep(raw: Path, folder: Path, before: dict[str, Any] | None, choices: dict[str, Any], every: int) -> None:
    arguments = (str(raw), str(folder), before, choices, every)
    code = f"from tests.test_prepare_kills import drive; drive(*{arguments!r})"
    start = time.monotonic()
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout.splitlines()[-1])
    seconds = time.monotonic() - start
    print(f"\n{told['tried']} deaths at {told['points']} renames and removals, {seconds:.0f} s")
    assert told["tried"] >= 4
    assert told["faults"] == [], "\n".join([*told["faults"][:12], made.stderr[-1000:]])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> OfficialArchive:
    made = make_official_archive(tmp_path_factory.mktemp("small"), 30, num_extra=6)
    assert (made.folder / EXTRA_NAME).exists()
    gone = [next(key for key in made.images if key not in made.broken), next(iter(made.broken)), next(iter(made.extra))]
    (made.folder / "removals.txt").write_text("\n".join(gone))
    return made


SCENARIOS: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "fresh": (None, {"configs": ("b-t4sa", "t4sa-text")}),
    "smaller shards": ({"configs": ("b-t4sa",)}, {"configs": ("b-t4sa",), "shard_bytes": 15_000}),
    "removals": ({}, {"removals": "removals.txt"}),
    "one config more": ({"configs": ("b-t4sa",)}, {"configs": ("t4sa-text",)}),
    "in place": (None, {"in_place": True}),
}
"""What stood there before, and what is built over it."""


def scenario(small: OfficialArchive, name: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    before, choices = SCENARIOS[name]
    files = {key: str(small.folder / choices[key]) for key in ("removals",) if key in choices}
    return before, choices | files


@pytest.mark.parametrize(("name", "every"), [("fresh", 23), ("smaller shards", 31)])
def test_dying_at_some_renames(small: OfficialArchive, tmp_path: Path, name: str, every: int) -> None:
    sweep(small.folder, tmp_path, *scenario(small, name), every)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_dying_at_every_rename(small: OfficialArchive, tmp_path: Path, name: str) -> None:
    # What is after one point is, but for a temporary file, before the next: both sides once are enough.
    sweep(small.folder, tmp_path, *scenario(small, name), 1 if name == "fresh" else 2)
