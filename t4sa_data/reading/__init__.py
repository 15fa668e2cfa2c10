"""Where a release's bytes come from: a folder, an https site, the Hub, or an object store; all read by byte range.

`open_release` finds the release and its tables; its `source()` reads ranges of its files.
"""

from __future__ import annotations

import os
from pathlib import Path

from t4sa_data import places
from t4sa_data.loading.published import tell_of_local
from t4sa_data.reading.local import LocalRelease
from t4sa_data.reading.release import OpenRelease, Range, Source

__all__ = ["OpenRelease", "Range", "Source", "open_release"]


def open_release(
    path: str | os.PathLike[str] = "t4sa",
    *,
    token: bool | str | None = None,
    offline: bool = False,
    cache: str | os.PathLike[str] | None = None,
    cache_bytes: int | None = None,
) -> OpenRelease:
    """Find a release and read its manifest.

    Args:
        path: `t4sa` or `t4sa-wds` (see `places.candidates`), a folder (the release's parent, one of its two, or an
            in-place one), or the URL of any of them: `https://`, `hf://datasets/OWNER/NAME[@REVISION]`, or what
            fsspec knows (`s3://`, `gs://`, `memory://`).
        token: for the Hub; None: as logged in.
        offline: never open a socket: what is not on this machine is an error.
        cache: folder of what was fetched; None: `$T4SA_CACHE`, else the platform's cache folder.
        cache_bytes: bytes that the cache may hold; None: no limit but the disk's.

    Raises:
        ReleaseNotFound, ManifestError: no readable release there.
        T4SAError: the server, the Hub or the cache refuses; see `docs/reference/errors.md`.
    """
    name = os.fspath(path)
    if "://" not in name:
        place = places.find(name)
        if place.manifest is not None and place.path is not None:
            tell_of_local(place.manifest)
            return LocalRelease(place.path, place.manifest)
        name = str(place.url)
    from t4sa_data.reading.cache import Cache, default_folder
    from t4sa_data.reading.remote import open_remote

    folder = default_folder() if cache is None else Path(cache).expanduser()
    return open_remote(name, Cache(folder, cache_bytes), token=token, offline=offline)
