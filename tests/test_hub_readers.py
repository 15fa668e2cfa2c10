"""A reader's way through the gate, with the real clients: each state has a message that says what to do."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from t4sa_data.errors import HubUnreachable, T4SAError
from t4sa_data.loading.hub_errors import explain_hub_errors
from t4sa_data.releases_file import RELEASES_NAME, Removals, parse_releases
from tests.hub_double import Fault, Repo, WritableHub
from tests.hub_double.state import Blob
from tests.publish_helpers import READER, STRANGER, TOKEN, USERS, environment, write_release

CLIENT = """
import json, os, sys, warnings
import datasets
import t4sa_data
from hub_scripts.publish import publish
from t4sa_data import T4SAError
datasets.disable_progress_bars()

def load(token, streaming=False, revision=None, split="test"):
    return len(list(t4sa_data.load_dataset("t4sa", split=split, token=token, streaming=streaming, revision=revision)))

def stream(token, revision=None, name="t4sa-wds", split="test", **asked):
    url = f"hf://datasets/ours/{name}" + (f"@{revision}" if revision else "")
    asked |= {"split": split, "batch_size": 4, "size": 32, "shuffle": False, "tail": "ragged"}
    batches = t4sa_data.stream(url, token=token, **asked)
    return sum(len(batch["key"]) for batch in batches)

for line in sys.stdin:
    asked = json.loads(line)
    what = asked.pop("what")
    try:
        if what == "publish":
            publish(asked["folder"], namespace="ours", version=asked["version"], token=asked["token"])
            said = {}
        else:
            said = {"rows": {"load": load, "stream": stream}[what](**asked)}
    except T4SAError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(said), flush=True)
