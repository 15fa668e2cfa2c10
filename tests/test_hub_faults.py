"""Scripts of random faults over `requests` and `verify`: the end is right or a named error, and nobody is misled."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hub_scripts import access, client
from t4sa_data import errors
from tests.hub_double import Fault, WritableHub
from tests.hub_double.calls import Kind
from tests.publish_helpers import READER, STRANGER, TOKEN, USERS, Commands, commands, environment, write_release

REPOSITORIES = ["ours/t4sa", "ours/t4sa-wds"]
KINDS: tuple[Kind, ...] = ("500", "502", "503", "504", "429", "412", "409", "expired", "stale", "drop", "cut")
ASKING = USERS | {"hf_thirdtoken123456": "carol", "hf_fourthtoken12345": "dora"}


def faults_of(rng: random.Random, num_requests: int) -> list[Fault]:
    """What goes wrong, at random requests of a run of so many."""
    return [
        Fault(
            ".",
            nth=rng.randint(1, num_requests),
            kind=rng.choice(KINDS),
            times=rng.choice((1, 1, 2, 8)),
            done=rng.random() < 0.3,
            after=rng.choice((0, 0, 40)),
        )
        for _ in range(rng.randint(1, 4))
    ]


# Requests.
@dataclass
class Desk:
    """A Hub with two gated repositories that four people asked for, and who answers them."""

    hub: WritableHub
    log: Path
    table: Path
    said: list[str] = field(default_factory=list)

    def open(self, page: int) -> None:
        from huggingface_hub import HfApi

        self.hub.reset()
        self.hub.state.page = page
        self.log.unlink(missing_ok=True)
        api = HfApi(endpoint=self.hub.url, token=TOKEN)
        for repo_id in REPOSITORIES:
            api.create_repo(repo_id, private=True, repo_type="dataset")
            api.update_repo_settings(repo_id, gated="manual", visibility="public", repo_type="dataset")
            for user in ("ada", "bob", "dora"):
                self.hub.ask_access(repo_id, user, {"Purpose": "a thesis"})
        self.hub.log.clear()

    @property
    def ours(self) -> client.Hub:
        return client.Hub(namespace="ours", endpoint=self.hub.url, token=TOKEN)

    def do(self, step: str) -> object:
        action, _, user = step.partition(" ")
        if action == "list":
            found = access.requests(self.ours, REPOSITORIES, access.STATUSES)
            return sorted((one.repo_id, one.user, one.status) for one in found)
        if action == "table":
            self.table.write_text("user,action,reason\nada,accept,\nbob,reject,no\u2028affiliation\ndora,accept,\n")
            return access.decide_all(self.ours, REPOSITORIES, self.table, log=self.log)
        if action == "purge":
            return access.purge(self.log, user=user)
        reason = "no \u00e9tude" if action == "reject" else ""
        decided: Any = action
        return access.decide(self.ours, REPOSITORIES, user, decided, reason=reason, log=self.log)

    def end(self) -> tuple[object, ...]:
        """Who is let in, and what the log says."""
        access_of = {name: {u: (r.status, r.reason) for u, r in repo.access.items()}
                     for name, repo in self.hub.repos.items()}  # fmt: skip
        logged = [(one.repo_id, one.user, one.action, one.reason) for one in access.decisions(self.log)]
        return access_of, logged


STEPS = ("list", "accept ada", "reject bob", "cancel bob", "grant carol", "accept dora", "cancel ada", "table",
         "purge ada", "accept bob")  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, quick_disk: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda _seconds: None)  # between the client's own tries
    with WritableHub(tmp_path / "hub", users=ASKING) as hub:
        yield Desk(hub, tmp_path / "state" / "decisions.jsonl", tmp_path / "table.csv")


def faulty_answers(desk: Desk, seeds: Iterable[int]) -> int:
    """Take the same steps with and without faults; how many errors there were."""
    num_errors = 0
    for seed in seeds:
        rng = random.Random(seed)
        steps, page = rng.choices(STEPS, k=rng.randint(2, 5)), rng.choice((1, 2, 1000))
        desk.open(page)
        wanted, num_requests = [(desk.do(step), desk.end()) for step in steps], len(desk.hub.log)
        desk.open(page)
        desk.hub.faults += faults_of(rng, num_requests)
        for step, (answer, end) in zip(steps, wanted, strict=True):
            num_before = len(access.decisions(desk.log))
            got, failed = until_done(desk, step, rng)
            num_errors += failed
            assert (step.startswith("purge") or failed or got == answer) and desk.end() == end, (seed, step)
            if rng.random() < 0.4 and len(access.decisions(desk.log)) > num_before:  # the last line is this step's
                cut_last_line(desk.log, rng)
                until_done(desk, step, rng)
                assert sorted(map(repr, desk.end()[1])) == sorted(map(repr, end[1])), (seed, step)  # type: ignore[call-overload]
        twice = [line for line in desk.hub.log if line.path.endswith("/handle") and line.status == 404]
        assert twice == [], (seed, steps)  # nobody is accepted twice
        assert desk.hub.leaked() == []
    return num_errors


def until_done(desk: Desk, step: str, rng: random.Random) -> tuple[object, int]:
    """Try a step again and again, as its errors say; its answer, and how often it failed."""
    for failed in range(40):
        try:
            return desk.do(step), failed
        except errors.HubError as error:
            assert TOKEN not in str(error) and "\n" not in str(error)
            access.decisions(desk.log)  # readable at any time
            desk.hub.faults[:] = [] if rng.random() < 0.3 else desk.hub.faults
    raise AssertionError("it does not end")


def cut_last_line(log: Path, rng: random.Random) -> None:
    """A power cut while the last line was written."""
    data = log.read_bytes()
    start = data.rstrip(b"\n").rfind(b"\n") + 1
    log.write_bytes(data[: rng.randint(start + 1, len(data) - 2)])


def test_answers_to_requests_end_right(desk: Desk) -> None:
    assert faulty_answers(desk, range(8)) > 4


@pytest.mark.slow
def test_answers_to_requests_end_right_150_scripts(desk: Desk) -> None:
    assert faulty_answers(desk, range(1000, 1150)) > 75


def command_scripts(t4sa: Commands, desk: Desk, seeds: Iterable[int]) -> None:
    """The commands, each in a process of its own: their exit status says how they ended."""
    log = ("--log", desk.log)
    asked = {
        "accept": ("requests", "accept", "ada", "--namespace", "ours", *log),
        "reject": ("requests", "reject", "bob", "--reason", "no", "--namespace", "ours", *log),
        "list": ("requests", "list", "--namespace", "ours"),
    }
    for seed in seeds:
        rng = random.Random(seed)
        desk.open(rng.choice((1, 1000)))
        name = list(asked)[seed % 3]
        fault = Fault(".", nth=rng.randint(1, 8), kind=rng.choice(KINDS), times=rng.choice((1, 99)))
        desk.hub.faults.append(fault)
        code, said = t4sa.run(*asked[name])
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(lines) == (code != 0) and "Traceback" not in said, said
        assert code == 0 or code == (3 if fault.kind == "stale" else 1), (seed, fault, said)
        desk.hub.faults.clear()
        assert t4sa.run(*asked[name])[0] == 0
        users = [(one.repo_id, one.user) for one in access.decisions(desk.log)]
        wanted = {"accept": "ada", "reject": "bob"}.get(name)
        assert users == ([(repo_id, wanted) for repo_id in REPOSITORIES] if wanted else []), (seed, said)


@pytest.mark.slow
def test_commands_that_answer_requests_end_right(desk: Desk, tmp_path: Path) -> None:
    with commands(desk.hub, tmp_path) as t4sa:
        command_scripts(t4sa, desk, range(30))


# Verify.
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
        report = verify("ours", **asked)
        said = {"ok": report.ok, **asdict(report)}
    print("said " + json.dumps(said), flush=True)
"""
Ask = Callable[..., dict[str, Any]]


