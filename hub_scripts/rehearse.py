"""A rehearsal on a Hub: publish, gate, verify, takedown and deletion of drawn pictures in two throwaway repositories,
with the code that does it for T4SA. What the Hub answers is compared with what the double of the tests answers.

Nothing is touched but the two repositories made here, under random names; they are deleted whatever happened.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from hub_scripts import access, gate
from hub_scripts.client import Hub, again, explain, repositories_named
from hub_scripts.publish import publish
from hub_scripts.rehearse_cli import rehearse_command
from hub_scripts.rights import RIGHTS_NAME
from hub_scripts.shapes import Asked, Recorder, Shapes, differences, entry, known_shapes, recording
from hub_scripts.takedown import takedown
from hub_scripts.takedown_note import KEY_VARIABLE
from hub_scripts.verify import verify
from t4sa_data.errors import (
    CredentialsError,
    HubAccessError,
    HubConflict,
    HubRefused,
    OpenDoor,
    RehearsalFailed,
    T4SAError,
)
from t4sa_data.manifest import FOLDERS, MANIFEST_NAME, load_manifest
from t4sa_data.shards import TABLE_NAME, read_table

__all__ = ["Report", "Step", "rehearse", "rehearse_command"]

NAMES = {"parquet": "t4sa-rehearsal-{}", "wds": "t4sa-rehearsal-{}-wds"}
VERSIONS = ("1.0.0", "1.0.1", "1.0.2")
"""Published, published by a branch, left after the takedown."""
NUM_SAMPLES, SHARD_BYTES = 36, 60_000
"""Of the miniature: three classes in three splits, two shards of the largest split."""
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
Outcome = Literal["ok", "differs", "failed"]
Say = Callable[[str], object]
Show = Callable[[dict[str, Any]], object]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part of the rehearsal."""

    name: str
    outcome: Outcome
    """`differs`: done, and the Hub answered otherwise than the double."""
    words: str = ""
    """What was seen, or the error."""


@dataclass(kw_only=True)
class Report:
    """What came of it."""

    steps: list[Step] = field(default_factory=list)
    shapes: list[dict[str, Any]] = field(default_factory=list)
    """To be added to the double: `add`, a shape, and `differs`, what is new in it."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Every shape that was answered."""
    left: list[str] = field(default_factory=list)
    """Repositories that are still there."""
    num_faults: int = 0
    """Answers that were faults of the Hub (429, 5xx); their shapes are not compared."""

    @property
    def ok(self) -> bool:
        """Whether all was done, and answered as by the double."""
        return all(step.outcome == "ok" for step in self.steps)


def rehearse(
    namespace: str,
    *,
    is_open: bool = False,
    keep: bool = False,
    token: str | None = None,
    say: Say = lambda _line: None,
    detail: Say = lambda _line: None,
    show: Show = lambda _shape: None,
) -> Report:
    """Rehearse in two new private repositories of a namespace, at `$HF_ENDPOINT`, else the public Hub.

    Args:
        namespace: account or organisation that you may create repositories in.
        is_open: open them with their gate, as a release is; False: they stay private, gate set.
        keep: leave them there.
        token: None: the client's own way (`HF_TOKEN`, `hf auth login`).
        say: gets a line a step.
        detail: gets what publishing and takedown say meanwhile.
        show: gets each shape to add to the double as soon as it is seen.

    Raises:
        HubAccessError: no token, or one that may not create repositories there.
        KeyboardInterrupt: stopped; what was made is deleted first.
    """
    code = secrets.token_hex(4)
    names = {fmt: name.format(code) for fmt, name in NAMES.items()}
    with TemporaryDirectory(prefix="t4sa-rehearsal-") as folder, repositories_named(names):
        hub = Hub(namespace=namespace, token=token)
        recorder = Recorder(hub.api.endpoint)
        with recording(recorder), _own_key(Path(folder) / "removals.key"):
            run = _Rehearsal(hub, Path(folder) / "release", recorder, is_open, (say, detail, show))
            try:
                run.all()
            finally:
                run.end(keep)
    run.report.seen = [entry(asked, shape) for asked, shape in sorted(recorder.all.items(), key=lambda item: item[0])]
    run.report.num_faults = recorder.num_faults
    return run.report


