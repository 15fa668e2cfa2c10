"""`t4sa get` from end to end on the miniature, against a double of the site; killed in each stage and run again.

The command is run as `python -m builders.get`: an editable install knows new entry points only after it is made anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders.get import app
from t4sa_data import catalog, credentials
from t4sa_data.downloading import listing
from t4sa_data.manifest import load_manifest
from t4sa_data.testing import make_official_archive

from tests.helpers_release import RELEASE_FOLDERS, assert_sound, build, differences, digests  # isort: skip
from tests.site_double import Fault, OfficialSite  # isort: skip

SECRET = "pass word/%"
NAMES = [catalog.PACKAGES[name].filename for name in catalog.PREPARE_PACKAGES]
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, with the split lists in the archive: the site offers them nowhere else."""
    return make_official_archive(tmp_path_factory.mktemp("official"), 66, lists_inside=True).folder


@pytest.fixture(scope="module")
def built(official: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `prepare` makes of them."""
    out = tmp_path_factory.mktemp("built")
    build(official, out, shard_bytes=1_000_000_000)
    return digests(out, *RELEASE_FOLDERS)


@pytest.fixture
def site(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OfficialSite]:
    for name in ("NETRC", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("T4SA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("T4SA_USER", "someone")
    monkeypatch.setenv("T4SA_PASSWORD", SECRET)
    files = {name: (official / name).read_bytes() for name in NAMES}
    with OfficialSite(files, user="someone", password=SECRET) as double:
        monkeypatch.setenv("T4SA_BASE_URL", double.url)
        yield double


class Command:
    """`t4sa get --yes` as a process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "builders.get", "--yes", "--workers", "1"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def kill_when(self, happened: Callable[[], bool]) -> None:
        """SIGKILL once something happened, which must be before its end."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while not happened() and time.monotonic() < limit and self.process.poll() is None:
            time.sleep(0.005)
        self.process.send_signal(signal.SIGKILL)
        output, _ = self.process.communicate()
        assert happened() and self.process.returncode == -signal.SIGKILL, output

    def finish(self) -> str:
        output, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        assert self.process.returncode == 0, output
        assert SECRET not in output
        return output


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_in_each_stage_and_run_again(site: OfficialSite, built: dict[str, str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    part, state = home / "raw" / f"{NAMES[0]}.part", home / "build" / "state"
    at = len(site.files[NAMES[0]]) // 2
    site.faults = [Fault("stall", at=at, seconds=PATIENCE_SECONDS, name=NAMES[0])]
    Command().kill_when(lambda: part.exists() and part.stat().st_size >= at // 2)
    assert not (home / "t4sa").exists()
    site.faults.clear()
    Command().kill_when(lambda: any(state.glob("index-*")))
    assert not list(home.glob("t4sa*/manifest.json"))
    asked = len(site.log)
    output = Command().finish()
    assert len(site.log) == asked, "all packages were there: the site was not asked"
    assert "1. fetch: all packages are here" in output and "next: t4sa check" in output
    assert differences(digests(home, *RELEASE_FOLDERS), built) == []
    assert_sound(home)
    status, output = get("--yes", "--workers", 1)
    assert status == 0 and "Nothing to do" in output


def get(*args: object, typed: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(arg) for arg in args], input=typed)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_it_says_what_it_takes_and_asks(site: OfficialSite, tmp_path: Path, monkeypatch) -> None:
    status, output = get()
    assert status == 2 and "--yes" in output and site.log == []
    assert "about 63.5 GB (8.8 h at 2 MB/s, 1.8 h at 10 MB/s, 0.4 h at 50 MB/s)" in output
    assert "126.0 GB (parquet and wds)" in output and str(tmp_path / "home" / "raw") in output
    monkeypatch.setattr(credentials, "can_prompt", lambda: True)
    status, output = get("--formats", "parquet", typed="n\n")
    assert status == 1 and "Start?" in output and "63.0 GB (parquet)" in output and site.log == []
    assert not (tmp_path / "home").exists()
    monkeypatch.setattr(listing, "free_bytes", lambda _folder: 100_000_000_000)
    status, output = get(typed="n\n")
    assert "MORE DISK THAN IS FREE" in output and "--in-place" in output and "--formats parquet" in output
    status, output = get("--in-place", typed="n\n")
    assert "MORE DISK" not in output and "t4sa-inplace" in output and "100.0 GB free" in output


def ways_of(output: str) -> dict[str, str]:
    """The table of ways: options -> the rest of the line."""
    lines = output.split("Ways to a release:\n")[1].split("\n\n")[0].splitlines()[1:]
    return dict(line.split("  ", 1) for line in lines)


def test_the_cheapest_way_that_fits_is_proposed(site: OfficialSite, monkeypatch) -> None:
    monkeypatch.setattr(credentials, "can_prompt", lambda: True)
    room = {"free": 200_000_000_000}
    monkeypatch.setattr(listing, "free_bytes", lambda _folder: room["free"])
    _, output = get(typed="n\n")
    ways = ways_of(output)
    small, in_place, one, both = ways
    assert (small, in_place) == ("--configs b-t4sa-256 --formats wds", "--in-place")
    assert (one, both) == ("--formats parquet", "--formats parquet,wds")
    assert all("63.5 GB" in rest and rest.endswith("fits") for rest in ways.values())
    assert "12.0 GB" in ways[small] and "63.0 GB" in ways[in_place] and "126.0 GB" in ways[one]
    assert f"The cheapest that fits: t4sa get {small}" in output
    for free, num in ((130_000_000_000, 3), (70_000_000_000, 2), (30_000_000_000, 1), (9_000_000_000, 0)):
        room["free"] = free
        _, output = get(typed="n\n")
        assert sum(rest.endswith("fits") for rest in ways_of(output).values()) == num
        assert ("None of them fits" in output) == (num == 0) and "MORE DISK" in output
    _, output = get("--split", "test", "--configs", "b-t4sa-256", typed="n\n")
    assert "pass by" in output and "small pictures stay: 1.8 GB" in output and "--split test" in output
    _, output = get("--split", "test", "--configs", "t4sa-text", typed="n\n")
    assert "about 488.0 MB" in output and "63.5 GB" not in output.split("Ways")[0]
    assert site.log == []


@pytest.mark.parametrize(
    "options",
    [
        ["--configs", "t4sa"],
        ["--configs", "b-t4sa-256", "--in-place"],
        ["--configs", "none"],
        ["--configs", "t4sa-text", "--formats", "wds"],
    ],
)
def test_what_the_site_does_not_give_is_refused_before_it_is_asked(site: OfficialSite, options: list[str]) -> None:
    status, output = get("--yes", *options)
    assert status in (1, 2) and output.count("error: ") == 1 and site.log == []


def test_texts_alone_and_an_archive_that_is_here(site: OfficialSite, official: Path, tmp_path: Path) -> None:
    status, output = get("--yes", "--workers", 1, "--configs", "t4sa-text")
    assert status == 0 and not any(NAMES[0] in request.path for request in site.log), output
    raw = tmp_path / "home" / "raw"
    (raw / NAMES[0]).write_bytes((official / NAMES[0]).read_bytes())
    status, output = get("--yes", "--workers", 1, "--configs", "b-t4sa-256", "--out", tmp_path / "small")
    assert status == 0 and not any(NAMES[0] in request.path for request in site.log), output
    assert load_manifest(tmp_path / "small/t4sa-wds").layers.keys() == {"b-t4sa-256"}


def test_in_place_and_other_folders(site: OfficialSite, tmp_path: Path) -> None:
    raw, out = tmp_path / "some where", tmp_path / "out"
    status, output = get("--yes", "--to", raw, "--in-place", "--base-url", site.url)
    assert status == 0, output
    assert load_manifest(raw / "t4sa-inplace").format == "in-place" and not (tmp_path / "home").exists()
    asked = len(site.log)
    status, output = get("--yes", "--to", raw, "--out", out, "--formats", "wds", "--workers", 1)
    assert status == 0 and len(site.log) == asked and [path.name for path in out.glob("t4sa*")] == ["t4sa-wds"]


def test_exit_statuses(site: OfficialSite, monkeypatch) -> None:
    assert get("--yes", "--formats", "zip")[0] == 2
    monkeypatch.setenv("T4SA_PASSWORD", "wrong")
    status, output = get("--yes")
    assert status == 3 and "does not take this user name and password" in output
    monkeypatch.setenv("T4SA_PASSWORD", SECRET)
    site.files[NAMES[1]] = site.files[NAMES[1]] + b"1\t0.1\n"
    status, output = get("--yes", "--workers", 1)
    assert status == 1 and output.count("error: ") == 1, output
    monkeypatch.setattr(credentials.Origin, "is_loopback", False)
    assert get("--yes", "--to", os.environ["T4SA_HOME"] + "/other")[0] == 3
