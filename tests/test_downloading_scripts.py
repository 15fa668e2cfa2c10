"""Random scripts of faults, kills and full disks, and kills of a download of many files, each seeded.

After a script and one more run against a site without faults every file is the site's, byte for byte. On the way
there are named errors only, never a wrong file under its final name, never a secret where it must not be.
"""

from __future__ import annotations

import io
import logging
import random
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from t4sa_data.errors import T4SAError

from tests.download_helpers import (  # isort: skip
    FILES,
    GZIP,
    PACKAGES,
    QUICK,
    TAR,
    assert_no_secret,
    assert_no_wrong_file,
    bring,
    left,
    make_site,
    start_client,
)
from tests.site_double import Fault, OfficialSite  # isort: skip

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SIGKILL and RLIMIT_FSIZE as Linux has them"),
    pytest.mark.usefixtures("quick_disk"),
]

PATIENCE_SECONDS = 120
SLOW_KINDS = {"drip": 0.05, "stall": 30.0, "mute": 30.0}
KINDS = (
    *("none", "none", "none", "status", "reset", "drip", "stall", "mute", "length_long", "length_short", "chunked"),
    *("until_close", "empty", "gzip", "login", "login_lying", "redirect_same", "redirect_other", "redirect_gated"),
    *("redirect_login", "new_validator", "changed", "changed_quietly", "weak", "no_validator", "date_only"),
    *("wrong_range", "lying_range", "unasked_206", "multipart", "range_ignored", "no_range_total", "unsatisfiable"),
)
HEAD_KINDS = ("status", "reset", "chunked", "length_long", "length_short", "login", "redirect_other", "changed")


@dataclass(frozen=True)
class Kill:
    """The client is killed so long after its first request."""

    seconds: float


@dataclass(frozen=True)
class DiskFull:
    """The client cannot write behind this byte of a file."""

    file_bytes: int


Step = Fault | Kill | DiskFull


