"""Every fault of a site, alone: what the download makes of it, and what it asks for next."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from t4sa_data import errors
from t4sa_data.errors import (
    CredentialsRefused,
    DiskSpaceError,
    NotOnServer,
    ServerFault,
    TruncatedArchive,
    WrongContent,
)

from tests.download_helpers import (  # isort: skip
    CSV,
    FILES,
    GZIP,
    NEXT_FILES,
    OVERLAP_BYTES,
    PACKAGES,
    QUICK,
    TAR,
    TSV,
    assert_no_secret,
    assert_no_wrong_file,
    bring,
    left,
    make_site,
)
from tests.site_double import Fault, http_date  # isort: skip

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("quick_disk")]

CUT = Fault(at=50_000)
IMPATIENT = replace(QUICK, stall_seconds=0.4, attempts=50)
BEHIND_CUT = f"bytes={50_000 - OVERLAP_BYTES}-"
ETAG = f'"{TAR}-v1"'
NOTE, PART = f"{TAR}.part.json", f"{TAR}.part"

# Script -> the ranges that the GETs of the site ask for. In the end the file is right.
HEALED: dict[str, tuple[list[Fault], list[str | None]]] = {
    "no fault": ([], [None]),
    "cut at the first byte": ([Fault(at=0)], [None, None]),
    "cut in the first block": ([Fault(at=300)], [None, None]),
    "cut": ([CUT], [None, BEHIND_CUT]),
    "cut at the last byte": ([Fault(at=len(FILES[TAR]) - 1)], [None, f"bytes={len(FILES[TAR]) - 1 - OVERLAP_BYTES}-"]),
    "cut twice": ([CUT, Fault(at=20_000)], [None, BEHIND_CUT, f"bytes={50_000 + 20_000 - 2 * OVERLAP_BYTES}-"]),
    "cut in the overlap": ([CUT, Fault(at=10)], [None, BEHIND_CUT, BEHIND_CUT]),
    "reset": ([Fault("reset")], [None, None]),
    **{f"HTTP {s}": ([Fault("status", status=s)], [None, None]) for s in (408, 425, 429, 500, 502, 503, 504, 520)},
    "HEAD fails": ([Fault("status", method="HEAD")], [None]),
    "HEAD is not known": ([Fault("status", status=501, method="HEAD")], [None]),
    "HEAD says too much": ([Fault("length_long", method="HEAD")], [None, None]),
    "HEAD says too little": ([Fault("length_short", method="HEAD")], [None, None]),
    "HEAD says too little, GET nothing": ([Fault("length_short", method="HEAD"), Fault("chunked")], [None, None]),
    "too long a length": ([Fault("length_long")], [None, None]),
    "too long a length of the rest": (
        [CUT, Fault("length_long")],
        [None, BEHIND_CUT, f"bytes={len(FILES[TAR]) - OVERLAP_BYTES}-"],
    ),
    "too short a length": ([Fault("length_short")], [None, None]),
    "empty": ([Fault("empty")], [None, None]),
    "chunked": ([Fault("chunked")], [None]),
    "chunked, length unknown": ([Fault("chunked", method="HEAD"), Fault("chunked")], [None]),
    "chunked and cut": ([Fault("chunked", at=50_000)], [None, BEHIND_CUT]),
    "chunked and cut in a chunk": ([Fault("torn", at=50_000)], [None, BEHIND_CUT]),
    "chunked and cut in a chunk, length unknown": (
        [Fault("chunked", method="HEAD"), Fault("torn", at=50_000)],
        [None, BEHIND_CUT],
    ),
    "chunked and cut, length unknown": (
        [Fault("chunked", method="HEAD"), Fault("chunked", at=50_000)],
        [None, BEHIND_CUT],
    ),
    "chunked and cut, length never known": (
        [Fault("chunked", method="HEAD"), Fault("chunked", at=50_000), Fault("no_range_total")],
        [None, BEHIND_CUT, None],
    ),
    "chunked rest": ([CUT, Fault("chunked")], [None, BEHIND_CUT]),
    "chunked rest, cut": (
        [CUT, Fault("chunked", at=9_000)],
        [None, BEHIND_CUT, f"bytes={59_000 - 2 * OVERLAP_BYTES}-"],
    ),
    "until the connection closes": ([Fault("until_close")], [None]),
    "until the connection closes, too soon": ([Fault("until_close", at=50_000)], [None, BEHIND_CUT]),
    "redirected to another path": ([Fault("redirect_same")], [None, None]),
    "redirected to another origin": ([Fault("redirect_other")], [None]),
    "redirected to another origin behind a cut": ([CUT, Fault("redirect_other")], [None, BEHIND_CUT]),
    "weak ETag": ([Fault("weak")], [None]),
    "weak ETag and cut": ([Fault("weak", at=50_000)], [None, None]),
    "no validator": ([Fault("no_validator")], [None]),
    "no validator and cut": ([Fault("no_validator", at=50_000)], [None, None]),
    "a date and cut": ([Fault("date_only", at=50_000)], [None, BEHIND_CUT]),
    "a weak ETag later": ([CUT, Fault("weak")], [None, BEHIND_CUT]),
    "another validator": ([CUT, Fault("new_validator")], [None, BEHIND_CUT]),
    "wrong range": ([CUT, Fault("wrong_range")], [None, BEHIND_CUT, None]),
    "lying range": ([CUT, Fault("lying_range")], [None, BEHIND_CUT, None]),
    "multipart": ([CUT, Fault("multipart")], [None, BEHIND_CUT, None]),
    "range ignored": ([CUT, Fault("range_ignored")], [None, BEHIND_CUT]),
    "range ignored, and cut sooner": (
        [CUT, Fault("range_ignored", at=20_000)],
        [None, BEHIND_CUT, f"bytes={20_000 - OVERLAP_BYTES}-"],
    ),
    "not satisfiable": ([CUT, Fault("unsatisfiable")], [None, BEHIND_CUT, None]),
    "not satisfiable, and none asked for": ([Fault("unsatisfiable")], [None, None]),
    "a part that was not asked for": ([Fault("unasked_206")], [None, None]),
    "all at once": (
        [Fault("reset"), CUT, Fault("status"), Fault("wrong_range"), Fault("unasked_206"), Fault("chunked", at=90_000)],
        [None, None, BEHIND_CUT, BEHIND_CUT, None, None, f"bytes={90_000 - OVERLAP_BYTES}-"],
    ),
}


@pytest.mark.parametrize("name", HEALED)
def test_a_fault_that_heals(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script, ranges = HEALED[name]
    said: list[str] = []
    with make_site(faults=list(script)) as site:
        (done,) = bring(site, tmp_path, say=said.append)
        assert not site.faults
    assert done.path.read_bytes() == FILES[TAR]
    assert done.recorded
    assert [request.range for request in site.requests()] == ranges
    for request in site.requests():
        assert (request.if_range is None) == (request.range is None)
        assert request.if_range in (None, ETAG, site.validators(TAR)["Last-Modified"])
    assert left(tmp_path) == {TAR}
    assert_no_secret(site, tmp_path, *said, *capfd.readouterr())


def test_only_what_is_missing_is_sent(tmp_path: Path) -> None:
    with make_site(faults=[CUT, Fault(at=30_000)]) as site:
        bring(site, tmp_path)
    assert site.num_bytes_sent() == len(FILES[TAR]) + 2 * OVERLAP_BYTES


@pytest.mark.parametrize("script", [[Fault("changed")], [CUT, Fault("changed")], [CUT, Fault("changed_quietly")]])
def test_a_file_that_changes_comes_in_its_new_version(script: list[Fault], tmp_path: Path) -> None:
    with make_site(faults=list(script)) as site:
        (done,) = bring(site, tmp_path)
    assert site.files[TAR] == NEXT_FILES[TAR] == done.path.read_bytes()


# Script -> the error, and the number of GETs.
FATAL: dict[str, tuple[list[Fault], type[errors.T4SAError], int]] = {
    "gzip": ([Fault("gzip")], WrongContent, 1),
    "login page": ([Fault("login")], WrongContent, 1),
    "login page at HEAD": ([Fault("login", method="HEAD")], WrongContent, 0),
    "login page that says it is a tar": (
        [Fault("status", status=405, method="HEAD"), Fault("login_lying")],
        WrongContent,
        1,
    ),
    "login page elsewhere": ([Fault("redirect_login")], WrongContent, 1),
    "redirected to where other credentials are wanted": ([Fault("redirect_gated")], CredentialsRefused, 1),
    "redirected in a circle": ([Fault("redirect_same")] * 9, ServerFault, 6),
    "forbidden": ([Fault("status", status=403)], CredentialsRefused, 1),
    "forbidden at HEAD": ([Fault("status", status=403, method="HEAD")], CredentialsRefused, 0),
    "gone": ([Fault("status", status=410)], NotOnServer, 1),
    "a teapot": ([Fault("status", status=418)], ServerFault, 1),
    "not implemented": ([Fault("status", status=501)], ServerFault, 1),
    "no length at all": ([Fault("until_close", method="HEAD"), Fault("until_close")], WrongContent, 1),
    "come back tomorrow": ([Fault("status", retry_after="86400")], ServerFault, 1),
    "busy for ever": ([Fault("status")] * 9, ServerFault, QUICK.attempts),
    "empty, and HEAD says so too": ([Fault("empty", method="HEAD"), Fault("empty")], WrongContent, 1),
}


@pytest.mark.parametrize("name", FATAL)
def test_a_fault_that_does_not_heal(name: str, tmp_path: Path) -> None:
    script, kind, num_gets = FATAL[name]
    with make_site(faults=list(script)) as site:
        with pytest.raises(kind) as caught:
            bring(site, tmp_path)
        assert len(site.requests()) == num_gets
        assert left(tmp_path) == set(), "nothing came, so nothing is kept"
        assert_no_secret(site, tmp_path, str(caught.value), repr(caught.value))
        site.faults.clear()
        bring(site, tmp_path)
    assert (tmp_path / TAR).read_bytes() == FILES[TAR]


@pytest.mark.parametrize("name", ["gzip", "login page", "login page elsewhere", "forbidden", "gone", "a teapot"])
def test_what_has_come_is_kept_through_a_fault(name: str, tmp_path: Path) -> None:
    script, kind, _ = FATAL[name]
    with make_site(faults=[CUT, *script]) as site:
        with pytest.raises(kind):
            bring(site, tmp_path)
        assert left(tmp_path) == {PART, NOTE}
        num_requests = len(site.requests())
        bring(site, tmp_path)
        (last,) = site.requests()[num_requests:]
        assert (last.range, last.num_bytes) == (BEHIND_CUT, len(FILES[TAR]) - 50_000 + OVERLAP_BYTES)
    assert (tmp_path / TAR).read_bytes() == FILES[TAR]
    assert left(tmp_path) == {TAR}


def test_a_login_page_under_a_false_name_does_not_cost_what_has_come(tmp_path: Path) -> None:
    with make_site(faults=[CUT, Fault("login_lying")]) as site:
        with pytest.raises(WrongContent, match="web page"):
            bring(site, tmp_path)
        assert (tmp_path / PART).stat().st_size == 50_000
        bring(site, tmp_path)
        assert site.requests()[-1].range == BEHIND_CUT


def test_wrong_credentials_are_never_tried_twice(tmp_path: Path) -> None:
    with make_site() as site:
        with pytest.raises(CredentialsRefused) as caught:
            bring(site, tmp_path, auth=(site.user, "no"))
        assert len(site.log) == 2, "one without, one with them"
        with pytest.raises(CredentialsRefused):
            bring(site, tmp_path, "b-t4sa", "text-sentiment", "raw-text", auth=(site.user, "no"))
        assert len([request for request in site.log[2:] if request.authorization]) <= 2, "one a connection"
    assert "no" not in str(caught.value).split()
    assert left(tmp_path) == set()


@pytest.mark.parametrize("ask", ["1", "date"])
def test_retry_after_is_honoured(ask: str, tmp_path: Path) -> None:
    retry_after = http_date(1.99) if ask == "date" else ask  # the date is in whole seconds
    started = time.monotonic()
    with make_site(faults=[Fault("status", retry_after=retry_after)]) as site:
        bring(site, tmp_path)
    assert 0.9 <= time.monotonic() - started < 60


@pytest.mark.parametrize(
    "fault", [Fault("drip", seconds=0.05), Fault("stall", at=50_000, seconds=60), Fault("mute", seconds=60)]
)
def test_a_site_that_dawdles_is_asked_again(fault: Fault, tmp_path: Path) -> None:
    said: list[str] = []
    with make_site(faults=[fault]) as site:
        bring(site, tmp_path, limits=IMPATIENT, say=said.append)
    assert (tmp_path / TAR).read_bytes() == FILES[TAR]
    assert any("again in" in line for line in said)


@pytest.mark.parametrize("after", [300, 50_000])
def test_a_trickle_is_seen_wherever_it_is(after: int, tmp_path: Path) -> None:
    # In the first block, and in the bytes that are compared.
    with make_site(faults=[Fault(at=after), Fault("drip", seconds=0.2)]) as site:
        started = time.monotonic()
        bring(site, tmp_path, limits=IMPATIENT)
        assert time.monotonic() - started < 60, "the first block would take 100 s, the overlap 200"
    assert (tmp_path / TAR).read_bytes() == FILES[TAR]


def test_cuts_without_end_end(tmp_path: Path) -> None:
    # Without validators every cut starts over; the bytes come and go, and never add up.
    cuts = [Fault("no_validator", at=20_000 + 30_000 * (number % 2)) for number in range(100)]
    with make_site(faults=cuts) as site:
        with pytest.raises(ServerFault, match=r"started over|faults in a row"):
            bring(site, tmp_path)
        assert len(site.requests()) <= 2 * QUICK.attempts + 2
    assert_no_wrong_file(site, tmp_path)


def test_a_head_that_always_contradicts_ends(tmp_path: Path) -> None:
    contradictions = [Fault("length_long", method="HEAD"), Fault()] * 50
    with make_site(faults=contradictions) as site:
        with pytest.raises(ServerFault, match="the site says"):
            bring(site, tmp_path)
        assert len(site.requests()) == QUICK.attempts
        site.faults[:] = [Fault("length_short", method="HEAD"), Fault("chunked")] * 50
        with pytest.raises(ServerFault, match="longer than it says"):
            bring(site, tmp_path)
    assert_no_wrong_file(site, tmp_path)


def test_progress_resets_the_count_of_faults(tmp_path: Path) -> None:
    with make_site(faults=[Fault(at=10_000)] * 9) as site:
        bring(site, tmp_path)
    assert len(site.requests()) == 10 > QUICK.attempts


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("script", [[], [CUT], [Fault("gzip")], [Fault("login_lying")], [Fault("chunked", at=999)]])
def test_every_kind_of_file(package: str, script: list[Fault], tmp_path: Path) -> None:
    name = PACKAGES[package]
    with make_site(faults=[Fault("status", status=405, method="HEAD"), *script]) as site:
        try:
            (done,) = bring(site, tmp_path, package)
            assert done.path.read_bytes() == FILES[name]
        except WrongContent:
            assert script[0].kind in ("gzip", "login_lying")
            assert not (tmp_path / name).exists()
        else:
            assert not script or script[0].kind not in ("gzip", "login_lying")


@pytest.mark.parametrize("name", [TAR, GZIP])
def test_a_damaged_archive_of_the_right_length_gets_no_name(name: str, tmp_path: Path) -> None:
    package = next(package for package, filename in PACKAGES.items() if filename == name)
    with make_site(files={**FILES, name: FILES[name][:-3000]}) as site:
        with pytest.raises(TruncatedArchive if name == TAR else WrongContent):
            bring(site, tmp_path, package)
        assert left(tmp_path) == {f"{name}.part", f"{name}.part.json"}
        site.next_files[name] = FILES[name]
        site.change(name)
        bring(site, tmp_path, package)
    assert (tmp_path / name).read_bytes() == FILES[name]


@pytest.mark.parametrize("name", [TSV, CSV])
def test_an_empty_table_is_refused(name: str, tmp_path: Path) -> None:
    package = next(package for package, filename in PACKAGES.items() if filename == name)
    with make_site(files={name: b""}) as site, pytest.raises(WrongContent):
        bring(site, tmp_path, package)
    assert left(tmp_path) == set()


def test_too_small_a_disk_is_seen_before_a_byte_is_written(tmp_path: Path) -> None:
    with make_site() as site:
        with pytest.raises(DiskSpaceError, match="not enough disk"):
            bring(site, tmp_path, limits=replace(QUICK, spare_bytes=1 << 60))
        assert left(tmp_path) == set()
        bring(site, tmp_path)


def test_a_disk_that_gets_too_small_keeps_what_has_come(tmp_path: Path) -> None:
    with make_site(faults=[CUT, Fault("status", retry_after="86400")]) as site:
        with pytest.raises(ServerFault):
            bring(site, tmp_path)
        with pytest.raises(DiskSpaceError, match="is kept"):
            bring(site, tmp_path, limits=replace(QUICK, spare_bytes=1 << 60))
        bring(site, tmp_path)
    assert site.requests()[-1].range == BEHIND_CUT
