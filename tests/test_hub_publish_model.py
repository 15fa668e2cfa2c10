"""`t4sa hub publish-model` and `fetch_model` with the real client: private, one commit, verified, tagged, pinned."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub_scripts.model_folder import read_model
from hub_scripts.publish_model import default_name
from t4sa_data import errors
from tests.hub_double import Fault, WritableHub, xet
from tests.publish_helpers import READER, USERS, commands, environment, final, reset, run

pytest.importorskip("torch")
import torch
from PIL import Image

from examples import predict
from examples.models import build, default_input
from examples.models.folder import Model, load_model, save_model

REPO = "ours/t4sa-smoke"
ARCHIVE = "ab" * 32
SERVER = """
import json, sys
from dataclasses import asdict
import hub_scripts.client
from hub_scripts.publish_model import fetch_model, publish_model
from t4sa_data.errors import T4SAError
hub_scripts.client.BACKOFF_SECONDS = 0.01
for line in sys.stdin:
    asked = json.loads(line)
    what, lines = asked.pop("what"), []
    try:
        if what == "publish":
            said = asdict(publish_model(**asked, namespace="ours", say=lines.append))
        else:
            said = {"folder": str(fetch_model(**asked))}
    except T4SAError as error:
        said = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(said | {"lines": lines}), flush=True)
"""
Ask = Callable[..., dict[str, Any]]


@contextmanager
def client(hub: WritableHub, folder: Path, *, xet: bool = False) -> Iterator[Ask]:
    """A process that publishes and fetches again and again."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env=environment(hub, folder, xet=xet),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )

    def ask(what: str, **options: object) -> dict[str, Any]:
        assert process.stdin and process.stdout
        given = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
        process.stdin.write(json.dumps({"what": what, **given}) + "\n")
        process.stdin.flush()
        while not (line := process.stdout.readline()).startswith("{"):
            assert line, "the client ended"
        assert not any(secret in line for secret in USERS)
        return dict(json.loads(line))

    with process:
        try:
            yield ask
        finally:
            assert process.stdin
            process.stdin.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WritableHub, Ask]]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "hub").mkdir()
    with WritableHub(folder / "hub", users=USERS) as hub, client(hub, folder) as ask:
        yield hub, ask


@pytest.fixture
def hub(served: tuple[WritableHub, Ask]) -> WritableHub:
    served[0].reset()
    return served[0]


@pytest.fixture
def ask(served: tuple[WritableHub, Ask]) -> Ask:
    return served[1]


def smoke(folder: Path, *, seed: int = 0, mean: bool = False, **more: Any) -> Path:
    """A small model that bears paths of a machine in its source."""
    torch.manual_seed(seed)
    source = {
        "archive": "net.tar.gz",
        "sha256": ARCHIVE,
        "recipe": {"out": "/srv/me/runs/a", "init": "caffe:/me/a,/me/b"},
    }
    made = Model(
        network=build("smoke", width=0.25),
        architecture="smoke",
        input=default_input("smoke"),
        width=0.25,
        mean_image=torch.full((3, 72, 72), 100.0) if mean else None,
        deploy="name: 'smoke'\n" if mean else None,
        source=source,
    )
    save_model(folder, made, **more)
    return folder


def write_run(folder: Path) -> Path:
    """A run with `best`, a checkpoint with an optimiser, `run.json` and an evaluation."""
    best = smoke(folder / "best")
    smoke(folder / "last", name="model-00000007", more={"optimizer-00000007": {"a": torch.zeros(3)}})
    known = {
        "digests": {"train": "cd" * 32},
        "git_revision": "12ab",
        "release": "/srv/me/data",
        "commands": ["/srv/me"],
    }
    (folder / "run.json").write_text(json.dumps(known))
    entry = {"accuracy": 0.5123, "low": 0.41, "high": 0.61, "n": 51000, "macro_f1": 0.4, "floor": 0.334}
    about = {
        "split": "test",
        "weights_sha256": read_model(best).weights_sha256,
        "content_digest": "ef" * 32,
    }
    results = {"about": about, "b-t4sa": entry, "twitter-testing": {"five_agree": entry | {"n": 882}}}
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "results.json").write_text(json.dumps(results))
    return folder


def card_of(hub: WritableHub, repo: str = REPO) -> tuple[dict[str, Any], str]:
    data = hub.repos[f"models/{repo}"].files()["README.md"].data
    assert data
    match = re.match(r"---\n(.*?)\n---\n", data.decode(), re.S)
    assert match
    return yaml.safe_load(match[1]), data.decode()[match.end() :]


