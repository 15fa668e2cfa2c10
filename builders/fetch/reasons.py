"""Why an image was not fetched. Transient reasons are tried again by the next run, the others are final."""

from __future__ import annotations

# Transient: today's answer says nothing about tomorrow's.
DNS = "fetch/dns"
"""The host's name did not resolve."""
CONNECTION = "fetch/connection"
"""No connection, or one that ended before an answer."""
TLS = "fetch/tls"
"""No trusted certificate for this name: a clock, a captive portal, an expired one. All of them pass."""
TIMEOUT = "fetch/timeout"
CUT = "fetch/cut"
"""The answer ended early."""
RATE_LIMITED = "fetch/rate-limited"
"""429, or a `Retry-After` that is longer than one waits here."""
SERVER_ERROR = "fetch/server-error"
"""5xx, 408 or 425."""
ROBOTS_UNREACHABLE = "fetch/robots-unreachable"
"""No answer about robots.txt: RFC 9309 forbids everything until there is one."""
HOST_DOWN = "fetch/host-down"
"""Not asked for: the host had failed too often in a row."""

TRANSIENT = frozenset(
    {DNS, CONNECTION, TLS, TIMEOUT, CUT, RATE_LIMITED, SERVER_ERROR, ROBOTS_UNREACHABLE, HOST_DOWN},
)

# Permanent.
NO_URL = "fetch/no-url"
BAD_URL = "fetch/bad-url"
"""No http(s) URL with a host and one of the allowed ports, or one with a password, or a host written as a number."""
PRIVATE_ADDRESS = "fetch/private-address"
"""A host, at first or after a redirect, with an address that is not one of the public internet."""
NOT_FOUND = "fetch/not-found"
GONE = "fetch/gone"
FORBIDDEN = "fetch/forbidden"
"""401, 402, 403 or 451."""
REFUSED = "fetch/refused"
"""Another 4xx."""
BAD_STATUS = "fetch/bad-status"
"""Neither an image nor a refusal: 204, 304, a redirect to nowhere."""
REDIRECTS = "fetch/redirects"
"""A loop of redirects, or more of them than are followed."""
ROBOTS = "fetch/robots"
"""robots.txt disallows it."""
OPT_OUT = "fetch/opt-out"
"""A header of the answer reserves it from uses like this one."""
TOO_LARGE = "fetch/too-large"
EMPTY = "fetch/empty"
HTML = "fetch/html"
"""A web page, whatever its Content-Type says."""
NOT_AN_IMAGE = "fetch/not-an-image"
"""The first bytes are no picture's."""
ENCODING = "fetch/encoding"
"""A Content-Encoding that was not asked for and is not known, or does not decode."""
PLACEHOLDER = "fetch/placeholder"
"""A picture that says that the picture is gone."""

PERMANENT = frozenset(
    {
        NO_URL,
        BAD_URL,
        PRIVATE_ADDRESS,
        NOT_FOUND,
        GONE,
        FORBIDDEN,
        REFUSED,
        BAD_STATUS,
        REDIRECTS,
        ROBOTS,
        OPT_OUT,
        TOO_LARGE,
        EMPTY,
        HTML,
        NOT_AN_IMAGE,
        ENCODING,
        PLACEHOLDER,
    }
)

OF_POLICY = frozenset({BAD_URL, PRIVATE_ADDRESS, REDIRECTS, ROBOTS, OPT_OUT, TOO_LARGE, PLACEHOLDER})
"""Permanent as long as the settings are the same: under others these are asked for again."""


class Refused(Exception):
    """An image that will not come, with the ledger's reason."""

    def __init__(self, reason: str, status: int | None = None, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status
        self.is_final = is_final
        """No further attempt in this run would help."""
