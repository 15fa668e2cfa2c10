"""Fixtures that several test files share; each is used where it is asked for."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

# Before torch is imported: OpenMP's threads spin while they wait, and the suite runs several processes a core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from t4sa_data import release
from t4sa_data.miniature import make_samples
from t4sa_data.testing import OfficialArchive, make_official_archive, make_release
from t4sa_data.testing.releases import record_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builders.prepare import Outcome
    from tests.publish_helpers import Commands

NUM_SAMPLES = 60


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    make_release(folder, NUM_SAMPLES, shard_bytes=30_000)
    return folder


@pytest.fixture(scope="session")
def truth() -> pa.Table:
    """All rows in release order, with the images' bytes."""
    samples = make_samples(NUM_SAMPLES)
    images = {sample.key: sample.image for sample in samples}
    table = release.in_release_order(record_table(samples))
    return table.append_column("bytes", pa.array([images[key] for key in table["key"].to_pylist()]))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def alone(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of its own, no release by accident, no cache of `datasets` outside."""
    datasets = pytest.importorskip("datasets")
    for name in ("T4SA_HOME", "T4SA_NAMESPACE", "T4SA_REVISION", "T4SA_SKIP_DISK_CHECK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "platform"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    datasets.disable_progress_bars()


@pytest.fixture
def home(releases: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("T4SA_HOME", str(releases))
    return releases


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to connect, or to resolve a name, fails the test."""
    import socket

    def refuse(*args: object, **_: object) -> None:
        raise AssertionError(f"the network was touched: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: only a power cut could tell, and there is none in a test."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> OfficialArchive:
    """The official packages in miniature, a further archive included. Not to be changed by a test."""
    from tests.helpers_release import NUM_EXTRA, NUM_IMAGES

    return make_official_archive(tmp_path_factory.mktemp("raw"), NUM_IMAGES, num_extra=NUM_EXTRA)


@pytest.fixture(scope="session")
def full(archive: OfficialArchive, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Everything these inputs allow, both formats. Not to be changed by a test."""
    from tests.helpers_release import build  # the ground floor's tests run without the builders

    out = tmp_path_factory.mktemp("full")
    return out, build(archive, out)


@pytest.fixture(scope="session")
def built(full: tuple[Path, Outcome]) -> Path:
    return full[0]


@pytest.fixture(scope="session")
def one_helper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """`t4sa` at an empty Hub: to import all that it needs takes two seconds, so once will do."""
    from tests.hub_double import WritableHub
    from tests.publish_helpers import USERS, commands

    folder = tmp_path_factory.mktemp("commands")
    with WritableHub(folder / "hub", users=USERS) as hub, commands(hub, folder) as made:
        yield made


@pytest.fixture
def t4sa_hub(one_helper: Commands, tmp_path: Path) -> Commands:
    """`t4sa` in processes of its own, with nothing kept, at a Hub that is as new."""
    one_helper.hub.reset()
    one_helper.hub.state.page = 1000
    kept = {name: str(tmp_path / name.split("_")[1].lower()) for name in ("XDG_STATE_HOME", "XDG_DATA_HOME")}
    return replace(one_helper, settings=kept)


@pytest.fixture
def raw(archive: OfficialArchive, tmp_path: Path) -> Path:
    """A copy of the packages to change."""
    return Path(shutil.copytree(archive.folder, tmp_path / "raw"))
