"""A rehearsal: at a plain double all is as expected, another Hub's shapes are printed, and nothing stays behind."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hub_scripts import shapes
from hub_scripts.shapes import Asked, Recorder, differences, known_shapes, path_of, shape_of
from tests.hub_double import Fault, Repo, WritableHub, xet
from tests.hub_double.calls import Answer, Call
from tests.hub_double.shapes import FILE, read_record, record
from tests.hub_double.state import Blob
from tests.publish_helpers import STRANGER, USERS, Commands, commands, environment, run

ASKED = ("rehearse", "--namespace", "ours")
NO_TOKEN = Fault("PUT .*/settings", kind="stale", times=1000)
"""Ends a rehearsal early, in a step that is not the first."""


class OtherHub(WritableHub):
    """A double whose answers can be changed: path's end -> keys more, or a status; what is ignored is not done."""

    changes: dict[str, dict[str, Any] | int] = {}  # noqa: RUF012
    ignored: tuple[str, ...] = ()

    def _route(self, call: Call) -> Answer:
        if call.path.endswith(self.ignored):
            return Answer(200, b"{}", {"Content-Type": "application/json"})
        answer = super()._route(call)
        for end, change in self.changes.items() if answer.status == 200 else ():
            if call.path.endswith(end) and isinstance(change, int):
                return Answer(change, answer.body, answer.headers)
            if call.path.endswith(end) and isinstance(change, dict):
                return Answer(200, json.dumps(json.loads(answer.body) | change).encode(), answer.headers)
        return answer


@dataclass
class Stand:
    """A Hub with the namespace's own repositories, and the command."""

    hub: OtherHub
    t4sa: Commands
    folder: Path
    others: dict[str, Repo] = field(default_factory=dict)

    def back(self) -> None:
        self.hub.reset()
        self.hub.changes, self.hub.ignored = {}, ()
        for name in ("ours/t4sa", "ours/t4sa-wds"):
            repo = self.hub.repos[name] = Repo(name, private=False, gated="manual")
            repo.add("main", {"README.md": Blob.small(b"ours")}, "a release")
        self.others = copy.deepcopy(self.hub.repos)

    def left(self) -> list[str]:
        """Repositories beyond the namespace's own, which are as they were."""
        assert {name: self.hub.repos[name] for name in self.others} == self.others
        return sorted(self.hub.repos.keys() - self.others.keys())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("rehearse")
    with OtherHub(folder / "hub", users=USERS) as hub, commands(hub, folder) as t4sa:
        yield Stand(hub, t4sa, folder)


@pytest.fixture
def stand(shared: Stand) -> Stand:
    shared.back()
    return shared


def steps(said: str) -> dict[str, str]:
    """Step -> outcome, in order."""
    found = [line.split(None, 1) for line in said.splitlines() if line.startswith(("ok  ", "differs ", "failed "))]
    return {words.partition(":")[0]: outcome for outcome, words in found}


def printed(said: str) -> list[dict[str, Any]]:
    """The shapes to add."""
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_the_double_answers_as_its_shapes_say(stand: Stand, tmp_path: Path) -> None:
    out = tmp_path / "shapes.jsonl"
    code, said = stand.t4sa.run(*ASKED, "--record", out)
    assert code == 0 and printed(said) == [], said
    assert list(steps(said)) == [
        "create", "publish", "upload", "gate", "tag", "releases.json", "second version", "requests", "anonymous",
        "verify", "takedown", "old addresses", "verify after it", "delete",
    ]  # fmt: skip
    assert set(steps(said).values()) == {"ok"}
    assert stand.left() == [] and stand.hub.leaked() == []
    seen = [door for moment in stand.hub.history for name, door in moment.repos.items() if "rehearsal" in name]
    assert seen and {door.visibility for door in seen} == {"private"} and {door.gated for door in seen} >= {"manual"}
    got = read_record(out)
    assert got == known_shapes("lfs"), "python -m tests.hub_double.shapes"
    for request in stand.hub.log:  # nothing that was answered was missed
        url = (stand.hub.url if request.origin == "hub" else stand.hub.cdn) + quote(request.path)
        path = path_of(f"{url}?{request.query}", stand.hub.url)
        assert Asked(path=path, method=request.method, status=request.status) in got, request
    text = out.read_text()
    assert not [word for word in ("ours", "rehearsal", "127.0.0.1", "Signature", "hf_", "b-t4sa") if word in text]
    assert not list(stand.folder.rglob("removals.key")), "the maintainers' key is not touched"
    assert not list((stand.folder / "hf").rglob("*rehearsal*")), "nothing stays in the cache"


