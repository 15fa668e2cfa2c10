"""Publishing: the order of things, never an open door, killed after every request, what is refused or never sent."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hub_scripts import client, view
from hub_scripts.gate import Form
from hub_scripts.publish import publish
from hub_scripts.rights import RIGHTS_NAME, load_rights
from hub_scripts.screen import HITS_NAME, images_of, load_matcher
from t4sa_data import catalog, errors
from t4sa_data.manifest import MANIFEST_NAME, load_manifest, parse_manifest
from t4sa_data.releases_file import RELEASES_NAME, parse_releases
from t4sa_data.testing import check_release
from tests.hub_double import Fault, WritableHub
from tests.hub_double.calls import Kind
from tests.publish_helpers import READER, TOKEN, USERS, Commands, commands, final, reset, write_release

REPOSITORIES = ("ours/t4sa", "ours/t4sa-wds")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_release(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later one: more pictures."""
    return write_release(tmp_path_factory.mktemp("other"), 36)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """In this process: its address is given to every call, and files go up by LFS."""
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda _seconds: None)  # between the client's own tries
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with WritableHub(tmp_path / "hub", users=USERS) as made:
        yield made


def go(hub: WritableHub, folder: Path, version: str = "1.0.0", **options: object) -> list[str]:
    said: list[str] = []
    options = {"token": TOKEN, "namespace": "ours", **options}
    publish(folder, version=version, endpoint=hub.url, say=said.append, **options)  # type: ignore[arg-type]
    return said


def blobs(hub: WritableHub, repo_id: str, revision: str) -> dict[str, str | None]:
    """sha256 of each file."""
    files = hub.repos[repo_id].files(revision)
    return {path: blob.sha256 or hashlib.sha256(blob.data or b"").hexdigest() for path, blob in files.items()}


def steps(hub: WritableHub, repo_id: str = "ours/t4sa") -> list[str]:
    """The requests that change something in a repository."""
    below = f"/api/datasets/{repo_id}/"
    paths = [line.path for line in hub.log if line.method != "GET" and line.path.startswith(below)]
    words = [path.removeprefix(below).split("/")[0] for path in paths]
    return [word for word in words if word in ("commit", "settings", "tag", "branch")]


def test_a_first_release(hub: WritableHub, release: Path) -> None:
    go(hub, release)
    for repo_id, folder in zip(REPOSITORIES, ("t4sa", "t4sa-wds"), strict=True):
        repo, tagged = hub.repos[repo_id], blobs(hub, repo_id, "v1.0.0")
        assert (repo.private, repo.gated, list(repo.tags), list(repo.branches)) == (
            False,
            "manual",
            ["v1.0.0"],
            ["main"],
        )
        manifest = parse_manifest(repo.files("v1.0.0")[MANIFEST_NAME].data or b"", repo_id)
        assert {file.name: file.sha256 for file in manifest.files} == {
            path: digest for path, digest in tagged.items() if path not in (".gitattributes", MANIFEST_NAME)
        }
        local = load_manifest(release / folder)
        assert manifest.content_digest == local.content_digest
        assert "removals@example.org" in (repo.files()["README.md"].data or b"").decode()
        told = parse_releases(repo.files()[RELEASES_NAME].data or b"", repo_id)
        assert told.current == "v1.0.0"
        assert told.releases["v1.0.0"].manifest_sha256 == tagged[MANIFEST_NAME]
        assert told.releases["v1.0.0"].content_digest == {n: e.content_digest for n, e in local.layers.items()}
        assert [repo.commits[c].title for c in repo.history(repo.head)] == [
            f"{RELEASES_NAME}: v1.0.0",
            "Release v1.0.0",
            "initial commit",
        ]
    assert steps(hub) == ["commit", "settings", "tag", "commit"]
    assert hub.opened() == []
    assert len([line for line in hub.log if line.path.endswith("/settings")]) == 2
    assert [line for line in hub.log if line.origin == "cdn"]
    assert not [line for line in hub.log if line.origin == "cdn" and line.authorised]


def test_a_quota_for_one_private_repository_is_enough(hub: WritableHub, release: Path) -> None:
    sizes = [one.num_bytes for one in view.views_of(release, "1.0.0", load_rights(release))]
    hub.state.private_quota = max(sizes)
    assert sum(sizes) > max(sizes)
    go(hub, release)
    hub.repos.clear()
    hub.state.private_quota = 1000
    with pytest.raises(errors.HubRefused, match="storage is full"):
        go(hub, release)
    assert hub.opened() == []


