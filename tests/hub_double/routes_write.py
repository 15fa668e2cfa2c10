"""Uploads, commits, tags, branches, and what removes for good."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.hub_double import xet
from tests.hub_double.calls import Answer, Call, Refused, as_json, as_xml
from tests.hub_double.routes_read import sign
from tests.hub_double.routes_repo import commit_of, find, page_of
from tests.hub_double.state import Blob, Repo, State, Stored

LARGE_SUFFIXES = (".tar", ".parquet", ".jpg", ".png", ".bin", ".gz", ".zip", ".safetensors", ".pt", ".npy")
FULL = "Private repository storage limit reached, please upgrade your plan to increase your private storage limit."


def preupload(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    """How each file is to be sent. `oid` says what is there of this name: the client leaves out what is the same."""
    repo = find(state, call, kind, name, write=True)
    oid = commit_of(repo, revision)
    files = []
    for file in call.json["files"]:
        path = file["path"]
        is_large = file["size"] > state.lfs_threshold or path.endswith(LARGE_SUFFIXES)
        is_large = is_large or b"\0" in base64.b64decode(file["sample"])
        said = {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
        if blob := repo.commits[oid].tree.get(path):
            said["oid"] = blob.sha256 or blob.oid
        files.append(said)
    return as_json({"commitOid": oid, "files": files})


def lfs_batch(state: State, call: Call, kind: str, name: str) -> Answer:
    """Where to send large files. An object without actions is there already."""
    asked = call.json
    repo = find(state, call, kind, name, write=asked["operation"] == "upload")
    use_xet = state.cas is not None and "xet" in asked.get("transfers", [])
    missing = [file for file in asked["objects"] if file["oid"] not in repo.objects]
    _check_quota(state, repo, sum(file["size"] for file in missing))
    objects = []
    for file in asked["objects"]:
        if file in missing and use_xet:
            href = f"{state.url}/api/{kind}s/{name}/xet-write-token/main"
            file["actions"] = {"upload": {"href": href, "header": {"X-Xet-Cas-Url": xet.cas_url(state)}}}
        elif file in missing:
            key, oid = state.key(kind, name), file["oid"]
            href = f"{state.cdn}/_storage/{oid}?repo={key}&sig={sign('put', key, oid)}"
            verify = f"{state.url}/{kind}s/{name}.git/info/lfs/verify"
            file |= {"authenticated": True, "actions": {"upload": {"href": href}, "verify": {"href": verify}}}
        objects.append(file)
    answer = as_json({"transfer": "xet" if use_xet else "basic", "objects": objects})
    answer.headers["Content-Type"] = "application/vnd.git-lfs+json"
    return answer


def _check_quota(state: State, repo: Repo, size: int) -> None:
    if state.private_quota is None or not repo.private or not size:
        return
    if state.private_bytes(repo.id.split("/")[0]) + size > state.private_quota:
        raise Refused(403, None, FULL)


def storage_put(state: State, call: Call, oid: str) -> Answer:
    """The object store's side of an upload."""
    key = call.asked("repo")
    if call.asked("sig") != sign("put", key, oid) or key not in state.repos:
        return as_xml(403, "SignatureDoesNotMatch")
    if hashlib.sha256(call.body).hexdigest() != oid:
        return as_xml(400, "BadDigest")
    state.repos[key].store(call.body, _place(state, key, oid))
    return Answer(200, b"", {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})


def _place(state: State, key: str, oid: str) -> Path:
    folder = state.folder / "objects" / key.replace("/", "--")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / oid


def lfs_verify(state: State, call: Call, kind: str, name: str) -> Answer:
    repo, asked = find(state, call, kind, name, write=True), call.json
    stored = repo.objects.get(asked["oid"])
    if stored is None or stored.size != asked["size"]:
        raise Refused(404, None, "Object does not exist")
    return as_json({})


