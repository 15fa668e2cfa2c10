"""The double of the Hub against its real client."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hub_double import Fault, WritableHub, clients, xet  # isort: skip
from tests.hub_double.recorded import CAPTURED, captured, normal  # isort: skip

USERS = {"hf_alice": "alice", "hf_bob": "bob", "hf_carol": "carol"}
REPO, README = "alice/t4sa", "---\nlicense: other\n---\n# T4SA\n"

LIFE = """
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.utils import get_session
folder, carol = sys.argv[1], HfApi(token="hf_carol")
api, repo = HfApi(), {"repo_id": "alice/t4sa", "repo_type": "dataset"}

def readers():
    tokens = {"anonymous": False, "unapproved": "hf_bob", "asked": "hf_carol", "owner": None, "wrong": "hf_nobody"}
    return {name: outcome(HfApi().auth_check, **repo, token=token) for name, token in tokens.items()}

def download(name="data/train-00000.tar", **named):
    got = outcome(carol.hf_hub_download, **repo, filename=name, force_download=True, **named)
    return got if isinstance(got, dict) else open(got, "rb").read().hex()

tell(me=api.whoami()["name"], token_role=api.whoami()["auth"]["accessToken"]["role"])
api.create_repo(**repo, private=True)
tell(again=outcome(api.create_repo, **repo, private=True), private=readers())
first = api.upload_folder(**repo, folder_path=folder, commit_message="first")
second = api.upload_folder(**repo, folder_path=folder, commit_message="second")
tell(first=first.oid, second=second.oid, files=api.list_repo_files(**repo))
api.verify_repo_checksums(**repo, local_dir=folder)
api.update_repo_settings(**repo, gated="manual", visibility="public")
ask = api.endpoint + "/datasets/alice/t4sa/ask-access"
tell(ask=get_session().post(ask, headers={"authorization": "Bearer hf_carol"}, data={"purpose": "x"}).json())
tell(gated=readers())
def requests(status):
    found = getattr(api, f"list_{status}_access_requests")("alice/t4sa", repo_type="dataset")
    return [[request.username, request.fields] for request in found]
