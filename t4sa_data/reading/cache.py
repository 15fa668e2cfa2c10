"""Files of remote releases on this machine, named by their content; several processes share one folder.

CACHE/shards/<sha256>-<bytes>         whole, and checked when it came
CACHE/shards/<sha256>-<bytes>.part    on its way (`.part.json`: its note); counts with the bytes it will have
CACHE/tables/<sha256>-<bytes>         sample tables: never removed for others, and not in the limit
CACHE/releases/<digest of the URL>.json   a release's manifest and where it was: what `offline=True` reads
CACHE/locks/
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from t4sa_data.downloading.part import NOTE_SUFFIX, PART_SUFFIX
from t4sa_data.errors import DiskSpaceError, OutputError, OutputLocked, T4SAError
from t4sa_data.files import explain_os_errors, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

CACHE_VARIABLE = "T4SA_CACHE"
SPARE_BYTES = 256 << 20
"""Disk that is left free."""
ADMISSION_SECONDS = 60.0
"""Admitting a file is a listing and some removals; who waits longer for another process has a dead network disk."""
_NAME = re.compile(r"[0-9a-f]{64}-([0-9]+)(\.part)?")


def default_folder() -> Path:
    """`$T4SA_CACHE`, else the platform's cache folder for `t4sa`."""
    if value := os.environ.get(CACHE_VARIABLE):
        return Path(value).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("t4sa", appauthor=False))


class _Kept(NamedTuple):
    """A file of the cache, or a part of one."""

    path: Path
    num_bytes: int
    used: float


