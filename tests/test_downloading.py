"""Gated download: across runs, against what was recorded, two at once, and what never leaves its origin."""

from __future__ import annotations

import gc
import io
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from t4sa_data import catalog, downloading
from t4sa_data.downloading import Limits, Site
from t4sa_data.downloading.part import Part
from t4sa_data.downloading.registry import Registry
from t4sa_data.downloading.replies import Append, Complete, Fault, Restart, decide, jitter, read_reply
from t4sa_data.errors import (
    BadHeader,
    CredentialsInURL,
    CredentialsMissing,
    CredentialsRefused,
    DownloadError,
    InsecureTransport,
    NotOnServer,
    OutputLocked,
    RecordedDiffers,
    ServerFault,
    UnknownPackage,
    WrongContent,
)

from tests import site_double  # isort: skip
from tests.download_helpers import (  # isort: skip
    FILES,
    NEXT_FILES,
    OVERLAP_BYTES,
    PACKAGES,
    PASSWORD,
    QUICK,
    TAR,
    TSV,
    USER,
    assert_no_secret,
    assert_no_wrong_file,
    bring,
    left,
    make_site,
    start_client,
)

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("quick_disk")]

CUT = site_double.Fault(at=50_000)
BEHIND_CUT = f"bytes={50_000 - OVERLAP_BYTES}-"
IMPATIENT = replace(QUICK, attempts=1)
NOTE, PART = f"{TAR}.part.json", f"{TAR}.part"
PATIENCE_SECONDS = 120
"""For another process, on a machine that has much else to do."""
PATIENT = replace(QUICK, stall_seconds=300)


def cut_short(site: site_double.OfficialSite, to: Path) -> None:
    """A run that ends at byte 50,000."""
    site.faults.append(CUT)
    with pytest.raises(ServerFault, match=r"cut at byte 50,000|IncompleteRead|ProtocolError"):
        bring(site, to, limits=IMPATIENT)
    assert (to / PART).stat().st_size == 50_000
    site.log.clear()


# Across runs.


