"""What a rehearsal does on a Hub, step by step; `hub_scripts.rehearse` runs them and compares the answers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from hub_scripts import access, gate
from hub_scripts.client import Hub, again, explain
from hub_scripts.publish import publish
from hub_scripts.rights import RIGHTS_NAME
from hub_scripts.takedown import takedown
from hub_scripts.verify import verify
from t4sa_data.errors import HubAccessError, HubConflict, HubRefused, OpenDoor, RehearsalFailed
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, load_manifest
from t4sa_data.shards import TABLE_NAME, read_table

NAMES = {"parquet": "t4sa-rehearsal-{}", "wds": "t4sa-rehearsal-{}-wds"}
VERSIONS = ("1.0.0", "1.0.1", "1.0.2")
"""Published, published by a branch, left after the takedown."""
NUM_SAMPLES, SHARD_BYTES = 60, 250_000
"""Of the miniature: three classes in three splits, a shard each; so few that no rate limit is near."""
RIGHTS = """\
[rights]
granted_by = "nobody: drawn pictures"
date = "2026-01-02"
scope = "a rehearsal"
covers_text = true

[contact]
removals = "nobody@example.org"

[screen]
tool = "none: drawn pictures"
list_version = "0"
date = "2026-01-02"
matched = 0
"""
Say = Callable[[str], object]


class Steps:
    """The steps. Each returns words on what was seen, or raises."""

    def __init__(self, hub: Hub, release: Path, *, is_open: bool, detail: Say) -> None:
        self.hub, self.release, self.is_open, self.detail = hub, release, is_open, detail
        self.repo_ids = {fmt: hub.repository(fmt) for fmt in NAMES}
        self.made: set[str] = set()
        """Repositories that this run made, or may have made where the answer was lost."""
        self.old: dict[str, dict[str, dict[str, str]]] = {}
        """Repository -> revision -> large file -> sha256, before the takedown."""

    def create(self) -> str:
        """Two private repositories, of names that nobody has."""
        for repo_id in self.repo_ids.values():
            if self.hub.state(repo_id) is not None:
                raise HubConflict("a repository of this random name is there", where=repo_id, hint="Run it again.")
            self.made.add(repo_id)
            try:
                with explain(repo_id):
                    self.hub.api.create_repo(repo_id, private=True, repo_type="dataset", exist_ok=False)
            except (HubAccessError, HubConflict, HubRefused):
                self.made.discard(repo_id)
                raise
            state = self.hub.need_state(repo_id)
            expect(repo_id, "private", state.private, True)
        return f"{', '.join(self.repo_ids.values())}: private"

    def publish(self, number: int) -> str:
        """Other pictures under each version: the second one goes by a branch."""
        from t4sa_data.testing import make_release

        make_release(self.release, NUM_SAMPLES, seed=number, shard_bytes=SHARD_BYTES)
        (self.release / RIGHTS_NAME).write_text(RIGHTS, encoding="utf-8")
        done = publish(
            self.release,
            namespace=self.hub.namespace,
            version=VERSIONS[number],
            keep_private=not self.is_open,
            token=self.hub.token,
            say=self.detail,
        )
        for one in done:
            state = self.hub.need_state(one.repo_id)
            expect(one.repo_id, "private", state.private, not self.is_open)
            expect(one.repo_id, "gate", state.gated, "manual")
            expect(one.repo_id, "branches", sorted(state.branches), ["main"])
        return f"v{VERSIONS[number]}, {'open' if self.is_open else 'private'}, gate manual"

    def upload(self) -> str:
        """What arrived, by sha256; every large file is in LFS or Xet."""
        count = 0
        for fmt, repo_id in self.repo_ids.items():
            tree = self.hub.tree(repo_id, f"v{VERSIONS[0]}")
            for file in load_manifest(self.release / FOLDERS[fmt]).files:
                if file.layer is not None:
                    expect(f"{repo_id}: {file.name}", "sha256", tree[file.name].sha256, file.sha256)
                    count += 1
        return f"sha256 of {count} shards"

    def gate(self) -> str:
        """Set, read back, set again to the same."""
        for repo_id in self.repo_ids.values():
            modes: tuple[gate.Mode, ...] = ("manual",) if self.is_open else ("auto", "manual")
            for mode in modes:
                gate.set_mode(self.hub, repo_id, mode)
                expect(repo_id, "gate", self.hub.need_state(repo_id).gated, mode)
            expect(repo_id, "change of the gate", gate.set_mode(self.hub, repo_id, "manual"), False)
            with explain(repo_id):
                self.hub.api.update_repo_settings(repo_id, gated="manual", repo_type="dataset")
            state = self.hub.need_state(repo_id)
            expect(repo_id, "gate and privacy", (state.gated, state.private), ("manual", not self.is_open))
        return "manual; set again, it stays; so does the visibility"

    def tag(self) -> str:
        """It is there, and the Hub makes no second one of its name."""
        for repo_id in self.repo_ids.values():
            tags = self.hub.need_state(repo_id).tags
            expect(repo_id, "tags", sorted(tags), [f"v{VERSIONS[0]}"])
            try:
                with explain(repo_id):
                    self.hub.api.create_tag(repo_id, tag=f"v{VERSIONS[0]}", revision="main", repo_type="dataset")
            except HubConflict:
                expect(repo_id, "tags", self.hub.need_state(repo_id).tags, tags)
                continue
            raise RehearsalFailed("the Hub made a tag that was there", where=repo_id)
        return "made; refused a second time"

    def releases(self, version: str) -> str:
        """The version is current in both."""
        for repo_id in self.repo_ids.values():
            expect(repo_id, "current release", self.hub.releases(repo_id).current, f"v{version}")
        return f"v{version} is current"

    def requests(self) -> str:
        """Nobody asked: there is nothing to list, in any state."""
        asked = access.requests(self.hub, list(self.repo_ids.values()), access.STATUSES)
        expect(self.hub.namespace, "number of requests", len(asked), 0)
        return "none pending, accepted or rejected"

    def anonymous(self) -> str:
        """Who has no token gets no file."""
        for repo_id in self.repo_ids.values():
            shard = next(path for path, file in self.hub.tree(repo_id, "main").items() if file.sha256)
            for path in (MANIFEST_NAME, shard):
                if self._status(repo_id, path, "main", token=False) not in (401, 403, 404):
                    raise OpenDoor("anonymous readers get a file", got=path, where=repo_id)
        return "refused"

    def verify(self) -> str:
        """As each night."""
        report = verify(self.hub.namespace, token=self.hub.token, num_samples=3, seed=0)
        faults = [fault for fault in report.faults if self.is_open or ": private: nobody" not in fault]
        if faults:
            raise RehearsalFailed(f"{len(faults)} fault(s)", got="; ".join(faults[:3]), where=self.hub.namespace)
        return ", ".join(f"{one.get('files')} files, {one.get('rows')} rows" for one in report.checked.values())

    def takedown(self) -> str:
        """One sample out of both, without the release at hand, and nothing of the old versions is left."""
        for repo_id in self.repo_ids.values():
            state = self.hub.need_state(repo_id)
            self.old[repo_id] = {
                revision: {path: file.sha256 for path, file in self.hub.tree(repo_id, revision).items() if file.sha256}
                for revision in (*state.tags, *state.tags.values())
            }
        key = read_table(self.release / FOLDERS["parquet"] / "b-t4sa" / TABLE_NAME, ["key"])["key"][0].as_py()
        done = takedown(
            [key],
            namespace=self.hub.namespace,
            version=VERSIONS[2],
            work=self.release.parent / "takedown",
            confirm=lambda _question: True,
            token=self.hub.token,
            say=self.detail,
        )
        for one in done:
            state = self.hub.need_state(one.repo_id)
            expect(one.repo_id, "samples removed", one.count, 1)
            expect(one.repo_id, "tags", sorted(state.tags), [f"v{VERSIONS[2]}"])
            expect(one.repo_id, "private", state.private, not self.is_open)
            with explain(one.repo_id):
                commits = self.hub.api.list_repo_commits(one.repo_id, repo_type="dataset")
            expect(one.repo_id, "commits", len(list(commits)), 1)
        return (
            f"1 sample, {sum(one.objects for one in done)} large files deleted for good; {self.releases(VERSIONS[2])}"
        )

    def gone(self) -> str:
        """What is in no current file is to be had by no old tag or commit."""
        count = 0
        for repo_id, revisions in self.old.items():
            kept = {file.sha256 for file in self.hub.tree(repo_id, "main").values()}
            for revision, files in revisions.items():
                for path in [path for path, sha256 in files.items() if sha256 not in kept][:2]:
                    status = self._status(repo_id, path, revision, token=None)
                    expect(f"{repo_id}@{revision}: {path}", "status", status, 404)
                    count += 1
        return f"{count} of them answer 404"

    def delete(self) -> str:
        """Both, each whatever became of the other."""
        deleted, failed = list[str](), list[BaseException]()
        for repo_id in sorted(self.made):
            try:
                again(lambda repo_id=repo_id: self._delete(repo_id), self.detail)  # type: ignore[misc]
                expect(repo_id, "what is there", self.hub.state(repo_id), None)
                self.made.discard(repo_id)
                deleted.append(repo_id)
            except BaseException as error:  # one more Ctrl-C: the other one is deleted all the same
                failed.append(error)
        if failed:
            raise failed[0]
        return ", ".join(deleted)

    def _delete(self, repo_id: str) -> None:
        with explain(repo_id):
            self.hub.api.delete_repo(repo_id, repo_type="dataset", missing_ok=True)

    def _status(self, repo_id: str, path: str, revision: str, *, token: Literal[False] | None) -> int:
        """Of the answer to a HEAD on a file; 200 where it is to be had."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        url = hf_hub_url(repo_id, path, repo_type="dataset", revision=revision, endpoint=self.hub.api.endpoint)
        with explain(repo_id, revision):
            try:
                self.hub.api.get_hf_file_metadata(url=url, token=token if token is False else self.hub.token)
            except HfHubHTTPError as error:
                if error.response is None or error.response.status_code not in (401, 403, 404):
                    raise
                return int(error.response.status_code)
        return 200

    def forget(self) -> None:
        """Remove what the client keeps of these repositories in its cache."""
        from huggingface_hub import constants

        for repo_id in self.repo_ids.values():
            name = f"datasets--{repo_id.replace('/', '--')}"
            for folder in (Path(constants.HF_HUB_CACHE) / name, Path(constants.HF_HUB_CACHE) / ".locks" / name):
                shutil.rmtree(folder, ignore_errors=True)
            if (datasets := sys.modules.get("datasets")) is not None:
                for lock in Path(datasets.config.HF_DATASETS_CACHE).glob(f"*_{repo_id.replace('/', '___')}_*.lock"):
                    lock.unlink(missing_ok=True)


def expect(where: str, what: str, got: object, expected: object) -> None:
    """Raises RehearsalFailed where something is not as it should be."""
    if got != expected:
        raise RehearsalFailed(
            f"{what} is not what it should be", expected=_plain(expected), got=_plain(got), where=where
        )


def _plain(value: object) -> str:
    return str(dict(value) if isinstance(value, Mapping) else value)
