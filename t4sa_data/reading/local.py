"""A release in a folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from t4sa_data.errors import ShardError
from t4sa_data.manifest import Manifest
from t4sa_data.reading.release import Range
from t4sa_data.shards import TABLE_NAME


class LocalRelease:
    """A release in a folder; see `OpenRelease`."""

    is_remote = False

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest, self.where = folder, manifest, str(folder)

    def table(self, layer: str) -> Path:
        """A layer's sample table.

        Raises:
            ShardError: the layer has none.
        """
        path = self.folder / layer / TABLE_NAME
        if not path.is_file():
            raise ShardError("the layer has no sample table", expected=path, hint="Run `t4sa check`.")
        return path

    def source(self) -> LocalSource:
        """A new reader of ranges."""
        sizes = {file.name: file.bytes for file in self.manifest.files if file.layer is not None}
        return LocalSource(self.folder / self.manifest.data_root, sizes)


class LocalSource:
    """Byte ranges of local files; see `Source`. Files are opened when first read and stay open until closed.

    Args:
        root: the manifest's `data_root`.
        sizes: bytes of each file as the manifest says; a file of another size is refused.
    """

    def __init__(self, root: Path, sizes: dict[str, int]) -> None:
        self._root, self._sizes = root, sizes
        self._descriptors: dict[str, int] = {}
        self._opening = threading.Lock()
        self._is_closed = False

    def announce(self, ranges: Sequence[Range]) -> None:
        """Tell the operating system what comes (a no-op where it takes no hints)."""
        if hasattr(os, "posix_fadvise"):
            for file, offset, length in ranges:
                try:
                    os.posix_fadvise(self._open(file), offset, length, os.POSIX_FADV_WILLNEED)
                except ShardError:  # `read` says so, when it comes to it
                    pass

    def read(self, wanted: Range) -> bytes:
        """The bytes of a range.

        Raises:
            ShardError: there is no such file, it is not of the manifest's size, or it ends before.
        """
        file, offset, length = wanted
        data = self._pread(self._descriptors.get(file) or self._open(file), length, offset)
        while len(data) < length and (more := self._pread(self._open(file), length - len(data), offset + len(data))):
            data += more  # a single read may be short (2 GiB limit, network file systems)
        if len(data) != length:
            raise ShardError(
                "a range runs past the end of its file",
                expected=f"{length} bytes",
                got=len(data),
                where=f"{self._root / file}, byte {offset}",
                hint="Run `t4sa check`.",
            )
        return data

    def _pread(self, descriptor: int, length: int, offset: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(descriptor, length, offset)
        with self._opening:  # Windows
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, length)

    def _open(self, file: str) -> int:
        if (descriptor := self._descriptors.get(file)) is not None:
            return descriptor
        path = self._root / file
        with self._opening:
            if (descriptor := self._descriptors.get(file)) is not None:
                return descriptor
            if self._is_closed:  # a thread that was stuck, and left behind
                raise ShardError("the reader was closed", where=path)
            try:
                descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
            except OSError as error:
                raise ShardError(
                    "a shard cannot be opened", got=error.strerror, where=path, hint="Run `t4sa check`."
                ) from error
            num_bytes = os.fstat(descriptor).st_size
            if num_bytes != self._sizes.get(file, num_bytes):
                os.close(descriptor)
                raise ShardError(
                    "a shard is not of the size that the manifest says",
                    expected=f"{self._sizes[file]} bytes",
                    got=num_bytes,
                    where=path,
                    hint="It was cut or replaced: run `t4sa check`, then build or fetch the release again.",
                )
            self._descriptors[file] = descriptor
            return descriptor

    def forget(self, wanted: Range) -> None:
        """Nothing: what is read is the file itself."""

    def abort(self) -> None:
        """Nothing: a read of a disk cannot be ended."""

    def close(self) -> None:
        """Close every file."""
        with self._opening:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()
            self._is_closed = True
