"""What a takedown must remember between runs, since the rows are gone after its first step: a note beside the release,
without a key or a tweet in it, and the key file that the HMACs in `releases.json` are made with.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from t4sa_data.errors import BadOption, TakedownRefused
from t4sa_data.files import explain_os_errors, write_private

KEY_VARIABLE = "T4SA_REMOVALS_KEY"
KEY_BYTES = 32
"""As long as the hash: a longer key adds nothing (RFC 2104, section 3)."""


def key_path() -> Path:
    """The key file: `$T4SA_REMOVALS_KEY`, else in the platform's data folder of this user."""
    if value := os.environ.get(KEY_VARIABLE):
        return Path(value).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("t4sa", appauthor=False)) / "removals.key"


def load_key(path: Path | None = None, *, make: bool = True) -> bytes:
    """The maintainers' key; made on first use, mode 0600.

    Args:
        path: None: `key_path()`.
        make: False: where there is none, one that is kept nowhere.

    Raises:
        BadOption: others may read it, or it is no key.
    """
    path = path or key_path()
    if not path.exists():
        if not make:
            return secrets.token_bytes(KEY_BYTES)
        write_private(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")
    with explain_os_errors(path):
        text, mode = path.read_text(encoding="ascii", errors="replace").strip(), path.stat().st_mode
    if os.name == "posix" and mode & 0o077:
        raise BadOption("the key of the removals can be read by others", got=f"{mode & 0o777:o}", where=path,
                        hint="chmod 600, if you are sure that nobody read it.")  # fmt: skip
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise BadOption("no key of the removals", expected=f"{2 * KEY_BYTES} hex digits", where=path)
    return key


def hmacs(key: bytes, words: Iterable[str]) -> tuple[str, ...]:
    """HMAC-SHA256 of each, sorted.

    >>> hmacs(b"k", ["1-1"]) == hmacs(b"k", ["1-1", "1-1"])
    True
    """
    return tuple(sorted({hmac.new(key, word.encode(), hashlib.sha256).hexdigest() for word in words}))


@dataclass(frozen=True, kw_only=True)
class Note:
    """What was asked for, and what stood on the Hub before."""

    asked: str
    """HMAC of the list of ids."""
    reason: str
    date: str
    """YYYY-MM-DD, of the first run."""
    hmac: tuple[str, ...]
    """Of what goes."""
    lines: tuple[str, ...]
    """The difference, for people."""
    old: Mapping[str, Mapping[str, str]]
    """Repository -> tag or branch -> commit, before."""
    paths: Mapping[str, tuple[str, ...]]
    """Repository -> files that held what goes."""

    def save(self, path: Path) -> None:
        """Write it, mode 0600."""
        write_private(path, (json.dumps(asdict(self), indent=1) + "\n").encode())


def note_path(directory: Path, tag: str) -> Path:
    """Where the note of a takedown lies."""
    return directory / f"takedown-{tag}.json"


def load_note(path: Path) -> Note | None:
    """The note of an earlier run; None: there was none.

    Raises:
        TakedownRefused: it cannot be read.
    """
    try:
        value = json.loads(path.read_bytes())
        paths = {repo_id: tuple(names) for repo_id, names in value["paths"].items()}
        parts = {name: tuple(value[name]) for name in ("hmac", "lines")}
        return Note(**{**value, **parts, "paths": paths})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TakedownRefused("the note of an earlier run cannot be read", got=repr(error), where=path) from error
