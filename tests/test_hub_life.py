"""The life of a release, with real clients in processes of their own: from the official packages to a withdrawal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from t4sa_data.testing import OfficialArchive, check_release, make_official_archive
from tests.helpers_release import truth_of
from tests.hub_double import WritableHub, xet
from tests.hub_double.recorded import ask
from tests.publish_helpers import READER, RIGHTS, USERS, Commands, commands, environment

NUM_IMAGES = 60
REPOSITORIES = ("ours/t4sa", "ours/t4sa-wds")
READS = """
import hashlib, importlib, json, os, sys
import datasets, t4sa_data
for name in os.environ["IMPORTED"].split():
    if importlib.util.find_spec(name.partition(".")[0]):
        importlib.import_module(name)
datasets.disable_progress_bars()

def row(key, label, data):
    return [key, int(label), hashlib.sha256(data).hexdigest()]

def of_parquet(loaded):
    return [row(one["key"], one["label"], one["image"]["bytes"]) for one in loaded.cast_column("image", RAW)]

RAW = datasets.Image(decode=False)

def load(splits, **asked):
    return [one for split in splits for one in of_parquet(t4sa_data.load_dataset(split=split, **asked))]

def plain(splits, path, **asked):
    made = datasets.load_dataset(path, **asked)
    if "jpg" not in made[splits[0]].features:
        return [one for split in splits for one in of_parquet(made[split])]
    rows = [one for split in splits for one in made[split].cast_column("jpg", RAW)]
    return [row(one["json"]["key"], one["cls"], one["jpg"]["bytes"]) for one in rows]

def stream(splits, **asked):
    made = []
    for split in splits:
        asked |= {"split": split, "batch_size": 4, "shuffle": False, "tail": "ragged", "size": 32}
        for batch in t4sa_data.stream(**asked):
            made += [[key, int(label)] for key, label in zip(batch["key"], batch["label"])]
    return made

def answer(asked):
    what = {"load": load, "plain": plain, "stream": stream}[asked.pop("what")]
    try:
        return {"rows": what(**asked)}
    except Exception as error:
        return {"error": type(error).__name__, "message": str(error), "successor": getattr(error, "successor", None)}

for line in sys.stdin:
    if (pid := os.fork()) == 0:
        print("said " + json.dumps(answer(json.loads(line))), flush=True)
        os._exit(0)
    os.waitpid(pid, 0)
