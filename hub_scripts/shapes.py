"""Shapes of what the Hub answers: method, path without its names, status, headers that matter, keys and types of JSON.
Never a value: no token, no signed address, no name of a person or file.

A shape is flat: place -> what was seen there, as `body[].lfs` -> `absent`, `object`. `shapes.json` beside this file
holds those of the double of the Hub that the tests run against (made anew by `python -m tests.hub_double.shapes` in a
clone); `differences` says what another Hub does that the double does not.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

SHAPES_NAME = "shapes.json"
MODES = ("lfs", "xet")
"""How large files go up."""
HEADERS = (
    "accept-ranges",
    "content-range",
    "content-type",
    "etag",
    "link",
    "location",
    "x-error-code",
    "x-error-message",
    "x-linked-etag",
    "x-linked-size",
    "x-repo-commit",
    "x-xet-access-token",
    "x-xet-cas-url",
    "x-xet-hash",
    "x-xet-token-expiration",
)
"""What the client reads (huggingface_hub 2.4); others come and go."""
OPAQUE = ("cardData", "fields")
"""Keys whose content is somebody's own: the card's head, a form's answers."""
FAULTS = (408, 429)
"""Statuses that say nothing of a shape, as those from 500 on."""
_WORDS = frozenset(
    [
        "accepted",
        "api",
        "auth-check",
        "batch",
        "branch",
        "commit",
        "commits",
        "create",
        "datasets",
        "delete",
        "handle",
        "info",
        "lfs",
        "lfs-files",
        "objects",
        "paths-info",
        "pending",
        "preupload",
        "refs",
        "rejected",
        "repos",
        "resolve",
        "resolve-cache",
        "revision",
        "settings",
        "super-squash",
        "tag",
        "tree",
        "user-access-request",
        "validate-yaml",
        "verify",
        "whoami-v2",
        "xet-read-token",
        "xet-write-token",
    ]
)
_LAST = frozenset(
    ["branch", "commit", "commits", "preupload", "resolve", "resolve-cache", "revision", "super-squash", "tag", "tree"]
)
"""Words after which only names come."""
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")

Shape = dict[str, frozenset[str]]
"""Place -> types, header kinds, or `absent`: sometimes it is not there."""


@dataclass(frozen=True, order=True)
class Asked:
    """What makes two exchanges comparable."""

    path: str
    """Names are `*`; `(store)`: another origin than the Hub's."""
    method: str
    status: int


Shapes = dict[Asked, Shape]


def path_of(url: str, endpoint: str) -> str:
    """A URL without names and values: only words of the Hub's own and the names of the query stay.

    >>> path_of("https://h.example/api/datasets/some/one/tree/main/data?recursive=true", "https://h.example")
    '/api/datasets/*/tree/*?recursive'
    >>> path_of("https://elsewhere.example/signed?Signature=1", "https://h.example")
    '(store)'
    """
    split, hub = urlsplit(url), urlsplit(endpoint)
    if (split.scheme, split.netloc) != (hub.scheme, hub.netloc):
        return "(store)"
    made, names = [""], 0
    for word in split.path.strip("/").split("/"):
        if not names and word in _WORDS:
            made.append(word)
            names = 2 if word == "datasets" else sys.maxsize if word in _LAST else 0
        else:
            made += ["*"] if made[-1] != "*" else []
            names = max(0, names - 1)
    asked = sorted({name for name, _ in parse_qsl(split.query, keep_blank_values=True) if _KEY.fullmatch(name)})
    return "/".join(made) + ("?" + "&".join(asked) if asked and "/resolve-cache" not in split.path else "")


def shape_of(value: object, place: str = "body") -> Shape:
    """Keys and types of a JSON value.

    >>> sorted((place, *sorted(types)) for place, types in shape_of([{"a": 1}, {"a": None, "b": "x"}]).items())[2:]
    [('body[].a', 'null', 'number'), ('body[].b', 'absent', 'string')]
    """
    if isinstance(value, dict):
        made: Shape = {place: frozenset(["object"])}
        for key, inner in value.items():
            name = f"{place}.{key if _KEY.fullmatch(key) else '*'}"
            found = shape_of(inner, name)
            made |= {name: found[name]} if key in OPAQUE else found
        return made
    if isinstance(value, list):
        made = {place: frozenset(["array"])}
        inside: Shape = {}
        for inner in value:
            found = shape_of(inner, f"{place}[]")
            inside = merged(inside, found) if inside else found
        return made | inside
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
    return {place: frozenset([kinds[type(value)]])}


def merged(one: Shape, other: Shape) -> Shape:
    """What both shapes allow: a key that only one has may be absent, where the other has the object around it."""
    made: Shape = {}
    for place in one.keys() | other.keys():
        made[place] = one.get(place, frozenset()) | other.get(place, frozenset())
        if any(_lacks(shape, place) for shape in (one, other)):
            made[place] |= {"absent"}
    return made


def _lacks(shape: Shape, place: str) -> bool:
    """Whether a shape has the object around a place, and not the place."""
    around = place.rpartition(".")[0] if not place.endswith("[]") else ""
    return place not in shape and "object" in shape.get(around, ())