@contextmanager
def _own_key(path: Path) -> Iterator[None]:
    """A key of removals for this run: the maintainers' own is neither made nor used."""
    before = os.environ.get(KEY_VARIABLE)
    os.environ[KEY_VARIABLE] = str(path)
    try:
        yield
    finally:
        del os.environ[KEY_VARIABLE]
        if before is not None:
            os.environ[KEY_VARIABLE] = before


class _Rehearsal:
    """The steps, in order. Each returns words on what was seen, or raises."""

    def __init__(
        self,
        hub: Hub,
        release: Path,
        recorder: Recorder,
        is_open: bool,
        tell: tuple[Say, Say, Show],
    ) -> None:
        self.hub, self.release, self.recorder, self.is_open = hub, release, recorder, is_open
        self.say, self.detail, self.show = tell
        self.report, self.known = Report(), known_shapes()
        self.told: set[tuple[Asked, str]] = set()
        """Differences that were shown."""
        self.repo_ids = {fmt: hub.repository(fmt) for fmt in NAMES}
        self.made: set[str] = set()
        """Repositories that this run made, or may have made where the answer was lost."""
        self.old: dict[str, dict[str, dict[str, str]]] = {}
        """Repository -> revision -> large file -> sha256, before the takedown."""

    def all(self) -> None:
        """All but the deletion; what cannot be without a step that failed is left out."""
        if not (self.step("create", self.create) and self.step("publish", lambda: self.publish(0))):
            return
        for name, work in (
            ("upload", self.upload),
            ("gate", self.gate),
            ("tag", self.tag),
            ("releases.json", lambda: self.releases(VERSIONS[0])),
        ):
            self.step(name, work)
        if not self.step("second version", lambda: self.publish(1)):
            return
        for name, work in (("requests", self.requests), ("anonymous", self.anonymous), ("verify", self.verify)):
            self.step(name, work)
        if self.step("takedown", self.takedown):
            self.step("old addresses", self.gone)
            self.step("verify after it", self.verify)

    def end(self, keep: bool) -> None:
        """Delete what was made, and say what is left."""
        try:
            if self.made and not keep:
                self.step("delete", self.delete)
        finally:
            self.report.left = sorted(self.made)
            for repo_id in self.report.left:
                self.say(f"left on the Hub: {repo_id}; delete it: hf repos delete {repo_id} --repo-type dataset")
            self._forget()

    def step(self, name: str, work: Callable[[], str]) -> bool:
        """Do one, and compare what was answered; whether it was done."""
        outcome: Outcome = "ok"
        try:
            words = work()
        except (CredentialsError, HubAccessError) as error:
            if name == "create":
                raise
            outcome, words = "failed", str(error)
        except T4SAError as error:
            outcome, words = "failed", str(error)
        except Exception as error:  # the rehearsal is there to meet what nobody expected
            said = re.sub(r"https?://\S+|hf_\w+", "...", str(error).partition("\n")[0])
            outcome, words = "failed", f"{type(error).__name__}: {said[:300]}"
        if self.compare(self.recorder.take()) and outcome == "ok":
            outcome = "differs"
        self.report.steps.append(Step(name=name, outcome=outcome, words=words))
        self.say(f"{outcome:<8}{name}: {words}")
        return outcome != "failed"

    def compare(self, seen: Shapes) -> bool:
        """Whether something of it is not the double's; each difference is shown once."""
        is_other = False
        for asked, shape in sorted(seen.items(), key=lambda item: item[0]):
            lines = differences(asked, shape, self.known)
            is_other = is_other or bool(lines)
            if new := [line for line in lines if (asked, line) not in self.told]:
                self.told.update((asked, line) for line in new)
                value = {"add": entry(asked, shape), "differs": new}
                self.report.shapes.append(value)
                self.show(value)
        return is_other

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
        """One sample out of both, and nothing of the old versions is left."""
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
            release=self.release,
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

    def _forget(self) -> None:
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
