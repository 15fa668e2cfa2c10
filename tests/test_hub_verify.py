"""`t4sa hub verify`: a clean pair of repositories has no fault; each way of breaking one has a line that names it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from t4sa_data.manifest import MANIFEST_NAME
from t4sa_data.releases_file import RELEASES_NAME, parse_releases
from tests.hub_double import Fault, Repo, WritableHub
from tests.hub_double.state import Blob
from tests.publish_helpers import READER, STRANGER, TOKEN, USERS, environment, faults_of, write_release

CLIENT = """
import json, sys, time
from dataclasses import asdict, replace
import datasets
from hub_scripts.publish import publish
from hub_scripts.verify import verify
from t4sa_data.reading import transport
datasets.disable_progress_bars()
time.sleep = lambda _seconds: None
transport.READING = replace(transport.READING, backoff_seconds=0.001, max_backoff_seconds=0.01)
for line in sys.stdin:
    asked = json.loads(line)
    if "folder" in asked:
        publish(asked["folder"], namespace="ours", version="1.0.0", token=asked["token"])
        said = {}
    else:
        report = verify("ours", **{"seed": 7, **asked})
        said = {"ok": report.ok, **asdict(report)}
    print("said " + json.dumps(said), flush=True)
"""
Ask = Callable[..., dict[str, Any]]


@contextmanager
def client(hub: WritableHub, folder: Path) -> Iterator[Ask]:
    """A reader's process that verifies again and again; what it says or logs holds no token."""
    log = folder / "stderr.txt"
    settings = environment(hub, folder, token=READER) | {"USE_TORCH": "0", "T4SA_CACHE": str(folder / "cache")}
    with log.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            cwd=folder,
        )

    def ask(**options: object) -> dict[str, Any]:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(options) + "\n")
        process.stdin.flush()
        while not (line := process.stdout.readline()).startswith("said "):
            assert line, log.read_text()[-3000:]
        assert not [secret for secret in USERS if secret in line]
        return dict(json.loads(line.removeprefix("said ")))

    with process:
        try:
            yield ask
        finally:
            assert process.stdin
            process.stdin.close()
    assert not [secret for secret in USERS if secret in log.read_text()]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WritableHub, Ask, Path]]:
    folder = tmp_path_factory.mktemp("verify")
    release = write_release(folder / "release", 45, shard_bytes=40_000)
    with WritableHub(folder / "hub", users=USERS) as hub, client(hub, folder) as ask:
        assert ask(folder=str(release), token=TOKEN) == {}
        for repo in hub.repos.values():
            repo.ask("ada")
            repo.access["ada"].status = "accepted"
        yield hub, ask, folder


@contextmanager
def kept(repo: Repo) -> Iterator[None]:
    """Whatever was done to a repository is undone."""
    before = dict(repo.branches), dict(repo.tags), repo.private, repo.gated, repo.doi
    try:
        yield
    finally:
        repo.branches, repo.tags, repo.private, repo.gated, repo.doi = before


def test_nothing_is_wrong_and_nothing_is_written(published: tuple[WritableHub, Ask, Path]) -> None:
    hub, ask, _ = published
    before = len(hub.log)
    said = ask(stranger=STRANGER)
    assert said["ok"] and not said["warnings"], said
    for repo_id in ("ours/t4sa", "ours/t4sa-wds"):
        checked = said["checked"][repo_id]
        assert checked["revision"] == "v1.0.0" and checked["rows"] >= 9
        assert checked["tried"] == ["anonymous", "unapproved"] and checked["gated"] == "manual"
    changed = [line for line in hub.log[before:] if line.method not in ("GET", "HEAD")]
    assert {line.path.rsplit("/", 2)[-2] for line in changed} <= {"paths-info", "api"}, changed
    assert hub.leaked() == []


def change(repo: Repo, path: str, data: bytes | None, *, tagged: bool = True) -> None:
    """Another file in main, and under the tag."""
    tree = dict(repo.files("main"))
    if data is None:
        del tree[path]
    else:
        tree[path] = Blob.small(data)
    oid = repo.add("main", tree, "tampered")
    if tagged:
        repo.tags["v1.0.0"] = oid


def flip(repo: Repo, sha256: str) -> None:
    """Another byte in a large file, under the old name."""
    path = repo.objects[sha256].path
    assert path is not None
    data = bytearray(path.read_bytes())
    for position in range(0, len(data), 40):
        data[position] ^= 0xFF
    path.write_bytes(data)


