"""A whole remote file to this machine: resumed, and checked before it has its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from t4sa_data.downloading.part import PART_SUFFIX, Part
from t4sa_data.downloading.replies import Reply
from t4sa_data.errors import ChecksumMismatch, ServerFault, ShardError
from t4sa_data.reading.kept import KeptRanges
from t4sa_data.reading.pumping import PIECE_BYTES, Pump, Restarted
from t4sa_data.reading.transport import RemoteFile


@dataclass
class Progress:
    """How far a file has come. Bytes `start` to `have` of `path` came in this run and can be read there."""

    path: Path
    start: int = 0
    have: int = 0
    attempt: int = 0
    """Changes when bytes were given up: what was read meanwhile may be of both."""

    def begin(self, at: int) -> None:
        """Bytes come from here on."""
        self.have = 0
        self.attempt += 1
        self.start = self.have = at


def part_of(target: Path) -> Path:
    """Where a file is until it is whole."""
    return target.with_name(target.name + PART_SUFFIX)


class Bringing:
    """One file on its way to `target`. The caller holds its lock.

    Args:
        pump: brings bytes.
        file: which, as the manifest has it.
        target: its final name.
        kept: ranges of it that came before, and are not asked for again; None: none.
        name: what it is called there.
    """

    def __init__(
        self, pump: Pump, file: RemoteFile, target: Path, *, kept: KeptRanges | None = None, name: str = ""
    ) -> None:
        self._pump, self._file, self._target = pump, file, target
        self._kept, self._name = kept or KeptRanges(None), name
        self.progress = Progress(part_of(target))

    def run(self, on_progress: Callable[[], object] = lambda: None) -> None:
        """Go on with what an earlier run left, until the file is whole and has its name.

        Args:
            on_progress: called without arguments after each piece.

        Raises:
            ChecksumMismatch: the bytes are not the manifest's, twice; they were removed.
            ServerFault, ShardError, Stopped, DiskSpaceError, OutputError, T4SAError: what came is kept.
        """
        call = on_progress
        file, url = self._file, self._pump.transport.url(self._file.path)
        with Part(self._target, checkpoint_bytes=self._pump.transport.limits.checkpoint_bytes) as part:
            part.take_up(url)
            self._receive(part, url, call)
            if part.hexdigest() != file.sha256:
                self._kept.drop(self._name)
                self._receive(part, url, call, afresh=True)  # a byte was damaged on the way, or an old part was another
            if (digest := part.hexdigest()) != file.sha256:
                part.begin(url, Reply(status=200, length=None, total=file.num_bytes))
                raise ChecksumMismatch(
                    "a file of the release is not what its manifest says",
                    expected=file.sha256,
                    got=digest,
                    where=url,
                    hint="It was fetched twice, and removed. Tell those who serve it.",
                )
            part.finish(self._target)

    def _receive(self, part: Part, url: str, call: Callable[[], object], *, afresh: bool = False) -> None:
        """Bring what is missing; begin anew where what is here cannot be gone on with."""
        file, tries = self._file, self._pump.transport.limits.attempts
        is_fresh = afresh or part.identity is None or part.identity.total != file.num_bytes
        for _ in range(tries):
            at = 0 if is_fresh else part.have
            try:
                self._append(part, url, at, call)
                return
            except Restarted:
                pass
            except (ShardError, ServerFault):
                if at == 0 or part.have != at:
                    raise
            is_fresh = True
        raise ServerFault("cut again and again, and the server names no version of the file", where=url)

    def _append(self, part: Part, url: str, at: int, call: Callable[[], object]) -> None:
        file, pump = self._file, self._pump
        validator = part.identity.validator if at and part.identity else None
        self.progress.begin(at)
        for data in self._pieces(at, validator):
            if self.progress.have == 0:
                version = pump.validator(file) or self._kept.validator(self._name)
                part.begin(url, Reply(status=200, length=None, total=file.num_bytes, validator=version))
            part.write(data)
            self.progress.have += len(data)
            call()

    def _pieces(self, at: int, validator: str | None) -> Iterator[bytes]:
        """The bytes of the file from `at` on: those that were kept from the disk, the others from the server, which
        must call them of the same version."""
        file, kept = self._file, self._kept
        while at < file.num_bytes:
            is_kept, stop = kept.run(self._name, at, file.num_bytes)
            version = validator or kept.validator(self._name)
            if is_kept and validator in (None, kept.validator(self._name)):
                data = kept.read(self._name, at, min(stop, at + PIECE_BYTES))
                if data:
                    at += len(data)
                    yield data
                    continue
            for data in self._pump.pieces(file, at, stop, validator=version):
                at += len(data)
                yield data
