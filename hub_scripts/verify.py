"""Whether what is on the Hub is what was built, and whether only those who may can read it. Made for a nightly job: one
line per fault, nothing written anywhere. What could not be looked at (no connection, a token that is not taken) is told
apart from faults, and is never taken for their absence.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hub_scripts.client import ATTEMPTS, Hub, RepositoryState, again, explain
from hub_scripts.verify_cli import NUM_SAMPLES, verify_command
from hub_scripts.verify_rows import NOT_CONTENT, check_rows
from t4sa_data.errors import CredentialsError, DownloadError, HubAccessError, HubUnreachable, T4SAError
from t4sa_data.manifest import MANIFEST_NAME, Manifest, parse_manifest
from t4sa_data.releases_file import RELEASES_NAME, Releases, is_tag, parse_releases
from t4sa_data.testing.check_documents import CROISSANT_NAME, README_NAME, check_documents
from t4sa_data.testing.faults import Faults

__all__ = ["Report", "verify", "verify_command"]

FORMATS = ("parquet", "wds")
BESIDE = (".gitattributes", RELEASES_NAME)
"""Files of a repository that no manifest names."""


@dataclass(kw_only=True)
class Report:
    """What was found."""

    faults: list[str] = field(default_factory=list)
    """One line each: `repository: what`."""
    unseen: list[str] = field(default_factory=list)
    """What could not be looked at, and why; of it nothing is known. One line each, as `faults`."""
    no_access: bool = False
    """Whether some of that is for want of a token that is taken."""
    warnings: list[str] = field(default_factory=list)
    """What is no fault, but should be known."""
    checked: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Repository -> revision, commit, number of files, bytes, rows read, which readers without access were tried."""

    @property
    def ok(self) -> bool:
        """Whether all was looked at, and there is no fault."""
        return not self.faults and not self.unseen


