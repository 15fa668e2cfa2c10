"""The double of the Hub, asked without a client library: recorded requests, faults on every route, ranges."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hub_double import Fault, Repo, WritableHub  # isort: skip
from tests.hub_double.calls import Kind  # isort: skip
from tests.hub_double.recorded import CAPTURED, ask, captured, normal, replay  # isort: skip
from tests.hub_double.server import CDN_ROUTES, HUB_ROUTES  # isort: skip
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
def test_no_recorded_request_is_left_out() -> None:
    lines = [line for line in CAPTURED.read_text().splitlines() if line and not line.startswith("    ")]
    assert len(captured()) == len(lines) > 20
    assert {(line.method, line.path) for line in captured()} == {tuple(line.split()[:2]) for line in lines}
    assert sum(bool(line.headers) for line in captured()) == CAPTURED.read_text().count("\n    < ")


OID, API, LFS = "0" * 64, f"/api/datasets/{REPO}", f"/datasets/{REPO}.git/info/lfs"
SAMPLES = (
    "GET /api/whoami-v2", "POST /api/repos/create", "DELETE /api/repos/delete", "POST /api/validate-yaml",
    f"PUT {API}/settings", f"POST /datasets/{REPO}/ask-access", f"POST {API}/user-access-request/handle",
    f"POST {API}/user-access-request/grant", f"GET {API}/user-access-request/pending", f"GET {API}/auth-check/write",
    f"POST {API}/preupload/main", f"POST {LFS}/objects/batch", f"POST {LFS}/verify", f"POST {API}/commit/main",
    f"POST {API}/tag/main", f"DELETE {API}/tag/v1", f"POST {API}/branch/dev", f"DELETE {API}/branch/dev",
    f"POST {API}/super-squash/main", f"GET {API}/lfs-files", f"POST {API}/lfs-files/batch",
    f"GET {API}/tree/main/data?recursive=true", f"POST {API}/paths-info/main", f"GET {API}/refs",
    f"GET {API}/commits/main", f"GET {API}/xet-read-token/main", f"GET /api/resolve-cache/datasets/{REPO}/main/a.txt",
    f"HEAD /api/resolve-cache/datasets/{REPO}/main/a.txt", f"GET {API}/revision/main", f"GET {API}",
    "GET /api/datasets", f"GET /datasets/{REPO}/resolve/main/a.tar", f"HEAD /datasets/{REPO}/resolve/main/a.tar",
)  # fmt: skip
CDN_SAMPLES = (f"PUT /_storage/{OID}?sig=x", f"GET /_cdn/{OID}?Signature=x", f"HEAD /_cdn/{OID}?Signature=x")
ANSWERS: dict[Kind, int] = {"500": 500, "502": 502, "503": 503, "504": 504, "429": 429, "412": 412, "409": 409,
                            "expired": 403, "stale": 401}  # fmt: skip


def test_every_route_fails_in_every_way(tmp_path: Path) -> None:
    for routes, samples in ((HUB_ROUTES, SAMPLES), (CDN_ROUTES, CDN_SAMPLES)):
        asked = [(sample.split()[0], urlsplit(sample.split()[1]).path) for sample in samples]
        for methods, pattern, _ in routes:
            served = {method for method, path in asked if re.fullmatch(pattern, path)}
            assert set(methods.split()) <= served, f"no request here for {methods} {pattern}"
    with WritableHub(tmp_path, users=USERS) as hub:
        for origin, samples in ((hub.url, SAMPLES), (hub.cdn, CDN_SAMPLES)):
            for sample in samples:
                every_fault(hub, origin, *sample.split())
        assert hub.repos == {}, "and nothing is carried out"


def every_fault(hub: WritableHub, origin: str, method: str, path: str) -> None:
    def fail(kind: Kind, token: str = "hf_alice") -> tuple[http.client.HTTPResponse, bytes]:
        hub.faults[:] = [Fault(".", kind=kind, seconds=3, after=1)]
        return ask(origin + path, method, {}, authorization=f"Bearer {token}")

    for kind, status in ANSWERS.items():
        answer, said = fail(kind)
        assert answer.status == status, (method, path, kind)
        assert (
            (answer.headers["Retry-After"] == "3")
            == ("r=0;t=3" in answer.headers.get("RateLimit", ""))
            == (kind == "429")
        )
        assert (answer.headers["Content-Type"] == "application/xml") == (kind == "expired")
        assert method == "HEAD" or said
    with pytest.raises(http.client.RemoteDisconnected):
        fail("drop")
    if method != "HEAD":
        with pytest.raises(http.client.IncompleteRead):
            fail("cut", "hf_nobody")  # a refusal that is cut: a cut answer is of a request that was carried out


def test_every_listing_comes_in_pages(tmp_path: Path) -> None:
    with WritableHub(tmp_path, users=USERS) as hub:
        for name in (REPO, "alice/other", "alice/third"):
            repo = hub.repos[name] = Repo(name, private=False, gated="manual")
            for number in range(3):
                oid = repo.store(bytes([number]), tmp_path / f"{number}")
                repo.add("main", repo.files() | {f"data/{number}.tar": Blob.large(oid, 1)}, f"{number}")
                repo.ask(f"reader{number}")
        listings = ("/tree/main/data?expand=false", "/tree/main?recursive=true", "/commits/main", "/lfs-files",
                    "/user-access-request/pending")  # fmt: skip
        for path in ["/api/datasets?author=alice", *(API + listing for listing in listings)]:
            hub.state.page = 1000
            (whole,) = pages(hub.url + path)
            for hub.state.page in (1, 2):
                parts = list(pages(hub.url + path))
                assert [one for part in parts for one in part] == whole and len(whole) >= 3, path
                assert {len(part) for part in parts[:-1]} == {hub.state.page}


def pages(url: str | None) -> Iterator[list[object]]:
    """Of a listing, as its Link headers lead on."""
    while url:
        answer, said = ask(url, authorization="Bearer hf_alice")
        yield json.loads(said)
        link = re.fullmatch(r'<(.+)>; rel="next"', answer.headers.get("Link", ""))
        url = link[1] if link else None


def test_refusals_say_which_they_are(tmp_path: Path) -> None:
    """Over http the client goes by these headers alone."""
    with WritableHub(tmp_path, users=USERS) as hub:
        repo = hub.repos[REPO] = Repo(REPO, private=False, gated="manual")
        hub.repos["alice/closed"] = Repo("alice/closed")
        page, raw = f"{hub.url}/datasets/{REPO}/resolve", f"{hub.url}/datasets/alice/closed/resolve/main/x"
        for url, token, status, code in (
            (f"{page}/main/x", "", 401, "GatedRepo"),
            (f"{page}/main/x", "hf_bob", 403, "GatedRepo"),
            (f"{page}/main/x", "hf_alice", 404, "EntryNotFound"),
            (f"{page}/v9/x", "hf_alice", 404, "RevisionNotFound"),
            (raw, "", 401, "RepoNotFound"),
            (raw, "hf_bob", 404, "RepoNotFound"),
            (raw, "hf_nobody", 401, None),
        ):
            answer, _ = ask(url, "HEAD", **({"authorization": f"Bearer {token}"} if token else {}))
            assert (answer.status, answer.headers["X-Error-Code"]) == (status, code), url
            assert answer.headers["X-Error-Message"] and answer.headers["X-Request-Id"]
            assert (answer.headers["X-Repo-Commit"] == repo.head) == (code == "EntryNotFound")
        for path in ("", "/tree/main", "/refs", "/revision/main"):  # a gated repository's listing is seen by all
            assert ask(hub.url + API + path)[0].status == 200
        for path in ("/auth-check", "/lfs-files", "/user-access-request/pending"):
            assert ask(hub.url + API + path)[0].status == 401


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
