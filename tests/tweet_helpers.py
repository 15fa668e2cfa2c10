"""Raw tweets that nobody wrote, in the shapes of Twitter's API v1.1."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

FIRST_ID = 2**60 + 1  # odd and beyond 2^53: a float would round it
TEXT = "five words are enough here"


def medium(kind: str = "photo", name: str = "a") -> dict[str, Any]:
    return {"type": kind, "media_url_https": f"https://pbs.example/{name}.jpg", "url": "https://t.example/x"}


def entities(*media: dict[str, Any]) -> dict[str, Any]:
    return {"hashtags": [], "media": list(media)}


def tweet(number: int = FIRST_ID, **fields: Any) -> dict[str, Any]:
    """One that is kept, with other fields; a field that is `...` is left out."""
    whole = {
        "created_at": "Tue Jul 26 20:50:14 +0000 2016",
        "id": number,
        "id_str": str(number),
        "text": TEXT,
        "lang": "en",
        "user": {"id": 5, "lang": "it", "screen_name": "nobody"},
        "entities": entities(medium()),
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def dump(objects: Iterable[object]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in objects)
