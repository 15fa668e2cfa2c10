"""Scheme, host and port of a URL: what credentials are pinned to."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from t4sa_data.errors import CredentialsInURL, InsecureTransport

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what credentials are pinned to."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port == PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}{port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this very machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def origin_of(url: str) -> Origin:
    """The origin of a URL.

    >>> str(origin_of("HTTP://WWW.Example.org:80/dataset/")), str(origin_of("https://example.org:8443/x"))
    ('http://www.example.org', 'https://example.org:8443')

    Raises:
        CredentialsInURL: it holds a user name or a password (which is in no message).
        InsecureTransport: neither http nor https, or no URL at all.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port, is_plain = parts.scheme, parts.hostname, parts.port, "@" not in parts.netloc
    except ValueError:  # its words quote a piece of the URL, which may be one of a password
        scheme, host, port, is_plain = "", None, None, True
    if scheme not in PORTS or not host or not is_plain:
        if "@" in url:
            raise CredentialsInURL(
                "a URL with a user name or password in it",
                hint="URLs end up in logs and shell histories. Set T4SA_USER and T4SA_PASSWORD, or run `t4sa login`, "
                "and give the URL without them.",
            )
        raise InsecureTransport("not an http or https URL", got=url)
    return Origin(scheme, host, port or PORTS[scheme])