def random_fault(rng: random.Random, *, num_bytes: int, with_head: bool) -> Fault:
    if with_head and rng.random() < 0.15:
        return Fault(rng.choice(HEAD_KINDS), status=rng.choice((405, 429, 500, 501)), method="HEAD")
    kind = rng.choice(KINDS)
    # Not in the last bytes: the end mark of a tar is the same in every version of it.
    at = rng.choice((None, 0, rng.randrange(600), rng.randrange(num_bytes * 9 // 10)))
    return Fault(
        kind,
        at=at if kind not in SLOW_KINDS else rng.randrange(num_bytes),
        status=rng.choice((408, 429, 500, 502, 503, 504, 403, 404, 418)),
        retry_after=rng.choice((None, "0", "soon", "9999")),
        seconds=SLOW_KINDS.get(kind, 0.0),
    )


def random_script(rng: random.Random, name: str) -> list[Step]:
    """One to six steps."""
    script: list[Step] = []
    num_bytes = len(FILES[name])
    for _ in range(rng.randint(1, 6)):
        draw = rng.random()
        if draw < 0.04:
            script.append(Kill(rng.uniform(0, 0.15)))
        elif draw < 0.07:
            script.append(DiskFull(rng.randrange(1, num_bytes)))
        else:
            # Of a table nobody sees from its bytes that it is short: there the size that HEAD tells is needed.
            script.append(random_fault(rng, num_bytes=num_bytes, with_head=name in (TAR, GZIP)))
    return script


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """What any logger says, at its most talkative."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def run_here(site: OfficialSite, to: Path, package: str, *, is_last: bool) -> str:
    """One run in this process; all that it says. Only a run without faults has to come through."""
    said: list[str] = []
    waits = not is_last and any(fault.kind in SLOW_KINDS for fault in site.faults)
    try:
        bring(
            site,
            to,
            package,
            limits=replace(QUICK, stall_seconds=0.3) if waits else QUICK,
            say=said.append,
            progress=lambda *_: assert_no_wrong_file(site, to),
        )
    except T4SAError as error:
        said += [repr(error), *traceback.format_exception(error)]
        assert not is_last, said
    return "\n".join(said)


def run_there(site: OfficialSite, to: Path, package: str, step: Kill | DiskFull) -> bytes:
    """One run in a process that is killed, or whose disk is full; all that it prints."""
    limits = {**vars(QUICK), "stall_seconds": 1.0}
    num_seen = len(site.log)
    file_bytes = step.file_bytes if isinstance(step, DiskFull) else None
    client = start_client(site, to, package, limits=limits, file_bytes=file_bytes)
    if isinstance(step, Kill):
        while len(site.log) == num_seen and client.poll() is None:
            time.sleep(0.005)
        time.sleep(step.seconds)
        client.kill()
    out, err = client.communicate(timeout=PATIENCE_SECONDS)
    assert client.returncode in (0, -signal.SIGKILL) or b"named: " in err, err.decode()
    return out + err


def kind_of(step: Step) -> str:
    return step.kind if isinstance(step, Fault) else ""


def run_script(seed: int, to: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Play the script of a seed, run once more, and look at everything."""
    rng = random.Random(seed)
    package = rng.choice(("b-t4sa", "b-t4sa", "text-sentiment", "hybrid-ft-a"))
    name = PACKAGES[package]
    script = random_script(rng, name)
    print(f"seed {seed}: {name}, {script}")
    told: list[str | bytes] = []
    with everything_logged() as logged, make_site() as site:
        for step in script:
            if isinstance(step, Fault):
                site.faults.append(step)
                continue
            site.piece_seconds = 0.005
            told.append(run_there(site, to, package, step))
            site.piece_seconds = 0.0
            assert_no_wrong_file(site, to)
        told.append(run_here(site, to, package, is_last=False))
        assert_no_wrong_file(site, to)
        site.faults.clear()
        told.append(run_here(site, to, package, is_last=True))
        versions = [site.files[name]]
        if any(isinstance(step, Kill) for step in script) and "changed_quietly" in map(kind_of, script):
            # Killed in the end mark, which all versions have: the rest of the next one is that of this one.
            versions.append(site.next_files[name])
        assert (to / name).read_bytes() in versions
        assert left(to) == {name}
    assert_no_secret(site, to, logged.getvalue(), *told, *capfd.readouterr())


@pytest.mark.parametrize("seed", range(25))
def test_scripts_of_faults(seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_script(seed, tmp_path / "raw", capfd)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25, 525))
def test_many_scripts_of_faults(seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_script(seed, tmp_path / "raw", capfd)


def kill_and_run_again(seed: int, to: Path) -> bool:
    """Kill a download of many files at a random moment, run it again, and look; whether it was still running."""
    delay = random.Random(seed).uniform(0, 0.3)
    with make_site(piece_seconds=0.01) as site:
        client = start_client(site, to, *PACKAGES)
        while not site.log:
            assert client.poll() is None
            time.sleep(0.005)
        time.sleep(delay)
        client.kill()
        out, err = client.communicate(timeout=PATIENCE_SECONDS)
        assert_no_wrong_file(site, to)
        assert_no_secret(site, to, out, err)
        site.piece_seconds = 0.0
        bring(site, to, *PACKAGES)
        assert {name: (to / name).read_bytes() for name in PACKAGES.values()} == FILES
        assert left(to) == set(FILES)
        assert_no_secret(site, to)
    return client.returncode == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(3))
def test_kills_of_many_files(seed: int, tmp_path: Path) -> None:
    kill_and_run_again(seed, tmp_path / "raw")


@pytest.mark.slow
def test_many_kills_of_many_files(tmp_path: Path) -> None:
    killed = [kill_and_run_again(seed, tmp_path / str(seed)) for seed in range(3, 53)]
    assert sum(killed) >= 25, "too many were done before they were killed"
