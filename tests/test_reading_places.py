"""Remote releases in odd places and on disks that refuse: in place, read only, full, offline, without a driver."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
fsspec = pytest.importorskip("fsspec")

import t4sa_data  # noqa: E402
from t4sa_data.errors import MissingDependency, OutputError  # noqa: E402
from t4sa_data.reading import open_release, transport  # noqa: E402
from t4sa_data.testing import OfficialArchive  # noqa: E402

from tests.helpers_release import build  # isort: skip  # noqa: E402
from tests.reading_helpers import QUICK, files_below  # isort: skip  # noqa: E402
from tests.site_double import OfficialSite  # isort: skip  # noqa: E402
from tests.streaming_helpers import nothing_left  # isort: skip  # noqa: E402
from tests.test_reading_faults import assert_cache_is_right  # isort: skip  # noqa: E402
from tests.test_reading_remote import BATCHES, assert_same_epoch, bring_all  # isort: skip  # noqa: E402

ROOT = Path(__file__).parents[1]
# The samples of a split in a process of its own, without torch: a digest of them, and what was warned of.
EPOCH = """
import hashlib, json, sys, threading, warnings
import numpy as np
from t4sa_data.reading import open_release
from t4sa_data.streaming import Where, select
url, cache, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if "file_bytes" in options:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (options["file_bytes"], resource.RLIM_INFINITY))
made = hashlib.sha256()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    release = open_release(url, cache=cache)
    selection = select(release, "b-t4sa", "train", where=Where())
    source, ranges = release.source(), selection.ranges(np.arange(len(selection)))
    source.announce(ranges)
    for wanted in ranges:
        made.update(source.read(wanted))
    for _ in range(options.get("waits", 0)):
        caught or threading.Event().wait(0.05)
    source.close()
said = [str(one.message) for one in caught if one.category is RuntimeWarning]
print(json.dumps({"digest": made.hexdigest(), "said": said}))
"""


def epoch_of(url: str, cache: Path, *, before: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    done = subprocess.run(
        [*before, sys.executable, "-c", EPOCH, url, str(cache), json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def bring_everything(url: str, cache: Path, folder: Path) -> None:
    """Sample table and shards into the cache."""
    release = open_release(url, cache=cache)
    release.table("b-t4sa")
    bring_all(release, folder)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READING", QUICK)


@pytest.fixture(scope="module")
def digest(releases: Path) -> str:
    made = hashlib.sha256()
    for batch in t4sa_data.stream(releases, batch_size=8, decode=None, shuffle=False):
        made.update(b"".join(batch["image"]))
    return made.hexdigest()


@pytest.mark.parametrize("below", ["", "t4sa-inplace"])
def test_an_archive_in_place_behind_a_url(archive: OfficialArchive, tmp_path: Path, below: str) -> None:
    """Its archive lies beside the release's folder, and is kept whole only where room was given for it."""
    raw = Path(shutil.copytree(archive.folder, tmp_path / "raw"))
    build(raw, raw, in_place=True, images=())
    with OfficialSite(files_below(raw), is_open=True) as site:
        local = t4sa_data.stream(raw / below, **BATCHES)
        assert_same_epoch(local, t4sa_data.stream(site.url + below, cache=tmp_path / "cache", **BATCHES))
        assert not list((tmp_path / "cache").glob("shards/*"))
        release = open_release(site.url + below, cache=tmp_path / "cache", cache_bytes=1 << 30)
        assert release.source()._shards._may_keep  # type: ignore[attr-defined]


