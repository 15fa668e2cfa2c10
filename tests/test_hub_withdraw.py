"""Withdrawing older versions: for a file that should not have been published, once a version without it is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_scripts.publish import publish
from hub_scripts.withdraw import withdraw
from t4sa_data import errors
from t4sa_data.releases_file import RELEASES_NAME, parse_releases
from tests.hub_double import WritableHub
from tests.hub_double.recorded import ask
from tests.publish_helpers import TOKEN, USERS, final, run, write_release

REPOSITORIES = ("ours/t4sa", "ours/t4sa-wds")


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """With a file too many, and without it."""
    root = tmp_path_factory.mktemp("releases")
    return write_release(root / "1", 36), write_release(root / "2", 30)


@pytest.fixture
def double(tmp_path: Path, releases: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A Hub with both versions."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with WritableHub(tmp_path / "hub", users=USERS) as made:
        for folder, version in zip(releases, ("1.0.0", "1.0.1"), strict=True):
            publish(folder, namespace="ours", version=version, endpoint=made.url, token=TOKEN)
        yield made


def go(double: WritableHub, version: str = "1.0.1", *, yes: bool = True, **options: object) -> list[object]:
    return list(
        withdraw(  # type: ignore[call-overload,misc]
            namespace="ours",
            version=version,
            confirm=lambda _question: yes,
            endpoint=double.url,
            token=TOKEN,
            **options,
        )
    )


def test_nothing_is_left_of_the_older_version(double: WritableHub) -> None:
    kept = {name: final(double)[name]["tags"]["v1.0.1"] for name in REPOSITORIES}
    old = {name: double.repos[name].tags["v1.0.0"] for name in REPOSITORIES}
    done = go(double)
    assert [(one.repo_id, one.is_done) for one in done] == [(name, True) for name in REPOSITORIES]  # type: ignore[attr-defined]
    assert all(one.objects > 0 for one in done)  # type: ignore[attr-defined]
    for name in REPOSITORIES:
        repo = double.repos[name]
        there = final(double)[name]["tags"]["v1.0.1"]
        assert list(repo.tags) == ["v1.0.1"] and there | {RELEASES_NAME: ""} == kept[name] | {RELEASES_NAME: ""}
        assert len(repo.history(repo.head)) == 1
        told = parse_releases(repo.files()[RELEASES_NAME].data or b"", name)
        assert (told.current, told.releases["v1.0.0"].state, told.releases["v1.0.0"].successor) == (
            "v1.0.1",
            "withdrawn",
            "v1.0.1",
        )
        assert told.removals.count == 0
        for revision in ("v1.0.0", old[name]):
            url = f"{double.url}/datasets/{name}/resolve/{revision}/manifest.json"
            assert ask(url, "HEAD", Authorization=f"Bearer {TOKEN}")[0].status == 404
    assert double.opened() == []
    before = final(double)
    go(double)
    assert final(double) == before


@pytest.mark.parametrize(("name", "is_gone"), [("texts.parquet", True), ("notes.txt", False)])
def test_a_file_that_stood_on_main_for_a_while(
    double: WritableHub, releases: tuple[Path, Path], name: str, is_gone: bool
) -> None:
    # A large file goes for good; a small one stays in git at a commit that nobody names any more, and that is told.
    from huggingface_hub import HfApi

    go(double)
    api = HfApi(endpoint=double.url, token=TOKEN)
    api.upload_file(path_or_fileobj=b"x" * 100, path_in_repo=name, repo_id="ours/t4sa", repo_type="dataset")
    commit = double.repos["ours/t4sa"].head
    publish(releases[1], namespace="ours", version="1.0.2", endpoint=double.url, token=TOKEN)
    if is_gone:
        go(double, "1.0.2")
    else:
        with pytest.raises(errors.TakedownRefused, match=rf"got {name} \[ours/t4sa@{commit}\].*support"):
            go(double, "1.0.2")
    url = f"{double.url}/datasets/ours/t4sa/resolve/{commit}/{name}"
    assert (ask(url, "HEAD", Authorization=f"Bearer {TOKEN}")[0].status == 404) == is_gone
    assert [list(repo.tags) for repo in double.repos.values()] == [["v1.0.2"]] * 2


def test_a_dry_run_and_a_no_delete_nothing(double: WritableHub) -> None:
    before, said = final(double), list[str]()
    assert go(double, dry_run=True, say=said.append) == []
    assert final(double) == before
    assert said[0].startswith("ours/t4sa: before v1.0.1: v1.0.0; ") and "b-t4sa/index.parquet" in said[0]
    assert not any(one.is_done for one in go(double, yes=False))  # type: ignore[attr-defined]
    assert [list(repo.tags) for repo in double.repos.values()] == [["v1.0.0", "v1.0.1"]] * 2
    assert all(one.is_done for one in go(double))  # type: ignore[attr-defined]


def test_only_what_is_older_than_the_current_one(double: WritableHub, tmp_path: Path) -> None:
    before = final(double)
    for version in ("1.0.0", "1.0.2"):
        with pytest.raises(errors.TakedownRefused, match=r"before the current one.*expected v1\.0\.1"):
            go(double, version)
    with pytest.raises(errors.BadOption):
        go(double, "1.0")
    assert final(double) == before
    status, out, err = run(double, tmp_path, "withdraw", "--namespace", "ours", "--version", "1.0.1")
    assert (status, "older ones still there" in out, "not confirmed" in err) == (2, True, True)
    status, out, _ = run(double, tmp_path, "withdraw", "--namespace", "ours", "--version", "1.0.1", "--yes")
    assert status == 0 and "large files" in out