"""


class Client:
    """A process that reads again and again; what it says holds no token."""

    def __init__(self, hub: WritableHub, folder: Path, **more: str) -> None:
        settings = environment(hub, folder, token=None)
        settings |= {"T4SA_NAMESPACE": "ours", "T4SA_CACHE": str(folder / "cache"), **more}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def ask(self, what: str, **options: object) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"what": what, **options}) + "\n")
        self.process.stdin.flush()
        while not (line := self.process.stdout.readline()).startswith("{"):
            assert line, "the client ended"
        for secret in USERS:
            assert secret not in line
        return dict(json.loads(line))

    def each_way(self, **options: object) -> list[dict[str, Any]]:
        """Each way of reading."""
        made = [self.ask("load", streaming=streaming, **options) for streaming in (False, True)]
        return made + [self.ask("stream", name=name, **options) for name in ("t4sa", "t4sa-wds")]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WritableHub]:
    with WritableHub(tmp_path / "hub", users=USERS) as made:
        yield made


@pytest.mark.slow
def test_every_state_of_access_has_its_message(hub: WritableHub, tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", 45, shard_bytes=40_000)
    with Client(hub, tmp_path) as client:
        assert client.ask("publish", folder=str(release), version="1.0.0", token=TOKEN) == {}
        _live(client, hub)
    with Client(hub, tmp_path, HF_HUB_OFFLINE="1") as client:
        _offline(client, hub)
    with Client(hub, tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "new")) as client:
        said = client.ask("load", token=READER)
        assert said["error"] == "HubUnreachable" and "offline mode is on" in said["message"], said
    assert hub.leaked() == [] and hub.opened() == []


def _live(client: Client, hub: WritableHub) -> None:
    repos = list(hub.repos.values())

    def each(expected: str, kind: str = "HubAccessError", **options: object) -> None:
        for said in client.each_way(**options):
            assert said.get("error") == kind and expected in said["message"], (expected, said)
            assert "\n" not in said["message"]

    page = f"{hub.url}/datasets/ours/t4sa"
    each(f"Ask for access on {page}", token=False)
    each("not logged in", token=False)
    each("`hf auth login`", token=False)
    each(f"Ask for access on {page}", token=STRANGER)
    each("has no access to this repository (yet)", token=STRANGER)
    each("does not take your token", token="hf_nobodystoken1234")
    for repo in repos:
        repo.ask("ada")
    each("waits for the maintainers' answer", token=READER)
    for repo in repos:
        repo.access["ada"].status = "rejected"
    each("was rejected", token=READER)
    for repo in repos:
        repo.access["ada"].status = "accepted"
    before = len(hub.log)
    rows = {one["rows"] for one in client.each_way(token=READER)}
    assert len(rows) == 1 and rows.pop() > 0
    names = {oid: path for repo in repos for path, blob in repo.files().items() if (oid := blob.sha256)}
    sent = [request.path.rsplit("/", 1)[1].split("?")[0] for request in hub.log[before:] if "/_cdn/" in request.path]
    assert {Path(names[oid]).name.split("-")[0] for oid in sent} == {"test", "index.parquet"}  # no other split
    hub.faults.append(Fault("/_cdn/", kind="expired", times=999))
    said = client.ask("load", token=READER, split="validation")
    assert said["error"] == "HubUnreachable" and "has expired" in said["message"], said
    hub.faults.clear()
    each("v1.0.0", "UnknownRevision", token=READER, revision="v7.0.0")
    for _ in range(20):  # a shard is kept where it came whole, not where ranges of it were faster
        client.ask("stream", token=READER, cache_bytes=10**9)
        if "rows" in client.ask("stream", token=READER, offline=True):
            break
    for repo in repos:
        del repo.access["ada"]
    each("any more", token=READER)
    said = client.ask("stream", token=READER, offline=True)
    assert said.get("rows", 0) > 0, said
    for repo in repos:
        repo.ask("ada").status = "accepted"
        withdraw(repo)
    each('revision="v1.0.1"', "ReleaseWithdrawn", token=READER, revision="v1.0.0")
    assert client.ask("stream", token=READER, offline=True)["error"] == "ReleaseWithdrawn"
    assert len({one["rows"] for one in client.each_way(token=READER)}) == 1  # the line goes on with the successor


def _offline(client: Client, hub: WritableHub) -> None:
    """What the cache has is read, but for a release that is known to have been withdrawn; nobody is asked."""
    before = len(hub.log)
    assert client.ask("load", token=READER)["rows"] > 0 < client.ask("load", token=READER, streaming=True)["rows"]
    for streaming in (False, True):
        said = client.ask("load", token=READER, revision="v1.0.0", streaming=streaming)
        assert said["error"] == "ReleaseWithdrawn" and 'revision="v1.0.1"' in said["message"], said
    said = client.ask("load", token=READER, split="train")
    assert said["error"] == "HubUnreachable", said
    assert len(hub.log) == before


def withdraw(repo: Repo) -> None:
    """As a takedown ends: another version is current, the old tag is gone."""
    files = dict(repo.files())
    known = parse_releases(files[RELEASES_NAME].data or b"", repo.id)
    old = known.releases["v1.0.0"]
    data = (files["manifest.json"].data or b"").replace(b'"data_version": "1.0.0"', b'"data_version": "1.0.1"')
    new = replace(old, date="2026-12-01", manifest_sha256=hashlib.sha256(data).hexdigest())
    made = {"v1.0.0": replace(old, state="withdrawn", successor="v1.0.1", reason="asked for"), "v1.0.1": new}
    removed = Removals(count=1, hmac=("0" * 64,), updated="2026-12-01")
    said = replace(known, current="v1.0.1", releases=made, removals=removed)
    files |= {RELEASES_NAME: Blob.small(said.to_json()), "manifest.json": Blob.small(data)}
    repo.tags = {"v1.0.1": repo.add("main", files, "Release v1.0.1")}


STATES: dict[str, tuple[str | bool, str | None, str, tuple[str, ...]]] = {
    "anonymous": (False, None, "HubAccessError", ("not logged in", "Ask for access on PAGE", "`hf auth login`")),
    "never asked": (READER, None, "HubAccessError", ("no access", "(yet)", "Ask for access on PAGE")),
    "waiting": (READER, "pending", "HubAccessError", ("waits for the maintainers' answer", "on PAGE")),
    "rejected": (READER, "rejected", "HubAccessError", ("was rejected", "write to the maintainers")),
    "wrong token": ("hf_nobodystoken1234", None, "HubAccessError", ("does not take your token", "`hf auth login`")),
    "missing tag": (READER, "accepted", "UnknownRevision", ("no such revision", "v9.9.9", "Leave revision= ")),
}


@pytest.mark.parametrize("state", STATES)
def test_a_message_says_what_state_it_is_and_what_to_do(
    hub: WritableHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: str
) -> None:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    token, status, kind, words = STATES[state]
    repo = hub.repos["ours/t4sa"] = Repo("ours/t4sa", private=False, gated="manual")
    if status:
        repo.ask("ada").status = status  # type: ignore[assignment]
    revision = "v9.9.9" if state == "missing tag" else "main"
    url = hf_hub_url("ours/t4sa", ".gitattributes", repo_type="dataset", revision=revision, endpoint=hub.url)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)  # of the page that is named
    with pytest.raises(T4SAError) as raised, explain_hub_errors("ours/t4sa", revision):
        get_hf_file_metadata(url, token=token)
    said = str(raised.value)
    assert type(raised.value).__name__ == kind and "\n" not in said and "hf_" not in said.replace("hf_hub", "")
    for word in words:
        assert word.replace("PAGE", f"{hub.url}/datasets/ours/t4sa") in said, said


def test_a_signature_that_expired_is_no_wrong_token(hub: WritableHub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    repo = hub.repos["ours/t4sa"] = Repo("ours/t4sa", private=False, gated="manual")
    repo.ask("ada").status = "accepted"
    oid = repo.store(b"x" * 100, tmp_path / "large")
    repo.add("main", {"a.tar": Blob.large(oid, 100)}, "a large file")
    hub.faults.append(Fault("/_cdn/", kind="expired", times=999))
    asked = {"repo_type": "dataset", "endpoint": hub.url, "token": READER, "cache_dir": tmp_path / "cache"}
    with pytest.raises(HubUnreachable, match="has expired"), explain_hub_errors("ours/t4sa", "main"):
        hf_hub_download("ours/t4sa", "a.tar", **asked)
