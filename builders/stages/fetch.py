"""`fetch`: the images by their URLs. The work is `builders.fetch`'s."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from builders import fetch
from builders.building import Build, counted
from builders.stages import selection
from builders.state import write_arrow

NAME = "fetch"
VERSION = 1
PACK_SUFFIX = ".images"
"""Of the files that images lie in; their names follow from what is in them."""


def settings(build: Build) -> list[Any]:
    """See `Stage`."""
    chosen = build.config.fetch  # what is fetched, not how fast
    return [fetch.FETCH_VERSION, chosen.policy, chosen.twitter_original, chosen.max_transient]


def run(build: Build) -> dict[str, Any]:
    """See `Stage`. Writes `fetched.arrow` (`fetch.FETCHED`); the images are byte ranges of files of the state."""
    images = build.table(selection.NAME, "images")
    got = fetch.fetch(
        images.select(["tweet_id", "image_index", "url"]),
        config=build.config.fetch,
        state=build.state,
        engine=build.engine,
        say=build.run.say,
        progress=build.progress("fetch", images.num_rows),
    )
    write_arrow(build.path(NAME, "fetched.arrow"), got.rows.schema, [got.rows])
    dropped = {one["values"]: one["counts"] for one in got.rows["reason"].drop_null().value_counts().to_pylist()}
    files = [os.path.relpath(path, build.state.folder) for path in got.files]
    return counted(images.num_rows, dropped, files=files)


def kept_files(build: Build) -> list[Path]:
    """All that was ever fetched, and what is known of it: what another run goes on from."""
    folder = build.state.folder / f"fetch-v{fetch.FETCH_VERSION}"
    return sorted(path for path in folder.iterdir() if path.suffix in (PACK_SUFFIX, ".arrow"))


def files_of(build: Build) -> list[Path]:
    """The files that the column `file` counts."""
    return [build.state.folder / name for name in build.counts[NAME]["files"]]
