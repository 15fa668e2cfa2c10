"""Streaming from the Hub's double: one commit, the token at home, signed URLs that expire, access that is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from t4sa_data.manifest import load_manifest
from t4sa_data.releases_file import ReleaseEntry, Releases

from tests.hub_double import Hub, Repository  # isort: skip

TOKEN, STRANGER = "hf_goodtoken123456", "hf_strangertoken99"
ROOT = Path(__file__).parents[1]

CLIENT = """
import hashlib, json, sys
import t4sa_data
from t4sa_data.downloading import Limits
from t4sa_data.reading import transport
transport.READING = Limits(attempts=4, backoff_seconds=0.001, max_backoff_seconds=0.01)

def outcome(path="t4sa", **asked):
    try:
        stream = t4sa_data.stream(path, batch_size=8, size=32, **asked)
        made = hashlib.sha256()
        for batch in stream:
            made.update(batch["image"].contiguous().numpy().tobytes() + "".join(batch["key"]).encode())
        said = {"digest": made.hexdigest(), "where": stream.release.where, "repr": repr(stream)}
    except t4sa_data.T4SAError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(said), flush=True)
"""


OPEN = """
import json
import t4sa_data
from t4sa_data.reading import open_release

def outcome(path="t4sa", **asked):
    try:
        print(json.dumps({"where": open_release(path, **asked).where}))
    except t4sa_data.T4SAError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
"""


def run(hub: Hub, folder: Path, script: str) -> list[dict[str, Any]]:
    """What a process of its own prints: the client reads its settings when it is imported."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "T4SA_", "HUGGING"))}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "T4SA_NAMESPACE": "someone",
        "T4SA_CACHE": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    (folder / "empty").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**clean, **settings},
        cwd=folder / "empty",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture
def published(releases: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(releases, tmp_path / "published"))


def test_a_gated_release_is_streamed_and_the_token_stays_at_home(published: Path, tmp_path: Path) -> None:
    names = {"someone/t4sa": "t4sa", "someone/t4sa-wds": "t4sa-wds"}
    made = {n: Repository(published / f, allowed=frozenset({TOKEN})) for n, f in names.items()}
    with Hub(made, tokens=frozenset({TOKEN, STRANGER}), uses=1) as hub:
        script = f"""
outcome({str(published)!r})
outcome(token="{TOKEN}")
outcome("hf://datasets/someone/t4sa-wds@main", token="{TOKEN}")
outcome("hf://datasets/someone/t4sa-wds@main", token="{TOKEN}", cache={str(tmp_path / "other")!r}, shuffle="block")
"""
        local, ours, wds, block = run(hub, tmp_path, CLIENT + script)
        assert local["digest"] == ours["digest"] == wds["digest"], (ours, wds)
        assert "digest" in block
        commit = hub.repositories["someone/t4sa"].commit
        assert ours["where"] == f"hf://datasets/someone/t4sa@{commit}"
        on_cdn = [request for request in hub.log if request.path.startswith("/_cdn/")]
        assert any(request.status == 403 for request in on_cdn)  # signatures expired on the way
        assert not [request for request in on_cdn if request.authorized]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="no /proc: arguments of processes cannot be seen")
def test_the_token_is_in_no_argument_of_a_worker_process(published: Path, tmp_path: Path) -> None:
    """webdataset's own `hf://` puts it on curl's command line, where every user of the machine reads it."""
    made = {"someone/t4sa": Repository(published / "t4sa", allowed=frozenset({TOKEN}))}
    with Hub(made, tokens=frozenset({TOKEN})) as hub:
        script = f"""
import multiprocessing
from pathlib import Path
batches = iter(t4sa_data.stream("t4sa", batch_size=2, size=32, workers="processes:2", token="{TOKEN}"))
next(batches)
pids = [child.pid for child in multiprocessing.active_children()]
seen = b"".join(Path(f"/proc/{{pid}}/{{name}}").read_bytes() for pid in pids for name in ("cmdline", "environ"))
print(json.dumps({{"workers": len(pids), "leaked": b"{TOKEN}" in seen, "read": len(seen)}}))
batches.close()
"""
        (said,) = run(hub, tmp_path, CLIENT + script)
    assert said["workers"] == 2 and said["read"] > 100 and not said["leaked"]


