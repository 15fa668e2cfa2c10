"""A safety screen before publication: every image goes through a matcher that the maintainer supplies.

The matcher (for known illegal material, under the terms of whoever gives out the hashes) is no part of this package.
What it hits is listed by key; its bytes are copied nowhere.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from hub_scripts.view import View
from t4sa_data.errors import BadOption, ScreenHit
from t4sa_data.files import write_private
from t4sa_data.shards import TABLE_NAME, read_table

Matcher = Callable[[str, bytes], bool]
HITS_NAME = "screen-hits.txt"
"""Beside the release, mode 0600: keys, one a line, as `t4sa prepare --removals` takes them."""


def load_matcher(name: str) -> Matcher:
    """The function behind `FILE.py:FUNCTION` or `MODULE:FUNCTION`.

    Raises:
        BadOption: there is none.
    """
    place, _, function = name.rpartition(":")
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location("t4sa_screen", place)
            if spec is None or spec.loader is None:
                raise ImportError(place)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        found: Matcher = getattr(module, function)
    except (ImportError, OSError, AttributeError, ValueError) as error:
        raise BadOption("no such matcher", expected="FILE.py:FUNCTION or MODULE:FUNCTION", got=name) from error
    return found


def images_of(view: View) -> Iterator[tuple[str, bytes]]:
    """(key, bytes) of every image that would be published, one in memory at a time."""
    for name, layer in view.manifest.layers.items():
        if layer.kind != "image":
            continue
        table = read_table(view.folder / name / TABLE_NAME, layer=name)
        columns = (table[column].to_pylist() for column in ("key", "file", "offset", "length"))
        opened, file = "", None
        try:
            for key, path, offset, length in zip(*columns, strict=True):
                if path != opened:
                    if file is not None:
                        file.close()
                    file, opened = (view.folder / path).open("rb"), path
                assert file is not None
                file.seek(offset)
                yield key, file.read(length)
        finally:
            if file is not None:
                file.close()


def screen_release(directory: Path, view: View, matcher: Matcher, say: Callable[[str], object]) -> int:
    """Call the matcher for every image; how many there were.

    Raises:
        ScreenHit: it hit; the keys stand in `screen-hits.txt`.
    """
    count, hits = 0, []
    for key, data in images_of(view):
        count += 1
        if matcher(key, data):
            hits.append(key)
    if hits:
        path = Path(directory) / HITS_NAME
        write_private(path, "".join(f"{key}\n" for key in hits).encode())
        raise ScreenHit(
            f"the screen hit {len(hits)} of {count} images",
            where=path,
            hint=f"Nothing was sent. Do what the law asks of you first (docs/how-to/publish.md), then build without "
            f"them: `t4sa prepare RAW --removals {path.name}`.",
        )
    say(f"screened: {count:,} images, no hit")
    return count