@contextmanager
def watcher(hub: WritableHub, folder: Path) -> Iterator[Ask]:
    """A reader's process that verifies again and again; what it says or logs holds no token."""
    errors_file = folder / "stderr.txt"
    settings = environment(hub, folder, token=READER) | {"USE_TORCH": "0", "T4SA_CACHE": str(folder / "cache")}
    with errors_file.open("w") as err:
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
            assert line, errors_file.read_text()[-3000:]
        assert not [secret for secret in USERS if secret in line]
        return dict(json.loads(line.removeprefix("said ")))

    with process:
        try:
            yield ask
        finally:
            assert process.stdin
            process.stdin.close()
    assert not [secret for secret in USERS if secret in errors_file.read_text()]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WritableHub, Ask]]:
    folder = tmp_path_factory.mktemp("watched")
    release = write_release(folder / "release", 30)
    with WritableHub(folder / "hub", users=USERS) as hub, watcher(hub, folder) as ask:
        assert ask(folder=str(release), token=TOKEN) == {}
        for repo in hub.repos.values():
            repo.ask("ada")
            repo.access["ada"].status = "accepted"
        yield hub, ask


def faulty_looks(hub: WritableHub, ask: Ask, seeds: Iterable[int]) -> list[str]:
    """Verify with faults on the way, every second time with something wrong that must be told; how each ended."""
    hub.log.clear()
    assert ask(stranger=STRANGER, seed=1, num_samples=2)["ok"]
    num_requests, ends = len(hub.log), []
    for seed in seeds:
        rng = random.Random(seed)
        hub.state.page = rng.choice((2, 5, 1000))
        hub.faults[:] = faults_of(rng, num_requests)
        repo = hub.repos[rng.choice(REPOSITORIES)]
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


def test_what_verify_cannot_see_is_no_fault_and_no_proof(watched: tuple[WritableHub, Ask]) -> None:
    ends = faulty_looks(*watched, range(7))
    assert {"unseen", "told", "ok"} == set(ends), ends


@pytest.mark.slow
def test_what_verify_cannot_see_is_no_fault_and_no_proof_150_scripts(watched: tuple[WritableHub, Ask]) -> None:
    ends = faulty_looks(*watched, range(2000, 2150))
    assert min(ends.count(end) for end in ("unseen", "told", "ok")) > 10, ends


def test_a_hub_that_is_away(watched: tuple[WritableHub, Ask]) -> None:
    """What was found before the connection broke is told all the same; a token that is not taken is no refusal."""
    hub, ask = watched
    hub.repos["ours/t4sa"].gated = False
    hub.faults[:] = [Fault("/ours/t4sa/resolve/", kind="503", times=999), Fault("t4sa-wds", kind="drop", times=999)]
    said = ask(num_samples=1)
    hub.faults.clear()
    assert len(said["faults"]) == 1 and "OPEN" in said["faults"][0], said
    assert [line.split(":")[0] for line in said["unseen"]] == REPOSITORIES and not said["no_access"]
    hub.repos["ours/t4sa"].gated = "manual"
    said = ask(num_samples=1, stranger="hf_expiredtoken12345")
    assert not said["ok"] and not said["faults"] and said["no_access"], said
    assert all("whether unapproved readers are refused" in line for line in said["unseen"])
    assert all(one["tried"] == ["anonymous"] for one in said["checked"].values())
    hub.log.clear()
    said = ask(num_samples=1)
    assert said["ok"] and all(one["rows"] > 0 for one in said["checked"].values())
