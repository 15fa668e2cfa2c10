"""`releases.json`: written and read back, what is refused, how a release comes, is superseded and withdrawn."""

from __future__ import annotations

import json
from typing import Any

import pytest

from t4sa_data.errors import BadOption, ManifestError
from t4sa_data.releases_file import Releases, Removals, is_tag, order_of, parse_releases, tag_of


def release(known: Releases, tag: str, digest: str = "d") -> Releases:
    return known.with_release(tag, content_digest={"b-t4sa": digest}, date="2026-02-03", manifest_sha256=digest * 64)


def test_two_releases_and_a_withdrawal_read_back() -> None:
    one = release(Releases(), "v1.0.0")
    assert (one.current, one.releases["v1.0.0"].state) == ("v1.0.0", "current")
    two = release(one, "v1.1.0", "e")
    old = two.releases["v1.0.0"]
    assert (two.current, old.state, old.successor) == ("v1.1.0", "superseded", "v1.1.0")
    three = two.with_withdrawn("v1.0.0", successor="v1.1.0", reason="a removal")
    three = three.with_removals(Removals(count=2, hmac=("a" * 64, "b" * 64), updated="2026-02-04"))
    gone = three.releases["v1.0.0"]
    assert (gone.state, gone.reason, three.current) == ("withdrawn", "a removal", "v1.1.0")
    for made in (Releases(), one, two, three):
        assert parse_releases(made.to_json(), "here") == made
        assert parse_releases(made.to_json(), "here").to_json() == made.to_json()


def test_the_layout_is_the_documented_one() -> None:
    value = json.loads(release(Releases(), "v1.0.0").to_json())
    assert list(value) == ["format", "current", "releases", "removals"]
    assert set(value["releases"]["v1.0.0"]) == {
        "content_digest",
        "date",
        "state",
        "successor",
        "reason",
        "manifest_sha256",
    }
    assert value["removals"] == {"count": 0, "hmac": [], "updated": None}


def test_the_same_again_changes_nothing_and_another_content_is_refused() -> None:
    one = release(Releases(), "v1.0.0")
    again = one.with_release("v1.0.0", content_digest={"b-t4sa": "d"}, date="2027-01-01", manifest_sha256="d" * 64)
    assert again.to_json() == one.to_json()
    with pytest.raises(BadOption, match="another content"):
        release(one, "v1.0.0", "e")
    gone = one.with_withdrawn("v1.0.0", successor=None, reason="x")
    assert gone.current is None
    with pytest.raises(BadOption, match="withdrawn"):
        release(gone, "v1.0.0")
    with pytest.raises(BadOption, match="no such release"):
        one.with_withdrawn("v9.0.0", successor=None, reason="x")


def test_releases_stand_in_the_order_of_their_numbers() -> None:
    made = Releases()
    for tag in ("v1.9.0", "v1.10.0", "v2.0.0"):
        made = release(made, tag)
    assert list(json.loads(made.to_json())["releases"]) == ["v1.9.0", "v1.10.0", "v2.0.0"]


BROKEN: dict[str, Any] = {
    "format": {"format": 2},
    "current": {"current": "v9.0.0"},
    "releases": {"releases": {"v1.0.0": {"state": "current"}}},
    "removals": {"removals": {"count": "many"}},
    "nothing": None,
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_what_is_not_whole_is_refused(change: dict[str, Any] | None) -> None:
    value = json.loads(release(Releases(), "v1.0.0").to_json())
    data = json.dumps(value | change).encode() if change else b"<html>"
    with pytest.raises(ManifestError, match="here"):
        parse_releases(data, "here")


@pytest.mark.parametrize("version", ["1", "1.0", "1.0.0.0", "01.0.0", "v1.0.0-rc1", "", "1.0.x", "../x"])
def test_what_is_no_version(version: str) -> None:
    with pytest.raises(BadOption):
        tag_of(version)
    assert not is_tag(version)


def test_versions_and_tags() -> None:
    assert tag_of("1.2.3") == tag_of("v1.2.3") == "v1.2.3"
    assert is_tag("v1.2.3") and not is_tag("1.2.3")
    assert sorted(["v10.0.0", "v9.1.0"], key=order_of) == ["v9.1.0", "v10.0.0"]
