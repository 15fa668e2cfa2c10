"""`t4sa get`: the official packages from the site, then a release of them. Found by `t4sa` through the entry points.

Both stages go on where they were, so this one command does too. `python -m builders.get` is the same command.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t4sa_data import credentials
from t4sa_data.commands import EXIT_USAGE, AllowHttp, Base, User, bars, exit_statuses, say

if TYPE_CHECKING:
    from builders.run import PrepareConfig
    from builders.sources.passed import Wanted

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def get(
    to: Annotated[Path | None, typer.Option("--to", help="Folder of the packages. Default: $T4SA_HOME/raw.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder that gets t4sa/ and t4sa-wds/. Default: $T4SA_HOME, or the data folder.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the build.")] = os.cpu_count() or 1,
    formats: Annotated[str, typer.Option(help="parquet, wds, or both with a comma.")] = "parquet,wds",
    configs: Annotated[str, typer.Option(help="Configs with commas. Default: b-t4sa and the texts.")] = "",
    splits: Annotated[
        str, typer.Option("--split", help="Splits of the image configs, with commas. Default: all.")
    ] = "",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Build no shards: a table beside the archive. For 100 GB of disk.")
    ] = False,
    base_url: Base = None,
    user: User = None,
    allow_insecure_http: AllowHttp = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it starts.")] = False,
) -> None:
    """Download the official packages with your user name and password, and build a release of them.

    Says first what disk and time it takes, which other ways there are, and asks. With `--configs b-t4sa-256` or some
    splits only, the image archive passes by and is never stored: what is wanted of it stays. Cut or killed at any
    moment, the same command goes on. Exit status: 0 done, 1 fault, 2 usage, 3 credentials missing or refused.
    """
    from builders import ways
    from builders.cli import build_and_tell, chosen_formats, names_of
    from builders.run import PrepareConfig
    from t4sa_data import download, places
    from t4sa_data.catalog import SPLITS

    with exit_statuses():
        config = PrepareConfig(
            raw=to or places.raw_folder(),
            out=out or places.home(),
            workers=workers,
            formats=chosen_formats(formats),
            configs=names_of(configs),
            splits=names_of(splits) or SPLITS,
            in_place=in_place,
        )
        ways.require_possible(config)
        wanted = ways.wanted_of(config)
        if wanted is not None and _is_built(config, wanted):
            build_and_tell(config)
            return
        typer.echo(ways.plan_words(config), err=True)
        if not yes:
            _ask()
        access = {"base_url": base_url, "user": user, "allow_insecure_http": allow_insecure_http}
        with bars() as progress:
            packages = None if ways.has_images(config) and wanted is None else ways.TABLES
            download(packages, config.raw, progress=progress, say=say, **access)  # type: ignore[arg-type]
            if wanted is not None:
                _let_pass(config, wanted, progress, access)
        build_and_tell(config)
        if wanted is not None:
            ways.passed_of(config).clear()


def _is_built(config: PrepareConfig, wanted: Wanted) -> bool:
    """Whether the release stands for which the archive has passed by: what it left is not needed any more."""
    from builders import ways
    from builders.prepare import stands
    from t4sa_data.catalog import PACKAGES

    passed = ways.passed_of(config)
    if not (passed.is_done and passed.wanted == wanted):
        return False
    return all((config.raw / PACKAGES[name].filename).is_file() for name in ways.TABLES) and stands(config)


def _let_pass(
    config: PrepareConfig, wanted: Wanted, progress: Callable[[str, int, int | None], object], access: dict[str, Any]
) -> None:
    """Let the image archive pass by."""
    from builders import ways
    from builders.engine import Local
    from builders.passing import run_pass
    from t4sa_data.catalog import OFFICIAL_LISTS
    from t4sa_data.downloading import locked, site_of
    from t4sa_data.reading.passing import PassingFile

    beside = (config.raw / name for name in OFFICIAL_LISTS.values())
    with (
        locked(config.raw),
        Local(config.workers) as engine,
        PassingFile(*site_of(ways.IMAGES, **access)) as file,
    ):
        run_pass(
            file,
            ways.passed_of(config),
            wanted,
            lists={path.name: path.read_bytes() for path in beside if path.is_file()},
            engine=engine,
            say=say,
            progress=lambda have, total: progress(ways.IMAGES.name, have, total),
        )


def _ask() -> None:
    """Go on only when somebody says so."""
    if not credentials.can_prompt():
        typer.echo("error: there is no terminal to ask on. Add --yes to start without asking.", err=True)
        raise typer.Exit(EXIT_USAGE)
    typer.confirm("Start?", abort=True, err=True)


if __name__ == "__main__":
    app()
