"""Which hosts may be connected to: public addresses only, checked at the URL, after resolving and at the socket.

A name is resolved here, every address of the answer is checked, and the connection goes to a checked address (Host
header, SNI and certificate stay the name's). So it does not matter what the name says a moment later.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from builders.fetch import reasons
from builders.fetch.config import FetchConfig
from builders.fetch.reasons import Refused

# The special-purpose registries of IANA; Python's own `is_global` changed between patch versions.
_SPECIAL_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
        ),
    )
)
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
# Tunnels carry an IPv4 address of anybody's choice: 6to4 and Teredo (in 2001::/23) are refused whole.
_SPECIAL_6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet.

    >>> [is_public(a) for a in ("8.8.8.8", "10.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::808:808")]
    [True, False, False, False, True]
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _SPECIAL_4)
    if parsed.scope_id is not None:
        return False
    if parsed.ipv4_mapped is not None:
        return is_public(str(parsed.ipv4_mapped))
    if parsed in _NAT64:  # how a network without IPv4 reaches all of it
        return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
    return parsed in _GLOBAL_6 and not any(parsed in network for network in _SPECIAL_6)


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own, in its plain form."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def may_connect(address: str, config: FetchConfig) -> bool:
    """Whether an address may be connected to."""
    return is_public(address) or (config.unsafe_allow_loopback and is_loopback(address))


def check_url(text: str | URL, config: FetchConfig) -> URL:
    """A URL as it will be asked for.

    Raises:
        Refused: no http(s) URL that is plain and harmless, or one of a private address.
    """
    try:
        url = text if isinstance(text, URL) else URL(text.strip())
        host, port = url.raw_host, url.port
        harmless = url.scheme in ("http", "https") and url.user is None and url.password is None
    except (ValueError, UnicodeError):
        raise Refused(reasons.BAD_URL) from None
    if not harmless or not host or port is None or len(str(url)) > 8000:
        raise Refused(reasons.BAD_URL)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        _check_name(host)
    else:
        if not may_connect(host, config):
            raise Refused(reasons.PRIVATE_ADDRESS)
        if config.unsafe_allow_loopback and is_loopback(host):
            return url.with_fragment(None)
    if port not in config.ports and not config.unsafe_allow_loopback:
        raise Refused(reasons.BAD_URL)
    return url.with_fragment(None)


def _check_name(host: str) -> None:
    """Refuse what the system's resolver would take for a number: `2130706433`, `0x7f.1`, `127.1`, `0177.0.0.1`."""
    labels = host.rstrip(".").split(".")
    if not all(labels) or re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]):
        raise Refused(reasons.BAD_URL)


async def lookup(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
    """The system's answer for a name: tests put their own in its place."""
    loop = asyncio.get_running_loop()
    return list(await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG))


class CheckedResolver(AbstractResolver):
    """Names to addresses, all of them checked."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver`.

        Raises:
            Refused: one of the addresses is not public. A name that mixes them is up to no good.
            OSError: no answer.
        """
        found = await lookup(host, port, family)
        if not found:
            raise OSError(None, "DNS lookup failed")
        if not all(may_connect(str(address[0]), self._config) for *_, address in found):
            raise Refused(reasons.PRIVATE_ADDRESS)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=address[0], port=port, family=kind, proto=proto, flags=numeric)
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


def checked_socket(config: FetchConfig) -> Any:
    """A maker of sockets that looks at the address once more: whatever came before, this is where it goes."""

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, address = info
        if not may_connect(str(address[0]), config):
            raise PrivateAddress(f"{address[0]} is not a public address")
        return socket.socket(family=family, type=kind, proto=proto)

    return make


class PrivateAddress(OSError):
    """A connection to an address that had not been checked."""
