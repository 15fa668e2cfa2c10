"""A file that is not whole yet: `NAME.part`, and beside it `NAME.part.json`, which says what it is a part of.

The note holds URL, validator and total of the file, and a checkpoint: how many bytes had reached the disk, and their
sha256. What stands behind the checkpoint after a crash is not trusted; what stands before is hashed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t4sa_data.downloading.replies import Reply
from t4sa_data.files import CHUNK_BYTES, explain_os_errors, sync_folder, write_bytes

NOTE_SUFFIX = ".json"
PART_SUFFIX = ".part"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which file the bytes belong to."""

    url: str
    validator: str | None
    total: int | None


class Part:
    """The bytes of `target` that are here. Not for sharing between threads; use as a context manager.

    Attributes:
        have: bytes, all of them hashed.
        identity: of the file that they belong to; None before the first answer.
    """

    def __init__(self, target: Path, *, checkpoint_bytes: int) -> None:
        self.path = target.with_name(target.name + PART_SUFFIX)
        self._note = self.path.with_name(self.path.name + NOTE_SUFFIX)
        self._checkpoint_bytes = checkpoint_bytes
        self._file: Any = None
        self._finished = False
        self.identity: Identity | None = None
        self._reset()

    def _reset(self) -> None:
        self.have = self._kept = 0
        self._sha256 = hashlib.sha256()

    def __enter__(self) -> Part:
        with explain_os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if self.path.exists() else "w+b", buffering=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._finished:
            return
        try:
            if kind is None or not issubclass(kind, OSError):
                self.checkpoint()
        finally:
            self._file.close()
            if self.have == 0:
                self.discard()

    def take_up(self, url: str) -> str | None:
        """Go on with what an earlier run left; why it cannot be used, or None."""
        size = self._file.seek(0, os.SEEK_END)
        if size == 0:
            return None
        try:
            note = json.loads(self._note.read_bytes())
            identity = Identity(url=note["url"], validator=note["validator"], total=note["total"])
            kept, sha256 = int(note["kept"]), str(note["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._refuse("nothing says what it is a part of")
        if identity.url != url:
            return self._refuse("it came from another URL")
        if identity.validator is None:
            return self._refuse("the site gave no strong validator for it")
        self._file.seek(0)
        while self.have < kept and (data := self._file.read(min(CHUNK_BYTES, kept - self.have))):
            self._sha256.update(data)
            self.have += len(data)
        if self.have != kept or self._sha256.hexdigest() != sha256:
            return self._refuse("its bytes are not those that came")
        self._file.truncate(kept)
        self._kept, self.identity = kept, identity
        return None

    def _refuse(self, why: str) -> str:
        self.restart()
        return why

    def restart(self) -> None:
        """Forget all bytes."""
        self._note.unlink(missing_ok=True)
        self._file.truncate(0)
        self._file.seek(0)
        self.identity = None
        self._reset()

    def begin(self, url: str, reply: Reply) -> None:
        """Note which file the bytes to come belong to."""
        self.identity = Identity(url=url, validator=reply.validator, total=reply.total)
        self._save()

    def tail(self, num: int) -> bytes:
        """The last `num` bytes."""
        self._file.seek(self.have - num)
        data: bytes = self._file.read(num)
        return data

    def write(self, data: bytes) -> None:
        """Append bytes.

        Raises:
            DiskSpaceError, OutputError: the disk does not take them.
        """
        with explain_os_errors(self.path):
            self._file.seek(self.have)
            view = memoryview(data)
            while view:  # an unbuffered write may take fewer
                view = view[self._file.write(view) :]
        self._sha256.update(data)
        self.have += len(data)
        if self.have - self._kept >= self._checkpoint_bytes:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Bring all bytes to the disk, and note that they are there."""
        if self.identity is None or self.have == self._kept:
            return
        with explain_os_errors(self.path):
            os.fsync(self._file.fileno())
        self._kept = self.have
        self._save()

    def _save(self) -> None:
        assert self.identity is not None
        note = {
            "url": self.identity.url,
            "validator": self.identity.validator,
            "total": self.identity.total,
            "kept": self._kept,
            "sha256": self._sha256.hexdigest(),
        }
        write_bytes(self._note, json.dumps(note).encode())

    def hexdigest(self) -> str:
        """The sha256 of all bytes."""
        return self._sha256.hexdigest()

    def discard(self) -> None:
        """Remove both files."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Give the whole file its final name."""
        with explain_os_errors(target):
            os.fsync(self._file.fileno())
            self._file.close()
            self._finished = True
            self.path.replace(target)
            sync_folder(target.parent)
        self._note.unlink(missing_ok=True)
