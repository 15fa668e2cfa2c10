"""Ranges that are kept while a release is open: no byte comes twice, and none of them is believed unseen."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t4sa_data.errors import ChecksumMismatch, ShardError
from t4sa_data.manifest import load_manifest
from t4sa_data.reading import cache as cache_module
from t4sa_data.reading.bringing import Bringing
from t4sa_data.reading.cache import Cache
from t4sa_data.reading.fetching import RemoteSource
from t4sa_data.reading.kept import KeptRanges
from t4sa_data.reading.pumping import Pump
from t4sa_data.reading.transport import HttpTransport, RemoteFile

from tests.reading_helpers import QUICK, files_below, ranges_of, shards_of  # isort: skip
from tests.site_double import OfficialSite  # isort: skip
from tests.streaming_helpers import keys_of  # isort: skip

pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="nothing is kept on Windows")
SIZE = 200


@settings(deadline=None, max_examples=60)
@given(
    spans=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 60)), max_size=12),
    asked=st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 60)), max_size=12),
)
def test_what_was_kept_is_there_and_nothing_else(
    spans: list[tuple[int, int]], asked: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytes(range(SIZE))
    kept, here = KeptRanges(tmp_path_factory.mktemp("kept")), set[int]()
    for start, length in spans:
        stop = min(SIZE, start + length)
        kept.keep("a", start, whole[start:stop], "v1")
        here.update(range(start, stop))
    for start, length in asked:
        stop, is_there = min(SIZE, start + length), set(range(start, min(SIZE, start + length))) <= here
        assert kept.covers("a", start, stop) == is_there
        assert kept.read("a", start, stop) == (whole[start:stop] if is_there else None)
    at, runs = 0, []
    while at < SIZE:  # runs that follow each other make up the whole
        is_kept, stop = kept.run("a", at, SIZE)
        assert stop > at and all((i in here) == is_kept for i in range(at, stop))
        runs.append(is_kept)
        at = stop
    assert at == SIZE and all(a != b for a, b in itertools.pairwise(runs))


def test_another_version_takes_the_place_of_the_first(tmp_path: Path) -> None:
    kept = KeptRanges(tmp_path)
    kept.keep("a", 0, b"old", "v1")
    kept.keep("a", 6, b"new", "v2")
    assert kept.validator("a") == "v2" and kept.read("a", 6, 9) == b"new" and kept.read("a", 0, 3) is None
    kept.drop("a")
    assert kept.run("a", 0, 9) == (False, 9) and kept.validator("a") is None


def test_nothing_is_left_and_no_folder_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208
    kept = KeptRanges(tmp_path)
    kept.keep("a", 0, b"some", None)
    assert kept.read("a", 0, 4) == b"some" and list(tmp_path.iterdir()) == [], "it has no name"
    del kept
    gc.collect()
    assert not before or len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    (tmp_path / "file").touch()
    for nowhere in (KeptRanges(None), KeptRanges(tmp_path / "file" / "below")):
        nowhere.keep("a", 0, b"some", None)
        assert nowhere.read("a", 0, 4) is None
    monkeypatch.setattr("t4sa_data.reading.kept.SPARE_BYTES", 1 << 62)
    full = KeptRanges(tmp_path)
    full.keep("a", 0, b"some", None)
    assert full.read("a", 0, 4) is None


def open_source(site: OfficialSite, folder: Path, cache: Path, kept: KeptRanges) -> RemoteSource:
    files = shards_of(load_manifest(folder))
    return RemoteSource(HttpTransport(site.url, QUICK), files, Cache(cache), kept_whole=frozenset(files), kept=kept)


def test_a_later_source_asks_for_nothing_again(releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = releases / "t4sa-wds"
    ranges = ranges_of(folder)
    monkeypatch.setattr(cache_module.Cache, "admit", lambda *_: False)  # no shard comes whole
    with OfficialSite(files_below(folder), is_open=True) as site:
        kept = KeptRanges(tmp_path)
        for number in range(2):
            source = open_source(site, folder, tmp_path, kept)
            source.announce([wanted for wanted, _ in ranges])
            for wanted, sha256 in ranges:
                assert hashlib.sha256(source.read(wanted)).hexdigest() == sha256
            source.close()
            asked = len(site.log) if number == 0 else asked  # noqa: F821
        assert asked and len(site.log) == asked


def test_a_shard_takes_what_was_kept(releases: Path, tmp_path: Path) -> None:
    """Only the bytes between come over the network, and it is the manifest's shard."""
    folder = releases / "t4sa-wds"
    name, file = next(iter(shards_of(load_manifest(folder)).items()))
    whole = (folder / name).read_bytes()
    with OfficialSite(files_below(folder), is_open=True) as site:
        pump = Pump(HttpTransport(site.url, QUICK), threading.Event())
        version = site.validators(name)["ETag"]
        kept = KeptRanges(tmp_path)
        kept.keep(name, 0, whole[:1000], version)
        kept.keep(name, 5000, whole[5000:], version)
        target = tmp_path / "whole"
        Bringing(pump, file, target, kept=kept, name=name).run()
        assert target.read_bytes() == whole
        assert [request.range for request in site.requests()] == ["bytes=1000-4999"]
        kept.keep(name, 2000, b"wrong", version)  # damaged on this disk: found, and fetched anew
        Bringing(pump, file, tmp_path / "again", kept=kept, name=name).run()
        assert (tmp_path / "again").read_bytes() == whole and site.requests()[-1].range is None
        assert kept.validator(name) is None
        wrong = RemoteFile(name, file.num_bytes, "0" * 64)
        kept.keep(name, 0, whole[:9], version)
        with pytest.raises(ChecksumMismatch):
            Bringing(pump, wrong, tmp_path / "wrong", kept=kept, name=name).run()


