"""`releases.json` on main of each Hub repository: what is current, superseded or withdrawn, and what was removed.

Pure: nothing here touches the network. Written by `t4sa hub publish` and `takedown`, read by everybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from t4sa_data.errors import BadOption, ManifestError

RELEASES_NAME = "releases.json"
RELEASES_FORMAT = 1
"""Version of the file's layout. A reader takes its own version and refuses newer ones."""

State = Literal["current", "superseded", "withdrawn"]
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def tag_of(version: str) -> str:
    """The tag of a data version.

    Raises:
        BadOption: it is not of the form X.Y.Z.

    >>> tag_of("1.0.0"), tag_of("v1.10.2")
    ('v1.0.0', 'v1.10.2')
    """
    number = version.removeprefix("v")
    if not _VERSION.fullmatch(number):
        raise BadOption("no version of a release", expected="X.Y.Z, as 1.0.0", got=version)
    return f"v{number}"


def order_of(tag: str) -> tuple[int, ...]:
    """Sorts tags by their numbers.

    >>> sorted(["v1.10.0", "v1.9.0", "v2.0.0"], key=order_of)
    ['v1.9.0', 'v1.10.0', 'v2.0.0']
    """
    return tuple(int(part) for part in tag_of(tag)[1:].split("."))


def is_tag(name: str) -> bool:
    """Whether a git tag is that of a release.

    >>> is_tag("v1.0.0"), is_tag("v1"), is_tag("draft")
    (True, False, False)
    """
    return name.startswith("v") and _VERSION.fullmatch(name[1:]) is not None


@dataclass(frozen=True, kw_only=True)
class ReleaseRecord:
    """One release that was published."""

    content_digest: Mapping[str, str]
    """By layer."""
    date: str
    """Of its publication, UTC, YYYY-MM-DD."""
    manifest_sha256: str
    """Of its `manifest.json`."""
    state: State = "current"
    successor: str | None = None
    """Tag of what replaced it; None for the current one."""
    reason: str | None = None
    """Why it was withdrawn."""


@dataclass(frozen=True, kw_only=True)
class Removals:
    """What was taken out of published releases, so that holders of copies can take it out too."""

    count: int = 0
    hmac: tuple[str, ...] = ()
    """Of each removed key, under a key that only maintainers hold: the ids themselves are not told."""
    updated: str | None = None
    """UTC, YYYY-MM-DD."""


@dataclass(frozen=True, kw_only=True)
class ReleasesFile:
    """The content of `releases.json`."""

    current: str | None = None
    """Tag that readers should use; None before the first release."""
    releases: Mapping[str, ReleaseRecord] = field(default_factory=dict)
    """By tag, in the order of versions."""
    removals: Removals = Removals()

    def record(self, tag: str) -> ReleaseRecord | None:
        """What is said of a tag, or None."""
        return self.releases.get(tag)

    def with_release(
        self, tag: str, *, content_digest: Mapping[str, str], date: str, manifest_sha256: str
    ) -> ReleasesFile:
        """The same with `tag` as the current release; what was current is superseded by it.

        A tag that is there with the same content keeps its date, so that a second run changes nothing.

        Raises:
            BadOption: the tag is there with another content, or it was withdrawn.
        """
        made = ReleaseRecord(content_digest=dict(content_digest), date=date, manifest_sha256=manifest_sha256)
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

    def with_withdrawn(self, tag: str, *, successor: str | None, reason: str) -> ReleasesFile:
        """The same with `tag` withdrawn (every other release keeps its state).

        Raises:
            BadOption: no such release.
        """
        if (known := self.releases.get(tag)) is None:
            raise BadOption("no such release", expected=" | ".join(self.releases), got=tag)
        gone = replace(known, state="withdrawn", successor=successor, reason=reason)
        current = successor if self.current == tag else self.current
        return replace(self, current=current, releases={**self.releases, tag: gone})

    def with_removals(self, removals: Removals) -> ReleasesFile:
        """The same with another list of removals."""
        return replace(self, removals=removals)

    def to_json(self) -> bytes:
        """Canonical bytes: equal content, equal file."""
        value = {
            "format": RELEASES_FORMAT,
            "current": self.current,
            "releases": {tag: _ordered(asdict(one)) for tag, one in _sorted(self.releases).items()},
            "removals": asdict(self.removals),
        }
        return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


_FIELDS = ("content_digest", "date", "state", "successor", "reason", "manifest_sha256")


def _ordered(value: dict[str, Any]) -> dict[str, Any]:
    digests = dict(sorted(value["content_digest"].items()))
    return {name: digests if name == "content_digest" else value[name] for name in _FIELDS}


def _sorted(releases: Mapping[str, ReleaseRecord]) -> dict[str, ReleaseRecord]:
    return {tag: releases[tag] for tag in sorted(releases, key=order_of)}


def parse_releases(data: bytes, where: object = RELEASES_NAME) -> ReleasesFile:
    """Verify the content of a `releases.json`.

    Args:
        data: its bytes.
        where: where it came from, for messages.

    Raises:
        ManifestError: it is no JSON, lacks fields, contradicts itself, or is of a newer format.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ManifestError("the list of releases is no JSON", got=error, where=where) from error
    version = value.get("format") if isinstance(value, dict) else None
    if version != RELEASES_FORMAT:
        raise ManifestError(
            "a list of releases that this package does not read",
            expected=f"format {RELEASES_FORMAT}",
            got=version,
            where=where,
            hint="Upgrade t4sa-data (pip install -U t4sa-data).",
        )
    try:
        made = _from_dict(value)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ManifestError("the list of releases lacks a field, or has a wrong one", got=error, where=where) from error
    if made.current is not None and made.current not in made.releases:
        raise ManifestError("the current release is not in the list", got=made.current, where=where)
    return made


def _from_dict(value: dict[str, Any]) -> ReleasesFile:
    releases = {}
    for tag, one in value["releases"].items():
        record = ReleaseRecord(**{name: one[name] for name in _FIELDS})
        if not is_tag(tag) or record.state not in get_args(State) or not _DATE.fullmatch(record.date):
            raise ValueError(f"{tag}: {record.state}, {record.date}")
        releases[tag] = replace(record, content_digest=dict(record.content_digest))
    removed = value["removals"]
    removals = Removals(count=int(removed["count"]), hmac=tuple(removed["hmac"]), updated=removed["updated"])
    return ReleasesFile(current=value["current"], releases=_sorted(releases), removals=removals)
