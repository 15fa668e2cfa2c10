"""User name and password of the official site: where they come from, and where they may go.

They are looked for in this order: explicit argument, environment (`T4SA_USER`, `T4SA_PASSWORD`), netrc (`$NETRC` or
`~/.netrc`), keyring (and the secrets of Colab and Kaggle), a prompt on a terminal or in a notebook. They belong to one
origin (scheme, host, port) and are sent nowhere else; over plain http only to this machine, or where the user allows
it. No message, `repr` or file of this package holds a password.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from t4sa_data import catalog
from t4sa_data.errors import (
    CredentialsInURL,
    CredentialsMissing,
    InsecureTransport,
    NetrcError,
)
from t4sa_data.files import write_private

USER_VARIABLE = "T4SA_USER"
PASSWORD_VARIABLE = "T4SA_PASSWORD"
BASE_URL_VARIABLE = "T4SA_BASE_URL"
SERVICE = "t4sa-data"
"""Name under which the keyring keeps what `t4sa login` stores; its user is the origin."""
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what credentials are pinned to."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port == _PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}{port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this very machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def origin_of(url: str) -> Origin:
    """The origin of a URL.

    >>> str(origin_of("HTTP://WWW.Example.org:80/dataset/")), str(origin_of("https://example.org:8443/x"))
    ('http://www.example.org', 'https://example.org:8443')

    Raises:
        CredentialsInURL: it holds a user name or a password (which is in no message).
        InsecureTransport: neither http nor https, or no URL at all.
    """
    try:
        parts = urlsplit(url)
        scheme, host, port, is_plain = parts.scheme, parts.hostname, parts.port, "@" not in parts.netloc
    except ValueError:  # its words quote a piece of the URL, which may be one of a password
        scheme, host, port, is_plain = "", None, None, True
    if scheme not in _PORTS or not host or not is_plain:
        if "@" in url:
            raise CredentialsInURL(
                "a URL with a user name or password in it",
                hint="URLs end up in logs and shell histories. Set T4SA_USER and T4SA_PASSWORD, or run `t4sa login`, "
                "and give the URL without them.",
            )
        raise InsecureTransport("not an http or https URL", got=url)
    return Origin(scheme, host, port or _PORTS[scheme])


@dataclass(frozen=True)
class Credentials:
    """User name and password; neither `repr` nor `str` shows the password."""

    user: str
    password: str = field(repr=False)
    source: str = "argument"
    """Where they come from, in words."""

    def __str__(self) -> str:
        return f"{self.user} (from {self.source})"

    def header(self) -> str:
        """The value of `Authorization` for HTTP Basic (RFC 7617, UTF-8)."""
        both = f"{self.user}:{self.password}".encode("utf-8", "surrogateescape")  # as the environment gives odd bytes
        return "Basic " + base64.b64encode(both).decode()


def require_safe(origin: Origin, *, allow_insecure_http: bool) -> None:
    """Refuse to send a password over plain http, except to this machine.

    Raises:
        InsecureTransport: plain http to another machine, not allowed by the user.
    """
    if origin.scheme == "https" or origin.is_loopback or allow_insecure_http:
        return
    raise InsecureTransport(
        "the site asks for a password over plain http",
        where=origin,
        hint="Anybody on the way can read it, and change the files. Recorded checksums protect the files, not the "
        "password. If you accept that (the official site offers nothing else), add --allow-insecure-http; never use a "
        "password there that you use elsewhere.",
    )


@dataclass(frozen=True)
class Looked:
    """One source that was asked."""

    source: str
    """`argument`, `environment`, `netrc`, `keyring`, `notebook secrets`."""
    what: str
    """Where exactly, and what was there; never the password."""
    found: Credentials | None = field(default=None, repr=False)


def look(origin: Origin, explicit: tuple[str, str] | None = None, user: str | None = None) -> Iterator[Looked]:
    """Ask every source but the prompt, in order; each is asked only when it is reached.

    Args:
        origin: whose credentials.
        explicit: user name and password given by the caller.
        user: only credentials of this user.

    Raises:
        NetrcError: the netrc file is readable by others, or does not parse.
    """
    if explicit is not None:
        yield Looked("argument", "given", Credentials(*explicit, source="argument"))
    for source, ask in _SOURCES.items():
        what, found = ask(origin)
        if found is not None and user is not None and found[0] != user:
            what, found = f"{what}, of another user", None
        yield Looked(source, what, Credentials(*found, source=f"{source} ({what})") if found else None)


def find(
    origin: Origin,
    explicit: tuple[str, str] | None = None,
    *,
    user: str | None = None,
    interactive: bool | None = None,
) -> Credentials:
    """The credentials for an origin, from the first source that has them.

    Args:
        origin: whose credentials.
        explicit: user name and password given by the caller.
        user: only credentials of this user.
        interactive: whether to prompt in the end; None: where there is a terminal or a notebook.

    Raises:
        CredentialsMissing: no source has them; the message says where it was looked, and how to get some.
        NetrcError: see `look`.
    """
    asked = []
    for looked in look(origin, explicit, user):
        if looked.found is not None:
            return looked.found
        asked.append(f"{looked.source}: {looked.what}")
    if can_prompt() if interactive is None else interactive:
        return prompt(origin, user)
    raise CredentialsMissing(
        "the site asks for a user name and a password, and there are none",
        got="; ".join(asked),
        where=origin,
        hint=HOW_TO_GET,
    )


HOW_TO_GET = (
    f"They come by mail after the form that {catalog.HOMEPAGE} links to. Then run `t4sa login`, or set "
    f"{USER_VARIABLE} and {PASSWORD_VARIABLE}."
)


def _from_environment(_origin: Origin) -> tuple[str, tuple[str, str] | None]:
    user, password = os.environ.get(USER_VARIABLE), os.environ.get(PASSWORD_VARIABLE)
    if user and password:
        return f"{USER_VARIABLE} and {PASSWORD_VARIABLE}", (user, password)
    missing = [name for name in (USER_VARIABLE, PASSWORD_VARIABLE) if not os.environ.get(name)]
    return f"{' and '.join(missing)} not set", None


def netrc_path() -> Path:
    """The netrc file: `$NETRC`, else `~/.netrc`."""
    return Path(os.environ.get("NETRC") or "~/.netrc").expanduser()


def _from_netrc(origin: Origin) -> tuple[str, tuple[str, str] | None]:
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
    for name in (netrc_name(origin), *((origin.host,) if origin.port == _PORTS[origin.scheme] else ())):
        user, _, password = entries.get(name, ("", "", ""))
        if user and password and (user, password) not in ours.values():  # ours are of other origins, by their marks
            return f"machine {name} in {path}", (user, password)
    return f"no machine {netrc_name(origin)} in {path}", None


def netrc_name(origin: Origin) -> str:
    """Name of an origin in netrc: the host, and the port where it is not the scheme's own."""
    return origin.host if origin.port == _PORTS[origin.scheme] else f"{origin.host}:{origin.port}"