def test_access_that_is_refused_is_named(published: Path, tmp_path: Path) -> None:
    made = {"someone/t4sa": Repository(published / "t4sa", allowed=frozenset({TOKEN}))}
    with Hub(made, tokens=frozenset({TOKEN, STRANGER})) as hub:
        script = f"""
outcome()
outcome(token="{STRANGER}")
outcome("hf://datasets/someone/else", token="{TOKEN}")
outcome("hf://datasets/someone/t4sa@v9", token="{TOKEN}")
outcome("hf://models/x")
outcome(offline=True)
"""
        said = run(hub, tmp_path, OPEN + script)
    assert [one["error"] for one in said] == [
        "HubAccessError", "HubAccessError", "NotPublished", "UnknownRevision", "ReleaseNotFound", "ReleaseNotFound",
    ]  # fmt: skip
    assert "not logged in" in said[0]["message"]
    assert "offline" in said[5]["message"]


def test_a_withdrawn_release_and_access_taken_back_are_named(published: Path, tmp_path: Path) -> None:
    """Both formats; also when the cache holds what was read before, and offline."""
    for folder in ("t4sa", "t4sa-wds"):
        digests = {n: e.content_digest for n, e in load_manifest(published / folder).layers.items()}
        sha256 = hashlib.sha256((published / folder / "manifest.json").read_bytes()).hexdigest()
        entry = ReleaseEntry(content_digest=digests, date="2026-01-01", state="current", manifest_sha256=sha256)
        made = Releases(current="v1.0.0", releases={"v1.0.0": entry})
        (published / folder / "releases.json").write_bytes(made.to_json())
    names = {f"someone/{name}": name for name in ("t4sa", "t4sa-wds")}
    tags = ("main", "v1.0.0")
    repositories = {n: Repository(published / f, revisions=tags, allowed=frozenset({TOKEN})) for n, f in names.items()}
    asked = f"""
for url in ("hf://datasets/someone/t4sa-wds", "hf://datasets/someone/t4sa@v1.0.0", "hf://datasets/someone/t4sa"):
    outcome(url, token="{TOKEN}")
"""
    offline = 'outcome("hf://datasets/someone/t4sa-wds", offline=True)\n'
    with Hub(repositories, tokens=frozenset({TOKEN, STRANGER})) as hub:
        before = run(hub, tmp_path, OPEN + asked + offline)
        for name, repository in repositories.items():
            repository.allowed = frozenset({STRANGER})
            withdrawn = replace(entry, state="withdrawn", successor="v1.0.1", reason="asked for")
            both = {"v1.0.0": withdrawn, "v1.0.1": replace(entry, content_digest={}, manifest_sha256="")}
            made = Releases(current="v1.0.1", releases=both)
            (published / names[name] / "releases.json").write_bytes(made.to_json())
            (published / names[name] / "another").touch()  # another commit, for the double
            del repository.files, repository.commit
        taken = run(hub, tmp_path, OPEN + asked)
        for repository in repositories.values():
            repository.allowed = frozenset({TOKEN})
        after = run(hub, tmp_path, OPEN + asked.replace('/t4sa"', '/t4sa@main"') + offline)
    assert [one["where"].rpartition("@")[0] for one in before] == [
        f"hf://datasets/someone/{name}" for name in ("t4sa-wds", "t4sa", "t4sa", "t4sa-wds")
    ]
    assert [one["error"] for one in taken] == ["HubAccessError"] * 3
    assert all("any more" in one["message"] for one in taken)
    # The line `v1` is read as its release that stands; the double gives every revision the same bytes.
    assert [one.get("error") for one in after] == ["UnknownRevision", *["ReleaseWithdrawn"] * 3]
