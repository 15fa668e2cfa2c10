"""The sha256 of an archive, computed while others read it."""

from __future__ import annotations

import hashlib
import threading
from functools import partial
from pathlib import Path

from builders.state import State, fingerprint, stamp
from t4sa_data.files import CHUNK_BYTES


class ArchiveHash:
    """The sha256 of a whole archive, computed in a thread that stays behind the readers: their pages are still warm.

    Use as a context manager; `hexdigest` is there after it. A digest once computed is taken from `state`.
    """

    def __init__(self, archive: Path, state: State) -> None:
        self._archive, self._state = archive, state
        self._key = fingerprint(stamp(archive))
        self._allowed = 0
        self._stop = False
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="archive-sha256")
        self.hexdigest: str = (state.load("sha256", self._key) or {}).get("sha256", "")

    def allow(self, end: int) -> None:
        """Let the hash go on up to byte `end`."""
        with self._changed:
            self._allowed = max(self._allowed, end)
            self._changed.notify()

    def _run(self) -> None:
        digest, position = hashlib.sha256(), 0
        try:
            with self._archive.open("rb", buffering=0) as file:
                for data in iter(partial(file.read, CHUNK_BYTES), b""):
                    digest.update(data)
                    position += len(data)
                    with self._changed:
                        self._changed.wait_for(lambda reached=position: self._stop or reached <= self._allowed)  # type: ignore[misc]
                        if self._stop:
                            return
            self.hexdigest = digest.hexdigest()
        except OSError as error:
            self._error = error

    def __enter__(self) -> ArchiveHash:
        if not self.hexdigest:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._changed:
            self._stop, self._allowed = kind is not None, 1 << 62
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        if kind is None:
            if self._error:
                raise self._error
            self._state.save("sha256", self._key, {"sha256": self.hexdigest})
