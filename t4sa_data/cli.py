"""The command `t4sa`. The wings' commands come from the entry points of the group `t4sa_data.commands`.

Only the command that is asked for is loaded, and heavy packages inside it, so that `t4sa --help` stays quick and a
missing optional package of one command leaves the others alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from t4sa_data import commands
from t4sa_data.catalog import DEFAULT_CONFIG
from t4sa_data.errors import T4SAError

GROUP = "t4sa_data.commands"
"""Entry-point group; each entry names its extra: `prepare = "builders.cli:app [build]"`."""


def install_line(point: EntryPoint) -> str:
    """The pip line that brings what a wing's command needs, from its entry point's extras."""
    extras = ",".join(point.extras)
    return f'pip install "t4sa-data{f"[{extras}]" if extras else ""}"'


def _is_ours(error: ModuleNotFoundError) -> bool:
    """A module of this distribution cannot be missing for want of an extra: that is a fault of ours."""
    wings = {point.value.split(".")[0] for point in entry_points(group=GROUP)}
    return (error.name or "").split(".")[0] in {"t4sa_data", *wings}


def _not_installed(point: EntryPoint, error: ModuleNotFoundError) -> Any:
    """A command that says which line installs it, and exits 2."""
    needs = f"`t4sa {point.name}` needs the package {error.name}, which is not installed. Install it with:"
    line = install_line(point)
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(
        point.name,
        help=f"Not installed: {line}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    )
    def stub() -> None:
        typer.echo(f"error: {needs} {line}", err=True)
        raise typer.Exit(2)

    return typer.main.get_command(app)


class Wings(TyperGroup):
    """The group of all commands: ours, and those that installed distributions register under `GROUP`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names only; nothing is loaded."""
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Ours, or the wing's, loaded now; a stub where a package it needs is missing."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        for point in entry_points(group=GROUP, name=cmd_name):
            try:
                command = typer.main.get_command(point.load())
            except ModuleNotFoundError as error:
                if _is_ours(error):
                    raise
                command = _not_installed(point, error)
            command.name = cmd_name
            return command
        return None

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it with 130, as shells expect."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except ModuleNotFoundError as error:  # imported inside the command
            points = [] if _is_ours(error) else list(entry_points(group=GROUP, name=str(ctx.invoked_subcommand)))
            if not points:
                raise
            _not_installed(points[0], error).main(args=[], standalone_mode=False)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=Wings,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its markup would eat the extra in `t4sa-data[build]`, and rich takes 0.14 s to import
    help="T4SA and B-T4SA (Twitter for Sentiment Analysis): build, check and read releases of the dataset.",
)
Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder that holds t4sa/ and t4sa-wds/, or one of them.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"t4sa-data {version('t4sa-data')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of every command: none but `--version`."""


@app.command()
def check(
    directory: Directory,
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every image: size and hash.")] = False,
) -> None:
    """Check a release: every file, row and number. One line per fault; exit status 1 if there is any."""
    from t4sa_data.summary import size
    from t4sa_data.testing import check_release

    with _progress(directory) as advance:
        report = check_release(directory, deep, progress=advance)
    for fault in report.faults:
        typer.echo(str(fault))
    what = (
        f"{report.files:,} files, {report.samples:,} samples, {size(report.bytes)} in {len(report.folders)} folder(s)"
    )
    typer.echo(f"{'ok' if report.ok else f'{len(report.faults)} fault(s)'}: {what}", err=not report.ok)
    if not report.ok:
        raise typer.Exit(1)


class _progress:  # noqa: N801
    """A progress bar over the bytes of a release; silent where standard error is no terminal."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> Callable[[int], object]:
        from tqdm import tqdm

        from t4sa_data.errors import ReleaseError
        from t4sa_data.manifest import load_manifest
        from t4sa_data.testing.check import find_folders

        total = None
        try:
            manifests = [load_manifest(folder) for folder in find_folders(self._directory)[0]]
            total = sum(file.bytes for manifest in manifests for file in manifest.files)
        except ReleaseError:
            pass  # the check tells it
        quiet = not sys.stderr.isatty()
        self._bar: Any = tqdm(total=total, unit="B", unit_scale=True, desc="check", disable=quiet, leave=False)
        update: Callable[[int], object] = self._bar.update
        return update

    def __exit__(self, *error: object) -> None:
        self._bar.close()


@app.command()
def info(
    directory: Directory,
    contact_sheet: Annotated[
        Path | None, typer.Option("--contact-sheet", help="Write a PNG of pictures with their labels instead.")
    ] = None,
    config: Annotated[str, typer.Option(help="Of the contact sheet.")] = DEFAULT_CONFIG,
    split: Annotated[str, typer.Option(help="Of the contact sheet.")] = "train",
    num: Annotated[int, typer.Option(min=1, help="Pictures on the contact sheet.")] = 48,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
    blur: Annotated[bool, typer.Option("--blur", help="Make them hard to recognise: these are tweets.")] = False,
    texts: Annotated[bool, typer.Option("--texts", help="Show the first words of each tweet too.")] = False,
) -> None:
    """Show what a release holds, in a screen; or a sheet of its pictures.

    Configs, splits, classes, bytes, content digest, the brace strings of the shards, a few rows without their text.
    """
    from t4sa_data.summary import describe

    if contact_sheet is None:
        typer.echo(describe(directory))
        return
    from t4sa_data.contact_sheet import contact_sheet as write

    count = write(directory, contact_sheet, config=config, split=split, num=num, seed=seed, blur=blur, texts=texts)
    typer.echo(f"{contact_sheet}: {count} pictures of {config}/{split}")


@app.command()
def where() -> None:
    """List every place where releases are looked for."""
    from t4sa_data.summary import list_places

    typer.echo(list_places())


@app.command()
def cite() -> None:
    """Print the paper's BibTeX entry."""
    from t4sa_data.catalog import CITATION

    typer.echo(CITATION.rstrip())


app.command()(commands.download)
app.command()(commands.login)
app.command()(commands.logout)
app.command()(commands.removals)


def main() -> None:
    """Entry point of `t4sa`: errors of this package are one line on standard error and exit status 2."""
    try:
        app()
    except T4SAError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:  # before or after a command
        sys.exit(130)


if __name__ == "__main__":
    main()
