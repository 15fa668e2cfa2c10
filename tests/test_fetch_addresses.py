"""Fetch connects to nothing but what was checked: URLs, names, redirects, names that change their mind, TLS."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from builders.fetch import FetchConfig, addresses, reasons
from builders.fetch.addresses import check_url, is_public
from tests.fetch_helpers import IMAGE, loopback, reasons_of, run
from tests.image_host import Answer, ImageHost, image, redirect, then

OPEN = "127.0.0.2"
"""Plays the public internet in these tests: loopback, so that nothing leaves this machine."""


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.0.9",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2606:4700::1%eth0",
        "name",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111"],
)
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


PRIVATE, BAD = reasons.PRIVATE_ADDRESS, reasons.BAD_URL


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/a.jpg", PRIVATE),
        ("http://127.0.0.1./a.jpg", BAD),
        ("http://0.0.0.0/", PRIVATE),
        ("http://[::1]/", PRIVATE),
        ("http://[::]/", PRIVATE),
        ("http://[::ffff:127.0.0.1]/", PRIVATE),
        ("http://[64:ff9b::7f00:1]/", PRIVATE),
        ("http://169.254.169.254/latest/meta-data", PRIVATE),
        ("http://2130706433/", BAD),
        ("http://0x7f000001/", BAD),
        ("http://0x7f.1/", BAD),
        ("http://127.1/", BAD),
        ("http://0177.0.0.1/", BAD),
        ("http://017700000001/", BAD),
        ("http://a.0x7f/", BAD),
        ("http://a..b/", BAD),
        ("http://user:secret@example.com/", BAD),
        ("http://user@example.com/", BAD),
        ("ftp://example.com/", BAD),
        ("file:///etc/passwd", BAD),
        ("data:image/png;base64,AAAA", BAD),
        ("//example.com/a.jpg", BAD),
        ("example.com/a.jpg", BAD),
        ("http:///a.jpg", BAD),
        ("http://example.com:22/", BAD),
        ("http://example.com:6379/", BAD),
        ("http://example.com:0/", BAD),
        ("http://example.com:99999/", BAD),
        ("http://example.com:http/", BAD),
        ("http://[::1/", BAD),
        ("http://example.com/" + "a" * 9000, BAD),
        ("", BAD),
    ],
)
def test_urls_that_are_not_asked_for(url: str, reason: str) -> None:
    with pytest.raises(reasons.Refused) as caught:
        check_url(url, FetchConfig())
    assert caught.value.reason == reason


def test_urls_that_are() -> None:
    for url in (
        "http://example.com/a.jpg",
        "https://example.com:8443/a?b=1",
        "https://8.8.8.8/",
        "http://b\u00fccher.de/",
    ):
        assert check_url(f" {url} ", FetchConfig()).scheme in ("http", "https")
    assert check_url("https://example.com/a.jpg#part", FetchConfig()).fragment == ""


def test_numbers_that_only_the_system_takes_for_addresses() -> None:
    """Whatever is written, what the resolver makes of it is looked at: here, without the check of the spelling."""
    for host in ("2130706433", "0x7f.1", "127.1", "localhost"):
        resolver = addresses.CheckedResolver(FetchConfig())
        with pytest.raises((reasons.Refused, OSError)):
            asyncio.run(resolver.resolve(host, 80, socket.AF_UNSPEC))


def test_loopback_is_refused_unless_a_test_allows_it(tmp_path: Path) -> None:
    with ImageHost({"/a.jpg": image(IMAGE)}) as host:
        urls: list[str | None] = [host.url("/a.jpg"), host.url("/a.jpg", "localhost")]
        strict = loopback(unsafe_allow_loopback=False, ports=(host.port,), max_transient=1.0)
        assert reasons_of(run(urls, tmp_path, strict)) == [PRIVATE, PRIVATE]
        assert host.requests == []
        assert reasons_of(run(urls[:1], tmp_path)) == [None]
    for address in ("10.0.0.1", "169.254.169.254", "0.0.0.0", "[fe80::1]"):
        with pytest.raises(reasons.Refused):
            check_url(f"http://{address}/", loopback())


# A name of the public internet: 127.0.0.2 plays its address.


class Names:
    """A resolver that answers from a list, the last answer stays; and counts."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names, self.asked = names, list[str]()

    async def __call__(self, host: str, port: int, family: int) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        known = self.names.get(host.split(".")[0])
        if known is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        answer = known[min(self.asked.count(host), len(known)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take `OPEN` for public and nothing else, and names from a list."""
    monkeypatch.setattr(addresses, "is_public", lambda address: address == OPEN)

    def use(**names: list[list[str]]) -> Names:
        made = Names(**names)
        monkeypatch.setattr(addresses, "lookup", made)
        return made

    return use


def strict(host: ImageHost, **more: Any) -> FetchConfig:
    return loopback(unsafe_allow_loopback=False, ports=(host.port,), max_transient=1.0, **more)


def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(tmp_path: Path, public: Any) -> None:
    names = public(rebind=[[OPEN], ["127.0.0.1"]])
    cut = then(image(IMAGE, cut_at=5), image(IMAGE))  # so that there is more than one connection
    with ImageHost({"/a.jpg": image(IMAGE), "/b.jpg": cut}, addresses=("127.0.0.1", OPEN)) as host:
        urls: list[str | None] = [host.url(path, "rebind.test") for path in ("/a.jpg", "/b.jpg")]
        run(urls, tmp_path, strict(host))
        assert host.requests and {request.address for request in host.requests} == {OPEN}
        assert {request.headers["host"] for request in host.requests} == {f"rebind.test:{host.port}"}
        # And when it is asked again, its new answer is looked at again.
        num = len(host.requests)
        assert reasons_of(run(urls[:1], tmp_path / "later", strict(host))) == [PRIVATE]
        assert reasons_of(run(urls[:1], tmp_path / "plain", strict(host, respect_robots=False))) == [PRIVATE]
        assert len(host.requests) == num and len(names.asked) >= 2


@pytest.mark.parametrize("answer", [["127.0.0.1"], [OPEN, "10.0.0.1"], ["169.254.169.254", OPEN]])
def test_one_private_address_of_a_name_is_enough(answer: list[str], tmp_path: Path, public: Any) -> None:
    public(mixed=[answer])
    with ImageHost({"/a.jpg": image(IMAGE)}, addresses=("127.0.0.1", OPEN)) as host:
        url = host.url("/a.jpg", "mixed.test")
        assert reasons_of(run([url], tmp_path, strict(host, respect_robots=False))) == [PRIVATE]
        assert host.requests == []


def test_no_redirect_leads_inside(tmp_path: Path, public: Any) -> None:
    public(public=[[OPEN]], inside=[["127.0.0.1"]])
    with ImageHost({}, addresses=("127.0.0.1", OPEN)) as host:
        targets = [host.url("/a.jpg"), host.url("/a.jpg", "inside.test"), host.url("/a.jpg", "[::ffff:127.0.0.1]")]
        targets += [host.url("/a.jpg", "2130706433"), f"https://127.0.0.1:{host.port}/a.jpg", "gopher://inside.test/"]
        targets += ["http://public.test:1/a.jpg", host.url("/a.jpg", "user:secret@public.test")]
        host.routes |= {f"/{i}.jpg": redirect(target) for i, target in enumerate(targets)}
        host.routes |= {"/a.jpg": image(IMAGE), "/ok.jpg": redirect(host.url("/a.jpg", "public.test"))}
        urls: list[str | None] = [host.url(f"/{i}.jpg", "public.test") for i in range(len(targets))]
        found = reasons_of(
            run([*urls, host.url("/ok.jpg", "public.test")], tmp_path, strict(host, respect_robots=False))
        )
        assert found == [PRIVATE, PRIVATE, PRIVATE, BAD, PRIVATE, BAD, BAD, BAD, None]
        assert {request.address for request in host.requests} == {OPEN}
        assert host.counts["/a.jpg"] == 1


def test_the_socket_is_the_last_gate(tmp_path: Path, public: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that checks nothing, as a fault of ours or of the client would be."""
    public(any=[["127.0.0.1"]])

    async def careless(_self: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(addresses.CheckedResolver, "resolve", careless)
    with ImageHost({"/a.jpg": image(IMAGE)}) as host:
        found = run([host.url("/a.jpg", "any.test")], tmp_path, strict(host, respect_robots=False))
        assert reasons_of(found) == [PRIVATE] and host.requests == []


def test_a_name_that_does_not_resolve_may_do_so_tomorrow(tmp_path: Path, public: Any) -> None:
    names = public()
    config = loopback(max_transient=1.0, respect_robots=False)
    assert reasons_of(run(["http://nowhere.test/a.jpg"], tmp_path, config)) == [reasons.DNS]
    assert len(names.asked) == config.attempts
    found = run(["http://nowhere.test/a.jpg"], tmp_path / "robots", loopback(max_transient=1.0))
    assert reasons_of(found) == [reasons.DNS]


def test_cookies_of_a_name_are_not_sent_back(tmp_path: Path, public: Any) -> None:
    public(pictures=[[OPEN]])
    cookie = Answer(body=IMAGE, headers={"Set-Cookie": "a=1; Path=/"})
    with ImageHost({"/1.jpg": cookie, "/2.jpg": redirect("/1.jpg")}, addresses=(OPEN,)) as host:
        urls: list[str | None] = [host.url(path, "pictures.test") for path in ("/1.jpg", "/2.jpg")]
        assert reasons_of(run(urls, tmp_path, strict(host, host_connections=1))) == [None, None]
        assert len(host.requests) >= 4 and not any("cookie" in request.headers for request in host.requests)


# TLS.


def test_no_tls_where_it_should_be(tmp_path: Path) -> None:
    with ImageHost({"/a.jpg": image(IMAGE)}) as host:
        url = host.url("/a.jpg").replace("http:", "https:")
        config = loopback(max_transient=1.0, respect_robots=False)
        assert reasons_of(run([url], tmp_path, config)) == [reasons.TLS]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_certificate_and_sni_are_those_of_the_name(
    tmp_path: Path, public: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    line = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=pictures.test"
    line += f" -addext subjectAltName=DNS:pictures.test -keyout {key} -out {certificate}"
    subprocess.run(line.split(), check=True, capture_output=True)
    public(pictures=[[OPEN]], others=[[OPEN]])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    named = list[str]()
    server.sni_callback = lambda _socket, name, _context: named.append(name)
    with ImageHost({"/a.jpg": image(IMAGE)}, addresses=(OPEN,), tls=server) as host:
        urls = [host.url("/a.jpg", name).replace("http:", "https:") for name in ("pictures.test", "others.test")]
        config = strict(host, respect_robots=False, attempts=1)
        assert reasons_of(run(list(urls), tmp_path / "1", config)) == [reasons.TLS] * 2  # nobody vouches for it
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusting)
        assert reasons_of(run(list(urls), tmp_path / "2", config)) == [None, reasons.TLS]
        assert set(named) == {"pictures.test", "others.test"}
        assert {request.headers["host"] for request in host.requests} == {f"pictures.test:{host.port}"}