def test_a_second_run_writes_nothing(hub: WritableHub, release: Path) -> None:
    go(hub, release)
    before, requests = final(hub), len(hub.log)
    go(hub, release)
    assert final(hub) == before
    assert {line.method for line in hub.log[requests:]} <= {"GET", "HEAD"}


def test_a_later_version_reaches_main_in_one_commit(hub: WritableHub, release: Path, other: Path) -> None:
    hub.state.page = 4
    go(hub, release)
    before, seen = len(hub.log), {name: repo.head for name, repo in hub.repos.items()}
    said = go(hub, other, "1.1.0")
    assert any("changed: b-t4sa/" in line for line in said), said
    for repo_id in REPOSITORIES:
        repo = hub.repos[repo_id]
        titles = [repo.commits[c].title for c in repo.history(repo.head)]
        assert titles[:3] == [f"{RELEASES_NAME}: v1.1.0", "Release v1.1.0", f"{RELEASES_NAME}: v1.0.0"]
        assert repo.commits[repo.tags["v1.1.0"]].parent == seen[repo_id]
        assert list(repo.branches) == ["main"]
        old, new = blobs(hub, repo_id, "v1.0.0"), blobs(hub, repo_id, "v1.1.0")
        named = {f.name for f in load_manifest(other / repo_id.split("/")[1]).files}
        assert set(new) == named | {MANIFEST_NAME, ".gitattributes", RELEASES_NAME}
        assert old != new
        told = parse_releases(repo.files()[RELEASES_NAME].data or b"", repo_id)
        assert told.current == "v1.1.0"
        assert (told.releases["v1.0.0"].state, told.releases["v1.0.0"].successor) == ("superseded", "v1.1.0")
    stored = [line.path for line in hub.log[before:] if line.path.startswith("/_storage/")]
    assert len(stored) == len(set(stored))  # what the branch has is not sent for main again
    assert not [line for line in hub.log[before:] if line.path.endswith("/settings")]
    assert hub.opened() == []


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(hub: WritableHub, release: Path, other: Path) -> None:
    said = "\n".join(go(hub, release, dry_run=True))
    assert "to send 11" in said and "create it, private" in said
    assert "fits the 100.0 GB of a free account" in said
    assert not hub.repos
    go(hub, release)
    before = final(hub)
    said = "\n".join(go(hub, other, "1.1.0", dry_run=True))
    assert "branch release-v1.1.0, one commit to main" in said and "changes b-t4sa/" in said
    assert "private storage: none is needed" in said
    assert "nothing: it is all there" in "\n".join(go(hub, release, dry_run=True))
    assert final(hub) == before
    assert {line.method for line in hub.log[-6:]} <= {"GET", "HEAD"}