def verify(
    namespace: str,
    revision: str | None = None,
    *,
    deep: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    stranger: str | None = None,
    num_samples: int = NUM_SAMPLES,
    seed: int | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> Report:
    """Check both repositories of a namespace; one where the connection breaks is begun again a few times.

    Args:
        namespace: account or organisation on the Hub.
        revision: tag to check; None: the current one, and that main is the same.
        deep: also bring every file (to a temporary folder: twice 63 GB for the whole of T4SA), and check it as
            `t4sa check --deep` does.
        endpoint: None: `$HF_ENDPOINT`, else the public Hub.
        token: of somebody who may read; None: the client's own way.
        stranger: token of an account that was not let in; None: only anonymous readers are tried.
        num_samples: random rows to read of each repository.
        seed: of the sample; None: another one each time, named in the report.
        say: gets a line now and then.

    Returns:
        What was found. It is not `ok` either where a part could not be looked at (`Report.unseen`).
    """
    report = Report()
    hub = Hub(namespace=namespace, endpoint=endpoint, token=token)
    seed = random.randrange(1 << 32) if seed is None else seed
    known: dict[str, Releases] = {}
    for fmt in FORMATS:
        repo_id, tries = hub.repository(fmt), list[_Repository]()
        say(f"{repo_id} ...")

        def look(fmt: str = fmt, repo_id: str = repo_id, tries: list[_Repository] = tries) -> None:
            chance = random.Random(seed)
            tries.append(_Repository(hub, repo_id, fmt, Report(), revision, deep, stranger, num_samples, chance))
            tries[-1].look()

        try:
            again(look, say, 1 if deep else ATTEMPTS)
        except T4SAError as error:
            tries[-1].not_seen(error)
        one = tries[-1]
        one.checked["seed"] = seed
        if one.releases is not None:
            known[repo_id] = one.releases
        report.checked[repo_id] = one.checked
        _add(report, one.report)
    _compare(known, report)
    return report


def _add(report: Report, part: Report) -> None:
    report.faults += part.faults
    report.unseen += part.unseen
    report.warnings += part.warnings
    report.no_access |= part.no_access


def _compare(known: dict[str, Releases], report: Report) -> None:
    """Both repositories must tell the same story."""
    if len(known) < len(FORMATS):
        return
    (_, one), (repo_id, other) = known.items()
    stories = [
        {
            "current": r.current,
            "removals": asdict(r.removals),
            **{t: (e.state, e.successor) for t, e in r.releases.items()},
        }
        for r in (one, other)
    ]
    for name in stories[0].keys() | stories[1].keys():
        if stories[0].get(name) != stories[1].get(name):
            report.faults.append(f"{repo_id}: {RELEASES_NAME}: {name} is not what the other repository says")


class _Repository:
    """The check of one repository."""

    def __init__(
        self,
        hub: Hub,
        repo_id: str,
        fmt: str,
        report: Report,
        revision: str | None,
        deep: bool,
        stranger: str | None,
        num_samples: int,
        chance: random.Random,
    ) -> None:
        self.hub, self.repo_id, self.fmt, self.report = hub, repo_id, fmt, report
        self.revision, self.deep, self.stranger = revision, deep, stranger
        self.num_samples, self.chance = num_samples, chance
        self.releases: Releases | None = None
        self.checked: dict[str, Any] = {}

    def fault(self, what: str) -> None:
        """Note a fault."""
        self.report.faults.append(f"{self.repo_id}: {what}")

    def not_seen(self, error: T4SAError, what: str = "not all was looked at") -> None:
        """Note that something could not be looked at."""
        self.report.unseen.append(f"{self.repo_id}: {what}: {error}")
        self.report.no_access |= isinstance(error, HubAccessError | CredentialsError)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Make a fault of an error, so that the rest is checked too.

        Raises:
            T4SAError: one that says nothing of the content (`NOT_CONTENT`).
        """
        try:
            yield
        except NOT_CONTENT:
            raise
        except T4SAError as error:
            self.fault(f"{where}: {error}")

    def look(self) -> None:
        """Everything, once.

        Raises:
            HubUnreachable, HubConflict: what may pass.
            T4SAError: one of `NOT_CONTENT`.
        """
        try:
            with self.guard("repository"):
                self._check()
        except DownloadError as error:
            raise HubUnreachable(
                "a file did not come", got=error.what, where=error.where or self.repo_id, hint=error.hint
            ) from error

    def _check(self) -> None:
        """Everything, cheapest first."""
        state = self.hub.state(self.repo_id)
        if state is None:
            self.fault("there is no such repository, or not for this account")
            return
        self._check_gate(state)
        with self.guard(RELEASES_NAME):
            data = self.hub.read(self.repo_id, RELEASES_NAME, "main")
            if data is None:
                self.fault(f"main has no {RELEASES_NAME}")
            else:
                self.releases = parse_releases(data, f"{self.repo_id}: {RELEASES_NAME}")
                self._check_tags(state, self.releases)
        tag = self.revision or (self.releases.current if self.releases else None)
        if tag is None:
            self.fault("no release is current")
            return
        if tag not in {**state.tags, **state.branches, **dict.fromkeys(state.tags.values())}:
            self.fault(f"there is no revision {tag}")
            return
        commit = state.tags.get(tag) or state.branches.get(tag) or tag
        self.checked |= {"revision": tag, "commit": commit}
        manifest = self._check_files(tag, commit)
        if self.revision is None:
            self._check_main(commit)
        if manifest is None:
            return
        self._check_refusals(tag, manifest)
        with self.guard("rows"), explain(self.repo_id, tag):
            faults, count = check_rows(self.hub, self.repo_id, tag, manifest, self.num_samples, self.chance)
            self.checked["rows"] = count
            for what in faults:
                self.fault(what)
        if self.deep:
            self._check_deep(commit)

    def _check_gate(self, state: RepositoryState) -> None:
        """Public behind a gate; no DOI, which would forbid a takedown."""
        if state.is_open:
            self.fault("OPEN: public without a gate; close it now: `t4sa hub gate --close`, then look who read it")
        elif state.private:
            self.fault("private: nobody that was let in can read it")
        with explain(self.repo_id):
            info = self.hub.api.dataset_info(self.repo_id)
        for name in info.tags or ():
            if name.startswith("doi:"):
                self.report.warnings.append(
                    f"{self.repo_id}: has a DOI of the Hub ({name[4:]}): it forbids deletion, so a takedown would fail"
                )
        for branch in state.branches:
            if branch.startswith("release-"):
                self.report.warnings.append(f"{self.repo_id}: branch {branch} of an upload that did not end")
        self.checked |= {"private": state.private, "gated": state.gated}

    def _check_tags(self, state: RepositoryState, releases: Releases) -> None:
        """A tag for each release that may be read, none for a withdrawn one, no version beside."""
        for tag, entry in releases.releases.items():
            if entry.state == "withdrawn":
                if tag in state.tags:
                    self.fault(f"{tag} was withdrawn, and its tag is still there")
                if releases.successor(tag) is None:
                    self.report.warnings.append(f"{self.repo_id}: {tag} was withdrawn, and nothing takes its place")
            elif tag not in state.tags:
                self.fault(f"{tag} is {entry.state}, and there is no such tag")
        for tag in sorted(state.tags):
            if is_tag(tag) and tag not in releases.releases:
                self.fault(f"{RELEASES_NAME} does not know the tag {tag}")
        if releases.current is not None and releases.releases[releases.current].state != "current":
            self.fault(f"{RELEASES_NAME}: {releases.current} is current by name and {_state(releases)} by state")

    def _check_files(self, tag: str, commit: str) -> Manifest | None:
        """The tree against the manifest: names, sizes, sha256; the manifest against `releases.json`; the documents."""
        data = self.hub.read(self.repo_id, MANIFEST_NAME, commit)
        if data is None:
            self.fault(f"{tag} has no {MANIFEST_NAME}")
            return None
        manifest = parse_manifest(data, f"{self.repo_id}@{tag}")
        entry = self.releases.releases.get(tag) if self.releases else None
        if entry is not None:
            if entry.manifest_sha256 != hashlib.sha256(data).hexdigest():
                self.fault(f"{MANIFEST_NAME} at {tag} is not the one that {RELEASES_NAME} names: did the tag move?")
            digests = {name: layer.content_digest for name, layer in manifest.layers.items()}
            if dict(entry.content_digest) != digests:
                self.fault(f"content digests at {tag} are not those of {RELEASES_NAME}")
        if is_tag(tag) and tag != f"v{manifest.data_version}":
            self.fault(f"the manifest at {tag} says version {manifest.data_version}")
        tree = self.hub.tree(self.repo_id, commit)
        named = {file.name: file for file in manifest.files}
        for name in sorted(set(tree) - set(named) - {MANIFEST_NAME, *BESIDE}):
            self.fault(f"{name}: the manifest does not name it")
        documents: dict[str, bytes] = {}
        for name, file in named.items():
            there = tree.get(name)
            if there is None:
                self.fault(f"{name}: missing")
            elif there.bytes != file.bytes:
                self.fault(f"{name}: {there.bytes} bytes, the manifest says {file.bytes}")
            else:
                sha256 = there.sha256
                if sha256 is None or name in (README_NAME, CROISSANT_NAME):  # git keeps it itself, under a sha1
                    documents[name] = self.hub.read(self.repo_id, name, commit) or b""
                    sha256 = hashlib.sha256(documents[name]).hexdigest()
                if sha256 != file.sha256:
                    self.fault(f"{name}: sha256 is {sha256}, the manifest says {file.sha256}")
        self.checked |= {"files": len(tree), "bytes": sum(file.bytes for file in tree.values())}
        self._check_card(manifest, documents)
        return manifest

    def _check_card(self, manifest: Manifest, documents: dict[str, bytes]) -> None:
        """Configs, splits and shards of card and Croissant; the Hub's own validation of the YAML."""
        from huggingface_hub import DatasetCard

        faults = Faults(self.fmt)
        with TemporaryDirectory(prefix="t4sa-verify-") as folder:
            for name in (README_NAME, CROISSANT_NAME):
                if name in documents:
                    (Path(folder) / name).write_bytes(documents[name])
            check_documents(Path(folder), manifest, faults)
        for fault in faults.all():
            self.fault(str(fault).partition("/")[2] or str(fault))
        if README_NAME in documents:
            try:
                card = DatasetCard(documents[README_NAME].decode(), ignore_metadata_errors=False)
                if self.hub.endpoint is None:  # it asks the Hub of the environment
                    with explain(self.repo_id):
                        card.validate(repo_type="dataset")
            except ValueError as error:
                self.fault(f"{README_NAME}: {str(error).splitlines()[0]}")

    def _check_main(self, commit: str) -> None:
        """Main is the current release."""
        main, there = self.hub.tree(self.repo_id, "main"), self.hub.tree(self.repo_id, commit)
        differ = sorted(n for n in set(main) | set(there) if n not in BESIDE and main.get(n) != there.get(n))
        if differ:
            self.fault(f"main is not the current release: {len(differ)} file(s) differ, {differ[0]} is one")

    def _check_refusals(self, tag: str, manifest: Manifest) -> None:
        """That who was not let in gets no content."""
        shard = next((file.name for file in manifest.files if file.layer is not None), MANIFEST_NAME)
        readers: dict[str, str | bool] = {"anonymous": False}
        if self.stranger:
            readers["unapproved"] = self.stranger
        self.checked["tried"] = []
        for who, token in readers.items():
            try:
                found = [name for name in (MANIFEST_NAME, shard) if self._can_read(tag, name, token)]
            except HubAccessError as error:  # a token that is not taken is refused everywhere, by an open door too
                self.not_seen(error, f"whether {who} readers are refused")
                continue
            for name in found:
                self.fault(f"{who} readers get {name}")
            self.checked["tried"].append(who)

    def _can_read(self, tag: str, name: str, token: str | bool) -> bool:
        """Whether a reader is told where a file's bytes are.

        Raises:
            HubAccessError: refused, but not for the gate's sake.
            HubUnreachable: no answer.
        """
        from huggingface_hub import errors as hub
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.repo_id, name, repo_type="dataset", revision=tag, endpoint=self.hub.endpoint)
        with explain(self.repo_id, tag):
            try:
                self.hub.api.get_hf_file_metadata(url=url, token=token)
            except (hub.RepositoryNotFoundError, hub.RemoteEntryNotFoundError, hub.RevisionNotFoundError):
                return False  # the gate's refusal is one of the first
        return True

    def _check_deep(self, commit: str) -> None:
        """Every byte, row and picture."""
        from t4sa_data.testing import check_release

        with TemporaryDirectory(prefix="t4sa-verify-") as folder, explain(self.repo_id, commit):
            target = Path(folder) / self.repo_id.partition("/")[2]
            ignored = [RELEASES_NAME]
            self.hub.api.snapshot_download(
                self.repo_id, repo_type="dataset", revision=commit, local_dir=target, ignore_patterns=ignored
            )
            for fault in check_release(target, deep=True).faults:
                self.fault(str(fault).partition("/")[2] or str(fault))
        self.checked["deep"] = True


def _state(releases: Releases) -> str:
    return releases.releases[str(releases.current)].state