tell(pending=requests("pending"))
api.accept_access_request("alice/t4sa", "carol", repo_type="dataset")
twice = outcome(api.accept_access_request, "alice/t4sa", "carol", repo_type="dataset")
tell(accepted=requests("accepted"), twice=twice)
tell(open=readers(), read=download(), readme=download("README.md"))
api.reject_access_request("alice/t4sa", "carol", repo_type="dataset", rejection_reason="why")
tell(rejected=requests("rejected"), refused=readers()["asked"])
api.cancel_access_request("alice/t4sa", "carol", repo_type="dataset")
tell(cancelled=requests("pending"))
api.grant_access("alice/t4sa", "bob", repo_type="dataset")
api.accept_access_request("alice/t4sa", "carol", repo_type="dataset")
api.create_tag(**repo, tag="v1.0.0")
tell(moved=outcome(api.create_tag, **repo, tag="v1.0.0", revision="main"))
api.create_branch(**repo, branch="dev", revision="v1.0.0")
edit = [CommitOperationCopy("data/train-00000.tar", "data/copy.tar"), CommitOperationDelete("data/val-00000.tar")]
api.create_commit(**repo, operations=edit, commit_message="edit", revision="dev")
late = [CommitOperationAdd("x.txt", b"x")]
tell(late=outcome(api.create_commit, **repo, operations=late, commit_message="late", parent_commit="0" * 40))
tell(branch=api.list_repo_files(**repo, revision="dev"), on_main=api.list_repo_files(**repo))
refs = api.list_repo_refs(**repo)
tell(tags=[tag.name for tag in refs.tags], branches=[branch.name for branch in refs.branches])
tell(titles=[commit.title for commit in api.list_repo_commits(**repo)])
tell(paths=[found.path for found in api.get_paths_info(**repo, paths=["README.md", "data"])])
tell(sha=api.repo_info(**repo).sha, seen=[found.id for found in api.list_datasets(author="alice")])
old = api.repo_info(**repo).sha
api.delete_tag(**repo, tag="v1.0.0")
api.delete_branch(**repo, branch="dev")
api.super_squash_history(**repo)
tell(squashed=[commit.title for commit in api.list_repo_commits(**repo)])
tell(old=outcome(api.list_repo_files, **repo, revision=old))
large = [found for found in api.list_lfs_files(**repo) if "val" not in found.filename]
tell(large=[[found.filename, found.size] for found in large])
api.permanently_delete_lfs_files(**repo, lfs_files=large)
tell(gone=download(), gone_at_old=download(revision=old), kept=download("data/val-00000.tar"))
tell(left=api.list_repo_files(**repo))
api.delete_repo(**repo)
tell(deleted=outcome(api.repo_info, **repo))
"""


def write_folder(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(README)
    for name in ("train", "val"):
        (folder / "data" / f"{name}-00000.tar").write_bytes(hashlib.shake_256(name.encode()).digest(150_000))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "release")


@pytest.mark.parametrize("by_xet", [False, True])
def test_the_life_of_a_repository(tmp_path: Path, folder: Path, by_xet: bool) -> None:
    if by_xet and not xet.works():
        pytest.skip("hf_xet does not write to a folder here")
    with WritableHub(tmp_path / "hub", users=USERS, xet=by_xet) as hub:
        home = clients.environment(hub.url, tmp_path, token="hf_alice", xet=by_xet)
        said = clients.run(LIFE, str(folder), env=home)
        log, sent = list(hub.log), hub.uploaded
    files, train = (
        [".gitattributes", "README.md", "data/train-00000.tar", "data/val-00000.tar"],
        folder / "data" / "train-00000.tar",
    )
    check_upload(said, files)
    check_gate(said, train)
    check_refs(said, files)
    check_removal(said, folder)
    assert 300_000 <= sent < 310_000, "each byte once"
    assert len([r for r in log if r.path.endswith("/commit/main") and r.status == 200]) == 1
    assert hub.opened() == [] and hub.leaked() == []
    assert [m.number for m in hub.history] == sorted(r.number for r in log)
    assert any("xet-write-token" in r.path for r in log) == by_xet
    if CAPTURED.exists() and not by_xet:
        seen = {(r.method, r.path) for r in log}
        paths = {(c.method, normal(urlsplit(c.path).path)) for c in captured()}
        assert paths <= {(method, normal(path)) for method, path in seen}, "the client still asks for all of this"


def check_upload(said: dict, files: list[str]) -> None:
    assert said["me"] == "alice" and said["token_role"] == "write"
    assert said["again"]["status"] == 409
    private = said["private"]
    assert [private[name] and private[name]["status"] for name in ("anonymous", "unapproved", "owner")] == [
        401,
        404,
        None,
    ]
    assert private["unapproved"]["error"] == "RepositoryNotFoundError"
    assert said["first"] == said["second"], "nothing has changed: no commit"
    assert said["files"] == files


def check_gate(said: dict, train: Path) -> None:
    for when, asked in (("gated", 403), ("open", None)):
        statuses = {name: failure and failure["status"] for name, failure in said[when].items()}
        assert statuses == {"anonymous": 401, "unapproved": 403, "asked": asked, "owner": None, "wrong": 401}
        assert {said[when][name]["error"] for name in ("anonymous", "unapproved")} == {"GatedRepoError"}
    assert "awaiting a review" in said["gated"]["asked"]["message"]
    assert said["ask"] == {"status": "pending"} and said["pending"] == [["carol", {"purpose": "x"}]]
    assert [user for user, _ in said["accepted"]] == ["carol"] and said["twice"]["status"] == 404
    assert said["read"] == train.read_bytes().hex() and said["readme"] == README.encode().hex()
    assert said["refused"]["status"] == 403 and "rejected" in said["refused"]["message"]
    assert [user for user, _ in said["rejected"]] == [user for user, _ in said["cancelled"]] == ["carol"]


def check_refs(said: dict, files: list[str]) -> None:
    assert said["moved"]["status"] == 409, "a tag is not moved"
    assert said["late"]["status"] == 412
    assert said["branch"] == [".gitattributes", "README.md", "data/copy.tar", "data/train-00000.tar"]
    assert said["on_main"] == files
    assert said["tags"] == ["v1.0.0"] and said["branches"] == ["main", "dev"]
    assert said["titles"] == ["first", "initial commit"]
    assert said["paths"] == ["README.md", "data"]
    assert said["sha"] == said["first"] and said["seen"] == [REPO]


def check_removal(said: dict, folder: Path) -> None:
    assert len(said["squashed"]) == 1
    assert said["old"]["error"] == said["gone_at_old"]["error"] == "RevisionNotFoundError"
    assert said["large"] == [["data/copy.tar", 150_000]]
    assert said["gone"]["error"] == "RemoteEntryNotFoundError" and said["gone"]["status"] == 404
    assert said["kept"] == (folder / "data" / "val-00000.tar").read_bytes().hex()
    assert said["left"] == [".gitattributes", "README.md", "data/val-00000.tar"]
    assert said["deleted"]["error"] == "RepositoryNotFoundError"


FAULTS = """
from huggingface_hub import HfApi
slept = []
time.sleep, sleep = slept.append, time.sleep
api, repo = HfApi(), {"repo_id": "alice/t4sa", "repo_type": "dataset"}
api.create_repo(**repo, private=True)
api.upload_folder(**repo, folder_path=sys.argv[1])
settings = [outcome(api.update_repo_settings, **repo, gated="manual") for _ in range(9)]
tell(statuses=[failure and (failure["status"] or failure["error"]) for failure in settings])
tell(tag=outcome(api.create_tag, **repo, tag="v1"), tags=[tag.name for tag in api.list_repo_refs(**repo).tags])
before = time.monotonic()
api.whoami()
tell(slow=time.monotonic() - before)

