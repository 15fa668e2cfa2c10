"""`releases.json` on main of each Hub repository: what is current, what was withdrawn and what takes its place.

Written by the Hub scripts, read by everybody who reads a release from there. Pure: no network, no files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from t4sa_data.errors import BadOption, ManifestError

RELEASES_NAME = "releases.json"
FORMAT_VERSION = 1
"""A reader takes its own version and refuses newer ones."""
STATES = ("current", "superseded", "withdrawn")
_LINE = re.compile(r"v(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_VERSION = re.compile(r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)")


def tag_of(version: str) -> str:
    """The tag of a data version.

    Raises:
        BadOption: it is not of the form X.Y.Z.

    >>> tag_of("1.0.0"), tag_of("v1.10.2")
    ('v1.0.0', 'v1.10.2')
    """
    number = version.removeprefix("v")
    if not _VERSION.fullmatch(number):
        raise BadOption("no version of a release", expected="X.Y.Z, such as 1.0.0", got=version)
    return f"v{number}"


def is_tag(name: str) -> bool:
    """Whether a git tag is that of a release.

    >>> is_tag("v1.0.0"), is_tag("v1"), is_tag("draft")
    (True, False, False)
    """
    return name.startswith("v") and _VERSION.fullmatch(name[1:]) is not None


def order_of(tag: str) -> tuple[int, ...]:
    """Sorts tags by their numbers.

    >>> sorted(["v1.10.0", "v1.9.0", "v2.0.0"], key=order_of)
    ['v1.9.0', 'v1.10.0', 'v2.0.0']
    """
    return tuple(_numbers(tag))


@dataclass(frozen=True, kw_only=True)
class ReleaseEntry:
    """One release that was ever published."""

    content_digest: Mapping[str, str]
    """By layer, as in the manifest."""
    date: str
    """Of publication, `YYYY-MM-DD`."""
    state: str
    """Of `STATES`."""
    successor: str | None = None
    """Tag that takes the place of a superseded or withdrawn one."""
    reason: str | None = None
    """Why it was withdrawn."""
    manifest_sha256: str = ""
    """Of this repository's `manifest.json` at the tag."""


@dataclass(frozen=True, kw_only=True)
class Removals:
    """What was removed in all, without saying what: the HMACs are under a key that only maintainers hold."""

    count: int = 0
    hmac: tuple[str, ...] = ()
    """64 hex digits each, sorted."""
    updated: str | None = None
    """Date of the last removal, `YYYY-MM-DD`; None: there was none."""