def test_versions_are_not_mixed(releases: Path, tmp_path: Path) -> None:
    """The file was replaced since ranges of it came."""
    folder = releases / "t4sa-wds"
    name, file = next(iter(shards_of(load_manifest(folder)).items()))
    with OfficialSite(files_below(folder), is_open=True) as site:
        kept = KeptRanges(tmp_path)
        kept.keep(name, 0, bytes(1000), '"another"')
        pump = Pump(HttpTransport(site.url, QUICK), threading.Event())
        with pytest.raises(ShardError, match="replaced"):
            Bringing(pump, file, tmp_path / "whole", kept=kept, name=name).run()
        assert not (tmp_path / "whole").exists()


def test_bytes_that_were_damaged_on_the_way_are_asked_for_anew(
    releases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from t4sa_data import stream

    folder = releases / "t4sa-wds"
    monkeypatch.setattr(cache_module.Cache, "admit", lambda *_: False)  # no shard comes whole
    files = files_below(folder)
    with OfficialSite(dict(files), is_open=True) as site:
        loader = stream(site.url, batch_size=8, decode=None, shuffle="block", cache=tmp_path, tail="ragged")
        wanted = next(wanted for wanted, _ in ranges_of(folder) if "train" in wanted.file)
        at = wanted.offset + wanted.length // 2
        whole = files[wanted.file]
        site.files[wanted.file] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(ChecksumMismatch):
            keys_of(loader)
        site.files[wanted.file] = whole
        assert len(keys_of(loader)) == loader.num_samples


def test_a_second_epoch_is_read_from_the_disk(releases: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from t4sa_data import stream

    folder = releases / "t4sa-wds"
    with OfficialSite(files_below(folder), is_open=True) as site:
        loader = stream(site.url, batch_size=8, size=16, shuffle="block", cache=tmp_path, tail="ragged")
        first = keys_of(loader)
        sent = site.num_bytes_sent()
        second = keys_of(loader)
        assert sorted(first) == sorted(second) and first != second
        shards = {name: file.num_bytes for name, file in shards_of(load_manifest(folder)).items()}
        other = sum(size for name, size in shards.items() if "train" not in name)
        assert site.num_bytes_sent() - sent <= 0.2 * sum(shards.values()) + other, "headers and gaps only"
