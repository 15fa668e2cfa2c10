"""A takedown: rows, old tags and old files are gone in both formats, readers are told, and killed it ends the same."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hub_scripts import takedown_note, takedown_rows
from hub_scripts.gate import Form
from t4sa_data import errors
from t4sa_data.manifest import load_manifest
from t4sa_data.reading.local import LocalRelease
from t4sa_data.releases_file import RELEASES_NAME, parse_releases
from t4sa_data.shards import TABLE_NAME, read_table
from t4sa_data.testing import OfficialArchive, check_release
from tests.helpers_release import CONFIGS, build
from tests.hub_double import Fault, WritableHub, clients
from tests.hub_double.recorded import ask
from tests.publish_helpers import READER, RIGHTS, TOKEN, USERS, Commands, commands, final, write_release

COUNT = 4
"""Images that go: one by its key, three by their tweet."""
READ = """
from t4sa_data.reading import open_release
for name in ("t4sa", "t4sa-wds"):
    for tag in ("v1.0.0", "v1.0.1"):
        got = outcome(open_release, f"hf://datasets/ours/{name}@{tag}")
        tell(**{f"{name} {tag}": got if isinstance(got, dict) else {"read": got.manifest.data_version}})
"""


@dataclass
class Stand:
    """A Hub with version 1.0.0, its release in a folder, and the way back to that."""

    hub: WritableHub
    t4sa: Commands
    folder: Path
    release: Path
    ids: Path
    keys: list[str]
    kept: Any = None
    goals: dict[str, tuple[dict[str, Any], int]] = field(default_factory=dict)
    """By mode: how all stands after a takedown, and of how many requests it is."""
    mode: str = "here"
    """`here`: with `--release`; `fetched`: without."""

    def keep(self) -> None:
        self.kept = copy.deepcopy(self.hub.state.repos)
        shutil.copytree(self.release, self.folder / "kept-release")
        shutil.copytree(self.folder / "hub", self.folder / "kept-hub", symlinks=True)

    def back(self) -> None:
        self.hub.reset()
        self.hub.state.repos.update(copy.deepcopy(self.kept))
        shutil.rmtree(self.folder / "takedown-v1.0.1", ignore_errors=True)
        for name in ("release", "hub"):
            shutil.rmtree(self.folder / name)
            shutil.copytree(self.folder / f"kept-{name}", self.folder / name, symlinks=True)

    def run(self, *more: object, version: str = "1.0.1", kill_after: int | None = None) -> tuple[int, str]:
        asked = ("takedown", "--ids", self.ids, "--namespace", "ours", "--version", version)
        release = ("--release", self.release) if self.mode == "here" else ()
        return self.t4sa.run(*asked, *release, *more, kill_after=kill_after)

    def parts(self) -> list[LocalRelease]:
        """The releases here."""
        folders = [self.release / name for name in ("t4sa", "t4sa-wds")]
        return [LocalRelease(folder, load_manifest(folder)) for folder in folders]

    def end(self) -> dict[str, Any]:
        """All that two runs must agree in."""
        stored = {name: sorted(repo.objects) for name, repo in self.hub.repos.items()}
        folder = self.release if self.mode == "here" else self.folder / "takedown-v1.0.1"
        local = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        return {**final(self.hub), "stored": stored, "local": sorted(local)}


@contextmanager
def stand(folder: Path, *, xet: bool = False) -> Iterator[Stand]:
    release = write_release(folder / "release", 40, shard_bytes=12_000)
    keys = read_table(release / "t4sa" / "b-t4sa" / TABLE_NAME, ["key"])["key"].to_pylist()
    tweet, ids = keys[31].partition("-")[0], folder / "ids.txt"
    gone = sorted({keys[3], *(key for key in keys if key.startswith(f"{tweet}-"))})
    assert len(gone) == COUNT
    ids.write_text(f"# asked for\n{keys[3]}\n{tweet}\n")
    with WritableHub(folder / "hub", users=USERS, xet=xet) as hub, commands(hub, folder, xet=xet) as t4sa:
        code, said = t4sa.run("publish", release, "--namespace", "ours", "--version", "1.0.0")
        assert code == 0, said
        made = Stand(hub, t4sa, folder, release, ids, gone)
        made.keep()
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(tmp_path_factory.mktemp("takedown")) as made:
        yield made


@pytest.fixture
def published(shared: Stand) -> Stand:
    shared.back()
    shared.mode = "here"
    return shared


def test_nothing_of_it_is_left(published: Stand, tmp_path: Path) -> None:
    one = published
    before = {name: repo.files("v1.0.0") for name, repo in one.hub.repos.items()}
    heads = {name: {repo.head, repo.tags["v1.0.0"]} for name, repo in one.hub.repos.items()}
    names = {f.name for f in load_manifest(one.release / "t4sa").files}
    code, said = one.run("--yes")
    assert code == 0, said
    assert f"{COUNT} row(s)" in said and "the old addresses answer 404" in said
    assert not [key for key in one.keys if key in said]
    assert check_release(one.release).ok
    assert {f.name for f in load_manifest(one.release / "t4sa").files} == names  # shards keep theirs
    _only_what_changed_was_sent(one, before)
    for name in ("t4sa", "t4sa-wds"):
        keys = read_table(one.release / name / "b-t4sa" / TABLE_NAME, ["key"])["key"].to_pylist()
        assert len(keys) == 40 - COUNT and not set(one.keys) & set(keys)
        repo = one.hub.repos[f"ours/{name}"]
        assert (list(repo.tags), list(repo.branches), repo.private, repo.gated) == (
            ["v1.0.1"], ["main"], False, "manual",
        )  # fmt: skip
        assert repo.tags["v1.0.1"] == repo.head and repo.history(repo.head) == [repo.head]
        tree = repo.files()
        assert {f.name: f.sha256 for f in load_manifest(one.release / name).files if f.layer} == {
            path: tree[path].sha256 for path in tree if path.startswith("b-t4sa/") and path.endswith(("parquet", "tar"))
            and not path.endswith(TABLE_NAME)
        }  # fmt: skip
        assert set(repo.objects) == {blob.sha256 for blob in tree.values() if blob.sha256}
        told = parse_releases(tree[RELEASES_NAME].data or b"", name)
        assert told.current == "v1.0.1"
        assert (told.releases["v1.0.0"].state, told.releases["v1.0.0"].successor) == ("withdrawn", "v1.0.1")
        assert told.releases["v1.0.0"].reason == "Samples were removed from the dataset."
        assert told.removals.count == len(told.removals.hmac) == COUNT
        small = [blob.data for commit in repo.commits.values() for blob in commit.tree.values() if blob.data]
        assert not [key for key in one.keys for data in small if key.encode() in data]
        assert told.removals.hmac == takedown_note.hmacs(_key(one.folder), one.keys)
    for path in (one.folder / "release").rglob("*"):
        assert path.is_dir() or not [key for key in one.keys if key.encode() in path.read_bytes()], path
    _addresses_are_gone(one, before, heads)
    assert one.hub.opened() == [] and one.hub.leaked() == []
    one.goals["here"] = one.end(), len(one.hub.log)
    for repo in one.hub.repos.values():
        repo.ask("ada")
        repo.access["ada"].status = "accepted"
    read = clients.run(READ, env=clients.environment(one.hub.url, tmp_path, token=READER))
    for name in ("t4sa", "t4sa-wds"):
        assert read[f"{name} v1.0.0"]["error"] == "ReleaseWithdrawn", read
        assert 'revision="v1.0.1"' in read[f"{name} v1.0.0"]["message"]
        assert read[f"{name} v1.0.1"] == {"read": "1.0.1"}, read


def _key(folder: Path) -> bytes:
    (path,) = (folder / "data").rglob("removals.key")
    assert path.stat().st_mode & 0o777 == 0o600
    return takedown_note.load_key(path)


def _only_what_changed_was_sent(one: Stand, before: dict[str, Any]) -> None:
    stored = [line.path for line in one.hub.log if line.path.startswith("/_storage/")]
    new = set()
    for name, repo in one.hub.repos.items():
        old = {blob.sha256 for blob in before[name].values()}
        new |= {blob.sha256 for blob in repo.files().values() if blob.sha256 and blob.sha256 not in old}
    assert sorted(stored) == sorted(f"/_storage/{sha256}" for sha256 in new)
    assert len(new) < len([path for path in before["ours/t4sa"] if path.endswith(".parquet")])


def _addresses_are_gone(one: Stand, before: dict[str, Any], heads: dict[str, set[str]]) -> None:
    """By old tag and commit, and at the store."""
    changed = 0
    for repo_id, files in before.items():
        kept = {blob.sha256 for blob in one.hub.repos[repo_id].files().values()}
        for path, blob in files.items():
            if blob.sha256 is None or blob.sha256 in kept:
                continue
            changed += 1
            for revision in ("v1.0.0", *heads[repo_id]):
                url = f"{one.hub.url}/datasets/{repo_id}/resolve/{revision}/{path}"
                assert ask(url, "HEAD", Authorization=f"Bearer {TOKEN}")[0].status == 404
            assert not list((one.folder / "hub").rglob(blob.sha256))
    assert changed >= 4


def test_without_the_release_the_touched_shards_are_fetched(published: Stand, tmp_path: Path) -> None:
    """The Hub ends with the same bytes as with it; the form that a maintainer had set, and the contact, stay."""
    one = published
    (tmp_path / "gate.toml").write_text(Form(heading="Another heading").to_toml())
    form = ("gate", "--namespace", "ours", "--form", tmp_path / "gate.toml")
    code, said = one.t4sa.run(*form)
    assert code == 0, said
    shutil.copy(tmp_path / "gate.toml", one.release / "gate.toml")
    code, said = one.run("--yes")
    assert code == 0, said
    with_it = final(one.hub)
    one.back()
    one.mode = "fetched"
    assert one.t4sa.run(*form)[0] == 0
    asked = len(one.hub.log)
    before = one.end()
    code, said = one.run("--dry-run")
    assert code == 0 and one.end() == before and not (one.folder / "takedown-v1.0.1").exists(), said
    shards = {path for path in one.hub.repos["ours/t4sa"].files() if path.endswith("of-00001.parquet")}
    fetched = {line.path.split("/main/")[-1] for line in one.hub.log[asked:] if "/resolve/" in line.path}
    assert shards and not {name for name in fetched if "-of-" in name and not name.endswith(".idx")}
    asked = len(one.hub.log)
    code, said = one.run("--yes")
    assert code == 0 and f"{COUNT} row(s)" in said and "the old addresses answer 404" in said, said
    assert {name: (repo["main"], repo["tags"]) for name, repo in final(one.hub).items()} == {
        name: (repo["main"], repo["tags"]) for name, repo in with_it.items()
    }
    fetched = {line.path.partition("/resolve/")[2].partition("/")[2] for line in one.hub.log[asked:]
               if "/resolve/" in line.path}  # fmt: skip
    manifest = load_manifest(one.folder / "kept-release" / "t4sa")
    table = read_table(one.folder / "kept-release" / "t4sa" / "b-t4sa" / TABLE_NAME, ["key", "file"])
    touched = {row["file"] for row in table.to_pylist() if row["key"] in one.keys}
    brought = {name for name in fetched if name.endswith(".parquet") and not name.endswith(TABLE_NAME)}
    assert brought == touched < {file.name for file in manifest.files if file.layer}
    assert sorted(p.name for p in (one.folder / "takedown-v1.0.1").iterdir()) == ["takedown-v1.0.1.json"]
    assert not [key for key in one.keys if key in (one.folder / "takedown-v1.0.1" / "takedown-v1.0.1.json").read_text()]
    readme = one.hub.repos["ours/t4sa"].files()["README.md"].data or b""
    assert b"Another heading" in readme and b"write to removals@example.org" in readme
    end = one.end()
    assert one.run("--yes")[0] == 0 and one.end() == end


@pytest.mark.slow
def test_a_damaged_shard_that_is_fetched_changes_nothing(published: Stand, tmp_path: Path) -> None:
    one = published
    one.mode = "fetched"
    row = read_table(one.release / "t4sa" / "b-t4sa" / TABLE_NAME, ["key", "file"]).slice(0, 1).to_pylist()[0]
    (tmp_path / "ids.txt").write_text(f"{row['key']}\n")
    (stored,) = (one.folder / "hub").rglob(str(one.hub.repos["ours/t4sa"].files()[row["file"]].sha256))
    data = stored.read_bytes()
    stored.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = final(one.hub)
    code, said = one.run("--yes", "--ids", tmp_path / "ids.txt")
    assert code == 1 and "what came is not what the manifest says" in said, said
    assert said.strip().count("error:") == 1 and final(one.hub) == before
    stored.write_bytes(data)
    code, said = one.run("--yes", "--ids", tmp_path / "ids.txt")
    assert code == 0, said


def test_it_asks_before_it_deletes_and_shows_before_it_changes(published: Stand, tmp_path: Path) -> None:
    one = published
    keys = list((one.folder / "data").rglob("removals.key"))  # of the test before; they come back
    for key in keys:
        key.rename(key.with_suffix(".away"))
    before = one.end()
    code, said = one.run("--dry-run")
    assert code == 0 and "shards touched" in said and one.end() == before, said
    assert not list((one.folder / "data").rglob("removals.key"))  # not even a key
    for key in keys:
        key.with_suffix(".away").rename(key)
    code, said = one.run()
    assert code != 0 and "This cannot be undone." in said, said
    for repo in one.hub.repos.values():
        assert list(repo.tags) == ["v1.0.0", "v1.0.1"]
        assert parse_releases(repo.files()[RELEASES_NAME].data or b"", "").releases["v1.0.0"].state == "withdrawn"
    (tmp_path / "other.txt").write_text("1-1\n")
    code, said = one.run("--ids", tmp_path / "other.txt", "--yes")
    assert code == 2 and "another list was begun" in said
    assert one.run("--yes")[0] == 0
    assert all(list(repo.tags) == ["v1.0.1"] for repo in one.hub.repos.values())


def test_what_is_refused_changes_nothing(published: Stand, tmp_path: Path) -> None:
    one = published
    before = one.end()

    def refused(word: str, *more: object, **options: str) -> None:
        code, said = one.run("--yes", *more, **options)
        assert code == 2 and word in said and said.count("\n") == 1, said
        assert one.end() == before

    one.hub.repos["ours/t4sa-wds"].doi = "10.57967/hf/1"
    refused("a DOI of the Hub forbids deletion")
    one.hub.repos["ours/t4sa-wds"].doi = None
    refused("published already", version="1.0.0")
    refused("a higher version is published", version="0.9.0")
    (tmp_path / "other.txt").write_text("1-1\n")
    refused("none of these ids", "--ids", tmp_path / "other.txt")
    (one.release / "t4sa-wds").rename(one.release / "aside")
    code, said = one.run("--yes")
    assert code == 2 and "what must go would stay in it" in said
    (one.release / "aside").rename(one.release / "t4sa-wds")
    assert one.end() == before


def test_words_of_the_list(published: Stand, tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("7-1 # a note\n\n# more\n7\n7-1\ngroup:7-2\n")
    assert takedown_rows.read_words(path) == ["7", "7-1", "group:7-2"]
    for words in (["x"], ["group:1"], []):
        with pytest.raises(errors.BadOption):
            takedown_rows.read_words(words)
    with pytest.raises(errors.BadOption):
        takedown_rows.read_words(tmp_path / "nothing.txt")
    rows = read_table(published.release / "t4sa" / "b-t4sa" / TABLE_NAME, ["key", "duplicate_group"]).to_pylist()
    groups = Counter(row["duplicate_group"] for row in rows)
    group, count = groups.most_common(1)[0]
    for key in [row["key"] for row in rows if row["duplicate_group"] == group]:
        held = takedown_rows.going(published.parts(), [f"group:{key}"])
        assert [one.rows for one in held] == [count, count]


def test_the_key_is_the_maintainers_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "removals.key"
    key = takedown_note.load_key(path)
    assert takedown_note.load_key(path) == key and path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(errors.BadOption, match="can be read by others"):
        takedown_note.load_key(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(errors.BadOption, match="no key"):
        takedown_note.load_key(path)
    note = tmp_path / "takedown-v1.0.1.json"
    note.write_text(json.dumps({"asked": 1}))
    with pytest.raises(errors.TakedownRefused, match="cannot be read"):
        takedown_note.load_note(note)


def kill_everywhere(one: Stand, points: slice) -> None:
    if one.mode not in one.goals:
        one.back()
        code, said = one.run("--yes")
        assert code == 0, said
        one.goals[one.mode] = one.end(), len(one.hub.log)
    end, num_requests = one.goals[one.mode]
    for n in range(1, num_requests + 1)[points]:
        one.back()
        code, said = one.run("--yes", kill_after=n)
        assert code == -9 or (code == 0 and n == num_requests), (n, said)
        code, said = one.run("--yes")
        assert code == 0, (n, said)
        assert one.end() == end, n
        assert one.hub.opened() == [] and one.hub.leaked() == [], n


def test_killed_and_run_again_it_ends_the_same(shared: Stand) -> None:
    """Two of those below: one midway, and the last, after which a run changes nothing."""
    shared.mode = "here"
    kill_everywhere(shared, slice(None, None, -97))


@pytest.mark.slow
def test_killed_after_every_request_and_run_again(shared: Stand) -> None:
    shared.mode = "here"
    kill_everywhere(shared, slice(None))


@pytest.mark.slow
@pytest.mark.parametrize("points", [slice(70), slice(70, None, 8)], ids=["fetching", "then"])
def test_killed_without_the_release_at_hand(points: slice, shared: Stand) -> None:
    """After every request until all is fetched; then it does what it does with the release at hand."""
    shared.mode = "fetched"
    kill_everywhere(shared, points)


@pytest.mark.slow
def test_a_second_one_with_faults_while_the_doors_are_closed(published: Stand) -> None:
    """What failed is done again, older versions stay withdrawn, and nobody opens what a maintainer had closed."""
    one = published
    one.hub.faults += [Fault("/super-squash", kind="500"), Fault("/lfs-files/batch", kind="drop"), Fault("/tag/")]
    for repo in one.hub.repos.values():
        repo.private = True
    code, said = one.run("--yes")
    assert code == 0, said
    one.ids.write_text(f"{read_table(one.release / 't4sa' / 'b-t4sa' / TABLE_NAME)['key'][5]}\n")
    code, said = one.run("--yes", version="1.0.2")
    assert code == 0, said
    for repo in one.hub.repos.values():
        assert (repo.private, repo.gated, list(repo.tags)) == (True, "manual", ["v1.0.2"])
        told = parse_releases(repo.files()[RELEASES_NAME].data or b"", repo.id)
        states = [(entry.state, entry.successor) for entry in told.releases.values()]
        assert states == [("withdrawn", "v1.0.1"), ("withdrawn", "v1.0.2"), ("current", None)]
        assert told.removals.count == COUNT + 1
        repo.private = False
    code, said = one.t4sa.run("verify", "--namespace", "ours")
    assert code == 0, said


@pytest.mark.slow
def test_it_goes_out_of_every_layer_and_its_near_duplicates_lose_its_name(
    archive: OfficialArchive, tmp_path: Path
) -> None:
    """Full-size, small and text layers, without the release at hand; what the Hub holds then passes the check."""
    release = tmp_path / "release"
    build(archive, release, configs=(*CONFIGS, "b-t4sa-256"))
    (release / "rights.toml").write_text(RIGHTS.format(text="true"))
    for name in ("build", "quarantine"):
        shutil.rmtree(release / name, ignore_errors=True)
    twins = read_table(release / "t4sa" / "duplicates" / TABLE_NAME, ["key", "duplicate_group"]).to_pylist()
    gone = next(row["duplicate_group"] for row in twins if row["duplicate_group"] in archive.images)
    tweet = gone.partition("-")[0]
    (tmp_path / "ids.txt").write_text(f"{tweet}\n")
    with WritableHub(tmp_path / "hub", users=USERS) as hub, commands(hub, tmp_path) as t4sa:
        code, said = t4sa.run("publish", release, "--namespace", "ours", "--version", "1.0.0")
        assert code == 0, said
        shutil.rmtree(release)
        asked = ("takedown", "--ids", tmp_path / "ids.txt", "--namespace", "ours", "--version", "1.0.1")
        code, said = t4sa.run(*asked, "--yes")
        assert code == 0 and "get another name" in said, said
        for repo in hub.repos.values():
            for path, blob in repo.files().items():
                target = tmp_path / "end" / repo.id.partition("/")[2] / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if path not in (".gitattributes", RELEASES_NAME):
                    target.write_bytes(blob.data or repo.objects[str(blob.sha256)].path.read_bytes())
        code, said = t4sa.run("verify", "--namespace", "ours")
        assert code == 0, said
    report = check_release(tmp_path / "end", deep=True)
    assert report.ok, report.faults
    manifest = load_manifest(tmp_path / "end" / "t4sa")
    for path in (tmp_path / "end").rglob("*.parquet"):
        for column in ("key", "tweet_id", "duplicate_group"):
            if column in pq.read_schema(path).names:
                assert not {gone, int(tweet)} & set(pq.read_table(path, columns=[column])[column].to_pylist()), path
    for path in (tmp_path / "end").rglob("*.tar"):
        assert tweet.encode() not in path.read_bytes()
    assert {"duplicates", "b-t4sa", "b-t4sa-256", "raw-text", "t4sa-text"} <= manifest.layers.keys()
    again_named = read_table(tmp_path / "end" / "t4sa" / "duplicates" / TABLE_NAME, ["key", "duplicate_group"])
    for row, before in zip(again_named.to_pylist(), twins, strict=True):
        assert row["key"] == before["key"]
        assert row["duplicate_group"] == (
            row["key"] if before["duplicate_group"] == gone else before["duplicate_group"]
        )
