"""Remote releases: the same epoch over https, and object stores, as from the disk; what is asked, kept and refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
fsspec = pytest.importorskip("fsspec")

import t4sa_data  # noqa: E402
from t4sa_data.errors import (  # noqa: E402
    ChecksumMismatch,
    CredentialsError,
    ManifestError,
    OutputError,
    ReleaseNotFound,
    ServerFault,
    ShardError,
    T4SAError,
)
from t4sa_data.reading import Range, open_release, transport  # noqa: E402

from tests.reading_helpers import QUICK, files_below, open_source, ranges_of  # isort: skip  # noqa: E402
from tests.site_double import Fault, OfficialSite  # isort: skip  # noqa: E402

BATCHES = {"batch_size": 8, "size": 32, "augment": "flip", "seed": 3}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READING", QUICK)


@pytest.fixture(scope="module")
def served(releases: Path) -> dict[str, bytes]:
    return files_below(releases)


def assert_same_epoch(one: object, other: object) -> None:
    for ours, theirs in zip(one, other, strict=True):  # type: ignore[call-overload]
        assert ours["key"] == theirs["key"]
        assert torch.equal(ours["image"], theirs["image"])


@pytest.mark.parametrize("below", ["", "t4sa", "t4sa-wds"])
@pytest.mark.parametrize("shuffle", ["full", "block"])
def test_an_epoch_over_http_is_that_of_the_disk(
    releases: Path, served: dict[str, bytes], tmp_path: Path, below: str, shuffle: str
) -> None:
    with OfficialSite(served, is_open=True) as site:
        remote = t4sa_data.stream(site.url + below, cache=tmp_path, shuffle=shuffle, **BATCHES)
        assert remote.release.is_remote
        assert remote.selection.sha256 is not None  # images are checked on the way
        assert_same_epoch(t4sa_data.stream(releases, shuffle=shuffle, **BATCHES), remote)


def test_an_object_store_and_then_offline(releases: Path, served: dict[str, bytes], tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    bucket = f"bucket-{tmp_path.name}-{os.getpid()}"
    for name, data in served.items():
        store.pipe(f"/{bucket}/{name}", data)
    url = f"memory://{bucket}"
    local = list(t4sa_data.stream(releases, **BATCHES))
    with pytest.raises(ReleaseNotFound, match="not in the cache, and offline"):
        t4sa_data.stream(url, cache=tmp_path, offline=True, **BATCHES)
    assert_same_epoch(local, t4sa_data.stream(url, cache=tmp_path, **BATCHES))
    release = open_release(url, cache=tmp_path)
    bring_all(release, releases / "t4sa")
    store.rm(f"/{bucket}", recursive=True)
    assert_same_epoch(local, t4sa_data.stream(url, cache=tmp_path, offline=True, **BATCHES))


def bring_all(release: object, folder: Path) -> None:
    """Read until every shard is in the cache."""
    source = release.source()  # type: ignore[attr-defined]
    try:
        ranges = [wanted for wanted, _ in ranges_of(folder)]
        source.announce(ranges)
        until = threading.Event()
        for _ in range(600):
            if all(source._shards.is_here(name) for name in source._files):
                break
            until.wait(0.05)
        else:
            raise AssertionError("the shards did not come")
        for wanted in ranges:
            source.read(wanted)
    finally:
        source.close()


def test_offline_opens_no_socket_and_says_what_is_missing(served: dict[str, bytes], tmp_path: Path) -> None:
    with OfficialSite(served, is_open=True) as site:
        url = site.url + "t4sa"
        open_release(url, cache=tmp_path)
        num = len(site.log)
        offline = open_release(url, cache=tmp_path, offline=True)
        with pytest.raises(ShardError, match="sample table is not in the cache"):
            offline.table("b-t4sa")
        open_release(url, cache=tmp_path).table("b-t4sa")
        num = len(site.log)
        offline = open_release(url, cache=tmp_path, offline=True)
        offline.table("b-t4sa")
        source = offline.source()
        name = next(iter(source._files))
        with pytest.raises(ShardError, match="offline"):
            source.read(Range(name, 0, 10))
        source.close()
        assert len(site.log) == num


def test_neighbours_come_in_one_request(releases: Path, served: dict[str, bytes], tmp_path: Path) -> None:
    folder = releases / "t4sa-wds"
    ranges = ranges_of(folder)
    with OfficialSite(files_below(folder), is_open=True) as site:
        source = open_source(site.url, folder, tmp_path)
        source.announce([wanted for wanted, _ in ranges])
        for wanted, sha256 in ranges:
            assert hashlib.sha256(source.read(wanted)).hexdigest() == sha256
        source.close()
        asked = [request for request in site.log if request.range]
        assert len(asked) <= 2 * len({wanted.file for wanted, _ in ranges})
        assert all(request.status == 206 for request in asked)


def test_memory_is_bounded_when_nobody_reads(releases: Path, tmp_path: Path) -> None:
    folder = releases / "t4sa-wds"
    ranges = ranges_of(folder)
    most = sum(wanted.length for wanted, _ in ranges) // 4
    with OfficialSite(files_below(folder), is_open=True) as site:
        source = open_source(site.url, folder, tmp_path)
        source._most_bytes = most
        source.announce([wanted for wanted, _ in ranges])
        threading.Event().wait(0.3)
        assert 0 < source._held <= most
        for wanted, sha256 in ranges:  # and it goes on when somebody does
            assert hashlib.sha256(source.read(wanted)).hexdigest() == sha256
        assert source._held == 0
        source.close()


def test_credentials_go_to_their_origin_only(
    releases: Path, served: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("T4SA_USER", raising=False)
    with OfficialSite(served) as site:
        with pytest.raises(CredentialsError):
            open_release(site.url + "t4sa", cache=tmp_path)
        monkeypatch.setenv("T4SA_USER", site.user)
        monkeypatch.setenv("T4SA_PASSWORD", site.password)
        remote = t4sa_data.stream(site.url + "t4sa", cache=tmp_path, **BATCHES)
        site.faults += [Fault("redirect_other")] * 3
        assert_same_epoch(t4sa_data.stream(releases, **BATCHES), remote)
        assert site.requests(origin="other")
        assert not site.leaked()
        assert site.password not in repr(remote) + repr(remote.release) + remote.release.where


@pytest.mark.parametrize(
    ("kind", "error"),
    [("changed", ShardError), ("changed_quietly", (ShardError, ChecksumMismatch))],
)
def test_a_release_that_is_replaced_is_noticed(
    releases: Path, tmp_path: Path, kind: str, error: type[T4SAError]
) -> None:
    folder = releases / "t4sa-wds"
    ranges = ranges_of(folder)
    files = files_below(folder)
    site = OfficialSite(files, is_open=True, next_files={name: data[:-1] + b"\1" for name, data in files.items()})
    with site:
        source = open_source(site.url, folder, tmp_path)
        first, last = ranges[0][0], next(r for r, _ in reversed(ranges) if r.file == ranges[0][0].file)
        source.read(first)
        site.faults.append(Fault(kind))
        if kind == "changed":
            with pytest.raises(error, match="replaced"):
                source.read(last)
        else:  # same validator and size: the bytes' own sha256 tells, which the loader checks
            source.read(last)
        source.close()


def test_damaged_bytes_stop_the_loader_with_their_place(served: dict[str, bytes], tmp_path: Path) -> None:
    damaged = dict(served)
    for name, data in served.items():
        if name.startswith("t4sa-wds/") and name.endswith(".tar"):
            middle = len(data) // 2
            damaged[name] = data[:middle] + bytes(255 - byte for byte in data[middle:])
    with OfficialSite(damaged, is_open=True) as site, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # shards that do not fit their sha256 are not kept
        stream = t4sa_data.stream(site.url + "t4sa-wds", cache=tmp_path, **BATCHES)
        with pytest.raises(ChecksumMismatch, match=r"sample \d+-\d, b-t4sa/train-.*byte \d+"):
            list(stream)


def test_no_release_there_is_said(served: dict[str, bytes], tmp_path: Path) -> None:
    cut = {"t4sa/manifest.json": served["t4sa/manifest.json"][:100]}
    for files, error in (({"a.txt": b"x"}, ReleaseNotFound), (cut, ManifestError)):
        with OfficialSite(files, is_open=True) as site, pytest.raises(error):
            open_release(site.url, cache=tmp_path)
    with pytest.raises(ReleaseNotFound):
        open_release("nonsense://x/y", cache=tmp_path)


def test_a_server_that_stays_broken_ends_with_an_error(releases: Path, tmp_path: Path) -> None:
    folder = releases / "t4sa-wds"
    with OfficialSite(files_below(folder), is_open=True, faults=[Fault("status")] * 50) as site:
        source = open_source(site.url, folder, tmp_path)
        with pytest.raises(ServerFault, match="gave up after 6"):
            source.read(ranges_of(folder)[0][0])
        source.close()
    with OfficialSite(files_below(folder), is_open=True, faults=[Fault("status", 0, 429, "86400")]) as site:
        source = open_source(site.url, folder, tmp_path)
        with pytest.raises(ServerFault, match="come back in 1440 minutes"):
            source.read(ranges_of(folder)[0][0])
        source.close()


def test_a_cache_that_cannot_be_written_is_said(releases: Path, served: dict[str, bytes], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with OfficialSite(served, is_open=True) as site:
        with pytest.raises(OutputError, match="the cache"):
            t4sa_data.stream(site.url + "t4sa", cache=blocked, **BATCHES)
        # Tables are here, shards cannot be kept: ranges do, and it is said once.
        t4sa_data.stream(site.url + "t4sa", cache=tmp_path / "cache", **BATCHES)
        shutil.rmtree(tmp_path / "cache" / "shards", ignore_errors=True)
        (tmp_path / "cache" / "shards").write_bytes(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            remote = t4sa_data.stream(site.url + "t4sa", cache=tmp_path / "cache", **BATCHES)
            assert_same_epoch(t4sa_data.stream(releases, **BATCHES), remote)


def test_leaving_the_loop_leaves_no_thread_and_no_socket(served: dict[str, bytes], tmp_path: Path) -> None:
    with OfficialSite(served, is_open=True, piece_seconds=0.01) as site:
        before = set(threading.enumerate())
        stream = t4sa_data.stream(site.url + "t4sa", cache=tmp_path, **BATCHES)
        for _ in stream:
            break
        del _
        left = [t for t in set(threading.enumerate()) - before if t.name.startswith("t4sa-")]
        assert not left
