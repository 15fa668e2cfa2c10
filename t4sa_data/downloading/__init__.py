"""Gated download of the official packages: resumable across runs, verified, polite.

`download` is the whole of it; `transfer` brings one file, `replies` says what an answer means, `site` sends requests
and keeps credentials at home, `part` keeps what has come, `registry` what a file was when it came first.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t4sa_data import catalog, credentials, places
from t4sa_data.catalog import Package
from t4sa_data.downloading import content
from t4sa_data.downloading.part import NOTE_SUFFIX, PART_SUFFIX, Part, discard_note
from t4sa_data.downloading.registry import REGISTRY_NAME, Entry, Registry, require_same
from t4sa_data.downloading.site import Limits, Site
from t4sa_data.downloading.transfer import Transfer
from t4sa_data.errors import ArchiveError, DownloadError, OutputLocked, UnknownPackage
from t4sa_data.files import TEMPORARY, explain_os_errors, sha256_file
from t4sa_data.origins import origin_of

__all__ = ["Downloaded", "Limits", "Site", "download", "plan", "site_of"]

MAX_FILES = 2
"""Files at a time, one connection each: the site is a university's."""
LOCK_NAME = ".t4sa-download.lock"
Progress = Callable[[str, int, int | None], object]
"""Called with a package's name, the bytes that are here and those of the whole file (None: not known)."""


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """One file that is here and whole."""

    name: str
    """Of the package."""
    path: Path
    num_bytes: int
    sha256: str
    recorded: bool
    """Its checksum was recorded just now; False: it is the one that was recorded before."""


def plan(packages: Sequence[str] | None = None) -> tuple[Package, ...]:
    """The packages behind names and groups.

    Args:
        packages: names of `catalog.PACKAGES`, or `models`, `models-pytorch`; None: what `prepare` needs.

    Raises:
        UnknownPackage: no such name.
    """
    names = packages or catalog.PREPARE_PACKAGES
    known = [*catalog.PACKAGES, *catalog.GROUPS]
    if unknown := [name for name in names if name not in known]:
        raise UnknownPackage("no such package", expected=" | ".join(known), got=", ".join(unknown))
    return catalog.expand(names)