def test_a_later_run_asks_for_what_is_missing(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    with make_site() as site:
        cut_short(site, tmp_path)
        (done,) = bring(site, tmp_path, progress=lambda *now: seen.append(now))
    assert [request.range for request in site.requests()] == [BEHIND_CUT]
    assert site.num_bytes_sent() == len(FILES[TAR]) - 50_000 + OVERLAP_BYTES
    assert done.path.read_bytes() == FILES[TAR]
    assert left(tmp_path) == {TAR}
    assert seen[-1] == ("b-t4sa", len(FILES[TAR]), len(FILES[TAR]))
    assert all(have > 50_000 for _, have, _ in seen)


def test_a_file_that_changed_between_runs_comes_anew(tmp_path: Path) -> None:
    said: list[str] = []
    with make_site() as site:
        cut_short(site, tmp_path)
        site.change(TAR)
        (done,) = bring(site, tmp_path, say=said.append)
    assert done.path.read_bytes() == NEXT_FILES[TAR]
    assert len(site.requests()) == 1
    assert any("changed on the site" in line for line in said)


def test_several_files_come_two_at_a_time(tmp_path: Path) -> None:
    with make_site() as site:
        done = bring(site, tmp_path, *PACKAGES)
        assert [one.name for one in done] == list(PACKAGES)
        assert {one.path.name: one.path.read_bytes() for one in done} == FILES
        site.log.clear()
        again = bring(site, tmp_path, *PACKAGES)
    assert [replace(one, recorded=True) for one in again] == done
    assert not any(one.recorded for one in again)
    assert site.log == [], "nothing is asked for twice"


def test_open_files_take_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t4sa_data.credentials.find", lambda *_, **__: pytest.fail("credentials were looked for"))
    with make_site() as site:
        site.is_open = True
        bring(site, tmp_path, auth=None)
    assert not any(request.authorization for request in site.log)


def test_an_unknown_package_is_named() -> None:
    with pytest.raises(UnknownPackage, match="b-t4sa"):
        downloading.plan(["t4sa.tar"])


# Part files that do not suit.


def spoil_note(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(to: Path) -> None:
        note = json.loads((to / NOTE).read_bytes())
        change(note)
        (to / NOTE).write_text(json.dumps(note))

    return spoil


def tamper(to: Path, position: int = 30_000) -> None:
    data = bytearray((to / PART).read_bytes())
    data[position] ^= 1
    (to / PART).write_bytes(data)


UNSUITED: dict[str, Callable[[Path], object]] = {
    "garbage for a note": lambda to: (to / NOTE).write_bytes(b"\xff\x00{"),
    "an empty note": lambda to: (to / NOTE).write_bytes(b""),
    "a list for a note": lambda to: (to / NOTE).write_text("[1, 2]"),
    "no note": lambda to: (to / NOTE).unlink(),
    "no validator": spoil_note(lambda note: note.update(validator=None)),
    "a validator with a line break": spoil_note(lambda note: note.update(validator='"v1"\r\nX-Evil: 1')),
    "a number for a validator": spoil_note(lambda note: note.update(validator=1)),
    "an infinite size": spoil_note(lambda note: note.update(kept=float("inf"))),
    "a negative size": spoil_note(lambda note: note.update(kept=-1)),
    "no checksum": spoil_note(lambda note: note.pop("sha256")),
    "another URL": spoil_note(lambda note: note.update(url="http://127.0.0.1:1/x.tar")),
    "tampered bytes": tamper,
    "fewer bytes": lambda to: (to / PART).write_bytes(FILES[TAR][:40_000]),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_an_unsuited_part_is_started_over(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    with make_site() as site:
        cut_short(site, tmp_path)
        UNSUITED[name](tmp_path)
        (done,) = bring(site, tmp_path, say=said.append)
    assert done.path.read_bytes() == FILES[TAR]
    assert [request.range for request in site.requests()] == [None]
    assert any("starting over" in line for line in said)
    assert left(tmp_path) == {TAR}


def test_bytes_behind_the_last_checkpoint_are_not_trusted(tmp_path: Path) -> None:
    with make_site() as site:
        cut_short(site, tmp_path)
        with (tmp_path / PART).open("ab") as file:
            file.write(bytes(200_000))  # as a power cut may leave it; more than the whole file
        (done,) = bring(site, tmp_path)
    assert [request.range for request in site.requests()] == [BEHIND_CUT]
    assert done.path.read_bytes() == FILES[TAR]


def test_a_mirror_without_the_file_does_not_cost_what_has_come(tmp_path: Path) -> None:
    with make_site() as site, make_site(files={}) as mirror:
        cut_short(site, tmp_path)
        with pytest.raises(NotOnServer):
            bring(mirror, tmp_path)
        with pytest.raises(CredentialsRefused):
            bring(mirror, tmp_path, auth=(mirror.user, "wrong"))
        bring(site, tmp_path)
    assert [request.range for request in site.requests()] == [BEHIND_CUT]


def test_a_part_that_cannot_be_read_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_site() as site:
        cut_short(site, tmp_path)

        def fail(_part: Part, _url: str) -> str:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(Part, "take_up", fail)
            with pytest.raises(OSError, match="Input"):
                bring(site, tmp_path)
        bring(site, tmp_path)
    assert [request.range for request in site.requests()] == [BEHIND_CUT]


def test_what_a_killed_run_left_is_swept(tmp_path: Path) -> None:
    with make_site() as site:
        bring(site, tmp_path)
        (tmp_path / NOTE).write_text("{}")  # killed between the final name and the note's end
        (tmp_path / f".{NOTE}.1-2.t4sa-tmp").write_text("{}")
        (tmp_path / ".checksums.json.1-2.t4sa-tmp").write_text("{}")
        (tmp_path / ".other.1-2.t4sa-tmp").write_text("another command's")
        bring(site, tmp_path)
    assert left(tmp_path) == {TAR, ".other.1-2.t4sa-tmp"}


# What was recorded.


def test_the_first_file_is_recorded_and_a_later_one_held_against_it(tmp_path: Path) -> None:
    said: list[str] = []
    with make_site() as site:
        (first,) = bring(site, tmp_path, say=said.append)
        entry = Registry(tmp_path).get(TAR)
        assert entry is not None
        assert (entry.sha256, entry.num_bytes, entry.etag) == (first.sha256, len(FILES[TAR]), f'"{TAR}-v1"')
        assert any("recorded, not published" in line for line in said)
        (tmp_path / TAR).unlink()
        (second,) = bring(site, tmp_path, say=said.append)
        assert (second.sha256, first.recorded, second.recorded) == (first.sha256, True, False)
        assert "as recorded before" in said[-1]


def test_another_file_than_the_recorded_one_is_an_error_that_names_both(tmp_path: Path) -> None:
    with make_site() as site:
        (first,) = bring(site, tmp_path)
        (tmp_path / TAR).unlink()
        site.change(TAR)
        with pytest.raises(RecordedDiffers) as caught:
            bring(site, tmp_path)
        assert first.sha256 in str(caught.value)
        assert str(caught.value).count("sha256") == 2
        assert left(tmp_path) == {PART, NOTE}
        # As the message says: without the entry the new one is taken, and what has come is not fetched again.
        record = json.loads((tmp_path / "checksums.json").read_bytes())
        del record["files"][TAR]
        (tmp_path / "checksums.json").write_text(json.dumps(record))
        site.log.clear()
        (done,) = bring(site, tmp_path)
        assert done.path.read_bytes() == NEXT_FILES[TAR]
        assert site.num_bytes_sent() == OVERLAP_BYTES


def test_a_file_that_changed_on_the_disk_is_hashed_and_refused(tmp_path: Path) -> None:
    with make_site() as site:
        (done,) = bring(site, tmp_path)
        done.path.write_bytes(done.path.read_bytes())  # touched only
        (again,) = bring(site, tmp_path)
        assert again.sha256 == done.sha256
        entry = Registry(tmp_path).get(TAR)
        assert entry is not None
        assert (entry.etag, entry.modified_ns) == (f'"{TAR}-v1"', done.path.stat().st_mtime_ns)
        done.path.write_bytes(NEXT_FILES[TAR])
        with pytest.raises(RecordedDiffers, match=f"remove {TAR}"):
            bring(site, tmp_path)
        done.path.unlink()
        bring(site, tmp_path)
    assert done.path.read_bytes() == FILES[TAR]


@pytest.mark.parametrize("name", [TAR, TSV])
def test_a_file_from_elsewhere_is_looked_at_and_recorded(name: str, tmp_path: Path) -> None:
    package = next(package for package, filename in PACKAGES.items() if filename == name)
    with make_site() as site:
        (tmp_path / name).write_bytes(site_double.LOGIN_PAGE)  # what another client made of a login page
        with pytest.raises(WrongContent):
            bring(site, tmp_path, package)
        assert Registry(tmp_path).get(name) is None
        (tmp_path / name).write_bytes(FILES[name])
        (done,) = bring(site, tmp_path, package)
    assert done.recorded
    assert site.log == []


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text("{")
    with make_site() as site, pytest.raises(DownloadError, match="cannot be read"):
        bring(site, tmp_path)


# Several at once, and ends in the middle.


def test_two_runs_do_not_fight(tmp_path: Path) -> None:
    with make_site(faults=[site_double.Fault("stall", at=50_000, seconds=300)]) as site:
        first = threading.Thread(target=bring, args=(site, tmp_path))
        first.start()
        while not site.requests():
            time.sleep(0.005)
        with pytest.raises(OutputLocked, match="another download"):
            bring(site, tmp_path)
        site.closing.set()  # the stall ends
        first.join()
        bring(site, tmp_path)
    assert (tmp_path / TAR).read_bytes() == FILES[TAR]


def test_a_fault_of_one_file_ends_the_others_at_once(tmp_path: Path) -> None:
    stall = site_double.Fault("stall", at=50_000, seconds=300)
    with make_site(faults=[stall]) as site:
        del site.files[TSV]
        started = time.monotonic()
        with pytest.raises(NotOnServer):
            bring(site, tmp_path, "b-t4sa", "text-sentiment", limits=PATIENT)
        assert time.monotonic() - started < PATIENCE_SECONDS
        assert not any(thread.name.startswith("download") for thread in threading.enumerate())
    assert left(tmp_path) <= {PART, NOTE}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_a_run_that_waits_for_the_site(tmp_path: Path) -> None:
    with make_site(faults=[site_double.Fault("stall", at=50_000, seconds=300)]) as site:
        client = start_client(site, tmp_path, limits=vars(PATIENT))
        while not (tmp_path / PART).exists() or (tmp_path / PART).stat().st_size < 50_000:
            assert client.poll() is None
            time.sleep(0.01)
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=PATIENCE_SECONDS)
        assert client.returncode != 0
        assert b"KeyboardInterrupt" in err
        assert_no_secret(site, tmp_path, out, err)
        site.log.clear()
        bring(site, tmp_path)
    assert [request.range for request in site.requests()] == [BEHIND_CUT]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_FSIZE as Linux has it")
def test_a_disk_that_is_full_keeps_what_has_come(tmp_path: Path) -> None:
    with make_site() as site:
        client = start_client(site, tmp_path, file_bytes=60_000)
        _, err = client.communicate(timeout=PATIENCE_SECONDS)
        assert b"named: DiskSpaceError" in err, err
        kept = (tmp_path / PART).stat().st_size
        assert 40_000 <= kept <= 60_000
        site.log.clear()
        (done,) = bring(site, tmp_path)
    assert done.path.read_bytes() == FILES[TAR]
    assert all(request.range is not None for request in site.requests())


def test_no_socket_or_file_stays_open(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with make_site(faults=[CUT, site_double.Fault("status"), site_double.Fault("redirect_other")]) as site:
        bring(site, tmp_path, *PACKAGES)
        with pytest.raises(CredentialsRefused):
            bring(site, tmp_path / "b", auth=(site.user, "wrong"))
    gc.collect()
    assert [str(warning.message) for warning in recwarn if warning.category is ResourceWarning] == []


# Credentials stay at home.


def test_a_hostile_netrc_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `requests` takes netrc for every host, on every redirect, in place of what it was given.
    netrc = tmp_path / ".netrc"
    with make_site(faults=[site_double.Fault("redirect_other"), CUT, site_double.Fault("redirect_same")]) as site:
        port = site.other_url.rpartition(":")[2].strip("/")
        entries = [f"machine {host} login evil password evil\n" for host in ("127.0.0.1", f"127.0.0.1:{port}")]
        netrc.write_text("".join(entries) + "default login evil password evil\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("HOME", str(tmp_path))
        bring(site, tmp_path / "raw", *PACKAGES)
    assert {request.authorization for request in site.log} == {None, site.authorization}
    assert_no_secret(site, tmp_path)


def test_a_redirect_to_another_origin_goes_on_without_them(tmp_path: Path) -> None:
    with make_site(faults=[CUT, site_double.Fault("redirect_other")]) as site:
        bring(site, tmp_path)
        (elsewhere,) = site.requests(origin="other")
    assert (elsewhere.authorization, elsewhere.range) == (None, BEHIND_CUT)


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(CredentialsInURL) as caught:
        downloading.download(["b-t4sa"], tmp_path, base_url="http://me:s3cret-s3cret@127.0.0.1:1/")
    assert "s3cret" not in str(caught.value)


def test_without_credentials_the_error_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("T4SA_USER", "T4SA_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with make_site() as site, pytest.raises(CredentialsMissing, match="T4SA_USER"):
        bring(site, tmp_path, auth=None, interactive=False)
    assert len(site.log) == 1


# A site whose sender is replaced: what is asked of whom.

Sent = tuple[str, str, str | None]
AUTH = ("me", "s3cret-s3cret")


def answer(status: int, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code, response.raw = status, io.BytesIO()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


class FakeSite(Site):
    """Answers by the origin and path asked for; credentials are wanted at the origins in `gated`."""

    def __init__(self, base_url: str, answers: dict[str, Any], gated: tuple[str, ...] = (), **choices: Any) -> None:
        super().__init__(base_url, auth=AUTH, **choices)
        self.answers, self.gated, self.sent = answers, gated, list[Sent]()

    def _send(self, method: str, url: str, origin: Any, sent: Any, headers: Any) -> requests.Response:
        # What goes out is decided as in the real one.
        authorized = sent.user if sent is not None and origin == self.home else None
        self.sent.append((method, url, authorized))
        if str(origin) in self.gated and authorized is None:
            return answer(401, WWW_Authenticate="Basic")
        found = self.answers.get(url, self.answers.get(str(origin), 404))
        if isinstance(found, Exception):
            raise found
        return answer(found) if isinstance(found, int) else answer(302, Location=found)


def open_all(site: Site, num: int = 2) -> None:
    for _ in range(num):
        with site.open(site.url("x.tar"), now=0.0):
            pass


HTTP, HTTPS = "http://example.org", "https://example.org"
DOWN = requests.ConnectionError("no")


@pytest.mark.parametrize("offers", [200, 401])
def test_https_is_tried_first_and_kept(offers: int) -> None:
    gated = (HTTPS,) if offers == 401 else ()
    site = FakeSite(f"{HTTP}/data/", {HTTPS: 200}, gated)
    open_all(site)
    assert site.sent[0] == ("HEAD", f"{HTTPS}/data/x.tar", None)
    assert {url for _, url, _ in site.sent} == {f"{HTTPS}/data/x.tar"}, "never back to http"
    assert len(site.sent) == (3 if offers == 200 else 4)
    assert site.url("x.tar") == f"{HTTP}/data/x.tar", "what is kept on disk names the URL that was given"


@pytest.mark.parametrize("fails", [DOWN, requests.exceptions.SSLError("bad"), requests.Timeout(), 301, 404, 403, 500])
def test_without_https_the_rules_of_plain_http_hold(fails: Any) -> None:
    site = FakeSite(f"{HTTP}/data/", {HTTPS: fails, HTTP: 200}, (HTTP,))
    with pytest.raises(InsecureTransport, match="--allow-insecure-http"):
        open_all(site)
    assert not any(user for _, _, user in site.sent)
    site = FakeSite(f"{HTTP}/data/", {HTTPS: fails, HTTP: 200}, (HTTP,), allow_insecure_http=True)
    open_all(site)
    assert [url for _, url, _ in site.sent].count(f"{HTTPS}/data/x.tar") == 1, "tried once"
    assert site.sent[-1] == ("GET", f"{HTTP}/data/x.tar", "me")


@pytest.mark.parametrize("base", ["https://example.org", "http://example.org:8080", "http://127.0.0.1", "http://[::1]"])
def test_https_is_tried_only_where_it_could_be(base: str) -> None:
    site = FakeSite(f"{base}/", {base: 200})
    open_all(site)
    assert {(method, url) for method, url, _ in site.sent} == {("GET", f"{base}/x.tar")}


def test_many_threads_try_https_once() -> None:
    site = FakeSite(f"{HTTP}/", {HTTPS: 200}, (HTTPS,))
    threads = [threading.Thread(target=open_all, args=(site,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [method for method, _, _ in site.sent].count("HEAD") == 1


def test_a_redirect_to_plain_http_is_refused() -> None:
    for base in (HTTP, HTTPS):  # over https because it was offered, or because it was asked for
        site = FakeSite(f"{base}/", {HTTPS: 200, f"{HTTPS}/x.tar": "http://example.org/y.tar", HTTP: 200})
        site._over_https = base == HTTP
        with pytest.raises(InsecureTransport, match="from https to plain http"):
            open_all(site)
        assert not any(url.startswith("http:") for _, url, _ in site.sent)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://example.org:444/x",
        "https://example.com/x",
        "https://example.org.evil.com/x",
        "//evil.com/x",
        "https://www.example.org/x",
    ],
)
def test_credentials_go_to_scheme_host_and_port_only(elsewhere: str) -> None:
    site = FakeSite(f"{HTTPS}/", {f"{HTTPS}/x.tar": elsewhere, HTTPS: 200}, (HTTPS,))
    with pytest.raises(NotOnServer):
        open_all(site)
    assert [user for _, url, user in site.sent if not url.startswith(f"{HTTPS}/")] == [None]
    assert [user for _, url, user in site.sent if url.startswith(f"{HTTPS}/")] == [None, "me"]


@pytest.mark.parametrize("where", ["http://[::1", "https://example.org:port/", "ftp://example.org/", "https://a:b@c/"])
def test_a_redirect_to_nonsense_is_a_named_error(where: str) -> None:
    site = FakeSite(f"{HTTPS}/", {HTTPS: where})
    with pytest.raises((ServerFault, InsecureTransport, CredentialsInURL)):
        open_all(site)


@pytest.mark.parametrize("schemes", ["", "Digest realm=x", ", ,", 'Bearer, Negotiate realm=", "'])
def test_another_login_than_basic_is_named(schemes: str) -> None:
    class Digest(FakeSite):
        def _send(self, *args: Any) -> requests.Response:
            return answer(401, WWW_Authenticate=schemes)

    with pytest.raises(CredentialsRefused, match="not HTTP Basic"):
        open_all(Digest(f"{HTTPS}/", {}))


def test_no_repr_shows_the_password() -> None:
    site = FakeSite(f"{HTTPS}/", {HTTPS: 200}, (HTTPS,))
    open_all(site)
    assert AUTH[1] not in repr(site) + repr(site._credentials) + str(site._credentials)


# Replies: any head, any decision.

NUMBERS = st.integers(0, 300).map(str) | st.sampled_from(["", "-1", "9" * 5000, "1e3", "٣", "²"])
VALIDATORS = st.sampled_from(['"v1"', '"v2"', 'W/"v1"', "Mon, 02 Oct 2017 10:00:00 GMT", ""])
HEADS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Length": NUMBERS,
        "Content-Range": st.builds("bytes {}-{}/{}".format, NUMBERS, NUMBERS, NUMBERS | st.just("*"))
        | NUMBERS.map("bytes */{}".format)
        | st.text(),
        "etag": VALIDATORS | st.text(),
        "Last-Modified": VALIDATORS | st.text(),
        "Content-Type": st.sampled_from(["text/html; charset=x", "multipart/byteranges; boundary=b", ""]) | st.text(),
        "Content-Encoding": st.text(),
        "Transfer-Encoding": st.sampled_from(["chunked", "gzip"]),
        "Retry-After": NUMBERS | st.text() | st.sampled_from(["Mon, 02 Oct 9999 25:61:61 +9999", "Mon, 1 Jan 0000"]),
    },
)
SETTINGS = settings(derandomize=True, deadline=None, max_examples=300, database=None)


@SETTINGS
@given(status=st.sampled_from([200, 206, 416, 503]), headers=HEADS)
def test_any_head_can_be_read(status: int, headers: dict[str, str]) -> None:
    reply = read_reply(status, headers, 1e9)
    assert reply.retry_after is None or reply.retry_after >= 0
    assert reply.total is None or reply.total >= 0
    assert reply.start == 0 or status in (206, 416)
    assert reply.validator is None or reply.validator.isprintable()
    assert reply.validator != reply.etag or reply.etag is None or not reply.etag.startswith("W/")
    if status == 200 and reply.total is not None:
        assert not reply.is_chunked


@SETTINGS
@given(
    status=st.sampled_from([200, 206, 416]),
    headers=HEADS,
    asked=st.integers(0, 300),
    more=st.integers(0, 300),
    validator=st.none() | VALIDATORS.filter(bool),
    total=st.none() | st.integers(0, 300),
)
def test_decisions_never_put_bytes_where_they_do_not_belong(
    status: int, headers: dict[str, str], asked: int, more: int, validator: str | None, total: int | None
) -> None:
    reply, have = read_reply(status, headers, 0.0), asked + more
    decision = decide(reply, asked, have, validator, total)
    if isinstance(decision, Append) and status == 200:
        assert asked == have == 0
    elif isinstance(decision, Append):
        assert status == 206
        assert reply.start == asked > 0
        assert not reply.content_type.startswith("multipart/")
        assert not (reply.total is None and total is None)
        assert total is None or reply.total in (None, total)
        assert validator is None or reply.validator is None or validator in (reply.etag, reply.last_modified)
    elif isinstance(decision, Complete):
        assert status == 416
        assert reply.total == have
        assert asked > 0
        assert total in (None, have)
    elif isinstance(decision, Restart):
        assert decision.body == (status == 200)
    else:
        assert isinstance(decision, Fault)
        assert asked == 0
        assert status != 200


def test_waits_grow_and_stay_within_bounds() -> None:
    rng = random.Random(0)
    for faults in range(1, 50):
        assert 0 <= jitter(faults, 1.0, 60.0, rng) <= min(60.0, 2.0**faults)
    assert Limits().max_backoff_seconds <= Limits().max_wait_seconds


def test_a_part_in_use_has_no_wrong_file_beside_it(tmp_path: Path) -> None:
    with make_site(faults=[site_double.Fault(at=n * 7_000) for n in range(1, 6)]) as site:
        bring(site, tmp_path, progress=lambda *_: assert_no_wrong_file(site, tmp_path))


def test_the_double_is_importable_without_pytest() -> None:
    code = "import sys; from tests import site_double; assert 'pytest' not in sys.modules"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_a_third_site_gets_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some packages lie elsewhere (the PyTorch models): a password in the environment is not for there."""
    monkeypatch.setenv("T4SA_USER", USER)
    monkeypatch.setenv("T4SA_PASSWORD", PASSWORD)
    with make_site() as site:
        package = replace(catalog.PACKAGES["pytorch-vgg19-ft-a"], url=f"{site.url}vgg19_finetuned_all.pth")
        monkeypatch.setitem(catalog.PACKAGES, package.name, package)
        with pytest.raises(CredentialsRefused, match="another site than the official one"):
            downloading.download([package.name], tmp_path, limits=QUICK)
        assert [request.authorization for request in site.log] == [None]


def test_a_damaged_archive_is_seen_while_it_comes_and_can_be_fetched_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t4sa_data.downloading.transfer.READ_BYTES", 10_000)
    size = 512 + 10_240  # of a member and its header
    damaged = FILES[TAR][: 2 * size] + b"x" * 512 + FILES[TAR][2 * size + 512 :]
    limits = replace(QUICK, checkpoint_bytes=30_000)
    with make_site(files={TAR: damaged}) as site:
        for num_bytes in (60_000, len(damaged)):  # at most; the second run goes on behind the first
            with pytest.raises(BadHeader, match=rf"byte {2 * size}.*remove {TAR}\.part"):
                bring(site, tmp_path, limits=limits)
            assert left(tmp_path) == {f"{TAR}.part", f"{TAR}.part.json"}
            assert (tmp_path / f"{TAR}.part").stat().st_size <= num_bytes
        site.files[TAR] = FILES[TAR]  # damaged on the way, say: nothing else tells them apart
        (tmp_path / f"{TAR}.part").unlink()
        bring(site, tmp_path, limits=limits)
    assert (tmp_path / TAR).read_bytes() == FILES[TAR]


def test_the_probe_tells_of_https(monkeypatch: pytest.MonkeyPatch) -> None:
    from t4sa_data.downloading import listing

    monkeypatch.setattr(listing, "PROBE_SECONDS", 2.0)
    assert "\n  https " in listing.probe(["raw-text"], base_url="http://127.0.0.1/data/")
    assert "\n  https " not in listing.probe(["raw-text"], base_url="http://127.0.0.1:9/data/")