def test_quarantine_build_and_rights_never_leave(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(release, tmp_path / "r"))
    for name in ("quarantine/secret.jpg", "build/secret.json", "screen-hits.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("secret")
    go(hub, folder)
    sent = {path for repo in hub.repos.values() for commit in repo.commits.values() for path in commit.tree}
    assert not [p for p in sent if "secret" in p or "screen" in p or RIGHTS_NAME in p or "gate.toml" in p]


def test_somebody_elses_layer_stays_here(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(release, tmp_path / "r"))
    for name in ("t4sa", "t4sa-wds"):
        rename_layer(folder / name)
    made = view.views_of(folder, "1.0.0", load_rights(folder))
    for one in made:
        assert one.left_out == ("twitter-testing",)
        assert list(one.manifest.layers) == ["b-t4sa"]
        assert not [n for n in one.files if n.startswith("twitter-testing/")]
        for name in ("README.md", "croissant.json"):
            assert b"twitter-testing" not in one.documents[name]
        with one.staged(one.files) as staged:
            found = {p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file()}
        assert found == set(one.files)


def rename_layer(folder: Path) -> None:
    """A release with a second layer, that is named as the Twitter Testing Dataset's: its content does not matter."""
    manifest = load_manifest(folder)
    more = [replace(f, name=f.name.replace("b-t4sa/", "twitter-testing/"), layer=f.layer and "twitter-testing")
            for f in manifest.files if f.name.startswith("b-t4sa/")]  # fmt: skip
    shutil.copytree(folder / "b-t4sa", folder / "twitter-testing")
    layers = {**manifest.layers, "twitter-testing": manifest.layers["b-t4sa"]}
    replace(manifest, layers=layers, files=(*manifest.files, *more)).save(folder)


def test_text_goes_only_where_the_rights_say_so(hub: WritableHub, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "r", text="false")
    with pytest.raises(errors.RightsError, match="the grant does not cover it"):
        go(hub, folder)
    assert not hub.log


def test_a_wrong_path_is_said_and_nothing_is_written_there(tmp_path: Path) -> None:
    with pytest.raises(errors.ReleaseNotFound, match="no release here"):
        load_rights(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_no_rights_no_release(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(release, tmp_path / "r"))
    (folder / RIGHTS_NAME).unlink()
    with pytest.raises(errors.RightsError, match="A template was written there"):
        go(hub, folder)
    with pytest.raises(errors.RightsError, match=r"rights\.granted_by is not filled in"):
        go(hub, folder)
    text = (release / RIGHTS_NAME).read_text()
    for line in text.strip().splitlines():
        if "=" in line:
            (folder / RIGHTS_NAME).write_text(text.replace(line, ""))
            with pytest.raises(errors.RightsError, match="is not filled in"):
                go(hub, folder)
    for old, new in (("2026-01-02", "2999-01-01"), ("matched = 0", "matched = -1"), ("[screen]", "screen")):
        (folder / RIGHTS_NAME).write_text(text.replace(old, new))
        with pytest.raises(errors.RightsError):
            go(hub, folder)
    assert not hub.log


def test_a_damaged_release_is_not_sent(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(release, tmp_path / "r"))
    shard = next((folder / "t4sa" / "b-t4sa").glob("train-*"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(errors.CheckFailed, match="nothing was sent"):
        go(hub, folder)
    assert not hub.log


def test_a_screen_that_hits_stops_all(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    folder, seen = Path(shutil.copytree(release, tmp_path / "r")), {}
    go(hub, folder, screen=lambda key, data: bool(seen.setdefault(key, hashlib.sha256(data).hexdigest())) and False)
    made = view.views_of(folder, "1.0.0", load_rights(folder))
    assert seen == {key: hashlib.sha256(data).hexdigest() for key, data in images_of(made[1])}  # tar: the same images
    hub.repos.clear()
    bad = sorted(seen)[3]
    with pytest.raises(errors.ScreenHit, match="the screen hit 1 of 30 images"):
        go(hub, folder, screen=lambda key, data: key == bad)
    assert not hub.repos
    hits = folder / HITS_NAME
    assert hits.read_text() == f"{bad}\n" and hits.stat().st_mode & 0o777 == 0o600
    script = tmp_path / "matcher.py"
    script.write_text("def look(key, data):\n    return data[:2] != b'\\xff\\xd8'\n")
    assert load_matcher(f"{script}:look")("k", b"GIF")
    for name in (f"{script}:nothing", "no_such_module:f", "", "x.py:f"):
        with pytest.raises(errors.BadOption):
            load_matcher(name)


def test_a_tag_never_moves(hub: WritableHub, release: Path, other: Path) -> None:
    go(hub, release)
    before = final(hub)
    with pytest.raises(errors.VersionTaken, match=r"changed: .*b-t4sa/"):
        go(hub, other)
    go(hub, other, "1.1.0")
    with pytest.raises(errors.VersionTaken, match="higher"):
        go(hub, release, "1.0.5")
    assert final(hub)["ours/t4sa"]["tags"]["v1.0.0"] == before["ours/t4sa"]["tags"]["v1.0.0"]
    for version in ("1", "1.0", "v1.0.x", "01.0.0", ""):
        with pytest.raises(errors.BadOption):
            go(hub, release, version)


def test_a_withdrawn_version_does_not_come_back(hub: WritableHub, release: Path, other: Path) -> None:
    go(hub, release)
    go(hub, other, "1.1.0")
    ours = client.Hub(namespace="ours", endpoint=hub.url, token=TOKEN)
    told = ours.releases("ours/t4sa").with_withdrawn("v1.0.0", successor="v1.1.0", reason="a removal")
    ours.commit("ours/t4sa", "withdrawn", files={RELEASES_NAME: told.to_json()})
    for repo in hub.repos.values():
        repo.tags.clear()
    with pytest.raises(errors.VersionTaken, match="withdrawn"):
        go(hub, release)


def test_an_open_door_is_refused(hub: WritableHub, release: Path) -> None:
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.url, token=TOKEN).create_repo("ours/t4sa", repo_type="dataset")
    with pytest.raises(errors.OpenDoor, match="public and has no gate"):
        go(hub, release)
    with pytest.raises(errors.OpenDoor):
        go(hub, release, dry_run=True)
    assert set(hub.repos["ours/t4sa"].files()) == {".gitattributes"}


def test_files_of_others_are_not_deleted(hub: WritableHub, release: Path) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo("ours/t4sa", repo_type="dataset", private=True)
    api.upload_file(repo_id="ours/t4sa", path_or_fileobj=b"mine", path_in_repo="thesis.txt", repo_type="dataset")
    with pytest.raises(errors.ForeignFiles, match=r"thesis\.txt"):
        go(hub, release)


def test_what_an_earlier_try_left_on_main_goes(hub: WritableHub, release: Path, other: Path, tmp_path: Path) -> None:
    """Killed before the gate was set, then the release was built anew."""
    first = write_release(tmp_path / "r", 40, shard_bytes=20_000)
    hub.faults.append(Fault("/settings", kind="500", times=99))
    with pytest.raises(errors.HubUnreachable):
        go(hub, first)
    hub.faults.clear()
    assert hub.repos["ours/t4sa"].private
    go(hub, release)
    for repo_id in REPOSITORIES:
        named = {f.name for f in load_manifest(release / repo_id.split("/")[1]).files}
        assert set(hub.repos[repo_id].files("v1.0.0")) == named | {MANIFEST_NAME, ".gitattributes"}
    assert hub.opened() == []


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_what_arrived_damaged_is_neither_opened_nor_tagged(
    hub: WritableHub, release: Path, other: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version != "1.0.0":
        go(hub, release)
    before, whole = final(hub), view.View.staged

    @contextmanager
    def damaged(self: view.View, names: Sequence[str]) -> Iterator[Path]:
        with whole(self, names) as folder:
            shard = next(path for path in sorted(folder.rglob("train-*")) if path.suffix in (".parquet", ".tar"))
            data = bytearray(shard.read_bytes())
            data[1000] ^= 1
            shard.unlink()
            shard.write_bytes(data)
            yield folder

    with monkeypatch.context() as patched:
        patched.setattr(view.View, "staged", damaged)
        with pytest.raises(errors.ChecksumMismatch, match=r"b-t4sa/train-00000.*Nothing was opened"):
            go(hub, other, version)
    repo = hub.repos["ours/t4sa"]
    assert repo.private == (version == "1.0.0") and f"v{version}" not in repo.tags
    assert version == "1.0.0" or final(hub)["ours/t4sa"]["main"] == before["ours/t4sa"]["main"]
    go(hub, other, version)
    assert all(f"v{version}" in repo.tags and not repo.private for repo in hub.repos.values())
    assert hub.opened() == []


def test_a_repository_that_somebody_closed_stays_closed(hub: WritableHub, release: Path, other: Path) -> None:
    go(hub, release)
    for repo in hub.repos.values():
        repo.private = True
    said = go(hub, other, "1.1.0")
    assert all(repo.private and "v1.1.0" in repo.tags for repo in hub.repos.values())
    assert any("it stays so" in line for line in said)


def test_the_form_beside_the_release_is_in_the_card(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(release, tmp_path / "r"))
    (folder / "gate.toml").write_text(replace(Form(), heading="Who are you?").to_toml())
    go(hub, folder, gate="auto")
    for repo in hub.repos.values():
        assert b"extra_gated_heading: Who are you?" in (repo.files("v1.0.0")["README.md"].data or b"")
        assert repo.gated == "auto"


def test_one_format_alone(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    shutil.copytree(release / "t4sa-wds", folder / "t4sa-wds")
    shutil.copy(release / RIGHTS_NAME, folder)
    go(hub, folder)
    assert list(hub.repos) == ["ours/t4sa-wds"]


def test_the_published_files_are_a_release(hub: WritableHub, release: Path, tmp_path: Path) -> None:
    """Brought down by the client, `t4sa check` finds no fault in them."""
    from huggingface_hub import snapshot_download

    go(hub, release, "1.2.3")
    for repo_id in REPOSITORIES:
        folder = tmp_path / "down" / repo_id.split("/")[1]
        snapshot_download(
            repo_id, repo_type="dataset", revision="v1.2.3", local_dir=folder, endpoint=hub.url, token=TOKEN
        )
        assert load_manifest(folder).data_version == "1.2.3"
    report = check_release(tmp_path / "down")
    assert report.ok, report.faults


def test_who_may_not_is_told_so(hub: WritableHub, release: Path) -> None:
    for token in (READER, "hf_nobodystoken12345", False):
        with pytest.raises(errors.HubAccessError) as raised:
            go(hub, release, token=token)
        assert "hf_" not in str(raised.value).replace("hf://", "").replace("HF_TOKEN", "")
    assert not hub.repos
    assert TOKEN not in repr(client.Hub(namespace="ours", token=TOKEN))


FAULTS: tuple[Kind, ...] = ("500", "503", "429", "drop", "412", "409", "cut", "stale", "expired")
ROUTES = ("create", "settings", "refs", "tree", "commit/", "tag/", "preupload", "info/lfs", "_storage", "resolve", " ")


@pytest.mark.parametrize("seed", range(3))
def test_faults_end_in_the_right_state_or_a_named_error(hub: WritableHub, release: Path, seed: int) -> None:
    faulty_publications(hub, release, [seed])


@pytest.mark.slow
def test_faults_end_in_the_right_state_or_a_named_error_300_scripts(hub: WritableHub, release: Path) -> None:
    faulty_publications(hub, release, range(100, 400))


def faulty_publications(hub: WritableHub, release: Path, seeds: object) -> None:
    go(hub, release)
    wanted = final(hub)
    for seed in seeds:  # type: ignore[attr-defined]
        rng = random.Random(seed)
        reset(hub)
        for _ in range(rng.randint(1, 5)):
            done, kind = rng.random() < 0.3, rng.choice(FAULTS)
            fault = Fault(rng.choice(ROUTES), nth=rng.randint(1, 6), kind=kind, times=rng.randint(1, 4), done=done)
            hub.faults.append(fault)
        for _ in range(12):
            try:
                go(hub, release)
                break
            except errors.HubError as error:
                assert TOKEN not in str(error)
            assert hub.opened() == []
            hub.faults[:] = [] if rng.random() < 0.4 else hub.faults
        hub.faults.clear()
        go(hub, release)
        assert final(hub) == wanted, seed
        assert hub.opened() == []


def kill_everywhere(t4sa: Commands, release: Path, other: Path, points: slice) -> int:
    """Publish two versions, each time killed after another request and run again; how many requests there are."""
    hub = t4sa.hub
    first = ("publish", release, "--namespace", "ours", "--version", "1.0.0")
    later = ("publish", other, "--namespace", "ours", "--version", "1.1.0")
    assert t4sa.run(*first)[0] == 0
    one, num_first = final(hub), len(hub.log)
    assert t4sa.run(*later)[0] == 0
    two, num_all = final(hub), len(hub.log)
    assert hub.opened() == []
    for n in range(1, num_all + 1)[points]:
        reset(hub)
        if n <= num_first:
            code, said = t4sa.run(*first, kill_after=n)
            assert code == -9 or (code, len(hub.log)) == (0, n), (n, code, said)  # the last: done before the kill
            assert t4sa.run(*first)[0] == 0
            assert final(hub) == one, n
        else:
            assert t4sa.run(*first)[0] == 0
            heard = len(hub.log)
            code, said = t4sa.run(*later, kill_after=n - num_first)
            assert code == -9 or (code, len(hub.log) - heard) == (0, n - num_first), (n, code, said)
            code, said = t4sa.run(*later)
            assert code == 0, (n, said)
            assert final(hub) == two, n
        assert hub.opened() == [], n
    return num_all


def test_killed_and_run_again_it_ends_the_same(t4sa_hub: Commands, release: Path, other: Path) -> None:
    """A few of those below."""
    kill_everywhere(t4sa_hub, release, other, slice(31, None, 70))


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True])
def test_killed_after_every_request_and_run_again(tmp_path: Path, release: Path, other: Path, xet: bool) -> None:
    with WritableHub(tmp_path / "hub", users=USERS, xet=xet) as hub, commands(hub, tmp_path, xet=xet) as t4sa:
        kill_everywhere(t4sa, release, other, slice(None))


def test_the_command_says_what_it_did(tmp_path: Path, release: Path) -> None:
    with WritableHub(tmp_path / "hub", users=USERS, xet=True) as hub, commands(hub, tmp_path, xet=True) as t4sa:
        options = ("--namespace", "ours", "--version", "1.0.0")
        code, said = t4sa.run("publish", release, *options)
        assert code == 0, said
        lines = [line for line in said.splitlines() if "public, gate manual" in line and " v1.0.0 " in line]
        assert [line.split()[:2] for line in lines] == [[name, "v1.0.0"] for name in REPOSITORIES]
        assert [line for line in hub.log if "xet-write-token" in line.path]
        code, said = t4sa.run("publish", tmp_path, *options)
        assert code == 2 and said.startswith("error: no release here") and said.count("\n") == 1


def test_names_of_repositories_are_the_catalogs() -> None:
    ours = client.Hub(namespace="ours")
    assert [ours.repository(fmt) for fmt in view.FORMATS] == [f"ours/{n}" for n in catalog.HUB_REPOSITORIES.values()]
    assert json.loads(json.dumps(list(view.FORMATS))) == list(catalog.HUB_REPOSITORIES)