def differences(asked: Asked, seen: Shape, shapes: Shapes) -> list[str]:
    """What is in a shape and not in the known ones, as lines; none: it is nothing new."""
    known = shapes.get(asked)
    if known is None:
        others = sorted(str(one.status) for one in shapes if (one.method, one.path) == (asked.method, asked.path))
        return [f"status: {asked.status}, the double: {'|'.join(others) or 'never asked so'}"]
    lines = []
    for place in sorted(seen.keys() | known.keys()):
        types = seen.get(place, frozenset(["absent"] if _lacks(seen, place) else []))
        before = known.get(place, frozenset(["absent"]))
        if new := types - before:
            lines.append(f"{place}: {_either(new)}, the double: {_either(before)}")
    around = tuple(line.partition(":")[0] for line in lines if line.endswith("the double: absent"))
    return [line for line in lines if not line.startswith(tuple(f"{place}{mark}" for place in around for mark in ".["))]


def _either(types: Iterable[str]) -> str:
    return "|".join(sorted(types))


def entry(asked: Asked, shape: Shape) -> dict[str, Any]:
    """A shape as JSON."""
    places = {place: _either(types) for place, types in sorted(shape.items())}
    return {"method": asked.method, "path": asked.path, "status": asked.status, "shape": places}


def parse_entry(value: Mapping[str, Any]) -> tuple[Asked, Shape]:
    """The way back from `entry`."""
    asked = Asked(method=value["method"], path=value["path"], status=value["status"])
    return asked, {place: frozenset(words.split("|")) for place, words in value["shape"].items()}


def to_json(by_mode: Mapping[str, Shapes]) -> str:
    """`shapes.json`: one line a shape, with the modes that it was seen in."""
    modes: dict[str, list[str]] = {}
    for mode in MODES:
        for asked, shape in sorted(by_mode[mode].items(), key=lambda item: item[0]):
            modes.setdefault(json.dumps(entry(asked, shape)), []).append(mode)
    lines = [json.dumps({**json.loads(text), "in": names}) for text, names in modes.items()]
    lines.sort(key=lambda line: (*(str(json.loads(line)[name]) for name in ("path", "method", "status", "in")),))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def known_shapes(mode: str | None = None) -> Shapes:
    """The double's shapes, in one mode or in all of them."""
    text = resources.files("hub_scripts").joinpath(SHAPES_NAME).read_text(encoding="utf-8")
    made: Shapes = {}
    for value in json.loads(text):
        if mode is None or mode in value["in"]:
            asked, shape = parse_entry(value)
            made[asked] = merged(made[asked], shape) if asked in made else shape
    return made


class Recorder:
    """Gathers the shapes of what the Hub's client is answered."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.all: Shapes = {}
        """Since it began."""
        self.num_faults = 0
        """Answers that were left out: statuses of `FAULTS`, and from 500 on."""
        self._new: Shapes = {}
        self._lock = threading.Lock()

    def take(self) -> Shapes:
        """The shapes since the last call."""
        with self._lock:
            new, self._new = self._new, {}
        return new

    def hear(self, response: Any) -> None:
        """An answer (of httpx): called by the client before its content is used."""
        if response.status_code in FAULTS or response.status_code >= 500:
            with self._lock:
                self.num_faults += 1
            return
        request = response.request
        path = path_of(str(request.url), self.endpoint)
        asked = Asked(method=request.method, path=path, status=response.status_code)
        headers = {name: self._kind(name, response.headers[name], path) for name in HEADERS if name in response.headers}
        shape: Shape = {"headers": frozenset(["object"])}
        shape |= {f"headers.{name}": frozenset([kind]) for name, kind in headers.items() if kind}
        if path != "(store)" and "/resolve" not in path:  # a file's content is ours, and may be streamed
            shape |= self._body(response)
        with self._lock:
            for into in (self.all, self._new):
                into[asked] = merged(into[asked], shape) if asked in into else shape

    def _kind(self, name: str, value: str, path: str) -> str:
        """What is kept of a header: its media type, where it leads, or that it is there."""
        if name == "content-type":
            return "" if path == "(store)" else str(value.partition(";")[0].strip().lower())
        if name == "location":
            return (
                "relative"
                if value.startswith("/")
                else "store"
                if path_of(value, self.endpoint) == "(store)"
                else "hub"
            )
        return "there"

    @staticmethod
    def _body(response: Any) -> Shape:
        kind = response.headers.get("content-type", "").partition(";")[0]
        if response.request.method == "HEAD" or not kind.endswith("json"):
            return {}
        response.read()
        try:
            return shape_of(json.loads(response.content))
        except ValueError:
            return {"body": frozenset(["no JSON"])}


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Let a recorder hear every answer to the Hub's client in this process (not Xet's own traffic)."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def factory() -> Any:
        client = default_client_factory()
        hooks = client.event_hooks
        client.event_hooks = {**hooks, "response": [*hooks.get("response", ()), recorder.hear]}
        return client

    set_client_factory(factory)
    try:
        yield
    finally:
        set_client_factory(default_client_factory)
