"""`t4sa build`, found by `t4sa` through the entry points of this package."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t4sa_data.commands import exit_statuses

if TYPE_CHECKING:
    from builders.engine import Engine

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Where(StrEnum):
    """Where tasks run."""

    local = "local"
    ray = "ray"


@app.command()
def build(
    tweets: Annotated[
        list[Path],
        typer.Argument(metavar="TWEETS", help="Raw tweets: JSON lines, plain or .gz, .bz2, .zst; tar or zip; folders."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Gets t4sa/, t4sa-wds/, quarantine/, build/.")],
    config: Annotated[Path | None, typer.Option(metavar="TOML", help="What to build; default: the paper's.")] = None,
    first: Annotated[str, typer.Option("--from", metavar="STAGE", help="Do this stage and those behind again.")] = "",
    last: Annotated[str, typer.Option("--to", metavar="STAGE", help="The last stage to do.")] = "",
    engine: Annotated[Where, typer.Option(help="local: processes here; ray: a cluster.")] = Where.local,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Of the cluster's head; auto, or local.")] = "auto",
    mirror: Annotated[str | None, typer.Option(metavar="URL", help="An object store that gets a copy.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Tasks at a time. Default: one a processor.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what stands and what is to do; do nothing.")] = False,
) -> None:
    """Build T4SA and B-T4SA from raw tweets: collect, label, select, fetch, inspection, dedup, balance, split, write.

    What stands is not done again: killed at any moment, the same command goes on and ends with the same bytes; another
    cut, distance or split costs the stages from there on. A page on the build: DIR/build/report.html. Exit status: 0
    done, 1 fault, 2 usage.
    """
    with exit_statuses():
        from builders import pipeline
        from builders.build_config import read_config
        from builders.mirror import Mirror

        chosen = read_config(config)
        end = last or pipeline.NAMES[-1]
        if dry_run:
            from builders.engine import Local

            for name, what in pipeline.plan(tweets, out, chosen, Local(workers or 1), last=end):
                typer.echo(f"{name:<12}{what}")
            return
        with _engine(engine, address, workers) as where:
            copy = Mirror(mirror) if mirror else None
            outcome = pipeline.build(
                tweets, out, chosen, where, first=first or None, last=end, mirror=copy, say=_say, bar=_bar
            )  # fmt: skip
        for name, counts in outcome.counts.items():
            typer.echo(f"{name:<12}{pipeline.told(counts)}")
        seconds = ", ".join(f"{stage} {value:.1f}" for stage, value in outcome.seconds.items())
        typer.echo(f"\nseconds: {seconds}" if seconds else "\nnothing to do: all of it stands")
        if end == pipeline.NAMES[-1]:
            typer.echo(f"report: {out / 'build' / 'report.html'}\nnext: t4sa check {out}")


def _engine(where: Where, address: str, workers: int | None) -> AbstractContextManager[Engine]:
    if where == Where.ray:
        from builders.cluster import Ray

        return Ray(address, workers)
    from builders.engine import Local

    return Local(workers or os.cpu_count() or 1, apart=True)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _bar(title: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total or None, desc=title, disable=not sys.stderr.isatty())


if __name__ == "__main__":
    app()
