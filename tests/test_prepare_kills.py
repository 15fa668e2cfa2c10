"""`prepare` gives the same bytes whatever the number of workers, and whatever is killed on the way.

Real processes are killed with SIGKILL: at random moments (seeded, spread over the stages), and, in `deaths.drive`,
exactly before and after every rename and removal of a file.
"""

from __future__ import annotations

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
from typing import Any

import pytest

from t4sa_data.files import TEMPORARY
from t4sa_data.testing import OfficialArchive, make_official_archive
from t4sa_data.testing.archive import EXTRA_NAME

from tests.deaths import assert_nothing_half  # isort: skip
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


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_writes_the_same_bytes(
    archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path, workers: int
) -> None:
    Command(archive.folder, tmp_path, workers).finish()
    assert differences(digests(tmp_path), undisturbed) == []


def test_killed_and_run_again(archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path) -> None:
    running = Command(archive.folder, tmp_path / "out", 2)
    assert running.wait_for(lambda: began("write", tmp_path / "out", running.started))
    running.kill()
    assert_nothing_half(tmp_path / "out")
    Command(archive.folder, tmp_path / "out", 2).finish()
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


@pytest.mark.slow
@pytest.mark.parametrize("at", ["build/state/inspection-", ".parquet", ".tar", "build/state/write/"])
def test_a_worker_dies(archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path, at: str) -> None:
    run_with_dying_worker(archive.folder, tmp_path / "out", tmp_path / "site", at, undisturbed)


@pytest.mark.slow
def test_workers_killed_at_random_moments(
    archive: OfficialArchive, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    rng, num_killed, num_builds = random.Random(SEED), 0, 0
    while num_killed < 10:
        assert num_builds < 20, f"kills come too late: {num_killed} in {num_builds} builds"
        out = tmp_path / str(num_builds)
        running = Command(archive.folder, out, 2)
        for _ in range(2):  # fewer than the attempts that a task has
            if running.wait_for(lambda: bool(running.workers())):  # noqa: B023 - called at once
                time.sleep(rng.random())
                for victim in running.workers()[:1]:
                    try:
                        os.kill(victim, signal.SIGKILL)
                        num_killed += 1
                    except ProcessLookupError:
                        pass
        running.finish()
        num_builds += 1
        assert differences(digests(out), undisturbed) == []
        assert temporaries(out) == []
    print(f"\n{num_killed} workers killed in {num_builds} builds")


# Every point at which a file gets its final name, or goes.


def sweep(raw: Path, folder: Path, before: dict[str, Any] | None, choices: dict[str, Any], every: int) -> None:
    arguments = (str(raw), str(folder), before, choices, every)
    code = f"from tests.deaths import drive; drive(*{arguments!r})"
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
    "small": ({"configs": ("b-t4sa",)}, {"configs": ("b-t4sa-256",), "formats": ("wds",)}),
}
"""What stood there before, and what is built over it."""


def scenario(small: OfficialArchive, name: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    before, choices = SCENARIOS[name]
    files = {key: str(small.folder / choices[key]) for key in ("removals",) if key in choices}
    return before, choices | files


@pytest.mark.parametrize(("name", "every"), [("fresh", 31), ("small", 23)])
def test_dying_at_some_renames(small: OfficialArchive, tmp_path: Path, name: str, every: int) -> None:
    sweep(small.folder, tmp_path, *scenario(small, name), every)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_dying_at_every_rename(small: OfficialArchive, tmp_path: Path, name: str) -> None:
    # What is after one point is, but for a temporary file, before the next: both sides once are enough.
    sweep(small.folder, tmp_path, *scenario(small, name), 1 if name == "fresh" else 2)