def commit(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    """All of a commit or nothing of it."""
    repo = find(state, call, kind, name, write=True)
    if call.asked("create_pr") not in ("", "0", "false"):
        raise Refused(400, None, "This double has no pull requests")
    head = commit_of(repo, revision)
    branch = revision.removeprefix("refs/heads/")
    if branch not in repo.branches:
        raise Refused(400, None, f"{revision} is not a branch")
    lines = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    if (parent := header.get("parentCommit")) and not head.startswith(parent):
        raise Refused(412, None, "A commit has happened since. Please refresh and try again.")
    tree = dict(repo.commits[head].tree)
    large: dict[str, tuple[Stored, str]] = {}
    for line in lines:
        _change(state, repo, tree, large, line["key"], line["value"])
    _check_quota(state, repo, sum(stored.size for oid, (stored, _) in large.items() if oid not in repo.objects))
    for oid, (stored, path) in large.items():
        repo.objects[oid] = replace(stored, filename=path, ref=f"refs/heads/{branch}")
    made = repo.add(branch, tree, header["summary"], header.get("description", ""))
    url = f"{page_of(state, repo)}/commit/{made}"
    return as_json({"success": True, "commitOid": made, "commitUrl": url, "hookOutput": ""})


def _change(
    state: State,
    repo: Repo,
    tree: dict[str, Blob],
    large: dict[str, tuple[Stored, str]],
    key: str,
    value: dict[str, Any],
) -> None:
    """Apply a line of a commit to a tree."""
    path = value.get("path", "")
    if key == "file":
        tree[path] = Blob.small(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        oid = value["oid"]
        stored = repo.objects.get(oid) or xet.ingested(state, repo, oid)
        if stored is None:
            raise Refused(400, None, f"Your push was rejected because an LFS pointer pointed to a missing file: {oid}")
        if "size" in value and value["size"] != stored.size:
            raise Refused(400, None, f"{path}: {value['size']} bytes announced, {stored.size} stored")
        tree[path], large[oid] = Blob.large(oid, stored.size), (stored, path)
    elif key == "deletedFile":
        if path not in tree:
            raise Refused(404, "EntryNotFound", f"{path} does not exist")
        del tree[path]
    elif key == "deletedFolder":
        below = [file for file in tree if file.startswith(path.rstrip("/") + "/")]
        if not below:
            raise Refused(404, "EntryNotFound", f"{path} does not exist")
        for file in below:
            del tree[file]


def tag(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    repo = find(state, call, kind, name, write=True)
    if call.method == "DELETE":
        if repo.tags.pop(revision, None) is None:
            raise Refused(404, "RevisionNotFound", f"Tag {revision} does not exist")
        return as_json({})
    oid, wanted = commit_of(repo, revision), call.json["tag"]
    if wanted in repo.tags:
        raise Refused(409, None, f"Tag reference exists already: {wanted}")
    repo.tags[wanted] = oid
    return as_json({})


def branch(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    repo = find(state, call, kind, name, write=True)
    if call.method == "DELETE":
        if revision == "main":
            raise Refused(403, None, "Branch main is protected")
        if repo.branches.pop(revision, None) is None:
            raise Refused(404, "RevisionNotFound", f"Branch {revision} does not exist")
        return as_json({})
    if revision in repo.branches:
        raise Refused(409, None, f"Reference already exists: {revision}")
    repo.branches[revision] = commit_of(repo, call.json.get("startingPoint") or "main")
    return as_json({})


def super_squash(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    """One commit in place of a branch's history. What no branch or tag leads to any more is gone."""
    repo = find(state, call, kind, name, write=True)
    if revision not in repo.branches:
        raise Refused(404, "RevisionNotFound", f"Branch {revision} does not exist")
    tree = repo.files(revision)
    repo.add(revision, tree, call.json.get("message") or "Super-squash", orphan=True)
    repo.forget()
    return as_json({})


def lfs_delete(state: State, call: Call, kind: str, name: str) -> Answer:
    """Large files by sha256, for good; with `rewriteHistory` out of every commit too."""
    repo, asked = find(state, call, kind, name, write=True), call.json["deletions"]
    gone = set(asked["sha"])
    if unknown := gone - set(repo.objects):
        raise Refused(404, None, f"LFS file {sorted(unknown)[0]} does not exist")
    for oid in gone:
        if path := repo.objects.pop(oid).path:
            path.unlink()
    if asked.get("rewriteHistory", True):
        repo.rewrite(gone)
    return as_json({})