def download(
    packages: Sequence[str] | None = None,
    to: str | Path | None = None,
    *,
    base_url: str | None = None,
    auth: tuple[str, str] | None = None,
    progress: Progress | None = None,
    user: str | None = None,
    allow_insecure_http: bool = False,
    interactive: bool | None = None,
    limits: Limits | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> list[Downloaded]:
    """Bring official packages to a folder, names unchanged. Cut or killed at any moment, the same call goes on.

    A file gets its final name when all its bytes are here and it is what it should be: content type, first bytes,
    size, an archive's structure to its end, and the sha256 that was recorded when it came first (the site publishes
    none; see `registry`).

    Args:
        packages: names or groups of the catalog; None: those that `prepare` needs.
        to: folder; None: `$T4SA_HOME/raw`.
        base_url: folder of the files on a mirror; None: `$T4SA_BASE_URL`, else each package's own URL.
        auth: user name and password; None: looked for when the site asks (`credentials.find`).
        progress: see `Progress`; called from the threads of the files.
        user: use only credentials of this user.
        allow_insecure_http: send user name and password over plain http.
        interactive: whether somebody may be asked for them; None: where there is a terminal or a notebook.
        limits: patience; the defaults are polite.
        say: gets a line for each fault that is waited out, and for each file that is done.

    Returns:
        One for each package, in order.

    Raises:
        UnknownPackage: no such name.
        CredentialsError: user name and password are missing, refused, or would go over plain http.
        DownloadError: a file did not come, or is not what it should be.
        ArchiveError: an archive is damaged though every byte came.
        DiskSpaceError, OutputError: the disk does not take it.
        OutputLocked: another download runs into this folder.
    """
    wanted = plan(packages)
    folder = Path(to) if to is not None else places.raw_folder()
    sites = _Sites(
        base_url,
        auth=auth,
        user=user,
        allow_insecure_http=allow_insecure_http,
        interactive=interactive,
        limits=limits,
    )
    stop = threading.Event()
    with locked(folder):
        for left in (*folder.glob(f".*{PART_SUFFIX}{NOTE_SUFFIX}.*"), *folder.glob(f".{REGISTRY_NAME}.*")):
            if left.name.endswith(TEMPORARY):  # of a run that was killed while it wrote a note
                left.unlink(missing_ok=True)
        if auth is None and (credentials.can_prompt() if interactive is None else interactive):
            _ask_first([sites.of(package) for package in wanted if not (folder / package.filename).exists()])
        job = _Job(folder=folder, registry=Registry(folder), stop=stop, say=say, progress=progress)
        with ThreadPoolExecutor(MAX_FILES, thread_name_prefix="download") as threads:
            running = [threads.submit(job.bring, package, *sites.of(package)) for package in wanted]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                for future in running:
                    if future in done and (error := future.exception()) is not None:
                        raise error
                return [future.result() for future in running]
            finally:  # a fault, or Ctrl-C: the others keep what they have and end
                stop.set()
                for future in running:
                    future.cancel()
                sites.abort()


def site_of(
    package: Package, *, base_url: str | None = None, user: str | None = None, allow_insecure_http: bool = False
) -> tuple[Site, str]:
    """Site and URL of a package, for those who read it without storing it; arguments as for `download`."""
    return _Sites(base_url, user=user, allow_insecure_http=allow_insecure_http).of(package)


class _Sites:
    """The site of each package: one for all with a base URL, else one per folder of the packages' own URLs."""

    def __init__(self, base_url: str | None, **options: Any) -> None:
        self._base_url = base_url or os.environ.get(credentials.BASE_URL_VARIABLE)
        self._options = options
        self._made: dict[str, Site] = {}

    def of(self, package: Package) -> tuple[Site, str]:
        """Site and URL of a package."""
        folder = self._base_url or package.url.rpartition("/")[0]
        if folder not in self._made:
            is_official = origin_of(folder) == origin_of(catalog.DATASET_URL)
            takes_credentials = self._base_url is not None or is_official
            self._made[folder] = Site(folder, takes_credentials=takes_credentials, **self._options)
        site = self._made[folder]
        return site, site.url(package.filename)

    def abort(self) -> None:
        """End all reads that wait for a site."""
        for site in self._made.values():
            site.abort()


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What all files of a run share."""

    folder: Path
    registry: Registry
    stop: threading.Event
    say: Callable[[str], object]
    progress: Progress | None

    def bring(self, package: Package, site: Site, url: str) -> Downloaded:
        """One file: there already, or brought, verified and given its name."""
        target, suffix = self.folder / package.filename, content.suffix_of(package.filename)
        recorded = self.registry.get(package.filename)
        if target.exists():
            discard_note(target)
            return self._take(package, target, recorded, url)
        with Part(target, checkpoint_bytes=site.limits.checkpoint_bytes) as part:
            transfer = Transfer(
                site=site,
                url=url,
                part=part,
                structure=content.Structure(part.path, suffix),
                suffix=suffix,
                progress=lambda have, total: self.progress and self.progress(package.name, have, total),
                say=self.say,
                stop=self.stop,
            )
            with _damage_told(part):
                transfer.run()
            num_bytes, sha256 = part.have, part.hexdigest()
            if recorded is not None:
                require_same(recorded, package.filename, num_bytes, sha256, part.path)
            part.checkpoint()
            with _damage_told(part):
                num_members = transfer.structure.finish()
            part.finish(target)
        reply = transfer.reply
        entry = Entry(
            num_bytes=num_bytes,
            sha256=sha256,
            url=url,
            etag=reply.etag if reply else None,
            last_modified=reply.last_modified if reply else None,
            modified_ns=target.stat().st_mtime_ns,
        )
        self.registry.record(package.filename, entry)
        words = "as recorded before" if recorded else "recorded, not published"
        members = f", {num_members:,} members" if num_members else ""
        self.say(f"{package.filename}: {num_bytes:,} bytes{members}, sha256 {sha256} ({words})")
        return Downloaded(name=package.name, path=target, num_bytes=num_bytes, sha256=sha256, recorded=recorded is None)

    def _take(self, package: Package, target: Path, recorded: Entry | None, url: str) -> Downloaded:
        """A file that stands there under its final name."""
        status = target.stat()
        if recorded and (recorded.num_bytes, recorded.modified_ns) == (status.st_size, status.st_mtime_ns):
            sha256 = recorded.sha256
        else:
            self.say(f"{package.filename}: is here, hashing it")
            sha256 = sha256_file(target)
            if recorded:
                require_same(recorded, package.filename, status.st_size, sha256, target)
            else:  # it came by other means, or in a run that was killed before it was recorded
                suffix = content.suffix_of(package.filename)
                with target.open("rb") as file:
                    content.require_magic(file.read(content.MAGIC_BYTES), suffix, str(target))
                content.Structure(target, suffix).finish()
            entry = recorded or Entry(num_bytes=status.st_size, sha256=sha256, url=url)
            self.registry.record(package.filename, replace(entry, modified_ns=status.st_mtime_ns))
        if self.progress:
            self.progress(package.name, status.st_size, status.st_size)
        return Downloaded(
            name=package.name, path=target, num_bytes=status.st_size, sha256=sha256, recorded=recorded is None
        )


@contextmanager
def _damage_told(part: Part) -> Iterator[None]:
    """Say of a damaged archive where its bytes are: as long as they are there, the next run goes on with them."""
    try:
        yield
    except ArchiveError as error:
        error.hint = (
            f"What came is kept: remove {part.path.name} to fetch the file anew. If it is damaged again, the site's is."
        )
        raise


def _ask_first(files: Sequence[tuple[Site, str]]) -> None:
    """Ask for each file's head here, so that a prompt comes in the caller's thread: Ctrl-C would not end it elsewhere.

    Faults but those of credentials are for the transfer, which has the patience.
    """
    for site, url in files:
        try:
            with site.open(url, method="HEAD", now=time.time()):
                pass
        except (DownloadError, OSError):
            continue


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other downloads.

    Raises:
        OutputLocked: another download holds it.
        OutputError: it cannot be made or written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        with explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as error:
        raise OutputLocked(
            "another download runs into this folder", where=folder, hint="Wait for it to end."
        ) from error
    try:
        yield
    finally:
        lock.release()
