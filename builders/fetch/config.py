"""Settings of the stage."""

from __future__ import annotations

import re
from dataclasses import dataclass

from builders.state import fingerprint
from t4sa_data.errors import BadOption

OPT_OUT = ("noai", "noimageai", "noindex", "noimageindex", "none")
"""Directives of `X-Robots-Tag` by which an image is left alone."""
PLACEHOLDERS = (
    "9b5936f4006146e4e1e9025b474c02863c0b5614132ad40db4b925a10e8bfbb9",  # Imgur: "no longer available", 161 x 81
)
"""Pictures that only say that a picture is gone."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """How images are fetched. The defaults are polite ones; limits hold for the whole build, all workers together."""

    contact: str = ""
    """A page or mail address of yours, sent in the User-Agent, so that a host can reach you."""
    host_connections: int = 8
    """Connections to one host; each worker has its share, and at least one."""
    host_requests_per_second: float = 20.0
    """Requests to one host."""
    connections: int = 64
    """Connections to all hosts together; each worker has its share, and at least one."""
    attempts: int = 4
    """Requests for one image before a transient failure is taken as it is."""
    backoff_seconds: float = 1.0
    """Before the second attempt; doubled each time, with a random part of the half."""
    max_wait_seconds: float = 120.0
    """Longest wait for one attempt, and longest `Retry-After` that is waited for: a longer one ends the host's turn."""
    host_failures: int = 20
    """Failed attempts in a row, images whatever, after which the rest of a partition is not asked of that host."""
    connect_seconds: float = 10.0
    """For the connection."""
    request_seconds: float = 30.0
    """For one attempt, from the connection to the last byte: a body that drips is cut there."""
    max_bytes: int = 20_000_000
    """Of one image, as sent and as unpacked."""
    max_redirects: int = 5
    """Redirects that are followed."""
    ports: tuple[int, ...] = (80, 443, 8080, 8443)
    """Ports that are connected to."""
    respect_robots: bool = True
    """Whether robots.txt is asked for and honoured."""
    opt_out: tuple[str, ...] = OPT_OUT
    """Directives of `X-Robots-Tag` that are taken as an opt-out; not empty, `tdm-reservation: 1` counts too."""
    placeholders: tuple[str, ...] = PLACEHOLDERS
    """sha256 of pictures that say that a picture is gone, 64 hex digits each."""
    placeholder_phashes: tuple[str, ...] = ()
    """Their perceptual hashes, 16 hex digits each, equal bit for bit. Not empty: each image is decoded."""
    twitter_original: bool = False
    """Ask `pbs.twimg.com` for the size that was uploaded (`name=orig`), not for the URL as the tweet gives it."""
    max_transient: float = 0.01
    """Share of the candidates that may end with a transient failure; more leave the stage incomplete."""
    unsafe_allow_loopback: bool = False
    """For tests only: this machine's own addresses, on any port. All other private ones stay refused."""

    def __post_init__(self) -> None:
        counts = ("host_connections", "connections", "attempts", "host_failures", "max_bytes")
        positive = (*counts, "host_requests_per_second", "connect_seconds", "request_seconds")
        for name in positive:
            if getattr(self, name) <= 0:
                raise BadOption(f"fetch: {name} must be positive", got=getattr(self, name))
        for name in ("backoff_seconds", "max_wait_seconds", "max_redirects"):
            if getattr(self, name) < 0:
                raise BadOption(f"fetch: {name} must not be negative", got=getattr(self, name))
        if not 0 <= self.max_transient <= 1:
            raise BadOption("fetch: max_transient is a share", expected="0 to 1", got=self.max_transient)
        for name, digits in (("placeholders", 64), ("placeholder_phashes", 16)):
            for value in getattr(self, name):
                if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", value):
                    raise BadOption(f"fetch: {name} are {digits} hex digits, lower case", got=value)
        if not self.contact.isprintable() or not self.contact.isascii():
            raise BadOption("fetch: contact is sent in a header", expected="printable ASCII", got=repr(self.contact))

    @property
    def user_agent(self) -> str:
        """What we call ourselves, the same to every host."""
        from t4sa_data import __version__

        return f"{PRODUCT}/{__version__} ({f'+{self.contact}; ' if self.contact else ''}research dataset builder)"

    @property
    def policy(self) -> str:
        """Fingerprint of what decides whether an image may be fetched, and whether its bytes are one."""
        return fingerprint(
            self.max_bytes,
            self.max_redirects,
            self.ports,
            self.respect_robots,
            self.opt_out,
            self.placeholders,
            self.placeholder_phashes,
            self.unsafe_allow_loopback,
        )


PRODUCT = "t4sa-data"
"""Our product token: robots.txt and `X-Robots-Tag` may name it."""
