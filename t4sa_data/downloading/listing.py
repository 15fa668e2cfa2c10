"""What can be downloaded, what is here, what it takes, and how the site answers: words for a terminal."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from t4sa_data import catalog, places
from t4sa_data.catalog import Package
from t4sa_data.credentials import BASE_URL_VARIABLE
from t4sa_data.downloading.part import PART_SUFFIX
from t4sa_data.downloading.registry import Registry
from t4sa_data.downloading.site import Limits, Site
from t4sa_data.errors import T4SAError
from t4sa_data.origins import origin_of
from t4sa_data.summary import size

PROBE_SECONDS = 10.0
NOT_HERE = "-"
_SHOWN = (
    *("WWW-Authenticate", "Location", "Accept-Ranges", "Content-Range", "Content-Length", "ETag", "Last-Modified"),
    *("Content-Type", "Content-Encoding", "Server"),
)


def state_of(package: Package, folder: Path) -> str:
    """What of a package is in a folder, in words; nothing is hashed."""
    path = folder / package.filename
    if path.is_file():
        entry, status = Registry(folder).get(package.filename), path.stat()
        if entry is None:
            return f"here, {size(status.st_size)}, not recorded"
        same = (entry.num_bytes, entry.modified_ns) == (status.st_size, status.st_mtime_ns)
        return f"here and verified, {size(status.st_size)}" if same else "here, changed since it was verified"
    part = folder / f"{package.filename}{PART_SUFFIX}"
    return f"{size(part.stat().st_size)} of it" if part.is_file() else NOT_HERE


def describe(to: Path | None = None) -> str:
    """All packages: name, size, what is here, what it is for."""
    folder = Path(to) if to is not None else places.raw_folder()
    lines = [f"{'package':<22}{'size':>10}  {'here':<34}what for"]
    for package in catalog.PACKAGES.values():
        told = size(package.num_bytes) if package.num_bytes else "unknown"
        lines.append(f"{package.name:<22}{told:>10}  {state_of(package, folder):<34}{package.description}")
    groups = "; ".join(f"{name} = {', '.join(members)}" for name, members in catalog.GROUPS.items())
    return "\n".join([*lines, "", f"groups: {groups}", f"folder: {folder}"])


def missing_bytes(packages: Sequence[Package], folder: Path) -> tuple[int, bool]:
    """Bytes that are still to come, as the site rounds them; whether some package's size is not known."""
    missing, is_unknown = 0, False
    for package in packages:
        if (folder / package.filename).is_file():
            continue
        if package.num_bytes is None:
            is_unknown = True
            continue
        part = folder / f"{package.filename}{PART_SUFFIX}"
        missing += max(0, package.num_bytes - (part.stat().st_size if part.is_file() else 0))
    return missing, is_unknown


def free_bytes(folder: Path) -> int:
    """Free disk where a folder is, or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def plan_words(names: Sequence[str] | None, to: Path | None = None) -> str:
    """What a download brings, and the disk it needs.

    Raises:
        UnknownPackage: no such name.
    """
    from t4sa_data.downloading import plan

    folder = Path(to) if to is not None else places.raw_folder()
    packages = plan(names)
    lines = []
    for package in packages:
        told = f"about {size(package.num_bytes)}" if package.num_bytes else "size not known"
        state = state_of(package, folder)
        lines.append(f"{package.filename}: {told}, {'not here' if state == NOT_HERE else state}")
    missing, is_unknown = missing_bytes(packages, folder)
    total = f"about {size(missing)}{' and some of unknown size' if is_unknown else ''}"
    lines.append(f"{len(packages)} file(s), {total} to fetch into {folder}; {size(free_bytes(folder))} free")
    return "\n".join(lines)


def probe(names: Sequence[str] | None = None, *, base_url: str | None = None) -> str:
    """How the site answers a HEAD and a request for one byte of each package, without any credentials; and over https.

    The report holds no secret, and can be pasted into a bug report.
    """
    from t4sa_data.downloading import plan

    lines, base_url = [], base_url or os.environ.get(BASE_URL_VARIABLE)
    for package in plan(names or list(catalog.PACKAGES)):
        folder = base_url or package.url.rpartition("/")[0]
        site = Site(folder, limits=Limits(connect_seconds=PROBE_SECONDS, stall_seconds=PROBE_SECONDS))
        lines.append(f"{package.filename} at {site.origin}")
        if site.origin.scheme == "http" and site.origin.port == 80:
            secured = site.url(package.filename).replace("http:", "https:", 1).replace(":80/", "/", 1)
            lines.append(f"  https {_answer(site, secured, 'HEAD', {})}")
        for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
            lines.append(f"  {method:<5}{_answer(site, site.url(package.filename), method, headers)}")
    return "\n".join([f"t4sa download --probe, {time.strftime('%Y-%m-%d', time.gmtime())}", *lines])


def _answer(site: Site, url: str, method: str, headers: dict[str, str]) -> str:
    try:
        response = site.ask(method, url, headers)
    except T4SAError as error:
        return f"{type(error).__name__}: {error.what}"
    except OSError as error:
        return type(error).__name__  # its words may hold addresses of a proxy
    with response:
        told = [f"{name}: {_safe(name, response.headers[name])}" for name in _SHOWN if name in response.headers]
        return "; ".join([f"HTTP {response.status_code}", *told])


def _safe(name: str, value: str) -> str:
    """A header's value without what could be secret: of a redirect the origin only (its query may be signed)."""
    if name != "Location" or not value.startswith(("http://", "https://")):
        return value if name != "Location" else "a path of the same site"
    try:
        return str(origin_of(value))
    except T4SAError as error:
        return error.what