"""
OFFLINE = "PIL.ImageOps huggingface_hub.hf_api huggingface_hub._snapshot_download t4sa_data.loading.hub"
IMPORTED = f"""{OFFLINE} PIL.JpegImagePlugin aiohttp charset_normalizer encodings.idna fsspec.implementations.http
multiprocessing.synchronize numpy.testing pandas platformdirs requests scipy.io scipy.sparse torch t4sa_data.pixels
t4sa_data.streaming t4sa_data.reading.remote"""
"""What each child would import."""
SPLITS = ["train", "validation", "test"]


class Reader:
    """A researcher's machine: each read is in a process of its own, forked from one that has the clients imported."""

    def __init__(self, hub: WritableHub, folder: Path, *, by_xet: bool, **more: str) -> None:
        folder.mkdir(exist_ok=True)
        settings = environment(hub, folder, token=READER, xet=by_xet)
        settings |= {"T4SA_NAMESPACE": "ours", "T4SA_CACHE": str(folder / "cache"), "IMPORTED": IMPORTED, **more}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self._process = subprocess.Popen([sys.executable, "-c", READS], env=settings, text=True, cwd=folder, **pipes)

    def __call__(self, what: str, splits: list[str] = SPLITS, **asked: object) -> dict[str, Any]:
        """Rows of some splits, or the error; with plain `datasets` everything is loaded first."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"what": what, "splits": splits, **asked}) + "\n")
        self._process.stdin.flush()
        heard = []
        while not (line := self._process.stdout.readline()).startswith("said "):
            assert line, "".join(heard[-30:])
            heard.append(line)
        assert not [secret for secret in USERS if secret in "".join([*heard, line])]
        return dict(json.loads(line.removeprefix("said ")))

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@contextmanager
def reader(hub: WritableHub, folder: Path, **options: Any) -> Iterator[Reader]:
    made = Reader(hub, folder, **options)
    try:
        yield made
    finally:
        made.close()


Rows = list[list[Any]]


def rows_of(archive: OfficialArchive) -> Rows:
    """What readers must get, by key."""
    return sorted([key, one["label"], one["sha256"]] for key, one in truth_of(archive).items())


BRIEF, OURS, STREAMED, ALL = 2, 4, 6, 8
"""How many of the ways."""


def ways(revision: str | None, num_ways: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Ways of reading a release, of a tag or of its line: some or all of this package's, then those of plain
    `datasets`, which knows no line."""
    at, pinned = (f"@{revision}", {"revision": revision}) if revision else ("", {})
    made: dict[str, tuple[str, dict[str, Any]]] = {
        "load_dataset": ("load", {"path": "t4sa", **pinned}),
        "stream, tar": ("stream", {"path": f"hf://datasets/ours/t4sa-wds{at}"}),
        "load_dataset, streaming": ("load", {"path": "t4sa", "streaming": True, **pinned}),
        "stream, Parquet": ("stream", {"path": f"hf://datasets/ours/t4sa{at}"}),
    }
    for streaming in (True, False):
        for repo_id in REPOSITORIES:
            made[f"datasets, {repo_id}, {streaming}"] = ("plain", {"path": repo_id, "streaming": streaming, **pinned})
    return dict(list(made.items())[:num_ways])


def all_read(read: Reader, revision: str | None, wanted: Rows, num_ways: int, first: int = 0) -> None:
    for name, (what, asked) in list(ways(revision, num_ways).items())[first:]:
        said = read(what, **asked)
        assert "rows" in said, (name, said)
        got = sorted(said["rows"])
        assert got == (wanted if what != "stream" else [one[:2] for one in wanted]), (name, len(got))


def none_read(read: Reader, revision: str | None, error: str, words: str, num_ways: int = BRIEF) -> None:
    """Ways of this package end with this error."""
    for name, (what, asked) in ways(revision, num_ways).items():
        said = read(what, **asked)
        assert said.get("error") == error and words in said["message"] and "\n" not in said["message"], (name, said)
        assert error != "ReleaseWithdrawn" or said["successor"] == "v1.0.1", (name, said)


def life(hub: WritableHub, folder: Path, *, by_xet: bool) -> None:
    archive = make_official_archive(folder / "raw", NUM_IMAGES)
    wanted, release = rows_of(archive), folder / "release"
    with commands(hub, folder, xet=by_xet) as t4sa, reader(hub, folder / "reader", by_xet=by_xet) as read:
        ok(t4sa, "prepare", archive.folder, "--out", release, "--shard-size", 30_000, "--workers", 1)
        (release / "rights.toml").write_text(RIGHTS.format(text="true"))
        hub_command = ("--namespace", "ours")
        ok(t4sa, "hub", "publish", release, *hub_command, "--version", "1.0.0")
        shutil.copytree(release, folder / "held")
        none_read(read, None, "HubAccessError", f"Ask for access on {hub.url}/datasets/ours/t4sa")
        for repo_id in REPOSITORIES:
            url = f"{hub.url}/datasets/{repo_id}/ask-access"
            assert ask(url, "POST", {"purpose": "a thesis"}, authorization=f"Bearer {READER}")[0].status == 200
        none_read(read, "v1.0.0", "HubAccessError", "waits for the maintainers' answer")
        assert "ada" in ok(t4sa, "hub", "requests", "list", *hub_command)
        ok(t4sa, "hub", "requests", "accept", "ada", *hub_command)
        all_read(read, "v1.0.0", wanted, ALL)
        gone = next(key for key, _, _ in wanted if archive.splits[key] == "train")
        take_down(t4sa, release, folder, gone)
        ok(t4sa, "hub", "verify", *hub_command, USE_TORCH="0")
        left = [one for one in wanted if one[0] != gone]
        none_read(read, "v1.0.0", "ReleaseWithdrawn", 'revision="v1.0.1"', OURS)
        for repo_id in REPOSITORIES:  # by the Hub's own names: `datasets` alone would read its cached copy
            said = read("load", path=repo_id, revision="v1.0.0", splits=["test"])
            assert said.get("error") == "ReleaseWithdrawn" and said["successor"] == "v1.0.1", said
        none_read_offline(read, hub, folder, by_xet=by_xet)
        all_read(read, None, left, OURS)
        assert sorted(read("load", path="ours/t4sa")["rows"]) == left
        all_read(read, "v1.0.1", left, ALL if by_xet else STREAMED, first=0 if by_xet else OURS)
        follow(t4sa, folder, gone, len(left))
        for repo_id in REPOSITORIES:
            hub.repos[repo_id].access["ada"].status = "rejected"
        none_read(read, None, "HubAccessError", "was rejected")
    assert hub.opened() == [] and hub.leaked() == []


