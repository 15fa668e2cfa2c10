"""`checksums.json`: what each file was when it came first. The site publishes no checksums, so this is all there is.

Recorded, not published: it shows that a file is the one that came first, not that this was the right one.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t4sa_data.errors import DownloadError, RecordedDiffers
from t4sa_data.files import write_json

REGISTRY_NAME = "checksums.json"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file as it was first seen whole."""

    num_bytes: int
    sha256: str
    url: str
    etag: str | None = None
    last_modified: str | None = None
    modified_ns: int | None = None
    """Time of change of the file here: as long as size and this stand, it is not hashed again."""


class Registry:
    """The entries of one folder, in its `checksums.json`."""

    def __init__(self, folder: Path) -> None:
        self.path = Path(folder) / REGISTRY_NAME
        self._lock = threading.Lock()

    def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(self.path.read_bytes())
            return {name: asdict(Entry(**entry)) for name, entry in value["files"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DownloadError(
                "the record of checksums cannot be read",
                got=type(error).__name__,
                where=self.path,
                hint="Move it away: files are then recorded anew.",
            ) from error

    def get(self, filename: str) -> Entry | None:
        """What is recorded of a file.

        Raises:
            DownloadError: the record cannot be read.
        """
        with self._lock:
            entry = self._read().get(filename)
        return Entry(**entry) if entry else None

    def record(self, filename: str, entry: Entry) -> None:
        """Keep what a file is."""
        with self._lock:  # threads; other processes are held off by the folder's lock
            write_json(self.path, {"files": dict(sorted({**self._read(), filename: asdict(entry)}.items()))})


def require_same(recorded: Entry, filename: str, num_bytes: int, sha256: str, where: Path) -> None:
    """Hold a file against what was recorded of it.

    Raises:
        RecordedDiffers: size or sha256 are others; both are named.
    """
    if (recorded.num_bytes, recorded.sha256) != (num_bytes, sha256):
        raise RecordedDiffers(
            "not the file that was recorded when it came first",
            expected=f"{recorded.num_bytes} bytes, sha256 {recorded.sha256}",
            got=f"{num_bytes} bytes, sha256 {sha256}",
            where=where,
            hint=f"Either the site replaced it or it was damaged on the way. To take the new one, remove {filename} "
            f"from {REGISTRY_NAME} and run the command again; nothing is fetched twice. To fetch the file once more, "
            f"remove {where.name}.",
        )
