"""What the tests of fetch share: settings for loopback, candidates of URLs, a fetch in this process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from builders.engine import Local
from builders.fetch import FetchConfig, Fetched, fetch, stage
from builders.state import State
from t4sa_data.miniature import make_samples

FIRST_ID = 757_000_000_000_000_000
IMAGE = make_samples(1)[0].image


def loopback(**more: Any) -> FetchConfig:
    """Settings for a host of this machine: impatient, and without a limit that is not asked for."""
    quick: dict[str, Any] = {
        "unsafe_allow_loopback": True,
        "host_requests_per_second": 1e5,
        "backoff_seconds": 0.01,
        "request_seconds": 20.0,
        "host_failures": 10_000,
        "attempts": 3,
    }
    return FetchConfig(**quick | more)


def candidates(urls: list[str | None], first: int = FIRST_ID) -> pa.Table:
    """One tweet for each URL."""
    ids = pa.array([first + i for i in range(len(urls))], pa.int64())
    return pa.table({"tweet_id": ids, "image_index": pa.array([1] * len(urls), pa.int8()), "url": pa.array(urls)})


def run(urls: list[str | None] | pa.Table, folder: Path, config: FetchConfig | None = None, **more: Any) -> Fetched:
    """Fetch in this process."""
    table = urls if isinstance(urls, pa.Table) else candidates(urls)
    with Local(1) as engine:
        return fetch(table, config=config or loopback(), state=State(folder), engine=engine, **more)


def reasons_of(fetched: Fetched) -> list[str | None]:
    found: list[str | None] = fetched.rows["reason"].to_pylist()
    return found


def images_of(fetched: Fetched) -> list[bytes | None]:
    """The bytes of each row, read where the row says, and checked against its sha256."""
    found: list[bytes | None] = []
    for row in fetched.rows.to_pylist():
        if row["reason"] is not None:
            assert row["file"] is row["offset"] is row["length"] is None
            found.append(None)
            continue
        with fetched.files[row["file"]].open("rb") as file:
            file.seek(row["offset"])
            data = file.read(row["length"])
        assert hashlib.sha256(data).digest() == row["sha256"]
        found.append(data)
    return found


def small_partitions(rows: int) -> None:
    """Cut into partitions of about so many rows, in this process."""
    stage.MEAN_ROWS, stage.MOST_ROWS = rows, 4 * rows


# A process that fetches, to be killed.

CHILD = """
import json, os, sys
from pathlib import Path
from tests.fetch_helpers import loopback, small_partitions
from tests import deaths
from builders.engine import Local
from builders.fetch import fetch
from builders.state import State
import builders.fetch.client, pyarrow as pa
told = json.loads(sys.argv[1])
os.fsync = lambda _: None
small_partitions(told["rows"])
table = pa.ipc.open_file(told["table"]).read_all()
points = deaths.Points(told["point"], told["side"]) if "point" in told else None
with Local(told["workers"]) as engine:
    fetch(table, config=loopback(), state=State(Path(told["folder"])), engine=engine)
if points: print(points.count)
"""


def start_child(told: dict[str, Any]) -> subprocess.Popen[str]:
    import json

    line = [sys.executable, "-c", CHILD, json.dumps(told)]
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
