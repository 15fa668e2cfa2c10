"""The double of the Hub, asked without a client library: recorded requests, faults on every route, ranges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hub_double import Fault, Repo, WritableHub  # isort: skip
from tests.hub_double.recorded import CAPTURED, ask, captured, normal, replay  # isort: skip
from tests.hub_double.state import Blob  # isort: skip

USERS = {"hf_alice": "alice", "hf_bob": "bob"}
REPO = "alice/t4sa"


@pytest.mark.skipif(not CAPTURED.exists(), reason="the recorded requests are not here")
def test_recorded_requests_are_answered_as_they_were(tmp_path: Path) -> None:
    heads = []
    for name in ("one", "two"):
        with WritableHub(tmp_path / name, users=USERS) as hub:
            for line, status, headers in replay(hub):
                told = f"{line.method} {line.path}: {headers}"
                assert status == line.status, told
                for header, value in line.headers.items():
                    value = normal(value)
                    got = normal(headers.get(header, "")).replace(hub.url, "$HUB").replace(hub.cdn, "$CDN")
                    assert got == value, f"{header} of {told}"
            heads.append(hub.repos[REPO].head)
            assert hub.opened() == [] and hub.leaked() == []
    assert heads[0] == heads[1], "the same requests make the same commits"


@pytest.mark.skipif(not CAPTURED.exists(), reason="the recorded requests are not here")
def test_every_route_fails_when_it_is_told_to(tmp_path: Path) -> None:
    asked = [line for line in captured() if "<" not in line.path]
    with WritableHub(tmp_path, users=USERS) as hub:
        for kind, status in (("503", 503), ("429", 429), ("stale", 401)):
            hub.faults[:] = [Fault(".", kind=kind, times=1000, seconds=3)]
            for line in asked:
                answer, _ = ask(hub.url + line.path, line.method, authorization="Bearer hf_alice")
                assert answer.status == status, line
                assert status != 429 or answer.headers["Retry-After"] == "3"
        assert hub.repos == {} and len(hub.log) == 3 * len(asked), "and nothing is carried out"


def test_ranges_and_signatures_of_the_second_origin(tmp_path: Path) -> None:
    data = bytes(range(256))
    with WritableHub(tmp_path, users=USERS) as hub:
        repo = hub.repos[REPO] = Repo(REPO, private=False)
        oid = repo.store(data, tmp_path / "large")
        repo.add("main", {"a.tar": Blob.large(oid, len(data))}, "a large file")
        found, _ = ask(f"{hub.url}/datasets/{REPO}/resolve/main/a.tar")
        link = found.headers["Location"]
        for asked, status, got, place in (
            ("bytes=10-19", 206, data[10:20], "bytes 10-19/256"),
            ("bytes=250-", 206, data[250:], "bytes 250-255/256"),
            ("bytes=-6", 206, data[250:], "bytes 250-255/256"),
            ("bytes=256-", 416, b"", "bytes */256"),
            ("lines=1-2", 200, data, None),
        ):
            answer, said = ask(link, Range=asked)
            assert (answer.status, said, answer.headers["Content-Range"]) == (status, got, place), asked
        etag = answer.headers["ETag"]
        assert ask(link, Range="bytes=1-1", If_Range=etag)[0].status == 206
        assert ask(link, Range="bytes=1-1", If_Range='"other"')[1] == data, "it has changed: all of it"
        assert ask(link[:-1])[0].status == ask(link.replace("Expires=", "Expires=1"))[0].status == 403
        del repo.objects[oid]
        assert ask(link)[0].status == 404, "an old URL of a file that was deleted for good"


def write(hub: WritableHub, path: str, token: str, value: object, method: str = "POST") -> tuple[int, dict]:
    """One request with JSON both ways."""
    answer, said = ask(hub.url + path, method, value, authorization=f"Bearer {token}")
    return answer.status, json.loads(said)


def test_who_may_write_where(tmp_path: Path) -> None:
    made = {"name": "t4sa", "organization": "museum", "visibility": "private", "type": "dataset"}
    with WritableHub(tmp_path, users=USERS) as hub:
        hub.add_organisation("museum", {"alice"})
        hub.add_user("alice", "hf_reader", "read")
        assert write(hub, "/api/repos/create", "hf_bob", made)[0] == 403
        assert write(hub, "/api/repos/create", "hf_reader", made)[0] == 403, "a token that only reads"
        assert write(hub, "/api/repos/create", "hf_alice", made)[0] == 200
        settings = "/api/datasets/museum/t4sa/settings"
        assert write(hub, settings, "hf_reader", {"gated": "auto"}, "PUT")[0] == 403
        assert write(hub, settings, "hf_alice", {"gated": "sometimes"}, "PUT")[0] == 400
        assert write(hub, settings, "hf_bob", {"gated": False}, "PUT")[0] == 404, "a private one is not seen"
        with pytest.raises(ValueError, match="not gated"):
            hub.ask_access("museum/t4sa", "bob")
        assert write(hub, settings, "hf_alice", {"gated": "auto"}, "PUT")[0] == 200
        assert hub.ask_access("museum/t4sa", "bob", {"purpose": "x"}).status == "accepted", "no one has to look at it"
        hub.revoke_token("hf_alice")
        assert write(hub, settings, "hf_alice", {"gated": False}, "PUT")[0] == 401
        assert hub.repos["museum/t4sa"].gated == "auto" and hub.opened() == []
        hub.reset()
        assert (hub.repos, hub.log, hub.history) == ({}, [], [])
        assert write(hub, "/api/repos/create", "hf_bob", {"name": "t4sa"})[0] == 200 and hub.log[0].number == 1


def test_private_repositories_of_a_namespace_share_a_quota(tmp_path: Path) -> None:
    batch = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": "0" * 64, "size": 400}]}
    with WritableHub(tmp_path, users=USERS) as hub:
        hub.state.private_quota = 1000
        for name in ("alice/a", "alice/b"):
            hub.repos[name] = Repo(name)
        hub.repos["alice/a"].store(b"x" * 700, tmp_path / "large")
        path = "/datasets/alice/b.git/info/lfs/objects/batch"
        status, said = write(hub, path, "hf_alice", batch)
        assert status == 403 and "storage limit" in said["error"]
        hub.repos["alice/a"].private = False
        assert write(hub, path, "hf_alice", batch)[0] == 200


def test_a_large_file_is_taken_out_of_every_commit(tmp_path: Path) -> None:
    repo = Repo(REPO)
    first = repo.head
    kept, gone = (Blob.large(repo.store(data, tmp_path / data.decode()), 1) for data in (b"a", b"b"))
    repo.tags["v1"] = second = repo.add("main", repo.files() | {"a.tar": kept}, "one")
    repo.tags["v2"] = repo.add("main", repo.files() | {"b.tar": gone}, "two")
    repo.rewrite({str(gone.sha256)})
    assert repo.tags["v1"] == second and first in repo.commits, "what has nothing of it stays as it was"
    assert repo.tags["v2"] == repo.head and sorted(repo.files("v2")) == [".gitattributes", "a.tar"]
    assert len(repo.history(repo.head)) == len(repo.commits) == 3


def test_a_double_that_breaks_says_so(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the double itself broke"), WritableHub(tmp_path, users=USERS) as hub:
        assert write(hub, "/api/repos/create", "hf_alice", {})[0] == 500
