"""`t4sa get`: the official packages from the site, then a release of them. Found by `t4sa` through the entry points.

Both stages go on where they were, so this one command does too. `python -m builders.get` is the same command.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t4sa_data import credentials
from t4sa_data.commands import EXIT_USAGE, AllowHttp, Base, User, bars, exit_statuses, say

if TYPE_CHECKING:
    from builders.run import PrepareConfig

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

MB_PER_SECOND = (2, 10, 50)
"""Rates that the plan tells hours for: nobody knows the site's before."""
SECONDS_PER_IMAGE = 0.01
"""Processor time that `prepare` takes for an image, as benchmarks/RESULTS.md has it, rounded up."""


@app.command()
def get(
    to: Annotated[Path | None, typer.Option("--to", help="Folder of the packages. Default: $T4SA_HOME/raw.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder that gets t4sa/ and t4sa-wds/. Default: $T4SA_HOME, or the data folder.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the build.")] = os.cpu_count() or 1,
    formats: Annotated[str, typer.Option(help="parquet, wds, or both with a comma.")] = "parquet,wds",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Build no shards: a table beside the archive. For 100 GB of disk.")
    ] = False,
    base_url: Base = None,
    user: User = None,
    allow_insecure_http: AllowHttp = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it starts.")] = False,
) -> None:
    """Download the official packages with your user name and password, and build a release of them.

    Says first what disk and time it takes, and asks. Cut or killed at any moment, the same command goes on. Exit
    status: 0 done, 1 fault, 2 usage, 3 credentials missing or refused.
    """
    from builders.cli import build_and_tell, chosen_formats
    from builders.run import PrepareConfig
    from t4sa_data import download, places

    with exit_statuses():
        raw = to or places.raw_folder()
        chosen = chosen_formats(formats)
        config = PrepareConfig(raw=raw, out=out or places.home(), workers=workers, formats=chosen, in_place=in_place)
        typer.echo(plan_words(config), err=True)
        if not yes:
            _ask()
        with bars() as progress:
            download(
                to=raw,
                base_url=base_url,
                user=user,
                allow_insecure_http=allow_insecure_http,
                progress=progress,
                say=say,
            )
        build_and_tell(config)


def _ask() -> None:
    """Go on only when somebody says so."""
    if not credentials.can_prompt():
        typer.echo("error: there is no terminal to ask on. Add --yes to start without asking.", err=True)
        raise typer.Exit(EXIT_USAGE)
    typer.confirm("Start?", abort=True, err=True)


def plan_words(config: PrepareConfig) -> str:
    """What `t4sa get` will fetch and write, on which disk, in what time."""
    from t4sa_data import catalog
    from t4sa_data.downloading import plan
    from t4sa_data.downloading.listing import free_bytes, missing_bytes
    from t4sa_data.summary import size

    packages = plan()
    missing, _ = missing_bytes(packages, config.raw)
    files = [config.raw / package.filename for package in packages]
    is_here = all(path.is_file() for path in files)
    archive = files[0].stat().st_size if files[0].is_file() else packages[0].num_bytes or 0
    release = 0 if config.in_place else archive * len(config.formats)
    raw_free, out_free = free_bytes(config.raw), free_bytes(config.raw if config.in_place else config.out)
    hours = ", ".join(f"{missing / rate / 3.6e9:.1f} h at {rate} MB/s" for rate in MB_PER_SECOND)
    num_images = catalog.PUBLISHED["balanced"].total
    build_hours = num_images * SECONDS_PER_IMAGE / config.workers / 3600
    what = "a table beside the archive" if config.in_place else f"{size(release)} ({' and '.join(config.formats)})"
    where = config.raw / "t4sa-inplace" if config.in_place else config.out
    lines = [
        f"1. fetch: {'all packages are here' if is_here else f'about {size(missing)} ({hours})'}",
        f"   into {config.raw}, {size(raw_free)} free",
        f"2. build: {what}, about {build_hours:.1f} h with {config.workers} worker(s) for {num_images:,} images",
        f"   into {where}, {size(out_free)} free",
    ]
    if _share_disk(config.raw, config.out):
        short = missing + release > raw_free
    else:
        short = missing > raw_free or release > out_free
    if short:
        ways = ["--to or --out on another disk"]
        ways += [] if config.in_place else ["--in-place (no shards)"]
        ways += ["--formats parquet (half)"] if len(config.formats) > 1 and not config.in_place else []
        lines.append(f"That is MORE DISK THAN IS FREE. Ways out: {', '.join(ways)}.")
    return "\n".join(lines)


def _share_disk(one: Path, other: Path) -> bool:
    devices = []
    for folder in (one, other):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        devices.append(there.stat().st_dev)
    return devices[0] == devices[1]


if __name__ == "__main__":
    app()
