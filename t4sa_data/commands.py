"""The commands `t4sa download`, `t4sa login`, `t4sa logout` and `t4sa removals`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from t4sa_data.errors import (
    BadOption,
    CredentialsError,
    HubAccessError,
    MissingDependency,
    T4SAError,
    UnknownConfig,
    UnknownPackage,
    UnknownRevision,
)

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
        if isinstance(error, CredentialsError | HubAccessError):
            raise typer.Exit(EXIT_CREDENTIALS) from None
        is_usage = isinstance(error, BadOption | MissingDependency | UnknownPackage | UnknownConfig | UnknownRevision)
        raise typer.Exit(EXIT_USAGE if is_usage else EXIT_FAULT) from None


Base = Annotated[str | None, typer.Option("--base-url", help="Folder of the files on a mirror.")]
Folder = Annotated[
    Path | None, typer.Option("--to", help="Folder of the files. Default: $T4SA_HOME/raw; from the Hub: $T4SA_HOME.")
]
User = Annotated[str | None, typer.Option(help="Use only credentials of this user.")]
AllowHttp = Annotated[bool, typer.Option("--allow-insecure-http", help="Send user name and password over plain http.")]


def download(
    packages: Annotated[list[str] | None, typer.Argument(metavar="[PACKAGE]...", help="See --list.")] = None,
    to: Folder = None,
    base_url: Base = None,
    user: User = None,
    allow_insecure_http: AllowHttp = False,
    source: Annotated[From, typer.Option("--from", help="The official site, or a release on the Hub.")] = From.site,
    everything: Annotated[bool, typer.Option("--all", help="Every package.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show packages and what is here; fetch nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show sizes and free disk; fetch nothing.")] = False,
    probe: Annotated[bool, typer.Option("--probe", help="Show how the site answers; fetch nothing.")] = False,
    config: Annotated[str | None, typer.Option(help="From the Hub: shards of this config only.")] = None,
    split: Annotated[str | None, typer.Option(help="From the Hub: shards of this split only.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of the Hub repository. Default: the release line.")] = None,
) -> None:
    """Bring the official packages: resumable, verified, with your user name and password.

    Cut or killed at any moment, the same command goes on. User name and password are looked for when the site asks:
    T4SA_USER and T4SA_PASSWORD, netrc, keyring, a prompt; `t4sa login` stores them. With --from hub: a release (or the
    shards of a config or split) from its Hub repository, with the token of `hf auth login` or HF_TOKEN. Exit status:
    0 done, 1 fault, 2 usage, 3 credentials missing or refused.
    """
    only_site = {
        "PACKAGE": packages,
        "--base-url": base_url,
        "--user": user,
        "--allow-insecure-http": allow_insecure_http,
        "--all": everything,
        "--list": show_list,
        "--probe": probe,
    }
    only_hub = {"--config": config, "--split": split, "--revision": revision}
    wrong = only_hub if source == From.site else only_site
    if given := [name for name, value in wrong.items() if value]:
        raise typer.BadParameter(f"{', '.join(given)} cannot be used with --from {source.value}")
    if everything and packages:
        raise typer.BadParameter("either --all or names of packages")
    with exit_statuses():
        if source == From.hub:
            _download_release(to, config, split, revision, dry_run=dry_run)
            return
        from t4sa_data import catalog
        from t4sa_data.downloading import download as bring
        from t4sa_data.downloading import listing

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
                say=say,
            )
        for one in done:
            typer.echo(f"{one.sha256}  {one.path}")


def _download_release(
    to: Path | None, config: str | None, split: str | None, revision: str | None, *, dry_run: bool
) -> None:
    from t4sa_data.downloading import hub

    done = hub.download_release(to, config=config, split=split, revision=revision, dry_run=dry_run, say=say)
    if not dry_run:
        typer.echo(done.folder)


def removals(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder that holds t4sa/, t4sa-wds/ or t4sa-inplace/, or one of them.")
    ],
    do_apply: Annotated[bool, typer.Option("--apply", help="Remove it. Else it is only told.")] = False,
    current: Annotated[
        Path | None, typer.Option("--current", metavar="DIR", help="Compare with this release; no network.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", metavar="FILE", help="Keys and tweet ids that must go too, one a line.")
    ] = None,
    only_ids: Annotated[bool, typer.Option("--only-ids", help="What --ids names, nothing else; no network.")] = False,
    caches: Annotated[bool, typer.Option(help="Look at your caches, too.")] = True,
) -> None:
    """Show what is held of samples that were removed from the dataset since, and remove it (--apply).

    Keys here are compared with the current release on the Hub. Release folders, releases in place (the bytes in the
    archive become zeros) and caches; only the shards that are touched are written anew. Exit status: 0 nothing is held
    any more, 1 something is, 2 usage, 3 credentials.
    """
    if only_ids and ids is None:
        raise typer.BadParameter("--only-ids needs --ids")
    with exit_statuses():
        from t4sa_data import removals as work

        compared = None
        if not only_ids:
            compared = work.current_of_hub() if current is None else work.current_of_folder(current)
            counted = (
                "" if compared.count is None else f": {compared.count:,} removed in all, by {compared.updated or '-'}"
            )
            say(f"current release {compared.tag}{counted}")
        held = work.find(directory, compared, ids=ids, caches=caches)
        for one in held:
            typer.echo(f"{one.kind}  {'whole' if one.rows is None else f'{one.rows} row(s)'}  {one.path}")
        if not held:
            typer.echo("nothing is held of what was removed")
        elif do_apply:
            work.apply(held, compared, say=say)
            say(f"done; next: t4sa check {directory}")
        else:
            say("run it again with --apply to remove this; close what reads these files first")
            raise typer.Exit(EXIT_FAULT)


def say(line: str) -> None:
    """A line for people: to standard error, above the progress bars."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        typer.echo(line, err=True)


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
    from t4sa_data.origins import origin_of

    with exit_statuses():
        origin = origin_of(base_url or credentials.default_base_url())
        if check:
            for looked in credentials.look(origin, user=user):
                words = f"user {looked.found.user}, this is used" if looked.found else "nothing"
                typer.echo(f"{looked.source:<18}{words:<32}{looked.what}")
                if looked.found:
                    return
            raise typer.Exit(EXIT_CREDENTIALS)
        where = credentials.login(user, base_url=base_url, store=store.value if store else None)
        typer.echo(f"stored in {where}")
        used = next((looked for looked in credentials.look(origin) if looked.found), None)
        if used is not None and used.source != where.partition(" ")[0]:
            typer.echo(f"note: {used.source} comes first ({used.what})")


def logout(base_url: Base = None) -> None:
    """Remove what `t4sa login` stored."""
    from t4sa_data import credentials

    with exit_statuses():
        removed = credentials.logout(base_url=base_url)
        typer.echo("\n".join(f"removed from {place}" for place in removed) or "nothing was stored")
