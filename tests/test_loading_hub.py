"""`load_dataset` against a double of the Hub: real sockets, real clients, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from t4sa_data import release
from t4sa_data.miniature import make_samples
from t4sa_data.releases_file import ReleaseEntry, Releases, Removals, parse_releases
from t4sa_data.testing.releases import record_table

from tests.hub_double import Hub, Repository  # isort: skip

TOKEN, STRANGER = "hf_goodtoken123456", "hf_strangertoken99"

CLIENT = """
import json
import datasets
datasets.disable_progress_bars()
import t4sa_data

def outcome(**asked):
    try:
        loaded = t4sa_data.load_dataset(**asked)
        rows = list(loaded)
        return {"rows": [{k: v for k, v in row.items() if k != "image"} for row in rows],
                "sizes": [list(row["image"].size) for row in rows if "image" in row],
                "types": {field.name: str(field.type) for field in loaded.features.arrow_schema},
                "arrow": {} if asked.get("streaming") else {f.name: str(f.type) for f in loaded.data.schema}}
    except t4sa_data.T4SAError as error:
        return {"error": type(error).__name__, "message": str(error)}
"""


def run_client(hub: Hub, folder: Path, script: str, **environment: str) -> tuple[list[dict], str]:
    """Run `script`, which prints one JSON value a line; the values, and everything it wrote."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "T4SA_", "HUGGING"))}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "USE_TORCH": "0",  # five seconds of import per process, and nothing here needs it
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "T4SA_NAMESPACE": "someone",
        "XDG_DATA_HOME": str(folder / "data"),
        "HOME": str(folder),
    }
    (folder / "empty").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", CLIENT + script],
        env={**clean, **settings, **environment},
        cwd=folder / "empty",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    output = done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], output


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release without texts: the column is null in every row, the first ones included."""
    folder = tmp_path_factory.mktemp("published")
    samples = make_samples(60)
    images = {sample.key: sample.image for sample in samples}
    table = record_table(samples)
    text = table.schema.get_field_index("text")
    table = release.in_release_order(table.set_column(text, "text", pa.nulls(table.num_rows, pa.string())))
    keys = table["key"].to_pylist()
    image_bytes = np.array([len(images[key]) for key in keys], dtype=np.int64)
    tasks = release.plan_shards("b-t4sa", table, image_bytes, 30_000)
    written = [
        release.write_shard(
            folder,
            task,
            table.slice(task.start, task.stop - task.start),
            (images[key] for key in keys[task.start : task.stop]),
            ("parquet",),
        )
        for task in tasks
    ]
    layer = release.Layer(name="b-t4sa", table=table, tasks=tasks, written=written, image_bytes=image_bytes)
    release.seal(folder, "parquet", [layer])
    return folder / "t4sa"


def test_one_split_is_fetched_and_typed(published: Path, tmp_path: Path) -> None:
    repositories = {"someone/t4sa": Repository(published, allowed=frozenset({TOKEN}))}
    with Hub(repositories, tokens=frozenset({TOKEN})) as hub:
        script = f"""
print(json.dumps(outcome(split="test", token={TOKEN!r})))
print(json.dumps(outcome(split="validation", token={TOKEN!r}, streaming=True)))
print(json.dumps(outcome(split="train", token={TOKEN!r}, columns=["key", "confidence", "text"],
                         filters=[("confidence", ">=", 0.95)])))
