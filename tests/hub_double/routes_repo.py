"""Accounts, repositories, their settings and gate, requests for access."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import yaml

from tests.hub_double.calls import Answer, Call, Refused, as_json
from tests.hub_double.state import EPOCH, AccessRequest, Repo, State


def find(state: State, call: Call, kind: str, name: str, *, write: bool = False, content: bool = False) -> Repo:
    """The repository, if this caller may see it, read its content, write to it; else Refused.

    A gated repository's listing is seen by all, its content by those whose request was accepted.
    """
    repo, namespace = state.repos.get(state.key(kind, name)), name.split("/")[0]
    member = state.may_write(call.user, namespace)
    if repo is None or (repo.private and not member):
        raise Refused(404 if call.user else 401, "RepoNotFound", "Repository not found")
    if write and not (member and call.role == "write"):
        message = "You don't have the rights to write to this repo." if call.user else "Unauthorized"
        raise Refused(403 if call.user else 401, None, message)
    if content and repo.gated and not member:
        _pass_gate(state, call, repo)
    return repo


def _pass_gate(state: State, call: Call, repo: Repo) -> None:
    what = f"{repo.type} {repo.id}"
    if call.user is None:
        message = f"Access to {what} is restricted. You must have access to it and be authenticated to access it."
        raise Refused(401, "GatedRepo", f"{message} Please log in.")
    request = repo.access.get(call.user)
    if request and request.status == "accepted":
        return
    if request and request.status == "pending":
        raise Refused(403, "GatedRepo", f"Your request to access {what} is awaiting a review from the repo authors.")
    if request:
        raise Refused(403, "GatedRepo", f"Your request to access {what} has been rejected by the repo's authors.")
    message = f"Access to {what} is restricted and you are not in the authorized list."
    raise Refused(403, "GatedRepo", f"{message} Visit {page_of(state, repo)} to ask for access.")


def page_of(state: State, repo: Repo) -> str:
    """The address people see."""
    return f"{state.url}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"


def whoami(state: State, call: Call) -> Answer:
    if call.user is None:
        raise Refused(401, None, "Invalid username or password.")
    orgs = [
        {"type": "org", "id": name, "name": name, "fullname": name, "roleInOrg": "write"}
        for name, members in state.organisations.items()
        if call.user in members
    ]
    token = {"type": "access_token", "accessToken": {"displayName": "token", "role": call.role}}
    said = {"type": "user", "id": call.user, "name": call.user, "fullname": call.user.title(), "isPro": False}
    return as_json(said | {"orgs": orgs, "auth": token})


def create(state: State, call: Call) -> Answer:
    if call.user is None:
        raise Refused(401, None, "Invalid username or password.")
    asked = call.json
    namespace, kind = asked.get("organization") or call.user, asked.get("type", "model")
    if not state.may_write(call.user, namespace) or call.role != "write":
        raise Refused(403, None, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}".')
    repo = Repo(f"{namespace}/{asked['name']}", kind, private=asked.get("visibility") == "private")
    url = page_of(state, repo)
    if (key := state.key(kind, repo.id)) in state.repos:
        return as_json({"error": f"You already created this {kind} repo: {repo.id}", "url": url}, 409)
    state.repos[key] = repo
    return as_json({"url": url, "name": repo.id, "id": "0" * 24})


def delete(state: State, call: Call) -> Answer:
    asked = call.json
    kind, name = asked.get("type", "model"), f"{asked.get('organization') or call.user}/{asked['name']}"
    find(state, call, kind, name, write=True)
    del state.repos[state.key(kind, name)]
    return Answer(200, b"OK", {"Content-Type": "text/plain"})


def listed(state: State, call: Call, kind: str) -> Answer:
    """The repositories of an author that the caller may see."""
    author = call.asked("author")
    seen = [
        repo
        for repo in state.repos.values()
        if repo.type == kind
        and (not author or repo.id.startswith(f"{author}/"))
        and (not repo.private or state.may_write(call.user, repo.id.split("/")[0]))
    ]
    said: list[object] = [
        {"_id": "0" * 24, "id": repo.id, "private": repo.private, "gated": repo.gated, "tags": []} for repo in seen
    ]
    return paged(state, call, said)


def settings(state: State, call: Call, kind: str, name: str) -> Answer:
    repo, asked = find(state, call, kind, name, write=True), call.json
    if asked.get("gated", False) not in ("auto", "manual", False) or asked.get("visibility", "public") not in (
        "public",
        "private",
    ):
        raise Refused(400, None, "Invalid settings")
    repo.gated = asked.get("gated", repo.gated)
    repo.private = asked["visibility"] == "private" if "visibility" in asked else repo.private
    return as_json(asked)


def validate_yaml(state: State, call: Call) -> Answer:
    """As much as the client shows: errors of YAML and of the fields that the Hub knows the type of."""
    match = re.match(r"^---\s*\n(.*?)\n---", call.json["content"], re.S)
    try:
        card = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        return as_json({"errors": [{"message": f"YAML error: {error.__class__.__name__}"}], "warnings": []}, 400)
    if not card:
        return as_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    errors = [
        {"message": f'"{name}" must be {said}'}
        for name, kinds, said in (
            ("license", (str, list), "a string or an array"),
            ("configs", list, "an array"),
            ("extra_gated_fields", dict, "an object"),
            ("extra_gated_prompt", str, "a string"),
        )
        if name in card and not isinstance(card[name], kinds)
    ]
    return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def gated(state: State, call: Call, kind: str, name: str) -> Repo:
    """The repository, for somebody who answers its requests."""
    repo = find(state, call, kind, name, write=True)
    if not repo.gated:
        raise Refused(400, "RepoNotGated", "Repo is not gated")
    return repo


def ask(state: State, call: Call, kind: str, name: str) -> Answer:
    """What the form in the browser sends."""
    repo = find(state, call, kind, name)
    if call.user is None:
        raise Refused(401, None, "Unauthorized")
    try:
        request = repo.ask(call.user, dict(parse_qsl(call.body.decode())))
    except ValueError as error:
        raise Refused(400, None, str(error)) from None
    return as_json({"status": request.status})


def requests(state: State, call: Call, kind: str, name: str, status: str) -> Answer:
    repo = gated(state, call, kind, name)
    said = [
        {
            "user": {"user": user, "fullname": user.title()}
            | ({} if request.granted else {"email": f"{user}@example.invalid"}),
            "requestId": request.request_id,
            "status": request.status,
            "timestamp": request.timestamp,
            "fields": request.fields,
        }
        for user, request in repo.access.items()
        if request.status == status
    ]
    return paged(state, call, said)


def handle(state: State, call: Call, kind: str, name: str) -> Answer:
    """Accept, reject, or (with "pending") cancel: a cancelled request waits again."""
    repo, asked = gated(state, call, kind, name), call.json
    request = _request(repo, asked)
    if request is None:
        raise Refused(404, None, "User access request not found")
    if request.status == asked["status"]:
        raise Refused(404, None, f"User access request is already {request.status}")
    request.status, request.reason = asked["status"], asked.get("rejectionReason")
    return as_json({"success": True})


def _request(repo: Repo, asked: dict[str, Any]) -> AccessRequest | None:
    if "user" in asked:
        return repo.access.get(asked["user"])
    return next((r for r in repo.access.values() if r.request_id == asked.get("requestId")), None)


def grant(state: State, call: Call, kind: str, name: str) -> Answer:
    repo, user = gated(state, call, kind, name), call.json["user"]
    if user not in state.users.values():
        raise Refused(404, None, f"User {user} does not exist")
    if (found := repo.access.get(user)) and found.status == "accepted":
        raise Refused(400, None, "User already has access")
    repo.access[user] = repo.request_of(user, "accepted")
    repo.access[user].granted = True
    return as_json({"success": True})


def auth_check(state: State, call: Call, kind: str, name: str, write: str | None = None) -> Answer:
    find(state, call, kind, name, write=bool(write), content=True)
    return as_json({})


def paged(state: State, call: Call, entries: Sequence[object]) -> Answer:
    """A page of a listing, and in Link where the next one is."""
    start = int(call.asked("cursor", "0"))
    stop = start + state.page
    answer = as_json(entries[start:stop])
    if stop < len(entries):
        query = "&".join(part for part in call.query.split("&") if part and not part.startswith("cursor="))
        answer.headers["Link"] = f'<{state.url}{call.path}?{query}{"&" if query else ""}cursor={stop}>; rel="next"'
    return answer


def info(state: State, call: Call, kind: str, name: str, revision: str = "main") -> Answer:
    repo = find(state, call, kind, name)
    oid = commit_of(repo, revision)
    commit = repo.commits[oid]
    detailed = call.asked("blobs") or call.asked("files_metadata")
    siblings = []
    for path, blob in commit.tree.items():
        entry: dict[str, object] = {"rfilename": path}
        if detailed:
            entry |= {"size": blob.size, "blobId": blob.oid}
        if detailed and blob.sha256:
            entry["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
        siblings.append(entry)
    said = {
        "_id": "0" * 24,
        "id": repo.id,
        "author": repo.id.split("/")[0],
        "sha": oid,
        "lastModified": commit.date,
        "createdAt": EPOCH.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [f"doi:{repo.doi}"] if repo.doi else [],
        "siblings": siblings,
        "cardData": _card(commit.tree.get("README.md")),
        "usedStorage": sum(stored.size for stored in repo.objects.values()),
    }
    return as_json(said)


def _card(blob: object) -> object:
    data = getattr(blob, "data", None) or b""
    match = re.match(r"^---\s*\n(.*?)\n---", data.decode(errors="replace"), re.S)
    try:
        return yaml.load(match[1], Loader=yaml.BaseLoader) if match else None
    except yaml.YAMLError:
        return None


def commit_of(repo: Repo, revision: str) -> str:
    """The commit that a revision names, or Refused."""
    if (oid := repo.resolve(revision)) is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return oid
