"""A raw stream in miniature, its image host, and builds of it: in this process, or as a command that can be killed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from builders.build_config import BuildConfig, read_config
from builders.engine import Engine, Local
from builders.pipeline import BuildOutcome, build
from t4sa_data.testing import RawTweets, make_raw_tweets

from tests.image_host import Answer, ImageHost, Route, image, redirect, status, then  # isort: skip

NUM_TWEETS = 120
TOML = """
[collect]
max_bad_share = 0.05

[label]
labels = "{labels}"

[select]
threshold = 0.85

[fetch]
unsafe_allow_loopback = true
host_connections = 16
host_requests_per_second = 10000.0
attempts = 3
backoff_seconds = 0.01
request_seconds = 2.0
max_wait_seconds = 1.0
max_bytes = 200000
max_transient = 0.1
{fetch}

[write]
shard_bytes = 60000
{write}
{more}
"""


def broken_picture() -> bytes:
    """A JPEG whose second half never came."""
    buffer = io.BytesIO()
    Image.effect_noise((120, 120), 80).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()[:-900]


@dataclass(kw_only=True)
class Stream:
    """Raw tweets, and what the host says of their pictures."""

    raw: RawTweets
    host: ImageHost
    gone: dict[str, str] = field(default_factory=dict)
    """Key -> reason that it is not fetched."""
    broken: dict[str, str] = field(default_factory=dict)
    """Key -> reason that it is set aside."""

    def config(self, folder: Path, *, fetch: str = "", write: str = "", more: str = "") -> Path:
        """A `build.toml`, with more lines in two sections, or more sections."""
        path = folder / "build.toml"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(TOML.format(labels=self.raw.labels, fetch=fetch, write=write, more=more))
        return path


def spoil(raw: RawTweets) -> tuple[dict[str, Route], dict[str, str], dict[str, str]]:
    """Routes of a host that fails in every way for some of the pictures, and what becomes of these.

    Pairs of near-duplicates stay whole.
    """
    routes: dict[str, Route] = {path: image(data) for path, data in raw.images.items()}
    paired = {key for pair in raw.near_duplicates for key in pair}
    free = [key for key in raw.paths if key not in paired]
    wrong: list[tuple[Route, str]] = [
        (status(404), "fetch/not-found"),
        (status(410), "fetch/gone"),
        (status(403), "fetch/forbidden"),
        (image(b"<!DOCTYPE html><html>log in</html>"), "fetch/html"),
        (image(b"\0\0\0\x18ftypmp42" + bytes(900), "video/mp4"), "fetch/not-an-image"),
        (image(bytes(300_000)), "fetch/too-large"),
        (image(b""), "fetch/empty"),
        (status(500), "fetch/server-error"),
        (image(b"x" * 900, cut_at=400), "fetch/cut"),
    ]
    gone = {}
    for key, (route, reason) in zip(free[2::7], wrong, strict=False):
        routes[raw.paths[key]] = route
        gone[key] = reason
    around = raw.paths[free[1]]
    routes["/loop.jpg"] = redirect(around)
    routes[around] = redirect("/loop.jpg")
    gone[free[1]] = "fetch/redirects"
    for key, heals in (
        (free[4], status(429, Retry_After="0")),
        (free[5], status(503)),
        (free[6], Answer(hang_up=True)),
    ):
        routes[raw.paths[key]] = then(heals, image(raw.images[raw.paths[key]]))
    broken = {free[8]: "truncated"}
    routes[raw.paths[free[8]]] = image(broken_picture())
    return routes, gone, broken


def run(
    stream: Stream, out: Path, config: BuildConfig | Path, *, engine: Engine | None = None, **choices: Any
) -> BuildOutcome:
    """`t4sa build` here."""
    chosen = read_config(config) if isinstance(config, Path) else config
    with engine or Local(1) as where:
        return build(stream.raw.files, out, chosen, where, **choices)


def command(stream: Stream, out: Path, config: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`t4sa build` as a process."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "t4sa_data.cli", "build", *map(str, stream.raw.files), "--out", str(out),
            "--config", str(config), *arguments,
        ],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ledger_of(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, key) -> row of a build's ledger; no candidate stands there twice."""
    rows = pq.read_table(out / "build" / "ledger.parquet").to_pylist()
    made = {(row["kind"], row["key"]): row for row in rows}
    assert len(made) == len(rows)
    return made


def kept_images(stream: Stream) -> Mapping[str, bytes]:
    """Key -> bytes of every picture that a release has to hold, where `threshold = 0.85` selects."""
    doubtful = {tweet for number, tweet in enumerate(stream.raw.classes) if number % 7 == 6}
    return {
        key: stream.raw.images[path]
        for key, path in stream.raw.paths.items()
        if key not in stream.gone and key not in stream.broken and int(key.split("-")[0]) not in doubtful
    }


def make_stream(folder: Path, *, faults: bool = True, num_tweets: int = NUM_TWEETS) -> Stream:
    """A stream and its host, which is started and has to be ended."""
    host = ImageHost({})
    host.__enter__()
    raw = make_raw_tweets(folder, num_tweets, base_url=host.url(""))
    routes, gone, broken = spoil(raw) if faults else ({path: image(data) for path, data in raw.images.items()}, {}, {})
    host.routes.update(routes)
    return Stream(raw=raw, host=host, gone=gone, broken=broken)
