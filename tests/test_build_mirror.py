"""A build's copy in an object store: `memory://`, which has no rename, as S3 has none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from builders.mirror import Mirror
from t4sa_data.errors import BadOption, ChecksumMismatch, StoreError

from tests.build_helpers import Stream, make_stream, run  # isort: skip
from tests.helpers_release import differences, digests  # isort: skip

RELEASES = ("t4sa", "t4sa-wds")


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    made = make_stream(tmp_path_factory.mktemp("raw"), num_tweets=60)
    yield made
    made.host.__exit__()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    folder = f"/{tmp_path.name}"
    yield f"memory:/{folder}"
    if fs.exists(folder):
        fs.rm(folder, recursive=True)


def held(url: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(url)
    return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}


def test_another_machine_goes_on_from_the_store(stream: Stream, store: str, tmp_path: Path) -> None:
    one, other, config = tmp_path / "one", tmp_path / "other", stream.config(tmp_path)
    run(stream, one, config, mirror=Mirror(store), last="inspection")
    before = Counter(stream.host.counts)
    outcome = run(stream, other, config, mirror=Mirror(store))  # nothing of it is here
    assert outcome.ran == ("dedup", "balance", "split", "write", "report")
    assert stream.host.counts == before
    plain = tmp_path / "plain"
    run(stream, plain, config)
    assert (
        differences(
            digests(other, *RELEASES, "build/ledger.parquet"), digests(plain, *RELEASES, "build/ledger.parquet")
        )
        == []
    )
    # The release is in the store, byte for byte.
    for folder in RELEASES:
        files = {
            path.relative_to(other).as_posix(): path.read_bytes()
            for path in (other / folder).rglob("*")
            if path.is_file()
        }
        assert {name: data for name, data in held(store).items() if name.startswith(f"{folder}/")} == files


def test_the_manifest_goes_first_and_comes_last(
    stream: Stream, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another release is copied over one, no manifest vouches for the mixture; what it has no more goes."""
    out = tmp_path / "out"
    run(stream, out, stream.config(tmp_path), mirror=Mirror(store))
    first = set(held(store))
    seen = []
    put = Mirror._put

    def watched(self: Mirror, path: Path, place: str, **more: bool) -> None:
        if place.startswith("t4sa"):
            seen.append(f"{place.split('/')[0]}/manifest.json" in held(store))
        put(self, path, place, **more)

    monkeypatch.setattr(Mirror, "_put", watched)
    run(stream, out, stream.config(tmp_path, write='text = "none"\nformats = ["parquet"]'), mirror=Mirror(store))
    assert seen and not any(seen)
    now = held(store)
    assert json.loads(now["t4sa/manifest.json"])["layers"].keys() == {"b-t4sa", "unique", "duplicates"}
    gone = first - set(now)
    assert gone and all(name.startswith(("t4sa/raw-text/", "t4sa/t4sa-text/")) or "-of-" in name for name in gone)


def test_what_a_store_gives_is_held_against_its_marker(stream: Stream, store: str, tmp_path: Path) -> None:
    config = stream.config(tmp_path)
    run(stream, tmp_path / "one", config, mirror=Mirror(store), last="select")
    fs, root = fsspec.core.url_to_fs(store)
    (path,) = [path for path in fs.find(root) if path.endswith("images.arrow")]
    fs.pipe_file(path, fs.cat_file(path)[:-1] + b"x")
    with pytest.raises(ChecksumMismatch, match="not what its marker says"):
        run(stream, tmp_path / "other", config, mirror=Mirror(store))
    assert not list((tmp_path / "other" / "build" / "state").glob("select-*.json"))
    # A stage whose marker never came is done again.
    (marker,) = [path for path in fs.find(root) if path.split("/")[-1].startswith("select-") and path.endswith(".json")]
    fs.rm_file(marker)
    assert "select" in run(stream, tmp_path / "other", config, mirror=Mirror(store), last="select").ran


def test_faults_of_a_store_have_a_name(
    stream: Stream, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadOption, match="no URL of a store"):
        Mirror("nonsense://bucket")

    def fails(*_: object, **__: object) -> None:
        raise OSError("no space left in the bucket")

    mirror = Mirror(store)
    monkeypatch.setattr(mirror._fs, "put_file", fails)
    with pytest.raises(StoreError, match=r"no space left in the bucket.*The same command goes on"):
        run(stream, tmp_path / "out", stream.config(tmp_path), mirror=mirror, last="collect")
    monkeypatch.undo()
    # The stage stands here, and only here: the same command copies it.
    outcome = run(stream, tmp_path / "out", stream.config(tmp_path), mirror=Mirror(store), last="collect")
    assert outcome.ran == ()
    assert any(name.startswith("state/collect-") and name.endswith("tweets.parquet") for name in held(store))


def test_a_marker_names_nothing_outside(stream: Stream, store: str, tmp_path: Path) -> None:
    config = stream.config(tmp_path)
    run(stream, tmp_path / "one", config, mirror=Mirror(store), last="collect")
    fs, root = fsspec.core.url_to_fs(store)
    (marker,) = [
        path for path in fs.find(root) if path.split("/")[-1].startswith("collect-") and path.endswith(".json")
    ]
    told = json.loads(fs.cat_file(marker))
    entry = next(iter(told["files"].values()))
    fs.pipe_file(marker, json.dumps({**told, "files": {"../../../evil": entry}}).encode())
    with pytest.raises(ChecksumMismatch, match="outside the build"):
        run(stream, tmp_path / "other", config, mirror=Mirror(store))
    assert not (tmp_path / "evil").exists()