"""
        (test, validation, train), output = run_client(hub, tmp_path, script)
        log, fetched = list(hub.log), hub.fetched()
    expected = {row["key"]: row for row in _records(published)}
    for loaded, split in ((test, "test"), (validation, "validation")):
        assert [row["key"] for row in loaded["rows"]] == [k for k, row in expected.items() if row["split"] == split]
        assert [row["text"] for row in loaded["rows"]] == [None] * len(loaded["rows"])
        assert loaded["sizes"] == [[expected[r["key"]]["width"], expected[r["key"]]["height"]] for r in loaded["rows"]]
        assert loaded["types"]["text"] == "string"
    assert test["arrow"]["text"] == train["arrow"]["text"] == "string"
    sure = [k for k, row in expected.items() if row["split"] == "train" and row["confidence"] >= 0.95]
    assert 0 < len(sure) < 51
    assert [row["key"] for row in train["rows"]] == sure
    assert TOKEN not in output
    before_train = fetched[: next(i for i, path in enumerate(fetched) if "/train-" in path)]
    assert before_train, "the first two loads fetch something"
    assert {path.rsplit("/", 1)[1].split("-")[0] for path in before_train} == {"test", "validation"}
    tests = [path for path in fetched if "/test-" in path]
    assert len(tests) == len(set(tests)) == len(list(published.glob("b-t4sa/test-*")))
    assert not [r for r in log if r.path.startswith("/_cdn/") and r.authorized], "the token goes to the Hub only"
    assert [r for r in log if r.path.endswith("manifest.json") and r.authorized]


def _records(folder: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "b-t4sa" / "index.parquet").to_pylist()


def test_refusals_have_names(published: Path, tmp_path: Path) -> None:
    repositories = {
        "someone/t4sa": Repository(published, allowed=frozenset({TOKEN})),
        "open/t4sa": Repository(published),
        "bare/t4sa": Repository(tmp_path / "empty"),
    }
    with Hub(repositories, tokens=frozenset({TOKEN, STRANGER})) as hub:
        script = f"""
import os
print(json.dumps(outcome(split="test", token=False)))
print(json.dumps(outcome(split="test", token={STRANGER!r})))
print(json.dumps(outcome(split="test", token="hf_not_a_token_at_all")))
print(json.dumps(outcome(split="test", token=True)))
os.environ["T4SA_NAMESPACE"] = "nobody"
print(json.dumps(outcome(split="test", token={STRANGER!r})))
os.environ["T4SA_NAMESPACE"] = "open"
print(json.dumps(outcome(split="test", revision="v9")))
os.environ["T4SA_REVISION"] = "v8"
print(json.dumps(outcome(split="test")))
del os.environ["T4SA_REVISION"]
print(json.dumps(outcome(name="t4sa-unique", split="test")))
print(json.dumps(outcome(split="dev")))
print(json.dumps(outcome(path="t4sa-wds", split="test")))
os.environ["T4SA_NAMESPACE"] = "bare"
print(json.dumps(outcome(split="test")))
"""
        outcomes, output = run_client(hub, tmp_path, script)
        assert hub.fetched() == []
    named = [outcome.get("error") for outcome in outcomes]
    assert named == [
        *("HubAccessError", "HubAccessError", "HubAccessError", "HubAccessError"),
        *("NotPublished", "UnknownRevision", "UnknownRevision"),
        *("ConfigUnavailable", "UnknownConfig", "ConfigUnavailable", "ReleaseNotFound"),
    ]
    messages = [outcome["message"] for outcome in outcomes]
    assert "hf auth login" in messages[0] and "HTTP 401" in messages[0]
    assert "HTTP 403" in messages[1] and "ask for access" in messages[1].lower()
    assert "does not take your token" in messages[2]
    for way_out in ("t4sa prepare", "T4SA_HOME", "T4SA_NAMESPACE", "nobody/t4sa"):
        assert way_out in messages[4]
    assert "v9" in messages[5] and "v8" in messages[6]
    assert "b-t4sa" in messages[7] and "train | validation | test" in messages[8]
    for secret in (TOKEN, STRANGER, "hf_not_a_token_at_all"):
        assert secret not in output


def test_offline_and_damaged(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "damaged")
    (shard,) = (tmp_path / "damaged" / "b-t4sa").glob("test-*")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    repositories = {"someone/t4sa": Repository(published), "damaged/t4sa": Repository(tmp_path / "damaged")}
    with Hub(repositories) as hub:
        script = """
