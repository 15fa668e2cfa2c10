"""`t4sa download --from hub` against a double of the Hub: real sockets, the real client in other processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from t4sa_data.manifest import MANIFEST_NAME
from t4sa_data.testing import check_release, make_release

from tests.hub_double import Hub, Repository  # isort: skip

TOKEN, STRANGER = "hf_goodtoken123456", "hf_strangertoken99"

# Several commands in one process: starting the client takes most of a second. What may be done before a command:
# `full` fills the disk for it, `impatient` lets the client wait for nothing, `flip` changes a bit of a
# file, `unlink` removes it, `cache` lets the client keep a file in its own cache.
DRIVER = """
import collections, contextlib, hashlib, io, json, os, shutil, sys, time
from pathlib import Path
from t4sa_data.cli import app
usage, Usage = shutil.disk_usage, collections.namedtuple("Usage", "total used free")
for args, environment in json.loads(sys.argv[1]):
    shutil.disk_usage = (lambda path: Usage(10**9, 10**9 - 10, 10)) if environment.pop("full", "") else usage
    if environment.pop("impatient", ""):
        time.sleep = lambda seconds: None
    if name := environment.pop("cache", ""):
        from huggingface_hub import hf_hub_download
        hf_hub_download("someone/t4sa", name, repo_type="dataset", revision="v1")
    if path := environment.pop("unlink", ""):
        Path(path).unlink()
    if path := environment.pop("flip", ""):
        data = bytearray(Path(path).read_bytes())
        data[len(data) // 2] ^= 1
        Path(path).write_bytes(data)
    for name, value in environment.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    told, status = io.StringIO(), 0
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            app(["download", "--from", "hub", *args])
        except SystemExit as end:
            status = end.code or 0
    home = Path(os.environ["T4SA_HOME"]) / "t4sa"
    files = {p.relative_to(home).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
             for p in home.rglob("*") if p.is_file()}
    print(json.dumps([status, told.getvalue(), files]))
"""


@dataclass
class Outcome:
    """What a command left behind."""

    status: int
    output: str
    files: dict[str, str]
    """Of the release's folder: name -> sha256."""


@dataclass
class Machine:
    """Somebody's machine, with a cache and a home of its own."""

    folder: Path
    hub: Hub

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def run(self, *args: object, **environment: str | None) -> Outcome:
        return self.run_all([(args, environment)])[0]

    def run_all(self, commands: Sequence[tuple[Sequence[object], Mapping[str, str | None]]]) -> list[Outcome]:
        """Run `t4sa download --from hub` several times, each with changes of the environment that stay."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "T4SA_", "HUGGING"))}
        settings = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "USE_TORCH": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "T4SA_NAMESPACE": "someone",
            "T4SA_HOME": str(self.home),
            "HOME": str(self.folder),
            "HF_TOKEN": TOKEN,
        }
        plain = [([str(arg) for arg in args], dict(environment)) for args, environment in commands]
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, json.dumps(plain)],
            env={**clean, **settings},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        output = done.stdout + done.stderr
        assert "Traceback" not in output, output
        for secret in (TOKEN, STRANGER):
            assert secret not in output
        return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    make_release(folder, 60, shard_bytes=60_000)
    return folder / "t4sa"


@pytest.fixture(scope="module")
def whole(published: Path) -> dict[str, str]:
    """Every file of the release: name -> sha256."""
    paths = [path for path in published.rglob("*") if path.is_file()]
    return {p.relative_to(published).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture
def machine(published: Path, tmp_path: Path) -> Iterator[Machine]:
    repositories = {"someone/t4sa": Repository(published, allowed=frozenset({TOKEN}))}
    with Hub(repositories, tokens=frozenset({TOKEN, STRANGER})) as hub:
        yield Machine(tmp_path, hub)


def test_a_part_is_no_release_and_the_whole_goes_on_from_it(machine: Machine, whole: dict[str, str]) -> None:
    hub = machine.hub
    commands = (["--dry-run"], ["--split", "test"], CONFIG, [], CONFIG)
    dry, test, config, rest, again = machine.run_all([(args, {}) for args in commands])
    assert dry.status == 0 and dry.files == {} and "to fetch into" in dry.output
    assert f"{len(whole) - 1} file(s)" in dry.output, "the manifest does not name itself"
    assert test.status == 0 and f"without {MANIFEST_NAME}: read its Parquet files directly" in test.output
    assert test.files == {name: sha for name, sha in whole.items() if name.startswith("b-t4sa/test-")} != {}
    shards = {name: sha for name, sha in whole.items() if re.fullmatch(r"b-t4sa/.*-of-.*\.parquet", name)}
    assert config.status == 0 and config.files == shards and len(shards) > len(test.files)
    assert rest.status == 0 and f"{len(shards)} file(s) are here, hashing them" in rest.output
    assert str(machine.home / "t4sa") in rest.output.splitlines() and rest.files == whole
    assert check_release(machine.home, deep=True).ok
    assert again.status == 0 and again.files == whole, "a whole release stays one"
    assert sorted(hub.fetched()) == sorted(set(hub.fetched())), "nothing is fetched twice"
    assert not [r for r in hub.log if r.path.startswith("/_cdn/") and r.authorized], "the token goes to the Hub only"


CONFIG = ["--config", "b-t4sa"]


def test_damage_on_the_way_and_here(machine: Machine, published: Path, whole: dict[str, str], tmp_path: Path) -> None:
    """The client compares sizes only; the same wrong bytes must not come back from its cache either."""
    damaged = Path(shutil.copytree(published, tmp_path / "damaged"))
    name = next(name for name in sorted(whole) if name.startswith("b-t4sa/train-"))
    data = bytearray((damaged / name).read_bytes())
    data[len(data) // 2] ^= 1
    (damaged / name).write_bytes(data)
    good = machine.hub.repositories["someone/t4sa"]
    machine.hub.repositories["someone/t4sa"] = Repository(damaged)
    refused = machine.run(cache=name)  # and takes it from there
    assert refused.status == 1 and "error: a downloaded file is not what the manifest says" in refused.output
    assert name in refused.output and name not in refused.files and MANIFEST_NAME not in refused.files
    machine.hub.repositories["someone/t4sa"] = good
    fetched = len(machine.hub.fetched())
    other = next(n for n in sorted(whole) if n.startswith("b-t4sa/train-") and n != name)
    flips = [{"flip": str(machine.home / "t4sa" / n)} for n in (other, name)]  # sizes and the client's notes stay
    first, mended = machine.run_all([([], flip) for flip in flips])
    assert first.status == 0 and first.files == whole, first.output
    assert mended.status == 0 and mended.files == whole
    again = [f"someone/t4sa/{n}" for n in sorted([name, other])] + [f"someone/t4sa/{name}"]
    assert sorted(machine.hub.fetched()[fetched:]) == sorted(again), "only what is damaged is fetched again"


def test_refusals_and_their_exit_statuses(machine: Machine) -> None:
    cases = [
        ([], {"HF_TOKEN": None}, 3, ["hf auth login", "HTTP 401"]),
        ([], {"HF_TOKEN": STRANGER}, 3, ["Ask for access", "HTTP 403"]),
        ([], {"HF_TOKEN": "hf_not_a_token_at_all"}, 3, ["does not take your token"]),
        ([], {"HF_TOKEN": TOKEN, "T4SA_NAMESPACE": "nobody"}, 1, ["no repository on the Hub", "t4sa get"]),
        (["--revision", "v9"], {"T4SA_NAMESPACE": "someone"}, 2, ["no such revision"]),
        (["--config", "b-t4s"], {}, 2, ["no such config"]),
        (["--split", "dev"], {}, 2, ["no such split"]),
        (["--config", "t4sa-text"], {}, 1, ["this release does not hold the config"]),
        ([], {"full": "1"}, 1, ["not enough disk for the download", "--split"]),
    ]
    outcomes = machine.run_all([(args, environment) for args, environment, _, _ in cases])
    for (args, _, expected, words), done in zip(cases, outcomes, strict=True):
        assert done.status == expected and all(word in done.output for word in words), f"{args}: {done}"
        assert done.output.count("error: ") == 1
    assert machine.hub.fetched() == [] and outcomes[-1].files == {}


def test_other_files_stay_what_they_are(machine: Machine) -> None:
    make_release(machine.home, 30, shard_bytes=15_000)
    refused, again = machine.run_all([([], {}), ([], {"unlink": str(machine.home / "t4sa" / MANIFEST_NAME)})])
    assert refused.status == 1 and "another release stands here" in refused.output
    assert again.status == 1 and "not of this release" in again.output
    assert again.files == {name: sha for name, sha in refused.files.items() if name != MANIFEST_NAME} != {}
    assert machine.hub.fetched() == []


@contextmanager
def cutting_server() -> Iterator[str]:
    """Promises a thousand bytes, sends ten and hangs up; its URL."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_a_cut_on_the_way_has_a_name(machine: Machine, whole: dict[str, str]) -> None:
    cdn = machine.hub.cdn
    with cutting_server() as machine.hub.cdn:
        cut = machine.run("--split", "test", impatient="1")
    assert cut.status == 1 and cut.output.count("error: ") == 1 and "broke off" in cut.output, cut.output
    assert not [name for name in cut.files if not name.startswith(".cache/")]
    machine.hub.cdn = cdn
    done = machine.run("--split", "test")
    assert done.status == 0 and done.files.items() <= whole.items()