class Cache:
    """One folder of files.

    Args:
        folder: is made when something is kept.
        limit_bytes: of all shards together; None: no limit but the disk's.
    """

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def path(self, kind: str, sha256: str, num_bytes: int) -> Path:
        """Where a file of this content is, or would be; `kind`: `shards` or `tables`."""
        return self.folder / kind / f"{sha256}-{num_bytes}"

    def find(self, kind: str, sha256: str, num_bytes: int) -> Path | None:
        """A whole file, marked as used now; None where there is none."""
        path = self.path(kind, sha256, num_bytes)
        try:
            if path.stat().st_size != num_bytes:
                return None
        except OSError:
            return None
        try:
            os.utime(path)
        except OSError:  # a cache that may be read only
            pass
        return path

    @contextmanager
    def lock(self, name: str, seconds: float = 0.0) -> Iterator[bool]:
        """Hold a name against other processes; False where another one holds it after so many seconds.

        A process that dies lets go.

        Raises:
            OutputError: the cache cannot be written.
        """
        from filelock import Timeout

        lock, is_ours = self._file_lock(name), True
        with explained(self.folder):
            try:
                lock.acquire(timeout=seconds, poll_interval=0.02)
            except Timeout:
                is_ours = False
        try:
            yield is_ours
        finally:
            lock.release()

    def _file_lock(self, name: str) -> BaseFileLock:
        from filelock import FileLock

        with explained(self.folder):
            (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "locks" / f"{name}.lock", thread_local=False)

    def admit(self, sha256: str, num_bytes: int, keep: Collection[str]) -> bool:
        """Make room for a shard, and hold it: files that were not used for the longest time go first.

        Args:
            sha256: of the shard; its lock is held by the caller.
            num_bytes: of the shard.
            keep: sha256 of those that the caller needs itself.

        Returns:
            Whether there is room; a `.part` holds it.

        Raises:
            DiskSpaceError: the disk has none.
            OutputError: the cache cannot be written.
            OutputLocked: another process does not let go.
        """
        target = self.path("shards", sha256, num_bytes)
        if self.limit_bytes is not None and num_bytes > self.limit_bytes:
            return False
        with self.lock("admission", ADMISSION_SECONDS) as is_ours, explained(self.folder):
            if not is_ours:
                raise OutputLocked("another process holds the cache", where=self.folder, hint="Is its disk well?")
            target.parent.mkdir(parents=True, exist_ok=True)
            others = [file for file in self._list() if not file.path.name.startswith(sha256)]
            part = target.with_name(target.name + PART_SUFFIX)
            missing = num_bytes - (part.stat().st_size if part.exists() else 0)
            removable = iter(sorted((f for f in others if f.path.name[:64] not in keep), key=lambda f: f.used))
            used = sum(file.num_bytes for file in others)
            while self.limit_bytes is not None and used + num_bytes > self.limit_bytes:
                if (file := next(removable, None)) is None:
                    return False
                used -= file.num_bytes if self._remove(file) else 0
            while shutil.disk_usage(target.parent).free < missing + SPARE_BYTES:
                if (file := next(removable, None)) is None:
                    raise DiskSpaceError(
                        "not enough disk to keep a shard",
                        expected=f"{(missing + SPARE_BYTES) / 1e9:.2f} GB free",
                        got=f"{shutil.disk_usage(target.parent).free / 1e9:.2f} GB",
                        where=self.folder,
                        hint=f"Free some, or give another cache= (or {CACHE_VARIABLE}).",
                    )
                self._remove(file)
            part.touch()
        return True

    def _list(self) -> list[_Kept]:
        """Every shard, whole or not, with the bytes that it has or will have."""
        made: dict[str, _Kept] = {}
        with os.scandir(self.folder / "shards") as entries:
            for entry in entries:
                if (match := _NAME.fullmatch(entry.name)) is None:
                    continue
                try:
                    used = entry.stat().st_mtime
                except FileNotFoundError:  # it was given its final name this moment: count it all the same
                    used = time.time()
                made[entry.name[:64]] = _Kept(Path(entry.path), int(match[1]), used)
        return list(made.values())

    def _remove(self, file: _Kept) -> bool:
        """Remove a shard, unless somebody fetches it, or (Windows) has it open.

        Readers elsewhere keep what they opened; on Windows an open file cannot be removed, and stays.
        """
        with self.lock(file.path.name[:64]) as is_ours:
            if not is_ours:
                return False
            whole = file.path.with_name(file.path.name.removesuffix(PART_SUFFIX))
            try:
                for path in (whole.name, whole.name + PART_SUFFIX, whole.name + PART_SUFFIX + NOTE_SUFFIX):
                    whole.with_name(path).unlink(missing_ok=True)
            except PermissionError:
                return False
        return True

    def remember(self, url: str, root: str, manifest: bytes) -> None:
        """Keep what a URL stood for.

        Raises:
            OutputError, DiskSpaceError: the cache cannot be written.
        """
        note = {"url": url, "root": root, "manifest": manifest.decode()}
        if self.recall(url) != (root, manifest):
            with explained(self.folder):
                write_json(self._release_path(url), note)

    def recall(self, url: str) -> tuple[str, bytes] | None:
        """What a URL stood for when it was last opened: its root and its manifest; None where nothing is known."""
        try:
            note: dict[str, Any] = json.loads(self._release_path(url).read_bytes())
            return str(note["root"]), str(note["manifest"]).encode()
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _release_path(self, url: str) -> Path:
        return self.folder / "releases" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say of a disk's refusal that it is about the cache.

    Raises:
        DiskSpaceError, OutputError: see `explain_os_errors`.
    """
    hint = f"Give another cache= (or {CACHE_VARIABLE}), or mend this folder."
    try:
        with explain_os_errors(folder):
            yield
    except DiskSpaceError as error:
        raise DiskSpaceError(error.what, expected=error.expected, got=error.got, where=folder, hint=hint) from error
    except OutputLocked:
        raise
    except OutputError as error:
        raise OutputError(f"the cache: {error.what}", where=folder, hint=hint) from error
    except T4SAError:
        raise
    except OSError as error:
        raise OutputError(f"the cache: cannot write ({error.strerror})", where=folder, hint=hint) from error