@dataclass(frozen=True, kw_only=True)
class Releases:
    """The content of `releases.json`."""

    current: str | None = None
    """Tag, such as `v1.0.0`; None before the first release."""
    releases: Mapping[str, ReleaseEntry] = field(default_factory=dict)
    """Tag -> entry, oldest first."""
    removals: Removals = field(default_factory=Removals)

    def successor(self, tag: str) -> str | None:
        """The release that takes a tag's place and is not withdrawn itself; None where there is none."""
        seen: set[str] = set()
        at: str | None = tag
        while at is not None and at not in seen:
            seen.add(at)
            entry = self.releases.get(at)
            if at != tag and entry is not None and entry.state != "withdrawn":
                return at
            at = entry.successor if entry is not None else None
        return None

    def resolve(self, revision: str) -> str | None:
        """The tag that a release line stands for: its newest release that is not withdrawn, else its newest.

        A tag stands for itself. None: neither a line nor a tag of this file.

        >>> entry = ReleaseEntry(content_digest={}, date="2026-01-01", state="superseded")
        >>> Releases(releases={"v1.9.0": entry, "v1.10.0": entry, "v2.0.0": entry}).resolve("v1")
        'v1.10.0'
        """
        if revision in self.releases:
            return revision
        if (match := _LINE.fullmatch(revision)) is None:
            return None
        wanted = [part for part in match.groups() if part is not None]
        found = [tag for tag in self.releases if _numbers(tag)[: len(wanted)] == [int(part) for part in wanted]]
        return max(found, key=lambda tag: (self.releases[tag].state != "withdrawn", _numbers(tag)), default=None)

    def with_release(self, tag: str, *, content_digest: Mapping[str, str], date: str, manifest_sha256: str) -> Releases:
        """The same with `tag` as the current release; what was current is superseded by it.

        A tag that is there with the same content keeps its entry, so that a second run changes nothing.

        Raises:
            BadOption: the tag is there with another content, or it was withdrawn.
        """
        made = ReleaseEntry(
            content_digest=dict(content_digest), date=date, state="current", manifest_sha256=manifest_sha256
        )
        if (known := self.releases.get(tag)) is not None:
            if known.state == "withdrawn":
                raise BadOption("this version was withdrawn and stays so", got=tag, hint="Publish a higher one.")
            if (known.content_digest, known.manifest_sha256) != (made.content_digest, manifest_sha256):
                raise BadOption("this version is published with another content", got=tag, hint="Publish a higher one.")
            return self
        others = {
            name: replace(one, state="superseded", successor=tag) if one.state == "current" else one
            for name, one in self.releases.items()
        }
        return replace(self, current=tag, releases=_sorted({**others, tag: made}))

    def with_withdrawn(self, tag: str, *, successor: str | None, reason: str) -> Releases:
        """The same with `tag` withdrawn; every other release keeps its state.

        Raises:
            BadOption: no such release.
        """
        if (known := self.releases.get(tag)) is None:
            raise BadOption("no such release", expected=" | ".join(self.releases), got=tag)
        gone = replace(known, state="withdrawn", successor=successor, reason=reason)
        current = successor if self.current == tag else self.current
        return replace(self, current=current, releases={**self.releases, tag: gone})

    def with_removals(self, removals: Removals) -> Releases:
        """The same with another list of removals."""
        return replace(self, removals=removals)

    def to_json(self) -> bytes:
        """Canonical bytes: equal content gives equal files."""
        value = {
            "format": FORMAT_VERSION,
            "current": self.current,
            "releases": {tag: _entry_json(entry) for tag, entry in self.releases.items()},
            "removals": {
                "count": self.removals.count,
                "hmac": list(self.removals.hmac),
                "updated": self.removals.updated,
            },
        }
        return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _entry_json(entry: ReleaseEntry) -> dict[str, Any]:
    return {
        "content_digest": dict(sorted(entry.content_digest.items())),
        "date": entry.date,
        "state": entry.state,
        "successor": entry.successor,
        "reason": entry.reason,
        "manifest_sha256": entry.manifest_sha256,
    }


def _sorted(releases: Mapping[str, ReleaseEntry]) -> dict[str, ReleaseEntry]:
    return {tag: releases[tag] for tag in sorted(releases, key=order_of)}


def _numbers(tag: str) -> list[int]:
    match = _LINE.fullmatch(tag)
    return [int(part) for part in match.groups() if part is not None] if match else []


def parse_releases(data: bytes, where: object) -> Releases:
    """Verify the content of a `releases.json`.

    Args:
        data: its bytes.
        where: it came from, for messages.

    Raises:
        ManifestError: no JSON, of a newer format, a field is missing, or a state or tag that does not exist.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ManifestError(f"{RELEASES_NAME} is no JSON", got=error, where=where) from error
    version = value.get("format") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise ManifestError(
            f"a {RELEASES_NAME} that this package does not read",
            expected=f"format {FORMAT_VERSION}",
            got=version,
            where=where,
            hint="Upgrade t4sa-data (pip install -U t4sa-data).",
        )
    try:
        removals = value["removals"]
        made = Releases(
            current=value["current"],
            releases={str(tag): ReleaseEntry(**entry) for tag, entry in value["releases"].items()},
            removals=Removals(
                count=int(removals["count"]), hmac=tuple(removals["hmac"]), updated=removals.get("updated")
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ManifestError(f"{RELEASES_NAME} lacks a field", got=repr(error), where=where) from error
    named = {made.current, *(entry.successor for entry in made.releases.values())} - {None}
    if bad := sorted(str(tag) for tag in named if tag not in made.releases):
        raise ManifestError(f"{RELEASES_NAME} names a release that it does not list", got=bad[0], where=where)
    if states := sorted({entry.state for entry in made.releases.values()} - set(STATES)):
        raise ManifestError("no such state of a release", expected=" | ".join(STATES), got=states[0], where=where)
    return made
