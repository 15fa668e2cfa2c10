"""The commands `t4sa download`, `t4sa login` and `t4sa logout`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from t4sa_data.errors import CredentialsError, T4SAError, UnknownPackage

EXIT_FAULT, EXIT_USAGE, EXIT_CREDENTIALS = 1, 2, 3


class Store(StrEnum):
    """Where `t4sa login` keeps user name and password."""

    keyring = "keyring"
    netrc = "netrc"


class From(StrEnum):
    """Where a download comes from."""

    site = "site"
    hub = "hub"


@contextmanager
def exit_statuses() -> Iterator[None]:
    """End with one line and status 1 (a fault), 2 (usage) or 3 (credentials)."""
    try:
        yield
    except T4SAError as error:
        typer.echo(f"error: {error}", err=True)
        is_usage = isinstance(error, UnknownPackage)
        status = EXIT_CREDENTIALS if isinstance(error, CredentialsError) else EXIT_USAGE if is_usage else EXIT_FAULT
        raise typer.Exit(status) from None


Base = Annotated[str | None, typer.Option("--base-url", help="Folder of the files on a mirror.")]
Folder = Annotated[Path | None, typer.Option("--to", help="Folder of the files. Default: $T4SA_HOME/raw.")]


def download(
    packages: Annotated[list[str] | None, typer.Argument(metavar="[PACKAGE]...", help="See --list.")] = None,
    to: Folder = None,
    base_url: Base = None,
    user: Annotated[str | None, typer.Option(help="Use only credentials of this user.")] = None,
    allow_insecure_http: Annotated[
        bool, typer.Option("--allow-insecure-http", help="Send user name and password over plain http.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every package.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show packages and what is here; fetch nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show sizes and free disk; fetch nothing.")] = False,
    probe: Annotated[bool, typer.Option("--probe", help="Show how the site answers; fetch nothing.")] = False,
) -> None:
    """Bring the official packages: resumable, verified, with your user name and password.

    Cut or killed at any moment, the same command goes on. User name and password are looked for when the site asks:
    T4SA_USER and T4SA_PASSWORD, netrc, keyring, a prompt; `t4sa login` stores them. Exit status: 0 done, 1 fault,
    2 usage, 3 credentials missing or refused.
    """
    from t4sa_data import catalog
    from t4sa_data.downloading import download as bring
    from t4sa_data.downloading import listing

    with exit_statuses():
        names = list(catalog.PACKAGES) if everything else packages or None
        if show_list:
            typer.echo(listing.describe(to))
            return
        if probe:
            typer.echo(listing.probe(names, base_url=base_url))
            return
        typer.echo(listing.plan_words(names, to), err=True)
        if dry_run:
            return
        with bars() as progress:
            done = bring(
                names,
                to,
                base_url=base_url,
                user=user,
                allow_insecure_http=allow_insecure_http,
                progress=progress,
                say=lambda line: typer.echo(line, err=True),
            )
        for one in done:
            typer.echo(f"{one.sha256}  {one.path}")


@contextmanager
def bars() -> Iterator[Callable[[str, int, int | None], object]]:
    """A bar for each file; none where standard error is no terminal."""
    from tqdm import tqdm

    shown: dict[str, Any] = {}
    lock, quiet = threading.Lock(), not sys.stderr.isatty()

    def update(name: str, have: int, total: int | None) -> None:
        with lock:
            bar = shown.get(name)
            if bar is None:
                bar = tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, disable=quiet)
                shown[name] = bar
            bar.total = total
            bar.update(have - bar.n)

    try:
        yield update
    finally:
        for bar in shown.values():
            bar.close()


def login(
    base_url: Base = None,
    user: Annotated[str | None, typer.Option(help="User name; asked for where it is not given.")] = None,
    store: Annotated[Store | None, typer.Option(help="Default: keyring where there is one, else netrc.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Show which source would be used; store nothing.")] = False,
) -> None:
    """Store the site's user name and password in the keyring or in netrc (mode 0600). The password is asked for."""
    from t4sa_data import credentials

    with exit_statuses():
        if check:
            origin = credentials.origin_of(base_url or credentials.default_base_url())
            for looked in credentials.look(origin, user=user):
                words = f"user {looked.found.user}, this is used" if looked.found else "nothing"
                typer.echo(f"{looked.source:<18}{words:<32}{looked.what}")
                if looked.found:
                    return
            raise typer.Exit(EXIT_CREDENTIALS)
        where = credentials.login(user, base_url=base_url, store=store.value if store else None)
        typer.echo(f"stored in {where}")


def logout(base_url: Base = None) -> None:
    """Remove what `t4sa login` stored."""
    from t4sa_data import credentials

    with exit_statuses():
        removed = credentials.logout(base_url=base_url)
        typer.echo("\n".join(f"removed from {place}" for place in removed) or "nothing was stored")
