"""What a publication would do, without doing it: files, bytes to send, what is there already, and the private quota."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hub_scripts.client import Hub, RepositoryState, explain
from hub_scripts.gate import open_door
from hub_scripts.view import Difference, View, differ
from t4sa_data.errors import HubError, VersionTaken
from t4sa_data.releases_file import is_tag, order_of
from t4sa_data.summary import size

FREE_PRIVATE_BYTES = 100_000_000_000
"""Private storage of a free account (Hub documentation, storage-limits, 2026-08)."""
TYPICAL_BYTES_PER_SECOND = 10_000_000
"""For the estimate of hours: an upstream line of 80 Mbit/s."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be done for one repository."""

    repo_id: str
    tag: str
    num_files: int
    num_bytes: int
    """Of all its files."""
    send: tuple[str, ...]
    """Paths that are not there yet, or with other bytes."""
    send_bytes: int
    """Of these, whole: with Xet fewer, as it sends only the chunks that are new."""
    delete: tuple[str, ...]
    """Paths that main holds and the version does not."""
    changed: tuple[str, ...]
    """Those of `send` that are there with other bytes."""
    steps: tuple[str, ...]
    is_private: bool
    """Whether its bytes count as private while they are sent."""


def plan_of(hub: Hub, view: View) -> Plan:
    """Look at a repository and say what would be done.

    Raises:
        OpenDoor, VersionTaken: as `publish`.
    """
    repo_id = hub.repository(view.fmt)
    state = hub.state(repo_id)
    difference = Difference(missing=tuple(view.files))
    if state is not None:
        if state.is_open:
            raise open_door(repo_id)
        refuse_version(hub, repo_id, view, state)
        difference = differ(view, hub.tree(repo_id, view.tag if view.tag in state.tags else state.branches["main"]))
    files = view.files
    return Plan(
        repo_id=repo_id,
        tag=view.tag,
        num_files=len(files),
        num_bytes=view.num_bytes,
        send=difference.to_send,
        send_bytes=sum(files[name].bytes for name in difference.to_send),
        delete=difference.beyond,
        changed=difference.changed,
        steps=_steps(view.tag, state, difference),
        is_private=state is None or state.private,
    )


def branch_of(tag: str) -> str:
    """The branch that a later version is uploaded to.

    >>> branch_of("v1.1.0")
    'release-v1.1.0'
    """
    return f"release-{tag}"


def stale_branches(branches: Iterable[str], tag: str) -> list[str]:
    """Branches that versions up to this one were uploaded to: nobody needs them any more.

    >>> stale_branches(["main", "release-v1.0.9", "release-v1.1.0", "release-v1.2.0", "release-notes"], "v1.1.0")
    ['release-v1.0.9', 'release-v1.1.0']
    """
    tags = {branch: branch.removeprefix("release-") for branch in branches if branch.startswith("release-")}
    return [branch for branch, name in tags.items() if is_tag(name) and order_of(name) <= order_of(tag)]


def refuse_version(hub: Hub, repo_id: str, view: View, state: RepositoryState) -> None:
    """Raises VersionTaken where this version cannot be published there."""
    if view.tag in state.tags:
        difference = differ(view, hub.tree(repo_id, view.tag))
        if not difference.is_none:
            raise VersionTaken(
                "this version is published with other bytes, and a tag never moves",
                got=difference,
                where=f"{repo_id}@{view.tag}",
                hint="Publish a higher --version; the form of the gate alone is changed by `t4sa hub gate --form`.",
            )
    elif higher := [tag for tag in state.tags if is_tag(tag) and order_of(tag) > order_of(view.tag)]:
        raise VersionTaken(
            "a higher version is published already", got=max(higher, key=order_of), where=repo_id, hint="Go on from it."
        )
    entry = hub.releases(repo_id).releases.get(view.tag)
    if entry is not None and entry.state == "withdrawn":
        raise VersionTaken("this version was withdrawn", got=entry.reason, where=f"{repo_id}@{view.tag}")


def _steps(tag: str, state: RepositoryState | None, difference: Difference) -> tuple[str, ...]:
    is_first = state is None or (state.private and not any(map(is_tag, state.tags)))
    steps = ["create it, private"] if state is None else []
    if not difference.is_none:
        by = "upload to main" if is_first else f"upload to branch {branch_of(tag)}, one commit to main"
        steps += [by, "verify every sha256"]
    if is_first:
        steps.append("gate and visibility in one call")
    if state is None or tag not in state.tags:
        steps += [f"tag {tag}", "releases.json"]
    return tuple(steps) or ("nothing: it is all there",)


def describe(hub: Hub, plans: Sequence[Plan]) -> str:
    """The plans in a screen."""
    lines = []
    for plan in plans:
        there = plan.num_files - len(plan.send)
        lines += [
            f"{plan.repo_id} {plan.tag}: {plan.num_files} files, {size(plan.num_bytes)}; "
            f"there already {there}, to send {len(plan.send)} ({size(plan.send_bytes)}), to delete {len(plan.delete)}",
            *(f"  changes {name}" for name in plan.changed[:20]),
            *([f"  and {len(plan.changed) - 20} more"] if len(plan.changed) > 20 else []),
            f"  {'; '.join(plan.steps)}",
        ]
    total = sum(plan.send_bytes for plan in plans)
    hours = total / TYPICAL_BYTES_PER_SECOND / 3600
    lines.append(f"to send: {size(total)}, {hours:.1f} h at {size(TYPICAL_BYTES_PER_SECOND)}/s")
    lines.append(_quota(hub, plans))
    return "\n".join(lines)


def _quota(hub: Hub, plans: Sequence[Plan]) -> str:
    largest = max((plan.num_bytes for plan in plans if plan.is_private), default=0)
    if not largest:
        return "private storage: none is needed"
    need = f"{size(largest)} at once, as each repository is opened before the next is filled"
    limit = private_limit(hub)
    if limit is None:
        free = size(FREE_PRIVATE_BYTES)
        return f"private storage: {need}; the limit of {hub.namespace} is not known here (free accounts: {free})"
    verdict = "fits" if largest <= limit else "DOES NOT FIT"
    return f"private storage: {need}; {verdict} the {size(limit)} of a free account"


def private_limit(hub: Hub) -> int | None:
    """Private storage of the namespace in bytes, where it is known: that of a free account; else None."""
    try:
        with explain(hub.namespace):
            me = hub.api.whoami()
    except HubError:
        return None
    return FREE_PRIVATE_BYTES if me.get("name") == hub.namespace and me.get("isPro") is False else None