def ok(t4sa: Commands, *arguments: object, **environment: str) -> str:
    code, said = t4sa.call(*arguments, **environment)
    assert code == 0, said
    return said


def take_down(t4sa: Commands, release: Path, folder: Path, key: str) -> None:
    ids = folder / "ids.txt"
    ids.write_text(f"{key}\n")
    asked = ("--ids", ids, "--namespace", "ours", "--version", "1.0.1", "--release", release, "--yes")
    assert key not in ok(t4sa, "hub", "takedown", *asked)


def none_read_offline(read: Reader, hub: WritableHub, folder: Path, *, by_xet: bool) -> None:
    """Without a connection the last visit's `releases.json` is what is known: the copies in the caches are not read."""
    for name in REPOSITORIES:
        said = read("stream", path=f"hf://datasets/{name}@v1.0.0", offline=True, splits=["test"])
        assert said.get("error") == "ReleaseWithdrawn" and said["successor"] == "v1.0.1", said
    requests = len(hub.log)
    off = {"HF_HUB_OFFLINE": "1", "USE_TORCH": "0", "IMPORTED": OFFLINE}
    with reader(hub, folder / "reader", by_xet=by_xet, **off) as offline:
        said = offline("load", path="t4sa", revision="v1.0.0", splits=["test"])
        assert said.get("error") == "ReleaseWithdrawn" and said["successor"] == "v1.0.1", said
    assert len(hub.log) == requests


def follow(t4sa: Commands, folder: Path, gone: str, num_left: int) -> None:
    """Somebody's copy goes along with the removal."""
    held = folder / "held"
    assert any(gone.encode() in path.read_bytes() for path in held.glob("t4sa*/**/*") if path.is_file())
    told = t4sa.call("removals", held, "--no-caches", token=READER, T4SA_NAMESPACE="ours")
    assert told[0] == 1 and "1 row(s)" in told[1], told
    done = t4sa.call("removals", held, "--no-caches", "--apply", token=READER, T4SA_NAMESPACE="ours")
    assert done[0] == 0, done
    for path in held.glob("t4sa*/**/*"):
        assert path.is_dir() or gone.encode() not in path.read_bytes(), path
    report = check_release(held, deep=True)
    assert report.ok, [str(fault) for fault in report.faults]


def test_the_life_of_a_release(tmp_path: Path) -> None:
    with WritableHub(tmp_path / "hub", users=USERS) as hub:
        life(hub, tmp_path, by_xet=False)


@pytest.mark.slow
def test_the_life_of_a_release_by_xet(tmp_path: Path) -> None:
    if not xet.works():
        pytest.skip("hf_xet does not write to a folder here")
    with WritableHub(tmp_path / "hub", users=USERS, xet=True) as hub:
        life(hub, tmp_path, by_xet=True)
        assert [line for line in hub.log if "xet-read-token" in line.path]
