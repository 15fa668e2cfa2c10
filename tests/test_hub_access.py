"""Requests for access: listed, decided on singly and by table, the log of decisions, what is nobody else's business."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hub_scripts import access, client
from hub_scripts.access import Decision
from t4sa_data import errors
from tests.hub_double import WritableHub
from tests.publish_helpers import READER, TOKEN, USERS, Commands

REPOSITORIES = ["ours/t4sa", "ours/t4sa-wds"]
ANSWERS = {"Affiliation": "A university", "Purpose": "=1+1, a thesis"}


@pytest.fixture
def double(tmp_path: Path) -> Iterator[WritableHub]:
    """Two gated repositories, and two who ask."""
    with WritableHub(tmp_path / "hub", users=USERS) as made:
        open_gates(made)
        yield made


def open_gates(made: WritableHub) -> None:
    from huggingface_hub import HfApi

    made.add_user("carol", "hf_thirdtoken123456")
    api = HfApi(endpoint=made.url, token=TOKEN)
    for repo_id in REPOSITORIES:
        api.create_repo(repo_id, private=True, repo_type="dataset")
        api.update_repo_settings(repo_id, gated="manual", visibility="public", repo_type="dataset")
    for user in ("ada", "bob"):
        made.ask_access("ours/t4sa", user, ANSWERS)
    made.ask_access("ours/t4sa-wds", "ada", ANSWERS)
    made.log.clear()


@pytest.fixture
def ours(double: WritableHub) -> client.Hub:
    return client.Hub(namespace="ours", endpoint=double.url, token=TOKEN)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "state" / "decisions.jsonl"


def status(double: WritableHub, user: str) -> list[str | None]:
    return [found.status if (found := double.repos[r].access.get(user)) else None for r in REPOSITORIES]


def test_who_asks(double: WritableHub, ours: client.Hub) -> None:
    asked = access.requests(ours, REPOSITORIES)
    assert sorted((one.repo_id, one.user) for one in asked) == [
        ("ours/t4sa", "ada"),
        ("ours/t4sa", "bob"),
        ("ours/t4sa-wds", "ada"),
    ]
    assert all(one.answers == ANSWERS and one.status == "pending" for one in asked)
    assert "university" not in repr(asked) and "@" not in repr(asked)
    assert access.requests(ours, ["ours/none"]) == []
    assert access.requests(ours, REPOSITORIES, ["accepted", "rejected"]) == []


def test_accepted_wherever_they_asked(double: WritableHub, ours: client.Hub, log: Path) -> None:
    said: list[str] = []
    assert access.decide(ours, REPOSITORIES, "ada", "accept", log=log, say=said.append) == REPOSITORIES
    assert access.decide(ours, REPOSITORIES, "bob", "accept", log=log) == ["ours/t4sa"]
    assert (status(double, "ada"), status(double, "bob")) == (["accepted", "accepted"], ["accepted", None])
    requests = len([line for line in double.log if line.method == "POST"])
    assert access.decide(ours, REPOSITORIES, "ada", "accept", log=log, say=said.append) == REPOSITORIES
    assert len([line for line in double.log if line.method == "POST"]) == requests
    assert said[-1] == "ours/t4sa-wds: accepted already"
    assert [(one.repo_id, one.user, one.action) for one in access.decisions(log)] == [
        ("ours/t4sa", "ada", "accept"),
        ("ours/t4sa-wds", "ada", "accept"),
        ("ours/t4sa", "bob", "accept"),
    ]


def test_a_rejection_has_a_reason_and_can_be_taken_back(double: WritableHub, ours: client.Hub, log: Path) -> None:
    for reason in ("", "  ", "x" * 201):
        with pytest.raises(errors.BadOption, match="reason"):
            access.decide(ours, REPOSITORIES, "bob", "reject", reason=reason, log=log)
    said: list[str] = []
    access.decide(ours, REPOSITORIES, "bob", "reject", reason="no affiliation", log=log, say=said.append)
    assert double.repos["ours/t4sa"].access["bob"].reason == "no affiliation"
    assert "cannot ask again" in said[-1] and "cancel" in said[-1]
    with pytest.raises(ValueError, match="rejected"):
        double.ask_access("ours/t4sa", "bob")
    access.decide(ours, REPOSITORIES, "bob", "cancel", log=log)
    assert status(double, "bob") == ["pending", None]
    access.decide(ours, REPOSITORIES, "bob", "accept", log=log)
    assert status(double, "bob") == ["accepted", None]
    assert [(one.action, one.reason) for one in access.decisions(log)] == [
        ("reject", "no affiliation"),
        ("cancel", ""),
        ("accept", ""),
    ]


def test_a_grant_needs_no_request(double: WritableHub, ours: client.Hub, log: Path) -> None:
    with pytest.raises(errors.UnknownRequest):
        access.decide(ours, REPOSITORIES, "carol", "accept", log=log)
    access.decide(ours, REPOSITORIES, "carol", "grant", log=log)
    access.decide(ours, REPOSITORIES, "bob", "grant", log=log)
    assert status(double, "carol") == status(double, "bob") == ["accepted", "accepted"]
    with pytest.raises(errors.HubError, match="nobody"):
        access.decide(ours, REPOSITORIES, "nobody", "grant", log=log)


def test_killed_between_decision_and_log_a_second_run_writes_it(
    double: WritableHub, ours: client.Hub, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(access, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            access.decide(ours, REPOSITORIES, "bob", "accept", log=log)
    assert status(double, "bob") == ["accepted", None] and access.decisions(log) == []
    access.decide(ours, REPOSITORIES, "bob", "accept", log=log)
    assert [one.user for one in access.decisions(log)] == ["bob"]


def test_a_table_goes_out_and_comes_back(double: WritableHub, ours: client.Hub, log: Path, tmp_path: Path) -> None:
    table = tmp_path / "asked.csv"
    table.write_text(access.to_csv(access.requests(ours, REPOSITORIES)))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["user"] for row in rows} == {"ada", "bob"} and rows[0]["Affiliation"] == "A university"
    assert rows[0]["Purpose"].startswith("'=")  # no formula
    for row in rows:
        row["action"], row["reason"] = ("accept", "") if row["user"] == "ada" else ("reject", "no affiliation")
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert access.decide_all(ours, REPOSITORIES, table, log=log) == 3
    assert (status(double, "ada"), status(double, "bob")) == (["accepted", "accepted"], ["rejected", None])
    before = log.read_bytes()
    access.decide_all(ours, REPOSITORIES, table, log=log)
    assert log.read_bytes() == before


def test_a_table_is_checked_before_the_first_decision(double: WritableHub, ours: client.Hub, tmp_path: Path) -> None:
    table = tmp_path / "asked.csv"
    for lines in ("ada,accept,\nbob,reject,\n", "ada,accept,\nbob,delete,\n", "ada,accept,\n,accept,\n"):
        table.write_text(f"user,action,reason\n{lines}")
        with pytest.raises(errors.BadOption, match="line 3"):
            access.decide_all(ours, REPOSITORIES, table)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(errors.BadOption, match="cannot be read"):
        access.decide_all(ours, REPOSITORIES, table)
    assert status(double, "ada") == ["pending", "pending"]
    table.write_text("user,action,reason\nada,,\nnobody,accept,\nbob,accept,\n")
    with pytest.raises(errors.UnknownRequest, match="1 user"):
        access.decide_all(ours, REPOSITORIES, table, log=tmp_path / "log")
    assert (status(double, "ada"), status(double, "bob")) == (["pending", "pending"], ["accepted", None])


def test_the_log_is_its_owners_and_says_no_more_than_it_must(ours: client.Hub, log: Path) -> None:
    log.parent.mkdir()
    log.touch(mode=0o644)
    access.decide(ours, REPOSITORIES, "ada", "accept", log=log)
    assert log.stat().st_mode & 0o777 == 0o600
    for line in log.read_text().splitlines():
        assert set(json.loads(line)) == {"time", "repo_id", "user", "action", "reason"}
    assert "@" not in log.read_text() and "university" not in log.read_text()
    for line in ("nonsense\n{}\n", '{"time": "yesterday", "repo_id": "r", "user": "u", "action": "accept"}\n'):
        log.write_text(line)
        with pytest.raises(errors.BadOption, match="line 1"):
            access.decisions(log)


def test_the_log_outlives_power_cuts_and_odd_words(log: Path) -> None:
    made = [
        Decision(time="2026-01-01T00:00:00+00:00", repo_id="ours/t4sa", user=str(n), action="reject", reason=reason)
        for n, reason in enumerate(("no\u2028affiliation", "no \u00e9tude\x85", "a\nb"))
    ]
    for count, one in enumerate(made, start=1):
        access.append(one, log)
        assert access.decisions(log) == made[:count]
        with log.open("ab") as file:
            file.write('{"time": "20, \u00e9'.encode()[:-1])  # a power cut, in the midst of a letter
        assert access.decisions(log) == made[:count]
    assert access.purge(log, user="1", days=10**5) == 1 and access.decisions(log) == [made[0], made[2]]
    log.write_bytes(log.read_bytes().rstrip())  # an editor that leaves out the last end of a line
    access.append(made[1], log)
    assert access.decisions(log) == [made[0], made[2], made[1]]


def test_a_user_has_one_name_in_the_log(double: WritableHub, ours: client.Hub, log: Path) -> None:
    by_id = double.repos["ours/t4sa"].access["bob"].request_id
    access.decide(ours, REPOSITORIES, by_id, "accept", log=log)
    access.decide(ours, REPOSITORIES, "bob", "accept", log=log)
    assert [one.user for one in access.decisions(log)] == ["bob"]


def test_what_is_kept_ends(log: Path) -> None:
    now = datetime.now(UTC)
    for days, user in ((800, "old"), (10, "ada"), (1, "bob")):
        time = (now - timedelta(days=days)).isoformat(timespec="seconds")
        access.append(Decision(time=time, repo_id="ours/t4sa", user=user, action="accept"), log)
    assert access.overdue(log) == 1
    assert access.purge(log) == 1
    assert access.purge(log) == 0
    assert access.purge(log, user="ada") == 1
    assert [one.user for one in access.decisions(log)] == ["bob"]
    assert log.stat().st_mode & 0o777 == 0o600
    assert access.purge(log, days=0) == 1 and log.read_text() == ""


def test_who_may_not_is_told_so(double: WritableHub) -> None:
    reader = client.Hub(namespace="ours", endpoint=double.url, token=READER)
    with pytest.raises(errors.HubAccessError):
        access.requests(reader, REPOSITORIES)


def test_the_commands(t4sa_hub: Commands, tmp_path: Path) -> None:
    t4sa = t4sa_hub
    open_gates(t4sa.hub)
    where = ("--namespace", "ours")
    code, said = t4sa.run("requests", "list", *where)
    assert code == 0 and said.count("\n") == 4 and "Affiliation: A university" in said
    code, said = t4sa.run("requests", "list", *where, "--json")
    assert json.loads(said.splitlines()[0])["answers"] == ANSWERS
    table = tmp_path / "asked.csv"
    code, said = t4sa.run("requests", "list", *where, "--csv", table)
    assert code == 0 and table.stat().st_mode & 0o777 == 0o600 and "university" not in said
    assert t4sa.run("requests", "reject", "bob", *where)[0] == 2
    code, said = t4sa.run("requests", "reject", "bob", *where, "--reason", "no affiliation")
    assert code == 0 and "cannot ask again" in said
    assert t4sa.run("requests", "cancel", "bob", *where)[0] == 0
    assert t4sa.run("requests", "grant", "carol", *where)[0] == 0
    table.write_text("user,action,reason\nada,accept,\n")
    assert t4sa.run("requests", "decide", table, *where)[0] == 0
    code, said = t4sa.run("requests", "accept", "nobody", *where)
    assert code == 2 and said.startswith("error: no request of this user: got nobody") and said.count("\n") == 1
    log = next((tmp_path / "state").rglob("*.jsonl"))
    assert len(log.read_text().splitlines()) == 6 and log.stat().st_mode & 0o777 == 0o600
    assert t4sa.run("requests", "purge", "--user", "ada") == (0, "2 decision(s) removed\n")
    code, said = t4sa.run("requests", "list", *where, token="")
    assert code == 3 and said.startswith("error: ") and said.count("\n") == 1