def test_another_answer_is_printed_and_after_a_fault_all_is_deleted(stand: Stand) -> None:
    stand.hub.changes = {"/refs": {"owner": {"plan": "x"}, "pullRequests": None}, "/repos/create": 201}
    stand.hub.faults[:] = [copy.copy(NO_TOKEN)]
    code, said = stand.t4sa.run(*ASKED)
    assert code == 1 and stand.left() == []
    assert steps(said) == {"create": "differs", "publish": "failed", "delete": "ok"}, said
    assert "failed  publish: the Hub does not take your token" in said
    told = {(one["add"]["path"], one["add"]["status"]): one["differs"] for one in printed(said)}
    assert told.pop(("/api/datasets/*/settings", 401)) == ["status: 401, the double: 200"]
    assert told == {
        ("/api/repos/create", 201): ["status: 201, the double: 200"],
        ("/api/datasets/*/refs", 200): [
            "body.owner: object, the double: absent",
            "body.pullRequests: null, the double: array",
        ],
    }


def test_a_lost_answer_leaves_nothing(stand: Stand) -> None:
    stand.hub.faults[:] = [Fault("POST /api/repos/create", nth=2, kind="drop", done=True)]
    code, said = stand.t4sa.run(*ASKED)
    assert code == 1 and "failed  create: no connection to the Hub, or it was cut" in said
    assert stand.left() == [] and sum("repos/create" in moment.request for moment in stand.hub.history) == 2


def test_what_cannot_be_deleted_is_named(stand: Stand) -> None:
    stand.hub.faults[:] = [copy.copy(NO_TOKEN), Fault("DELETE /api/repos", kind="stale")]
    code, said = stand.t4sa.run(*ASKED)
    (left,) = stand.left()
    assert code == 1 and "failed  delete: the Hub does not take your token" in said
    assert f"left on the Hub: {left}; delete it: hf repos delete {left} --repo-type dataset" in said


def test_what_is_answered_well_and_not_done_is_seen(stand: Stand) -> None:
    stand.hub.ignored = ("/settings", "/repos/delete")
    code, said = stand.t4sa.run(*ASKED)
    assert code == 1 and set(steps(said)) == {"create", "publish", "delete"}, said
    assert "failed  publish: gate is not what it should be: expected manual, got None" in said
    assert "failed  delete: what is there is not what it should be: expected None" in said
    assert len(stand.left()) == said.count("left on the Hub: ") == 2


@pytest.mark.slow
def test_kept_they_are_named(stand: Stand) -> None:
    code, said = stand.t4sa.run(*ASKED, "--keep")
    assert code == 0 and "delete" not in steps(said)
    assert len(stand.left()) == said.count("left on the Hub: ") == 2