def _releases(repo: Repo, **fields: Any) -> bytes:
    known = parse_releases(repo.files("main")[RELEASES_NAME].data or b"", "")
    entry = replace(known.releases["v1.0.0"], **fields)
    return replace(known, releases={"v1.0.0": entry}).to_json()


def _readme(repo: Repo, old: str, new: str) -> bytes:
    data = (repo.files("main")["README.md"].data or b"").decode()
    assert old in data
    return data.replace(old, new, 1).encode()


BROKEN: dict[str, tuple[Callable[[Repo], object], str]] = {
    "gate gone": (lambda repo: setattr(repo, "gated", False), "OPEN: public without a gate"),
    "read by anybody": (lambda repo: setattr(repo, "gated", False), "anonymous readers get manifest.json"),
    "private": (lambda repo: setattr(repo, "private", True), "there is no such repository"),
    "no releases.json": (lambda repo: change(repo, RELEASES_NAME, None), "main has no releases.json"),
    "releases.json damaged": (lambda repo: change(repo, RELEASES_NAME, b"{"), "releases.json is no JSON"),
    "another manifest": (lambda repo: change(repo, RELEASES_NAME, _releases(repo, manifest_sha256="0")), "did the tag"),
    "other content": (lambda repo: change(repo, RELEASES_NAME, _releases(repo, content_digest={})), "content digests"),
    "tag gone": (lambda repo: repo.tags.clear(), "v1.0.0 is current, and there is no such tag"),
    "tag beside": (lambda repo: repo.tags.update({"v3.0.0": repo.head}), "does not know the tag v3.0.0"),
    "shard gone": (lambda repo: change(repo, _shard(repo), None), ": missing"),
    "file beside": (lambda repo: change(repo, "notes.txt", b"x"), "notes.txt: the manifest does not name it"),
    "shard replaced": (lambda repo: change(repo, _shard(repo), b"x"), "1 bytes, the manifest says"),
    "card edited": (lambda repo: change(repo, "README.md", _readme(repo, "T4SA", "t4sa")), "README.md: sha256 is"),
    "card's configs": (lambda repo: change(repo, "README.md", _readme(repo, "test-*", "text-*")), "configs of b-t4sa"),
    "main moved on": (lambda repo: change(repo, "croissant.json", b"{}", tagged=False), "main is not the current"),
    "no manifest": (lambda repo: change(repo, MANIFEST_NAME, None), "v1.0.0 has no manifest.json"),
}  # fmt: skip


def _shard(repo: Repo) -> str:
    return next(path for path in repo.files("main") if "/train-" in path and not path.endswith(".idx"))


@pytest.mark.parametrize(
    ("fmt", "every"),
    [("t4sa", 7), pytest.param("t4sa", 1, marks=pytest.mark.slow), pytest.param("t4sa-wds", 1, marks=pytest.mark.slow)],
)
def test_each_fault_has_a_line(published: tuple[WritableHub, Ask, Path], fmt: str, every: int) -> None:
    hub, ask, _ = published
    repo = hub.repos[f"ours/{fmt}"]
    for name, (break_it, expected) in list(BROKEN.items())[::every]:
        with kept(repo):
            break_it(repo)
            said = ask(num_samples=1)
        assert not said.get("ok", True), name
        lines = [line for line in said["faults"] if line.startswith(f"ours/{fmt}: ")]
        assert any(expected in line for line in lines), (name, said["faults"])
        assert all("\n" not in line for line in said["faults"])
    with kept(repo):
        repo.doi = "10.57967/hf/1"
        assert any("DOI" in line for line in ask(num_samples=1)["warnings"])


def test_bytes_that_changed_behind_their_name(published: tuple[WritableHub, Ask, Path]) -> None:
    """The Hub's own sha256 is what it was told; only reading shows what it gives."""
    hub, ask, _ = published
    repo = hub.repos["ours/t4sa-wds"]
    shards = [b.sha256 for p, b in repo.files().items() if p.endswith(".tar") and b.sha256]
    before = {sha256: repo.objects[sha256].path.read_bytes() for sha256 in shards}  # type: ignore[union-attr]
    try:
        for sha256 in shards:
            flip(repo, sha256)
        said = ask()
    finally:
        for sha256, data in before.items():
            repo.objects[sha256].path.write_bytes(data)  # type: ignore[union-attr]
    assert any("are not the table's image" in line or "by range" in line for line in said["faults"]), said


