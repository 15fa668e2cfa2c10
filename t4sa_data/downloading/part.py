"""A file that is not whole yet: `NAME.part`, and beside it `NAME.part.json`, which says what it is a part of.

The note holds URL, validator and total of the file, and a checkpoint: how many bytes had reached the disk, and their
sha256. What stands behind the checkpoint after a crash is not trusted; what stands before is hashed again. Bytes that
cannot be gone on with stay until the first ones of a fresh start are here (`begin`): a login page in between, or a
mirror that does not answer, must not cost what took a day.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t4sa_data.downloading.replies import Reply
from t4sa_data.files import CHUNK_BYTES, TEMPORARY, explain_os_errors, sync_folder, write_bytes

NOTE_SUFFIX = ".json"
PART_SUFFIX = ".part"
NO_VALIDATOR = "the site sends neither a strong ETag nor, without any, a Last-Modified"
"""Why the bytes that are here cannot be gone on with: a changed file would not be seen."""


def _note_of(target: Path) -> Path:
    return target.with_name(target.name + PART_SUFFIX + NOTE_SUFFIX)


def _remove_note(note: Path) -> None:
    """Remove a note, and what killed writers of it left: nobody else has the part."""
    note.unlink(missing_ok=True)
    for left in note.parent.glob(f".{glob.escape(note.name)}.*{TEMPORARY}"):
        left.unlink(missing_ok=True)


def discard_note(target: Path) -> None:
    """Remove the note of a whole file, which a run that was killed while it gave the final name leaves."""
    if not target.with_name(target.name + PART_SUFFIX).exists():
        _remove_note(_note_of(target))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which file the bytes belong to."""

    url: str
    validator: str | None
    total: int | None


class Part:
    """The bytes of `target` that are here. Not for sharing between threads; use as a context manager.

    Attributes:
        have: bytes that can be gone on with, all of them hashed.
        identity: of the file that they belong to; None where there are none.
    """

    def __init__(self, target: Path, *, checkpoint_bytes: int) -> None:
        self.path = target.with_name(target.name + PART_SUFFIX)
        self._note = _note_of(target)
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
            is_empty = self._file.seek(0, os.SEEK_END) == 0
            self._file.close()
            if is_empty:
                self._discard()

    def take_up(self, url: str) -> str | None:
        """Go on with what an earlier run left; why it cannot be used, or None."""
        if self._file.seek(0, os.SEEK_END) == 0:
            return None
        found = self._read_note()
        if found is None:
            return "nothing says what it is a part of"
        identity, kept, sha256 = found
        if identity.url != url:
            return "it came from another URL"
        if identity.validator is None:
            return NO_VALIDATOR
        self._file.seek(0)
        while self.have < kept and (data := self._file.read(min(CHUNK_BYTES, kept - self.have))):
            self._sha256.update(data)
            self.have += len(data)
        if self.have != kept or self._sha256.hexdigest() != sha256:
            self._reset()
            return "its bytes are not those that came"
        self._file.truncate(kept)
        self._kept, self.identity = kept, identity
        return None

    def _read_note(self) -> tuple[Identity, int, str] | None:
        """Identity and checkpoint as they were noted; None where there is no note, or it makes no sense."""
        try:
            note = json.loads(self._note.read_bytes())
            url, validator, total, kept, sha256 = (note[k] for k in ("url", "validator", "total", "kept", "sha256"))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        makes_sense = (
            isinstance(url, str)
            and (validator is None or (isinstance(validator, str) and validator.isprintable()))
            and (total is None or isinstance(total, int))
            and isinstance(kept, int)
        )
        return (Identity(url=url, validator=validator, total=total), kept, sha256) if makes_sense else None

    def begin(self, url: str, reply: Reply) -> None:
        """Drop all bytes that are here, and note which file the bytes to come belong to."""
        with explain_os_errors(self.path):
            self._note.unlink(missing_ok=True)  # first: bytes without a note are not trusted
            self._file.truncate(0)
        self._reset()
        self.identity = Identity(url=url, validator=reply.validator, total=reply.total)
        self._save()

    def learn_total(self, total: int) -> None:
        """The site says at last how long the file is."""
        assert self.identity is not None
        self.identity = replace(self.identity, total=total)

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
            while view:  # an unbuffered write may take fewer: a disk that gets full keeps what fits
                num = self._file.write(view)
                self._sha256.update(view[:num])
                self.have += num
                view = view[num:]
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

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        _remove_note(self._note)

    def finish(self, target: Path) -> None:
        """Give the whole file its final name."""
        with explain_os_errors(target):
            os.fsync(self._file.fileno())
            self._file.close()
            self._finished = True
            self.path.replace(target)
            sync_folder(target.parent)
        _remove_note(self._note)
