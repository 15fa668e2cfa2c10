"""Fetch against a host that fails in every way: each failure has its reason, and nothing is asked for twice."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from builders.engine import Local
from builders.fetch import FETCHED, FetchConfig, FetchIncomplete, answers, limits, reasons, stage
from builders.fetch.config import PLACEHOLDERS
from t4sa_data.errors import BadOption
from t4sa_data.pixels import inspect_image
from tests.fetch_helpers import IMAGE, candidates, images_of, loopback, reasons_of, run, small_partitions
from tests.image_host import Answer, ImageHost, Request, Route, faults, image, redirect, status, then

pytestmark = pytest.mark.usefixtures("quick_disk")

GONE = b"\x89PNG\r\n\x1a\n this picture is gone"

EXPECTED: dict[str, tuple[str | None, int | None, int]] = {
    "/good.jpg": (None, 200, 0),
    "/404.jpg": (reasons.NOT_FOUND, 404, 1),
    "/410.jpg": (reasons.GONE, 410, 1),
    "/403.jpg": (reasons.FORBIDDEN, 403, 1),
    "/418.jpg": (reasons.REFUSED, 418, 1),
    "/204.jpg": (reasons.BAD_STATUS, 204, 1),
    "/429.jpg": (None, 200, 2),
    "/429-date.jpg": (None, 200, 2),
    "/503-twice.jpg": (None, 200, 3),
    "/500.jpg": (reasons.SERVER_ERROR, 500, 3),
    "/slow.jpg": (reasons.TIMEOUT, None, 3),
    "/drip.jpg": (reasons.TIMEOUT, None, 3),
    "/cut.jpg": (reasons.CUT, None, 3),
    "/cut-once.jpg": (None, 200, 2),
    "/hang-up.jpg": (reasons.CONNECTION, None, 0),
    "/long.jpg": (reasons.CUT, None, 3),
    "/close.jpg": (None, 200, 1),
    "/close-cut.jpg": (reasons.CUT, 200, 3),
    "/chunked.jpg": (None, 200, 1),
    "/chunked-cut.jpg": (reasons.CUT, None, 3),
    "/gzip.jpg": (None, 200, 1),
    "/gzip-bomb.jpg": (reasons.TOO_LARGE, 200, 1),
    "/gzip-not.jpg": (reasons.ENCODING, 200, 1),
    "/br.jpg": (reasons.ENCODING, 200, 1),
    "/film.jpg": (reasons.NOT_AN_IMAGE, 200, 1),
    "/text-type.jpg": (None, 200, 1),
    "/redirect.jpg": (None, 200, 0),
    "/redirect-twice.jpg": (None, 200, 1),
    "/loop.jpg": (reasons.REDIRECTS, 302, 0),
    "/loop-back.jpg": (reasons.REDIRECTS, 302, 0),
    "/nowhere.jpg": (reasons.BAD_STATUS, 302, 1),
    "/to-private.jpg": (reasons.PRIVATE_ADDRESS, 302, 1),
    "/to-metadata.jpg": (reasons.PRIVATE_ADDRESS, 302, 1),
    "/to-file.jpg": (reasons.BAD_URL, 302, 1),
    "/html.jpg": (reasons.HTML, 200, 1),
    "/huge.jpg": (reasons.TOO_LARGE, 200, 1),
    "/huge-chunked.jpg": (reasons.TOO_LARGE, 200, 1),
    "/empty.jpg": (reasons.EMPTY, 200, 1),
    "/noai.jpg": (reasons.OPT_OUT, 200, 1),
    "/other-noai.jpg": (None, 200, 1),
    "/tdm.jpg": (reasons.OPT_OUT, 200, 1),
    "/gone.png": (reasons.PLACEHOLDER, 200, 1),
}
"""Reason, status, requests (0: another route asks too) of each path of `faults`, with three attempts."""


@pytest.fixture(autouse=True)
def partitions_as_they_are() -> Iterator[None]:
    yield
    small_partitions(512)


def test_every_failure_has_its_reason_and_is_asked_for_as_often_as_it_should(tmp_path: Path) -> None:
    config = loopback(
        request_seconds=1.0,
        max_transient=1.0,
        max_bytes=len(IMAGE) + 1000,
        placeholders=(hashlib.sha256(GONE).hexdigest(),),
    )
    with ImageHost(faults(IMAGE, GONE)) as host:
        assert set(EXPECTED) == set(host.routes)
        urls: list[str | None] = [host.url(path) for path in EXPECTED]
        urls += [None, "", "ftp://example.com/a.jpg", "no url"]
        fetched = run(urls, tmp_path, config)
        rows = fetched.rows.to_pylist()
        for row, (path, (reason, number, num_requests)) in zip(rows, EXPECTED.items(), strict=False):
            assert (row["reason"], row["status"]) == (reason, number), path
            assert not num_requests or host.counts[path] == num_requests, path
        assert [row["reason"] for row in rows[-4:]] == [
            reasons.NO_URL,
            reasons.NO_URL,
            reasons.BAD_URL,
            reasons.BAD_URL,
        ]
        assert fetched.rows.schema == FETCHED
        assert {data for data in images_of(fetched) if data is not None} == {IMAGE}
        assert fetched.num_transient == sum(reason in reasons.TRANSIENT for reason in reasons_of(fetched)) == 8
        assert rows[list(EXPECTED).index("/gone.png")]["sha256"] == hashlib.sha256(GONE).digest()
        assert host.counts["/robots.txt"] == 1

        asked = len(host.requests)
        again = run(urls, tmp_path, config)
        assert again.rows.equals(fetched.rows) and again.files == fetched.files
        assert len(host.requests) == asked
    assert list(tmp_path.rglob("*.journal")) == []


def test_all_reasons_are_told_apart() -> None:
    named = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert named == reasons.TRANSIENT | reasons.PERMANENT
    assert not reasons.TRANSIENT & reasons.PERMANENT
    assert reasons.OF_POLICY < reasons.PERMANENT
    assert all(reason.startswith("fetch/") for reason in named)


def test_requests_say_who_asks_and_carry_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cookie = Answer(body=IMAGE, headers={"Set-Cookie": "a=1; Path=/"})
    with ImageHost({}) as proxy, ImageHost({"/1.jpg": cookie, "/2.jpg": then(status(503), cookie)}) as host:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))
        run([host.url("/1.jpg"), host.url("/2.jpg")], tmp_path, loopback(contact="https://example.org/about"))
        assert proxy.requests == [] and len(host.requests) == 4
        for request in host.requests:
            assert not {"cookie", "authorization", "proxy-authorization", "referer"} & set(request.headers)
            assert request.headers["accept-encoding"] == "identity"
            agent = request.headers["user-agent"]
            assert agent.startswith("t4sa-data/") and "+https://example.org/about" in agent


def test_an_outage_is_no_smaller_dataset_and_the_next_run_asks_for_the_rest_only(tmp_path: Path) -> None:
    routes: dict[str, Route] = {f"/{i}.jpg": image(IMAGE + b"%d" % i) for i in range(100)}
    bad = {"/3.jpg": status(500), "/50.jpg": Answer(hang_up=True), "/99.jpg": image(IMAGE, cut_at=9)}
    with ImageHost(routes | bad) as host:
        urls: list[str | None] = [host.url(path) for path in routes]
        with pytest.raises(FetchIncomplete) as caught:
            run(urls, tmp_path, loopback(max_transient=0.02))
        assert "at most 2 of 100" in str(caught.value) and reasons.SERVER_ERROR in str(caught.value)
        host.counts.clear()
        host.routes |= routes
        fetched = run(urls, tmp_path, loopback(max_transient=0.02))
        assert set(host.counts) == set(bad)
        assert images_of(fetched) == [IMAGE + b"%d" % i for i in range(100)]
        assert fetched.num_transient == 0
        undisturbed = run(urls, tmp_path / "undisturbed")
    assert undisturbed.rows.equals(fetched.rows)
    assert [path.read_bytes() for path in fetched.files] == [path.read_bytes() for path in undisturbed.files]
    assert len(list(tmp_path.glob("fetch*/*.images"))) == 1, "the first run's pack is left"


def test_a_small_share_may_fail_in_passing_until_a_smaller_one_is_asked_for(tmp_path: Path) -> None:
    routes: dict[str, Route] = {f"/{i}.jpg": image(IMAGE) for i in range(99)} | {"/99.jpg": status(503)}
    with ImageHost(routes) as host:
        urls: list[str | None] = [host.url(path) for path in routes]
        fetched = run(urls, tmp_path)
        assert fetched.num_transient == 1 and reasons_of(fetched)[99] == reasons.SERVER_ERROR
        asked = len(host.requests)
        assert run(urls, tmp_path).num_transient == 1 and len(host.requests) == asked
        with pytest.raises(FetchIncomplete):
            run(urls, tmp_path, loopback(max_transient=0.0))
        host.routes["/99.jpg"] = image(IMAGE)
        assert run(urls, tmp_path, loopback(max_transient=0.0)).num_transient == 0
        assert all(num == 1 for path, num in host.counts.items() if path != "/99.jpg")


def test_an_outage_is_seen_early(tmp_path: Path) -> None:
    small_partitions(8)
    with ImageHost(lambda _request: status(503)) as host:
        urls: list[str | None] = [host.url(f"/{i}.jpg") for i in range(1000)]
        with pytest.raises(FetchIncomplete):
            run(urls, tmp_path, loopback(respect_robots=False))
        assert len(host.counts) < 100


def test_a_host_that_fails_and_fails_is_left_alone(tmp_path: Path) -> None:
    with ImageHost({}) as host:
        urls: list[str | None] = [host.url(f"/{i}.jpg") for i in range(100)]
    config = loopback(host_failures=5, max_transient=1.0, respect_robots=False, host_connections=1)
    found = reasons_of(run(urls, tmp_path, config))  # nobody listens there any more
    assert found.count(reasons.CONNECTION) <= 5 and found.count(reasons.HOST_DOWN) >= 95


def test_one_url_is_asked_for_once_however_many_candidates_have_it(tmp_path: Path) -> None:
    with ImageHost({"/a.jpg": image(IMAGE)}) as host:
        fetched = run([host.url("/a.jpg")] * 5, tmp_path)
        assert host.counts["/a.jpg"] == 1
    assert images_of(fetched) == [IMAGE] * 5
    assert [path.stat().st_size for path in fetched.files] == [len(IMAGE)]


# Limits.


def test_a_host_has_no_more_connections_than_it_should(tmp_path: Path) -> None:
    with ImageHost(lambda _request: image(IMAGE, wait_seconds=0.05)) as host:  # long enough for all to be under way
        urls: list[str | None] = [host.url(f"/{i}.jpg") for i in range(20)]
        run(urls, tmp_path, loopback(host_connections=3))
        assert host.most_open == 3
        host.most_open = 0
        run(urls, tmp_path / "all", loopback(host_connections=30, connections=4))
        assert host.most_open == 4


def test_requests_keep_their_distance_also_from_one_partition_to_the_next(tmp_path: Path) -> None:
    small_partitions(4)
    with ImageHost(lambda _request: image(IMAGE)) as host:
        urls: list[str | None] = [host.url(f"/{i}.jpg") for i in range(20)]
        run(urls, tmp_path, loopback(host_requests_per_second=50))
        moments = [request.at for request in host.requests]
        assert len(moments) == 21 and moments[-1] - moments[0] >= 19.5 / 50


def test_limits_are_divided_among_tasks() -> None:
    import asyncio

    config = loopback(host_connections=8, connections=64)
    for share, expected in ((1, 8), (2, 4), (3, 2), (20, 1)):
        host = limits.Hosts(config, share, "here").of("example.com")
        assert isinstance(host._connections, asyncio.Semaphore) and host._connections._value == expected


def test_retry_after_makes_the_whole_host_wait(tmp_path: Path) -> None:
    busy = then(status(429, Retry_After="1"), image(IMAGE))
    with ImageHost({"/busy.jpg": busy} | {f"/{i}.jpg": image(IMAGE) for i in range(9)}) as host:
        urls: list[str | None] = [host.url(path) for path in host.routes]
        fetched = run(urls, tmp_path, loopback(host_connections=1))
        assert set(reasons_of(fetched)) == {None}
        moments = {request.path: request.at for request in host.requests if request.number == 1}
        others = [at for path, at in moments.items() if path != "/robots.txt" and at > moments["/busy.jpg"]]
        assert others and min(others) - moments["/busy.jpg"] >= 0.95


def test_a_retry_after_that_is_too_long_is_not_waited_for_and_nobody_else_asks(tmp_path: Path) -> None:
    small_partitions(4)
    with ImageHost(lambda _request: status(429, Retry_After="3600")) as host:
        urls: list[str | None] = [host.url(f"/{i}.jpg") for i in range(50)]
        config = loopback(respect_robots=False, max_transient=1.0, host_connections=2)
        assert set(reasons_of(run(urls, tmp_path, config))) == {reasons.RATE_LIMITED}
        assert len(host.requests) <= 2


# robots.txt and other wishes.


def robots(text: str, number: int = 200) -> Route:
    return Answer(status=number, body=text.encode(), headers={"Content-Type": "text/plain"})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (robots("User-agent: *\nDisallow: /no/\nAllow: /no/yes"), [None, reasons.ROBOTS, None]),
        (robots("User-agent: *\nDisallow: /\n\nUser-agent: T4SA-data\nDisallow: /*yes$"), [None, None, reasons.ROBOTS]),
        (robots("User-agent: other\nDisallow: /"), [None, None, None]),
        (robots("\ufeffUser-agent: *\r\nDisallow: /"), [reasons.ROBOTS] * 3),
        (robots("<html>what?"), [None, None, None]),
        (robots("#" * 600_000 + "\nUser-agent: *\nDisallow: /"), [None, None, None]),
        (robots("", 404), [None, None, None]),
        (robots("", 403), [None, None, None]),
        (robots("", 503), [reasons.ROBOTS_UNREACHABLE] * 3),
        (robots("", 429), [reasons.ROBOTS_UNREACHABLE] * 3),
        (Answer(hang_up=True), [reasons.CONNECTION] * 3),
        (redirect("/robots.txt"), [None, None, None]),
        (redirect("/elsewhere.txt"), [reasons.ROBOTS] * 3),
        (redirect("http://10.0.0.1/robots.txt"), [reasons.ROBOTS_UNREACHABLE] * 3),
        (then(status(503), robots("User-agent: *\nDisallow: /no/")), [None, reasons.ROBOTS, reasons.ROBOTS]),
    ],
)
def test_robots_are_honoured(answer: Route, expected: list[str | None], tmp_path: Path) -> None:
    images = {path: image(IMAGE) for path in ("/a.jpg", "/no/a.jpg", "/no/yes")}
    more = {"/robots.txt": answer, "/elsewhere.txt": robots("User-agent: *\nDisallow: /")}
    with ImageHost(images | more) as host:
        urls: list[str | None] = [host.url(path) for path in images]
        assert reasons_of(run(urls, tmp_path, loopback(max_transient=1.0))) == expected
        for path, reason in zip(images, expected, strict=True):
            assert host.counts[path] == (reason is None)
        assert host.counts["/robots.txt"] <= 6
        assert set(reasons_of(run(urls, tmp_path / "other", loopback(respect_robots=False)))) == {None}


def test_robots_are_asked_for_once_by_all_partitions_and_runs(tmp_path: Path) -> None:
    small_partitions(4)
    with ImageHost({"/1.jpg": status(500)}) as host:
        urls: list[str | None] = [host.url(f"/{i}.jpg") for i in range(30)]
        with pytest.raises(FetchIncomplete):
            run(urls, tmp_path)
        host.routes["/1.jpg"] = image(IMAGE)
        run(urls, tmp_path)
        assert host.counts["/robots.txt"] == 1


def test_robots_of_the_host_that_is_redirected_to_count_too(tmp_path: Path) -> None:
    with ImageHost({"/robots.txt": robots("User-agent: *\nDisallow: /"), "/a.jpg": image(IMAGE)}) as other:
        with ImageHost({"/a.jpg": redirect(other.url("/a.jpg"))}) as host:
            assert reasons_of(run([host.url("/a.jpg")], tmp_path)) == [reasons.ROBOTS]
        assert other.counts["/a.jpg"] == 0


def test_a_delay_that_robots_ask_for_is_kept(tmp_path: Path) -> None:
    with ImageHost({"/robots.txt": robots("User-agent: *\nCrawl-delay: 0.2")}) as host:
        run([host.url(f"/{i}.jpg") for i in range(4)], tmp_path)
        moments = [request.at for request in host.requests if request.path != "/robots.txt"]
        assert all(later - earlier > 0.15 for earlier, later in pairwise(moments))


@pytest.mark.parametrize(
    ("tags", "reservation", "expected"),
    [
        (["noai"], None, True),
        (["max-image-preview: large, noindex"], None, True),
        (["googlebot: noindex", "none"], None, True),
        (["googlebot: noindex, noai"], None, False),
        (["T4SA-Data: noai"], None, True),
        (["otherbot: nofollow, t4sa-data: noimageai"], None, True),
        (["*: noimageindex"], None, True),
        (["unavailable_after: 25 Jun 2027 15:00:00 PST"], None, False),
        (["all", "noarchive"], "0", False),
        ([], "1", True),
    ],
)
def test_opt_out_headers(tags: list[str], reservation: str | None, expected: bool) -> None:
    assert answers.is_opt_out(tags, reservation, FetchConfig().opt_out) is expected
    assert not answers.is_opt_out(tags, reservation, ())


# Placeholders and other choices.


def test_placeholders_by_hash_of_bytes_and_of_pixels(tmp_path: Path) -> None:
    picture = Image.effect_noise((64, 64), 80).convert("RGB")
    png, webp = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG")
    picture.save(webp, "WEBP", lossless=True)
    phash = inspect_image(png.getvalue()).phash
    routes: dict[str, Route] = {"/a.png": image(png.getvalue()), "/a.webp": image(webp.getvalue()), "/b": image(IMAGE)}
    with ImageHost(routes) as host:
        urls: list[str | None] = [host.url(path) for path in routes]
        by_bytes = loopback(placeholders=(hashlib.sha256(png.getvalue()).hexdigest(),))
        assert reasons_of(run(urls, tmp_path, by_bytes)) == [reasons.PLACEHOLDER, None, None]
        by_pixels = loopback(placeholders=(), placeholder_phashes=(phash,))
        found = run(urls, tmp_path / "pixels", by_pixels)
        assert reasons_of(found) == [reasons.PLACEHOLDER, reasons.PLACEHOLDER, None]
        # Settings that change judge again what is there; bytes that were not kept are asked for again, no others.
        host.counts.clear()
        assert reasons_of(run(urls, tmp_path, by_pixels)) == [reasons.PLACEHOLDER, reasons.PLACEHOLDER, None]
        assert set(host.counts) == {"/a.png"}
    assert FetchConfig().placeholders == PLACEHOLDERS


def test_other_settings_ask_again_only_for_what_they_decide(tmp_path: Path) -> None:
    routes: dict[str, Route] = {
        "/good.jpg": image(IMAGE),
        "/large.jpg": image(IMAGE + bytes(1000)),
        "/gone.jpg": status(410),
        "/noai.jpg": image(IMAGE, tags=("noai",)),
        "/robots.txt": robots(""),
    }
    with ImageHost(routes) as host:
        urls: list[str | None] = [host.url(path) for path in list(routes)[:-1]]
        found = run(urls, tmp_path, loopback(max_bytes=len(IMAGE)))
        assert reasons_of(found) == [None, reasons.TOO_LARGE, reasons.GONE, reasons.OPT_OUT]
        host.counts.clear()
        found = run(urls, tmp_path, loopback())
        assert reasons_of(found) == [None, None, reasons.GONE, reasons.OPT_OUT]
        assert dict(host.counts) == {"/large.jpg": 1, "/noai.jpg": 1}
        host.counts.clear()
        assert reasons_of(run(urls, tmp_path, loopback(max_bytes=len(IMAGE))))[1] == reasons.TOO_LARGE
        assert dict(host.counts) == {"/noai.jpg": 1}
        # How fast and how patiently is nobody's business but the host's.
        host.counts.clear()
        run(urls, tmp_path, loopback(max_bytes=len(IMAGE), contact="x", attempts=7, host_connections=2))
        assert not host.counts


def test_other_candidates_take_what_is_there(tmp_path: Path) -> None:
    small_partitions(16)
    with ImageHost(
        lambda request: status(404) if "7" in request.path else image(IMAGE + request.path.encode())
    ) as host:
        urls: list[str | None] = [host.url(f"/{i}.jpg") for i in range(200)]
        table = candidates(urls)
        first = run(table.slice(0, 150), tmp_path)
        host.counts.clear()
        odd = table.filter(pa.array([i % 3 != 0 or i > 140 for i in range(200)]))
        second = run(odd, tmp_path)
        assert set(host.counts) == {f"/{i}.jpg" for i in range(150, 200)}
        assert images_of(first)[:3] == [IMAGE + b"/%d.jpg" % i for i in range(3)]
        fresh = run(odd, tmp_path / "fresh")
    assert images_of(second) == images_of(fresh)
    assert second.rows.equals(fresh.rows)


def test_bytes_that_went_bad_on_the_disk_are_not_handed_on(tmp_path: Path) -> None:
    with ImageHost({"/1.jpg": image(IMAGE), "/2.jpg": then(status(500), image(IMAGE))}) as host:
        urls: list[str | None] = [host.url("/1.jpg"), host.url("/2.jpg")]
        with pytest.raises(FetchIncomplete):
            run(urls, tmp_path, loopback(attempts=1))
        (pack,) = tmp_path.glob("fetch*/*.images")
        pack.write_bytes(bytes(len(IMAGE)))
        assert images_of(run(urls, tmp_path, loopback(attempts=1))) == [IMAGE, IMAGE]
        assert host.counts["/1.jpg"] == 2


def test_what_a_kill_left_behind_the_last_step_goes(tmp_path: Path) -> None:
    with ImageHost({"/1.jpg": image(IMAGE)}) as host:
        fetched = run([host.url("/1.jpg")], tmp_path)
        (pack,) = fetched.files
        name = pack.stem.split("-")[0]
        for left in (f"{name}.journal", f"{name}-0123456789abcdef.images"):
            pack.with_name(left).write_bytes(b"left")
        pack.with_name("0123456789abcdef-0123456789abcdef.images").write_bytes(b"of other candidates")
        asked = len(host.requests)
        assert run([host.url("/1.jpg")], tmp_path).files == fetched.files and len(host.requests) == asked
    assert {path.name.split("-")[0] for path in pack.parent.glob("*.images")} == {name, "0123456789abcdef"}
    assert sorted(pack.parent.glob(f"{name}*")) == [pack, pack.with_name(f"{name}.arrow")]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://pbs.twimg.com/media/A-b_c.jpg", "https://pbs.twimg.com/media/A-b_c.jpg?name=orig"),
        ("http://pbs.twimg.com/media/A.png:small", "http://pbs.twimg.com/media/A.png?name=orig"),
        ("https://pbs.twimg.com/media/A?format=jpg&name=small", "https://pbs.twimg.com/media/A?format=jpg&name=orig"),
        ("https://pbs.twimg.com/profile_images/A.jpg", "https://pbs.twimg.com/profile_images/A.jpg"),
        ("https://example.com/media/A.jpg", "https://example.com/media/A.jpg"),
        ("https://[oops/media", "https://[oops/media"),
    ],
)
def test_the_uploaded_size_of_pictures_of_twitter(url: str, expected: str, tmp_path: Path) -> None:
    assert stage.original_of(url) == expected
    for choice, asked in ((False, url), (True, expected)):
        (partition,) = stage.cut(candidates([url]), FetchConfig(twitter_original=choice), tmp_path)
        assert partition.urls == (asked,)


def test_partitions_do_not_move_when_a_tweet_goes() -> None:
    table = candidates([f"http://a/{i}" for i in range(20_000)])
    before = [partition.name for partition in stage.cut(table, FetchConfig(), Path())]
    without = pa.concat_tables([table.slice(0, 7000), table.slice(7001)])
    after = [partition.name for partition in stage.cut(without, FetchConfig(), Path())]
    assert len(before) > 20 and len(set(before) ^ set(after)) <= 3


def test_no_candidates(tmp_path: Path) -> None:
    fetched = run([], tmp_path)
    assert fetched.rows.num_rows == 0 and fetched.files == () and fetched.rows.schema == FETCHED


def test_progress_and_what_is_said(tmp_path: Path) -> None:
    done, lines = list[int](), list[str]()
    with ImageHost({"/a.jpg": image(IMAGE)}) as host:
        for _ in range(2):
            run([host.url("/a.jpg"), None], tmp_path, progress=done.append, say=lines.append)
            assert sum(done) == 2
            done.clear()
    text = "\n".join(lines)
    assert "2 of 2 candidates" in text and "no contact" in text and "for tests only" in text


@pytest.mark.parametrize(
    "choices",
    [
        {"attempts": 0},
        {"max_transient": 1.5},
        {"placeholders": ("ABC",)},
        {"placeholder_phashes": ("12",)},
        {"contact": "a\r\nEvil: 1"},
        {"host_requests_per_second": 0.0},
        {"backoff_seconds": -1.0},
    ],
)
def test_settings_that_make_no_sense(choices: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        FetchConfig(**choices)


def test_one_and_two_workers_give_the_same_bytes(tmp_path: Path) -> None:
    from builders.fetch import fetch
    from builders.state import State

    small_partitions(16)

    def answer(request: Request) -> Answer:
        number = int(request.path[1:].removesuffix(".jpg")) if request.path[1].isdigit() else 0
        return status(404) if number % 9 == 4 else image(IMAGE + b"%d" % number, wait_seconds=number * 7 % 5 / 1000)

    with ImageHost(answer) as host:
        table = candidates([host.url(f"/{i}.jpg") for i in range(120)])
        one = run(table, tmp_path / "one")
        with Local(2) as engine:
            two = fetch(table, config=loopback(), state=State(tmp_path / "two"), engine=engine)
    assert one.rows.equals(two.rows) and len(one.files) > 3
    assert [path.name for path in one.files] == [path.name for path in two.files]
    assert [path.read_bytes() for path in one.files] == [path.read_bytes() for path in two.files]