@pytest.mark.slow
def test_a_history_that_was_not_squashed_is_seen(stand: Stand) -> None:
    stand.hub.ignored = ("/super-squash/main",)
    code, said = stand.t4sa.run(*ASKED)
    assert code == 1 and steps(said)["takedown"] == "failed" and stand.left() == [], said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_stopped_it_deletes(stand: Stand, tmp_path: Path, number: signal.Signals) -> None:
    stand.hub.faults[:] = [Fault("PUT .*/settings", kind="slow", seconds=3)]
    command = [sys.executable, "-m", "t4sa_data.cli", "hub", *ASKED]
    process = subprocess.Popen(
        command,
        env=environment(stand.hub, tmp_path),
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a runner may ignore it
    )
    end = time.monotonic() + 60
    while not any("settings" in moment.request for moment in stand.hub.history):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    assert len(stand.left()) == 2
    os.kill(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said, said
    assert steps(said) == {"create": "ok", "delete": "ok"}
    assert stand.left() == []
    assert not [secret for secret in USERS if secret in said]


def test_who_may_not_create_is_told_so(stand: Stand) -> None:
    stand.hub.faults[:] = [Fault("POST /api/repos/create", kind="stale")]
    code, said = stand.t4sa.run(*ASKED)
    assert code == 3 and said.startswith("error: the Hub does not take your token") and stand.left() == []


@pytest.mark.slow
@pytest.mark.parametrize("token", [STRANGER, None])
def test_a_stranger_is_told_so(stand: Stand, tmp_path: Path, token: str | None) -> None:
    code, said, error = run(stand.hub, tmp_path, *ASKED, token=token)
    assert (code, said) == (3, "") and error.startswith("error: "), error
    assert stand.left() == []


def test_the_file_of_shapes_is_as_it_is_written() -> None:
    by_mode = {mode: known_shapes(mode) for mode in shapes.MODES}
    assert FILE.read_text() == shapes.to_json(by_mode)
    assert all(len(found) > 30 for found in by_mode.values())


def test_a_shape_has_no_value_in_it() -> None:
    hub = "https://hub.example"
    secret = "https://cdn.example/_x/hf_secrettoken123?Signature=abc"
    assert path_of(secret, hub) == "(store)"
    assert path_of(f"{hub}/datasets/ada/thing/resolve/main/a/b.tar?user=ada", hub) == "/datasets/*/resolve/*?user"
    assert path_of(f"{hub}/unheard/of/api", hub) == "/*/api"
    assert path_of(f"{hub}/api/resolve-cache/datasets/a/b/c/d?%2Fdatasets%2Fa=", hub) == "/api/resolve-cache/*"

    class Heard:
        class request:
            method, url = "GET", f"{hub}/api/datasets/ada/thing"

        status_code = 200
        headers = {"content-type": "application/json; charset=utf-8", "location": secret, "x-user": "ada"}  # noqa: RUF012
        content = json.dumps({"ada@example.org": secret, "cardData": {"ada": "x"}, "n": [1, True, None]}).encode()

        def read(self) -> None: ...

    recorder = Recorder(hub)
    recorder.hear(Heard())
    ((asked, shape),) = recorder.take().items()
    assert shapes.entry(asked, shape) == {
        "method": "GET",
        "path": "/api/datasets/*",
        "status": 200,
        "shape": {
            "body": "object",
            "body.*": "string",
            "body.cardData": "object",
            "body.n": "array",
            "body.n[]": "boolean|null|number",
            "headers": "object",
            "headers.content-type": "application/json",
            "headers.location": "store",
        },
    }
    assert recorder.take() == {} and len(recorder.all) == 1
    Heard.request.url, Heard.read = f"{hub}/api/resolve-cache/datasets/a/b/c/manifest.json", None  # type: ignore[assignment]
    recorder.hear(Heard())
    ((asked, shape),) = recorder.take().items()
    assert asked.path == "/api/resolve-cache/*" and not [place for place in shape if place.startswith("body")]
    Heard.status_code = 503
    recorder.hear(Heard())
    assert recorder.take() == {} and recorder.num_faults == 1


@pytest.mark.parametrize(
    ("seen", "known", "lines"),
    [
        ({"a": 1}, {"a": 2}, []),
        ({"a": None}, {"a": 2}, ["body.a: null, the double: number"]),
        ({"a": 1, "b": {"c": [1]}}, {"a": 2}, ["body.b: object, the double: absent"]),
        ({}, {"a": 2}, ["body.a: absent, the double: number"]),
        ([{}, {"a": 1}], [{"a": 2}, {}], []),
        ([], [{"a": 2}], []),
        ([{}], [{"a": 2}], ["body[].a: absent, the double: number"]),
        ([{"a": 1}], [], ["body[]: object, the double: absent"]),
        ([], {}, ["body: array, the double: object"]),
    ],
)
def test_differences(seen: object, known: object, lines: list[str]) -> None:
    asked = Asked(method="GET", path="/x", status=200)
    assert differences(asked, shape_of(seen), {asked: shape_of(known)}) == lines


@pytest.mark.slow
def test_an_extra_key_alone_is_exit_status_1(stand: Stand) -> None:
    stand.hub.changes = {"/refs": {"owner": "x"}}
    code, said = stand.t4sa.run(*ASKED)
    assert code == 1 and stand.left() == []
    assert "failed" not in steps(said).values() and steps(said)["create"] == "differs"
    assert [one["differs"] for one in printed(said)] == [["body.owner: string, the double: absent"]]
    assert "0 step(s) failed; 1 shape(s) to add to the double" in said


@pytest.mark.slow
def test_opened_it_is_never_without_its_gate(stand: Stand) -> None:
    code, said = stand.t4sa.run(*ASKED, "--open", "--verbose")
    assert code == 0 and printed(said) == [] and stand.left() == [], said
    doors = [door for moment in stand.hub.history for name, door in moment.repos.items() if "rehearsal" in name]
    assert {(door.visibility, door.gated) for door in doors} == {("private", False), ("public", "manual")}
    assert stand.hub.opened() == []


@pytest.mark.slow
@pytest.mark.skipif(not xet.works(), reason="this hf-xet has no local store")
def test_by_xet_too(tmp_path: Path) -> None:
    assert record("xet", tmp_path) == known_shapes("xet")