import collections, os, shutil
real, Usage = shutil.disk_usage, collections.namedtuple("Usage", "total used free")
shutil.disk_usage = lambda path: Usage(10**9, 10**9 - 10, 10)
print(json.dumps(outcome(split="test")))
shutil.disk_usage = real
print(json.dumps(outcome(split="test")))
os.environ["T4SA_NAMESPACE"] = "damaged"
print(json.dumps(outcome(split="test")))
"""
        (short, online, damaged), _ = run_client(hub, tmp_path, script)
        asked = len(hub.log)
        script = """
print(json.dumps(outcome(split="test")))
print(json.dumps(outcome(split="test", streaming=True, columns=["key"])))
print(json.dumps(outcome(split="validation")))
"""
        (again, streamed, other), _ = run_client(hub, tmp_path, script, HF_HUB_OFFLINE="1")
        assert len(hub.log) == asked
        (nothing,), _ = run_client(hub, tmp_path, SHORT, HF_HUB_OFFLINE="1", T4SA_NAMESPACE="nobody")
    assert short["error"] == "DiskSpaceError" and "kB download + " in short["message"]
    assert damaged["error"] == "ChecksumMismatch" and shard.name in damaged["message"]
    assert len(online["rows"]) == 3 and again["rows"] == online["rows"]
    assert [row["key"] for row in streamed["rows"]] == [row["key"] for row in online["rows"]]
    for outcome in (other, nothing):
        assert outcome["error"] == "HubUnreachable", outcome
    assert "T4SA_HOME" in nothing["message"]


SHORT = 'print(json.dumps(outcome(split="test")))'


def _releases_json(published: Path, *, v1: str = "withdrawn") -> bytes:
    """Two releases; both with the content of the one that is there, `v1.0.1` the current one."""
    data = (published / "manifest.json").read_bytes()
    digests = {name: layer["content_digest"] for name, layer in json.loads(data)["layers"].items()}
    first = ReleaseEntry(
        content_digest=dict.fromkeys(digests, "0" * 64),
        date="2026-01-01",
        state=v1,
        successor="v1.0.1",
        reason="an image had to go" if v1 == "withdrawn" else None,
    )
    second = ReleaseEntry(
        content_digest=digests,
        date="2026-02-01",
        state="current",
        manifest_sha256=hashlib.sha256(data).hexdigest(),
    )
    removals = Removals(count=2, hmac=("0" * 64, "1" * 64), updated="2026-02-01")
    return Releases(current="v1.0.1", releases={"v1.0.0": first, "v1.0.1": second}, removals=removals).to_json()


def _beside(published: Path, folder: Path, releases: bytes) -> Path:
    """The same release with a `releases.json`."""
    shutil.copytree(published, folder)
    (folder / "releases.json").write_bytes(releases)
    return folder


def test_a_withdrawn_release_names_its_successor(published: Path, tmp_path: Path) -> None:
    folder = _beside(published, tmp_path / "repository", _releases_json(published))
    tags = ("main", "v1.0.0", "v1.0.1")
    with Hub({"someone/t4sa": Repository(folder, revisions=tags)}) as hub:
        script = """
for revision in ("v1.0.0", None, "v1", "main", "v9", "0" * 40):
    print(json.dumps(outcome(split="test", revision=revision, columns=["key"])))