def require_private(path: Path) -> None:
    """Refuse a file of passwords that others may read (POSIX).

    Raises:
        NetrcError: they may.
    """
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NetrcError(
            "other users can read the file with your passwords", where=path, hint=f"chmod 600 {path}, then again."
        )


def keyring_module() -> Any:
    """The optional package keyring with a usable backend, or None."""
    try:
        import keyring

        return keyring if keyring.get_keyring().priority > 0 else None  # `fail` has 0, `null` forgets all and has -1
    except Exception:  # not installed, or its settings name a backend that is not there
        return None


def _from_keyring(origin: Origin) -> tuple[str, tuple[str, str] | None]:
    keyring = keyring_module()
    if keyring is None:
        return 'no keyring here (pip install "t4sa-data[keyring]")', None
    try:
        kept = keyring.get_password(SERVICE, str(origin))
        user, password = json.loads(kept) if kept else (None, None)
    except Exception as error:  # backends raise what they please; a locked one is no reason to stop
        return f"keyring does not answer ({type(error).__name__})", None
    if user is None:
        return f"nothing for {origin}", None
    return f"{SERVICE}, {origin}", (str(user), str(password))


def _from_notebook(_origin: Origin) -> tuple[str, tuple[str, str] | None]:
    for name, get in (("Colab", _colab_secret), ("Kaggle", _kaggle_secret)):
        user, password = get(USER_VARIABLE), get(PASSWORD_VARIABLE)
        if user and password:
            return f"{name}: {USER_VARIABLE} and {PASSWORD_VARIABLE}", (user, password)
    return "neither Colab nor Kaggle with these secrets", None


def _colab_secret(name: str) -> str | None:
    if "google.colab" not in sys.modules:  # loaded by every Colab kernel
        return None
    try:
        from google.colab import userdata

        return str(userdata.get(name))
    except Exception:  # not granted, or no such secret
        return None


def _kaggle_secret(name: str) -> str | None:
    if "KAGGLE_KERNEL_RUN_TYPE" not in os.environ:
        return None
    try:
        from kaggle_secrets import UserSecretsClient

        return str(UserSecretsClient().get_secret(name))
    except Exception:  # not granted, or no such secret
        return None


_SOURCES: dict[str, Callable[[Origin], tuple[str, tuple[str, str] | None]]] = {
    "environment": _from_environment,
    "netrc": _from_netrc,
    "keyring": _from_keyring,
    "notebook secrets": _from_notebook,
}


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose `input` and `getpass` ask in the browser."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"


def can_prompt() -> bool:
    """Whether somebody can be asked: a terminal on both sides, or a notebook; never a pipe."""
    return in_notebook() or (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty())


