"""What the double holds: accounts, repositories with their history and gate, large objects. Nothing here is random."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""When every repository was made; each of its events is a second later than the one before."""

ATTRIBUTES = b"*.tar filter=lfs diff=lfs merge=lfs -text\n*.parquet filter=lfs diff=lfs merge=lfs -text\n"


def git_oid(data: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    oid: str
    """Git's; of the pointer, for a large file."""
    size: int
    data: bytes | None = None
    """None: a large file, kept apart."""
    sha256: str | None = None

    @classmethod
    def small(cls, data: bytes) -> Blob:
        return cls(git_oid(data), len(data), data)

    @classmethod
    def large(cls, sha256: str, size: int) -> Blob:
        return cls(git_oid(pointer(sha256, size)), size, None, sha256)


def pointer(sha256: str, size: int) -> bytes:
    """What git holds in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A large object of a repository."""

    size: int
    path: Path | None = None
    """Where its bytes lie; None: in the content-addressed store."""
    xet: str | None = None
    """Its name there."""
    filename: str | None = None
    ref: str | None = None
    """File and branch that it was last committed as; None: it never was."""
    pushed: str


@dataclass(frozen=True, kw_only=True)
class Commit:
    tree: Mapping[str, Blob]
    parent: str | None
    title: str
    message: str = ""
    date: str


@dataclass(kw_only=True)
class AccessRequest:
    request_id: str
    status: Literal["pending", "accepted", "rejected"]
    timestamp: str
    fields: dict[str, object] | None = None
    reason: str | None = None
    """Why it was rejected."""
    granted: bool = False
    """Whether nobody asked: then there is no address."""


@dataclass(frozen=True, kw_only=True)
class Door:
    """How a repository stood after a request."""

    visibility: Literal["private", "public"]
    gated: str | Literal[False]
    open: frozenset[str]
    """Files of any of its commits that everybody can read: those of a public repository without a gate."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All repositories after a request."""

    number: int
    """That request's, as in the log."""
    request: str
    repos: Mapping[str, Door]


@dataclass
class Repo:
    id: str
    type: str = "dataset"
    private: bool = True
    gated: Literal["auto", "manual", False] = False
    access: dict[str, AccessRequest] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, Stored] = field(default_factory=dict)
    """By sha256."""
    doi: str | None = None
    events: int = 0

    def __post_init__(self) -> None:
        if not self.branches:
            self.add("main", {".gitattributes": Blob.small(ATTRIBUTES)}, "initial commit")

    @property
    def head(self) -> str:
        return self.branches["main"]

    def date(self) -> str:
        """Of the next event."""
        self.events += 1
        return (EPOCH + timedelta(seconds=self.events)).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def store(self, data: bytes, path: Path) -> str:
        """Keep a large object's bytes in a file; its sha256."""
        path.write_bytes(data)
        oid = hashlib.sha256(data).hexdigest()
        self.objects[oid] = Stored(size=len(data), path=path, pushed=self.date())
        return oid

    def files(self, revision: str = "main") -> dict[str, Blob]:
        """Of a revision, by name; KeyError: there is none of this name."""
        oid = self.resolve(revision)
        if oid is None:
            raise KeyError(revision)
        return dict(self.commits[oid].tree)

    def add(self, branch: str, tree: Mapping[str, Blob], title: str, message: str = "", *, orphan: bool = False) -> str:
        """Commit this tree to a branch; the commit's name. An orphan has no parent: the branch's history ends."""
        parent = None if orphan else self.branches.get(branch)
        made = Commit(tree=dict(sorted(tree.items())), parent=parent, title=title, message=message, date=self.date())
        self.branches[branch] = oid = self._keep(made)
        return oid

    def _keep(self, commit: Commit) -> str:
        names = [(path, blob.oid) for path, blob in commit.tree.items()]
        said = f"{self.type}{self.id}{commit.parent}{commit.title}{commit.date}{names}"
        oid = hashlib.sha1(said.encode()).hexdigest()
        self.commits[oid] = commit
        return oid

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch, tag, ref or (shortened) commit names."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if found := self.branches.get(name) or self.tags.get(name):
            return found
        if not re.fullmatch("[0-9a-f]{7,40}", name):
            return None
        return next((oid for oid in self.commits if oid.startswith(name)), None)

    def history(self, oid: str | None) -> list[str]:
        """A commit and those before it, newest first."""
        line = []
        while oid is not None:
            line.append(oid)
            oid = self.commits[oid].parent
        return line

    def forget(self) -> None:
        """Drop the commits that no branch and no tag leads to. Their large objects stay until they are deleted."""
        kept = {oid for head in (*self.branches.values(), *self.tags.values()) for oid in self.history(head)}
        self.commits = {oid: commit for oid, commit in self.commits.items() if oid in kept}

    def rewrite(self, gone: set[str]) -> None:
        """Take large files out of every commit, as if they had never been; branches and tags follow."""
        renamed: dict[str | None, str | None] = {None: None}
        old, self.commits = self.commits, {}
        for oid in sorted(old, key=lambda oid: old[oid].date):
            tree = {path: blob for path, blob in old[oid].tree.items() if blob.sha256 not in gone}
            made = replace(old[oid], tree=tree, parent=renamed.get(old[oid].parent))
            if made == old[oid]:
                self.commits[oid], renamed[oid] = made, oid
            else:
                renamed[oid] = self._keep(made)
        self.branches = {name: renamed[oid] or oid for name, oid in self.branches.items()}
        self.tags = {name: renamed[oid] or oid for name, oid in self.tags.items()}

    def door(self) -> Door:
        is_open = not self.private and not self.gated
        files = {path for commit in self.commits.values() for path in commit.tree} if is_open else set()
        return Door(visibility="private" if self.private else "public", gated=self.gated, open=frozenset(files))

    def ask(self, user: str, fields: Mapping[str, object] | None = None) -> AccessRequest:
        """Fill in the gate's form, as a reader does in a browser. ValueError: there is no gate, or one was rejected."""
        if not self.gated:
            raise ValueError("Repo is not gated")
        if (found := self.access.get(user)) and found.status == "rejected":
            raise ValueError("Your request has been rejected by the repo's authors")
        if not found:
            status: Literal["pending", "accepted"] = "accepted" if self.gated == "auto" else "pending"
            found = self.access[user] = self.request_of(user, status, fields)
        return found

    def request_of(
        self, user: str, status: Literal["pending", "accepted"], fields: Mapping[str, object] | None = None
    ) -> AccessRequest:
        """A new request for access."""
        request_id = hashlib.sha1(f"{self.type}{self.id}{user}{self.events}".encode()).hexdigest()[:24]
        return AccessRequest(
            request_id=request_id, status=status, timestamp=self.date(), fields=dict(fields) if fields else None
        )


@dataclass
class State:
    folder: Path
    users: dict[str, str]
    """Token -> name."""
    url: str = ""
    cdn: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    """By id; a model's begins with "models/"."""
    organisations: dict[str, set[str]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    """Of tokens: "read" or "write"; "write" where nothing is said."""
    page: int = 1000
    """Entries in a page of a listing."""
    lfs_threshold: int = 10 * 1024 * 1024
    """Bytes from which on every file is large."""
    private_quota: int | None = None
    """Bytes of large files that a namespace's private repositories may hold together; None: any."""
    cas: Path | None = None
    """Xet's store; None: files go up by LFS."""

    def key(self, kind: str, name: str) -> str:
        return name if kind == "dataset" else f"{kind}s/{name}"

    def may_write(self, user: str | None, namespace: str) -> bool:
        return user is not None and (user == namespace or user in self.organisations.get(namespace, ()))

    def private_bytes(self, namespace: str) -> int:
        """What the namespace's private repositories hold."""
        held = [r for r in self.repos.values() if r.private and r.id.startswith(f"{namespace}/")]
        return sum(stored.size for repo in held for stored in repo.objects.values())

    def doors(self) -> dict[str, Door]:
        return {name: repo.door() for name, repo in self.repos.items()}
