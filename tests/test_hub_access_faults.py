"""Scripts of random faults over `requests`: the end is right or a named error; what was decided is logged once."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hub_scripts import access, client
from t4sa_data import errors
from tests.hub_double import Fault, WritableHub
from tests.publish_helpers import FAULTS, TOKEN, USERS, Commands, commands, faults_of

REPOSITORIES = ["ours/t4sa", "ours/t4sa-wds"]
ASKING = USERS | {"hf_thirdtoken123456": "carol", "hf_fourthtoken12345": "dora"}


@dataclass
class Desk:
    """A Hub with two gated repositories that four people asked for, and who answers them."""

    hub: WritableHub
    log: Path
    table: Path

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
        fault = Fault(".", nth=rng.randint(1, 8), kind=rng.choice(FAULTS), times=rng.choice((1, 99)))
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