def prompt(origin: Origin, user: str | None = None) -> Credentials:
    """Ask for user name and password; the password is not shown.

    Raises:
        CredentialsMissing: nothing was typed.
    """
    from getpass import getpass

    # All on standard error: standard output may go into a file.
    print(f"{origin} asks for the user name and password that came by mail.", file=sys.stderr)
    password = ""
    try:
        if not user:
            print("User: ", end="", file=sys.stderr, flush=True)
            user = input().strip()
        password = getpass("Password (not shown): ")
    except EOFError:
        print(file=sys.stderr)
    if not user or not password:
        raise CredentialsMissing("nothing was typed", where=origin, hint=HOW_TO_GET)
    return Credentials(user, password, source="prompt")


def login(
    user: str | None = None,
    password: str | None = None,
    *,
    base_url: str | None = None,
    store: str | None = None,
) -> str:
    """Store the site's user name and password; asks for what is not given.

    Args:
        user: user name; None asks.
        password: None asks (better than writing it into a script or a notebook).
        base_url: the site; None for `$T4SA_BASE_URL` or the official one.
        store: `keyring` or `netrc`; None: keyring where there is one, else netrc.

    Returns:
        Where it was stored, in words.

    Raises:
        CredentialsMissing: there is nobody to ask, or no keyring.
        NetrcError: the netrc file is readable by others, or cannot hold them.
    """
    origin = origin_of(base_url or default_base_url())
    if user is None or password is None:
        if not can_prompt():
            raise CredentialsMissing(
                "there is no terminal to ask on", where=origin, hint=f"Set {USER_VARIABLE} and {PASSWORD_VARIABLE}."
            )
        asked = prompt(origin, user)
        user, password = asked.user, asked.password
    keyring = keyring_module() if store in (None, "keyring") else None
    if store == "keyring" and keyring is None:
        raise CredentialsMissing("no keyring here", hint='pip install "t4sa-data[keyring]", or --store netrc.')
    path = netrc_path()
    if keyring is not None:
        kept = json.dumps([user, password])
        try:
            keyring.set_password(SERVICE, str(origin), kept)
            is_kept = keyring.get_password(SERVICE, str(origin)) == kept
        except Exception as error:
            raise _keyring_fails(error) from None
        if not is_kept:
            raise _keyring_fails(None)
        if path.is_file():
            _write_netrc(path, origin, "")  # an older login there would come first
        return f"keyring ({SERVICE}, {origin})"
    _write_netrc(path, origin, f"machine {netrc_name(origin)}\nlogin {_quoted(user)}\npassword {_quoted(password)}\n")
    return f"netrc ({path}, machine {netrc_name(origin)})"


def _keyring_fails(error: Exception | None) -> CredentialsMissing:
    return CredentialsMissing(
        "the keyring does not do it",
        got=type(error).__name__ if error else "not what was stored",  # words of a backend may hold anything
        hint="Unlock it, or use netrc: `t4sa login --store netrc`.",
    )


def logout(*, base_url: str | None = None) -> list[str]:
    """Remove what `login` stored; the places it was removed from, in words.

    Args:
        base_url: the site; None for `$T4SA_BASE_URL` or the official one.

    Raises:
        CredentialsMissing: the keyring does not answer.
        NetrcError: the netrc file is readable by others.
    """
    origin, removed = origin_of(base_url or default_base_url()), []
    keyring = keyring_module()
    if keyring is not None:
        try:
            if keyring.get_password(SERVICE, str(origin)) is not None:
                keyring.delete_password(SERVICE, str(origin))
                removed.append(f"keyring ({SERVICE}, {origin})")
        except Exception as error:
            raise _keyring_fails(error) from None
    path = netrc_path()
    if path.is_file() and _write_netrc(path, origin, ""):
        removed.append(f"netrc ({path}, machine {netrc_name(origin)})")
    return removed


def default_base_url() -> str:
    """The site: `$T4SA_BASE_URL`, else the official one."""
    return os.environ.get(BASE_URL_VARIABLE) or catalog.DATASET_URL


_BEGIN, _END = "#t4sa-data:", "#t4sa-data:end"
"""Lines around what `t4sa login` puts into netrc; the first one names the origin, which netrc itself cannot.

Without spaces: Python's netrc reads on behind a `# ` that follows a line that ends in quotes.
"""


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


def _write_netrc(path: Path, origin: Origin, entry: str) -> bool:
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


def _quoted(text: str) -> str:
    r"""A token of netrc: in quotes, with quotes and backslashes escaped.

    >>> print(_quoted('a "b" \\ c'))
    "a \"b\" \\ c"
    """
    if "\n" in text or "\r" in text:
        raise NetrcError("a line break in a user name or password", hint="netrc cannot hold it: use the environment.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