def test_a_model_goes_up_and_comes_back(hub: WritableHub, ask: Ask, tmp_path: Path, capsys: Any) -> None:
    folder = smoke(tmp_path / "model", mean=True)
    done = ask("publish", directory=folder)
    repo = hub.repos[f"models/{REPO}"]
    assert (done["repo_id"], done["tag"], done["private"]) == (REPO, "v1.0.0", True)
    assert repo.private and repo.tags == {"v1.0.0": repo.head == done["commit"] and done["commit"]}
    assert len(repo.commits) == 2  # the Hub's first one, and ours
    files = ["deploy.prototxt", "mean.safetensors", "model.json", "model.safetensors"]
    assert sorted(repo.files()) == [".gitattributes", "README.md", *files]
    published = repo.files()["model.json"].data
    assert published and b"srv" not in published and b"/me/" not in published
    assert not hub.opened() and not hub.leaked()

    before = len(repo.commits), len(hub.history)
    assert ask("publish", directory=folder)["commit"] == done["commit"]
    assert len(repo.commits) == before[0]

    for revision in ("v1.0.0", done["commit"]):
        back = tmp_path / f"back-{revision}"
        assert ask("fetch", repo_id=REPO, revision=revision, folder=back)["folder"] == str(back)
        assert sorted(p.name for p in back.iterdir()) == files
        for name in ("deploy.prototxt", "mean.safetensors", "model.safetensors"):
            assert (back / name).read_bytes() == (folder / name).read_bytes()
    ours, theirs = load_model(folder), load_model(back)
    assert all(torch.equal(a, theirs.network.state_dict()[name]) for name, a in ours.network.state_dict().items())
    Image.new("RGB", (90, 70), (200, 30, 60)).save(tmp_path / "a.png")
    said = []
    for one in (folder, back):
        assert predict.main([str(tmp_path / "a.png"), "--model", str(one), "--json", "--device", "cpu"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1] and len(said[0]) == 1
    assert ask("publish", directory=back)["commit"] == done["commit"]  # what came back is what went up


def test_the_card(hub: WritableHub, ask: Ask, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    done = ask("publish", directory=folder / "best", run=folder, license_id="cc-by-nc-4.0", version="2.0.1")
    assert done["tag"] == "v2.0.1"
    head, text = card_of(hub)
    assert (
        head["license"] == "cc-by-nc-4.0" and head["datasets"] == ["ours/t4sa"] and head["library_name"] == "t4sa-data"
    )
    for words in (
        "negative, neutral, positive",
        "channels BGR",
        ARCHIVE,
        "cd" * 32,
        "ef" * 32,
        "| `b-t4sa` | 51,000 | 51.2 | 41.0 to 61.0 | 40.0 | 33.4 |",
        "| `twitter-testing, five_agree` |",
        'fetch_model("ours/t4sa-smoke", "v2.0.1", "MODEL")',
        read_model(folder / "best").weights_sha256,
    ):
        assert words in text
    assert "/srv" not in text and "/me" not in text
    assert any(request.path == "/api/validate-yaml" for request in hub.log)


def test_a_checkpoint_leaves_its_optimiser_here(hub: WritableHub, ask: Ask, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "evaluation" / "results.json").unlink()
    assert "error" not in ask("publish", directory=folder / "last", run=folder)
    files = hub.repos[f"models/{REPO}"].files()
    assert set(files) == {".gitattributes", "README.md", "model.json", "model-00000007.safetensors"}
    assert b"optimizer" not in (files["model.json"].data or b"")
    assert "None is recorded." in card_of(hub)[1]


def test_a_tag_never_moves(hub: WritableHub, ask: Ask, tmp_path: Path) -> None:
    first = ask("publish", directory=smoke(tmp_path / "a"))
    other = smoke(tmp_path / "b", seed=1, name="other")
    assert ask("publish", directory=other)["error"] == "VersionTaken"
    second = ask("publish", directory=other, version="1.1.0")
    repo = hub.repos[f"models/{REPO}"]
    assert repo.tags == {"v1.0.0": first["commit"], "v1.1.0": second["commit"]}
    assert "model.safetensors" not in repo.files() and "other.safetensors" in repo.files()
    third = smoke(tmp_path / "c", seed=2)
    assert ask("publish", directory=third, version="1.0.5")["error"] == "VersionTaken"
    assert ask("fetch", repo_id=REPO, revision="v1.0.0", folder=tmp_path / "back")["folder"]
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def test_public_only_when_said(hub: WritableHub, ask: Ask, tmp_path: Path) -> None:
    folder = smoke(tmp_path / "model")
    for wrong in ({}, {"license_id": "unknown"}, {"license_id": "Not an id"}):
        assert ask("publish", directory=folder, public=True, **wrong)["error"] == "BadOption"
    assert not hub.log
    done = ask("publish", directory=folder, public=True, license_id="cc-by-nc-4.0")
    repo = hub.repos[f"models/{REPO}"]
    assert not done["private"] and not repo.private
    first = next(k for k, moment in enumerate(hub.history) if any(door.open for door in moment.repos.values()))
    assert hub.history[first].request.startswith("PUT")  # the settings: after the tag, not before
    assert [r.method for r in hub.log if "/tag/" in r.path] == ["POST"]
    assert max(r.number for r in hub.log if "/tag/" in r.path) < hub.history[first].number
    other = smoke(tmp_path / "other", seed=3)
    assert ask("publish", directory=other, version="2.0.0", license_id="cc-by-nc-4.0")["error"] == "BadOption"
    assert list(repo.tags) == ["v1.0.0"]


def test_what_is_refused_before_a_byte_is_sent(hub: WritableHub, ask: Ask, tmp_path: Path) -> None:
    whole = smoke(tmp_path / "whole")
    (whole / "evaluation").mkdir()  # of evaluate.py: passed over

    def broken(name: str, change: Callable[[Path], object]) -> str:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        change(folder)
        return str(ask("publish", directory=folder)["error"])

    def edit(**values: Any) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            value = json.loads((folder / "model.json").read_text())
            (folder / "model.json").write_text(json.dumps(value | values))

        return change

    def pickled(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"no tensors at all")
        edit(files={"model.safetensors": hashlib.sha256(b"no tensors at all").hexdigest()})(folder)

    assert broken("extra", lambda f: (f / "notes.txt").write_text("x")) == "ForeignFiles"
    assert broken("folder", lambda f: (f / "code").mkdir()) == "ForeignFiles"
    assert broken("bytes", lambda f: (f / "model.safetensors").write_bytes(b"x" * 99)) == "ChecksumMismatch"
    assert broken("gone", lambda f: (f / "model.safetensors").unlink()) == "ModelFolderError"
    assert broken("none", lambda f: (f / "model.json").unlink()) == "InputMissing"
    assert broken("format", edit(format=2)) == "ModelFolderError"
    assert broken("place", edit(files={"../a.safetensors": "0" * 64})) == "ModelFolderError"
    assert broken("weights", edit(weights="other.safetensors")) == "ModelFolderError"
    assert broken("json", lambda f: (f / "model.json").write_text("{")) == "ModelFolderError"
    assert broken("pickled", pickled) == "ModelFolderError"
    for options in ({"version": "1"}, {"name": "a/b"}, {"name": "--"}):
        assert ask("publish", directory=whole, **options)["error"] == "BadOption"
    run_folder = write_run(tmp_path / "run")
    stranger = smoke(tmp_path / "stranger", seed=9)
    assert ask("publish", directory=stranger, run=run_folder)["error"] == "BadOption"  # evaluated: other weights
    (run_folder / "evaluation" / "results.json").unlink()
    assert ask("publish", directory=stranger, run=run_folder)["error"] == "BadOption"
    assert ask("publish", directory=whole, run=tmp_path)["error"] == "InputMissing"
    assert not hub.repos


def test_somebody_elses_repository(hub: WritableHub, ask: Ask, tmp_path: Path) -> None:
    from tests.hub_double import Repo
    from tests.hub_double.state import Blob

    repo = hub.repos[f"models/{REPO}"] = Repo(REPO, "model")
    repo.add(
        "main", {**repo.files(), "model.safetensors": Blob.small(b"x"), "config.json": Blob.small(b"{}")}, "theirs"
    )
    assert ask("publish", directory=smoke(tmp_path / "model"))["error"] == "ForeignFiles"
    assert len(repo.commits) == 2 and not repo.tags


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*/repos/create", kind="503", done=True, times=9),
        Fault("POST .*/commit/main", kind="drop", done=True),
        Fault("POST .*/tag/", kind="drop", done=True),
        Fault("PUT /_storage/", kind="expired"),
    ],
    ids=["created", "committed", "tagged", "expired"],
)
def test_what_was_broken_off_goes_on(hub: WritableHub, ask: Ask, tmp_path: Path, fault: Fault) -> None:
    folder = smoke(tmp_path / "model")
    hub.faults.append(fault)
    if "error" in ask("publish", directory=folder):
        hub.faults.clear()
        assert "error" not in ask("publish", directory=folder)
    repo = hub.repos[f"models/{REPO}"]
    assert len(repo.commits) == 2 and repo.tags == {"v1.0.0": repo.head} and repo.private


