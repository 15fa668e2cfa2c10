"""How often a host is asked: connections, requests per second, pauses that it asks for, and when to leave it alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from builders.fetch import reasons
from builders.fetch.config import FetchConfig
from builders.fetch.reasons import Refused

MOST_DELAY_SECONDS = 30.0
"""Of a `Crawl-delay`: a longer one is taken as this."""


@dataclass
class Clock:
    """What a process remembers of a host from one partition to the next. Seconds of `time.monotonic`."""

    next_at: float = 0.0
    """When the next request may be sent."""
    paused_until: float = 0.0
    """By its `Retry-After`."""
    delay_seconds: float = 0.0
    """By its robots.txt."""


_CLOCKS: dict[tuple[str, str], Clock] = {}


class Host:
    """One host in one partition.

    Args:
        config: limits of the whole build.
        share: tasks among which they are divided.
        clock: of this host.
        total: the partition's connections to all hosts.
    """

    def __init__(self, config: FetchConfig, share: int, clock: Clock, total: asyncio.Semaphore) -> None:
        self._config, self._share, self.clock, self._total = config, share, clock, total
        self._connections = asyncio.Semaphore(max(1, config.host_connections // share))
        self._failures = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until one more request may be sent.

        Raises:
            Refused: the host failed too often in a row, or wants a longer pause than is waited for.
        """
        async with self._connections:
            await self._wait()
            async with self._total:
                yield

    async def _wait(self) -> None:
        clock = self.clock
        while (pause := clock.paused_until - time.monotonic()) > 0:
            self._give_up_if_useless(pause)
            await asyncio.sleep(pause)
        self._give_up_if_useless(0)
        now = time.monotonic()
        at = max(now, clock.next_at)
        interval = max(1 / self._config.host_requests_per_second, clock.delay_seconds)
        clock.next_at = at + interval * self._share
        if at > now:
            await asyncio.sleep(at - now)
            self._give_up_if_useless(clock.paused_until - time.monotonic())

    def _give_up_if_useless(self, pause: float) -> None:
        if pause > self._config.max_wait_seconds:
            raise Refused(reasons.RATE_LIMITED, is_final=True)
        if self._failures >= self._config.host_failures:
            raise Refused(reasons.HOST_DOWN, is_final=True)

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""
        self.clock.paused_until = max(self.clock.paused_until, time.monotonic() + seconds)

    def slow_down(self, seconds: float) -> None:
        """Send no more than one request in so many seconds."""
        self.clock.delay_seconds = max(self.clock.delay_seconds, min(seconds, MOST_DELAY_SECONDS))

    def tell(self, is_transient_failure: bool) -> None:
        """How an attempt went."""
        self._failures = self._failures + 1 if is_transient_failure else 0


class Hosts:
    """The hosts of one partition.

    Args:
        config: limits of the whole build.
        share: tasks among which they are divided.
        place: a name of the build: what is remembered of a host is of one build only.
    """

    def __init__(self, config: FetchConfig, share: int, place: str) -> None:
        self._config, self._share, self._place = config, share, place
        self._total = asyncio.Semaphore(max(1, config.connections // share))
        self._hosts: dict[str, Host] = {}

    def of(self, name: str) -> Host:
        """The host of that name."""
        if name not in self._hosts:
            clock = _CLOCKS.setdefault((self._place, name), Clock())
            self._hosts[name] = Host(self._config, self._share, clock, self._total)
        return self._hosts[name]
