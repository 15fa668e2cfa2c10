"""User name and password of the official site: where they come from, and where they may go.

They are looked for in this order: explicit argument, environment (`T4SA_USER`, `T4SA_PASSWORD`), netrc (`$NETRC` or
`~/.netrc`), keyring (and the secrets of Colab and Kaggle), a prompt on a terminal or in a notebook. They belong to one
origin (scheme, host, port) and are sent nowhere else; over plain http only to this machine, or where the user allows
it. No message, `repr` or file of this package holds a password.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from t4sa_data import catalog
from t4sa_data.errors import CredentialsMissing, InsecureTransport
from t4sa_data.netrc_file import netrc_name, netrc_path, quoted, read_netrc, write_netrc
from t4sa_data.origins import Origin, origin_of

USER_VARIABLE = "T4SA_USER"
PASSWORD_VARIABLE = "T4SA_PASSWORD"
BASE_URL_VARIABLE = "T4SA_BASE_URL"
SERVICE = "t4sa-data"
"""Name under which the keyring keeps what `t4sa login` stores; its user is the origin."""


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
    "netrc": read_netrc,
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
            write_netrc(path, origin, "")  # an older login there would come first
        return f"keyring ({SERVICE}, {origin})"
    write_netrc(path, origin, f"machine {netrc_name(origin)}\nlogin {quoted(user)}\npassword {quoted(password)}\n")
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
    if path.is_file() and write_netrc(path, origin, ""):
        removed.append(f"netrc ({path}, machine {netrc_name(origin)})")
    return removed


def default_base_url() -> str:
    """The site: `$T4SA_BASE_URL`, else the official one."""
    return os.environ.get(BASE_URL_VARIABLE) or catalog.DATASET_URL