def test_only_what_is_pinned_comes(hub: WritableHub, ask: Ask, tmp_path: Path) -> None:
    done = ask("publish", directory=smoke(tmp_path / "model"))
    for revision, error in (
        ("main", "BadOption"),
        ("refs/heads/main", "BadOption"),
        (done["commit"][:12], "UnknownRevision"),
        ("v9.0.0", "UnknownRevision"),
        ("0" * 40, "UnknownRevision"),
    ):
        assert ask("fetch", repo_id=REPO, revision=revision, folder=tmp_path / "back")["error"] == error
    assert ask("fetch", repo_id="ours/nothing", revision="v1.0.0", folder=tmp_path / "back")["error"] == "NotPublished"
    assert ask("fetch", repo_id=REPO, revision="v1.0.0", folder=tmp_path / "model")["error"] == "ForeignFiles"
    repo = hub.repos[f"models/{REPO}"]
    stored = next(one for one in repo.objects.values() if one.path).path
    assert stored
    stored.write_bytes(bytes(reversed(stored.read_bytes())))
    assert ask("fetch", repo_id=REPO, revision="v1.0.0", folder=tmp_path / "back")["error"] == "ChecksumMismatch"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_the_command(hub: WritableHub, tmp_path: Path) -> None:
    folder = smoke(tmp_path / "model")
    code, out, _ = run(hub, tmp_path, "publish-model", folder, "--namespace", "ours", "--name", "mine")
    head = hub.repos["models/ours/mine"].head
    assert (code, out) == (0, f"ours/mine v1.0.0 {head} private\n")
    (folder / "notes.txt").write_text("x")
    code, _, said = run(hub, tmp_path, "publish-model", folder, "--namespace", "ours")
    assert code == 2 and said.count("\n") == 1 and "notes.txt" in said
    (folder / "notes.txt").unlink()
    assert run(hub, tmp_path, "publish-model", folder, "--namespace", "ours", token=READER)[0] == 3


