"""robots.txt by RFC 9309, asked for once a day and origin; all workers of a build share the answers.

4xx: there is none, everything is allowed. 5xx, 429 and no answer at all: nothing is allowed until there is one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from protego import Protego
from yarl import URL

from builders.fetch import reasons
from builders.fetch.config import PRODUCT
from builders.fetch.reasons import Refused
from t4sa_data.files import write_bytes

MAX_BYTES = 512_000
"""Of a robots.txt; what stands behind is not read. RFC 9309 asks for 500 KiB at least."""
KEEP_SECONDS = 24 * 3600
MOST_REDIRECTS = 5

Get = Callable[[URL], Awaitable[tuple[int, bytes]]]
"""Status and body of a URL, redirects followed and retries done.

Raises:
    Refused: no answer, or more redirects than `MOST_REDIRECTS`.
"""


class Robots:
    """What robots.txt of any origin allows us.

    Args:
        folder: of the answers.
        get: brings one.
    """

    def __init__(self, folder: Path, get: Get) -> None:
        self._folder, self._get = folder, get
        self._asked: dict[URL, asyncio.Task[Protego | str]] = {}

    async def rules(self, url: URL) -> Protego:
        """The rules of a URL's origin.

        Raises:
            Refused: it did not answer.
        """
        origin = url.origin()
        if origin not in self._asked:
            self._asked[origin] = asyncio.create_task(self._load(origin))
        rules = await asyncio.shield(self._asked[origin])
        if isinstance(rules, str):
            raise Refused(rules, is_final=True)
        return rules

    async def check(self, url: URL) -> float:
        """Seconds between two requests that the origin wishes (0: none said).

        Raises:
            Refused: disallowed, or the origin did not answer.
        """
        rules = await self.rules(url)
        if not rules.can_fetch(str(url), PRODUCT):
            raise Refused(reasons.ROBOTS)
        return float(rules.crawl_delay(PRODUCT) or 0)

    async def _load(self, origin: URL) -> Protego | str:
        """Rules, or the reason why there are none."""
        path = self._folder / f"{hashlib.sha256(str(origin).encode()).hexdigest()[:24]}.json"
        text = _kept(path)
        if text is None:
            try:
                text = _text_of(*await self._get(origin / "robots.txt"))
            except Refused as error:
                if error.status is None and error.reason != reasons.ROBOTS_UNREACHABLE:
                    return error.reason  # it is not robots.txt that cannot be reached, it is the host
                text = "" if error.reason == reasons.REDIRECTS else None  # more than anybody follows are no rules
            if text is None:
                return reasons.ROBOTS_UNREACHABLE
            told = {"origin": str(origin), "time": time.time(), "text": text}
            await asyncio.to_thread(write_bytes, path, json.dumps(told).encode())
        return Protego.parse(text)

    async def close(self) -> None:
        """Ask for nothing more."""
        for task in self._asked.values():
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)


def _text_of(status: int, body: bytes) -> str | None:
    """What an answer allows, as a robots.txt; None: it says nothing yet."""
    if 200 <= status < 300:
        return body[:MAX_BYTES].decode("utf-8-sig", "replace")
    return "" if 400 <= status < 500 and status not in (408, 425, 429) else None


def _kept(path: Path) -> str | None:
    try:
        told = json.loads(path.read_bytes())
        return str(told["text"]) if 0 <= time.time() - told["time"] < KEEP_SECONDS else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
