"""A copy of a build in an object store (fsspec: s3://, gs://, abfs://, ...), from which it goes on on another machine.

A store has no rename. So data goes first, and what says that it is whole goes last: the marker of a stage, the manifest
of a release. A marker names each file of its stage with size and sha256; what is brought back is held against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from t4sa_data.errors import BadOption, ChecksumMismatch, MissingDependency, StoreError
from t4sa_data.files import TEMPORARY, atomic_file, sha256_file
from t4sa_data.manifest import MANIFEST_NAME

STATE = "state"
CHUNK_BYTES = 8 << 20


class Mirror:
    """A folder of an object store.

    Args:
        url: of the folder, as fsspec has it. Credentials are the store's own business (environment, profiles).

    Raises:
        BadOption: a URL that is none. MissingDependency: the store's package is not installed.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise MissingDependency("this store needs a package of its own", got=error, where=url) from error
        except ValueError as error:
            raise BadOption("no URL of a store", expected="s3://bucket/folder and the like", got=url) from error

    def push_stage(self, state: Path, name: str, files: Iterable[Path], counts: dict[str, Any]) -> None:
        """Copy the files of a stage, then its marker.

        Args:
            state: folder of the build's state.
            name: of the marker, `<stage>-<key>`.
            files: below `state`.
            counts: what the stage counted; goes into the marker.

        Raises:
            StoreError: the store does not take it.
        """
        told = {}
        for path in sorted(files):
            place = path.relative_to(state).as_posix()
            told[place] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
            self._put(path, f"{STATE}/{place}", is_named_by_content=path.suffix == ".images")
        self._write(f"{STATE}/{name}.json", json.dumps({"counts": counts, "files": told}).encode())

    def has_stage(self, name: str) -> bool:
        """Whether a stage is there whole.

        Raises:
            StoreError: the store does not answer.
        """
        return self._read(f"{STATE}/{name}.json") is not None

    def pull_stage(self, state: Path, name: str) -> dict[str, Any] | None:
        """Bring the files of a stage back; what it counted, or None where the store does not have it whole.

        Raises:
            ChecksumMismatch: a file is not what its marker says, or a marker names one outside the state.
            StoreError: the store does not give it.
        """
        marker = self._read(f"{STATE}/{name}.json")
        if marker is None:
            return None
        told = json.loads(marker)
        for place, entry in told["files"].items():
            path = state / place
            if not path.resolve().is_relative_to(state.resolve()):
                raise ChecksumMismatch(
                    "a marker of the store names a file outside the build",
                    got=place,
                    where=f"{self.url}/{STATE}/{name}.json",
                )
            if path.is_file() and path.stat().st_size == entry["bytes"] and sha256_file(path) == entry["sha256"]:
                continue
            self._get(f"{STATE}/{place}", path, entry)
        counts: dict[str, Any] = told["counts"]
        return counts

    def push_release(self, folder: Path) -> None:
        """Copy a release folder: the manifest that stands in the store goes first, the new one comes last.

        Raises:
            StoreError: the store does not take it.
        """
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        manifest = (folder / MANIFEST_NAME).read_bytes()
        if self._read(f"{folder.name}/{MANIFEST_NAME}") == manifest:
            return
        there = self._guarded(lambda: self._fs.find(f"{self._root}/{folder.name}"))
        self._remove([path for path in there if path.endswith(f"/{folder.name}/{MANIFEST_NAME}")])
        wanted = [name for name in sorted(names) if name != MANIFEST_NAME and not name.endswith(TEMPORARY)]
        for name in wanted:
            self._put(folder / name, f"{folder.name}/{name}")
        ends = tuple(f"/{folder.name}/{name}" for name in wanted)
        self._remove([path for path in there if not f"/{path}".endswith(ends) and not path.endswith(MANIFEST_NAME)])
        self._write(f"{folder.name}/{MANIFEST_NAME}", manifest)

    def _put(self, path: Path, place: str, *, is_named_by_content: bool = False) -> None:
        """Copy a file; one whose name follows from its content is there already where its size is."""
        where = f"{self._root}/{place}"

        def put() -> None:
            if is_named_by_content and self._fs.exists(where) and self._fs.size(where) == path.stat().st_size:
                return
            self._fs.makedirs(where.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(path), where)

        self._guarded(put)

    def _get(self, place: str, path: Path, entry: dict[str, Any]) -> None:
        def get() -> None:
            with self._fs.open(f"{self._root}/{place}", "rb") as source, atomic_file(path) as sink:
                while data := source.read(CHUNK_BYTES):
                    sink.write(data)

        self._guarded(get)
        found = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        if found != entry:
            path.unlink()
            raise ChecksumMismatch(
                "a file of the store is not what its marker says", expected=entry, got=found,
                where=f"{self.url}/{place}", hint="Remove its marker there; the stage is done again.",
            )  # fmt: skip

    def _write(self, place: str, data: bytes) -> None:
        where = f"{self._root}/{place}"

        def write() -> None:
            self._fs.makedirs(where.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(where, data)

        self._guarded(write)

    def _read(self, place: str) -> bytes | None:
        def read() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(f"{self._root}/{place}"))
            except FileNotFoundError:
                return None

        found: bytes | None = self._guarded(read)
        return found

    def _remove(self, paths: list[str]) -> None:
        for path in paths:
            self._guarded(lambda path=path: self._fs.rm_file(path))  # type: ignore[misc]

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """What `work` gives; errors of the store with its name."""
        try:
            return work()
        except OSError as error:
            raise StoreError(
                "the object store does not do it", got=f"{type(error).__name__}: {error}", where=self.url,
                hint="The same command goes on.",
            ) from error  # fmt: skip