def test_names_of_repositories() -> None:
    assert default_name({"architecture": "caffe", "source": {"system": "Hybrid-T4SA FT-A"}}) == "hybrid-t4sa-ft-a"
    with pytest.raises(errors.BadOption):
        default_name({"architecture": "caffe", "source": {}})


@pytest.mark.slow
def test_killed_after_each_request(tmp_path: Path) -> None:
    folder = smoke(tmp_path / "model")
    (tmp_path / "hub").mkdir()
    asked = ("publish-model", folder, "--namespace", "ours", "--public", "--license", "cc-by-nc-4.0")
    with WritableHub(tmp_path / "hub", users=USERS) as hub, commands(hub, tmp_path) as made:
        assert made.run(*asked)[0] == 0
        wanted, count = final(hub), len(hub.log)
        for k in range(1, count):
            reset(hub)
            assert made.run(*asked, kill_after=k)[0] in (-9, 0)
            opened = [m.number for m in hub.history if any(door.open for door in m.repos.values())]
            assert not opened or hub.repos[f"models/{REPO}"].tags
            code, said = made.run(*asked)
            assert code == 0, said
            assert final(hub) == wanted, k


@pytest.mark.slow
def test_by_xet(tmp_path: Path) -> None:
    if not xet.works():
        pytest.skip("this hf_xet has no local store")
    folder = smoke(tmp_path / "model", mean=True)
    (tmp_path / "hub").mkdir()
    with WritableHub(tmp_path / "hub", users=USERS, xet=True) as hub, client(hub, tmp_path, xet=True) as ask:
        done = ask("publish", directory=folder)
        assert ask("publish", directory=folder)["commit"] == done["commit"] == hub.repos[f"models/{REPO}"].head
        assert not any(request.path.startswith("/_storage/") for request in hub.log)
        assert ask("fetch", repo_id=REPO, revision="v1.0.0", folder=tmp_path / "back")["folder"]
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
