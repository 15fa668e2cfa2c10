"""The shard cache: one download for all processes, a limit that holds, and a process that is killed in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from t4sa_data.downloading.part import NOTE_SUFFIX, PART_SUFFIX, Part
from t4sa_data.errors import DiskSpaceError
from t4sa_data.files import TEMPORARY
from t4sa_data.manifest import load_manifest
from t4sa_data.reading import cache as cache_module
from t4sa_data.reading.cache import Cache

from tests.reading_helpers import files_below, shards_of  # isort: skip
from tests.site_double import OfficialSite  # isort: skip
from tests.test_reading_faults import assert_cache_is_right  # isort: skip

ROOT = Path(__file__).parents[1]
# Reads every range again and again until all shards are whole, and prints how many bytes were right.
READER = """
import hashlib, json, sys, threading
from pathlib import Path
from tests.reading_helpers import open_source, ranges_of
url, folder, cache, limit = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4])
source = open_source(url, folder, cache, keeps=True, limit=limit)
ranges = ranges_of(folder)
print("ready", flush=True)
source.announce([wanted for wanted, _ in ranges])
for _ in range(400):
    for wanted, sha256 in ranges:
        assert hashlib.sha256(source.read(wanted)).hexdigest() == sha256
    if limit or all(source._shards.is_here(name) for name in source._files):
        break
    threading.Event().wait(0.05)
source.close()
print("right", flush=True)
"""


def start(url: str, folder: Path, cache: Path, limit: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", READER, url, str(folder), str(cache), json.dumps(limit)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-2000:]
    assert out.endswith("right\n")


@pytest.mark.parametrize("count", [3, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_bring_each_shard_once(releases: Path, tmp_path: Path, count: int) -> None:
    folder = releases / "t4sa-wds"
    with OfficialSite(files_below(folder), is_open=True, piece_seconds=0.01) as site:
        running = [start(site.url, folder, tmp_path) for _ in range(count)]
        for process in running:
            finish(process)
        whole = [request.path for request in site.log if request.range is None]
        assert sorted(whole) == sorted(f"/{name}" for name in shards_of(load_manifest(folder)))
    assert_cache_is_right(tmp_path, folder)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 20))])
def test_a_killed_process_is_gone_on_with(releases: Path, tmp_path: Path, number: int) -> None:
    folder = releases / "t4sa-wds"
    with OfficialSite(files_below(folder), is_open=True, piece_seconds=0.02) as site:
        first = start(site.url, folder, tmp_path)
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.02 * number)
        first.send_signal(signal.SIGKILL)
        first.communicate()
        assert_cache_is_right(tmp_path, folder)
        site.piece_seconds = 0.0
        finish(start(site.url, folder, tmp_path))
    assert_cache_is_right(tmp_path, folder)
    assert not list((tmp_path / "shards").glob("*.part*"))


def test_the_limit_holds_under_several_processes(releases: Path, tmp_path: Path) -> None:
    folder = releases / "t4sa-wds"
    sizes = [file.num_bytes for file in shards_of(load_manifest(folder)).values()]
    limit = max(sizes) * 2
    most, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.wait(0.002):
            try:
                most = max(most, sum(entry.stat().st_size for entry in os.scandir(tmp_path / "shards")))
            except FileNotFoundError:  # a shard got its name, or was removed, this moment
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    with OfficialSite(files_below(folder), is_open=True) as site:
        for process in [start(site.url, folder, tmp_path, limit) for _ in range(2)]:
            finish(process)
    stop.set()
    watcher.join()
    assert most <= limit + 4096  # the notes of parts
    assert_cache_is_right(tmp_path, folder)


def test_the_least_used_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=300)
    names = [hashlib.sha256(bytes([n])).hexdigest() for n in range(4)]
    (tmp_path / "shards").mkdir()
    for age, name in enumerate(names[:3]):
        path = cache.path("shards", name, 100)
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.find("shards", names[0], 100)  # used now
    assert cache.admit(names[3], 100, keep=())
    assert [cache.find("shards", name, 100) is not None for name in names[:3]] == [True, False, True]
    assert not cache.admit(hashlib.sha256(b"large").hexdigest(), 301, keep=())
    assert not cache.admit(hashlib.sha256(b"kept").hexdigest(), 300, keep=set(names))


def test_a_full_disk_is_said_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "SPARE_BYTES", 1 << 62)
    with pytest.raises(DiskSpaceError, match="not enough disk to keep a shard"):
        Cache(tmp_path).admit("0" * 64, 100, keep=())


def test_what_a_killed_writer_of_a_note_left_goes_with_the_note(tmp_path: Path) -> None:
    """A kill between the note's new bytes and its rename."""
    target = tmp_path / "a [1]"
    left = tmp_path / f".{target.name}{PART_SUFFIX}{NOTE_SUFFIX}.77-0a{TEMPORARY}"
    left.write_bytes(b"{")
    other = tmp_path / f".b{PART_SUFFIX}{NOTE_SUFFIX}.77-0a{TEMPORARY}"
    other.write_bytes(b"{")
    with Part(target, checkpoint_bytes=1) as part:
        part.finish(target)
    assert not left.exists() and other.exists()