def download():
    got = outcome(api.hf_hub_download, **repo, filename="data/train-00000.tar", force_download=True)
    return got if isinstance(got, dict) else open(got, "rb").read().hex()

tell(limited=download(), slept=slept[:], cut=download(), expired=download(), after=download())
tell(files=api.list_repo_files(**repo), commits=[commit.title for commit in api.list_repo_commits(**repo)])
"""


def test_faults_reach_the_client(tmp_path: Path, folder: Path) -> None:
    kinds = ("500", "502", "503", "504", "412", "409", "stale", "drop")
    cdn = r"GET /_cdn/"
    with WritableHub(tmp_path / "hub", users=USERS) as hub:
        hub.faults += [Fault("PUT .*/settings", nth=i + 1, kind=kind) for i, kind in enumerate(kinds)]
        hub.faults.append(Fault("POST .*/tag/", kind="504", done=True))
        hub.faults.append(Fault("/api/whoami", kind="slow", seconds=0.3))
        hub.faults.append(Fault(cdn, nth=1, kind="429", seconds=7))  # the second is its retry
        hub.faults.append(
            Fault(cdn, nth=3, kind="cut", after=100_000)
        )  # the fourth starts again: less than the client's piece had come
        hub.faults.append(Fault(cdn, nth=5, kind="expired", times=1))
        hub.state.page = 2
        said = clients.run(FAULTS, str(folder), env=clients.environment(hub.url, tmp_path, token="hf_alice"))
        log = [r for r in hub.log if r.path.startswith("/_cdn/")]
    assert said["statuses"] == [500, 502, 503, 504, 412, 409, 401, "RemoteProtocolError", None]
    assert said["tag"]["status"] == 504 and said["tags"] == ["v1"], "only the answer was lost"
    assert said["slow"] >= 0.3
    truth = (folder / "data" / "train-00000.tar").read_bytes().hex()
    assert said["limited"] == truth and any(7 <= seconds <= 9 for seconds in said["slept"])
    assert said["cut"] == truth and said["expired"]["status"] == 403 and said["after"] == truth
    assert [r.status for r in log][:5] == [429, 200, 200, 200, 403] and log[2].received == 100_000
    assert len(said["files"]) == 4 and len(said["commits"]) == 2, "listings of several pages"
    assert len([r for r in hub.log if "cursor" in r.query]) >= 1


PUBLISH = """
from huggingface_hub import HfApi
api, repo = HfApi(), {"repo_id": "alice/t4sa", "repo_type": "dataset"}
api.create_repo(**repo, private=True, exist_ok=True)
api.upload_folder(**repo, folder_path=sys.argv[1], commit_message="first")
api.update_repo_settings(**repo, gated="manual", visibility="public")
api.create_tag(**repo, tag="v1", exist_ok=True)
tell(done=True)
"""


def kill_and_repeat(tmp_path: Path, folder: Path, at: int, answered: bool, by_xet: bool = False) -> None:
    """Kill a client at a request, let another do the work again: all is as if nothing had happened."""
    with WritableHub(tmp_path / f"hub{at}{answered}", users=USERS, xet=by_xet) as hub:
        env = clients.environment(hub.url, tmp_path, token="hf_alice", xet=by_xet)
        with clients.start(PUBLISH, str(folder), env=env) as client:
            hub.kill_after(at, lambda: (client.kill(), client.wait()), answered=answered)
            told, _ = client.communicate(timeout=60)
        hub.open_again()
        assert len(hub.log) == at and not told, "dead, and nothing more was heard of it"
        assert clients.run(PUBLISH, str(folder), env=env)["done"]
        repo = hub.repos[REPO]
        assert [repo.commits[oid].title for oid in repo.history(repo.head)] == ["first", "initial commit"]
        assert sorted(repo.files()) == [".gitattributes", "README.md", "data/train-00000.tar", "data/val-00000.tar"]
        assert repo.door().gated == "manual" and repo.tags == {"v1": repo.head}
        assert hub.opened() == []


@pytest.mark.parametrize(("at", "answered"), [(9, False), pytest.param(11, True, marks=pytest.mark.slow)])
def test_a_client_is_killed_at_a_request(tmp_path: Path, folder: Path, at: int, answered: bool) -> None:
    kill_and_repeat(tmp_path, folder, at, answered)


@pytest.mark.slow
@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("by_xet", [False, True])
def test_a_client_is_killed_at_every_request(tmp_path: Path, folder: Path, answered: bool, by_xet: bool) -> None:
    if by_xet and not xet.works():
        pytest.skip("hf_xet does not write to a folder here")
    with WritableHub(tmp_path / "hub", users=USERS, xet=by_xet) as hub:
        clients.run(PUBLISH, str(folder), env=clients.environment(hub.url, tmp_path, token="hf_alice", xet=by_xet))
    for at in range(1, len(hub.log)):
        kill_and_repeat(tmp_path, folder, at, answered, by_xet)


def test_an_edited_file_is_sent_in_part(tmp_path: Path) -> None:
    """Also from another machine, whose client has kept nothing of the first upload."""
    if not xet.works():
        pytest.skip("hf_xet does not write to a folder here")
    file, sent = tmp_path / "release" / "a.tar", []
    file.parent.mkdir()
    data = hashlib.shake_256(b"data").digest(4 << 20)
    with WritableHub(tmp_path / "hub", users=USERS, xet=True) as hub:
        for machine, edit in (("one", b""), ("two", b"hello")):
            file.write_bytes(data[: 2 << 20] + edit + data[2 << 20 :])
            env = clients.environment(hub.url, tmp_path / machine, token="hf_alice", xet=True)
            clients.run(PUBLISH, str(file.parent), env=env)
            sent.append(hub.uploaded)
            xet.forget_client(hub.state)
        assert hub.repos[REPO].files()["a.tar"].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert sent[0] > len(data) > 8 * (sent[1] - sent[0]) > 0


def test_an_open_door_is_seen(tmp_path: Path, folder: Path) -> None:
    """The watch itself: two settings calls in place of one leave a moment without a gate."""
    with WritableHub(tmp_path / "hub", users=USERS) as hub:
        script = PUBLISH.replace('gated="manual", visibility="public"', 'visibility="public"')
        clients.run(script, str(folder), env=clients.environment(hub.url, tmp_path, token="hf_alice"))
        assert hub.opened() and "PUT /api/datasets/alice/t4sa/settings" in hub.opened()[0]