def test_t4sa_and_info_of_an_archive_in_place(archive: OfficialArchive, built: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from t4sa_data.cli import app

    raw = Path(shutil.copytree(archive.folder, tmp_path / "raw"))
    build(raw, raw, in_place=True, images=())
    for folder in (raw, raw / "t4sa-inplace"):
        one, other = t4sa_data.T4SA(folder, "test"), t4sa_data.T4SA(built / "t4sa", "test")
        assert one.samples == other.samples and len(one)
        assert all(one[i][0].tobytes() == other[i][0].tobytes() for i in range(len(one)))
        one.close(), other.close()
        done = CliRunner().invoke(app, ["info", str(folder)])
        assert done.exit_code == 0 and "b-t4sa" in done.output, done.output
        done = CliRunner().invoke(app, ["check", str(folder)])
        assert done.exit_code == 0, done.output


def test_a_split_fetches_its_own_shards_only(releases: Path, tmp_path: Path) -> None:
    """datasets #6529, #6793: split="test" downloaded everything."""
    with OfficialSite(files_below(releases), is_open=True) as site:
        url = site.url + "t4sa-wds"
        options = {"decode": None, "tail": "ragged", "batch_size": 4, "cache": tmp_path}
        assert list(t4sa_data.stream(url, split="test", **options))
        asked = {request.path for request in site.log if request.path.endswith(".tar")}
        assert asked and all("/test-" in path for path in asked)


def test_offline_opens_no_socket(releases: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with OfficialSite(files_below(releases), is_open=True) as site:
        url = site.url + "t4sa"
        bring_everything(url, tmp_path, releases / "t4sa")
        local = list(t4sa_data.stream(releases, **BATCHES))
        request.getfixturevalue("no_network")
        for workers in (2, 1):
            remote = t4sa_data.stream(url, cache=tmp_path, offline=True, workers=workers, **BATCHES)
            assert_same_epoch(local, remote)
        with pytest.raises(Exception, match=r"touched|reach|gave up"):  # it is the network that was switched off
            t4sa_data.stream(url, cache=tmp_path, **BATCHES)


READ_ONLY = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
REMOUNT = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && ! touch "$0/x" 2>/dev/null && exec "$@"'


def can_remount(folder: Path) -> bool:
    try:
        return subprocess.run([*READ_ONLY, REMOUNT, str(folder), "true"], capture_output=True).returncode == 0
    except OSError:
        return False


def test_a_cache_on_a_read_only_disk(releases: Path, digest: str, tmp_path: Path) -> None:
    """What is there is used; what is not is read over the network, and said."""
    if not can_remount(tmp_path):
        pytest.skip("no user namespaces here, so no disk that is read only for this process")
    whole, some = tmp_path / "whole", tmp_path / "some"
    with OfficialSite(files_below(releases), is_open=True) as site:
        url = site.url + "t4sa"
        bring_everything(url, whole, releases / "t4sa")
        open_release(url, cache=some).table("b-t4sa")
        made = epoch_of(url, whole, before=(*READ_ONLY, REMOUNT, str(whole)))
        assert made == {"digest": digest, "said": []}
        made = epoch_of(url, some, before=(*READ_ONLY, REMOUNT, str(some)), waits=400)
        assert made["digest"] == digest
        assert len(made["said"]) == 1 and "shards are not kept" in made["said"][0]
    with pytest.raises(OutputError, match="the cache"), OfficialSite(files_below(releases), is_open=True) as site:
        t4sa_data.stream(site.url + "t4sa", cache="/proc/t4sa", **BATCHES)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of file sizes to play a full disk with")
def test_a_disk_that_is_full_in_the_middle_of_a_shard(releases: Path, digest: str, tmp_path: Path) -> None:
    """The cache is lost, not the run: it is said once, and what is kept is right."""
    folder = releases / "t4sa-wds"
    largest = max(path.stat().st_size for path in folder.glob("b-t4sa/*.parquet"))
    shards = sorted(path.stat().st_size for path in folder.glob("b-t4sa/train-*.tar"))
    limit = shards[0] - 1000  # all shards are larger, the sample table is not
    assert largest < limit
    with OfficialSite(files_below(releases), is_open=True) as site:
        made = epoch_of(site.url + "t4sa-wds", tmp_path, file_bytes=limit, waits=400)
    assert made["digest"] == digest
    assert len(made["said"]) == 1 and "shards are not kept" in made["said"][0]
    assert_cache_is_right(tmp_path, folder)


def test_a_store_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for scheme, driver in (("s3", "s3fs"), ("gs", "gcsfs")):
        monkeypatch.setitem(sys.modules, driver, None)
        with pytest.raises(MissingDependency, match=rf"{scheme}:// needs a driver.*pip install fsspec\[{scheme}\]"):
            t4sa_data.stream(f"{scheme}://bucket/t4sa", batch_size=8, cache=tmp_path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc: what is left cannot be seen")
def test_leaving_a_remote_loop_leaves_nothing(releases: Path, tmp_path: Path) -> None:
    """In its middle, while ranges and a shard are on their way: no thread, socket, file or lock stays."""
    slow = OfficialSite(files_below(releases), is_open=True, piece_seconds=0.02)
    with slow as site, nothing_left(), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in t4sa_data.stream(site.url + "t4sa-wds", cache=tmp_path, shuffle="block", **BATCHES):
            break
        del _
    assert_cache_is_right(tmp_path, releases / "t4sa-wds")
