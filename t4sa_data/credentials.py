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
        InsecureTransport: neither http nor https.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise CredentialsInURL(
            "a URL with a user name or password in it",
            where=f"{parts.scheme}://...@{parts.hostname}",
            hint="URLs end up in logs and shell histories. Set T4SA_USER and T4SA_PASSWORD, or run `t4sa login`.",
        )
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InsecureTransport("not an http or https URL", got=url)
    return Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])


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
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


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
    f"They come by mail after the form at {catalog.FORM_URL.value}. Then run `t4sa login`, or set {USER_VARIABLE} and "
    f"{PASSWORD_VARIABLE}."
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
    try:
        # `authenticators` falls back to `default`, which is meant for no site in particular: not ours.
        entries = netrc.netrc(path).hosts
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)  # the error's own message may quote the line
        raise NetrcError("the netrc file does not parse", where=f"{path}, line {line}", hint="Mend it.") from None
    for name in (netrc_name(origin), *((origin.host,) if origin.port == _PORTS[origin.scheme] else ())):
        if name in entries:
            user, _, password = entries[name]
            return f"machine {name} in {path}", (user, password or "")
    return f"no machine {origin.host} in {path}", None


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
        from keyring.backends.fail import Keyring as Fail
    except ImportError:
        return None
    return None if isinstance(keyring.get_keyring(), Fail) else keyring


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

    print(f"{origin} asks for the user name and password that came by mail.", file=sys.stderr)
    user = user or input("User: ").strip()
    password = getpass("Password (not shown): ")
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
        CredentialsMissing: there is nobody to ask.
        NetrcError: the netrc file is readable by others.
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
    if keyring is not None:
        keyring.set_password(SERVICE, str(origin), json.dumps([user, password]))
        return f"keyring ({SERVICE}, {origin})"
    path = netrc_path()
    _write_netrc(path, origin, f"machine {netrc_name(origin)}\nlogin {_quoted(user)}\npassword {_quoted(password)}\n")
    return f"{path} (machine {netrc_name(origin)})"


def logout(*, base_url: str | None = None) -> list[str]:
    """Remove what `login` stored; the places it was removed from, in words.

    Args:
        base_url: the site; None for `$T4SA_BASE_URL` or the official one.

    Raises:
        NetrcError: the netrc file is readable by others.
    """
    origin, removed = origin_of(base_url or default_base_url()), []
    keyring = keyring_module()
    if keyring is not None and keyring.get_password(SERVICE, str(origin)) is not None:
        keyring.delete_password(SERVICE, str(origin))
        removed.append(f"keyring ({SERVICE}, {origin})")
    path = netrc_path()
    if path.is_file() and _write_netrc(path, origin, ""):
        removed.append(f"{path} (machine {netrc_name(origin)})")
    return removed


def default_base_url() -> str:
    """The site: `$T4SA_BASE_URL`, else the official one."""
    return os.environ.get(BASE_URL_VARIABLE) or catalog.DATASET_URL


_BEGIN, _END = "# t4sa-data: {}", "# t4sa-data: end"


def _write_netrc(path: Path, origin: Origin, entry: str) -> bool:
    """Put our entry for an origin into netrc in place of the one there; whether there was one.

    Only lines between our own marks are touched: everything else is the user's.
    """
    lines: list[str] = []
    there = inside = False
    if path.is_file():
        require_private(path)
        for line in path.read_text().splitlines():
            if line == _BEGIN.format(origin):
                there = inside = True
            elif inside and line == _END:
                inside = False
            elif not inside:
                lines.append(line)
    if entry:
        lines = [_BEGIN.format(origin), *entry.splitlines(), _END, *lines]  # first: the first of a machine counts
    if entry or there:
        write_private(path, "".join(f"{line}\n" for line in lines).encode())
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