"""
        (pinned, default, line, main, nothing, gone), _ = run_client(hub, tmp_path, script)
        script = 'print(json.dumps(outcome(split="test", revision="v1.0.0")))\n' + SHORT
        (again, cached), _ = run_client(hub, tmp_path, script, HF_HUB_OFFLINE="1")
    for outcome in (pinned, again):
        assert outcome["error"] == "ReleaseWithdrawn"
        assert 'revision="v1.0.1"' in outcome["message"] and "an image had to go" in outcome["message"]
    assert len(default["rows"]) == 3 and default["rows"] == line["rows"] == main["rows"]
    assert [row["key"] for row in default["rows"]] == [row["key"] for row in cached["rows"]]
    assert nothing["error"] == gone["error"] == "UnknownRevision"
    assert "v1.0.1" in nothing["message"] and "v1.0.0" not in nothing["message"]


def test_access_that_was_taken_back_is_said_though_a_copy_is_cached(published: Path, tmp_path: Path) -> None:
    folder = _beside(published, tmp_path / "repository", _releases_json(published, v1="superseded"))
    repository = Repository(folder, revisions=("main", "v1.0.0", "v1.0.1"), allowed=frozenset({TOKEN}))
    with Hub({"someone/t4sa": repository}, tokens=frozenset({TOKEN, STRANGER})) as hub:
        (before,), _ = run_client(hub, tmp_path, SHORT, HF_TOKEN=TOKEN)
        repository.allowed = frozenset()
        script = f"""
print(json.dumps(outcome(split="test")))
print(json.dumps(outcome(split="test", revision={repository.commit!r})))
print(json.dumps(outcome(split="test", token=False)))
print(json.dumps(outcome(split="test", token="hf_not_a_token_at_all")))
"""
        (after, pinned, anonymous, wrong), output = run_client(hub, tmp_path, script, HF_TOKEN=TOKEN)
    (down,), said = run_client(hub, tmp_path, SHORT, HF_TOKEN=TOKEN)
    assert down["rows"] == before["rows"] and "the Hub cannot be reached" in said
    assert len(before["rows"]) == 3
    for outcome in (after, pinned):
        assert outcome["error"] == "HubAccessError"
        assert "any more" in outcome["message"] and "cache" in outcome["message"]
    assert f"{hub.url}/datasets/someone/t4sa" in after["message"]
    assert "not logged in" in anonymous["message"] and "does not take your token" in wrong["message"]
    assert TOKEN not in output


def test_a_newer_removal_list_is_told_once(published: Path, tmp_path: Path) -> None:
    releases = parse_releases(_releases_json(published, v1="superseded"), "")
    old, new = releases.releases["v1.0.0"], releases.releases["v1.0.1"]
    swapped = replace(
        releases,
        releases={
            "v1.0.0": replace(new, state="superseded", successor="v1.0.1", date="2026-01-01"),
            "v1.0.1": replace(old, state="current", successor=None, date="2026-02-01"),
        },
    )
    folder = _beside(published, tmp_path / "repository", swapped.to_json())
    with Hub({"someone/t4sa": Repository(folder, revisions=("main", "v1.0.0", "v1.0.1"))}) as hub:
        script = f"""
import warnings
def told(**asked):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        outcome(split="test", columns=["key"], **asked)
    print(json.dumps({{"said": [str(w.message) for w in said if "removed" in str(w.message)]}}))
told(revision="v1.0.0")
told(revision="v1.0.0")
told(path={str(published)!r})
told(path={str(published)!r})
"""
        (first, again, local, once), _ = run_client(hub, tmp_path, script)
    assert len(first["said"]) == len(local["said"]) == 1 and not again["said"] and not once["said"]
    assert "2 sample(s)" in first["said"][0] and "t4sa removals DIR" in local["said"][0]


def test_what_the_hub_says_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting and rejected are told apart by the Hub's own words."""
    from types import SimpleNamespace

    from huggingface_hub.errors import GatedRepoError

    from t4sa_data.errors import HubAccessError
    from t4sa_data.loading.hub_errors import explain_hub_errors

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    words = {
        "Your request to access dataset o/n is awaiting a review from the repo authors.": "waits",
        "Your request to access dataset o/n has been rejected by the repo's authors.": "rejected",
        "Access to dataset o/n is restricted and you are not in the authorized list.": "(yet)",
    }
    for said, expected in words.items():
        error = GatedRepoError.__new__(GatedRepoError)
        error.response = SimpleNamespace(status_code=403, headers={"X-Error-Message": said})
        with pytest.raises(HubAccessError, match=r"request|access") as caught, explain_hub_errors("o/n", "v1"):
            raise error
        assert expected in caught.value.what