@pytest.mark.slow
def test_the_command(published: tuple[WritableHub, Ask, Path]) -> None:
    hub, _, folder = published

    def command(*arguments: str, token: str) -> tuple[int, str, str]:
        script = "import typer; from hub_scripts.verify_cli import verify_command; typer.run(verify_command)"
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments, "--namespace", "ours"],
            env=environment(hub, folder, token=token),
            capture_output=True,
            text=True,
            timeout=120,
            cwd=folder,
        )
        return done.returncode, done.stdout, done.stderr

    code, out, err = command(token=STRANGER)
    assert (code, out) == (3, "") and err.count("error:") == 2, err  # of each repository
    code, out, err = command("v9.9.9", "--json", token=READER)
    assert code == 1 and "there is no revision v9.9.9" in json.loads(out)["faults"][0]


@pytest.mark.slow
def test_deep(published: tuple[WritableHub, Ask, Path]) -> None:
    _, ask, _ = published
    said = ask(deep=True)
    assert said["ok"] and said["checked"]["ours/t4sa"]["deep"], said


def faulty_looks(hub: WritableHub, ask: Ask, seeds: Iterable[int]) -> list[str]:
    """Verify with faults on the way, every second time with something wrong that must be told; how each ended."""
    hub.log.clear()
    assert ask(stranger=STRANGER, seed=1, num_samples=2)["ok"]
    num_requests, ends = len(hub.log), []
    for seed in seeds:
        rng = random.Random(seed)
        hub.state.page = rng.choice((2, 5, 1000))
        hub.faults[:] = faults_of(rng, num_requests)
        repo = hub.repos[rng.choice(list(hub.repos))]
        if seed % 2:
            repo.tags["v3.0.0"] = repo.head
        said = ask(stranger=STRANGER, seed=seed, num_samples=2)
        kinds = [(fault.kind, fault.nth, fault.times) for fault in hub.faults]
        hub.faults.clear()
        repo.tags.pop("v3.0.0", None)
        told = [line for line in said["faults"] if "does not know the tag v3.0.0" in line]
        assert said["faults"] == told, (seed, kinds, said)  # no fault that is not there
        assert said["ok"] == (not said["faults"] and not said["unseen"])
        if not said["unseen"]:
            assert bool(told) == bool(seed % 2), (seed, kinds, said)
            for checked in said["checked"].values():
                assert checked["tried"] == ["anonymous", "unapproved"] and checked["rows"] >= 3, (seed, kinds, said)
        assert said["no_access"] <= any(kind == "stale" for kind, _, _ in kinds), (seed, kinds, said)
        assert all("\n" not in line for line in said["unseen"])
        assert hub.leaked() == []
        ends.append("unseen" if said["unseen"] else "told" if told else "ok")
    hub.state.page = 1000
    return ends


def test_what_verify_cannot_see_is_no_fault_and_no_proof(published: tuple[WritableHub, Ask, Path]) -> None:
    ends = faulty_looks(*published[:2], range(7))
    assert {"unseen", "told", "ok"} == set(ends), ends


@pytest.mark.slow
def test_what_verify_cannot_see_is_no_fault_and_no_proof_150_scripts(published: tuple[WritableHub, Ask, Path]) -> None:
    ends = faulty_looks(*published[:2], range(2000, 2150))
    assert min(ends.count(end) for end in ("unseen", "told", "ok")) > 10, ends


def test_a_hub_that_is_away(published: tuple[WritableHub, Ask, Path]) -> None:
    """What was found before the connection broke is told all the same; a token that is not taken is no refusal."""
    hub, ask, _ = published
    hub.repos["ours/t4sa"].gated = False
    hub.faults[:] = [Fault("/ours/t4sa/resolve/", kind="503", times=999), Fault("t4sa-wds", kind="drop", times=999)]
    said = ask(num_samples=1)
    hub.faults.clear()
    assert len(said["faults"]) == 1 and "OPEN" in said["faults"][0], said
    assert [line.split(":")[0] for line in said["unseen"]] == list(hub.repos) and not said["no_access"]
    hub.repos["ours/t4sa"].gated = "manual"
    said = ask(num_samples=1, stranger="hf_expiredtoken12345")
    assert not said["ok"] and not said["faults"] and said["no_access"], said
    assert all("whether unapproved readers are refused" in line for line in said["unseen"])
    assert all(one["tried"] == ["anonymous"] for one in said["checked"].values())
    hub.log.clear()
    said = ask(num_samples=1)
    assert said["ok"] and all(one["rows"] > 0 for one in said["checked"].values())
