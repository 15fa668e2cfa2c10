"""User names and passwords in netrc: read as other programs read it, written between marks of our own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from t4sa_data.errors import NetrcError
from t4sa_data.files import write_private
from t4sa_data.origins import PORTS, Origin

_BEGIN, _END = "#t4sa-data:", "#t4sa-data:end"
"""Lines around what `t4sa login` puts into netrc; the first one names the origin, which netrc itself cannot.

Without spaces: Python's netrc reads on behind a `# ` that follows a line that ends in quotes.
"""


def netrc_path() -> Path:
    """The netrc file: `$NETRC`, else `~/.netrc`."""
    return Path(os.environ.get("NETRC") or "~/.netrc").expanduser()


def read_netrc(origin: Origin) -> tuple[str, tuple[str, str] | None]:
    """User name and password of an origin, behind words that say where it was looked and what was there.

    Raises:
        NetrcError: the file is readable by others, or does not parse.
    """
    import netrc

    path = netrc_path()
    if not path.is_file():
        return f"no {path}", None
    require_private(path)
    ours = _own_entries(path)
    if str(origin) in ours:
        return f"stored by `t4sa login` in {path}", ours[str(origin)]
    try:
        # `authenticators` falls back to `default`, which is meant for no site in particular: not ours.
        entries = netrc.netrc(path).hosts
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)  # the error's own message may quote the line
        raise NetrcError("the netrc file does not parse", where=f"{path}, line {line}", hint="Mend it.") from None
    for name in (netrc_name(origin), *((origin.host,) if origin.port == PORTS[origin.scheme] else ())):
        user, _, password = entries.get(name, ("", "", ""))
        if user and password and (user, password) not in ours.values():  # ours are of other origins, by their marks
            return f"machine {name} in {path}", (user, password)
    return f"no machine {netrc_name(origin)} in {path}", None


def netrc_name(origin: Origin) -> str:
    """Name of an origin in netrc: the host, and the port where it is not the scheme's own."""
    return origin.host if origin.port == PORTS[origin.scheme] else f"{origin.host}:{origin.port}"


def require_private(path: Path) -> None:
    """Refuse a file of passwords that others may read (POSIX).

    Raises:
        NetrcError: they may.
    """
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NetrcError(
            "other users can read the file with your passwords", where=path, hint=f"chmod 600 {path}, then again."
        )


def _blocks(path: Path) -> Iterator[tuple[str | None, list[str]]]:
    """The lines of a netrc file: those of each of our blocks under its origin, others one by one under None.

    Bytes that are no UTF-8 and the user's line ends pass through unchanged. A block whose end mark is gone is not
    ours any more.
    """
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.startswith(_BEGIN) and line != _END and _END in lines[number:]:
            stop = lines.index(_END, number)
            yield line.removeprefix(_BEGIN), lines[number + 1 : stop]
            number = stop + 1
        else:
            yield None, [line]
            number += 1


def _own_entries(path: Path) -> dict[str, tuple[str, str]]:
    """Origin -> user name and password that `t4sa login` stored."""
    import shlex

    found = {}
    for origin, lines in _blocks(path):
        if origin is not None:
            try:
                words = dict(shlex.split(line) for line in lines)  # double quotes as in netrc
                found[origin] = words["login"], words["password"]
            except (ValueError, KeyError):  # changed by hand: what netrc itself makes of it counts
                continue
    return found


def write_netrc(path: Path, origin: Origin, entry: str) -> bool:
    """Put our entry for an origin into netrc in place of the one there; whether there was one.

    Only lines between our own marks are touched: everything else is the user's.
    """
    path = path.resolve()  # a link to a file that is kept elsewhere stays one
    others: list[str] = []
    there = False
    if path.is_file():
        require_private(path)
        for owner, lines in _blocks(path):
            if owner == str(origin):
                there = True
            else:
                others += lines if owner is None else [_BEGIN + owner, *lines, _END]
    if entry:  # first, since a macro at the end of the file would swallow it
        others = [_BEGIN + str(origin), *entry.removesuffix("\n").split("\n"), _END, *(others or [""])]
    if entry or there:
        write_private(path, "\n".join(others).encode("utf-8", "surrogateescape"))
    return there


def quoted(text: str) -> str:
    r"""A token of netrc: in quotes, with quotes and backslashes escaped.

    >>> print(quoted('a "b" \\ c'))
    "a \"b\" \\ c"
    """
    if "\n" in text or "\r" in text:
        raise NetrcError("a line break in a user name or password", hint="netrc cannot hold it: use the environment.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
