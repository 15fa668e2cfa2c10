"""Listings and bytes."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote

from tests.hub_double import xet
from tests.hub_double.calls import Answer, Call, Refused, as_bytes, as_json, as_xml
from tests.hub_double.routes_repo import commit_of, find, paged
from tests.hub_double.state import Blob, Repo, State

LIFETIME = 3600
"""Seconds that a signed URL is good for."""


def sign(*said: object) -> str:
    """A signature of the object store; the secret is no secret, and no client knows it."""
    return hmac.new(b"double", "|".join(map(str, said)).encode(), "sha256").hexdigest()[:32]


def tree(state: State, call: Call, kind: str, name: str, revision: str, path: str | None = None) -> Answer:
    """Files and folders below a folder; a gated repository's too."""
    repo = find(state, call, kind, name)
    oid, folder = commit_of(repo, revision), (path or "").strip("/")
    entries = _below(repo, oid, folder, deep=call.asked("recursive").lower() in ("true", "1"))
    if folder and not entries:
        raise Refused(404, "EntryNotFound", f'{folder} does not exist on "{revision}"')
    if call.asked("expand").lower() in ("true", "1"):
        _add_commits(repo, oid, entries)
    return paged(state, call, entries)


def _below(repo: Repo, oid: str, folder: str, *, deep: bool) -> list[dict[str, Any]]:
    files, prefix = repo.commits[oid].tree, f"{folder}/" if folder else ""
    found: list[dict[str, Any]] = []
    folders: dict[str, bool] = {}
    for path, blob in files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            folders.setdefault(prefix + "/".join(parts[:depth]), depth == 1)
        if deep or len(parts) == 1:
            found.append(entry(repo, path, blob))
    return [_folder(path) for path, is_child in folders.items() if deep or is_child] + found


def entry(repo: Repo, path: str, blob: Blob) -> dict[str, Any]:
    said: dict[str, object] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    if blob.sha256:
        said["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}
        if (stored := repo.objects.get(blob.sha256)) and stored.xet:
            said["xetHash"] = stored.xet
    return said


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _add_commits(repo: Repo, oid: str, entries: list[dict[str, Any]]) -> None:
    """When each file last changed."""
    line = repo.history(oid)
    for said in entries:
        path, last = said["path"], line[0]
        for name in line:
            if repo.commits[name].tree.get(path) != repo.commits[oid].tree.get(path):
                break
            last = name
        said["lastCommit"] = {"id": last, "title": repo.commits[last].title, "date": repo.commits[last].date}


def paths_info(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    repo = find(state, call, kind, name)
    files: Mapping[str, Blob] = repo.commits[commit_of(repo, revision)].tree
    is_json = "json" in call.headers.get("Content-Type", "")
    asked = json.loads(call.body)["paths"] if is_json else parse_qs(call.body.decode()).get("paths", [])
    found = [entry(repo, path, files[path]) for path in asked if path in files]
    folders = [path for path in asked if any(file.startswith(f"{path.rstrip('/')}/") for file in files)]
    return as_json(found + [_folder(path) for path in folders])


def refs(state: State, call: Call, kind: str, name: str) -> Answer:
    repo = find(state, call, kind, name)

    def said(names: dict[str, str], folder: str) -> list[dict[str, Any]]:
        return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": oid} for n, oid in names.items()]

    listed = {"branches": said(repo.branches, "heads"), "tags": said(repo.tags, "tags")}
    return as_json(listed | {"converts": [], "pullRequests": []})


def commits(state: State, call: Call, kind: str, name: str, revision: str) -> Answer:
    repo = find(state, call, kind, name)
    said = []
    for oid in repo.history(commit_of(repo, revision)):
        made, author = repo.commits[oid], {"user": repo.id.split("/")[0]}
        entry = {"id": oid, "title": made.title, "message": made.message, "date": made.date, "authors": [author]}
        said.append(entry)
    return paged(state, call, said)


def lfs_files(state: State, call: Call, kind: str, name: str) -> Answer:
    """Every large object the repository holds, of whatever commit or of none."""
    repo = find(state, call, kind, name, write=True)
    said = [
        {
            "fileOid": oid,
            "oid": oid,
            "filename": stored.filename or oid,
            "pushedAt": stored.pushed,
            "ref": stored.ref,
            "size": stored.size,
        }
        for oid, stored in repo.objects.items()
    ]
    return paged(state, call, said)


def resolve(state: State, call: Call, kind: str, name: str, revision: str, path: str) -> Answer:
    """Where a file's bytes are: a small one's on the Hub, a large one's at the second origin."""
    repo = find(state, call, kind, name, content=True)
    oid = commit_of(repo, revision)
    blob = repo.commits[oid].tree.get(path)
    if blob is None or (blob.sha256 and blob.sha256 not in repo.objects):
        raise Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=oid)
    headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes", "Content-Type": "text/plain; charset=utf-8"}
    if blob.sha256 is None:
        headers["ETag"] = f'"{blob.oid}"'
        here = f"/api/resolve-cache/{kind}s/{name}/{oid}/{quote(path, safe='')}"
        headers["Location"] = f"{here}?{quote(call.path, safe='')}=&etag=%22{blob.oid}%22"
        return Answer(307, b"Temporary Redirect", headers)
    key, expires = state.key(kind, name), int(time.time()) + LIFETIME
    signature = sign("get", key, blob.sha256, expires)
    query = f"repo={quote(key, safe='')}&Expires={expires}&Signature={signature}"
    headers |= {"X-Linked-Size": str(blob.size), "X-Linked-ETag": f'"{blob.sha256}"'}
    headers["Location"] = f"{state.cdn}/_cdn/{blob.sha256}?{query}"
    if name_there := repo.objects[blob.sha256].xet:
        headers |= xet.headers(state, f"{kind}s/{name}", oid, name_there)
    return Answer(302, b"Found", headers)


def resolve_cache(state: State, call: Call, kind: str, name: str, revision: str, path: str) -> Answer:
    repo = find(state, call, kind, name, content=True)
    oid = commit_of(repo, revision)
    blob = repo.commits[oid].tree.get(path)
    if blob is None or blob.data is None:
        raise Refused(404, "EntryNotFound", "Entry not found", X_Repo_Commit=oid)
    headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.oid}"', "Content-Type": "text/plain; charset=utf-8"}
    return as_bytes(call, blob.data, headers)


def cdn(state: State, call: Call, oid: str) -> Answer:
    """The second origin: a signed URL is all it asks for."""
    key, expires = call.asked("repo"), call.asked("Expires", "0")
    if call.asked("Signature") != sign("get", key, oid, expires) or int(expires) < time.time():
        return as_xml(403, "AccessDenied")
    repo = state.repos.get(key)
    if repo is None or (stored := repo.objects.get(oid)) is None:
        return as_xml(404, "NoSuchKey")
    data = stored.path.read_bytes() if stored.path else xet.read(state, stored)
    return as_bytes(call, data, {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"})
