"""What the loader needs of a release, wherever its bytes are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from t4sa_data.manifest import Manifest


class Range(NamedTuple):
    """Bytes of a sample."""

    file: str
    """As the sample table says: relative to the manifest's `data_root`."""
    offset: int
    length: int


class Source(Protocol):
    """Byte ranges of a release's files. Several threads may use one; it is closed once, when none of them does."""

    def announce(self, ranges: Sequence[Range]) -> None:
        """Ranges that will be read soon, once each, in about this order; a source may begin to fetch them. Returns at
        once."""

    def read(self, wanted: Range) -> bytes:
        """The bytes of a range, announced or not; waits for them.

        Raises:
            ShardError: there is no such file, or it ends before.
        """

    def forget(self, wanted: Range) -> None:
        """The bytes of a range were not those of the release: do not give them again, ask anew."""

    def abort(self) -> None:
        """Let every `read` that waits for a network end with an error, now and from now on."""

    def close(self) -> None:
        """Give back files, sockets and threads; nobody reads any more."""


class OpenRelease(Protocol):
    """A release that was found."""

    @property
    def manifest(self) -> Manifest:
        """What it holds."""

    @property
    def where(self) -> str:
        """Its folder or URL, for messages: without anything secret."""

    @property
    def is_remote(self) -> bool:
        """Whether its bytes come over a network: then images are checked by default."""

    def table(self, layer: str) -> Path:
        """A layer's sample table as a local file.

        Raises:
            ShardError: the layer has none.
        """

    def source(self) -> Source:
        """A new reader of ranges."""
